//! Student's t distribution.

/// `P(|T| >= t)` for T with `freedom` degrees of freedom: the regularized incomplete beta function
/// at `freedom / (freedom + t^2)` (Abramowitz & Stegun, "Handbook of Mathematical Functions",
/// 1964, 26.7.1 and 26.5.27).
pub(crate) fn t_two_sided(t: f64, freedom: f64) -> f64 {
    let x = freedom / (freedom + t * t);
    incomplete_beta(x, freedom / 2.0, 0.5)
}

/// The `t` that `|T|` reaches or passes with probability `p`, by bisection.
pub(crate) fn t_quantile(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if t_two_sided(middle, freedom) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// `I_x(a, b)`, by the continued fraction of Abramowitz & Stegun 26.5.8, evaluated by Lentz's
/// method.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    if x < (a + 1.0) / (a + b + 2.0) {
        front.exp() * fraction(x, a, b) / a
    } else {
        1.0 - front.exp() * fraction(1.0 - x, b, a) / b
    }
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let away_from_zero = |value: f64| {
        if value.abs() < 1e-300 { 1e-300 } else { value }
    };
    let mut below = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let (mut above, mut result) = (1.0, below);
    for m in (1..500).map(f64::from) {
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for numerator in [even, odd] {
            below = 1.0 / away_from_zero(1.0 + numerator * below);
            above = away_from_zero(1.0 + numerator / above);
            step = above * below;
            result *= step;
        }
        if (step - 1.0_f64).abs() < 1e-15 {
            break;
        }
    }
    result
}

/// The logarithm of the gamma function for `x > 0`: Stirling's series (Abramowitz & Stegun 6.1.41)
/// from 12 on, and `gamma(x) = gamma(x + 1) / x` below.
fn ln_gamma(x: f64) -> f64 {
    if x < 12.0 {
        return ln_gamma(x + 1.0) - x.ln();
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_published_tables() {
        // Student's table: the two-sided 0.05 points, and 0.01 of 10.
        for (freedom, t) in [
            (1.0, 12.706_204_736_432_095),
            (2.0, 4.302_652_729_911_275),
            (5.0, 2.570_581_835_636_314),
            (30.0, 2.042_272_456_301_238),
            (200.0, 1.971_896_224_335_1),
        ] {
            let p = t_two_sided(t, freedom);
            assert!((p - 0.05).abs() < 1e-9, "{freedom}: {p}");
            assert!((t_quantile(0.05, freedom) - t).abs() < 1e-6, "{freedom}");
        }
        assert!((t_two_sided(3.169_272_667, 10.0) - 0.01).abs() < 1e-9);
        assert!((t_two_sided(0.0, 4.0) - 1.0).abs() < 1e-12);
    }
}
