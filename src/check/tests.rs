use super::*;
use crate::aggregate::fixture::Bench;
use crate::record::schema::Phase;

use VerdictStatus::{Inconclusive, Invalid, Valid};

fn verdict(status: VerdictStatus, witnesses: &[(Witness, VerdictStatus)]) -> Verdict {
    Verdict {
        status,
        reasons: vec!["because".to_owned()],
        witnesses: witnesses.iter().copied().collect(),
    }
}

#[test]
fn an_answer_is_right_only_where_every_witness_agrees() {
    use Witness::{Bytes, Clients, Counters, Limits, State, Text};

    type Case<'a> = (Answer, VerdictStatus, &'a [(Witness, VerdictStatus)]);
    let cases: [Case<'_>; 10] = [
        (
            Answer::Right,
            Valid,
            &[(Counters, Valid), (Bytes, Valid), (Text, Valid)],
        ),
        // Changed text is wrong, whatever came over the link.
        (
            Answer::Wrong,
            Invalid,
            &[(Counters, Valid), (Bytes, Valid), (Text, Invalid)],
        ),
        (
            Answer::Wrong,
            Invalid,
            &[(Counters, Invalid), (Text, Invalid)],
        ),
        // Counted as served, and less came: the engine computed with what lay there.
        (
            Answer::Wrong,
            Invalid,
            &[(Counters, Valid), (Bytes, Invalid), (Text, Valid)],
        ),
        (
            Answer::Wrong,
            Invalid,
            &[(Counters, Valid), (Limits, Invalid)],
        ),
        // Nobody claimed to have served it: it was computed again, rightly.
        (
            Answer::NotLoaded,
            Invalid,
            &[(Counters, Invalid), (Bytes, Invalid), (Text, Valid)],
        ),
        (Answer::NotLoaded, Invalid, &[(Bytes, Invalid)]),
        // Another client, or a state that was not reached: nothing follows for the tier.
        (
            Answer::CannotTell,
            Invalid,
            &[(Clients, Invalid), (Counters, Valid)],
        ),
        (
            Answer::CannotTell,
            Invalid,
            &[(State, Invalid), (Text, Valid)],
        ),
        (
            Answer::CannotTell,
            Inconclusive,
            &[(Counters, Valid), (Bytes, Valid), (Text, Inconclusive)],
        ),
    ];
    for (answer, status, witnesses) in cases {
        assert_eq!(
            Answer::of(&verdict(status, witnesses)),
            answer,
            "{status:?} {witnesses:?}"
        );
    }
}

/// Two tiers at two lengths; the second round of disk at the longer one changed the text.
pub(super) fn bench() -> Bench {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 544, 1, 1)
        .pass(CacheState::Tier, &[]);
    for (tier, length, round) in [
        ("cpu", 544, 1),
        ("cpu", 2176, 1),
        ("disk", 544, 1),
        ("disk", 2176, 1),
        ("disk", 2176, 2),
    ] {
        let cell = bench
            .cell(tier, length, 1, round)
            .pass(CacheState::Cold, &[])
            .pass(CacheState::Tier, &[]);
        if (tier, round) == ("disk", 2) {
            cell.judged(verdict(
                Invalid,
                &[(Witness::Counters, Valid), (Witness::Text, Invalid)],
            ));
        }
    }
    bench
}

#[test]
fn the_worst_round_speaks_and_the_baseline_has_nothing_to_say() {
    let check = StackCheck::of(&bench().run()).unwrap();
    let found: Vec<_> = check
        .findings
        .iter()
        .map(|one| {
            (
                one.spot.tier.as_str(),
                one.spot.prompt_len,
                one.answer,
                one.rounds,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("cpu", 544, Answer::Right, 1),
            ("cpu", 2176, Answer::Right, 1),
            ("disk", 544, Answer::Right, 1),
            ("disk", 2176, Answer::Wrong, 2),
        ]
    );
    assert!(!check.is_right());
    assert_eq!(
        check.terminal(80),
        "sim-8b; vLLM of unknown version; SIMULATED\n\n\
         \x20tier  state     at a time  544 tok  2,176 tok\n\
         ───────────────────────────────────────────────\n\
         \x20cpu   tier hit          1  right    right\n\
         \x20disk  tier hit          1  right    WRONG\n\n\
         WRONG: disk, tier hit, 1 at a time, 2,176 tokens\n\
         - because\n\
         Of 4 places: WRONG 1, right 3.\n"
    );
    let page = check.html().unwrap();
    for text in [
        "<span class=\"verdict invalid\">WRONG</span>",
        "disk-p2176-c1-r2",
        "badge simulated",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(
        check
            .markdown()
            .contains("| disk | tier hit | 1 | right | WRONG |")
    );
}

#[test]
fn a_cell_that_failed_is_a_place_of_which_nothing_is_known() {
    let mut bench = Bench::new();
    bench.cell("cpu", 544, 1, 1).failed(Phase::Ready, "no GPU");
    let check = StackCheck::of(&bench.run()).unwrap();
    assert_eq!(check.findings[0].answer, Answer::CannotTell);
    assert!(
        check
            .terminal(80)
            .contains("the cell failed in ready: no GPU")
    );
    assert!(!check.is_right());
}

#[test]
fn nothing_checked_is_not_right() {
    let mut bench = Bench::new();
    bench
        .cell("baseline", 544, 1, 1)
        .pass(CacheState::Cold, &[]);
    let check = StackCheck::of(&bench.run()).unwrap();
    assert!(!check.is_right());
    assert!(check.terminal(80).contains("Nothing was checked"));
    assert!(StackCheck::of(&Bench::new().run()).is_none());
}
