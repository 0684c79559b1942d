use super::{attestor, settings};
use crate::cli::Outcome;
use crate::output::{self, Format};
use clap::{Args, ValueEnum};
use sandbox_attestation::session::{Algorithm, Endorsement, Identity, InitOptions};
use sandbox_image::Text;
use std::io::Write as _;

/// Make the keys that this host's TPM signs with.
///
/// The attestation key is made in the TPM, below the endorsement key that its maker put there, and
/// can't leave it. Nothing is kept in the TPM: the key's blobs are in the directory of the settings.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox attest init
  sandbox attest init --format=json >identity.json     # for 'sandbox attest enroll challenge'

A verifier that pins a key pins its name, which is shown. With --replace, verifiers have to be told
the new one.")]
pub struct Init {
    /// How the key signs.
    #[arg(long, value_name = "ALGORITHM", value_enum, default_value = "ecdsa-p256")]
    algorithm: KeyAlgorithm,
    /// The endorsement key that it is below; if it is not given, the one with a certificate.
    #[arg(long, value_name = "KEY", value_enum)]
    endorsement: Option<EndorsementKey>,
    /// Make new keys where there are some.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    replace: bool,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyAlgorithm {
    EcdsaP256,
    #[value(name = "rsassa-2048")]
    Rsassa2048,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EndorsementKey {
    #[value(name = "rsa-2048")]
    Rsa2048,
    EccP256,
}

impl Init {
    /// Makes the keys and shows their public parts.
    pub fn execute(&self) -> Outcome {
        let identity = attestor(&settings()?)?.init(InitOptions {
            algorithm: match self.algorithm {
                KeyAlgorithm::EcdsaP256 => Algorithm::EcdsaP256,
                KeyAlgorithm::Rsassa2048 => Algorithm::Rsassa2048,
            },
            endorsement: self.endorsement.map(|key| match key {
                EndorsementKey::Rsa2048 => Endorsement::Rsa2048,
                EndorsementKey::EccP256 => Endorsement::EccP256,
            }),
            replace: self.replace,
        })?;
        let text = match self.format {
            Format::Text => text(&identity),
            format => output::json(&identity, format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}

/// An identity for people.
pub(super) fn text(identity: &Identity) -> String {
    let certificate = if identity.ek_certificate.is_some() { "yes" } else { "none in the TPM" };
    let name = Text::new(format!("{:?}", identity.ak_name));
    format!("attestation key          {name}\nendorsement certificate  {certificate}\n")
}
