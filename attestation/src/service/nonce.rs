//! Nonces that need no memory until they are used.
//!
//! Anybody may ask for a challenge: nothing is known of who does before the evidence is there. A
//! table of challenges could be filled by strangers until hosts get none, so there is none: a nonce
//! says itself for which host and pod it is, and until when, and only this service can make one.
//! What has been used is remembered until it would have expired anyway. Only a quote that an
//! enrolled host has signed uses one up, so strangers can't fill that table either.

use crate::{evidence::Nonce, record::Uuid, wire::Name};
use hmac::{Hmac, Mac};
use rsa::rand_core::{OsRng, RngCore as _};
use sha2::Sha256;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Random bytes in a nonce, which tell two of the same moment apart.
const RANDOM: usize = 16;
/// Bytes of the moment, milliseconds since the service was started.
const MOMENT: usize = 8;
/// Bytes of the authentication code.
const CODE: usize = 32;

/// The most used nonces that are remembered at once; each for the life of a nonce at most.
const MAX_USED: usize = 1 << 16;

/// A nonce is not one that evidence can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceProblem {
    /// Not made here, or for somebody else, or before the service was started anew.
    #[error(
        "the nonce is not one that this service has made for this host and this pod since it was \
         started"
    )]
    Foreign,
    /// Too late.
    #[error("the nonce has expired: it was made more than {} s ago", .0.as_secs())]
    Expired(Duration),
    /// For the second time.
    #[error("the nonce has been used already: each is for one quote")]
    Used,
    /// More evidence than the service remembers.
    #[error("the service remembers too many nonces; try again in a moment")]
    Full,
}

/// Makes nonces, and knows them again.
#[derive(Debug)]
pub(super) struct Nonces {
    key: [u8; 32],
    since: Instant,
    life: Duration,
    /// Random part and the moment in which it expires.
    used: Mutex<BTreeMap<[u8; RANDOM], u64>>,
}

impl Nonces {
    pub(super) fn new(life: Duration) -> Self {
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Self { key, since: Instant::now(), life, used: Mutex::default() }
    }

    /// How long one lives.
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// Milliseconds since the start. No clock that can be set is asked.
    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.since);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn code(&self, head: &[u8], host: &Name, pod: &Uuid) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length.
        let mut code = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        code.update(b"sandbox-challenge-v1");
        for part in [head, host.as_bytes(), pod.as_str().as_bytes()] {
            code.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            code.update(part);
        }
        Some(code)
    }

    /// A new one for evidence of `pod` on `host`.
    pub(super) fn make(&self, host: &Name, pod: &Uuid, now: Instant) -> Option<Nonce> {
        let life = u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = vec![0; RANDOM];
        OsRng.fill_bytes(&mut bytes);
        bytes.extend(self.millis(now).saturating_add(life).to_be_bytes());
        let code = self.code(&bytes, host, pod)?.finalize().into_bytes();
        bytes.extend_from_slice(&code[..CODE]);
        Nonce::new(bytes).ok()
    }

    /// Whether it is one, for this host and pod, that still holds and was not used.
    pub(super) fn check(
        &self,
        nonce: &Nonce,
        host: &Name,
        pod: &Uuid,
        now: Instant,
    ) -> Result<(), NonceProblem> {
        let bytes = nonce.as_bytes();
        if bytes.len() != RANDOM + MOMENT + CODE {
            return Err(NonceProblem::Foreign);
        }
        let (head, code) = bytes.split_at(RANDOM + MOMENT);
        let own = self.code(head, host, pod).ok_or(NonceProblem::Foreign)?;
        // In a time that says nothing of how much of it is right.
        own.verify_slice(code).map_err(|_| NonceProblem::Foreign)?;
        let (random, expires) = parts(head);
        if self.millis(now) >= expires {
            return Err(NonceProblem::Expired(self.life));
        }
        match self.used.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&random) {
            true => Err(NonceProblem::Used),
            false => Ok(()),
        }
    }

    /// Uses up one that was checked, unless somebody else has been faster.
    pub(super) fn spend(&self, nonce: &Nonce, now: Instant) -> Result<(), NonceProblem> {
        let bytes = nonce.as_bytes();
        if bytes.len() != RANDOM + MOMENT + CODE {
            return Err(NonceProblem::Foreign);
        }
        let (random, expires) = parts(&bytes[..RANDOM + MOMENT]);
        let now = self.millis(now);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(&random) {
            return Err(NonceProblem::Used);
        }
        if used.len() >= MAX_USED {
            used.retain(|_, expires| *expires > now);
        }
        if used.len() >= MAX_USED {
            return Err(NonceProblem::Full);
        }
        used.insert(random, expires);
        Ok(())
    }
}

fn parts(head: &[u8]) -> ([u8; RANDOM], u64) {
    let (mut random, mut moment) = ([0; RANDOM], [0; MOMENT]);
    random.copy_from_slice(&head[..RANDOM]);
    moment.copy_from_slice(&head[RANDOM..]);
    (random, u64::from_be_bytes(moment))
}
