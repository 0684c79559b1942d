//! How long a verifier takes for evidence with a thousand records, from the bytes of the file to the
//! verdict, on the processor of the machine that this runs on. The benchmark `attest` has left the
//! evidence. The fastest of many runs counts: whatever else the machine does only adds to it.

use sandbox_attestation::evidence::{Evidence, Nonce};
use sandbox_attestation::verify::{Policy, verify};
use serde_json::json;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime};

/// The promised figure, for a thousand records.
const MAX_MS: f64 = 5.0;

const RUNS: usize = 50;

/// What the evidence was asked for with.
pub const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

/// Files: evidence with the records of others as digests, and with all in full; the policy.
pub const DIGESTS: &str = "evidence-digests.json";
/// See [`DIGESTS`].
pub const FULL: &str = "evidence-full.json";
/// See [`DIGESTS`].
pub const POLICY: &str = "policy.json";

pub fn run(out: &Path) -> Result<bool, Box<dyn Error>> {
    let directory = out.parent().unwrap_or(Path::new("."));
    let policy = Policy::parse(&fs::read(directory.join(POLICY))?)?;
    println!("Verification of 1000 records (this machine's time, the fastest of {RUNS} runs)");
    let mut list = Vec::new();
    for (what, file) in [("others as digests", DIGESTS), ("all in full", FULL)] {
        let text = fs::read(directory.join(file))?;
        let is = fastest(&text, &policy)?;
        let verdict = if is <= MAX_MS { "" } else { "  MISSED" };
        let kib = text.len() / 1024;
        println!("  {what:<20} {kib:>6} KiB {is:>7.2} ms  at most {MAX_MS}{verdict}");
        list.push(json!({"figure": what, "is": is, "at_most": MAX_MS}));
    }
    let kept = list.iter().all(|figure| figure["is"].as_f64().is_some_and(|is| is <= MAX_MS));
    let report = json!({"name": "verify", "unit": "1 ms", "promises": list});
    fs::write(out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(kept)
}

/// Milliseconds for a thousand records.
fn fastest(text: &[u8], policy: &Policy) -> Result<f64, Box<dyn Error>> {
    let nonce: Nonce = NONCE.parse()?;
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        let evidence = Evidence::parse(text)?;
        let verdict = verify(&evidence, &nonce, policy, SystemTime::now());
        let took = start.elapsed().as_secs_f64() * 1e3;
        if !verdict.passed() {
            return Err(format!("the evidence does not pass:\n{verdict}").into());
        }
        let records = f64::from(u32::try_from(evidence.log.records.len())?);
        fastest = fastest.min(took * 1e3 / records);
    }
    Ok(fastest)
}
