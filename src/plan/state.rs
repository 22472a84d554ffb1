//! Cache states and the order that they are reached in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is warm when the clock starts. Ordered as one server can reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheState {
    /// Nothing: every prompt is computed.
    Cold,
    /// The GPU prefix cache.
    Gpu,
    /// Only the tier: the GPU prefix cache was cleared.
    Tier,
    /// Only the tier, after the server was restarted.
    Restart,
}

impl CacheState {
    /// Every state, in order.
    pub const ALL: [CacheState; 4] = [Self::Cold, Self::Gpu, Self::Tier, Self::Restart];

    /// The word in CSV columns and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Gpu => "gpu",
            Self::Tier => "tier",
            Self::Restart => "restart",
        }
    }

    /// The word in plans.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Gpu => "gpu-hit",
            Self::Tier => "tier-hit",
            Self::Restart => "after-restart",
        }
    }

    /// The words that screens and reports show.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Gpu => "GPU hit",
            Self::Tier => "tier hit",
            Self::Restart => "after restart",
        }
    }

    /// The state called `name` in a plan or in a file: plans of old write what files do.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_called = |state: &Self| state.word() == name || state.name() == name;
        Self::ALL.into_iter().find(is_called)
    }
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
