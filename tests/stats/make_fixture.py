"""Writes scipy.json: results of SciPy and NumPy for random samples, to check labrun's statistics.

    python3 -m venv venv && venv/bin/pip install scipy && venv/bin/python tests/stats/make_fixture.py
"""

import json
import pathlib

import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20261124)


def values(n, decimals, shift=0.0):
    return np.round(rng.lognormal(3.0, 0.5, n) + shift, decimals).tolist()


def quantiles():
    cases = []
    for n in (1, 2, 5, 10, 37):
        sample = sorted(values(n, 3))
        for q in (0.0, 0.1, 0.25, 0.5, 0.73, 0.9, 0.99, 1.0):
            cases.append({"sample": sample, "q": q, "linear": float(np.quantile(sample, q, method="linear"))})
    return cases


def tests():
    cases = []
    for n, m, decimals, shift in [(3, 3, 3, 0), (4, 6, 3, 8), (8, 8, 3, 5), (12, 7, 3, 0), (24, 24, 3, 4), (40, 45, 3, 3),
                                  (4, 4, 0, 5), (6, 9, -1, 9), (10, 10, 0, 3), (5, 5, -1, 0)]:
        a, b = values(n, decimals), values(m, decimals, shift)
        b = np.round(b, decimals).tolist()
        tied = len(set(a + b)) < n + m
        if tied:  # every arrangement, given the ties
            p = stats.permutation_test((a, b), lambda x, y: stats.mannwhitneyu(x, y).statistic,
                                       permutation_type="independent", n_resamples=np.inf,
                                       vectorized=False).pvalue
        else:
            p = stats.mannwhitneyu(a, b, method="exact").pvalue
        result = stats.mannwhitneyu(a, b, method="asymptotic")
        delta = float(np.sign(np.subtract.outer(np.array(b), np.array(a))).mean())
        cases.append({"a": a, "b": b, "u": float(result.statistic), "p": float(p), "tied": tied,
                      "p_normal": float(result.pvalue), "delta": delta})
    return cases


def adjusted():
    p = np.round(rng.uniform(0, 0.2, 12) ** 2, 6)
    return {"p": p.tolist(), "benjamini_hochberg": stats.false_discovery_control(p, method="bh").tolist()}


def intervals():
    cases = []
    for n, q in [(20, 0.5), (60, 0.9), (150, 0.95), (400, 0.99)]:
        sample = sorted(values(n, 3))
        tail = 0.025
        lower = int(stats.binom.ppf(tail, n, q))
        while stats.binom.cdf(lower - 1, n, q) > tail:
            lower -= 1
        upper = int(stats.binom.ppf(1 - tail, n, q)) + 1
        cases.append({"sample": sample, "q": q, "low": sample[lower - 1], "high": sample[upper - 1],
                      "confidence": float(stats.binom.cdf(upper - 1, n, q) - stats.binom.cdf(lower - 1, n, q))})
    return cases


def bootstrap():
    sample = values(40, 3)
    cases = {"sample": sample}
    for name, statistic in [("mean", np.mean), ("median", np.median)]:
        low, high = stats.bootstrap((sample,), statistic, n_resamples=50_000, method="percentile",
                                    rng=np.random.default_rng(1)).confidence_interval
        cases[name] = [float(low), float(high)]
    return cases


def student():
    return [{"t": t, "freedom": f, "p": float(2 * stats.t.sf(t, f))}
            for t, f in [(0.3, 1), (1.0, 2), (2.5, 3), (2.0, 7.5), (4.0, 20), (1.5, 144), (9.0, 12)]]


pathlib.Path(__file__).with_name("scipy.json").write_text(json.dumps(
    {"made_with": f"scipy {scipy.__version__}, numpy {np.__version__}", "quantiles": quantiles(), "tests": tests(),
     "adjusted": adjusted(), "intervals": intervals(), "bootstrap": bootstrap(), "student": student()}) + "\n")
