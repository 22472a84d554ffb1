//! Against SciPy and NumPy: `tests/stats/make_fixture.py` wrote what they say.

use serde_json::Value;

use super::rank::RankMethod;
use super::*;

fn fixture(part: &str) -> Value {
    let text = include_str!("../../tests/stats/scipy.json");
    serde_json::from_str::<Value>(text).unwrap()[part].take()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|number| number.as_f64().unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64, what: &str) {
    assert!(
        (got - expected).abs() <= tolerance * expected.abs().max(1e-3),
        "{what}: {got} is not {expected}"
    );
}

#[test]
fn quantiles() {
    for case in fixture("quantiles").as_array().unwrap() {
        let (sample, q) = (numbers(&case["sample"]), number(&case["q"]));
        let what = format!("{q} of {}", sample.len());
        close(
            quantile(&sample, q).unwrap(),
            number(&case["linear"]),
            1e-9,
            &what,
        );
    }
}

#[test]
fn rank_tests_and_effects() {
    for case in fixture("tests").as_array().unwrap() {
        let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
        let what = format!("{} against {}", a.len(), b.len());
        let test = mann_whitney(&a, &b).unwrap();
        close(test.u, number(&case["u"]), 1e-12, &what);
        close(test.p, number(&case["p"]), 1e-9, &what);
        assert_eq!(
            test.method == RankMethod::ExactTied,
            case["tied"] == true,
            "{what}"
        );
        close(
            rank::normal_p(&a, &b),
            number(&case["p_normal"]),
            1e-9,
            &what,
        );
        close(
            cliffs_delta(&a, &b).unwrap(),
            number(&case["delta"]),
            1e-9,
            &what,
        );
    }
}

#[test]
fn adjusted_probabilities() {
    let case = fixture("adjusted");
    let got = benjamini_hochberg(&numbers(&case["p"]));
    for (got, expected) in got.into_iter().zip(numbers(&case["benjamini_hochberg"])) {
        close(got, expected, 1e-12, "Benjamini-Hochberg");
    }
}

#[test]
fn intervals_of_quantiles() {
    for case in fixture("intervals").as_array().unwrap() {
        let (sample, q) = (numbers(&case["sample"]), number(&case["q"]));
        let got = interval::quantile_interval(&sample, q, 0.95).unwrap();
        let what = format!("{q} of {}", sample.len());
        close(got.low, number(&case["low"]), 0.0, &what);
        close(got.high, number(&case["high"]), 0.0, &what);
        close(got.confidence, number(&case["confidence"]), 1e-9, &what);
    }
}

#[test]
fn bootstrap_intervals_within_what_drawing_leaves_open() {
    let case = fixture("bootstrap");
    let sample = numbers(&case["sample"]);
    let bootstrap = Bootstrap {
        resamples: 10_000,
        ..Bootstrap::default()
    };
    for (name, statistic) in [
        ("mean", Statistic::Mean),
        ("median", Statistic::Quantile(0.5)),
    ] {
        let got = bootstrap.percentile(&sample, statistic).unwrap();
        let expected = numbers(&case[name]);
        let room = 0.05 * (expected[1] - expected[0]);
        let near = (got.low - expected[0]).abs() < room && (got.high - expected[1]).abs() < room;
        assert!(near, "{name}: {got:?} is not {expected:?}");
    }
}

#[test]
fn students_distribution() {
    for case in fixture("student").as_array().unwrap() {
        let (t, freedom) = (number(&case["t"]), number(&case["freedom"]));
        let p = number(&case["p"]);
        assert!(
            (t_two_sided(t, freedom) / p - 1.0).abs() < 1e-9,
            "{t} {freedom}"
        );
    }
}
