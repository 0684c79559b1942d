use super::{Authorization, Certificates};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// All that a [`super::Client`] needs to know: it reads no file and no environment variable. The
/// parent makes it and hands it to the fetcher, so it can be serialized.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whom servers are believed.
    pub certificates: Certificates,
    /// Whether http is allowed (`--insecure-options=http`).
    pub insecure_http: bool,
    /// Whether certificates are not checked (`--insecure-options=tls`).
    pub insecure_tls: bool,
    /// Hosts, as in [`Certificates::hosts`], for which both of these hold.
    pub insecure_hosts: BTreeSet<String>,
    /// What is sent to which `HOST[:PORT]` by [`super::Client::get`] and
    /// [`super::Client::download`], over https only.
    pub authorizations: BTreeMap<String, Authorization>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How often to try.
    pub retry: Retry,
}

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection with TLS.
    pub connect: Duration,
    /// For the status and headers of an answer.
    pub answer: Duration,
    /// Between two pieces of anything. What comes in slower than [`Timeouts::MIN_RATE`] over this
    /// time counts as nothing.
    pub stall: Duration,
    /// For all of a small document.
    pub document: Duration,
}

impl Timeouts {
    /// Bytes per second that a server has to reach.
    pub const MIN_RATE: u64 = 512;
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            document: Duration::from_secs(120),
        }
    }
}

/// How often to try what may succeed later: no connection, one that broke, a server that is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// So many times in all, or after the last time that something came in.
    pub attempts: u32,
    /// Wait before the second time; doubled before every next one.
    pub first_delay: Duration,
    /// The longest wait, also if the server asks for a longer one.
    pub longest_delay: Duration,
}

impl Retry {
    /// How long to wait after `failures` failures; `asked` is the server's wish in seconds.
    pub(super) fn delay(&self, failures: u32, asked: Option<u64>) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(16));
        asked.map_or(doubled, Duration::from_secs).min(self.longest_delay)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(20),
        }
    }
}
