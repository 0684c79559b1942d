//! What a rule asks for, and whether that is so.

use sandbox_image::Text;
use serde::Serialize;

/// One thing that a rule asks for, and the answer. All texts can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which rule it is.
    pub rule: String,
    /// What it asks for.
    pub demand: String,
    /// Whether that is so.
    pub answer: Answer,
    /// What was found.
    pub found: String,
}

/// Whether what a rule asks for is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is.
    Met,
    /// It is not, which refuses.
    Unmet,
    /// That is known later: when a pod is launched, or when it was measured.
    Open,
}

/// What is known about an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageFacts<'a> {
    /// Its version by its own account.
    pub version: Option<&'a str>,
    /// When the signatures were made that were accepted.
    pub signed: Option<i64>,
    /// When it was made by its own account.
    pub created: Option<i64>,
    /// The keys whose signatures were accepted.
    pub keys: &'a [String],
}

/// A [`Check`] of a rule that does not know its name.
#[derive(Debug)]
pub(super) struct Finding {
    demand: String,
    answer: Answer,
    found: String,
}

impl Finding {
    pub(super) fn met(demand: impl Into<String>, found: impl Into<String>) -> Self {
        Self { demand: demand.into(), answer: Answer::Met, found: found.into() }
    }

    pub(super) fn unmet(demand: impl Into<String>, found: impl Into<String>) -> Self {
        Self { demand: demand.into(), answer: Answer::Unmet, found: found.into() }
    }

    pub(super) fn open(demand: impl Into<String>, found: impl Into<String>) -> Self {
        Self { demand: demand.into(), answer: Answer::Open, found: found.into() }
    }

    /// Of a rule for the pods of a tenant, where it is not known whose pod it will be.
    pub(super) fn only_for(self, tenant: &str) -> Self {
        let found = match self.answer {
            Answer::Met | Answer::Unmet => format!(
                "for pods of tenant '{}' only: {}; {}",
                Text::new(tenant),
                if self.answer == Answer::Met { "met" } else { "not met" },
                self.found
            ),
            Answer::Open => {
                format!("for pods of tenant '{}' only: {}", Text::new(tenant), self.found)
            }
        };
        Self { answer: Answer::Open, found, ..self }
    }

    pub(super) fn of(self, rule: &str) -> Check {
        let Self { demand, answer, found } = self;
        Check { rule: rule.to_owned(), demand, answer, found }
    }
}

impl Check {
    /// In one line.
    pub fn line(&self) -> String {
        match self.answer {
            Answer::Met | Answer::Unmet => format!("{}: {}", self.rule, self.found),
            Answer::Open => format!("{} asks for {}: {}", self.rule, self.demand, self.found),
        }
    }
}
