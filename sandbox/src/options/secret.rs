use sandbox_attestation::secret::{MAX_NAME, is_name};
use sandbox_attestation::service::SecretName;
use std::path::PathBuf;
use std::str::FromStr;

/// `--secret`: what a pod gets as a file of `/run/secrets`, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretOption {
    /// Its name in the pod.
    pub name: String,
    /// Who has it.
    pub source: SecretSource,
}

/// Who has a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The service that verifies the launch, by this name.
    Service(SecretName),
    /// A file whose key this host's TPM keeps.
    Sealed(PathBuf),
}

impl FromStr for SecretOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "must be NAME=service, NAME=service:KEY or NAME=sealed:FILE";
        let (name, source) = text.split_once('=').ok_or(form)?;
        if !is_name(name) {
            return Err(format!(
                "{name:?} is not the name of a secret (1 to {MAX_NAME} lower-case letters, digits \
                 and hyphens between them)"
            ));
        }
        let source = match source.split_once(':') {
            None if source == "service" => SecretSource::Service(key(name)?),
            Some(("service", name)) => SecretSource::Service(key(name)?),
            Some(("sealed", file)) if !file.is_empty() => SecretSource::Sealed(file.into()),
            _ => return Err(form.to_owned()),
        };
        Ok(Self { name: name.to_owned(), source })
    }
}

fn key(name: &str) -> Result<SecretName, String> {
    name.parse().map_err(|error| format!("{name:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_of_the_service_or_in_a_file() {
        let parse = |text: &str| text.parse::<SecretOption>().unwrap();
        let service = |name: &str| SecretSource::Service(name.parse().unwrap());
        assert_eq!(parse("db=service"), SecretOption { name: "db".into(), source: service("db") });
        assert_eq!(parse("db=service:team-db").source, service("team-db"));
        let sealed = SecretSource::Sealed("/etc/a:b=c".into());
        assert_eq!(parse("db=sealed:/etc/a:b=c").source, sealed);
    }

    #[test]
    fn what_is_no_secret_says_what_one_is() {
        for text in ["", "db", "db=", "db=sealed", "db=sealed:", "db=file:/x", "db=services"] {
            let error = text.parse::<SecretOption>().unwrap_err();
            assert!(error.contains("NAME=sealed:FILE"), "{text}: {error}");
        }
        for text in ["=service", "../x=service", "DB=service", "a/b=sealed:x"] {
            let error = text.parse::<SecretOption>().unwrap_err();
            assert!(error.contains("not the name of a secret"), "{text}: {error}");
        }
        for text in ["db=service:", "db=service:a/b"] {
            text.parse::<SecretOption>().unwrap_err();
        }
    }
}
