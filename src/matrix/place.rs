//! In which order the cells of a matrix run.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::cells::{CellIndex, Cells, Shared};
use super::partial::Point;
use crate::plan::axes::Axes;
use crate::plan::run::{Order, Reuse, RunSpec};
use crate::plan::tier::TierKind;
use crate::plan::{Plan, Variant};
use crate::units::{Concurrency, GenLen, PromptLen, Repeat, Seed};

/// Cells with their places in the order.
#[derive(Debug, Default)]
pub(super) struct Placed {
    shared: Vec<Shared>,
    cell_indices: Vec<(Rank, CellIndex)>,
    /// Of each server, the first point of the further axes that needs it.
    first_of_server: HashMap<Arc<str>, usize>,
}

/// Four numbers, compared from the first. One integer holds them: a million sort fast.
type Rank = u128;

impl Placed {
    /// The first point of the further axes that needs the server of `shared`, which is of the point
    /// `variant`: cells of one server follow each other, whatever else they differ in.
    fn server(&mut self, shared: &Shared, variant: usize) -> usize {
        let key = Arc::clone(&shared.server_key);
        *self.first_of_server.entry(key).or_insert(variant)
    }

    /// Where each cell lies.
    pub(super) fn points(&self) -> impl Iterator<Item = Point<'_>> {
        let cell_indices = self.cell_indices.iter();
        cell_indices
            .map(|(_, cell_index)| Point::new(&self.shared[cell_index.shared as usize], cell_index))
    }

    /// Retains the cells that `keep` accepts.
    pub(super) fn retain(&mut self, keep: impl Fn(&Point<'_>) -> bool) {
        let shared = &self.shared;
        self.cell_indices.retain(|(_, cell_index)| {
            keep(&Point::new(&shared[cell_index.shared as usize], cell_index))
        });
    }

    /// The cells in their order; of duplicates the first.
    pub(super) fn into_cells(mut self, may_repeat: bool) -> Cells {
        self.cell_indices.sort_by_key(|(rank, _)| *rank);
        if may_repeat {
            let mut numbers = HashMap::new();
            let named = self.shared.iter().zip(0_u32..).map(|(of, number)| {
                let names = (&of.label, &of.tier_name, &of.extra);
                *numbers.entry(names).or_insert(number)
            });
            let first_of_its_name: Vec<u32> = named.collect();
            let mut seen = HashSet::new();
            self.cell_indices.retain(|(_, cell_index)| {
                seen.insert(CellIndex {
                    shared: first_of_its_name[cell_index.shared as usize],
                    ..*cell_index
                })
            });
        }
        let cell_indices = self
            .cell_indices
            .into_iter()
            .map(|(_, cell_index)| cell_index)
            .collect();
        Cells::new(self.shared, cell_indices)
    }
}

/// Adds the cells of `axes` at one point of the further axes.
pub(super) fn place(
    plan: &Plan,
    axes: &Axes,
    index: usize,
    variant: &Variant,
    placed: &mut Placed,
) {
    let run = &variant.resolved.run;
    let places = Places::of(&plan.axes);
    for tier in &axes.tier {
        let turns = Turns::new(plan, run.seed, &tier.value);
        for label in &axes.label {
            let Some(shared) = Shared::new(variant, &tier.value, &label.value) else {
                continue;
            };
            let number = placed.shared.len() as u32;
            let point = At {
                variant: index,
                server: placed.server(&shared, index),
            };
            placed.shared.push(shared);
            for load in loads(axes) {
                let at = places.of_load(&load, &label.value);
                let repeats = repeats_of(plan, variant, &tier.value, at);
                for repeat in (1..=repeats).filter_map(Repeat::new) {
                    // Grouped by server, a tier has one turn for all its repeats.
                    let round = match run.order {
                        Order::Interleaved => repeat.get(),
                        Order::Grouped => 1,
                    };
                    let turn = turns.in_round(round);
                    let cell_index = CellIndex {
                        shared: number,
                        prompt_len: load.prompt_len,
                        gen_len: load.gen_len,
                        concurrency: load.concurrency,
                        repeat,
                    };
                    let rank = rank(run, point, turn, repeat, at);
                    placed.cell_indices.push((rank, cell_index));
                }
            }
        }
    }
}

/// Adds one cell that comes after every load of its tier's server in the first round: the
/// `number`th of those.
pub(super) fn place_last(
    plan: &Plan,
    index: usize,
    shared: Shared,
    cell_index: CellIndex,
    number: usize,
    placed: &mut Placed,
) {
    let run = &plan.variants[index].resolved.run;
    let turns = Turns::new(plan, run.seed, &shared.tier_name);
    let turn = turns.in_round(cell_index.repeat.get());
    let point = At {
        variant: index,
        server: placed.server(&shared, index),
    };
    let rank = rank(run, point, turn, cell_index.repeat, LAST + number);
    let cell_index = CellIndex {
        shared: placed.shared.len() as u32,
        ..cell_index
    };
    placed.shared.push(shared);
    placed.cell_indices.push((rank, cell_index));
}

/// A place after every load's.
const LAST: usize = (u32::MAX / 2) as usize;

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

/// Where each value stands on its axis.
struct Places<'a> {
    label: HashMap<&'a str, usize>,
    prompt_len: HashMap<PromptLen, usize>,
    gen_len: HashMap<GenLen, usize>,
    concurrency: HashMap<Concurrency, usize>,
}

impl<'a> Places<'a> {
    fn of(axes: &'a Axes) -> Self {
        Self {
            label: places(axes.label.iter().map(|name| name.value.as_str())),
            prompt_len: places(axes.prompt_len.iter().copied()),
            gen_len: places(axes.gen_len.iter().copied()),
            concurrency: places(axes.concurrency.iter().copied()),
        }
    }

    /// The place of `load` in the plan's order. Values that only `matrix.include` names come after
    /// those of the axis.
    fn of_load(&self, load: &Load, label: &str) -> usize {
        let label = place_in(&self.label, &label);
        let prompt_len = place_in(&self.prompt_len, &load.prompt_len);
        let gen_len = place_in(&self.gen_len, &load.gen_len);
        let concurrency = place_in(&self.concurrency, &load.concurrency);
        let after = |place: usize, axis: usize, next: usize| place * (axis + 1) + next;
        let place = after(label, self.prompt_len.len(), prompt_len);
        let place = after(place, self.gen_len.len(), gen_len);
        after(place, self.concurrency.len(), concurrency)
    }
}

fn places<T: Eq + Hash>(axis: impl Iterator<Item = T>) -> HashMap<T, usize> {
    axis.enumerate()
        .map(|(place, value)| (value, place))
        .collect()
}

fn place_in<T: Eq + Hash>(axis: &HashMap<T, usize>, value: &T) -> usize {
    axis.get(value).copied().unwrap_or(axis.len())
}

fn place_on<T: PartialEq + Copy>(axis: impl ExactSizeIterator<Item = T>, value: T) -> usize {
    let after_all = axis.len();
    axis.enumerate()
        .find(|(_, known)| *known == value)
        .map_or(after_all, |(place, _)| place)
}

/// When a tier's turn comes: tiers are rotated by the seed and the round. A tier that only
/// `matrix.include` names comes after those of the axis.
struct Turns {
    place: usize,
    tiers: usize,
    rotation: usize,
}

impl Turns {
    fn new(plan: &Plan, seed: Seed, tier: &str) -> Self {
        let tiers = plan.axes.tier.len();
        Self {
            place: place_on(plan.axes.tier.iter().map(|name| name.value.as_str()), tier),
            tiers,
            rotation: (seed.derive("order").0 % tiers.max(1) as u64) as usize,
        }
    }

    fn in_round(&self, round: u32) -> usize {
        if self.place >= self.tiers {
            return self.place;
        }
        (self.place + self.rotation + round as usize) % self.tiers
    }
}

/// Which point of the further axes a cell is of, and which of them its server was first needed at.
#[derive(Clone, Copy)]
struct At {
    variant: usize,
    server: usize,
}

fn rank(run: &RunSpec, at: At, turn: usize, repeat: Repeat, load: usize) -> Rank {
    let repeat = repeat.get() as usize;
    // Cells of one rank stay in the order of the points.
    let parts = match (run.order, run.reuse) {
        (Order::Interleaved, Reuse::Cell) => [repeat, load, at.variant, turn],
        (Order::Interleaved, Reuse::Server) => [repeat, at.server, turn, load],
        (Order::Grouped, _) => [at.server, turn, repeat, load],
    };
    parts
        .into_iter()
        .fold(0, |rank, part| (rank << 32) | part as u128)
}
