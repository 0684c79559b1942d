//! What was launched, held against what the policy names.

use super::{CheckName, ImageRule, Run, instant, policy::VolumeRule};
use crate::record::{App, Content, Launch, Record};
use sandbox_image::{Digest, Text};
use std::{collections::BTreeSet, fmt::Display};

/// What stands on the launch record.
const ON_LAUNCH: [CheckName; 16] = [
    CheckName::GuestKey,
    CheckName::Kernel,
    CheckName::GuestInit,
    CheckName::Monitor,
    CheckName::FileServer,
    CheckName::Supervisor,
    CheckName::CommandLine,
    CheckName::Images,
    CheckName::Content,
    CheckName::Volumes,
    CheckName::PodManifest,
    CheckName::Signature,
    CheckName::HostPolicy,
    CheckName::Label,
    CheckName::Filters,
    CheckName::PodAge,
];

impl Run<'_> {
    /// Appraises the launch that the log has led to.
    pub(super) fn appraise(&mut self, launch: Option<Launch>) {
        let age = self.policy.document.max_evidence_age;
        self.age(CheckName::EvidenceAge, &self.evidence.time, age);
        let Some(launch) = launch else {
            let by = [
                CheckName::LogNumbers,
                CheckName::LogDigests,
                CheckName::LogReplay,
                CheckName::LogContents,
                CheckName::LogBeginning,
                CheckName::PodLaunch,
            ];
            let by = by.into_iter().find(|name| self.findings.failed(*name));
            let by = by.unwrap_or_else(|| self.first_failure_of_quote());
            return self.findings.blocked(&ON_LAUNCH, by);
        };
        self.age(CheckName::PodAge, &launch.time, self.policy.document.max_pod_age);
        self.programs(&launch.record);
        self.apps(&launch.record);
        self.guest_key(&launch.record);
        self.facts.record = Some(launch.record);
    }

    fn programs(&mut self, record: &Record) {
        let policy = &self.policy.document;
        self.member(CheckName::Kernel, &record.kernel.digest, policy.kernels.as_ref());
        self.member(CheckName::GuestInit, &record.guest_init, policy.guest_inits.as_ref());
        self.member(CheckName::Monitor, &record.monitor, policy.monitors.as_ref());
        self.member(CheckName::Supervisor, &record.supervisor, policy.supervisors.as_ref());
        self.member(CheckName::HostPolicy, &record.policy_digest, policy.host_policies.as_ref());
        self.member(CheckName::PodManifest, &record.pod_manifest, policy.pod_manifests.as_ref());
        let lines = policy.command_lines.as_ref();
        self.member(CheckName::CommandLine, &record.command_line, lines);
        let filters = policy.filters.as_ref().map(|known| match &record.seccomp {
            Some(filters) if known.contains(filters) => Ok(()),
            Some(filters) => Err(format!("the policy does not name '{filters}'")),
            None => Err("the record names no system call filters".to_owned()),
        });
        self.demand(CheckName::Filters, filters, "any system call filters");
        let policy = &self.policy.document;
        match &record.file_server {
            Some(server) => {
                self.member(CheckName::FileServer, server, policy.file_servers.as_ref());
            }
            None => self.findings.skip(CheckName::FileServer, "the pod has none"),
        }
    }

    fn apps(&mut self, record: &Record) {
        let policy = &self.policy.document;
        let known = policy.images.as_ref().map(|rules| images(&record.apps, rules));
        self.demand(CheckName::Images, known, "images");
        let verified = policy.content.map(|_| content(&record.apps));
        self.demand(CheckName::Content, verified, "that content is verified");
        let allowed = policy.volumes.as_ref().map(|rules| volumes(record, rules));
        self.demand(CheckName::Volumes, allowed, "volumes");
        let signed = (policy.signature.is_some() || policy.signers.is_some())
            .then(|| signatures(&record.apps, policy.signers.as_ref()));
        self.demand(CheckName::Signature, signed, "signatures");
        let labelled = policy.label.map(|_| match record.label {
            Some(_) => Ok(()),
            None => Err("the pod has no SELinux label".to_owned()),
        });
        self.demand(CheckName::Label, labelled, "a label");
    }

    /// The key that the quote is bound to is the one that was measured.
    fn guest_key(&mut self, record: &Record) {
        let given = self.evidence.guest_key.as_deref();
        self.facts.guest_key = given.map(crate::evidence::text::hex);
        match &record.guest_key {
            None => self.findings.skip(CheckName::GuestKey, "none was measured at the launch"),
            Some(measured) => {
                let same = if given == Some(&measured.0[..]) {
                    Ok(())
                } else {
                    Err("the guest's key is another one than the one that was measured".to_owned())
                };
                self.findings.note(CheckName::GuestKey, same);
            }
        }
    }

    /// A value has to be among those that the policy names.
    fn member<T: Ord + Display>(
        &mut self,
        name: CheckName,
        value: &T,
        known: Option<&BTreeSet<T>>,
    ) {
        let known = known.map(|known| {
            if known.contains(value) {
                return Ok(());
            }
            let value = Text::new(value.to_string());
            Err(format!("the policy does not name '{value}'"))
        });
        self.demand(name, known, "any");
    }

    /// Notes a result; or that the policy doesn't ask.
    fn demand(&mut self, name: CheckName, result: Option<Result<(), String>>, what: &str) {
        match result {
            Some(result) => {
                self.findings.note(name, result);
            }
            None => self.findings.skip(name, format!("the policy does not demand {what}")),
        }
    }

    /// A time of the host has to be recent.
    fn age(&mut self, name: CheckName, time: &str, most: Option<u64>) {
        let Some(most) = most else {
            return self.findings.skip(name, "the policy names no age");
        };
        let now = instant::seconds(self.now);
        let result = match instant::parse(time) {
            None => Err(format!("'{}' is not a time", Text::new(time))),
            // Clocks of two machines differ, by minutes if nobody cares.
            Some(then) if then > now.saturating_add(300) => {
                Err(format!("{} is in the future", Text::new(time)))
            }
            Some(then) if now.saturating_sub(then) > i64::try_from(most).unwrap_or(i64::MAX) => {
                Err(format!("{} is longer ago than {most} s", Text::new(time)))
            }
            Some(_) => Ok(()),
        };
        self.findings.note(name, result);
    }
}

/// Every app's image has to fit a rule.
fn images(apps: &[App], rules: &[ImageRule]) -> Result<(), String> {
    if apps.is_empty() {
        return Err("the pod has no app, so that nothing is known of what runs".to_owned());
    }
    apps.iter().try_for_each(|app| {
        if rules.iter().any(|rule| fits(app, rule)) {
            return Ok(());
        }
        let (name, identity) = (Text::new(&app.name), Text::new(&app.image.identity));
        Err(format!("the policy does not name the image '{identity}' of app '{name}'"))
    })
}

fn fits(app: &App, rule: &ImageRule) -> bool {
    let image = &app.image;
    let same = |digest: &Digest| *digest == image.id || image.manifest_digests.contains(digest);
    // A root stands for nothing if the app doesn't read through it.
    let verified = image.content == Content::Verified;
    rule.digest.as_ref().is_none_or(same)
        && rule
            .verity_root
            .as_ref()
            .is_none_or(|root| verified && image.verity_root.as_ref() == Some(root))
        && rule.identity.as_ref().is_none_or(|identity| below(&image.identity, identity))
}

/// Whether a name is the scope, or below it by a whole component.
pub(crate) fn below(name: &str, scope: &str) -> bool {
    name.strip_prefix(scope).is_some_and(|rest| {
        !scope.is_empty() && (rest.is_empty() || rest.starts_with(['/', ':', '@']))
    })
}

/// Every app has to read what was measured.
fn content(apps: &[App]) -> Result<(), String> {
    let odd = apps
        .iter()
        .find(|app| app.image.content != Content::Verified || app.image.verity_root.is_none());
    match odd {
        Some(app) => Err(format!(
            "the host can change what app '{}' reads of its image",
            Text::new(&app.name)
        )),
        None => Ok(()),
    }
}

/// Every directory of the host that the pod sees has to be allowed.
fn volumes(record: &Record, rules: &[VolumeRule]) -> Result<(), String> {
    let allowed = |volume: &crate::record::Volume| {
        rules.iter().any(|rule| {
            rule.name == volume.name
                && volume.path.as_deref() == Some(&rule.path)
                && (volume.read_only || rule.writable)
        })
    };
    let mut shared =
        record.volumes.iter().filter(|volume| volume.path.is_some() || volume.kind != "empty");
    match shared.find(|volume| !allowed(volume)) {
        Some(volume) => {
            let (name, path) = (Text::new(&volume.name), volume.path.as_deref());
            let path = Text::new(path.unwrap_or_default());
            let how = if volume.read_only { "read-only" } else { "writable" };
            Err(format!("the policy does not allow the volume '{name}' ({path}, {how})"))
        }
        None => Ok(()),
    }
}

/// Every app's image has to have been accepted for somebody's signature.
fn signatures(apps: &[App], signers: Option<&BTreeSet<String>>) -> Result<(), String> {
    for app in apps {
        let name = Text::new(&app.name);
        if app.signature.keys.is_empty() {
            return Err(format!("the image of app '{name}' ran without a signature"));
        }
        if signers.is_some_and(|known| !app.signature.keys.iter().any(|key| known.contains(key))) {
            return Err(format!("nobody whom the policy names has signed the image of '{name}'"));
        }
    }
    Ok(())
}
