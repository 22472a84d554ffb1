use super::*;

#[test]
fn agrees_with_the_published_critical_values() {
    // Mann & Whitney's own table, as in Siegel, "Nonparametric Statistics", 1956, table K: the
    // largest U that is significant at 0.05, two-sided, for samples of n and m.
    for (n, m, critical) in [
        (4, 4, 0),
        (5, 5, 2),
        (6, 6, 5),
        (8, 8, 13),
        (10, 10, 23),
        (12, 9, 26),
        (15, 15, 64),
        (20, 20, 127),
        (3, 5, 0),
        (20, 5, 20),
    ] {
        let p = |u: usize| with_u(n, m, u).p;
        assert!(p(critical) <= 0.05, "{n} {m}: {}", p(critical));
        assert!(p(critical + 1) > 0.05, "{n} {m}: {}", p(critical + 1));
    }
}

/// Two samples without ties whose U, of the first, is `u`.
fn with_u(n: usize, m: usize, u: usize) -> RankTest {
    // Each value of the first sample may stand above up to m of the second.
    let (mut left, mut first) = (u, Vec::new());
    for at in (0..n).rev() {
        let above = left.min(m);
        left -= above;
        first.push(above as f64 + 0.5 + at as f64 * 1e-6);
    }
    let second: Vec<f64> = (1..=m).map(|at| at as f64).collect();
    let test = mann_whitney(&first, &second).unwrap();
    assert!((test.u - u as f64).abs() < 1e-12, "{test:?}");
    assert_eq!(test.method, RankMethod::Exact);
    test
}

#[test]
fn agrees_with_benchstat() {
    // The example of golang.org/x/perf/cmd/benchstat, with what it prints for it:
    // GobEncode 13.6ms 11.8ms -13.31% (p=0.016 n=4+5), JSONEncode 32.1ms 31.8ms ~ (p=0.286 n=4+5).
    let gob = mann_whitney(
        &[13_552_735.0, 13_553_943.0, 13_606_356.0, 13_683_198.0],
        &[
            11_773_189.0,
            11_942_588.0,
            11_786_159.0,
            11_628_583.0,
            11_815_924.0,
        ],
    );
    let json = mann_whitney(
        &[32_395_067.0, 32_334_214.0, 31_992_891.0, 31_735_022.0],
        &[
            32_036_529.0,
            32_156_552.0,
            31_288_355.0,
            31_559_706.0,
            31_765_634.0,
        ],
    );
    let shown = [gob, json].map(|test| format!("{:.3}", test.unwrap().p));
    assert_eq!(shown, ["0.016", "0.286"]);
}

#[test]
fn agrees_with_a_count_by_hand() {
    // Ranks of {1,2,2,3} and {2,3,3,4}: 1, 3, 3, 6 and 3, 6, 6, 8; U = 13 - 10 = 3.
    let test = mann_whitney(&[1.0, 2.0, 2.0, 3.0], &[2.0, 3.0, 3.0, 4.0]).unwrap();
    assert!((test.u - 3.0).abs() < 1e-12);
    // Of the 70 choices of 4 of the ranks {1,3,3,3,6,6,6,8}, 10 sum to 13 or less: 1+3+3+3 in one
    // way and 1+3+3+6 in nine.
    assert!((test.p - 20.0 / 70.0).abs() < 1e-12, "{test:?}");
    assert_eq!(test.method, RankMethod::ExactTied);
}

#[test]
fn the_ways_to_a_probability_agree() {
    let at = |n: usize, shift: f64| -> Vec<f64> {
        (0..n)
            .map(|i| ((i * 7919 % 101) as f64 / 5.0).floor() + shift)
            .collect()
    };
    let ranks = Ranks::of(&at(40, 0.0), &at(45, 2.0));
    let (exact, permuted, normal) = (ranks.exact(), ranks.permuted(), ranks.approximate());
    assert!((exact - permuted).abs() < 0.015, "{exact} {permuted}");
    assert!((exact - normal).abs() < 0.01, "{exact} {normal}");
    let large = |shift| mann_whitney(&at(200, 0.0), &at(200, shift)).unwrap();
    assert_eq!(large(0.0).method, RankMethod::Permuted);
    assert!(large(0.0).p > 0.9 && large(5.0).p < 0.001);
    let huge = mann_whitney(&at(2000, 0.0), &at(2000, 1.0)).unwrap();
    assert!(
        huge.method == RankMethod::Normal && huge.p < 1e-6,
        "{huge:?}"
    );
}

#[test]
fn the_order_of_the_samples_does_not_matter() {
    let (a, b) = (
        [3.0, 1.0, 4.0, 1.0, 5.0],
        [9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0],
    );
    let (ab, ba) = (mann_whitney(&a, &b).unwrap(), mann_whitney(&b, &a).unwrap());
    assert!((ab.p - ba.p).abs() < 1e-12, "{ab:?} {ba:?}");
    assert!((ab.u + ba.u - 35.0).abs() < 1e-12);
}

#[test]
fn equal_samples_do_not_differ_and_small_ones_are_not_tested() {
    let equal = rank_test(&[2.0; 4], &[2.0; 4]).unwrap();
    assert_eq!((equal.u, equal.p), (8.0, 1.0));
    assert_eq!(rank_test(&[1.0; 3], &[2.0; 9]), None);
    assert_eq!(mann_whitney(&[], &[2.0]), None);
    let three = mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).unwrap();
    assert!((three.p - 0.1).abs() < 1e-15);
}
