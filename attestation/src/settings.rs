//! The host's settings, `/etc/sandbox/attest.json`: which TPM, which of its registers, and where the
//! log is.
//!
//! ```json
//! {"version":1,"tcti":"device:/dev/tpmrm0","pcr":15,"directory":"/var/lib/sandbox/attest","keep":8,
//!  "verifier":{"url":"https://verifier.example.com","ca":"/etc/sandbox/verifier-ca.pem",
//!              "key":"/etc/sandbox/verifier.pub"}}
//! ```
//!
//! A host without the file has these values, but for the verifier: it has none. A member that is left
//! out has the value shown here; one that is not known, or is there twice, is refused.

use sandbox_image::Text;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Registers that this host's programs may be given: those that only grow, that a program can
/// extend, and that neither the firmware (0 to 7) nor the kernel's integrity log (10) accounts for.
///
/// 16 and 23 can be set back to zero by any program with access to the TPM, which could then write
/// another history; 17 to 22 belong to the hardware's late launch.
const REGISTERS: [u8; 7] = [8, 9, 11, 12, 13, 14, 15];

/// Why the settings can't be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file is there and can't be read.
    #[error("cannot read {}", Text::of_os(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", Text::of_os(path))]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
}

/// Which TPM, which register, where the log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The form of the file, 1.
    pub version: u32,
    /// How the TPM is reached, as the TSS names it: `device:/dev/tpmrm0`,
    /// `swtpm:host=127.0.0.1,port=2321`.
    #[serde(default = "default_tcti")]
    pub tcti: String,
    /// The register that launches are written into.
    #[serde(default = "default_pcr")]
    pub pcr: u8,
    /// Holds the log, its lock and the attestation key's blobs; root's alone.
    #[serde(default = "default_directory")]
    pub directory: PathBuf,
    /// How many boots' logs are kept.
    #[serde(default = "default_keep")]
    pub keep: u32,
    /// The service that verifies launches of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<VerifierSettings>,
}

/// A service on another machine, `sandbox attest serve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifierSettings {
    /// `https://HOST[:PORT][/PATH]`
    pub url: String,
    /// A file with the certificates (PEM) of the authorities that its own may be of; those that this
    /// host trusts otherwise, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A file with the public key (PEM) that its verdicts are signed with.
    pub key: PathBuf,
}

impl Settings {
    /// Where the settings of a host are.
    pub const PATH: &str = "/etc/sandbox/attest.json";

    /// The form of the file that this program knows.
    pub const VERSION: u32 = 1;

    /// The most bytes of the file.
    const MAX: u64 = 64 << 10;

    /// Reads the settings at `path`; without a file, they are the default.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let read = |source| SettingsError::Read { path: path.into(), source };
        let content = |problem| SettingsError::Content { path: path.into(), problem };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        };
        let mut document = Vec::new();
        file.take(Self::MAX + 1).read_to_end(&mut document).map_err(read)?;
        if document.len() as u64 > Self::MAX {
            return Err(content(format!("it has more than {} bytes", Self::MAX)));
        }
        Self::parse(&document).map_err(content)
    }

    /// Parses the file's content and checks what it says.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(document)
            .map_err(|error| Text::new(error.to_string()).to_string())?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether the values can be meant.
    pub fn check(&self) -> Result<(), String> {
        if self.version != Self::VERSION {
            return Err(format!("version is {}, only {} is known", self.version, Self::VERSION));
        }
        if !REGISTERS.contains(&self.pcr) {
            return Err(format!(
                "pcr is {}: choose one of {REGISTERS:?}; others belong to the firmware or the \
                 kernel, or can be set back to zero",
                self.pcr
            ));
        }
        if !self.directory.is_absolute() {
            return Err(format!(
                "directory is {}, and should begin with '/'",
                Text::of_os(&self.directory)
            ));
        }
        if self.tcti.is_empty() || self.tcti.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) {
            return Err("tcti should be a name like 'device:/dev/tpmrm0'".into());
        }
        if let Some(VerifierSettings { url, ca, key }) = &self.verifier {
            if !url.starts_with("https://") {
                let shown = Text::new(url);
                return Err(format!("verifier.url is {shown}, and should begin with https://"));
            }
            if ![Some(key), ca.as_ref()].into_iter().flatten().all(|path| path.is_absolute()) {
                return Err("verifier.key and verifier.ca should begin with '/'".into());
            }
        }
        if self.keep == 0 {
            return Err("keep is 0: at least the log of the running boot is kept, 1".into());
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: Self::VERSION,
            tcti: default_tcti(),
            pcr: default_pcr(),
            directory: default_directory(),
            keep: default_keep(),
            verifier: None,
        }
    }
}

fn default_tcti() -> String {
    "device:/dev/tpmrm0".into()
}

fn default_pcr() -> u8 {
    15
}

fn default_directory() -> PathBuf {
    "/var/lib/sandbox/attest".into()
}

fn default_keep() -> u32 {
    8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_without_the_file_has_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings::load(&directory.path().join("attest.json")).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(Settings::parse(br#"{"version":1}"#).unwrap(), Settings::default());
    }

    #[test]
    fn what_is_said_is_taken() {
        let document =
            br#"{"version":1,"tcti":"swtpm:port=2321","pcr":14,"directory":"/x","keep":1}"#;
        let settings = Settings::parse(document).unwrap();
        assert_eq!((settings.pcr, settings.keep), (14, 1));
        assert_eq!(settings.directory, Path::new("/x"));
        assert_eq!(settings.tcti, "swtpm:port=2321");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (document, expected) in [
            (r#"{}"#, "missing field `version`"),
            (r#"{"version":2}"#, "only 1 is known"),
            (r#"{"version":1,"pcrs":15}"#, "unknown field"),
            (r#"{"version":1,"pcr":15,"pcr":14}"#, "duplicate field"),
            (r#"{"version":1,"pcr":16}"#, "choose one of"),
            (r#"{"version":1,"pcr":23}"#, "choose one of"),
            (r#"{"version":1,"pcr":7}"#, "choose one of"),
            (r#"{"version":1,"pcr":255}"#, "choose one of"),
            (r#"{"version":1,"pcr":256}"#, "invalid value"),
            (r#"{"version":1,"directory":"x"}"#, "begin with '/'"),
            (r#"{"version":1,"tcti":""}"#, "like 'device:"),
            (r#"{"version":1,"tcti":"device:\u0000"}"#, "like 'device:"),
            (r#"{"version":1,"keep":0}"#, "at least the log of the running boot"),
            (r#"{"version":1} x"#, "trailing characters"),
            (r#"{"version":1,"verifier":{"url":"https://a"}}"#, "missing field `key`"),
            (r#"{"version":1,"verifier":{"url":"http://a","key":"/k"}}"#, "begin with https://"),
            (r#"{"version":1,"verifier":{"url":"https://a","key":"k"}}"#, "begin with '/'"),
            (r#"{"version":1,"verifier":{"url":"https://a","key":"/k","ca":"c"}}"#, "with '/'"),
            (r#"{"version":1,"verifier":{"url":"https://a","key":"/k","x":1}}"#, "unknown field"),
        ] {
            let problem = Settings::parse(document.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{document}: {problem}");
        }
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let problem = Settings::load(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(problem.contains("more than"), "{problem}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(document in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(settings) = Settings::parse(&document) {
                prop_assert!(settings.check().is_ok());
            }
        }
    }
}
