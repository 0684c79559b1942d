//! How often somebody may ask, and how much memory strangers may hold.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// How many are told apart at once. Of more, those that ask least are forgotten, and begin anew.
const MAX_KNOWN: usize = 4096;

/// So many at once, and so many in each second after that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// In each second.
    pub per_second: u32,
}

/// Counts what each `K` asks for.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    known: Mutex<BTreeMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// How many may still be asked for.
    left: f64,
    at: Instant,
}

impl Bucket {
    fn at(self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * f64::from(rate.per_second)).min(f64::from(rate.burst))
    }
}

impl<K: Ord + Clone> Limiter<K> {
    pub(super) fn new() -> Self {
        Self { known: Mutex::default() }
    }

    /// Whether `who` may ask once more.
    pub(super) fn take(&self, who: &K, rate: Rate, now: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let left = match known.get(who) {
            Some(bucket) => bucket.at(rate, now),
            None => {
                make_room(&mut known, rate, now);
                f64::from(rate.burst)
            }
        };
        let may = left >= 1.0;
        let left = if may { left - 1.0 } else { left };
        known.insert(who.clone(), Bucket { left, at: now });
        may
    }
}

/// Forgets those that have asked least of late; those that are at their limit stay.
fn make_room<K: Ord + Clone>(known: &mut BTreeMap<K, Bucket>, rate: Rate, now: Instant) {
    if known.len() < MAX_KNOWN {
        return;
    }
    let mut by_left: Vec<_> =
        known.iter().map(|(who, bucket)| (bucket.at(rate, now), who.clone())).collect();
    by_left.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (_, who) in by_left.into_iter().take(MAX_KNOWN / 4) {
        known.remove(&who);
    }
}

/// Whom an address stands for: of IPv6, a customer has a whole network of 64 bits.
pub(super) fn customer(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

/// Something there is only so much of, and of which nobody gets all.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: BTreeMap<IpAddr, usize>,
}

/// A part of a [`Budget`], until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    who: IpAddr,
    amount: usize,
}

impl Budget {
    /// `most` for all, `each` for one address.
    pub(super) fn new(most: usize, each: usize) -> Self {
        Self { most, each, taken: Mutex::default() }
    }

    /// Takes a part, if there is as much left.
    pub(super) fn take(&self, who: IpAddr, amount: usize) -> Option<Share<'_>> {
        let who = customer(who);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by.get(&who).copied().unwrap_or_default();
        let (all, own) = (taken.all.checked_add(amount)?, own.checked_add(amount)?);
        if all > self.most || own > self.each {
            return None;
        }
        taken.all = all;
        taken.by.insert(who, own);
        Some(Share { budget: self, who, amount })
    }

    /// How much is taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.amount);
        let own = taken.by.get(&self.who).copied().unwrap_or_default();
        match own.saturating_sub(self.amount) {
            0 => taken.by.remove(&self.who),
            left => taken.by.insert(self.who, left),
        };
    }
}
