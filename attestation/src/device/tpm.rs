//! The connection to the TPM: opening it, and sending it commands.

use super::{
    fault::{self, Code},
    watch::Watch,
};
use sandbox_attestation::session::{Failure, FailureKind};
use sandbox_image::Text;
use std::{
    fs::OpenOptions,
    io,
    str::FromStr as _,
    thread::sleep,
    time::{Duration, Instant},
};
use tss_esapi::{
    Context, TctiNameConf, constants::CapabilityType, handles::TpmHandle,
    structures::CapabilityData,
};

/// How long the same command is sent again while the TPM asks for it.
const RETRIES: Duration = Duration::from_secs(10);
/// The first pause between two of them, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// How long a device that somebody else has open is waited for.
const DEVICE_BUSY: Duration = Duration::from_secs(5);

/// The handles of objects in the TPM's memory (part 2, "TPM_HT").
const TRANSIENT: u32 = 0x8000_0000;

/// An open TPM.
#[derive(Debug)]
pub(super) struct Tpm {
    context: Context,
    watch: Watch,
    /// No resource manager between us and the TPM: what killed processes left in it stays in it.
    direct: bool,
    /// How long it has been waited for.
    spent: Duration,
}

impl Tpm {
    /// Opens the TPM that `tcti` names.
    pub(super) fn open(tcti: &str, watch: &Watch) -> Result<Self, Failure> {
        watch.step("open the TPM");
        let name = parse(tcti)?;
        let begin = Instant::now();
        if let Some(path) = tcti.strip_prefix("device:") {
            probe(path)?;
        }
        let context = Context::new(name).map_err(|error| {
            let said = fault::failure("open the TPM", &error).message;
            Failure::new(FailureKind::NoTpm, format!("{said} (tcti is {tcti})"))
        })?;
        let direct = !(tcti.starts_with("device:/dev/tpmrm") || tcti.starts_with("tabrmd"));
        Ok(Self { context, watch: watch.clone(), direct, spent: begin.elapsed() })
    }

    /// How long the TPM took, for everything that it was asked.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }

    /// Sends a command, also again where the TPM asks for that.
    pub(super) fn call<T>(
        &mut self,
        step: &'static str,
        command: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Failure> {
        self.try_call(step, command)?.map_err(|error| fault::failure(step, &error))
    }

    /// The same for a command whose refusal by the TPM can be lived with.
    pub(super) fn try_call<T>(
        &mut self,
        step: &'static str,
        command: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<tss_esapi::Result<T>, Failure> {
        self.watch.step(step);
        let begin = Instant::now();
        let result = self.send(step, command, begin);
        self.spent += begin.elapsed();
        result
    }

    fn send<T>(
        &mut self,
        step: &'static str,
        mut command: impl FnMut(&mut Context) -> tss_esapi::Result<T>,
        begin: Instant,
    ) -> Result<tss_esapi::Result<T>, Failure> {
        let (mut pause, longest) = PAUSES;
        let mut swept = !self.direct;
        loop {
            self.context.clear_sessions();
            let error = match command(&mut self.context) {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error) => error,
            };
            match Code::of(&error) {
                Some(code) if code.again() && begin.elapsed() < RETRIES => {
                    sleep(pause);
                    pause = longest.min(pause * 2);
                }
                Some(code) if code.full() && !swept => {
                    swept = true;
                    self.sweep();
                }
                Some(code) if code.tpm().is_some() && !code.again() && !code.full() => {
                    return Ok(Err(error));
                }
                _ => return Err(fault::failure(step, &error)),
            }
        }
    }

    /// Removes the objects that killed processes left in the memory of a TPM that has nobody to do
    /// it. Only one process can have such a TPM open, so nobody needs them.
    fn sweep(&mut self) {
        let list = self.context.get_capability(CapabilityType::Handles, TRANSIENT, 64);
        let Ok((CapabilityData::Handles(handles), _)) = list else { return };
        for handle in handles.into_inner() {
            if let TpmHandle::Transient(_) = handle
                && let Ok(object) = self.context.tr_from_tpm_public(handle)
            {
                // One that can't be removed is not worth more than the failure that follows.
                let _ = self.context.flush_context(object);
            }
        }
    }
}

/// Parses the name of a TCTI. The library goes to another TPM than the one that was meant rather
/// than complain about what it does not know in a name; so that is done here.
fn parse(tcti: &str) -> Result<TctiNameConf, Failure> {
    let refused = |problem: &str| {
        Failure::new(FailureKind::Request, format!("tcti is '{}': {problem}", Text::new(tcti)))
    };
    let (name, options) = tcti.split_once(':').unwrap_or((tcti, ""));
    let known: &[&str] = match name {
        "device" if options.is_empty() => {
            return Err(refused("name the device, as in 'device:/dev/tpmrm0'"));
        }
        "device" => {
            return TctiNameConf::from_str(tcti).map_err(|_| refused("it is not understood"));
        }
        "swtpm" | "mssim" => &["host", "port"],
        "tabrmd" => &["bus_name", "bus_type"],
        _ => return Err(refused("device, swtpm, mssim and tabrmd are known")),
    };
    let mut seen = Vec::new();
    for option in options.split(',').filter(|_| !options.is_empty()) {
        let key = option.split_once('=').map(|(key, _)| key).unwrap_or(option);
        if !known.contains(&key) || seen.contains(&key) || !option.contains('=') {
            let expected = known.join("=…,");
            return Err(refused(&format!("expected is '{name}:{expected}=…', each at most once")));
        }
        seen.push(key);
    }
    TctiNameConf::from_str(tcti).map_err(|_| refused("a value in it is not understood"))
}

/// Opens a device once, to have the system's own words where that is not possible, and waits for
/// one that can be open only once.
fn probe(path: &str) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let Err(error) = OpenOptions::new().read(true).write(true).open(path) else {
            return Ok(());
        };
        let failed = |kind, advice| {
            Err(Failure::new(
                kind,
                format!("cannot open the TPM {}: {error}; {advice}", Text::new(path)),
            ))
        };
        match error.kind() {
            io::ErrorKind::NotFound => {
                return failed(
                    FailureKind::NoTpm,
                    "is there a TPM 2.0, is it switched on in the firmware, is its driver loaded? \
                     Another can be named in /etc/sandbox/attest.json",
                );
            }
            io::ErrorKind::ResourceBusy if begin.elapsed() < DEVICE_BUSY => {
                sleep(Duration::from_millis(20));
            }
            io::ErrorKind::ResourceBusy => {
                return failed(
                    FailureKind::Busy,
                    "another program has it; use the kernel's resource manager, \
                     \"tcti\":\"device:/dev/tpmrm0\"",
                );
            }
            _ => return failed(FailureKind::NoTpm, "run as root"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_library_would_misread_are_refused() {
        for tcti in [
            "swtpm:path=/run/swtpm",
            "swtpm:host=127.0.0.1,prot=2321",
            "swtpm:port=1,port=2",
            "swtpm:port",
            "swtpm:port=x",
            "swtpm:port=65536",
            "mssim:host=a b",
            "device",
            "device:",
            "cmd:rm",
            "libtpms:/tmp/x",
            "tabrmd:bus=session",
            "/dev/tpm0",
            "",
        ] {
            let failure = parse(tcti).map(|name| format!("{name:?}")).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Request, "{tcti}");
        }
        for tcti in [
            "device:/dev/tpmrm0",
            "swtpm",
            "swtpm:port=2321",
            "swtpm:host=127.0.0.1,port=2321",
            "mssim:port=1,host=::1",
            "tabrmd",
            "tabrmd:bus_name=com.example.Tabrmd,bus_type=system",
        ] {
            assert!(parse(tcti).is_ok(), "{tcti}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_no_tpm() {
        let failure = probe("/nonexistent/tpmrm0").unwrap_err();
        assert_eq!(failure.kind, FailureKind::NoTpm);
        assert!(failure.message.contains("/nonexistent/tpmrm0"), "{failure}");
    }
}
