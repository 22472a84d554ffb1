//! `--only`: a part of a matrix, by values of its axes.

use std::fmt;
use std::str::FromStr;

use super::axes::{Axes, LABEL_ALIAS, NAMES, PartialCell, shown};
use super::problem::suggestion;
use super::tier::BASELINE;

/// `AXIS=VALUE,...`: the values of some axes. A value without an axis is one more of the axis before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    axes: Vec<(String, Vec<String>)>,
    text: String,
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected AXIS=VALUE, such as tier=cpu,prompt_len=4096".to_owned();
        let mut axes: Vec<(String, Vec<String>)> = Vec::new();
        for item in text.split(',') {
            let (axis, value) = match item.split_once('=') {
                Some((axis, value)) => (Some(axis.trim().trim_matches('"')), value.trim()),
                None => (None, item.trim()),
            };
            if value.is_empty() || axis.is_some_and(str::is_empty) {
                return Err(expected());
            }
            match (axis, axes.last_mut()) {
                (Some(axis), _) => axes.push((axis.to_owned(), vec![value.to_owned()])),
                (None, Some((_, values))) => values.push(value.to_owned()),
                (None, None) => return Err(expected()),
            }
        }
        Ok(Self {
            axes,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number of tokens as people type it: `4096`, or `4k` for 4 times 1,024.
pub(crate) fn tokens(text: &str) -> Result<u32, String> {
    let expected = || format!("`{text}` is no number of tokens: write 4096, or 4k for 4 x 1,024");
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| expected())?;
    let tokens = number.checked_mul(factor).filter(|tokens| *tokens > 0);
    tokens.ok_or_else(expected)
}

/// Which items of a plan's matrix are retained, in the order of its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Narrowed {
    /// By axis, as the plan writes it.
    pub axes: Vec<(String, Vec<bool>)>,
    /// Of `matrix.exclude`.
    pub exclude: Vec<bool>,
    /// Of `matrix.include`.
    pub include: Vec<bool>,
    /// Whether the baseline is retained though it was not chosen.
    pub keeps_baseline: bool,
}

impl Narrowed {
    /// What is left of `axes` where each selection holds. The baseline stays beside chosen tiers, which
    /// are compared with it.
    ///
    /// # Errors
    /// Where the plan has no such axis, or the axis no such value.
    pub(crate) fn of(selections: &[Selection], axes: &Axes) -> Result<Self, String> {
        let mut chosen: Vec<(String, Vec<String>)> = Vec::new();
        for (axis, values) in selections.iter().flat_map(|selection| &selection.axes) {
            let name = axis_named(axis, axes)?;
            let known = values_of(&name, axes);
            for value in values {
                let value = on_axis(&name, value, &known)?;
                match chosen.iter_mut().find(|(axis, _)| *axis == name) {
                    Some((_, values)) => values.push(value),
                    None => chosen.push((name.clone(), vec![value])),
                }
            }
        }
        let keeps_baseline = keep_baseline(&mut chosen, axes);
        let remains = |part: &PartialCell| {
            chosen.iter().all(|(name, values)| {
                let own = value_in(part, name);
                own.is_none_or(|own| values.contains(&own))
            })
        };
        let by_axis = |(name, values): &(String, Vec<String>)| {
            let known = values_of(name, axes);
            let retained = known.iter().map(|value| values.contains(value)).collect();
            let is_alias = name == "label" && axes.has_alias;
            let key = if is_alias { LABEL_ALIAS } else { name };
            (key.to_owned(), retained)
        };
        Ok(Self {
            axes: chosen.iter().map(by_axis).collect(),
            exclude: axes.exclude.iter().map(remains).collect(),
            include: axes.include.iter().map(remains).collect(),
            keeps_baseline,
        })
    }
}

/// Adds the baseline to chosen tiers, if the plan has it. Returns whether it did.
fn keep_baseline(chosen: &mut [(String, Vec<String>)], axes: &Axes) -> bool {
    let has_one = axes.tier.iter().any(|tier| tier.value == BASELINE);
    let tiers = chosen.iter_mut().find(|(name, _)| name == "tier");
    let Some((_, tiers)) = tiers.filter(|_| has_one) else {
        return false;
    };
    if tiers.iter().any(|tier| tier == BASELINE) {
        return false;
    }
    tiers.push(BASELINE.to_owned());
    true
}

/// The plan's name of the axis that was typed.
fn axis_named(axis: &str, axes: &Axes) -> Result<String, String> {
    let name = if axis == LABEL_ALIAS { "label" } else { axis };
    let mut known: Vec<&str> = NAMES.to_vec();
    known.extend(axes.extra.iter().map(|extra| extra.key.as_str()));
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    let shown: Vec<&str> = known.into_iter().map(shown_axis).collect();
    let hint = suggestion(axis, &shown);
    Err(format!("the plan has no axis `{axis}`; {hint}"))
}

/// What people call the axis `name`.
pub(crate) fn shown_axis(name: &str) -> &str {
    if name == "label" { LABEL_ALIAS } else { name }
}

/// The value as the axis has it.
fn on_axis(axis: &str, value: &str, known: &[String]) -> Result<String, String> {
    let is_len = ["prompt_len", "gen_len"].contains(&axis);
    let value = match tokens(value) {
        Ok(tokens) if is_len => tokens.to_string(),
        _ => value.to_owned(),
    };
    if known.contains(&value) {
        return Ok(value);
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = suggestion(&value, &known);
    let axis = shown_axis(axis);
    Err(format!("`{value}` is not on axis `{axis}`; {hint}"))
}

/// The values of an axis, as coordinates show them.
fn values_of(name: &str, axes: &Axes) -> Vec<String> {
    match name {
        "tier" => axes.tier.iter().map(|tier| tier.value.clone()).collect(),
        "label" => axes.label.iter().map(|label| label.value.clone()).collect(),
        "prompt_len" => axes.prompt_len.iter().map(ToString::to_string).collect(),
        "gen_len" => axes.gen_len.iter().map(ToString::to_string).collect(),
        "concurrency" => axes.concurrency.iter().map(ToString::to_string).collect(),
        name => {
            let axis = axes.extra.iter().find(|axis| axis.key == name);
            let values = axis.into_iter().flat_map(|axis| &axis.values);
            values.map(|value| shown(&value.value)).collect()
        }
    }
}

/// The value that a partial cell names on an axis.
fn value_in(part: &PartialCell, name: &str) -> Option<String> {
    match name {
        "tier" => part.tier.as_ref().map(|tier| tier.value.clone()),
        "label" => part.label.as_ref().map(|label| label.value.clone()),
        "prompt_len" => part.prompt_len.map(|len| len.to_string()),
        "gen_len" => part.gen_len.map(|len| len.to_string()),
        "concurrency" => part.concurrency.map(|count| count.to_string()),
        name => {
            let own = part.extra.iter().find(|(key, _)| key == name);
            own.map(|(_, value)| value.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::plan::text::PlanText;

    const PLAN: &str = "name = \"t\"\nmodel = \"m\"\n[matrix]\n\
                        tier = [\"baseline\", \"cpu\", \"disk\"]\nprompt_len = [1024, 4096]\n\
                        concurrency = [1, 8]\nworkload = [\"a\", \"b\"]\n\
                        \"server.args.max-num-seqs\" = [64, 128]\n\
                        [[matrix.exclude]]\ntier = \"disk\"\nprompt_len = 4096\n\
                        [[matrix.include]]\ntier = \"cpu\"\nprompt_len = 512\n\
                        [workload.a]\n[workload.b]\nkind = \"unique\"\n\
                        [server]\nlauncher = \"process\"\n";

    fn narrowed(only: &str) -> Result<(Plan, bool), String> {
        let plan = Plan::parse(PLAN, "t.toml").unwrap();
        let part = Narrowed::of(&[only.parse()?], &plan.axes)?;
        let mut text = PlanText::new(PLAN).unwrap();
        text.narrow(&part);
        let text = text.text(&[format!("--only {only}")]);
        let plan = Plan::parse(&text, "t.toml").unwrap_or_else(|wrong| panic!("{wrong}"));
        Ok((plan, part.keeps_baseline))
    }

    #[test]
    fn a_part_holds_the_chosen_values_and_the_baseline_beside_other_tiers() {
        for (only, tiers, lens, extra, parts, keeps) in [
            ("tier=cpu", "baseline cpu", "1024 4096", 2, (0, 1), true),
            ("tier=baseline", "baseline", "1024 4096", 2, (0, 0), false),
            (
                "tier=disk,cpu,prompt_len=4k",
                "baseline cpu disk",
                "4096",
                2,
                (1, 0),
                true,
            ),
            (
                "server.args.max-num-seqs=64",
                "baseline cpu disk",
                "1024 4096",
                1,
                (1, 1),
                false,
            ),
            (
                "gen_len=100,workload=a",
                "baseline cpu disk",
                "1024 4096",
                2,
                (1, 1),
                false,
            ),
        ] {
            let (plan, keeps_baseline) = narrowed(only).unwrap();
            let axes = &plan.axes;
            assert_eq!(values_of("tier", axes).join(" "), tiers, "{only}");
            assert_eq!(values_of("prompt_len", axes).join(" "), lens, "{only}");
            assert_eq!(axes.extra[0].values.len(), extra, "{only}");
            assert_eq!((axes.exclude.len(), axes.include.len()), parts, "{only}");
            assert_eq!(keeps_baseline, keeps, "{only}");
            assert!(
                plan.text
                    .starts_with(&format!("# changed by --only {only}\n"))
            );
        }
        let (plan, _) = narrowed("label=b").unwrap();
        assert_eq!(values_of("label", &plan.axes), ["b"]);
    }

    #[test]
    fn an_unknown_axis_or_value_names_the_nearest() {
        for (only, expected) in [
            (
                "tire=cpu",
                "the plan has no axis `tire`; did you mean `tier`?",
            ),
            (
                "tier=cpi",
                "`cpi` is not on axis `tier`; did you mean `cpu`?",
            ),
            (
                "prompt_len=2k",
                "`2048` is not on axis `prompt_len`; valid: `1024`, `4096`",
            ),
            ("tier", "expected AXIS=VALUE"),
            ("tier=", "expected AXIS=VALUE"),
        ] {
            let refused = narrowed(only).unwrap_err();
            assert!(refused.contains(expected), "{only}: {refused}");
        }
    }

    #[test]
    fn four_k_are_4096_tokens() {
        assert_eq!(tokens("4k"), Ok(4096));
        assert_eq!(tokens("4096"), Ok(4096));
        for wrong in ["", "k", "0", "4.5k", "4m", "9999999k", "-1"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }
}
