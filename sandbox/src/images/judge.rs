//! The gate, asked about images: when they come into the store, and whenever they are launched.

use super::{ImageSettings, ImagesError};
use crate::pod::Plan;
use sandbox_gate::{
    Approval, DigestsAsked, HostPolicy, Identity, Judgement, Outcome, Paths, PolicyError, Reason,
    Subject, verify_detached,
};
use sandbox_image::discovery::AppcName;
use sandbox_image::evidence::Signature;
use sandbox_image::{Algorithm, Digest, Part, Reference, Staged, StoredImage, Text};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where the host's own rules are.
const RULES: &str = "/etc/sandbox/gate.d";

/// The gate with the policy of a moment.
#[derive(Debug)]
pub struct Gate {
    policy: HostPolicy,
    insecure: bool,
}

/// What the gate says about one of the images that make up what is run.
#[derive(Debug)]
pub struct Verdict {
    /// The image, by name.
    pub name: Text,
    /// Its ID.
    pub id: Digest,
    /// What a policy calls it.
    pub identity: String,
    /// The decision and how it came about.
    pub judgement: Judgement,
}

/// An image that no policy can be asked about.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its path can't be written in a policy.
    #[error("{0}: the path is not UTF-8, so no policy can allow it; give it another name")]
    Path(Text),
    /// It was never fetched.
    #[error("image {0}: the store does not know where it came from; fetch it again by its name")]
    Unknown(Digest),
}

impl Gate {
    /// Reads the policy.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn load(settings: &ImageSettings) -> Result<Self, PolicyError> {
        let policy = HostPolicy::load(&Paths {
            policy: settings.policy.clone(),
            rules: PathBuf::from(RULES),
            system_config: settings.directories.system.clone(),
            local_config: settings.directories.local.clone(),
        })?;
        Ok(Self { policy, insecure: settings.insecure.skip_image_check() })
    }

    /// The digest of all that the policy consists of.
    pub fn digest(&self) -> &Digest {
        self.policy.digest()
    }

    /// Holds the detached signatures of ACIs against the files that they sign, while these are
    /// there as they were shipped. The result is what the gate gets to see at every launch. What
    /// does not fit is told, and is worth nothing.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn hold_signatures(&self, staged: &mut Staged) -> Result<Vec<String>, ImagesError> {
        let mut facts = Vec::new();
        let mut complaints = Vec::new();
        for (place, part) in staged.parts().iter().enumerate() {
            for (number, signature) in part.signatures.iter().enumerate() {
                let Signature::Detached { signature, facts: None } = signature else { continue };
                let Some(file) = staged.shipped_aci(place).map_err(ImagesError::Image)? else {
                    continue;
                };
                let keys = self.policy.keys_for_aci(&part.name);
                let mut file = BufReader::new(file);
                match verify_detached(signature, &mut file, &keys, SystemTime::now()) {
                    Ok(found) => facts.push((place, number, found)),
                    Err(error) => {
                        let name = Text::new(&part.name);
                        complaints.push(format!("the signature that came with {name}: {error}"));
                    }
                }
            }
        }
        for (place, number, found) in facts {
            staged.set_facts(place, number, found);
        }
        Ok(complaints)
    }

    /// Whether an image of this name would have to be signed, and there is no key that could be
    /// the right one.
    pub fn lacks_keys(&self, name: &AppcName) -> bool {
        let labels: Vec<_> =
            name.labels().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let unsigned = Subject {
            id: &Digest::of(Algorithm::Sha512, b""),
            identity: Identity::Aci { name: name.name(), labels: &labels },
            manifests: &[],
            signatures: &[],
            version: name.version(),
            created: None,
        };
        let judgement =
            sandbox_gate::judge(&unsigned, &self.policy, self.insecure, SystemTime::now());
        !judgement.is_allowed() && self.policy.keys_for_aci(name.name()).is_empty()
    }

    /// What the gate says about all that an image is made of.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn judge(&self, parts: &[Part]) -> Result<Vec<Verdict>, IdentityError> {
        let now = SystemTime::now();
        let verdict = |part| {
            let subject = subject(part)?;
            Ok(Verdict {
                name: Text::new(&part.name),
                id: part.id.clone(),
                identity: subject.identity.to_string(),
                judgement: sandbox_gate::judge(&subject, &self.policy, self.insecure, now),
            })
        };
        parts.iter().map(verdict).collect()
    }

    /// Which programs' digests a plan has to have.
    pub fn digests_asked(&self) -> DigestsAsked {
        self.policy.digests_asked()
    }

    /// Asks whether a pod of these images may be launched as planned. Whatever is to run is asked
    /// about here each time, however it was named and whenever it was fetched.
    ///
    /// # Errors
    /// [`ImagesError::Refused`], and [`IdentityError`].
    pub fn decide(&self, plan: &Plan, images: &[StoredImage]) -> Result<Approval, ImagesError> {
        let mut subjects = Vec::new();
        // Apps and images are in the order of the command line.
        for (app, image) in plan.spec().apps.iter().zip(images) {
            for part in image.parts() {
                subjects.push((app.name.as_str(), subject(part)?));
            }
        }
        let now = SystemTime::now();
        Ok(sandbox_gate::decide(&subjects, plan.launch(), &self.policy, self.insecure, now)?)
    }
}

impl Verdict {
    /// Why it is refused, if it is.
    pub fn refusal(&self) -> Option<&[Reason]> {
        match &self.judgement.outcome {
            Outcome::Allowed { .. } => None,
            Outcome::Refused { reasons } => Some(reasons),
        }
    }

    /// The same as texts, each with its rule unless that is the first one's.
    pub fn reasons(&self) -> Vec<String> {
        let text = |Reason { rule, problem }: &Reason| match *rule == self.judgement.rule {
            true => problem.clone(),
            false => format!("{rule}: {problem}"),
        };
        self.refusal().unwrap_or_default().iter().map(text).collect()
    }

    /// All of it in one line, for the image's record.
    pub fn line(&self) -> String {
        let Judgement { rule, .. } = &self.judgement;
        match &self.judgement.outcome {
            Outcome::Refused { reasons } => format!("refused by {}", Reason::list(reasons)),
            Outcome::Allowed { signers } if signers.is_empty() => format!("allowed by {rule}"),
            Outcome::Allowed { signers } => {
                format!("allowed by {rule}: signed by {}", signers.join("; "))
            }
        }
    }

    /// Who signed it, if that is why it is allowed.
    pub fn signers(&self) -> &[String] {
        match &self.judgement.outcome {
            Outcome::Allowed { signers } => signers,
            Outcome::Refused { .. } => &[],
        }
    }
}

/// An image as the gate has it.
fn subject(part: &Part) -> Result<Subject<'_>, IdentityError> {
    Ok(Subject {
        id: &part.id,
        identity: identity(part)?,
        manifests: &part.manifests,
        signatures: &part.signatures,
        version: part.version.as_deref(),
        created: part.created,
    })
}

/// What a policy calls an image, by where it came from.
fn identity(part: &Part) -> Result<Identity<'_>, IdentityError> {
    fn text(path: &Path) -> Result<&str, IdentityError> {
        path.to_str().ok_or_else(|| IdentityError::Path(Text::of_os(path)))
    }
    Ok(match &part.reference {
        Reference::Registry { image } => Identity::Docker {
            registry: image.registry(),
            repository: image.repository(),
            // Where nothing is said, it was `latest` that was fetched.
            tag: image.digest().map_or(Some(image.tag_or_default()), |_| image.tag()),
            digest: image.digest(),
        },
        Reference::OciLayout { directory, name } => {
            Identity::Oci { path: text(directory)?, name: name.as_deref() }
        }
        Reference::OciArchive { file, name } => {
            Identity::OciArchive { path: text(file)?, name: name.as_deref() }
        }
        Reference::DockerArchive { file, name } => {
            Identity::DockerArchive { path: text(file)?, name: name.as_deref() }
        }
        // An ACI has a name of its own, wherever it lies.
        Reference::Aci { .. } | Reference::AciUrl { .. } | Reference::Appc { .. } => {
            Identity::Aci { name: &part.name, labels: &part.labels }
        }
        Reference::Id { .. } => return Err(IdentityError::Unknown(part.id.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(reference: &str) -> Part {
        Part {
            id: Digest::of(Algorithm::Sha256, b"abc"),
            reference: Reference::parse(reference.as_ref()).unwrap(),
            name: "example.com/app".to_owned(),
            labels: vec![("version".to_owned(), "1.0".to_owned())],
            manifests: Vec::new(),
            signatures: Vec::new(),
            version: None,
            created: None,
        }
    }

    /// containers-policy.json(5), containers-transports(5): the names that scopes are compared with.
    #[test]
    fn an_image_has_the_name_that_policies_know_it_by() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (reference, expected) in [
            ("docker://debian:13", "docker:docker.io/library/debian:13".to_owned()),
            ("docker://debian", "docker:docker.io/library/debian:latest".to_owned()),
            (
                &format!("localhost:5000/a/b@{digest}"),
                format!("docker:localhost:5000/a/b@{digest}"),
            ),
            ("oci:/srv/layout:app", "oci:/srv/layout:app".to_owned()),
            ("oci-archive:/srv/a.tar", "oci-archive:/srv/a.tar".to_owned()),
            ("docker-archive:/srv/a.tar:b:1", "docker-archive:/srv/a.tar:b:1".to_owned()),
            ("/srv/a.aci", "aci:example.com/app:1.0".to_owned()),
            ("https://example.org/a.aci", "aci:example.com/app:1.0".to_owned()),
            ("example.com/app:1.0", "aci:example.com/app:1.0".to_owned()),
        ] {
            assert_eq!(identity(&part(reference)).unwrap().to_string(), expected, "{reference}");
        }
    }

    #[test]
    fn an_image_of_unknown_origin_has_no_name_and_is_not_judged() {
        let part = part(&format!("sha256-{}", "ab".repeat(32)));
        assert!(matches!(identity(&part), Err(IdentityError::Unknown(_))));
    }

    /// The gate of a host with these files.
    fn gate(files: &[(&str, &str)], insecure: &str) -> Gate {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            std::fs::write(root.path().join(path), content).unwrap();
        }
        Gate::load(&ImageSettings {
            data_dir: root.path().join("data"),
            directories: crate::settings::Directories {
                system: root.path().join("system"),
                local: root.path().join("local"),
                user: None,
            },
            policy: root.path().join("policy.json"),
            insecure: insecure.parse().unwrap(),
            trust_keys_from_https: false,
        })
        .unwrap()
    }

    const ACCEPT: &str = r#"{"default": [{"type": "reject"}], "transports": {
        "oci": {"/srv/layout": [{"type": "insecureAcceptAnything"}]},
        "aci": {"example.com": [{"type": "insecureAcceptAnything"}]}}}"#;

    #[test]
    fn the_policy_of_the_command_line_decides_unless_it_is_switched_off() {
        for (files, insecure, reference, allowed) in [
            (&[][..], "none", "oci:/srv/layout", false),
            (&[], "http,tls,pubkey", "oci:/srv/layout", false),
            (&[], "image", "oci:/srv/layout", true),
            (&[("policy.json", ACCEPT)], "none", "oci:/srv/layout:x", true),
            (&[("policy.json", ACCEPT)], "none", "oci:/srv/other:x", false),
            (&[("policy.json", ACCEPT)], "none", "docker://debian", false),
            (&[("policy.json", ACCEPT)], "none", "/srv/app.aci", true),
            (&[], "none", "/srv/app.aci", false),
        ] {
            let verdicts = gate(files, insecure).judge(&[part(reference)]).unwrap();
            let [verdict] = &verdicts[..] else { panic!("{verdicts:?}") };
            assert_eq!(verdict.refusal().is_none(), allowed, "{insecure} {reference}");
            let word = if allowed { "allowed by " } else { "refused by " };
            assert!(verdict.line().starts_with(word), "{}", verdict.line());
        }
    }

    #[test]
    fn a_key_is_only_looked_for_where_one_is_missing() {
        let name = AppcName::parse("example.com/app:1").unwrap();
        assert!(gate(&[], "none").lacks_keys(&name));
        assert!(!gate(&[], "image").lacks_keys(&name));
        assert!(!gate(&[("policy.json", ACCEPT)], "none").lacks_keys(&name));
        let other = AppcName::parse("example.org/app").unwrap();
        assert!(gate(&[("policy.json", ACCEPT)], "none").lacks_keys(&other));
    }
}
