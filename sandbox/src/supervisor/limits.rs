use std::time::Duration;

/// How long the guest may take for what.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// From the start to its greeting.
    pub boot: Duration,
    /// From there until every app runs.
    pub setup: Duration,
    /// For the pod's secrets: for the TPM and a service, both of which have time limits of their own.
    pub secrets: Duration,
    /// From the last app's end until file systems are synced.
    pub finish: Duration,
    /// From there until the apps' output has arrived, not counting the time that whoever reads
    /// ours takes.
    pub drain: Duration,
    /// Until processes are gone that were asked to.
    pub end: Duration,
    /// For apps to end after another one failed and they got SIGTERM, until they get SIGKILL.
    pub stop: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            // A boot takes a tenth of a second; on a host that is overloaded with them, much more.
            boot: Duration::from_secs(120),
            setup: Duration::from_secs(120),
            secrets: Duration::from_secs(600),
            // A volume on a slow disk takes its time.
            finish: Duration::from_secs(300),
            drain: Duration::from_secs(10),
            end: Duration::from_secs(10),
            stop: Duration::from_secs(10),
        }
    }
}
