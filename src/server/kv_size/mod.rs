//! KV bytes per token: which sources know it, how well, and whether they agree.
//!
//! Sources in the order of trust: the engine's start log, LMCache's own account of what it stored,
//! the model's `config.json`, the plan. What the GPU takes per token and what the tier stores per
//! token may differ (tensor parallelism copies the latent of an MLA model, a serializer
//! compresses). Both are stored, and each leg of a transfer is judged by its own.

use serde::{Deserialize, Serialize};

use crate::units::{Bounds, grouped};

mod cell;
pub(crate) mod config;
pub(crate) mod logs;

pub(crate) use cell::{of_cell, positions, vocabulary};

/// Share by which two sources may differ and still mean the same size: engines round memory to
/// whole blocks.
const TOLERANCE: f64 = 0.01;

/// Who states a size. The order is the order of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The engine's start log: KV memory / KV tokens.
    EngineLog,
    /// LMCache's log of what it stored: bytes / tokens.
    LmcacheLog,
    /// The formula, from the model's `config.json`.
    ModelConfig,
    /// `kv_bytes_per_token` in the plan.
    Plan,
    /// The simulator's own constant.
    Simulator,
}

impl Source {
    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EngineLog => "the engine's start log",
            Self::LmcacheLog => "LMCache's log",
            Self::ModelConfig => "the model's config.json",
            Self::Plan => "the plan",
            Self::Simulator => "the simulator",
        }
    }
}

/// What one source states about the KV bytes per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Statement {
    /// The source of the statement.
    pub source: Source,
    /// What the engine takes on the GPU per token, all ranks together.
    pub device: Option<Bounds>,
    /// What the tier stores per token, all ranks together.
    pub stored: Option<Bounds>,
}

/// Everything that is known of a model's KV size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KvSize {
    /// All statements, the most trusted first.
    pub statements: Vec<Statement>,
    /// Why sources do not know it; sentences without a full stop.
    pub unknown: Vec<String>,
}

/// Bytes per token of one pass: what the GPU takes and what the tier stores, where they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KvBytes {
    /// What a token takes on the GPU.
    pub device: Option<Bounds>,
    /// What a token takes in the tier.
    pub stored: Option<Bounds>,
}

impl KvSize {
    /// Sorts the statements by trust, the most trusted first.
    pub(crate) fn new(mut statements: Vec<Statement>, unknown: Vec<String>) -> Self {
        statements.sort_by_key(|statement| statement.source);
        Self {
            statements,
            unknown,
        }
    }

    /// The same with further statements. The simulator's size is exact as it is.
    pub(crate) fn with(mut self, more: impl IntoIterator<Item = Statement>) -> Self {
        let simulated = |statement: &Statement| statement.source == Source::Simulator;
        if !self.statements.iter().any(simulated) {
            self.statements.extend(more);
        }
        Self::new(self.statements, self.unknown)
    }

    /// The sizes that the verdict uses.
    pub(crate) fn bytes(&self) -> KvBytes {
        KvBytes {
            device: self.device().map(|(_, bytes)| bytes),
            stored: self.stored().map(|(_, bytes)| bytes),
        }
    }

    /// What the GPU takes per token, with its source. Where sources contradict each other, all sizes
    /// between them are possible, unless the plan states one of theirs.
    pub(crate) fn device(&self) -> Option<(Source, Bounds)> {
        self.agreed(|statement| statement.device)
    }

    fn agreed(&self, of: impl Fn(&Statement) -> Option<Bounds>) -> Option<(Source, Bounds)> {
        let stated = |statement: &Statement| Some((statement.source, of(statement)?));
        let all: Vec<(Source, Bounds)> = self.statements.iter().filter_map(stated).collect();
        let (plan, found): (Vec<_>, Vec<_>) =
            all.iter().partition(|(source, _)| *source == Source::Plan);
        let Some(&(first, trusted)) = found.first() else {
            return plan.first().copied();
        };
        if found
            .iter()
            .all(|(_, other)| trusted.agrees(*other, TOLERANCE))
        {
            return Some((first, trusted));
        }
        let chosen = |(_, bytes): &&(Source, Bounds)| {
            plan.iter()
                .any(|(_, planned)| planned.agrees(*bytes, TOLERANCE))
        };
        if let Some(chosen) = found.iter().find(chosen) {
            return Some(*chosen);
        }
        let hull = found.iter().fold(trusted, |hull, (_, other)| Bounds {
            low: hull.low.min(other.low),
            high: hull.high.max(other.high),
        });
        Some((first, hull))
    }

    /// What the tier stores per token, with its source. LMCache's own report is the best; without it
    /// the size on the GPU is used.
    pub(crate) fn stored(&self) -> Option<(Source, Bounds)> {
        let own = |statement: &&Statement| statement.source == Source::LmcacheLog;
        let own = self.statements.iter().find(own);
        let own = own.and_then(|statement| Some((statement.source, statement.stored?)));
        own.or_else(|| self.agreed(|statement| statement.stored))
    }

    /// A sentence for each pair of sources that contradict each other about the GPU's KV.
    pub(crate) fn disagreements(&self) -> Vec<String> {
        let Some((_, used)) = self.device() else {
            return Vec::new();
        };
        let stated = |statement: &Statement| Some((statement.source, statement.device?));
        let mut stated = self.statements.iter().filter_map(stated);
        let Some((first, trusted)) = stated.next() else {
            return Vec::new();
        };
        let differs = |(source, other): (Source, Bounds)| {
            (!trusted.agrees(other, TOLERANCE)).then(|| {
                format!(
                    "KV bytes per token: {} says {}, {} says {}; labrun reckons with {}{}",
                    first.name(),
                    shown(trusted),
                    source.name(),
                    shown(other),
                    shown(used),
                    match source {
                        Source::Plan => "",
                        _ => " (`kv_bytes_per_token` in [server] can say which of them is right)",
                    }
                )
            })
        };
        stated.filter_map(differs).collect()
    }
}

/// `131,072`, or `65,536 to 131,072` for an interval.
fn shown(bytes: Bounds) -> String {
    let (low, high) = (bytes.low.round() as u64, bytes.high.round() as u64);
    if high - low <= high / 100 {
        grouped(bytes.middle().round() as u64)
    } else {
        format!("{} to {}", grouped(low), grouped(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(source: Source, device: f64) -> Statement {
        Statement {
            source,
            device: Some(Bounds::exact(device)),
            stored: Some(Bounds::exact(device)),
        }
    }

    #[test]
    fn the_most_trusted_source_wins_and_contradictions_are_named() {
        let size = KvSize::new(
            vec![
                statement(Source::Plan, 65_536.0),
                statement(Source::EngineLog, 131_085.0),
                statement(Source::ModelConfig, 131_072.0),
            ],
            Vec::new(),
        );
        assert_eq!(size.device().unwrap().0, Source::EngineLog);
        assert_eq!(
            size.disagreements(),
            [
                "KV bytes per token: the engine's start log says 131,085, the plan says 65,536; \
                 labrun reckons with 131,085"
            ]
        );
        assert_eq!(KvSize::default().device(), None);
    }

    #[test]
    fn where_sources_contradict_each_other_every_size_between_them_is_possible() {
        let engine = statement(Source::EngineLog, 437_508.0);
        let model = statement(Source::ModelConfig, 131_072.0);
        let planned = |bytes| statement(Source::Plan, bytes);
        let between = Bounds {
            low: 131_072.0,
            high: 437_508.0,
        };
        for (plan, used) in [
            (None, between),
            (Some(planned(131_072.0)), Bounds::exact(131_072.0)),
            (Some(planned(437_000.0)), Bounds::exact(437_508.0)),
            (Some(planned(1000.0)), between),
        ] {
            let size = KvSize::new(
                [engine, model].into_iter().chain(plan).collect(),
                Vec::new(),
            );
            assert_eq!(size.bytes().device, Some(used), "{plan:?}");
            assert_eq!(size.bytes().stored, Some(used), "{plan:?}");
            let said = size.disagreements();
            assert!(
                said[0].contains("`kv_bytes_per_token` in [server]"),
                "{said:?}"
            );
        }
    }

    #[test]
    fn lmcache_knows_best_what_it_stored() {
        let mut lmcache = statement(Source::LmcacheLog, 40_000.0);
        lmcache.device = None;
        let size = KvSize::new(
            vec![lmcache, statement(Source::EngineLog, 131_085.0)],
            Vec::new(),
        );
        assert_eq!(size.stored().unwrap().0, Source::LmcacheLog);
        assert_eq!(size.device().unwrap().0, Source::EngineLog);
        assert_eq!(size.disagreements(), Vec::<String>::new());
    }
}
