use super::{Error, Place, RegistryReference, Rules};
use crate::http::{self, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that a [`super::Client`] needs to know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Connections.
    pub http: http::Options,
    /// Who asks.
    pub credentials: Credentials,
    /// Where to look.
    pub rules: Rules,
    /// Whether blobs are taken as they come, since whoever asks for them holds them against their
    /// digests. If not, and one is not what its digest says, the next place is asked for it; and
    /// what is there of an earlier time and damaged comes anew.
    pub unchecked_blobs: bool,
}

/// What convinces a registry that somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Credential {
    /// A user name and a password.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An identity token, which is exchanged for a token that is good for one repository.
    Identity(Secret),
    /// A token that is sent as it is.
    Bearer(Secret),
}

/// Credentials for repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(BTreeMap<String, Credential>);

impl Credentials {
    /// Adds the credential for one place.
    pub fn add(&mut self, place: &Place, credential: Credential) {
        self.0.insert(place.name(), credential);
    }

    pub(super) fn of(&self, place: &Place) -> Option<&Credential> {
        self.0.get(&place.name())
    }
}

impl Options {
    /// Makes options that are good for one image and no other: `credential` is asked for each
    /// place where it may be, and only those that the rules call insecure may be talked to by
    /// http and without a check of certificates. `http.certificates` has to be right already: for
    /// [`Options::hosts`].
    ///
    /// # Errors
    /// If the rules block the image, or `credential` fails.
    pub fn of<E: From<Error>>(
        reference: &RegistryReference,
        rules: Rules,
        mut http: http::Options,
        credential: &mut dyn FnMut(&Place) -> Result<Option<Credential>, E>,
    ) -> Result<Self, E> {
        let mut credentials = Credentials::default();
        for place in rules.places(reference)? {
            if let Some(credential) = credential(&place)? {
                credentials.add(&place, credential);
            }
            if place.is_insecure {
                http.insecure_hosts.extend(http::host_key(&place.registry));
            }
        }
        Ok(Self { http, credentials, rules, unchecked_blobs: false })
    }

    /// The `HOST[:PORT]` of all places where an image may be, as directories of certificates are
    /// named.
    ///
    /// # Errors
    /// If the rules block the image.
    pub fn hosts(reference: &RegistryReference, rules: &Rules) -> Result<Vec<String>, Error> {
        Ok(rules.places(reference)?.into_iter().map(|place| place.registry).collect())
    }
}
