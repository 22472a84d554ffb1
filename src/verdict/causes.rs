//! Why a tier served less than it should: failures while it was filled, and during the pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::failures::Failure;

/// How often each failure happened.
pub(crate) type Failures = BTreeMap<Failure, u64>;

/// What is known of a shortfall.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Causes {
    /// Failures from the begin of the cell to the pass, by the logs and the servers' counters.
    pub fill: Failures,
    /// Memory of the tier, GiB; absent where only its own template knows.
    pub ram_gib: Option<f64>,
    /// Documents that were served too little of.
    pub documents: Option<Documents>,
}

/// Documents of a pass, of which a cache should have had a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Documents {
    /// Those of which an answer had less from a cache than the plan asks for.
    pub missed: u32,
    /// All of them.
    pub of: u32,
}

/// Whether, in a pass that repeats itself, too many documents were not there when they were first asked about,
/// by the answers. The counters alone do not show it: what was computed then is served at the second visit.
pub(super) fn first_visits_fell_short(facts: &Facts) -> bool {
    let share = facts.limits.served_share;
    let is_short = |Documents { missed, of }: Documents| {
        f64::from(of.saturating_sub(missed)) < share * f64::from(of)
    };
    facts.repeated_tokens > 0.0 && facts.causes.documents.is_some_and(is_short)
}

/// The end of the sentence that a cache served too little: which documents, and why.
pub(super) fn of_shortfall(facts: &Facts) -> String {
    let causes = &facts.causes;
    let at_fill = |failure: &Failure| failure.hits_stores() && happened(&causes.fill, *failure);
    let at_load =
        |failure: &Failure| failure.hits_loads() && happened(&facts.logs.failures, *failure);
    let is_stored = !Failure::ALL.iter().any(at_fill);
    let all = Failure::ALL.into_iter();
    let why: Vec<String> = all
        .filter(|failure| at_fill(failure) || at_load(failure))
        .map(|failure| failure.cause(facts.tier, causes.ram_gib))
        .collect();
    let verb = if is_stored { "served" } else { "stored" };
    let documents = causes.documents.filter(|documents| documents.missed > 0);
    let which = documents.map_or(String::new(), |Documents { missed, of }| {
        let was = if missed == 1 { "was" } else { "were" };
        format!(": {missed} of {of} documents {was} not {verb} whole")
    });
    if why.is_empty() {
        return which;
    }
    format!("{which}, because {}", why.join(", and "))
}

fn happened(failures: &Failures, failure: Failure) -> bool {
    failures.get(&failure).is_some_and(|count| *count > 0)
}
