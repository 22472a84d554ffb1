//! `[verdict]`: how much evidence is enough.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::reader::TableReader;
use super::value::non_negative_number;

/// Whether a tier can be proven without text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextRule {
    /// A pass whose text proves nothing is inconclusive.
    #[default]
    Required,
    /// Counters and bytes suffice where the text proves nothing; each table shows that.
    Optional,
}

impl TextRule {
    /// What the first reason of a verdict begins with that rests on no text.
    pub const MARK: &str = "text optional";

    /// Whether a verdict with this first reason rests on no text.
    pub fn marks(reason: Option<&str>) -> bool {
        reason.is_some_and(|reason| reason.starts_with(Self::MARK))
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over a reference"
    )]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Thresholds of the verdict: shares from 0 to 1, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictSpec {
    /// Most of a pass's prompt tokens that may come from where none should.
    pub stray_share: f64,
    /// Least of the expected tokens that must have come from the declared place.
    pub served_share: f64,
    /// Least of the bytes of these tokens that must have moved on the tier's own way.
    pub moved_share: f64,
    /// Most of a pass's requests that may fail: the rest is not a fair sample of what was planned.
    pub failed_share: f64,
    /// How many times as fast as the baseline a tier may seem on a control, where offloading can
    /// win nothing, before it is compared nowhere; at least 1.
    #[serde(skip_serializing_if = "is_default_control_speedup")]
    pub control_speedup: f64,
    /// Whether text is required where it cannot prove anything, as with dummy weights.
    #[serde(skip_serializing_if = "TextRule::is_default")]
    pub text: TextRule,
    /// By how much answers from a tier that stores KV with a loss may differ, nats; nothing else uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_tolerance: Option<f64>,
}

/// What differs between two servers of one kind.
const CONTROL_SPEEDUP: f64 = 1.1;

/// Omitted from cell ids: plans without the key keep the ids of versions that did not have it.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_default_control_speedup(speedup: &f64) -> bool {
    speedup.total_cmp(&CONTROL_SPEEDUP).is_eq()
}

impl Default for VerdictSpec {
    fn default() -> Self {
        Self {
            stray_share: 0.01,
            served_share: 0.9,
            moved_share: 0.9,
            failed_share: 0.02,
            control_speedup: CONTROL_SPEEDUP,
            text: TextRule::default(),
            text_tolerance: None,
        }
    }
}

impl VerdictSpec {
    /// Reads `[verdict]`; a missing table means the defaults.
    pub fn read(table: Option<&TableReader<'_>>) -> Self {
        let mut spec = Self::default();
        let Some(table) = table else { return spec };
        let named = [
            ("stray_share", &mut spec.stray_share),
            ("served_share", &mut spec.served_share),
            ("moved_share", &mut spec.moved_share),
            ("failed_share", &mut spec.failed_share),
        ];
        for (key, value) in named {
            if let Some(located) = table.read(key, share) {
                *value = located.value;
            }
        }
        if let Some(located) = table.read("control_speedup", speedup) {
            spec.control_speedup = located.value;
        }
        let rules = [
            ("required", TextRule::Required),
            ("optional", TextRule::Optional),
        ];
        if let Some(found) = table.choice("text", &rules) {
            spec.text = found.value;
        }
        let tolerance = table.read("text_tolerance", nats);
        spec.text_tolerance = tolerance.map(|located| located.value);
        table.finish();
        spec
    }
}

fn share(value: &DeValue<'_>) -> Result<f64, String> {
    non_negative_number(value)
        .ok()
        .filter(|share| *share <= 1.0)
        .ok_or_else(|| "a share from 0 to 1".to_owned())
}

fn nats(value: &DeValue<'_>) -> Result<f64, String> {
    non_negative_number(value)
        .ok()
        .filter(|nats| *nats > 0.0)
        .ok_or_else(|| "a number of nats above 0".to_owned())
}

fn speedup(value: &DeValue<'_>) -> Result<f64, String> {
    non_negative_number(value)
        .ok()
        .filter(|speedup| *speedup >= 1.0)
        .ok_or_else(|| "a number from 1 up".to_owned())
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::plan::reader::Problems;

    fn read(text: &str) -> (VerdictSpec, Vec<String>) {
        let document = DeTable::parse(text).unwrap();
        let problems = Problems::default();
        let table = TableReader::new("verdict", document.get_ref(), document.span(), &problems);
        let spec = VerdictSpec::read(Some(&table));
        let sorted = problems.into_sorted().into_iter();
        (spec, sorted.map(|problem| problem.message).collect())
    }

    #[test]
    fn shares_are_read_and_others_refused() {
        let (spec, problems) = read("served_share = 0.95\nstray_share = 0");
        assert_eq!(problems, [""; 0]);
        let expected = VerdictSpec {
            served_share: 0.95,
            stray_share: 0.0,
            ..VerdictSpec::default()
        };
        assert_eq!(spec, expected);
        let (spec, problems) = read("control_speedup = 1.25");
        assert_eq!(problems, [""; 0]);
        assert!((spec.control_speedup - 1.25).abs() < 1e-12);
        let (_, problems) = read("control_speedup = 0.9");
        assert!(problems[0].contains("a number from 1 up"), "{problems:?}");
        let (spec, problems) = read("text = \"optional\"");
        assert_eq!((spec.text, problems.len()), (TextRule::Optional, 0));
        let (spec, problems) = read("text_tolerance = 0.5");
        assert_eq!((spec.text_tolerance, problems.len()), (Some(0.5), 0));
        let (_, problems) = read("text_tolerance = 0");
        assert!(problems[0].contains("nats above 0"), "{problems:?}");
        let (_, problems) = read("text = \"no\"");
        assert_eq!(problems.len(), 1, "{problems:?}");
        let (_, problems) = read("moved_share = 90\nserverd_share = 1");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("a share from 0 to 1"))
        );
    }
}
