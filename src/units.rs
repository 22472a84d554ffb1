//! Numbers with units. No arithmetic that makes no sense, no files.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

mod bounds;

pub(crate) use bounds::Bounds;

/// Declares a count that cannot be zero, with the unit in its name.
macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The count, or `None` for zero.
            pub fn new(value: u32) -> Option<Self> {
                NonZeroU32::new(value).map(Self)
            }

            /// The count as a plain number, at least 1.
            pub fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count!(
    /// Length of a prompt, in tokens.
    PromptLen
);
count!(
    /// Tokens that each request generates.
    GenLen
);
count!(
    /// Requests in flight at the same time (closed loop).
    Concurrency
);
count!(
    /// Which repetition of a cell this is, from 1.
    Repeat
);
count!(
    /// A number of requests, at least one.
    RequestCount
);

/// `number` as text with thousands separators, for people: `12,345`, `1,900.0`.
pub(crate) fn grouped(number: impl fmt::Display) -> String {
    let text = number.to_string();
    let digits = text
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(text.len());
    let (sign, rest) = text.split_at(digits);
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (whole, fraction) = rest.split_at(end);
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// The random seed of a run. Streams derive theirs by name: adding a cell or a stream changes no
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed for the stream called `label`: the first 8 bytes of BLAKE3 over this seed and the
    /// label.
    #[must_use]
    pub fn derive(self, label: &str) -> Seed {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(label.as_bytes());
        let mut first = [0_u8; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Seed(u64::from_le_bytes(first))
    }

    /// The generator of this seed. ChaCha8, because its stream is fixed across versions of `rand`.
    pub fn rng(self) -> rand_chacha::ChaCha8Rng {
        use rand::SeedableRng as _;
        rand_chacha::ChaCha8Rng::seed_from_u64(self.0)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Wall-clock time, read once a run: every other time is a distance from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock(SystemTime);

impl WallClock {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(SystemTime::now())
    }

    /// The id of a run of the plan `text` that begins now, also its folder's name:
    /// `20261124T061500Z` and six digits of a hash.
    pub(crate) fn run_id(self, text: &str) -> String {
        let nanos = self.0.duration_since(UNIX_EPOCH);
        let nanos = nanos.map_or(0, |since| since.as_nanos());
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes());
        hasher.update(&nanos.to_le_bytes());
        let hash = hasher.finalize().to_hex();
        format!("{}-{}", self.utc().format("%Y%m%dT%H%M%SZ"), &hash[..6])
    }

    /// RFC 3339, in UTC.
    pub(crate) fn rfc3339(self) -> String {
        self.utc().to_rfc3339()
    }

    fn utc(self) -> DateTime<Utc> {
        self.0.into()
    }
}

/// A count for people: rounded to a whole number, a comma before each three digits.
pub(crate) fn thousands(count: f64) -> String {
    // What rounds to zero has no sign.
    let count = if count.abs() <= 0.5 { 0.0 } else { count };
    grouped(format_args!("{count:.0}"))
}

/// The longest span that a plan, a file or an option may name, seconds: 31 years.
pub(crate) const MAX_SECONDS: f64 = 1e9;

/// A span of `seconds`, which may be any number: none of what is below 0 or no number, and
/// [`MAX_SECONDS`] of what is longer. It can be added to an instant without overflow.
pub(crate) fn span_of_seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, MAX_SECONDS).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_for_people_have_commas() {
        for (count, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (13_536.0, "13,536"),
            (1_000_000.0, "1,000,000"),
            (-1234.0, "-1,234"),
            (-0.2, "0"),
        ] {
            assert_eq!(thousands(count), text);
        }
    }

    #[test]
    fn zero_is_no_count() {
        assert!(Concurrency::new(0).is_none());
        assert_eq!(Concurrency::new(8).map(Concurrency::get), Some(8));
    }

    #[test]
    fn thousands_are_grouped_in_the_whole_part_only() {
        for (number, text) in [
            ("7", "7"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-1234567.8901", "-1,234,567.8901"),
            ("+10000", "+10,000"),
            ("n/a", "n/a"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn seeds_are_derived_by_name() {
        let seed = Seed(42);
        assert_eq!(seed.derive("a"), seed.derive("a"));
        assert_ne!(seed.derive("a"), seed.derive("b"));
        assert_ne!(seed.derive("a"), Seed(43).derive("a"));
    }

    #[test]
    fn any_number_of_seconds_is_a_span() {
        for (seconds, expected) in [
            (1.5, Duration::from_millis(1500)),
            (0.0, Duration::ZERO),
            (-1.0, Duration::ZERO),
            (f64::NAN, Duration::ZERO),
            (f64::NEG_INFINITY, Duration::ZERO),
            (1e300, Duration::from_secs(1_000_000_000)),
            (f64::INFINITY, Duration::from_secs(1_000_000_000)),
        ] {
            assert_eq!(span_of_seconds(seconds), expected, "{seconds}");
        }
    }
}
