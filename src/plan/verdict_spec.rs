//! `[verdict]`: how much evidence is enough.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::reader::TableReader;
use super::value::non_negative_number;

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
        let (_, problems) = read("moved_share = 90\nserverd_share = 1");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("a share from 0 to 1"))
        );
    }
}
