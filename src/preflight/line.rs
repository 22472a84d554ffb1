//! What is reported of one topic, and how good it is.

use serde::Serialize;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Some plans will fail, or measure less than they could.
    Warning,
    /// What was asked for cannot work.
    Bad,
}

impl Level {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What.
    pub topic: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was seen.
    pub says: String,
    /// What to do about it; empty where it is good.
    pub mend: String,
}

impl Line {
    pub(super) fn good(topic: &'static str, says: impl Into<String>) -> Self {
        Self {
            topic,
            level: Level::Good,
            says: says.into(),
            mend: String::new(),
        }
    }

    pub(super) fn of(
        topic: &'static str,
        level: Level,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            topic,
            level,
            says: says.into(),
            mend: mend.into(),
        }
    }

    pub(super) fn warning(
        topic: &'static str,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::of(topic, Level::Warning, says, mend)
    }
}

/// Bytes as GiB, for people.
pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
