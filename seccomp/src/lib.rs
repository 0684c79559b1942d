//! System call filters as data files, `NAME.policy`, which build scripts compile to the programs
//! that the kernel runs (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
//!
//! A file has one rule a line, and every rule says why it is there:
//!
//! ```text
//! # A line that is a comment.
//! CALL                                             # why
//! CALL  arg1 == VALUE                              # why
//! CALL  arg0 == VALUE && arg2 & MASK == VALUE      # why
//! ```
//!
//! A call is allowed if one of its rules holds, and anything else kills the process. Arguments are
//! numbered from 0. A value is a number, the name of a constant that [`names`] knows, or several of
//! them joined by `|`. The lower 32 bits of an argument are compared, which is what the kernel looks
//! at in all that are named in our files, but for `NULL`, which is compared in all 64 bits: those
//! are pointers.
//!
//! The form that digests are made of ([`Policy::canonical`]) has no comments and only numbers.

pub mod names;
mod rule;
mod source;

pub use rule::{Condition, Rule};
pub use source::{BuildError, build, canonical};

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A line is no rule.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The same call is there with rules of which one makes the other needless.
    #[error("{0} is there twice with the same conditions, or once without any")]
    Twice(String),
    /// A file without rules would kill whoever reads it.
    #[error("there is no rule in it")]
    Empty,
    /// The compiler refuses it.
    #[error("cannot compile it: {0}")]
    Compile(#[from] seccompiler::Error),
}

/// A file: what the threads of one kind may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut rules: Vec<Rule> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let rule =
                Rule::parse(line).map_err(|problem| PolicyError::Line { line: number, problem })?;
            let needless = |other: &&Rule| {
                other.conditions == rule.conditions
                    || other.conditions.is_empty()
                    || rule.conditions.is_empty()
            };
            if rules.iter().filter(|other| other.call == rule.call).any(|other| needless(&other)) {
                return Err(PolicyError::Twice(rule.call));
            }
            rules.push(rule);
        }
        if rules.is_empty() { Err(PolicyError::Empty) } else { Ok(Self { rules }) }
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The calls, each once.
    pub fn calls(&self) -> BTreeSet<&str> {
        self.rules.iter().map(|rule| rule.call.as_str()).collect()
    }

    /// The same but for the rule of this number, which shows whether anything needs it.
    #[must_use]
    pub fn without(&self, index: usize) -> Self {
        let rules = self.rules.iter().enumerate();
        let rules = rules.filter(|(other, _)| *other != index).map(|(_, rule)| rule.clone());
        Self { rules: rules.collect() }
    }

    /// The same for a debug build, whose standard library looks whether a descriptor is open before it
    /// closes it. The product's doesn't, so that no file allows it.
    #[must_use]
    pub fn for_debug_build(mut self) -> Self {
        let known =
            self.rules.iter().any(|rule| rule.call == "fcntl" && rule.conditions.is_empty());
        let rule = Rule::parse("fcntl arg1 == F_GETFD # assertions of the standard library");
        self.rules.extend(rule.into_iter().filter(|_| !known));
        self
    }

    /// The rules in numbers, sorted: the same for files that allow the same.
    pub fn canonical(&self) -> String {
        let mut lines: Vec<String> = self.rules.iter().map(Rule::canonical).collect();
        lines.sort();
        lines.concat()
    }

    /// The program.
    ///
    /// # Errors
    /// [`PolicyError::Compile`] for a call that this platform doesn't have.
    pub fn compile(&self) -> Result<BpfProgram, PolicyError> {
        const NAME: &str = "policy";
        let rules: Vec<Value> = self.rules.iter().map(Rule::for_compiler).collect();
        let filter = json!({ NAME: {
            "mismatch_action": "kill_process",
            "match_action": "allow",
            "filter": rules,
        }});
        let mut programs = compile_from_json(filter.to_string().as_bytes(), TargetArch::x86_64)?;
        // The compiler makes one program for each name.
        programs.remove(NAME).ok_or(PolicyError::Empty)
    }
}

#[cfg(test)]
mod tests;
