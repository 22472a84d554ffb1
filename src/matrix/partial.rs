//! `matrix.exclude` and `matrix.include`: cells named by some of their coordinates.

use std::collections::BTreeMap;

use super::cells::{CellIndex, Shared};
use super::place::Placed;
use crate::plan::Plan;
use crate::plan::axes::{Axes, PartialCell};
use crate::plan::problem::Problem;
use crate::units::{Concurrency, GenLen, PromptLen};

/// Where a cell lies, whatever its repeat.
pub(super) struct Point<'a> {
    label: &'a str,
    tier: &'a str,
    extra: &'a BTreeMap<String, String>,
    prompt_len: PromptLen,
    gen_len: GenLen,
    concurrency: Concurrency,
}

impl<'a> Point<'a> {
    pub(super) fn new(shared: &'a Shared, cell_index: &CellIndex) -> Self {
        Self {
            label: &shared.label,
            tier: &shared.tier_name,
            extra: &shared.extra,
            prompt_len: cell_index.prompt_len,
            gen_len: cell_index.gen_len,
            concurrency: cell_index.concurrency,
        }
    }
}

/// A problem for each `matrix.include` whose cells are there without it. `placed` holds the cells of
/// the axes and of all includes.
pub(super) fn useless_includes(plan: &Plan, placed: &Placed) -> Vec<Problem> {
    let axes = &plan.axes;
    let useless = axes.include.iter().filter(|included| {
        let there = |at: &Point<'_>| is_on_axes(axes, at) && !is_excluded(axes, at);
        !placed
            .points()
            .any(|at| matches(included, &at) && !there(&at))
    });
    useless
        .map(|included| {
            Problem::new(
                included.span.clone(),
                "this `matrix.include` adds no cell",
                "its cells stand on the axes already; remove it",
            )
        })
        .collect()
}

/// Whether `matrix.exclude` takes out a cell at `at`.
pub(super) fn is_excluded(axes: &Axes, at: &Point<'_>) -> bool {
    axes.exclude.iter().any(|excluded| matches(excluded, at))
}

fn is_on_axes(axes: &Axes, at: &Point<'_>) -> bool {
    axes.tier.iter().any(|tier| tier.value == at.tier)
        && axes.label.iter().any(|label| label.value == at.label)
        && axes.prompt_len.contains(&at.prompt_len)
        && axes.gen_len.contains(&at.gen_len)
        && axes.concurrency.contains(&at.concurrency)
}

/// Whether a cell at `at` is one of those that `partial` names.
pub(super) fn matches(partial: &PartialCell, at: &Point<'_>) -> bool {
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
pub(super) fn with_included(axes: &Axes, partial: &PartialCell) -> Axes {
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
