//! What the program has given up before it hears its request.

use super::place::{PROGRAM, tcti};
use sandbox_attestation::{session::Attestor, settings::Settings};
use std::{
    fs,
    os::fd::AsRawFd as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

#[test]
fn the_program_has_nothing_that_it_does_not_need() {
    // Something that it must not inherit.
    let secret = fs::File::open("/etc/passwd").unwrap();
    let kept = rustix::io::dup(&secret).unwrap();
    let flags = rustix::io::fcntl_getfd(&kept).unwrap();
    rustix::io::fcntl_setfd(&kept, flags - rustix::io::FdFlags::CLOEXEC).unwrap();
    assert!(kept.as_raw_fd() > 2);

    let settings = Settings { tcti: tcti(1), ..Settings::default() };
    let attestor = Attestor::start(Path::new(PROGRAM), &settings).unwrap();
    let process = Path::new("/proc").join(attestor.id().to_string());
    let begin = Instant::now();
    let status = loop {
        let status = fs::read_to_string(process.join("status")).unwrap();
        if status.contains("NoNewPrivs:\t1") {
            break status;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "it is not confined: {status}");
        sleep(Duration::from_millis(5));
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{set}:\t"))).unwrap();
        let left = u64::from_str_radix(line, 16).unwrap();
        // CAP_DAC_OVERRIDE, for a device that belongs to another user.
        assert_eq!(left & !0b10, 0, "{set}: {line}");
    }
    let open: Vec<_> = fs::read_dir(process.join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse::<i32>().unwrap())
        .collect();
    assert!(open.iter().all(|&fd| fd <= 3), "{open:?}");
    let passwd = fs::canonicalize("/etc/passwd").unwrap();
    for fd in open {
        // One that is gone meanwhile is not open.
        if let Ok(target) = fs::read_link(process.join(format!("fd/{fd}"))) {
            assert_ne!(target, passwd);
        }
    }
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}
