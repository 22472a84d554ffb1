//! What the matrix asks of servers: how many cells, and the requests' shapes.

use super::axes::{Axes, PartialCell};

/// The most cells of a plan.
pub(super) const MAX_CELLS: u128 = 1_000_000;

/// What requests of a cell look like.
pub(super) struct Shape<'a> {
    /// The tier's name.
    pub tier: &'a str,
    /// The workload's label.
    pub label: &'a str,
    /// Prompt length, tokens.
    pub prompt_len: u32,
    /// Generated tokens.
    pub gen_len: u32,
    /// The partial cell that put it in, if any.
    pub included: Option<&'a PartialCell>,
}

/// How many cells `axes` make, at most: what is excluded or included twice counts too.
pub(super) fn cells(axes: &Axes, repeats: u32) -> u128 {
    let product = |counts: &[usize]| counts.iter().map(|&count| count as u128).product::<u128>();
    let further = axes.extra.iter().fold(1_u128, |all, axis| {
        all.saturating_mul(axis.values.len() as u128)
    });
    let own = |part: Option<&PartialCell>| {
        let count = |named: fn(&PartialCell) -> bool, len| {
            if part.is_some_and(named) { 1 } else { len }
        };
        product(&[
            count(|p| p.tier.is_some(), axes.tier.len()),
            count(|p| p.label.is_some(), axes.label.len()),
            count(|p| p.prompt_len.is_some(), axes.prompt_len.len()),
            count(|p| p.gen_len.is_some(), axes.gen_len.len()),
            count(|p| p.concurrency.is_some(), axes.concurrency.len()),
        ])
    };
    let points: u128 = own(None)
        + axes
            .include
            .iter()
            .map(|part| own(Some(part)))
            .sum::<u128>();
    points
        .saturating_mul(further)
        .saturating_mul(u128::from(repeats))
}

/// Every shape of a request, without those that `matrix.exclude` takes out.
pub(super) fn shapes(axes: &Axes) -> Vec<Shape<'_>> {
    let mut all = Vec::new();
    place(axes, None, &mut all);
    all.retain(|shape| !axes.exclude.iter().any(|part| takes_out(part, shape)));
    for part in &axes.include {
        place(axes, Some(part), &mut all);
    }
    all
}

fn place<'a>(axes: &'a Axes, part: Option<&'a PartialCell>, all: &mut Vec<Shape<'a>>) {
    let tiers = part
        .and_then(|p| p.tier.as_ref())
        .map_or(axes.tier.as_slice(), std::slice::from_ref);
    let labels = part
        .and_then(|p| p.label.as_ref())
        .map_or(axes.label.as_slice(), std::slice::from_ref);
    let prompt_lens = part
        .and_then(|p| p.prompt_len.as_ref())
        .map_or(axes.prompt_len.as_slice(), std::slice::from_ref);
    let gen_lens = part
        .and_then(|p| p.gen_len.as_ref())
        .map_or(axes.gen_len.as_slice(), std::slice::from_ref);
    for tier in tiers {
        for label in labels {
            for prompt_len in prompt_lens {
                all.extend(gen_lens.iter().map(|gen_len| Shape {
                    tier: &tier.value,
                    label: &label.value,
                    prompt_len: prompt_len.get(),
                    gen_len: gen_len.get(),
                    included: part,
                }));
            }
        }
    }
}

/// Whether `part` takes out every cell of this shape.
fn takes_out(part: &PartialCell, shape: &Shape<'_>) -> bool {
    let tier = part.tier.as_ref();
    let label = part.label.as_ref();
    part.concurrency.is_none()
        && part.extra.is_empty()
        && tier.is_none_or(|tier| tier.value == shape.tier)
        && label.is_none_or(|label| label.value == shape.label)
        && part
            .prompt_len
            .is_none_or(|len| len.get() == shape.prompt_len)
        && part.gen_len.is_none_or(|len| len.get() == shape.gen_len)
}
