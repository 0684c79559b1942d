//! What measuring costs: from the exec of `sandbox run` to the app's first line, with and without
//! `--tpm-attest`, of the same image in the same run. The evidence of the last one is left for the
//! benchmark [`crate::verify`].
//!
//! Of a measured launch, the time in which the TPM has a command is taken off: that is what the chip
//! makes of it, and `sandbox-attest` reports it. Log and keys are in memory here, so that no disk
//! is in the figures: on a disk one write that is synced comes on top.

use crate::verify::{DIGESTS, FULL, NONCE, POLICY};
use sandbox_attestation::evidence::{Evidence, LoggedRecord};
use sandbox_attestation::log::{Entry, Limits, Parsed, parse};
use sandbox_attestation::record::{End, Event, Exit, Launch, Uuid};
use sandbox_tests::command::Tool;
use sandbox_tests::image::Image;
use sandbox_tests::{Host, temporary};
use serde_json::{Value, json};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Promised figures.
const MAX_COST_MS: f64 = 3.0;
const MAX_GROWTH_MS: f64 = 1.0;

/// Launches of each kind; an odd number.
const RUNS: usize = 5;

/// The register of the log.
const PCR: u8 = 15;

/// So long is the log with which launches are compared, and that is verified.
const RECORDS: u64 = 1000;

pub fn run(out: &Path) -> Result<bool, Box<dyn Error>> {
    let bench = Bench::new()?;
    // What only the first one pays for: files read, images unpacked, keys made, a log begun.
    bench.launch(false)?;
    bench.launch(true)?;
    let short = bench.compare()?;
    bench.grow()?;
    // One launch finds a log that grew in another way than by launches, and reads it.
    bench.launch(true)?;
    let long = bench.compare()?;
    bench.leave_evidence(out.parent().unwrap_or(Path::new(".")))?;

    let promises = [
        ("measured launch: ours", short.cost(), MAX_COST_MS),
        ("the same after 1000 records", long.cost(), MAX_COST_MS + MAX_GROWTH_MS),
        ("growth over 1000 records", long.cost() - short.cost(), MAX_GROWTH_MS),
    ];
    println!("Measured launches (1 ms = 10^6 instructions, medians of {RUNS})");
    for (what, figures) in [("", &short), (", after 1000 records", &long)] {
        println!("  exec to first line{what}");
        println!("    plain                               {:>9.2} ms", figures.plain);
        println!("    measured, without the TPM's time    {:>9.2} ms", figures.measured);
        println!("    the TPM's time                      {:>9.2} ms", figures.tpm);
        println!("    sandbox-attest, without the TPM's   {:>9.2} ms", figures.attestor);
    }
    for (what, is, at_most) in &promises {
        let verdict = if is <= at_most { "" } else { "  MISSED" };
        println!("  {what:<40} {is:>7.2} ms  at most {at_most}{verdict}");
    }
    let list: Vec<_> = promises
        .iter()
        .map(|(name, is, at_most)| json!({"figure": name, "is": is, "at_most": at_most}))
        .collect();
    let report = json!({"name": "attest", "unit": "1 ms = 1000000 instructions",
        "launches": [short.json(), long.json()], "promises": list});
    fs::write(out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(promises.iter().all(|(_, is, at_most)| is <= at_most))
}

/// Medians, in milliseconds.
struct Figures {
    plain: f64,
    /// Without the TPM's time.
    measured: f64,
    tpm: f64,
    /// `sandbox-attest` from its turn to its answer, without the TPM's time.
    attestor: f64,
}

impl Figures {
    fn cost(&self) -> f64 {
        self.measured - self.plain
    }

    fn json(&self) -> Value {
        let Self { plain, measured, tpm, attestor } = self;
        json!({"plain_ms": plain, "measured_ms": measured, "tpm_ms": tpm, "attestor_ms": attestor})
    }
}

/// One launch, in milliseconds.
struct Sample {
    all: f64,
    work: f64,
    tpm: f64,
}

struct Bench {
    host: Host,
    image: String,
    _directory: TempDir,
    state: TempDir,
}

impl Bench {
    fn new() -> Result<Self, Box<dyn Error>> {
        let directory = temporary();
        let state = tempfile::tempdir_in("/dev/shm")?;
        let host = Host::trusting();
        let settings = json!({"version": 1, "pcr": PCR, "directory": state.path().join("attest")});
        host.put("/etc/sandbox/attest.json", settings.to_string());
        let image = Image::tiny_and([]).layout(&directory.path().join("image"));
        let image = host.fetch(image);
        Ok(Self { host, image, _directory: directory, state })
    }

    /// Launches in turn, so that what else goes on meets both kinds.
    fn compare(&self) -> Result<Figures, Box<dyn Error>> {
        let (mut plain, mut measured) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            plain.push(self.launch(false)?);
            measured.push(self.launch(true)?);
        }
        Ok(Figures {
            plain: median(plain.iter().map(|it| it.all)),
            measured: median(measured.iter().map(|it| it.all - it.tpm)),
            tpm: median(measured.iter().map(|it| it.tpm)),
            attestor: median(measured.iter().map(|it| it.work - it.tpm)),
        })
    }

    /// From the exec to the app's first line.
    fn launch(&self, measured: bool) -> Result<Sample, Box<dyn Error>> {
        let mut run = self.host.run(&self.image).with("--interactive");
        if measured {
            run = run.with("--tpm-attest");
        }
        let (mut words, _) = run.script("echo up; read line").command_line();
        let verb = words.iter().position(|word| word == "run").ok_or("no verb")?;
        words.insert(verb, OsString::from("--debug"));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        output.read_line(&mut line)?;
        let all = start.elapsed().as_secs_f64() * 1e3;
        child.stdin.take().ok_or("no input")?.write_all(b"\n")?;
        let mut said = String::new();
        child.stderr.take().ok_or("no messages")?.read_to_string(&mut said)?;
        if !child.wait()?.success() || line != "up\n" {
            return Err(format!("the pod said {line:?} and {said}").into());
        }
        if !measured {
            return Ok(Sample { all, work: 0.0, tpm: 0.0 });
        }
        let times = said.lines().find(|line| line.contains("measured as record"));
        let times = times.ok_or_else(|| format!("no times in {said}"))?;
        let before = |unit: &str| -> Result<f64, Box<dyn Error>> {
            let end = times.find(unit).ok_or_else(|| format!("no times in {times}"))?;
            let number = times[..end].rsplit(' ').next().unwrap_or_default();
            Ok(number.parse::<f64>()? / 1e3)
        };
        Ok(Sample { all, work: before(" us in it")?, tpm: before(" us of them")? })
    }

    /// The log of this boot.
    fn log(&self) -> Result<PathBuf, Box<dyn Error>> {
        let logs = fs::read_dir(self.state.path().join("attest/log"))?;
        let mut logs = logs.map(|log| log.map(|log| log.path())).collect::<Result<Vec<_>, _>>()?;
        logs.retain(|path| path.extension().is_some_and(|ending| ending == "cel"));
        Ok(logs.pop().ok_or("no log")?)
    }

    fn read(&self) -> Result<Vec<Entry>, Box<dyn Error>> {
        let Parsed { entries, .. } = parse(&fs::read(self.log()?)?, &Limits::default())?;
        Ok(entries)
    }

    /// Makes the log as long as it is after five hundred pods, the TPM's own tool extending it.
    fn grow(&self) -> Result<(), Box<dyn Error>> {
        let known = self.read()?;
        let mut launches = known.iter().filter_map(|entry| match &entry.content {
            Some(Event::Launch(launch)) => Some(launch),
            _ => None,
        });
        let sample = launches.next_back().ok_or("no launch in the log")?;
        let mut file = fs::File::options().append(true).open(self.log()?)?;
        let mut extensions = Vec::new();
        for number in (u64::try_from(known.len())?..RECORDS).step_by(2) {
            let pod: Uuid = format!("6b1c3f3e-0000-4000-8000-{number:012x}").parse()?;
            let mut launch = Launch::clone(sample);
            (launch.number, launch.record.pod) = (number, pod.clone());
            let exit = Exit {
                version: launch.version,
                boot_id: launch.boot_id.clone(),
                pod,
                launch: number,
                end: End::Status(0),
            };
            for (number, event) in
                [(number, Event::Launch(Box::new(launch))), (number + 1, Event::Exit(exit))]
            {
                let banks = known[0].digests.keys().copied();
                let entry = Entry::new(number, PCR.into(), event, banks)?;
                file.write_all(&entry.to_json_seq()?)?;
                let digests = entry.digests.iter().map(|(bank, digest)| {
                    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("{bank}={digits}")
                });
                extensions.push(format!("{PCR}:{}", digests.collect::<Vec<_>>().join(",")));
            }
        }
        for some in extensions.chunks(100) {
            Tool::new("tpm2_pcrextend").with(some).run();
        }
        Ok(())
    }

    /// Evidence of a pod at the end of the log: with others' records as digests, as it always is, and
    /// with all of them in full, as it would be of a host with one tenant.
    fn leave_evidence(&self, out: &Path) -> Result<(), Box<dyn Error>> {
        let saved = self.state.path().join("uuid");
        let mut option = OsString::from("--uuid-file-save=");
        option.push(&saved);
        let run = self.host.run(&self.image).with("--tpm-attest").with("--interactive");
        let mut pod = run.with(option).script("echo up; read line").start_open();
        pod.wait_for("up");
        let uuid = fs::read_to_string(saved)?.trim().to_owned();
        let (nonce, pcrs) = (format!("--nonce={NONCE}"), format!("--pcrs=sha256:{PCR}"));
        let quoted = self.host.sandbox(["attest", "quote", &uuid, &nonce, &pcrs]).exits(0);
        let records: Vec<_> =
            self.read()?.iter().map(LoggedRecord::try_from).collect::<Result<_, _>>()?;
        let digests = quoted.text();
        let mut evidence = Evidence::parse(digests.as_bytes())?;
        evidence.log.records = records;
        fs::write(out.join(DIGESTS), &digests)?;
        fs::write(out.join(FULL), evidence.to_json()?)?;
        writeln!(pod.stdin.as_mut().ok_or("no input")?)?;
        pod.end().exits(0);

        let status = self.host.sandbox(["attest", "status"]).exits(0).text();
        let key = status.lines().find_map(|line| line.strip_prefix("attestation key"));
        let policy = json!({
            "version": 1,
            "attestationKeys": {"pinned": [key.ok_or("no key")?.trim()]},
            "pcrs": {"select": {"sha256": [PCR]}, "log": PCR},
        });
        fs::write(out.join(POLICY), policy.to_string())?;
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
