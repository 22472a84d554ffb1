//! What a tier does for agents: the first turn of a session apart from the later ones.

use crate::aggregate::{BASELINE, Place, TurnRow};
use crate::report::advice::{Advice, Answer};
use crate::report::number::{brief, brief_times};
use crate::units::grouped;

/// Whether to use `tier` where sessions have turns, in a sentence without its name; `None` where they have
/// none, or nothing of both is proven.
pub(super) fn told(turns: &[TurnRow], answer: &Answer, tier: &str) -> Option<(Advice, String)> {
    let at = |prompt_len| {
        let here = Place {
            prompt_len,
            ..answer.place.clone()
        };
        let of = |tier: &str| {
            let mut rows = turns.iter();
            rows.find(|row| row.is_proven && row.tier == tier && row.place == here)
        };
        Some((of(BASELINE)?, of(tier)?))
    };
    let lengths = answer.lengths.iter().rev();
    let (length, (without, with)) = lengths
        .copied()
        .find_map(|length| Some((length, at(length)?)))?;
    let side = |without: Option<(f64, usize)>, with: Option<(f64, usize)>| {
        let (without, with) = (without?.0, with?.0);
        let text = format!(
            "{} ({} without, {} with)",
            brief_times(without / with),
            brief(without),
            brief(with)
        );
        Some((without / with, text))
    };
    let (first, first_text) = side(without.first, with.first)?;
    let (later, later_text) = side(without.later, with.later)?;
    let advice = match (first >= 1.0, later >= 1.0) {
        (true, true) => Advice::Use,
        (false, false) => Advice::Not,
        _ => Advice::Open,
    };
    let words = format!(
        "first turn of a session {first_text}, later turns {later_text}, at {} tokens",
        grouped(length)
    );
    Some((advice, words))
}

#[cfg(test)]
mod tests {
    use crate::aggregate::fixture::{Bench, rows_of};
    use crate::plan::state::CacheState;
    use crate::report::Report;

    #[test]
    fn an_agent_is_told_of_the_first_turn_and_of_the_later_ones() {
        let mut bench = Bench::new();
        for (tier, times) in [
            ("baseline", [34.0, 20.0, 20.0, 34.0, 20.0, 20.0]),
            ("cpu", [26.0, 23.0, 24.0, 26.0, 23.0, 24.0]),
        ] {
            bench
                .cell(tier, 1024, 1, 1)
                .planned("plan.workload.kind", "multi-turn")
                .planned("plan.workload.turns", "3")
                .pass(CacheState::Tier, &rows_of(&times, 0));
        }
        let report = Report::of(&bench.run(), "agents").unwrap();
        let screen = report.screen("run", 80);
        let text = screen.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = "cpu: first turn of a session 1.3x (34 ms without, 26 ms with), later turns";
        assert!(text.contains(words), "{text}");
        assert!(text.contains("0.9x (20 ms without, 24 ms with)"), "{text}");
        assert!(
            !text.contains("use it") && !text.contains("use it here"),
            "{text}"
        );
    }
}
