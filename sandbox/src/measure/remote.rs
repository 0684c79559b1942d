//! The service that verifies a launch besides this host.

use super::{MeasureError, enrolment};
use sandbox_attestation::evidence::Evidence;
use sandbox_attestation::record::Uuid;
use sandbox_attestation::service::{Answer, Challenge, Client, Sealed, SecretName};
use sandbox_attestation::session::{About, Ask, Attestor, Identity};
use sandbox_attestation::settings::{Settings, VerifierSettings};
use sandbox_attestation::wire::Name;
use sandbox_image::Text;
use sandbox_image::http::{CertificatePaths, Certificates, Url};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where `sandbox-attest` keeps the key that signs quotes, in the directory of the settings.
const KEYS: &str = "ak.json";

/// The longest file with a key or with certificates.
const MAX_FILE: u64 = 1 << 20;

/// What the command line says of a service.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// `--tpm-attest=URL`
    pub url: Option<String>,
    /// `--attest-ca`
    pub ca: Option<PathBuf>,
    /// `--attest-key`
    pub key: Option<PathBuf>,
}

/// The service to ask.
#[derive(Clone, Debug)]
pub struct Remote {
    client: Client,
}

/// What a service has said, as the pod's directory keeps it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    url: String,
    /// Signed by the service: an EAT attestation result as a JSON web token.
    token: String,
    /// In full, for people; nobody has signed it.
    verdict: Box<RawValue>,
}

/// What is known of the keys without the TPM.
#[derive(Deserialize)]
struct Keys {
    identity: Identity,
}

impl Remote {
    /// The service that this host's settings name, or the command line. What the settings name the
    /// command line can't replace, or whoever starts pods would choose who judges them.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn new(settings: &Settings, options: &RemoteOptions) -> Result<Self, MeasureError> {
        let problem = |problem: String| Err(MeasureError::Verifier(problem));
        let RemoteOptions { url, ca, key } = options;
        let verifier = match (&settings.verifier, url) {
            (Some(own), Some(url))
                if own.url.trim_end_matches('/') != url.trim_end_matches('/') =>
            {
                return problem(format!(
                    "this host's launches are verified by {} ({}), and not by {}",
                    Text::new(&own.url),
                    Settings::PATH,
                    Text::new(url)
                ));
            }
            (Some(_), _) if ca.is_some() || key.is_some() => {
                return problem(format!(
                    "{} names the verifier and its keys: leave out --attest-ca and --attest-key",
                    Settings::PATH
                ));
            }
            (Some(own), _) => own.clone(),
            (None, Some(url)) => {
                let Some(key) = key else {
                    return problem(
                        "the verifier's public key is missing: get it from who runs the service \
                         ('sandbox attest serve --show-key'), and give its file with --attest-key"
                            .to_owned(),
                    );
                };
                VerifierSettings { url: url.clone(), ca: ca.clone(), key: key.clone() }
            }
            (None, None) => {
                return problem(format!(
                    "a service has to verify the launch, and {} names none: set 'verifier' there",
                    Settings::PATH
                ));
            }
        };
        let certificates = match &verifier.ca {
            Some(file) => Certificates { roots: vec![text(file)?], ..Certificates::default() },
            None => system(&verifier.url)?,
        };
        Ok(Self { client: Client::new(&verifier.url, certificates, &text(&verifier.key)?)? })
    }

    /// Where it is.
    pub fn url(&self) -> &Text {
        self.client.url()
    }

    /// Asks for a nonce for a quote about a pod of this host.
    pub(super) fn challenge(
        &self,
        settings: &Settings,
        pod: &Uuid,
    ) -> Result<Challenge, MeasureError> {
        Ok(self.client.challenge(&own_key(&settings.directory)?, pod)?)
    }

    /// Sends evidence; the answer is one about this pod that passed, signed by the service.
    pub(super) fn judge(
        &self,
        evidence: &Evidence,
        secrets: &[SecretName],
    ) -> Result<Answer, MeasureError> {
        Ok(self.client.evidence(evidence, secrets, SystemTime::now())?)
    }

    /// Has a quote made over a challenge of its own, and judged: for a pod that is in the log
    /// already, and for the key that its guest has made, if it has. The service gives secrets for
    /// that key.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn prove(
        &self,
        program: &Path,
        settings: &Settings,
        pod: &Uuid,
        guest_key: Option<Vec<u8>>,
        secrets: &[SecretName],
    ) -> Result<Answer, MeasureError> {
        let challenge = self.challenge(settings, pod)?;
        let enrolled = enrolment(&settings.directory)?;
        let now = SystemTime::now();
        let about = About::now(pod.clone(), challenge.nonce, guest_key, enrolled, now);
        let ask = Ask {
            pod: Some(pod.clone()),
            qualifying_data: about.qualifying_data(),
            selection: challenge.select,
        };
        let quoted = Attestor::start(program, settings)?.quote(ask)?;
        self.judge(&quoted.into_evidence(about)?, secrets)
    }

    /// The secrets that a running pod wants, sealed for the key of its guest; all of them or none.
    ///
    /// # Errors
    /// See [`MeasureError`].
    pub fn secrets(
        &self,
        program: &Path,
        settings: &Settings,
        pod: &Uuid,
        guest_key: Vec<u8>,
        wanted: &[SecretName],
    ) -> Result<Vec<Sealed>, MeasureError> {
        let answer = self.prove(program, settings, pod, Some(guest_key), wanted)?;
        let withheld: Vec<_> = answer
            .withheld
            .iter()
            .map(|it| format!("{}: {}", it.name, Text::message(&it.why)))
            .collect();
        let is_there = |name: &SecretName| answer.secrets.iter().any(|sealed| sealed.name == *name);
        if withheld.is_empty() && wanted.iter().all(is_there) {
            return Ok(answer.secrets);
        }
        Err(MeasureError::Withheld { url: self.url().clone(), why: withheld.join("; ") })
    }

    /// What the pod's directory keeps of an answer.
    pub(super) fn kept(&self, answer: &Answer) -> Kept {
        Kept {
            url: self.url().to_string(),
            token: answer.token.clone(),
            verdict: answer.verdict.clone(),
        }
    }
}

/// The name of the key that signs this host's quotes.
fn own_key(directory: &Path) -> Result<Name, MeasureError> {
    let path = directory.join(KEYS);
    let Some(content) = super::read(&path)? else { return Err(MeasureError::NoKey) };
    let keys: Keys = serde_json::from_slice(&content)
        .map_err(|error| MeasureError::Malformed { path: path.clone(), error })?;
    Name::parse(&keys.identity.ak_name.0).map_err(|_| MeasureError::NoKey)
}

/// Whom this host trusts for servers otherwise, and for this one.
fn system(url: &str) -> Result<Certificates, MeasureError> {
    let problem = |error: &dyn std::fmt::Display| MeasureError::Verifier(error.to_string());
    let parsed: Url = url.parse().map_err(|error| problem(&error))?;
    let bundle = std::env::var_os("SSL_CERT_FILE").map(Into::into);
    Certificates::load(&CertificatePaths::system(bundle), [parsed.authority().as_str()])
        .map_err(|error| problem(&error))
}

fn text(path: &Path) -> Result<String, MeasureError> {
    let failed = |error| MeasureError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 == MAX_FILE {
        return Err(failed(io::Error::other("it is too long to be a key or certificate")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_attestation::session::{Algorithm, Endorsement};
    use serde_json::json;
    use std::fs;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n\
        6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n\
        -----END PUBLIC KEY-----\n";

    fn problem(settings: &Settings, options: &RemoteOptions) -> String {
        Remote::new(settings, options).unwrap_err().to_string()
    }

    fn named(url: &str, key: &Path) -> Settings {
        let (url, key) = (url.to_owned(), key.to_owned());
        let verifier = Some(VerifierSettings { url, ca: Some(key.clone()), key });
        Settings { verifier, ..Settings::default() }
    }

    #[test]
    fn who_starts_pods_does_not_choose_who_judges_them() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        fs::write(&key, KEY).unwrap();
        let own = named("https://verifier.example:8443", &key);
        let url = |url: &str| RemoteOptions { url: Some(url.into()), ..RemoteOptions::default() };
        for same in ["https://verifier.example:8443", "https://verifier.example:8443/"] {
            Remote::new(&own, &url(same)).unwrap();
        }
        let remote = Remote::new(&own, &RemoteOptions::default()).unwrap();
        assert_eq!(remote.url().to_string(), "https://verifier.example:8443/");
        for other in ["https://verifier.example", "https://verifier.example:8443/other"] {
            let problem = problem(&own, &url(other));
            assert!(problem.contains("and not by https://verifier.example"), "{problem}");
        }
        let ca = RemoteOptions { ca: Some(key.clone()), ..RemoteOptions::default() };
        let its = RemoteOptions { key: Some(key), ..url("https://verifier.example:8443") };
        for options in [ca, its] {
            assert!(problem(&own, &options).contains("leave out --attest-ca and --attest-key"));
        }
    }

    #[test]
    fn without_a_verifier_in_the_settings_the_options_name_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        fs::write(&file, KEY).unwrap();
        let none = Settings::default();
        let url = Some("https://verifier.example".to_owned());
        let options = RemoteOptions { url, ca: Some(file.clone()), key: Some(file.clone()) };
        Remote::new(&none, &options).unwrap();
        assert!(problem(&none, &RemoteOptions::default()).contains("set 'verifier'"));
        let keyless = RemoteOptions { key: None, ..options.clone() };
        assert!(problem(&none, &keyless).contains("--show-key"));
        let gone = RemoteOptions { key: Some(directory.path().join("gone")), ..options.clone() };
        assert!(problem(&none, &gone).contains("gone"));
        fs::write(&file, "x").unwrap();
        assert!(problem(&none, &options).contains("not a public key"));
        fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
        assert!(problem(&none, &options).contains("too long"));
    }

    #[test]
    fn the_name_of_the_key_is_known_without_the_tpm() {
        let directory = tempfile::tempdir().unwrap();
        let of = || own_key(directory.path());
        assert!(matches!(of(), Err(MeasureError::NoKey)));
        let keys = |name: &[u8]| {
            let bytes = |bytes: &[u8]| bytes.to_vec().into();
            let identity = Identity {
                algorithm: Algorithm::EcdsaP256,
                endorsement: Endorsement::EccP256,
                ak_public: bytes(b"public"),
                ak_name: bytes(name),
                ek_public: bytes(b"public"),
                ek_certificate: None,
            };
            let keys = json!({"version": 1, "identity": identity, "private": "AA=="});
            fs::write(directory.path().join(KEYS), keys.to_string()).unwrap();
        };
        // TPM_ALG_SHA256 and a digest.
        keys(&[&[0, 0x0b][..], &[0x11; 32]].concat());
        assert_eq!(of().unwrap().to_string(), format!("000b{}", "11".repeat(32)));
        keys(&[0, 0x0b]);
        assert!(matches!(of(), Err(MeasureError::NoKey)));
        fs::write(directory.path().join(KEYS), "{").unwrap();
        assert!(matches!(of(), Err(MeasureError::Malformed { .. })));
    }
}
