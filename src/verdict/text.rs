//! The text witness: how far apart two answers to one question are, and what that proves.
//!
//! Greedy answers of one model to one prompt are the same up to the engine's noise: batching and
//! cached prefixes change the last digits of a log-probability, and where two tokens are nearly
//! equally likely, those digits decide. What the noise is, each engine shows by itself: the same
//! question asked twice in one state. That answers *can* differ, it shows too: the same question
//! behind a document of which one chunk differs.

use serde::{Deserialize, Deserializer, Serialize};

use super::facts::{Facts, serves};
use crate::load::Score;
use crate::plan::state::CacheState;
use crate::plan::verdict_spec::TextRule;
use crate::record::schema::VerdictStatus;

/// Noise below this is not learnt from two answers: both may agree by chance.
pub(crate) const MIN_TOLERANCE: f64 = 0.1;

/// How much more than the noise seen once may be noise.
const MARGIN: f64 = 3.0;

/// What came back for one canary.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CanaryAnswer {
    /// The answer: token ids, or the text where the server sends no ids; absent where the request
    /// failed or had no text.
    pub text: Option<String>,
    /// Its tokens with their log-probabilities; empty where the server gives none.
    pub scores: Vec<Score>,
    /// Whether by the server's usage a cache served part of the prompt.
    pub from_cache: bool,
}

impl CanaryAnswer {
    /// How far it is from `other`, in nats: the largest difference of a token's log-probability, up to
    /// the first place where another token was chosen, and with it. Infinite where the texts differ
    /// and the log-probabilities cannot say by how much; absent where one of them is no answer.
    pub(crate) fn distance(&self, other: &Self) -> Option<f64> {
        let (text, other_text) = (self.text.as_ref()?, other.text.as_ref()?);
        let text_alone = if text == other_text {
            0.0
        } else {
            f64::INFINITY
        };
        if !self.has_scores_beside(other) {
            return Some(text_alone);
        }
        let mut largest: f64 = 0.0;
        for (one, two) in self.scores.iter().zip(&other.scores) {
            if one.token != two.token {
                // Another choice is noise where the tokens were nearly equally likely in both.
                return Some(largest.max(choice_distance(one, two)));
            }
            largest = largest.max((one.logprob - two.logprob).abs());
        }
        let is_whole = self.scores.len() == other.scores.len();
        Some(if is_whole { largest } else { f64::INFINITY })
    }

    /// Whether log-probabilities of both can be compared.
    pub(crate) fn has_scores_beside(&self, other: &Self) -> bool {
        !self.scores.is_empty() && !other.scores.is_empty()
    }
}

/// How far apart two answers are at a place where each chose another token: the larger difference of the
/// two tokens' log-probabilities.
fn choice_distance(one: &Score, two: &Score) -> f64 {
    change(one, two).max(change(two, one))
}

/// By how much the token of `from` is less likely in `to`. One that `to` does not name is at most as likely
/// as the least likely that it names: then this is the least that the change can be, and says nothing below 0.
fn change(from: &Score, to: &Score) -> f64 {
    let named = to.others.iter().find(|(name, _)| *name == from.token);
    match (named, to.others.last()) {
        (Some((_, logprob)), _) => (from.logprob - logprob).abs(),
        (None, Some((_, least))) => from.logprob - least,
        (None, None) => f64::INFINITY,
    }
}

/// What the answers of the cold state show of the engine and the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// Largest distance that is noise, nats; infinite where one question had two texts.
    #[serde(deserialize_with = "nats")]
    pub tolerance: f64,
    /// Questions that were answered behind an altered document too.
    pub altered: u32,
    /// Of these, the ones whose answer changed by more than the noise.
    pub altered_changed: u32,
}

impl Sight {
    /// Learns from the answers to the same questions: the first time, again in the same state
    /// (absent where nothing is certain to have answered without the tier), and behind altered
    /// documents. A plan's `stated` tolerance is allowed in any case.
    pub(crate) fn learn(
        first: &[CanaryAnswer],
        again: Option<&[CanaryAnswer]>,
        altered: &[CanaryAnswer],
        stated: Option<f64>,
    ) -> Self {
        let noise = distances(first, again.unwrap_or_default());
        let least = stated.unwrap_or(MIN_TOLERANCE).max(MIN_TOLERANCE);
        Self::with(tolerance_of(&noise, least), &distances(first, altered))
    }

    fn with(tolerance: f64, altered: &[f64]) -> Self {
        let changed = altered.iter().filter(|distance| **distance > tolerance);
        Self {
            tolerance,
            altered: count(altered.len()),
            altered_changed: count(changed.count()),
        }
    }

    /// The same under a load. Its noise shows where a question `within` the cold load and the same one after
    /// it have two answers. If the noise hides what another document changes, as the `first` answers and those
    /// behind `altered` documents show, then equal answers within a load prove nothing. That is also what
    /// comes of a tier that answers `after` the load, and wrongly.
    pub(crate) fn under_load(
        self,
        [within, after]: [&[CanaryAnswer]; 2],
        [first, altered]: [&[CanaryAnswer]; 2],
    ) -> Self {
        let tolerance = tolerance_of(&distances(within, after), self.tolerance);
        Self::with(tolerance, &distances(first, altered))
    }
}

/// How far apart the answers to each question are, where both are answers.
fn distances(ones: &[CanaryAnswer], others: &[CanaryAnswer]) -> Vec<f64> {
    let pairs = ones.iter().zip(others);
    pairs.filter_map(|(one, two)| one.distance(two)).collect()
}

/// What may differ where `noise` was seen, at least `min`.
fn tolerance_of(noise: &[f64], min: f64) -> f64 {
    (MARGIN * noise.iter().copied().fold(0.0, f64::max)).max(min)
}

/// Canary prompts: asked once when their text was computed, and again in this state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Canaries {
    /// How many were asked.
    pub asked: u32,
    /// How many were answered, both times, with text or token ids.
    pub answered: u32,
    /// How many were answered as before, but for the noise.
    pub same: u32,
    /// How many the server says a cache served part of.
    pub from_cache: u32,
    /// How many have log-probabilities both times.
    pub scored: u32,
    /// Largest distance of an answer from the first one, nats; infinite where the text is another.
    #[serde(deserialize_with = "nats")]
    pub distance: f64,
    /// What the answers of the cold state showed.
    pub sight: Sight,
}

impl Canaries {
    /// Compares the answers of a state with the `first` ones.
    pub(crate) fn compare(first: &[CanaryAnswer], now: &[CanaryAnswer], sight: Sight) -> Self {
        let pairs = || first.iter().zip(now);
        let distances: Vec<f64> = pairs()
            .filter_map(|(then, now)| then.distance(now))
            .collect();
        let same = distances
            .iter()
            .filter(|distance| **distance <= sight.tolerance);
        let scored = pairs().filter(|(then, now)| then.has_scores_beside(now));
        Self {
            asked: count(now.len()),
            answered: count(distances.len()),
            same: count(same.count()),
            from_cache: count(now.iter().filter(|answer| answer.from_cache).count()),
            scored: count(scored.count()),
            distance: distances.iter().copied().fold(0.0, f64::max),
            sight,
        }
    }
}

/// The third witness: whether the answers from the tier are those that were computed.
pub(super) fn finding(facts: &Facts) -> Option<(VerdictStatus, String)> {
    // Where nothing is to be served, there is no loaded text to prove.
    let needed =
        facts.state != CacheState::Cold && serves(facts) && facts.expected_hit_tokens > 0.0;
    let asked = facts.canaries.filter(|canaries| canaries.asked > 0);
    let (status, reason) = match asked {
        None if needed => {
            let reason = "no canary was asked, so the text is not proven";
            (VerdictStatus::Inconclusive, reason.to_owned())
        }
        None => return None,
        Some(canaries) => match by_design(facts, canaries, "") {
            // Whether so much may differ, only the plan can say, also where text is optional.
            Some(finding) => return Some(finding),
            None => canaries.finding(needed, stated(facts)),
        },
    };
    let reason = match status {
        VerdictStatus::Invalid => reason + cause(facts),
        _ => reason,
    };
    Some(ruled(status, reason, facts.limits.text))
}

/// What LMCache's log says of changed answers.
fn cause(facts: &Facts) -> &'static str {
    if facts.logs.without_compiled_ops {
        "; by its log, LMCache's compiled operations did not load, as happens to a build for another torch"
    } else {
        ""
    }
}

/// A finding by the plan's rule: what the text leaves open is no obstacle where text is optional.
fn ruled(status: VerdictStatus, reason: String, rule: TextRule) -> (VerdictStatus, String) {
    match (status, rule) {
        (VerdictStatus::Inconclusive, TextRule::Optional) => (
            VerdictStatus::Valid,
            format!("{}: {reason}", TextRule::MARK),
        ),
        _ => (status, reason),
    }
}

/// The tolerance that the plan states for this pass.
fn stated(facts: &Facts) -> Option<f64> {
    facts.loss().and(facts.limits.text_tolerance)
}

/// What answers show that changed where the tier stores with a loss, and the plan states no tolerance.
fn by_design(facts: &Facts, canaries: Canaries, place: &str) -> Option<(VerdictStatus, String)> {
    let serializer = facts.loss().filter(|_| stated(facts).is_none())?;
    let changed = canaries.answered - canaries.same;
    (changed > 0).then(|| {
        let reason = format!(
            "{changed} of {} canary answers{place} changed, which `{}` may do by design: state by how much in \
             `text_tolerance` of [verdict]{}",
            canaries.asked,
            serializer.name,
            canaries.numbers(None)
        );
        (VerdictStatus::Inconclusive, reason)
    })
}

/// Whether answers within the load changed: a fault may show under load alone. Equal ones prove no more
/// than the quiet ones do.
pub(super) fn finding_in_load(facts: &Facts) -> Option<(VerdictStatus, String)> {
    let Canaries {
        asked,
        answered,
        same,
        sight,
        ..
    } = facts.canaries_in_load?;
    let by_design = by_design(facts, facts.canaries_in_load?, " within the load");
    if by_design.is_some() {
        return by_design;
    }
    let tolerance = sight.tolerance;
    if same < answered {
        let changed = answered - same;
        let reason = format!(
            "{changed} of {asked} canary answers within the load changed: the loaded cache is not what \
             was stored; tolerance {tolerance:.3} in log-probability"
        );
        return Some((VerdictStatus::Invalid, reason));
    }
    // A witness that sees nothing on the quiet server either has said so.
    let sees_when_quiet = |quiet: Canaries| quiet.sight.altered_changed > 0;
    if answered > 0 && sight.altered_changed == 0 && facts.canaries.is_some_and(sees_when_quiet) {
        let reason = format!(
            "within the load the text witness is blind: the same question within it and after it differs as \
             much as behind another document (0 of {} changed by more than {tolerance:.3})",
            sight.altered
        );
        return Some(ruled(
            VerdictStatus::Inconclusive,
            reason,
            facts.limits.text,
        ));
    }
    let reason = format!("{same} of {asked} canary answers within the load stayed the same");
    (answered > 0).then_some((VerdictStatus::Valid, reason))
}

impl Canaries {
    fn finding(self, needed: bool, stated: Option<f64>) -> (VerdictStatus, String) {
        let Self {
            asked,
            answered,
            same,
            from_cache,
            sight,
            ..
        } = self;
        let inconclusive = |reason: String| (VerdictStatus::Inconclusive, reason);
        if same < answered {
            let reason = format!(
                "{} of {asked} canary answers changed: the loaded cache is not what was stored{}",
                answered - same,
                self.numbers(stated)
            );
            return (VerdictStatus::Invalid, reason);
        }
        if answered < asked {
            return inconclusive(format!(
                "{} of {asked} canaries were not answered, so the text is not proven",
                asked - answered
            ));
        }
        if needed && from_cache < asked {
            return inconclusive(format!(
                "{} of {asked} canaries were computed again, so the text is not proven",
                asked - from_cache
            ));
        }
        if needed && sight.altered_changed == 0 {
            return inconclusive(sight.blindness(stated));
        }
        let reason = format!(
            "{same} of {asked} canary answers stayed the same{}",
            self.numbers(stated)
        );
        (VerdictStatus::Valid, reason)
    }

    /// What the comparison rests on, in brackets.
    fn numbers(self, stated: Option<f64>) -> String {
        let Sight {
            tolerance,
            altered,
            altered_changed,
        } = self.sight;
        let scores = if self.scored == 0 {
            "text only: the server gave no log-probabilities".to_owned()
        } else if self.distance.is_finite() {
            let distance = self.distance;
            let by = if stated.is_some() {
                ", of the plan"
            } else {
                ""
            };
            format!("log-probabilities within {distance:.3}, tolerance {tolerance:.3}{by}")
        } else {
            format!("other text, beyond a tolerance of {tolerance:.3} in log-probability")
        };
        format!("; {scores}; another chunk in the document changed {altered_changed} of {altered}")
    }
}

impl Sight {
    /// Why equal answers prove nothing.
    fn blindness(self, stated: Option<f64>) -> String {
        let altered = self.altered;
        if let Some(stated) = stated.filter(|stated| altered > 0 && *stated >= self.tolerance) {
            format!(
                "the text witness is blind: no answer behind another document differs by more than the \
                 `text_tolerance` of {stated:.3} (0 of {altered}); state a smaller one"
            )
        } else if altered == 0 {
            "no canary was answered behind an altered document, so equal answers prove nothing"
                .to_owned()
        } else if self.tolerance > MIN_TOLERANCE {
            format!(
                "the text witness is blind: the same question asked twice differs as much as behind \
                 another document (0 of {altered} changed by more than {:.3})",
                self.tolerance
            )
        } else {
            format!(
                "the text witness is blind: this model's answers do not depend on the prompt (0 of \
                 {altered} changed with a chunk of the document): dummy weights? Serve real weights, \
                 or write `text = \"optional\"` in [verdict]"
            )
        }
    }
}

/// Nats of JSON, which has no infinite number: it is written as `null`.
fn nats<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(tokens: &[(u32, f64, u32, f64)]) -> CanaryAnswer {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let score = |&(token, logprob, other, other_logprob): &(u32, f64, u32, f64)| Score {
            token: token.to_string(),
            logprob,
            others: vec![(other.to_string(), other_logprob)],
        };
        CanaryAnswer {
            text: Some(format!("{ids:?}")),
            scores: tokens.iter().map(score).collect(),
            from_cache: false,
        }
    }

    fn text(text: &str) -> CanaryAnswer {
        CanaryAnswer {
            text: Some(text.to_owned()),
            ..CanaryAnswer::default()
        }
    }

    #[test]
    fn distances() {
        let one = answer(&[(5, -0.5, 6, -1.5), (7, -1.0, 8, -1.01), (1, -2.0, 2, -3.0)]);
        let digits = answer(&[(5, -0.52, 6, -1.5), (7, -1.0, 8, -1.01), (1, -2.0, 2, -3.0)]);
        let tie = answer(&[(5, -0.5, 6, -1.5), (8, -0.98, 7, -1.03), (9, -9.0, 2, -3.0)]);
        let stranger = answer(&[(5, -0.5, 6, -1.5), (3, -0.9, 7, -1.0), (1, -2.0, 2, -3.0)]);
        let short = answer(&[(5, -0.5, 6, -1.5)]);
        for (other, expected) in [
            (&one, 0.0),
            (&digits, 0.02),
            (&tie, 0.03),
            (&stranger, 0.11),
            (&short, f64::INFINITY),
        ] {
            let distance = one.distance(other).unwrap();
            assert!((distance - expected).abs() < 1e-9 || distance.total_cmp(&expected).is_eq());
            assert!(other.distance(&one).unwrap().total_cmp(&distance).is_eq());
        }
    }

    #[test]
    fn a_choice_that_the_other_answer_does_not_name_is_as_far_as_it_must_be_at_least() {
        let of = |token: &str, logprob, others: &[(&str, f64)]| Score {
            token: token.to_owned(),
            logprob,
            others: others
                .iter()
                .map(|&(name, at)| (name.to_owned(), at))
                .collect(),
        };
        let one = of("a", -1.0, &[("b", -1.1), ("c", -1.2)]);
        let close = of("c", -1.05, &[("a", -1.1), ("b", -1.15)]);
        assert!((choice_distance(&one, &close) - 0.15).abs() < 1e-9);
        let far = of("x", -1.0, &[("y", -2.0), ("z", -4.0)]);
        assert!((choice_distance(&one, &far) - 3.0).abs() < 1e-9);
        assert!((choice_distance(&far, &one) - 3.0).abs() < 1e-9);
        let alone = of("x", -1.0, &[]);
        assert!(choice_distance(&one, &alone).is_infinite());
    }

    #[test]
    fn without_log_probabilities_the_text_alone_decides() {
        assert_eq!(text("a").distance(&text("a")), Some(0.0));
        assert_eq!(text("a").distance(&text("b")), Some(f64::INFINITY));
        assert_eq!(text("a").distance(&CanaryAnswer::default()), None);
        let scored = answer(&[(5, -0.5, 6, -1.5)]);
        assert_eq!(text("[5]").distance(&scored), Some(0.0));
    }

    #[test]
    fn noise_is_learnt_and_blindness_seen() {
        let of = |logprob: f64| [answer(&[(5, logprob, 6, -4.0)])];
        let (first, altered) = (of(-1.0), of(-2.0));
        let quiet = Sight::learn(&first, Some(&of(-1.0)), &altered, None);
        assert_eq!((quiet.altered, quiet.altered_changed), (1, 1));
        assert!((quiet.tolerance - MIN_TOLERANCE).abs() < 1e-12);
        let noisy = Sight::learn(&first, Some(&of(-1.4)), &altered, None);
        assert!((noisy.tolerance - 1.2).abs() < 1e-9);
        assert_eq!(
            noisy.altered_changed, 0,
            "a change below the noise shows nothing"
        );
        let blind = Sight::learn(&first, Some(&first), &first, None);
        assert_eq!((blind.altered, blind.altered_changed), (1, 0));
        let unknown = Sight::learn(&first, None, &[CanaryAnswer::default()], None);
        assert_eq!((unknown.altered, unknown.altered_changed), (0, 0));
    }

    #[test]
    fn a_load_adds_its_own_noise() {
        let of = |logprob: f64| [answer(&[(5, logprob, 6, -4.0)])];
        let (first, altered) = (of(-1.0), of(-2.0));
        let quiet = Sight::learn(&first, Some(&first), &altered, None);
        let under = |after: f64| quiet.under_load([&first, &of(after)], [&first, &altered]);
        let loaded = under(-1.2);
        assert!((loaded.tolerance - 0.6).abs() < 1e-9);
        assert_eq!((loaded.altered, loaded.altered_changed), (1, 1));
        assert_eq!(under(-1.0), quiet);
        // So much noise hides what another document changes.
        let hidden = under(-1.4);
        assert!((hidden.tolerance - 1.2).abs() < 1e-9);
        assert_eq!((hidden.altered, hidden.altered_changed), (1, 0));
    }

    #[test]
    fn answers_are_counted_by_what_they_show() {
        let first = [answer(&[(5, -1.0, 6, -4.0)]), text("a"), text("b")];
        let now = [
            CanaryAnswer {
                from_cache: true,
                ..answer(&[(5, -1.05, 6, -4.0)])
            },
            text("a"),
            CanaryAnswer::default(),
        ];
        let sight = Sight::learn(&first, Some(&first), &[], None);
        let canaries = Canaries::compare(&first, &now, sight);
        let Canaries {
            asked,
            answered,
            same,
            from_cache,
            scored,
            ..
        } = canaries;
        assert_eq!((asked, answered, same, from_cache, scored), (3, 2, 2, 1, 1));
        assert!((canaries.distance - 0.05).abs() < 1e-9);
    }

    #[test]
    fn noise_of_just_the_tolerance_is_noise() {
        let of = |logprob: f64| [answer(&[(5, logprob, 6, -4.0)])];
        let sight = Sight::learn(&of(-1.0), Some(&of(-1.25)), &of(-1.75), None);
        assert!((sight.tolerance - 0.75).abs() < 1e-12);
        assert_eq!(sight.altered_changed, 0);
        for (now, same) in [(-1.75, 1), (-1.76, 0)] {
            let canaries = Canaries::compare(&of(-1.0), &of(now), sight);
            assert_eq!((canaries.answered, canaries.same), (1, same));
        }
    }

    #[test]
    fn a_choice_less_likely_than_all_that_the_other_names_adds_nothing() {
        let of = |token: &str, logprob, other: f64| Score {
            token: token.to_owned(),
            logprob,
            others: vec![("other".to_owned(), other)],
        };
        let answer = |token| CanaryAnswer {
            text: Some(String::new()),
            scores: vec![of(token, -5.0, -1.0)],
            from_cache: false,
        };
        assert_eq!(answer("a").distance(&answer("b")), Some(0.0));
    }

    #[test]
    fn a_stated_tolerance_is_allowed_and_hides_what_is_no_larger() {
        let of = |logprob: f64| [answer(&[(5, logprob, 6, -4.0)])];
        let learn = |stated| Sight::learn(&of(-1.0), Some(&of(-1.0)), &of(-2.0), stated);
        let sight = learn(Some(0.5));
        assert!((sight.tolerance - 0.5).abs() < 1e-12);
        assert_eq!(sight.altered_changed, 1);
        for (drifted, same) in [(-1.4, 1), (-1.6, 0)] {
            assert_eq!(Canaries::compare(&of(-1.0), &of(drifted), sight).same, same);
        }
        assert_eq!(learn(Some(1.5)).altered_changed, 0, "it sees no document");
        assert_eq!(learn(Some(0.01)), learn(None), "never below what is noise");
    }

    fn any_answer() -> impl Strategy<Value = CanaryAnswer> {
        let token = (0_u32..3, -5.0..0.0, 0_u32..3, -9.0..-5.0);
        let tokens = prop::collection::vec(token, 1..5);
        tokens.prop_map(|tokens| answer(&tokens))
    }

    proptest! {
        #[test]
        fn a_distance_is_symmetric_and_zero_to_itself(one in any_answer(), two in any_answer()) {
            prop_assert_eq!(one.distance(&one), Some(0.0));
            prop_assert_eq!(one.distance(&two), two.distance(&one));
        }

        /// The more noise, the less a change shows.
        #[test]
        fn noise_never_sharpens_the_sight(
            one in any_answer(), again in any_answer(), altered in any_answer(),
        ) {
            let first = [one];
            let quiet = Sight::learn(&first, Some(&first), std::slice::from_ref(&altered), None);
            let noisy = Sight::learn(&first, Some(&[again]), &[altered], None);
            prop_assert!(noisy.tolerance >= quiet.tolerance);
            prop_assert!(noisy.altered_changed <= quiet.altered_changed);
        }
    }
}
