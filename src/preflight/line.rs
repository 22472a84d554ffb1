//! One line of the report: a topic, its level and how to fix it.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// How good the machine is in one respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Some plans will fail, or measure less than they could.
    Warning,
    /// What was asked for cannot work.
    Error,
}

impl Level {
    /// The word that the table shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was seen of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its name, as in `docs/doctor.md`.
    pub topic: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was seen, for example "no limit".
    pub message: String,
    /// How to fix it; empty if it is good.
    pub fix: String,
}

impl Serialize for Line {
    /// `says` and `mend` are what version 0.1 called `message` and `fix`; its readers still find them.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 6)?;
        line.serialize_field("topic", self.topic)?;
        line.serialize_field("level", &self.level)?;
        for name in ["message", "says"] {
            line.serialize_field(name, &self.message)?;
        }
        for name in ["fix", "mend"] {
            line.serialize_field(name, &self.fix)?;
        }
        line.end()
    }
}

impl Line {
    pub(super) fn good(topic: &'static str, message: impl Into<String>) -> Self {
        Self {
            topic,
            level: Level::Good,
            message: message.into(),
            fix: String::new(),
        }
    }

    pub(super) fn of(
        topic: &'static str,
        level: Level,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            topic,
            level,
            message: message.into(),
            fix: fix.into(),
        }
    }

    pub(super) fn warning(
        topic: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::of(topic, Level::Warning, message, fix)
    }
}

/// Bytes as GiB, for people.
pub(super) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
