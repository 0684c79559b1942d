//! `sandbox doctor` and `sandbox version`.

use sandbox_tests::{Data, sandbox};
use serde_json::Value;

/// The option that names a policy: the test host has none.
fn policy(data: &Data) -> String {
    let file = data.path().join("policy.json");
    std::fs::write(&file, r#"{"default": [{"type": "reject"}]}"#).unwrap();
    format!("--policy={}", file.display())
}

/// "Each line says ok, warning or missing […]. Exit status: 0 if a pod can be run"
#[test]
fn the_test_host_is_all_right() {
    let data = Data::new();
    sandbox(data.path(), ["doctor".to_owned(), policy(&data)])
        .exits(0)
        .check("every line should be ok", |it| it.text().lines().all(|l| l.starts_with("ok ")))
        .mentions("kvm")
        .mentions("kernel");
}

/// "--format: How to print what was found."
#[test]
fn the_findings_can_be_had_as_json() {
    let data = Data::new();
    sandbox(data.path(), ["doctor".to_owned(), "--format=json".to_owned(), policy(&data)])
        .exits(0)
        .check("should be a list of checks, with the measured speed", |it| {
            let checks: Vec<Value> = serde_json::from_slice(&it.stdout).unwrap();
            checks.iter().all(|check| check["state"] == "ok")
                && checks.iter().any(|check| check["instructions_per_second"].as_f64() > Some(0.0))
        });
}

/// "Exit status: […] 1 if something it needs is missing."
#[test]
fn what_is_missing_is_named_and_told_by_the_exit_status() {
    sandbox(Data::new().path(), ["doctor", "--kernel=/nonexistent"])
        .exits(1)
        .mentions("missing")
        .mentions("/nonexistent");
}

/// rkt's first line, with our name in it.
#[test]
fn the_version_is_printed() {
    sandbox(Data::new().path(), ["version"]).exits(0).mentions("sandbox Version: 0.");
}
