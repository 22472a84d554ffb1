//! How often a diff names a change where nothing changed, and how often it finds one of 5 %.

use rand::Rng;
use rand_distr::{Distribution as _, LogNormal, Normal};

use super::*;
use crate::aggregate::Place;
use crate::diff::CellKey;
use crate::diff::noise::Floor;
use crate::plan::state::CacheState;
use crate::units::{Concurrency, GenLen, PromptLen, Seed};

/// Requests of a repeat.
const REQUESTS: usize = 12;

/// How far the requests of a repeat scatter, as a share.
const WITHIN: f64 = 0.05;

/// A model of noise: a repeat's median moves by 1.5 % by default (a server started
/// anew, another clock), and a request within by 5 %, skewed.
#[derive(Clone, Copy)]
struct Setting {
    cells: usize,
    repeats: usize,
    /// Of each repeat, the cells' in turn: some cells scatter more than others.
    between: [f64; 2],
    /// The true change of the first cell, as a share.
    shift: f64,
}

const QUIET: Setting = Setting {
    cells: 6,
    repeats: 4,
    between: [0.015, 0.015],
    shift: 0.0,
};

struct CellData {
    key: CellKey,
    pair: Pair,
    requests: [Vec<f64>; 2],
}

fn cell(at: usize, setting: Setting, rng: &mut impl Rng) -> CellData {
    let between = Normal::new(0.0, setting.between[at % 2]).unwrap();
    let mut side = |shift: f64| {
        let (mut medians, mut requests) = (Vec::new(), Vec::new());
        for _ in 0..setting.repeats {
            let middle = (100.0 * (1.0 + shift)).ln() + between.sample(rng);
            if setting.repeats > 1 {
                // The median of so many requests scatters by this much; they are not looked at.
                let of_median = WITHIN * 1.2533 / (REQUESTS as f64).sqrt();
                medians.push(LogNormal::new(middle, of_median).unwrap().sample(rng));
                continue;
            }
            let within = LogNormal::new(middle, WITHIN).unwrap();
            requests.extend((0..REQUESTS).map(|_| within.sample(rng)));
            requests.sort_by(f64::total_cmp);
            medians.extend(crate::stats::quantile(&requests, 0.5));
        }
        (medians, requests)
    };
    let (a, of_a) = side(0.0);
    let (b, of_b) = side(if at == 0 { setting.shift } else { 0.0 });
    CellData {
        key: CellKey {
            place: Place {
                label: "l".to_owned(),
                gen_len: GenLen::new(4).unwrap(),
                extra: std::collections::BTreeMap::new(),
                state: CacheState::Cold,
                concurrency: Concurrency::new(1).unwrap(),
                prompt_len: PromptLen::new(1 + at as u32).unwrap(),
            },
            tier: "cpu".to_owned(),
        },
        pair: Pair { a, b },
        requests: [of_a, of_b],
    }
}

/// The cells of one diff, judged as [`crate::diff::compare`] does.
fn one(setting: Setting, rng: &mut impl Rng) -> Vec<Judged> {
    let cells: Vec<_> = (0..setting.cells)
        .map(|at| cell(at, setting, rng))
        .collect();
    let floor = Floor::of(cells.iter().map(|cell| (&cell.key, &cell.pair)));
    let mut judged: Vec<Judged> = cells
        .iter()
        .filter_map(|cell| {
            let requests = Requests {
                a: &cell.requests[0],
                b: &cell.requests[1],
                n: (REQUESTS, REQUESTS),
            };
            let noise = floor.yardstick(&cell.key, &cell.pair);
            judge(&cell.pair, Some(Percentile::P50), requests, noise)
        })
        .collect();
    correct(judged.iter_mut().map(|judged| (Better::Lower, judged)));
    judged
}

/// Of `diffs` diffs, in percent: those that name any change beside the first cell's, and those
/// that name the first cell's.
fn rates(diffs: u32, setting: Setting, seed: u64) -> (f64, f64) {
    let mut rng = Seed(seed).rng();
    let changed = |judged: &Judged| matches!(judged.outcome, Outcome::Better | Outcome::Worse);
    let (mut wrong, mut detected) = (0, 0);
    for _ in 0..diffs {
        let judged = one(setting, &mut rng);
        wrong += u32::from(
            judged[1..].iter().any(changed) || (setting.shift == 0.0 && changed(&judged[0])),
        );
        detected += u32::from(changed(&judged[0]));
    }
    let percent = |count: u32| f64::from(count) * 100.0 / f64::from(diffs);
    (percent(wrong), percent(detected))
}

#[test]
fn where_nothing_changed_at_most_the_level_of_diffs_names_a_change() {
    let claimed = LEVEL * 100.0;
    let noisy = [0.01, 0.03];
    for (what, setting) in [
        ("4 repeats", QUIET),
        (
            "6 repeats, cells of unequal noise",
            Setting {
                repeats: 6,
                between: noisy,
                ..QUIET
            },
        ),
        (
            "3 repeats",
            Setting {
                repeats: 3,
                ..QUIET
            },
        ),
        (
            "3 repeats, cells of unequal noise",
            Setting {
                repeats: 3,
                between: noisy,
                ..QUIET
            },
        ),
        (
            "2 repeats, 24 cells",
            Setting {
                repeats: 2,
                cells: 24,
                ..QUIET
            },
        ),
        (
            "5 repeats of one cell",
            Setting {
                repeats: 5,
                cells: 1,
                ..QUIET
            },
        ),
        (
            "1 repeat, and nothing differs between runs",
            Setting {
                repeats: 1,
                between: [0.0; 2],
                ..QUIET
            },
        ),
    ] {
        let (wrong, _) = rates(1000, setting, 11);
        println!("{what}: {wrong} % of 1000 A/A diffs name a change");
        assert!(wrong <= claimed, "{what}: {wrong} %");
    }
}

#[test]
fn one_repeat_cannot_distinguish_a_change_from_another_run() {
    // The caveat that a diff prints where a side has one repeat, in numbers: with 3 % between
    // runs, requests alone name changes that are none.
    let (wrong, _) = rates(
        300,
        Setting {
            repeats: 1,
            between: [0.03; 2],
            ..QUIET
        },
        12,
    );
    println!("1 repeat, 3 % between runs: {wrong} % name a change");
    assert!(wrong > 5.0, "{wrong}");
}

#[test]
fn a_change_of_five_percent_is_found() {
    for (what, repeats, least) in [
        ("3 repeats", 3, 25.0),
        ("5 repeats", 5, 55.0),
        ("10 repeats", 10, 85.0),
    ] {
        let (wrong, detected) = rates(
            200,
            Setting {
                repeats,
                shift: 0.05,
                ..QUIET
            },
            13,
        );
        println!(
            "{what}: a change of 5 % in one of 6 cells is named in {detected} %, others in {wrong} %"
        );
        assert!(detected >= least, "{what}: {detected} %");
        assert!(wrong <= 8.0, "{what}: {wrong} %");
    }
}

fn judged(a: &[f64], b: &[f64]) -> Judged {
    let pair = Pair {
        a: a.to_vec(),
        b: b.to_vec(),
    };
    let requests = Requests {
        a: &pair.a,
        b: &pair.b,
        n: (a.len(), b.len()),
    };
    judge(&pair, None, requests, None).unwrap()
}

#[test]
fn better_follows_the_measures_direction() {
    let mut cells = [
        judged(&[10.0, 11.0, 12.0, 13.0], &[20.0, 21.0, 22.0, 23.0]),
        judged(&[10.0, 11.0, 12.0, 13.0], &[20.0, 21.0, 22.0, 23.0]),
        judged(&[10.0, 11.0, 12.0, 13.0], &[10.1, 11.1, 11.9, 12.9]),
        judged(&[10.0], &[20.0]),
    ];
    let better = [
        Better::Lower,
        Better::Higher,
        Better::Higher,
        Better::Higher,
    ];
    correct(better.into_iter().zip(cells.iter_mut()));
    assert_eq!(
        cells.each_ref().map(|cell| cell.outcome),
        [
            Outcome::Worse,
            Outcome::Better,
            Outcome::Same,
            Outcome::Untested
        ]
    );
    assert_eq!(cells[0].basis, Basis::Repeats);
    assert_eq!((cells[0].delta, cells[3].p), (Some(1.0), None));
    assert!((cells[0].p.unwrap() - 2.0 / 70.0).abs() < 1e-12);
    assert!((cells[0].adjusted_p.unwrap() - 3.0 / 70.0).abs() < 1e-12);
    assert!((cells[3].ratio.unwrap() - 2.0).abs() < 1e-12);
}
