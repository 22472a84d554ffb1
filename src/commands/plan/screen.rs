//! The screen of `labrun plan` that a person reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::same_failure::shape;
use crate::matrix::controls::{FITS_GPU, NO_REUSE, is_control};
use crate::matrix::{Cell, Matrix, is_of_tier};
use crate::plan::Plan;
use crate::plan::run::Reuse;
use crate::plan::tier::{BASELINE, TierKind};
use crate::preflight::lint::{Cost, Finding, Severity};

/// What is measured, and what it takes. `earlier` is what the plan's latest run took.
pub(super) fn head(plan: &Plan, matrix: &Matrix, cost: &Cost, earlier: Option<&str>) -> String {
    let mut text = format!("{}: {cost}\n", plan.name);
    let Some(first) = matrix.cells.first() else {
        return text;
    };
    let server = &first.resolved.server;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: &str| lines.push((name.to_owned(), value.to_owned()));
    line("model", &first.resolved.model);
    line("launcher", server.launcher.name());
    if matrix
        .cells
        .iter()
        .any(|cell| cell.tier.kind.uses_lmcache())
    {
        line("lmcache", server.lmcache.name());
    }
    for (name, values) in axes(plan, matrix) {
        line(&name, &values.join(", "));
    }
    let states = first.resolved.run.states.iter().map(|state| state.title());
    line("states", &states.collect::<Vec<_>>().join(", "));
    line(
        "requests",
        &format!("{} in each cell and state", first.resolved.run.requests),
    );
    if let Some(earlier) = earlier {
        line("earlier run", earlier);
    }
    let widest = lines.iter().map(|(name, _)| name.len()).max();
    let width = widest.unwrap_or(0).max(12);
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<width$} {value}");
    }
    text.push('\n');
    text.push_str(&compared(plan, matrix));
    text.push_str(&measured_once(plan, matrix));
    let controls = matrix
        .cells
        .iter()
        .filter(|cell| is_control(&cell.coordinates.label))
        .count();
    if controls > 0 {
        let _ = writeln!(
            text,
            "{controls} of the cells are controls, where offloading can win nothing: prompts that share \
             nothing\n(`{NO_REUSE}`) and documents that the GPU still holds (`{FITS_GPU}`). A tier that \
             wins there\nis compared nowhere."
        );
    }
    if let Some(saving) = saving(matrix, cost) {
        text.push_str(&saving);
    }
    text
}

/// Tiers in the plan's order; those that only `matrix.include` names come last.
fn in_plans_order(plan: &Plan, tiers: &mut [String]) {
    let axis = &plan.axes.tier;
    let place = |name: &String| axis.iter().position(|tier| tier.value == *name);
    tiers.sort_by_key(|name| place(name).unwrap_or(axis.len()));
}

/// The values of each axis, tiers in the plan's order, others as they first come; controls left out.
fn axes(plan: &Plan, matrix: &Matrix) -> Vec<(String, Vec<String>)> {
    let mut axes: Vec<(String, Vec<String>)> = Vec::new();
    let measured = matrix
        .cells
        .iter()
        .filter(|cell| !is_control(&cell.coordinates.label));
    for cell in measured {
        let at = &cell.coordinates;
        let own = [
            ("tier", at.tier.clone()),
            ("prompt_len", at.prompt_len.to_string()),
            ("gen_len", at.gen_len.to_string()),
            ("concurrency", at.concurrency.to_string()),
            ("workload", at.label.clone()),
            ("repeat", at.repeat.to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        for (name, value) in own.into_iter().chain(at.extra.clone()) {
            match axes.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => axes.push((name, vec![value])),
            }
        }
    }
    for (name, values) in &mut axes {
        if name == "tier" {
            in_plans_order(plan, values);
        }
    }
    axes
}

/// Which tiers and workloads an axis means nothing to, so that they are measured once.
fn measured_once(plan: &Plan, matrix: &Matrix) -> String {
    let mut text = String::new();
    for axis in plan.axes.extra.iter().filter(|axis| axis.values.len() > 1) {
        let without = |cell: &Cell| !cell.coordinates.extra.contains_key(&axis.key);
        let mut names: Vec<String> = Vec::new();
        for cell in matrix.cells.iter().filter(without) {
            let name = if is_of_tier(&axis.key) {
                cell.coordinates.tier
            } else {
                cell.coordinates.label
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        in_plans_order(plan, &mut names);
        names.retain(|name| !is_control(name));
        if !names.is_empty() {
            let names = names.join(", ");
            let _ = writeln!(
                text,
                "Measured once for all values of `{}`: {names}.",
                axis.key
            );
        }
    }
    text
}

/// Which tiers are compared with the baseline.
fn compared(plan: &Plan, matrix: &Matrix) -> String {
    let mut tiers: Vec<String> = Vec::new();
    let mut has_baseline = false;
    for cell in &matrix.cells {
        if cell.tier.kind == TierKind::Baseline {
            has_baseline = true;
        } else if !tiers.contains(&cell.tier.name) {
            tiers.push(cell.tier.name.clone());
        }
    }
    in_plans_order(plan, &mut tiers);
    let names = tiers.join(", ");
    match (has_baseline, tiers.is_empty()) {
        (true, false) => {
            format!(
                "Compared: {names}, each with `{BASELINE}` at equal values of all other axes.\n"
            )
        }
        (true, true) => "Compared: nothing, the only tier is the baseline.\n".to_owned(),
        (false, _) => {
            format!("Compared: nothing, `{BASELINE}` is not on the axis `tier` ({names}).\n")
        }
    }
}

/// What sharing servers would save, where that is much.
fn saving(matrix: &Matrix, cost: &Cost) -> Option<String> {
    let first = matrix.cells.first()?;
    if first.resolved.run.reuse == Reuse::Server || cost.start_s < 1.0 {
        return None;
    }
    let key = |cell: Cell| {
        let at = &cell.coordinates;
        (at.repeat, is_control(&at.label), cell.server_key.clone())
    };
    let servers: BTreeSet<_> = matrix.cells.iter().map(key).collect();
    let fewer = u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let saved = cost.starts.saturating_sub(fewer);
    (saved >= 4 && fewer * 2 <= cost.starts).then(|| {
        format!(
            "`reuse = \"server\"` in [run] would start {fewer} servers instead of {}, and save about {}.\n",
            cost.starts,
            crate::preflight::lint::shown_time(f64::from(saved) * cost.start_s)
        )
    })
}

/// Findings of one kind, and where they were found.
struct Group<'a> {
    severity: Severity,
    message: &'a str,
    tiers: Vec<&'a str>,
    prompt_lens: Vec<&'a str>,
}

/// Problems, then notes. Those that differ in their place and their numbers alone are one.
pub(super) fn push_findings(text: &mut String, findings: &[Finding]) {
    let mut groups: Vec<(String, Group<'_>)> = Vec::new();
    for one in findings {
        let (place, message) = placed(&one.message);
        let key = format!("{:?} {}", one.severity, shape(message));
        let (tier, prompt_len) = place.unzip();
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => {
                push_new(&mut group.tiers, tier);
                push_new(&mut group.prompt_lens, prompt_len);
            }
            None => groups.push((
                key,
                Group {
                    severity: one.severity,
                    message,
                    tiers: tier.into_iter().collect(),
                    prompt_lens: prompt_len.into_iter().collect(),
                },
            )),
        }
    }
    if !groups.is_empty() {
        text.push('\n');
    }
    for (_, group) in &groups {
        let word = match group.severity {
            Severity::Problem => "problem",
            Severity::Note => "note",
        };
        let _ = writeln!(text, "{word}: {}{}", group.place(), group.message);
    }
}

fn push_new<'a>(list: &mut Vec<&'a str>, value: Option<&'a str>) {
    if let Some(value) = value.filter(|value| !list.contains(value)) {
        list.push(value);
    }
}

impl Group<'_> {
    fn place(&self) -> String {
        if self.tiers.is_empty() {
            return String::new();
        }
        let noun = if self.tiers.len() == 1 {
            "tier"
        } else {
            "tiers"
        };
        let example = match self.prompt_lens.as_slice() {
            [first, _, ..] => format!(" (here {first})"),
            _ => String::new(),
        };
        format!(
            "{noun} `{}`, prompts of {}{example}: ",
            self.tiers.join("`, `"),
            self.prompt_lens.join(", ")
        )
    }
}

/// Tier and prompt length of a message that begins with its place, and the rest of it.
fn placed(message: &str) -> (Option<(&str, &str)>, &str) {
    let split = || {
        let (tier, rest) = message
            .strip_prefix("tier `")?
            .split_once("`, prompts of ")?;
        let (prompt_len, rest) = rest.split_once(": ")?;
        Some(((tier, prompt_len), rest))
    };
    match split() {
        Some((place, rest)) => (Some(place), rest),
        None => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_that_differ_in_place_and_numbers_alone_are_one() {
        let note = |message: &str| Finding {
            severity: Severity::Note,
            message: message.to_owned(),
        };
        let findings = [
            note("tier `cpu`, prompts of 512: the documents (2,400 tokens) fit"),
            note("tier `cpu`, prompts of 1024: the documents (4,800 tokens) fit"),
            note("tier `disk`, prompts of 512: the documents (2,400 tokens) fit"),
            note("tier `disk`, prompts of 512: lost"),
            note("no place"),
        ];
        let mut text = String::new();
        push_findings(&mut text, &findings);
        assert_eq!(
            text,
            "\nnote: tiers `cpu`, `disk`, prompts of 512, 1024 (here 512): the documents (2,400 tokens) \
             fit\nnote: tier `disk`, prompts of 512: lost\nnote: no place\n"
        );
    }
}
