//! `[run]`: how many requests, in which cache states, in which order.

use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::problem::suggestion;
use super::reader::{Located, TableReader};
use super::state::CacheState;
use super::value::{boolean, non_negative, string, up_to, zero_up_to};
use crate::units::{Repeat, RequestCount, Seed};

/// In which order cells run. It changes what is measured, so it is the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Repeat 1 of all cells, then 2. Tiers rotate in each repeat: drift of the machine affects
    /// every tier alike.
    Interleaved,
    /// All cells of one server together.
    Grouped,
}

/// How long a server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reuse {
    /// One server a cell.
    Cell,
    /// One server for successive cells that differ only in load.
    Server,
}

/// `[run]`, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Measured requests a cell and cache state.
    pub requests: RequestCount,
    /// How often the whole matrix runs.
    pub repeats: Repeat,
    /// The cache states, in the order that a server reaches them.
    pub states: Vec<CacheState>,
    /// The order of cells.
    pub order: Order,
    /// How long a server lives.
    pub reuse: Reuse,
    /// The root of all that is random.
    pub seed: Seed,
    /// Requests on other text, of the cell's own shape, before anything is measured.
    pub warmup: u32,
    /// Prompts asked one by one in each state, whose text must not change; 0 asks none, and then
    /// no tier can be proven.
    pub canaries: u32,
    /// Whether each tier is also measured where offloading can win nothing; absent: on real
    /// servers, not on the simulator.
    #[serde(default)]
    pub controls: Option<bool>,
    /// Canaries within each load after a cold one; they are in the counters and in no statistic.
    /// Absent: one on real servers, none on the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canaries_in_load: Option<u32>,
    /// Whether the GPU's KV blocks are overwritten with other text before a server's first tier pass;
    /// absent: on real servers, not on the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrite_gpu: Option<bool>,
    /// Limits of time, pauses, and how many repeats.
    #[serde(default)]
    pub pace: Pace,
}

impl RunSpec {
    /// Reads `[run]`; a missing table means the defaults.
    pub fn read(table: Option<&TableReader<'_>>) -> Self {
        let mut spec = Self::default();
        let Some(table) = table else { return spec };
        if let Some(located) = table.read("requests", up_to(10_000_000))
            && let Some(count) = RequestCount::new(located.value)
        {
            spec.requests = count;
        }
        let (repeats, pace) = Pace::read(table);
        spec.repeats = repeats.unwrap_or(spec.repeats);
        spec.pace = pace;
        if let Some(located) = table.list("states", string) {
            spec.states = read_states(table, &located);
        }
        let orders = [
            ("interleaved", Order::Interleaved),
            ("grouped", Order::Grouped),
        ];
        if let Some(located) = table.choice("order", &orders) {
            spec.order = located.value;
        }
        if let Some(located) =
            table.choice("reuse", &[("cell", Reuse::Cell), ("server", Reuse::Server)])
        {
            spec.reuse = located.value;
        }
        if let Some(located) = table.read("seed", non_negative) {
            spec.seed = Seed(located.value);
        }
        let count = |key: &str| {
            let read = table.read(key, zero_up_to(100_000));
            read.map(|located| located.value)
        };
        spec.warmup = count("warmup").unwrap_or(spec.warmup);
        spec.canaries = count("canaries").unwrap_or(spec.canaries);
        spec.canaries_in_load = count("canaries_in_load");
        spec.overwrite_gpu = table
            .read("overwrite_gpu", boolean)
            .map(|located| located.value);
        spec.controls = table.read("controls", boolean).map(|located| located.value);
        table.finish();
        spec
    }
}

impl Default for RunSpec {
    /// What a plan without `[run]` means.
    fn default() -> Self {
        let one = |count: Option<RequestCount>| count.unwrap_or_else(|| unreachable!("not zero"));
        Self {
            requests: one(RequestCount::new(24)),
            repeats: Repeat::new(1).unwrap_or_else(|| unreachable!("not zero")),
            states: vec![CacheState::Cold, CacheState::Tier],
            order: Order::Interleaved,
            reuse: Reuse::Cell,
            seed: Seed(42),
            warmup: 2,
            canaries: 2,
            canaries_in_load: None,
            controls: None,
            overwrite_gpu: None,
            pace: Pace::default(),
        }
    }
}

fn read_states(
    table: &TableReader<'_>,
    located: &Located<Vec<Located<String>>>,
) -> Vec<CacheState> {
    let mut states = Vec::new();
    for name in &located.value {
        let Some(state) = CacheState::from_name(&name.value) else {
            let names = CacheState::ALL.map(CacheState::word);
            let message = format!("unknown cache state `{}` in {}", name.value, table.title());
            table
                .problems()
                .add(name.span.clone(), message, suggestion(&name.value, &names));
            continue;
        };
        if states.contains(&state) {
            let message = format!(
                "cache state `{}` stands twice in {}",
                state.word(),
                table.title()
            );
            table
                .problems()
                .add(name.span.clone(), message, "remove one");
        } else {
            states.push(state);
        }
    }
    // One server reaches them in this order only: `gpu` needs what `cold` left behind.
    states.sort_unstable();
    states
}
