//! Whether this machine can run pods: each check looks at one thing and says what to do.

mod host;
mod parts;
mod sharing;

#[cfg(test)]
mod tests;

use crate::images::ImageSettings;
use crate::installation::Installation;
use serde::Serialize;
use std::fmt;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Pods run, and something is worse than it could be.
    Warning,
    /// Not there, or of no use.
    Missing,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it came to.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do; empty if nothing.
    pub advice: String,
    /// Whether no pod can run without it.
    #[serde(skip)]
    pub required: bool,
    /// What was measured, for KVM.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
}

/// How fast the guest's code runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Whether that is hardware virtualisation.
    pub hardware: bool,
    /// Instructions at ring 0 per second of wall time; 0 if none could be run.
    pub instructions_per_second: f64,
}

impl Check {
    fn new(
        name: &'static str,
        state: State,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (detail, advice) = (detail.into(), advice.into());
        Self { name, state, detail, advice, required: false, speed: None }
    }

    fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:<8} {:<10} {}", self.state, self.name, self.detail)?;
        if self.advice.is_empty() { Ok(()) } else { write!(out, "; {}", self.advice) }
    }
}

/// Makes all checks.
pub fn examine(installation: &Installation, settings: &ImageSettings) -> Vec<Check> {
    let mut checks = vec![host::kvm()];
    checks.extend(parts::parts(installation));
    checks.push(parts::mke2fs());
    checks.push(parts::policy(settings));
    checks.extend([host::namespaces(), host::landlock()]);
    checks.extend([host::huge_pages(), host::tpm(), host::selinux(), host::cgroup(), host::cni()]);
    checks.extend([sharing::cpu_bugs(), sharing::smt(), sharing::same_pages(), sharing::swap()]);
    checks
}

/// Whether guest code runs at the speed of hardware.
///
/// # Errors
/// A line that says what was found and what to do.
pub fn kvm_is_usable() -> Result<(), String> {
    let check = host::kvm();
    match check.state {
        State::Ok => Ok(()),
        _ => Err(format!("{}; {}", check.detail, check.advice)),
    }
}
