"""Statistics against simulation: tolerances are four binomial standard errors, a false alarm in 16,000 each."""

import numpy as np
import pytest
from scipy import stats as distributions

from results import stats

RUNS = 1500


def tolerance(rate, runs=RUNS):
    return 4 * np.sqrt(rate * (1 - rate) / runs)


def draws(generator, n, scales, mean=0.0):
    return generator.standard_normal((n, len(scales))) * scales + mean


def test_t_interval_is_scipys():
    x = np.random.default_rng(0).standard_normal(7)
    low, high = distributions.ttest_1samp(x, 0).confidence_interval(0.95)
    np.testing.assert_allclose(stats.t_interval(x), [x.mean(), low, high, 7])


def test_one_value_has_no_bounds():
    estimate, low, high, n = stats.t_interval([3.0])
    assert (estimate, n) == (3.0, 1)
    assert np.isnan([low, high, stats.paired([1.0], [2.0]).p]).all()


def test_paired_removes_what_seeds_share():
    generator = np.random.default_rng(0)
    shared = generator.standard_normal(6) * 100
    found = stats.paired(shared + 1 + 0.1 * generator.standard_normal(6), shared)
    assert 0.8 < found.low < found.high < 1.2
    assert found.p < 1e-4
    assert stats.paired([1.0, 2.0], [1.0, 2.0]).p == 1


def test_ratio_is_geometric_and_inverts():
    a, b = np.array([1.0, 2.0, 8.0]), np.array([2.0, 2.0, 2.0])
    forth, back = stats.ratio_interval(a, b), stats.ratio_interval(b, a)
    assert forth.estimate == pytest.approx(2 ** (1 / 3))
    assert (forth.low, forth.high) == pytest.approx((1 / back.high, 1 / back.low))


def test_exponents_are_recovered_and_their_intervals_cover():
    generator = np.random.default_rng(2)
    x = np.array([16.0, 32.0, 64.0, 128.0])
    exact = stats.exponent(x, 3 * x**1.7)
    assert exact[:3] == pytest.approx((1.7, 1.7, 1.7))
    assert exact.n == 4
    found = [stats.exponent(x, 3 * x**0.6 * np.exp(0.1 * generator.standard_normal(4))) for _ in range(RUNS)]
    covered = np.mean([fit.low <= 0.6 <= fit.high for fit in found])
    assert abs(covered - 0.95) < tolerance(0.95)
    # slope and standard error in closed form, with t of two degrees of freedom
    y, u = np.log([1.0, 2.0, 5.0, 7.0]), np.log(x)
    slope = np.cov(u, y)[0, 1] / np.var(u, ddof=1)
    residual = y - y.mean() - slope * (u - u.mean())
    half = 4.302653 * np.sqrt((residual**2).sum() / 2 / ((u - u.mean()) ** 2).sum())
    assert stats.exponent(x, np.exp(y))[:3] == pytest.approx((slope, slope - half, slope + half))


def test_an_exponent_of_two_values_has_no_bounds_and_of_one_is_none():
    two = stats.exponent([1, 2], [3, 12])
    assert two.estimate == pytest.approx(2)
    assert np.isnan(two[1:3]).all()
    assert np.isnan(stats.exponent([2, 2], [3, 12])[:3]).all()
    assert np.isnan(stats.exponent([2], [3])[:3]).all()


def test_adjusted_p_keeps_what_was_not_tested():
    np.testing.assert_allclose(stats.adjust([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def test_variance_trace_and_its_standard_error():
    generator = np.random.default_rng(1)
    scales = np.array([1.0, 2.0, 0.5])
    found = np.array([stats.variance_trace(draws(generator, 200, scales)) for _ in range(RUNS)])
    error = (found[:, 0] - (scales**2).sum()) / found[:, 1]
    assert abs(np.mean(np.abs(error) < 1.96) - 0.95) < 0.01 + tolerance(0.95)


@pytest.mark.parametrize("reference", ["known", "estimated"])
@pytest.mark.parametrize(("n", "d", "runs"), [(40, 1, 1500), (60, 12, 1500), (40, 300, 500)])
@pytest.mark.parametrize("size", [0.5, 2.0])
def test_interval_of_the_squared_norm_covers(reference, n, d, runs, size):
    """At least 93 % less tolerance, 88 % in one dimension; near zero it may be wide, so there is no upper limit."""
    least = 0.88 if d == 1 else 0.93
    generator = np.random.default_rng(2)
    scales = 1 / np.sqrt(np.arange(1, d + 1))
    bias = np.full(d, size / np.sqrt(d))
    inside = 0
    for _ in range(runs):
        g = generator.standard_normal(d)
        x = draws(generator, n, scales, g + bias)
        if reference == "known":
            found = stats.squared_norm(x, g)
        else:
            found = stats.squared_norm(x, reference_estimates=draws(generator, 2 * n, 0.5 * scales, g))
        inside += abs(found.value - bias @ bias) < 1.96 * found.se
    assert inside / runs > least - tolerance(least, runs)


SPECTRA = {
    "one dimension": (20, np.ones(1)),
    "few": (50, np.array([3.0, 1.0, 0.3])),
    "sphere": (15, np.ones(10)),
    "one large among many": (60, np.r_[4.0, np.ones(30)]),
    "more dimensions than draws": (25, 1 / np.sqrt(np.arange(1, 201))),
    "flat, far more dimensions than draws": (12, np.ones(400)),
}


@pytest.mark.parametrize("reference", ["known", "estimated"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_p_values_are_uniform_without_bias(spectrum, reference):
    """At 5 % and 50 % within tolerance plus the approximation's own error, at most 1.5 points by simulation."""
    n, scales = SPECTRA[spectrum]
    generator = np.random.default_rng(3)
    values, p = [], []
    for _ in range(RUNS):
        x = draws(generator, n, scales, 1.0)
        if reference == "known":
            found = stats.squared_norm(x, np.ones(len(scales)))
        else:
            found = stats.squared_norm(x, reference_estimates=draws(generator, 2 * n, scales[::-1], 1.0))
        values.append(found.value)
        p.append(found.p)
    for rate in (0.05, 0.5):
        assert abs(np.mean(np.array(p) < rate) - rate) < 0.015 + tolerance(rate)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(RUNS)  # U itself is unbiased


@pytest.mark.parametrize("d", [5, 500])
def test_bias_is_found(d):
    generator = np.random.default_rng(4)
    x = draws(generator, 100, np.ones(d), 3 / np.sqrt(d))
    found = stats.squared_norm(x)
    assert found.p < 1e-6
    assert abs(found.value - 9) < 4 * found.se
    assert found.trace == pytest.approx(stats.variance_trace(x)[0])


def test_both_ways_to_the_traces_agree():
    """Seen from rows or from columns: the same sums, up to the correction that only many dimensions need."""
    rows = np.random.default_rng(5).standard_normal((50, 7))
    rows -= rows.mean(0)
    squares = (rows**2).sum(1)
    gram = rows @ rows.T
    gram -= squares.sum() / (50 * 49) * (1 - np.eye(50))  # which the correction will put back
    found = stats._traces_by_rows(gram, squares, [50])
    np.testing.assert_allclose(found, stats._traces_by_columns(rows.T @ rows, rows, squares))


def test_columns_are_taken_in_parts(monkeypatch):
    generator = np.random.default_rng(6)
    x, r = draws(generator, 10, np.ones(50)), draws(generator, 12, np.ones(50))
    whole = stats.squared_norm(x, reference_estimates=r), stats.variance_trace(x)
    monkeypatch.setattr(stats, "_COLUMNS", 7)
    np.testing.assert_allclose(stats.squared_norm(x, reference_estimates=r), whole[0])
    np.testing.assert_allclose(stats.variance_trace(x), whole[1])


def test_no_variance_and_no_difference_is_no_bias():
    g = np.random.default_rng(7).standard_normal(9)
    same = np.tile(g, (5, 1))
    assert stats.squared_norm(same, g) == (0, 0, 1, 5, 0)
    assert stats.squared_norm(same.astype(np.float32), g)[:3] == (0, 0, 1)
    assert stats.squared_norm(same, g + 1)[1:3] == (0, 0)
    assert stats.squared_norm(same, g + 1).value == pytest.approx(9)
    assert stats.squared_norm(np.zeros((5, 2)))[:3] == (0, 0, 1)
