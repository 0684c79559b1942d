//! What an image costs: from a registry on this machine to ready to run, against `skopeo copy` and
//! `umoci unpack` of the same image in the same run; the memory that takes; and what a second pod
//! of the same image adds to the host's page cache.
//!
//! The image: Debian with a compiler and an interpreter, 320 MB in one layer.

use sandbox_tests::command::Tool;
use sandbox_tests::registry::Registry;
use sandbox_tests::{Host, temporary};
use serde_json::json;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Promised figures.
const MAX_RATIO: f64 = 0.5;
const MAX_MEMORY_MIB: f64 = 64.0;
const MAX_CACHE_MIB: f64 = 4.0;

/// How often memory is looked at.
const PERIOD: Duration = Duration::from_millis(20);

/// What a pod reads of the image, so that it is in the page cache.
const READ: &str = "cat /usr/bin/* /usr/lib/gcc/*/*/* >/dev/null 2>&1; echo up; read line";

pub fn run(out: &Path) -> Result<bool, Box<dyn Error>> {
    let images = std::env::var("SANDBOX_TEST_IMAGES")?;
    let registry = Registry::new();
    registry.push(format!("oci:{images}/debian"), "debian:13");
    let name = registry.image("debian:13");

    let host = Host::trusting();
    let (ours, memory) = ours(&host, &name)?;
    let theirs = theirs(&name);
    let [resident, cache] = second_pod(&host, &name)?;
    let promises = [
        ("time, of that of skopeo and umoci", ours / theirs, MAX_RATIO),
        ("memory of all processes, peak (MiB)", memory, MAX_MEMORY_MIB),
        ("second pod: image in page cache (MiB)", resident, MAX_CACHE_MIB),
        ("second pod: page cache in all (MiB)", cache, MAX_CACHE_MIB),
    ];
    println!(
        "An image of Debian, 320 MB, from a local registry to ready (1 s = 10^9 instructions)"
    );
    println!("  sandbox fetch                        {ours:>9.1} s");
    println!("  skopeo copy, umoci unpack            {theirs:>9.1} s");
    for (what, is, at_most) in &promises {
        let verdict = if is <= at_most { "" } else { "  MISSED" };
        println!("  {what:<38} {is:>7.2}    at most {at_most}{verdict}");
    }
    let list: Vec<_> = promises
        .iter()
        .map(|(name, is, at_most)| json!({"figure": name, "is": is, "at_most": at_most}))
        .collect();
    let report = json!({"name": "image", "unit": "1 s = 1000000000 instructions",
        "fetch_s": ours, "skopeo_umoci_s": theirs, "promises": list});
    fs::write(out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(promises.iter().all(|(_, is, at_most)| is <= at_most))
}

/// Seconds of a fetch, and the most memory of its processes: the sum of their resident sets.
fn ours(host: &Host, name: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let start = Instant::now();
    let mut fetch = host.start(["fetch", "--insecure-options=http", name]);
    let data = host.data();
    let mut peak = 0;
    while fetch.is_alive() {
        let all = sandbox_tests::data::processes(&data);
        peak = peak.max(all.iter().map(|(pid, _)| resident_kib(*pid)).sum());
        std::thread::sleep(PERIOD);
    }
    let took = start.elapsed();
    fetch.end().exits(0);
    let mib = u32::try_from(peak)? / 1024;
    Ok((took.as_secs_f64(), f64::from(mib)))
}

/// A process that has ended has none.
fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    value(&status, "VmRSS:")
}

/// The number in a line of a file of /proc.
fn value(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Seconds that others need until the files are there.
fn theirs(name: &str) -> f64 {
    let directory = temporary();
    let layout = directory.path().join("layout");
    let image = format!("{}:tag", layout.display());
    let start = Instant::now();
    Tool::new("skopeo")
        .with(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"])
        .with([format!("docker://{name}"), format!("oci:{image}")])
        .run();
    Tool::new("umoci")
        .with(["unpack", "--image", &image])
        .with([directory.path().join("bundle")])
        .run();
    start.elapsed().as_secs_f64()
}

/// MiB that a second pod, which reads what the first one has read, adds to what is cached of the
/// image, and to the page cache as a whole. Guest memory is not in it: it belongs to no file.
fn second_pod(host: &Host, name: &str) -> Result<[f64; 2], Box<dyn Error>> {
    let id = host.fetch_with(name, &["--insecure-options=http"]);
    let rootfs = host.rootfs(&id);
    let first = pod(host, &id)?;
    let before = [cached(&rootfs)?, page_cache()?];
    let second = pod(host, &id)?;
    let after = [cached(&rootfs)?, page_cache()?];
    for mut pod in [first, second] {
        pod.kill()?;
        pod.wait()?;
    }
    let mib = |index: usize| -> Result<f64, Box<dyn Error>> {
        let kib = after[index].saturating_sub(before[index]);
        Ok(f64::from(u32::try_from(kib)?) / 1024.0)
    };
    Ok([mib(0)?, mib(1)?])
}

/// A pod that has read its image and waits.
fn pod(host: &Host, id: &str) -> Result<Child, Box<dyn Error>> {
    let (words, _) = host.run(id).with("--interactive").script(READ).command_line();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().ok_or("no output")?);
    std::io::BufRead::read_line(&mut output, &mut line)?;
    child.stdin.as_mut().ok_or("no input")?.flush()?;
    if line == "up\n" { Ok(child) } else { Err(format!("the pod said {line:?}").into()) }
}

/// KiB of a file that are in the page cache.
fn cached(file: &Path) -> Result<u64, Box<dyn Error>> {
    let options = ["--bytes", "--noheadings", "--output", "RES"];
    let bytes: u64 = Tool::new("fincore").with(options).with([file]).text().parse()?;
    Ok(bytes / 1024)
}

/// KiB of files in the page cache.
fn page_cache() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(value(&text, "Cached:").saturating_sub(value(&text, "Shmem:")))
}
