//! An answer in words.

use super::{Advice, Answer, Cost, Point, TierAnswer};
use crate::aggregate::{BreakEven, Clarity};
use crate::plan::state::CacheState;
use crate::report::number::{brief, brief_cost, brief_times};
use crate::units::{PromptLen, grouped};

impl Answer {
    /// Whether to use `tier`, in a sentence without its name.
    pub(crate) fn words(&self, tier: &TierAnswer, crossing: Option<&BreakEven>) -> String {
        let proven: Vec<(PromptLen, &Point)> = self
            .lengths
            .iter()
            .zip(&tier.points)
            .filter_map(|(length, point)| Some((*length, point.as_ref()?)))
            .collect();
        let Some((longest, last)) = proven.last().copied() else {
            return "no answer: no pass of it is proven beside a proven baseline".to_owned();
        };
        let at_longest = format!(
            "{} at {} tokens",
            brief_times(last.speedup),
            grouped(longest)
        );
        let mut words = match (tier.advice, crossing) {
            (Advice::Open, Some(BreakEven::Several { .. })) => {
                "unclear: faster and slower by turns; measure more requests".to_owned()
            }
            (Advice::Open, _) => format!("no clear difference ({at_longest})"),
            (Advice::Partly, Some(BreakEven::From { tokens, .. })) => format!(
                "use it from about {} tokens on ({at_longest})",
                grouped(format!("{tokens:.0}"))
            ),
            (Advice::Partly, Some(BreakEven::UpTo { tokens, .. })) => format!(
                "use it only up to about {} tokens ({at_longest})",
                grouped(format!("{tokens:.0}"))
            ),
            (Advice::Not, _) if proven.len() > 1 => {
                format!(
                    "do not use it here: slower at every length up to {} tokens ({} there)",
                    grouped(longest),
                    brief_times(last.speedup)
                )
            }
            (Advice::Not, _) => format!("do not use it here: slower ({at_longest})"),
            _ if proven.len() > 1 => {
                let lengths = if tier.withheld > 0 {
                    "proven"
                } else {
                    "measured"
                };
                format!("use it at every {lengths} length ({at_longest})")
            }
            _ => format!("use it ({at_longest})"),
        };
        if tier.withheld > 0 {
            let (some, all) = (tier.withheld, tier.points.len());
            words.push_str(&format!("; {some} of {all} lengths not proven"));
        }
        words
    }

    /// What holds for all of it: the workload, and how many at a time.
    pub(crate) fn circumstances(&self) -> String {
        let place = &self.place;
        let mut text = format!(
            "{}, {} at a time, {} generated tokens",
            place.label,
            place.concurrency,
            grouped(place.gen_len)
        );
        for (key, value) in &place.extra {
            text.push_str(&format!(", {key} {value}"));
        }
        text
    }

    /// What the table shows.
    pub(crate) fn title(&self) -> &'static str {
        match self.place.state {
            CacheState::Tier => "First token on a tier hit, against computing the prompt again",
            CacheState::Restart => {
                "First token after a restart, against computing the prompt again"
            }
            CacheState::Gpu => {
                "First token of a prompt that the GPU holds, with and without the tier"
            }
            CacheState::Cold => {
                "First token of a prompt that nothing holds, with and without the tier"
            }
        }
    }

    /// Why a difference may be noise, where one may.
    pub(crate) fn noise(&self) -> Option<String> {
        self.has_noise.then(|| {
            let n = self.fewest_requests;
            let few = if n < 12 {
                format!(": {n} requests are few; try requests = 12 or more")
            } else {
                String::new()
            };
            format!("~ may be noise{few}")
        })
    }
}

impl Point {
    /// `2.9x  38 ms`, with `~` before what may be noise.
    pub(crate) fn text(&self) -> String {
        let mark = if self.clarity == Clarity::MayBeNoise {
            "~"
        } else {
            ""
        };
        format!(
            "{mark}{} {:>7}",
            brief_times(self.speedup),
            brief(self.ttft_ms)
        )
    }
}

impl Cost {
    /// `+7..13 ms`, with `~` before what may be noise.
    pub(crate) fn text(&self) -> String {
        let mark = if self.is_clear { "" } else { "~" };
        format!("{mark}{}", brief_cost(self.low_ms, self.high_ms))
    }
}
