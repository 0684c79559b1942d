//! Why something is refused.

use crate::rules::Check;
use serde::Serialize;

/// One thing that speaks against a launch. Its texts can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The rule that it is against.
    pub rule: String,
    /// What is wrong.
    pub problem: String,
}

impl Reason {
    pub(crate) fn of(check: &Check) -> Self {
        Self { rule: check.rule.clone(), problem: check.found.clone() }
    }

    /// Several in one line, each rule before what is against it:
    /// `the default in policy.json: it rejects every image; and by rule 1 in …: …`.
    pub fn list(reasons: &[Self]) -> String {
        let mut text = String::new();
        let mut last = None;
        for Self { rule, problem } in reasons {
            if last == Some(rule) {
                text.push_str("; ");
            } else {
                text.push_str(if last.is_some() { "; and by " } else { "" });
                text.push_str(rule);
                text.push_str(": ");
            }
            text.push_str(problem);
            last = Some(rule);
        }
        text
    }
}

/// The rules, each once.
pub(crate) fn rules(reasons: &[Reason]) -> String {
    let mut rules: Vec<&str> = reasons.iter().map(|reason| reason.rule.as_str()).collect();
    rules.dedup();
    rules.join(" and by ")
}
