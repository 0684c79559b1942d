//! A TPM, a directory, and the tools that ask the TPM without us.

use sandbox_attestation::{
    Bank, Pcrs,
    log::{Entry, Limits, parse, replay, start},
    record::{App, Content, Image, Kernel, Record, Signature, Uuid, VersionOne},
    session::{Attestor, Launched, Patience, SessionError},
    settings::Settings,
};
use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sandbox-attest");

/// Whether the tools are there; says so if they aren't.
pub(crate) fn tools() -> bool {
    let missing = ["swtpm", "tpm2_pcrread"].into_iter().find(|tool| {
        !Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if let Some(tool) = missing {
        eprintln!("skipped: {tool} is not installed (Debian: swtpm, tpm2-tools)");
    }
    missing.is_none()
}

/// A directory and a TPM of its own.
pub(crate) struct Place {
    directory: TempDir,
    tpm: Option<Child>,
    pub(crate) port: u16,
    pub(crate) settings: Settings,
}

impl Place {
    /// Starts a TPM; `None`, and a line about it, where that is not possible.
    pub(crate) fn new() -> Option<Self> {
        tools().then(|| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("tpm")).unwrap();
            let port = two_ports();
            let settings = Settings {
                tcti: tcti(port),
                directory: directory.path().join("attest"),
                ..Settings::default()
            };
            let mut place = Self { directory, tpm: None, port, settings };
            place.power_on();
            place
        })
    }

    /// Starts the TPM, as a host does that boots.
    pub(crate) fn power_on(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("swtpm.log")).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", self.directory.path().join("tpm").display()))
            .arg("--server")
            .arg(format!("type=tcp,port={}", self.port))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={}", self.port + 1))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.tpm = Some(child);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port + 1)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "swtpm does not listen");
            sleep(Duration::from_millis(5));
        }
    }

    /// Takes the TPM's power.
    pub(crate) fn power_off(&mut self) {
        if let Some(mut tpm) = self.tpm.take() {
            tpm.kill().unwrap();
            tpm.wait().unwrap();
        }
    }

    /// A file of the place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program, waiting for a request.
    pub(crate) fn attestor(&self) -> Attestor {
        self.attestor_at(&self.settings)
    }

    /// The same with other settings.
    pub(crate) fn attestor_at(&self, settings: &Settings) -> Attestor {
        Attestor::start(Path::new(PROGRAM), settings).unwrap()
    }

    /// The same with little patience.
    pub(crate) fn hasty(&self, settings: &Settings, turn: u64, work: u64) -> Attestor {
        Attestor::start_with(Path::new(PROGRAM), settings, Patience { turn, work }).unwrap()
    }

    /// Launches a pod without a quote.
    pub(crate) fn launch(&self, pod: u32) -> Result<Launched, SessionError> {
        self.attestor().launch(record(pod), None)
    }

    /// The log's file.
    pub(crate) fn log_file(&self) -> PathBuf {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        self.settings.directory.join("log").join(format!("{}.cel", boot.trim()))
    }

    /// The log's content.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let parsed = parse(&std::fs::read(self.log_file()).unwrap(), &Limits::default()).unwrap();
        assert_eq!(parsed.torn, None);
        parsed.entries
    }

    /// What the register holds, as tpm2_pcrread(1) reads it.
    pub(crate) fn register(&self, pcr: u8) -> Pcrs {
        let banks = Bank::ALL.map(|bank| format!("{bank}:{pcr}")).join("+");
        let output = self.tool("tpm2_pcrread", &[&banks]);
        let mut pcrs = Pcrs::new();
        let mut bank = None;
        for line in output.lines() {
            let (key, value) = line.split_once(':').unwrap();
            match Bank::from_name(key.trim()) {
                Some(named) => bank = Some(named),
                None => {
                    let digits = value.trim().trim_start_matches("0x").to_lowercase();
                    pcrs.insert(bank.unwrap(), unhex(&digits));
                }
            }
        }
        assert!(!pcrs.is_empty(), "{output}");
        pcrs
    }

    /// Runs a tool on the TPM; returns its standard output.
    pub(crate) fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let output = Command::new(name)
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TPM2TOOLS_TCTI", tcti(self.port))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{name} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Checks with an independent tool that the register holds what the log leads to, in every
    /// bank; returns the log.
    #[track_caller]
    pub(crate) fn agrees(&self) -> Vec<Entry> {
        let entries = self.entries();
        let before = &start(&entries).unwrap().pcr_before;
        let register = self.register(self.settings.pcr);
        assert_eq!(replay(before, &entries).unwrap(), register, "the log and the register differ");
        entries
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// How a TPM at a port is named.
pub(crate) fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

/// A port that is free, as is the next.
pub(crate) fn two_ports() -> u16 {
    // Below those that the kernel gives to clients by itself; each process begins elsewhere.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + 2 * ((std::process::id() * 61 + step) % 6_000);
        let port = u16::try_from(port).unwrap();
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

/// The name of a pod.
pub(crate) fn pod(number: u32) -> Uuid {
    format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
}

/// What is measured of a pod.
pub(crate) fn record(number: u32) -> Record {
    let digest = |byte: char| format!("sha256:{}", byte.to_string().repeat(64)).parse().unwrap();
    Record {
        version: VersionOne,
        pod: pod(number),
        tenant: "tenant".into(),
        apps: vec![App {
            name: "app".into(),
            image: Image {
                reference: "registry.example/app:1".into(),
                identity: "registry.example/app".into(),
                id: digest('1'),
                manifest_digests: vec![digest('2')],
                verity_root: None,
                erofs_version: None,
                verity: None,
                content: Content::Unverified,
            },
            signature: Signature {
                rule: "docker".into(),
                answer: "accepted".into(),
                keys: vec![],
                time: "2026-01-01T00:00:00Z".into(),
            },
            exec: vec!["/bin/app".into()],
            environment: vec![],
            user: "0".into(),
            group: String::new(),
            working_directory: "/".into(),
            mounts: vec![],
            isolators: vec![],
        }],
        pod_manifest: digest('3'),
        policy_digest: digest('4'),
        kernel: Kernel { digest: digest('5'), version: "6.12".into() },
        guest_init: digest('6'),
        monitor: digest('7'),
        file_server: None,
        supervisor: digest('8'),
        command_line: "quiet".into(),
        cpus: 1,
        memory_mib: 128,
        scratch_bytes: 0,
        volumes: vec![],
        network: None,
        label: None,
        seccomp: None,
        secrets: vec![],
        guest_key: None,
    }
}

/// Bytes of hexadecimal digits.
pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
