//! The plan of a check: each tier on a ladder of prompt lengths, alone and under load, with as few
//! server starts as possible and no statistics of speed.

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::plan::Plan;
use crate::plan::problem::list;
use crate::plan::server::Launcher;
use crate::plan::state::CacheState;
use crate::plan::tier::{TierKind, TierSpec};

/// Tokens of the fresh question behind each document.
const QUESTION_TOKENS: u32 = 32;
/// Tokens of each answer of the load, of which only the canaries' are compared: theirs have a length of
/// their own.
const GEN_TOKENS: u32 = 8;
/// Requests a pass: as many documents.
const REQUESTS: u32 = 6;
/// Requests in flight where the plan names fewer.
const LOAD: u32 = 8;
/// Each step of the ladder is at most so many times the one before; the canaries of each have documents of
/// a half to a sixteenth.
const STEP: f64 = 9.0;
/// The cache states of every cell.
const USUAL: [CacheState; 2] = [CacheState::Cold, CacheState::Tier];
/// The keys of the plan's tables that a check takes as they are.
const TAKEN: [&str; 4] = ["model", "server", "tier", "profile"];
/// The keys of `[run]` that a check takes as they are.
const TAKEN_OF_RUN: [&str; 3] = ["seed", "overwrite_gpu", "warmup"];

/// What a check asks besides what its plan holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Tiers, instead of the plan's.
    pub tiers: Vec<String>,
    /// Prompt lengths, instead of the ladder.
    pub prompt_lens: Vec<u32>,
    /// Requests in flight, instead of 1 and the plan's most.
    pub concurrency: Vec<u32>,
    /// How often each place is checked.
    pub rounds: u32,
}

/// The text of the plan that checks the stack of `plan`.
///
/// # Errors
/// Where the plan has none of the tiers.
pub(crate) fn check_plan(plan: &Plan, wish: &Wish) -> Result<String> {
    let source: Table = plan.text.parse().context("reading the plan again")?;
    let tiers = tiers(plan, wish)?;
    let lengths = match wish.prompt_lens.as_slice() {
        [] => ladder(plan, &tiers),
        asked => asked.to_vec(),
    };
    let concurrency = match wish.concurrency.as_slice() {
        [] => {
            let most = plan.axes.concurrency.iter().map(|one| one.get()).max();
            vec![1, most.unwrap_or(1).max(LOAD)]
        }
        asked => asked.to_vec(),
    };
    let mut table = Table::new();
    table.insert("name".to_owned(), text(&format!("{}-check", plan.name)));
    for key in TAKEN {
        if let Some(value) = source.get(key) {
            table.insert(key.to_owned(), value.clone());
        }
    }
    table.insert(
        "matrix".to_owned(),
        matrix(plan, &tiers, &lengths, &concurrency, wish),
    );
    table.insert("run".to_owned(), run(&source, wish.rounds, &concurrency));
    let mut workload = Table::new();
    workload.insert("kind".to_owned(), text("shared-prefix"));
    workload.insert("question_len".to_owned(), integer(QUESTION_TOKENS));
    let workloads = Table::from_iter([("check".to_owned(), Value::Table(workload))]);
    table.insert("workload".to_owned(), Value::Table(workloads));
    Ok(toml::to_string(&ordered(table))?)
}

/// Values before tables, as TOML wants them.
fn ordered(table: Table) -> Table {
    let (tables, values): (Vec<_>, Vec<_>) =
        table.into_iter().partition(|(_, value)| value.is_table());
    values.into_iter().chain(tables).collect()
}

/// The tiers to check: those that were asked for, else the plan's, without the baseline.
fn tiers<'p>(plan: &'p Plan, wish: &Wish) -> Result<Vec<&'p TierSpec>> {
    let resolved = plan.variants.first().context("the plan has no cell")?;
    let known = &resolved.resolved.tiers;
    let names: Vec<&str> = match wish.tiers.as_slice() {
        [] => plan.axes.tier.iter().map(|it| it.value.as_str()).collect(),
        asked => asked.iter().map(String::as_str).collect(),
    };
    let mut tiers = Vec::new();
    for name in names {
        let Some(tier) = known.get(name) else {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            bail!("no tier `{name}`: valid are {}", list(&names));
        };
        if tier.kind != TierKind::Baseline {
            tiers.push(tier);
        }
    }
    if tiers.is_empty() {
        bail!("there is no tier to check: name one, such as `--tier cpu`");
    }
    Ok(tiers)
}

/// From two chunks to the longest prompt that the server takes.
fn ladder(plan: &Plan, tiers: &[&TierSpec]) -> Vec<u32> {
    let chunk = tiers.iter().map(|tier| tier.chunk_tokens()).max();
    let chunk = chunk.unwrap_or(0);
    let shortest = 2 * chunk + QUESTION_TOKENS;
    let planned = plan.axes.prompt_len.iter().map(|one| one.get()).max();
    let first = plan.variants.first();
    let served = first.and_then(|it| it.resolved.server.args.get("max-model-len")?.as_u64());
    let served = served.and_then(|tokens| u32::try_from(tokens).ok());
    let longest = served
        .map(|tokens| tokens.saturating_sub(GEN_TOKENS))
        .or(planned)
        .unwrap_or(shortest)
        .max(shortest);
    steps(shortest, longest, chunk.max(1))
}

/// Prompt lengths from `shortest` to `longest` tokens, as few as [`STEP`] allows and each as many times
/// the one before. Between the two ends they are whole chunks and the question.
fn steps(shortest: u32, longest: u32, chunk: u32) -> Vec<u32> {
    let ratio = f64::from(longest) / f64::from(shortest);
    let count = (ratio.ln() / STEP.ln()).ceil().max(0.0);
    let between = (1..count as u32).map(|step| {
        let tokens = f64::from(shortest) * ratio.powf(f64::from(step) / count);
        tokens as u32 / chunk * chunk + QUESTION_TOKENS
    });
    let mut lengths = vec![shortest];
    lengths.extend(between);
    lengths.push(longest);
    lengths.dedup();
    lengths
}

/// Every tier at every length and concurrency, without shorter prompts under load where neither was asked
/// for; those that survive a restart also after one, on the longest prompts and in one round, since a
/// restart takes as long as all the rest of the round.
fn matrix(
    plan: &Plan,
    tiers: &[&TierSpec],
    lengths: &[u32],
    concurrency: &[u32],
    wish: &Wish,
) -> Value {
    let server = plan.variants.first().map(|it| &it.resolved.server);
    let survives = |tier: &&TierSpec| {
        server.is_some_and(|server| {
            let can_restart = matches!(server.launcher, Launcher::Process | Launcher::Docker);
            can_restart && tier.survives_restart(server.lmcache)
        })
    };
    let survivors: Vec<&TierSpec> = tiers.iter().copied().filter(survives).collect();
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let fewest = concurrency.iter().copied().min().unwrap_or(1);
    let mut excluded = match (wish.prompt_lens.as_slice(), wish.concurrency.as_slice()) {
        ([], []) => shorter_under_load(lengths, longest, concurrency, fewest),
        _ => Vec::new(),
    };
    let mut table = Table::new();
    let mut put = |key: &str, value| drop(table.insert(key.to_owned(), value));
    let names = tiers.iter().map(|tier| text(&tier.name));
    put("tier", Value::Array(names.collect()));
    put("prompt_len", integers(lengths));
    put("gen_len", integers(&[GEN_TOKENS]));
    put("concurrency", integers(concurrency));
    put("label", Value::Array(vec![text("check")]));
    if !survivors.is_empty() {
        let restarts = Restarts {
            tiers: &survivors,
            at: (longest, fewest),
            rounds: wish.rounds.max(1),
        };
        restarts.put(&mut table, &mut excluded);
    }
    if !excluded.is_empty() {
        table.insert("exclude".to_owned(), Value::Array(excluded));
    }
    Value::Table(table)
}

/// Tiers that are asked again after a restart too.
struct Restarts<'t> {
    tiers: &'t [&'t TierSpec],
    /// Where: prompt length and requests in flight.
    at: (u32, u32),
    /// How often their place is checked. One of the rounds has the restart, and the other states too.
    rounds: u32,
}

impl Restarts<'_> {
    /// Makes states and rounds axes of `matrix`, of which only the cells that are meant are left.
    fn put(&self, matrix: &mut Table, excluded: &mut Vec<Value>) {
        const STATES: &str = "run.states";
        const ROUNDS: &str = "run.repeats";
        let states = |all: &[CacheState]| -> Value {
            Value::Array(all.iter().map(|it| text(it.word())).collect())
        };
        let usual = states(&USUAL);
        let with_restart = states(&[CacheState::Cold, CacheState::Tier, CacheState::Restart]);
        let mut counts = vec![self.rounds, self.rounds - 1, 1];
        counts.retain(|count| *count > 0);
        counts.dedup();
        let cell = |tier: &TierSpec, states: &Value, count: u32| {
            entry(&[
                ("tier", text(&tier.name)),
                ("prompt_len", integer(self.at.0)),
                ("concurrency", integer(self.at.1)),
                (STATES, states.clone()),
                (ROUNDS, integer(count)),
            ])
        };
        excluded.push(entry(&[(STATES, with_restart.clone())]));
        let fewer = counts.iter().filter(|count| **count != self.rounds);
        excluded.extend(fewer.map(|count| entry(&[(ROUNDS, integer(*count))])));
        let mut included = Vec::new();
        for tier in self.tiers {
            excluded.push(cell(tier, &usual, self.rounds));
            if self.rounds > 1 {
                included.push(cell(tier, &usual, self.rounds - 1));
            }
            included.push(cell(tier, &with_restart, 1));
        }
        let both = Value::Array(vec![usual, with_restart]);
        matrix.insert(STATES.to_owned(), both);
        matrix.insert(ROUNDS.to_owned(), integers(&counts));
        matrix.insert("include".to_owned(), Value::Array(included));
    }
}

/// A table of `[[matrix.include]]` or `[[matrix.exclude]]`.
fn entry(values: &[(&str, Value)]) -> Value {
    let values = values.iter();
    Value::Table(
        values
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect(),
    )
}

/// Shorter prompts under load: the longest move the most at once, and each place takes its time.
fn shorter_under_load(
    lengths: &[u32],
    longest: u32,
    concurrency: &[u32],
    fewest: u32,
) -> Vec<Value> {
    let shorter = lengths.iter().filter(|length| **length != longest);
    let more = concurrency.iter().filter(|at_once| **at_once != fewest);
    let pairs = shorter.flat_map(|length| more.clone().map(move |at_once| (length, at_once)));
    let left_out = pairs.map(|(length, at_once)| {
        entry(&[
            ("prompt_len", integer(*length)),
            ("concurrency", integer(*at_once)),
        ])
    });
    left_out.collect()
}

fn run(source: &Table, rounds: u32, concurrency: &[u32]) -> Value {
    let most = concurrency.iter().copied().max().unwrap_or(1);
    let mut table = Table::new();
    let taken = source.get("run").and_then(Value::as_table);
    for key in TAKEN_OF_RUN {
        if let Some(value) = taken.and_then(|run| run.get(key)) {
            table.insert(key.to_owned(), value.clone());
        }
    }
    for (key, value) in [
        ("requests", integer(REQUESTS.max(most))),
        ("repeats", integer(rounds)),
        ("order", text("grouped")),
        ("reuse", text("server")),
        ("controls", Value::Boolean(false)),
        ("canaries", integer(3)),
        ("canaries_in_load", integer(2)),
        (
            "states",
            Value::Array(USUAL.map(|it| text(it.word())).to_vec()),
        ),
    ] {
        table.insert(key.to_owned(), value);
    }
    Value::Table(table)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn integers(numbers: &[u32]) -> Value {
    Value::Array(numbers.iter().map(|one| integer(*one)).collect())
}

fn integer(number: u32) -> Value {
    Value::Integer(number.into())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::matrix::Matrix;

    const PLAN: &str = r#"
name = "mine"
model = "m"
[matrix]
tier = ["baseline", "cpu", "redis"]
prompt_len = [1024]
gen_len = [100]
concurrency = [16]
label = ["rag"]
[run]
requests = 100
seed = 9
[workload.rag]
kind = "unique"
[tier.cpu]
max_local_cpu_size = 3
[server]
launcher = "process"
[server.args]
max-model-len = 8192
"#;

    fn checked(wish: &Wish) -> Plan {
        let plan = Plan::parse(PLAN, "mine.toml").unwrap();
        let text = check_plan(&plan, wish).unwrap();
        Plan::parse(&text, "check.toml").unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }

    #[test]
    fn a_check_asks_each_tier_from_two_chunks_to_the_longest_prompt_and_that_one_under_load() {
        let plan = checked(&Wish {
            rounds: 2,
            ..Wish::default()
        });
        let cells: Vec<String> = Matrix::expand(&plan)
            .unwrap()
            .cells
            .iter()
            .map(|cell| {
                let states: Vec<&str> = cell
                    .resolved
                    .run
                    .states
                    .iter()
                    .map(|it| it.name())
                    .collect();
                let at = &cell.coordinates;
                format!(
                    "{} {} {} {}",
                    at.tier,
                    at.prompt_len,
                    at.concurrency,
                    states.join("+")
                )
            })
            .collect();
        let count = |text: &str| cells.iter().filter(|cell| cell.starts_with(text)).count();
        assert_eq!(count("baseline"), 0, "{cells:?}");
        for place in ["544 1", "2080 1", "8184 1", "8184 16"] {
            let found = count(&format!("cpu {place} cold+tier"));
            assert_eq!(found, 2, "{place}: {cells:?}");
        }
        assert_eq!(count("redis 8184 1 cold+tier"), 2, "{cells:?}");
        assert_eq!(count("redis 8184 1 cold+tier+restart"), 1, "{cells:?}");
        assert_eq!(cells.len(), 2 * (4 + 4), "{cells:?}");
        let run = &plan.variants[0].resolved.run;
        assert_eq!((run.requests.get(), run.seed.0, run.canaries), (16, 9, 3));
        let tier = &plan.variants[0].resolved.tiers["cpu"];
        assert!((tier.ram_gib() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn each_place_has_as_many_rounds_as_asked_for_and_one_restart() {
        for rounds in 1..=4 {
            let plan = checked(&Wish {
                rounds,
                ..Wish::default()
            });
            let cells = Matrix::expand(&plan).unwrap().cells;
            let mut seeds = HashSet::new();
            let mut found = BTreeMap::<_, u32>::new();
            for cell in &cells {
                let at = &cell.coordinates;
                assert!(
                    seeds.insert((at.tier.clone(), cell.seed().0, at.repeat.get())),
                    "{at:?}: prompts of another round"
                );
                for state in &cell.resolved.run.states {
                    let place = (at.tier.clone(), at.prompt_len.get(), at.concurrency.get());
                    *found.entry((place, state.name())).or_default() += 1;
                }
            }
            for ((place, state), count) in &found {
                let expected = if *state == "restart" { 1 } else { rounds };
                assert_eq!(*count, expected, "{place:?} {state} of {rounds} rounds");
            }
            let restarts = found.keys().filter(|(_, state)| *state == "restart");
            assert_eq!(restarts.count(), 1, "{found:?}");
        }
    }

    proptest! {
        #[test]
        fn the_ladder_goes_from_end_to_end_in_even_steps(
            shortest_chunks in 2_u32..5, chunk in 16_u32..600, longest in 1000_u32..2_000_000,
        ) {
            let shortest = shortest_chunks * chunk + QUESTION_TOKENS;
            let longest = longest.max(shortest);
            let lengths = steps(shortest, longest, chunk);
            prop_assert_eq!(lengths.first(), Some(&shortest));
            prop_assert_eq!(lengths.last(), Some(&longest));
            prop_assert!(lengths.is_sorted_by(|one, next| one < next), "{:?}", lengths);
            // Between two neighbours lies their geometric mean, but for whole chunks and the question.
            for three in lengths.windows(3) {
                let [low, middle, high] = [0, 1, 2].map(|at| f64::from(three[at]));
                let chunk = f64::from(chunk + QUESTION_TOKENS);
                let least = ((low - f64::from(QUESTION_TOKENS)) * (high - chunk)).max(0.0).sqrt();
                let most = ((low + chunk) * (high + chunk)).sqrt();
                let even = least - chunk..=most + chunk;
                prop_assert!(even.contains(&middle), "{:?}", lengths);
            }
            let fewest = (f64::from(longest) / f64::from(shortest)).ln() / STEP.ln();
            prop_assert!(lengths.len() as f64 <= fewest.ceil() + 1.0, "{:?}", lengths);
        }
    }

    #[test]
    fn what_is_asked_for_stands_instead_of_the_ladder() {
        let plan = checked(&Wish {
            tiers: vec!["cpu".to_owned()],
            prompt_lens: vec![1000],
            concurrency: vec![2],
            rounds: 1,
        });
        assert_eq!(Matrix::expand(&plan).unwrap().cells.len(), 1);
        let plan = checked(&Wish {
            tiers: vec!["cpu".to_owned()],
            prompt_lens: vec![1000, 4000],
            concurrency: Vec::new(),
            rounds: 1,
        });
        assert_eq!(
            Matrix::expand(&plan).unwrap().cells.len(),
            4,
            "all asked lengths under load too"
        );
    }

    #[test]
    fn a_tier_that_there_is_not_is_refused() {
        let plan = Plan::parse(PLAN, "mine.toml").unwrap();
        for (tier, words) in [("cpuu", "no tier `cpuu`"), ("baseline", "no tier to check")] {
            let wish = Wish {
                tiers: vec![tier.to_owned()],
                rounds: 1,
                ..Wish::default()
            };
            let error = check_plan(&plan, &wish).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
