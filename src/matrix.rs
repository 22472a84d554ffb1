//! Plan to ordered, fully resolved cells. Pure: no I/O, no clock.

pub mod controls;
mod coordinates;
pub mod inputs;
pub mod shard;

use std::sync::Arc;

use crate::plan::axes::{Axes, PartialCell};
use crate::plan::problem::{PlanProblems, Problem};
use crate::plan::run::{Order, Reuse};
use crate::plan::tier::{TierKind, TierSpec};
use crate::plan::workload_spec::WorkloadSpec;
use crate::plan::{Plan, Resolved, Variant};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat, Seed};

pub use coordinates::Coordinates;

/// One point of the matrix, complete: it can be run, hashed and stored without its plan.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its coordinates and a hash of all plan values that decide its result.
    pub id: String,
    /// Where it lies.
    pub coordinates: Coordinates,
    /// The plan's values at this cell.
    pub resolved: Arc<Resolved>,
    /// The tier.
    pub tier: Arc<TierSpec>,
    /// The workload.
    pub workload: Arc<WorkloadSpec>,
    /// Cells with equal keys differ only in load, so that one server can serve them.
    pub server_key: Arc<str>,
}

impl Cell {
    /// The seed of this cell's prompts. The tier is not in it: at equal coordinates every tier
    /// is asked the same.
    pub fn seed(&self) -> Seed {
        let at = Coordinates {
            tier: String::new(),
            ..self.coordinates.clone()
        };
        let at = String::from_utf8_lossy(&at.bytes()).into_owned();
        self.resolved.run.seed.derive(&at)
    }

    /// Whether it may find a server of an earlier cell running.
    pub fn can_share(&self) -> bool {
        self.resolved.run.reuse == Reuse::Server
    }
}

/// All cells of a plan, in the order that they run. At least one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The cells.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Expands `plan`. Fails when nothing is left to run.
    pub fn expand(plan: &Plan) -> Result<Self, PlanProblems> {
        let mut problems = Vec::new();
        let mut placed = Vec::new();
        for (index, variant) in plan.variants.iter().enumerate() {
            place(plan, &plan.axes, index, variant, &mut placed);
        }
        for excluded in &plan.axes.exclude {
            if !placed
                .iter()
                .any(|p| matches(excluded, &p.cell.coordinates))
            {
                problems.push(Problem {
                    span: excluded.span.clone(),
                    message: "this `matrix.exclude` takes no cell out".to_owned(),
                    hint: "each value must stand on its axis".to_owned(),
                });
            }
        }
        placed.retain(|p| {
            !plan
                .axes
                .exclude
                .iter()
                .any(|x| matches(x, &p.cell.coordinates))
        });
        for (index, variant) in plan.variants.iter().enumerate() {
            for included in &plan.axes.include {
                let axes = with_included(&plan.axes, included);
                if included
                    .extra
                    .iter()
                    .all(|(key, value)| variant.extra.get(key) == Some(value))
                {
                    place(plan, &axes, index, variant, &mut placed);
                }
            }
        }
        problems.extend(useless_includes(plan, &placed));
        for (index, variant) in plan.variants.iter().enumerate() {
            controls::place(plan, index, variant, &mut placed);
        }
        placed.sort_by_key(|p| p.rank);
        let mut seen = std::collections::HashSet::new();
        placed.retain(|p| seen.insert(p.cell.coordinates.clone()));
        if placed.is_empty() {
            problems.push(Problem {
                span: plan.axes.span.clone(),
                message: "the matrix has no cell".to_owned(),
                hint: "`matrix.exclude` takes every one out".to_owned(),
            });
        }
        if problems.is_empty() {
            return Ok(Self {
                cells: placed.into_iter().map(|p| p.cell).collect(),
            });
        }
        Err(PlanProblems {
            file: plan.file.clone(),
            text: plan.text.clone(),
            problems,
        })
    }

    /// How many servers are started for the matrix.
    pub fn server_starts(&self) -> usize {
        let shared = |a: &Cell, b: &Cell| shares_server(a, b);
        1 + self
            .cells
            .windows(2)
            .filter(|pair| !shared(&pair[0], &pair[1]))
            .count()
    }
}

/// Whether `next`, run right after `earlier`, uses the same server.
pub fn shares_server(earlier: &Cell, next: &Cell) -> bool {
    [earlier, next]
        .iter()
        .all(|cell| cell.resolved.run.reuse == Reuse::Server)
        && earlier.server_key == next.server_key
}

/// A cell and its place in the order.
struct Placed {
    rank: [usize; 4],
    cell: Cell,
}

fn place(plan: &Plan, axes: &Axes, index: usize, variant: &Variant, placed: &mut Vec<Placed>) {
    let run = &variant.resolved.run;
    for tier in &axes.tier {
        for label in &axes.label {
            let Some(shared) = Shared::new(variant, &tier.value, &label.value) else {
                continue;
            };
            for load in loads(axes) {
                let at = load.place(&plan.axes, &label.value);
                let repeats = repeats_of(plan, variant, &tier.value, at);
                for repeat in (1..=repeats).filter_map(Repeat::new) {
                    // Grouped by server, a tier has one turn for all its repeats.
                    let round = match run.order {
                        Order::Interleaved => repeat.get(),
                        Order::Grouped => 1,
                    };
                    let turn = turn_of(plan, run.seed, &tier.value, round);
                    placed.push(Placed {
                        rank: rank(run.order, run.reuse, index, turn, repeat, at),
                        cell: shared.cell(Coordinates {
                            label: label.value.clone(),
                            tier: tier.value.clone(),
                            prompt_len: load.prompt_len,
                            gen_len: load.gen_len,
                            concurrency: load.concurrency,
                            repeat,
                            extra: variant.extra.clone(),
                        }),
                    });
                }
            }
        }
    }
}

/// How often a cell is measured. With `aa` and no repeats, the first load of each variant is
/// measured twice on the baseline, or else on the first tier: an A/A pair.
fn repeats_of(plan: &Plan, variant: &Variant, tier: &str, load: usize) -> u32 {
    let run = &variant.resolved.run;
    let is_baseline = |name: &str| {
        let tier = variant.resolved.tiers.get(name);
        tier.is_some_and(|tier| tier.kind == TierKind::Baseline)
    };
    let mut names = plan.axes.tier.iter().map(|name| name.value.as_str());
    let twice = names
        .clone()
        .find(|name| is_baseline(name))
        .or(names.next());
    match run.repeats.get() {
        1 if run.pace.aa && load == 0 && twice == Some(tier) => 2,
        repeats => repeats,
    }
}

/// A problem for each `matrix.include` whose cells are there without it. `placed` holds the cells of
/// the axes and of all includes.
fn useless_includes(plan: &Plan, placed: &[Placed]) -> Vec<Problem> {
    let useless = plan.axes.include.iter().filter(|included| {
        let excluded = |at: &Coordinates| plan.axes.exclude.iter().any(|x| matches(x, at));
        let on_axes = |at: &Coordinates| is_on_axes(&plan.axes, at) && !excluded(at);
        let adds =
            |p: &Placed| matches(included, &p.cell.coordinates) && !on_axes(&p.cell.coordinates);
        !placed.iter().any(adds)
    });
    useless
        .map(|included| Problem {
            span: included.span.clone(),
            message: "this `matrix.include` adds no cell".to_owned(),
            hint: "its cells stand on the axes already; remove it".to_owned(),
        })
        .collect()
}

fn is_on_axes(axes: &Axes, at: &Coordinates) -> bool {
    axes.tier.iter().any(|tier| tier.value == at.tier)
        && axes.label.iter().any(|label| label.value == at.label)
        && axes.prompt_len.contains(&at.prompt_len)
        && axes.gen_len.contains(&at.gen_len)
        && axes.concurrency.contains(&at.concurrency)
}

/// What cells of one server differ in, besides label and repeat.
struct Load {
    prompt_len: PromptLen,
    gen_len: GenLen,
    concurrency: Concurrency,
}

fn loads(axes: &Axes) -> impl Iterator<Item = Load> {
    axes.prompt_len.iter().flat_map(move |&prompt_len| {
        axes.gen_len.iter().flat_map(move |&gen_len| {
            axes.concurrency.iter().map(move |&concurrency| Load {
                prompt_len,
                gen_len,
                concurrency,
            })
        })
    })
}

impl Load {
    /// The place of this load in the plan's order. Values that only `matrix.include` names come
    /// after those of the axis.
    fn place(&self, axes: &Axes, label: &str) -> usize {
        let label = place_on(axes.label.iter().map(|name| name.value.as_str()), label);
        let prompt_len = place_on(axes.prompt_len.iter().copied(), self.prompt_len);
        let gen_len = place_on(axes.gen_len.iter().copied(), self.gen_len);
        let concurrency = place_on(axes.concurrency.iter().copied(), self.concurrency);
        let after = |place: usize, axis: usize, next: usize| place * (axis + 1) + next;
        let place = after(label, axes.prompt_len.len(), prompt_len);
        let place = after(place, axes.gen_len.len(), gen_len);
        after(place, axes.concurrency.len(), concurrency)
    }
}

fn place_on<T: PartialEq + Copy>(axis: impl ExactSizeIterator<Item = T>, value: T) -> usize {
    let after_all = axis.len();
    axis.enumerate()
        .find(|(_, known)| *known == value)
        .map_or(after_all, |(place, _)| place)
}

/// When the tier's turn comes in this round: tiers are rotated by the seed and the round. A tier
/// that only `matrix.include` names comes after those of the axis.
fn turn_of(plan: &Plan, seed: Seed, tier: &str, round: u32) -> usize {
    let tiers = plan.axes.tier.len();
    let place = place_on(plan.axes.tier.iter().map(|name| name.value.as_str()), tier);
    if place >= tiers {
        return place;
    }
    let rotation = (seed.derive("order").0 % tiers as u64) as usize + round as usize;
    (place + rotation) % tiers
}

fn rank(
    order: Order,
    reuse: Reuse,
    variant: usize,
    turn: usize,
    repeat: Repeat,
    load: usize,
) -> [usize; 4] {
    let repeat = repeat.get() as usize;
    match (order, reuse) {
        (Order::Interleaved, Reuse::Cell) => [repeat, load, variant, turn],
        (Order::Interleaved, Reuse::Server) => [repeat, variant, turn, load],
        (Order::Grouped, _) => [variant, turn, repeat, load],
    }
}

/// What all cells of one (variant, tier, label) share.
struct Shared {
    digest: blake3::Hash,
    server_key: Arc<str>,
    resolved: Arc<Resolved>,
    tier: Arc<TierSpec>,
    workload: Arc<WorkloadSpec>,
}

impl Shared {
    fn new(variant: &Variant, tier: &str, label: &str) -> Option<Self> {
        let resolved = &variant.resolved;
        let tier = resolved.tiers.get(tier)?;
        let workload = resolved.workloads.get(label)?;
        let server = (&resolved.model, &resolved.server, tier);
        // `serde_json` of these types cannot fail: no map has a key that is not a string.
        let server = serde_json::to_vec(&server).unwrap_or_default();
        let key = blake3::hash(&server).to_hex();
        let inputs = inputs::of(resolved, tier, workload);
        Some(Self {
            digest: blake3::hash(inputs.to_string().as_bytes()),
            server_key: Arc::from(&key[..16]),
            resolved: Arc::clone(resolved),
            tier: Arc::new(tier.clone()),
            workload: Arc::new(workload.clone()),
        })
    }

    fn cell(&self, coordinates: Coordinates) -> Cell {
        let slug = coordinates.slug();
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(self.digest.as_bytes())
            .update(&coordinates.bytes());
        let hash = hasher.finalize().to_hex();
        Cell {
            id: format!("{slug}-{}", &hash[..10]),
            coordinates,
            resolved: Arc::clone(&self.resolved),
            tier: Arc::clone(&self.tier),
            workload: Arc::clone(&self.workload),
            server_key: Arc::clone(&self.server_key),
        }
    }
}

fn matches(partial: &PartialCell, at: &Coordinates) -> bool {
    partial
        .tier
        .as_ref()
        .is_none_or(|tier| tier.value == at.tier)
        && partial
            .label
            .as_ref()
            .is_none_or(|label| label.value == at.label)
        && partial.prompt_len.is_none_or(|len| len == at.prompt_len)
        && partial.gen_len.is_none_or(|len| len == at.gen_len)
        && partial
            .concurrency
            .is_none_or(|count| count == at.concurrency)
        && partial
            .extra
            .iter()
            .all(|(key, value)| at.extra.get(key) == Some(value))
}

/// The axes of an included partial cell: its own value where it names one, else all of the axis.
fn with_included(axes: &Axes, partial: &PartialCell) -> Axes {
    let mut own = axes.clone();
    if let Some(tier) = &partial.tier {
        own.tier = vec![tier.clone()];
    }
    if let Some(label) = &partial.label {
        own.label = vec![label.clone()];
    }
    if let Some(len) = partial.prompt_len {
        own.prompt_len = vec![len];
    }
    if let Some(len) = partial.gen_len {
        own.gen_len = vec![len];
    }
    if let Some(count) = partial.concurrency {
        own.concurrency = vec![count];
    }
    own
}
