//! Where the first token's time went: one bar a tier, at the places that the first screen shows.

use crate::aggregate::{BASELINE, Comparison, Part, Parts, Place, Pool};
use crate::plan::state::CacheState;
use crate::record::schema::VerdictStatus;
use crate::report::advice::{Answer, answer};
use crate::report::figure::{Bar, StackChart, StackPanel, simulated};
use crate::report::number::brief;
use crate::report::screen::spread;
use crate::units::grouped;

/// Prompt lengths in a row.
const MAX_LENGTHS: usize = 3;

/// `None` where no engine timed its requests.
pub(super) fn chart(comparison: &Comparison, caption: &[String]) -> Option<StackChart> {
    let (place, lengths) = match answer(comparison) {
        Some(Answer { place, lengths, .. }) => (place, lengths),
        None => alone(comparison)?,
    };
    let chosen = spread(lengths.len(), MAX_LENGTHS);
    let mut states = vec![place.state];
    if place.state != CacheState::Cold {
        states.push(CacheState::Cold);
    }
    let mut panels = Vec::new();
    let mut sources = Vec::new();
    for state in states {
        for at in &chosen {
            let here = Place {
                state,
                prompt_len: lengths[*at],
                ..place.clone()
            };
            let pools = comparison.pools.iter().filter(|pool| pool.place == here);
            let pools: Vec<&Pool> = pools.filter(|pool| pool.parts.is_some()).collect();
            sources.extend(pools.iter().map(|pool| Some(pool.source)));
            let bars: Vec<Bar> = pools.into_iter().filter_map(bar).collect();
            if !bars.is_empty() {
                panels.push(StackPanel {
                    title: format!("{}, {} tokens", state.title(), grouped(here.prompt_len)),
                    bars,
                });
            }
        }
    }
    panels.first()?;
    let mut about = caption.to_vec();
    about.push(format!("{}, {} at a time", place.label, place.concurrency));
    let mut notes = vec![
        "means of the parts; each panel has a scale of its own. frontend: the API server; unexplained: \
         each part that is not known"
            .to_owned(),
    ];
    if panels
        .iter()
        .flat_map(|panel| &panel.bars)
        .any(|bar| !bar.is_proven)
    {
        notes.push("pale: not proven, do not read".to_owned());
    }
    Some(StackChart {
        title: "Where the first token's time went".to_owned(),
        caption: about.join(", "),
        mark: simulated(sources.into_iter()),
        parts: Part::ALL.map(Part::name).to_vec(),
        columns: chosen.len(),
        panels,
        notes,
    })
}

/// The place and the lengths of a run of the baseline alone.
fn alone(comparison: &Comparison) -> Option<(Place, Vec<crate::units::PromptLen>)> {
    let first = comparison.pools.iter().find(|pool| pool.tier == BASELINE)?;
    Some((first.place.clone(), vec![first.place.prompt_len]))
}

fn bar(pool: &Pool) -> Option<Bar> {
    let parts: Parts = pool.parts?;
    let values = Part::ALL.map(|part| parts.get(part).unwrap_or(0.0).max(0.0));
    let label = match parts.largest() {
        Some(part) => format!("{}, {}", brief(parts.ttft_ms), part.name()),
        None => brief(parts.ttft_ms),
    };
    Some(Bar {
        name: pool.tier.clone(),
        values: values.to_vec(),
        label,
        is_proven: pool.verdict == VerdictStatus::Valid,
    })
}
