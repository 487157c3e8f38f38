"""Intervals and tests: Student t over seeds, ratios of timings, and the squared norm and trace of gradient estimates.

Few seeds use Student t intervals and not a percentile bootstrap, which covers 85 % at a nominal 95 % with five values.
Everything assumes independent draws, and enough of them for the central limit theorem. `scipy.stats` is loaded when it
is first used, because loading it takes longer than a command line should need to start.
"""

import bisect
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_COLUMNS = 8192  # columns converted to float64 at a time: 33 MB for n = 500 estimates


class Interval(NamedTuple):
    """An estimate with its bounds, and the number of values behind it."""

    estimate: float
    low: float
    high: float
    n: int


class Paired(NamedTuple):
    """A mean difference with its bounds, the p value for no difference, and the number of pairs."""

    estimate: float
    low: float
    high: float
    p: float
    n: int


class SquaredNorm(NamedTuple):
    """An unbiased squared norm, its standard error, the p value for zero, and n and tr Σ of the estimates."""

    value: float
    se: float
    p: float
    n: int
    trace: float


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of ``values`` (n,) with its Student t interval. Bounds are NaN for one value; all is NaN for none."""
    x = np.asarray(values, np.float64)
    if x.size < 2:
        return Interval(float(x[0]) if x.size else np.nan, np.nan, np.nan, x.size)
    half = float(t_half(x.std(ddof=1), x.size, level))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), x.size)


def plus_minus(values: ArrayLike, digits: int) -> str:
    """The mean with half the width of its t interval, as text: "73.4 ± 0.2". One value has no interval."""
    mean, low, high, n = t_interval(values)
    if not n:
        return ""
    return f"{mean:.{digits}f}" if n < 2 else f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def t_half(sd: ArrayLike, n: ArrayLike, level: float = 0.95) -> Array:
    """Half the width of the Student t interval of a mean, from sd and n, (m,) each; NaN where n is 1."""
    count = np.asarray(n, np.float64)
    freedom = np.where(count > 1, count - 1, np.nan)
    half: Array = scipy.stats.t.ppf((1 + level) / 2, freedom) * np.asarray(sd, np.float64) / np.sqrt(count)
    return half


def paired(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Paired:
    """The mean of ``a − b``, where a[i] and b[i] share a seed, with the paired t test."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    estimate, low, high, n = t_interval(difference, level)
    if n < 2:
        p = np.nan
    elif low == high:  # without spread t is 0/0 or infinite
        p = float(estimate == 0)
    else:
        p = float(scipy.stats.ttest_1samp(difference, 0).pvalue)
    return Paired(estimate, low, high, p, n)


def detectable(sd: float, n: int, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest mean of n normal differences with standard deviation ``sd`` that a t test detects at this power."""
    if n < 2 or not np.isfinite(sd):
        return np.nan
    critical = float(scipy.stats.t.ppf((1 + level) / 2, n - 1))

    def found(effect: float) -> float:
        law = n - 1, effect * np.sqrt(n)
        below = np.nan_to_num(scipy.stats.nct.cdf(-critical, *law))  # scipy gives NaN where it vanishes
        return float(scipy.stats.nct.sf(critical, *law) + below)

    most = 0.5  # start small, because the noncentral t loses precision far beyond the root
    while found(most) < power:
        most *= 1.5
    return sd * float(scipy.optimize.brentq(lambda effect: found(effect) - power, 1e-3, most))


def needed(sd: float, difference: float, power: float = 0.8, level: float = 0.95, most: int = 1000) -> int | None:
    """How many differences a t test needs to detect a mean ``difference`` with this power; None: more than ``most``."""
    if not (np.isfinite(sd) and difference > 0):
        return None
    counts = range(2, most + 1)
    at = bisect.bisect_left(counts, True, key=lambda n: detectable(sd, n, power, level) <= difference)
    return counts[at] if at < len(counts) else None


def ratio_interval(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """The geometric mean of ``a / b`` with the t interval of the log ratios; a and b are positive and paired."""
    logs = t_interval(np.log(np.asarray(a, np.float64) / np.asarray(b, np.float64)), level)
    estimate, low, high = np.exp(logs[:3]).tolist()
    return Interval(estimate, low, high, logs.n)


def fieller(numerator: ArrayLike, denominator: ArrayLike, level: float = 0.95) -> Interval:
    """The ratio of two means of paired values (n,), with Fieller's interval.

    The interval contains every ρ for which the mean of ``numerator − ρ denominator`` does not differ significantly from
    zero. Its ends are the roots of a quadratic. If the denominator does not differ significantly from zero, this set is
    not an interval, and both bounds are infinite.
    """
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    n = a.size
    if n < 2:
        return Interval(float(a[0] / b[0]) if n else np.nan, np.nan, np.nan, n)
    t = float(scipy.stats.t.ppf((1 + level) / 2, n - 1))
    (va, cov), (_, vb) = np.cov(a, b) / n * t**2
    ma, mb = float(a.mean()), float(b.mean())
    square, middle, rest = mb**2 - vb, ma * mb - cov, ma**2 - va  # square ρ² − 2 middle ρ + rest ≤ 0
    if square <= 0:
        return Interval(ma / mb, -np.inf, np.inf, n)
    half = float(np.sqrt(max(0.0, middle**2 - square * rest)))
    return Interval(ma / mb, float(middle - half) / square, float(middle + half) / square, n)


def exponent(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval:
    """The exponent b of y ∝ x^b for positive (n,), by least squares on logarithms, with its Student t interval.

    Bounds are NaN for two values; everything is NaN for fewer values or only one x. If y is not a power of x, the
    estimate is an average exponent over the range, and the interval shows the deviation from a power.
    """
    logs = np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64))
    n = logs[0].size
    if np.unique(logs[0]).size < 2:
        return Interval(np.nan, np.nan, np.nan, n)
    fit = scipy.stats.linregress(*logs)
    half = scipy.stats.t.ppf((1 + level) / 2, n - 2) * fit.stderr  # NaN without a degree of freedom
    return Interval(float(fit.slope), float(fit.slope - half), float(fit.slope + half), n)


def adjust(p: ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p values, (m,) to (m,). NaN stays NaN and does not count as a comparison."""
    values = np.array(p, np.float64)
    tested = ~np.isnan(values)
    if tested.any():
        values[tested] = scipy.stats.false_discovery_control(values[tested])
    return values


def variance_trace(estimates: ArrayLike) -> tuple[float, float]:
    """tr Σ of ``estimates`` (n, D), and its standard error: that of the mean squared deviation."""
    x = np.asarray(estimates)
    n = len(x)
    squares = sum((((c := _part(x, s)) - c.mean(0)) ** 2).sum(1) for s in _slices(x.shape[1])) * n / max(n - 1, 1)
    if n < 2:
        return np.nan, np.nan
    return float(squares.mean()), float(squares.std(ddof=1) / np.sqrt(n))


def squared_norm(
    estimates: ArrayLike,
    reference: ArrayLike = 0.0,
    *,
    reference_estimates: ArrayLike | None = None,
    rounding: float = 1e-6,
) -> SquaredNorm:
    """An unbiased estimate of ‖E[estimate] − g‖², or of ‖E[estimate]‖² for the default g = 0.

    Let ḡ be the mean estimate, δ = ḡ − g, and C the covariance of δ. U = ‖δ‖² − tr Ĉ is unbiased. Its interval is
    U ± 1.96 se with se = 2√(δᵀĈδ), which covers 93-97 % in simulation (89 % in one dimension if δ is about three sd).

    If E[δ] = 0, U is a weighted sum of centred χ² variables whose weights are C's eigenvalues. The p value matches
    three moments (0, 2 tr C², 8 tr C³; Hall 1983, Buckley and Eagleson 1988, as Liu, Tang and Zhang 2009) by a shifted
    χ². It uses F instead of χ², because C is estimated; this is exact in one dimension and for C ∝ I. The traces leave
    out all products of an estimate with itself; otherwise tr Ĉ² would be far too large for D > n.

    Args:
        estimates: (n, D) independent draws. Time is O(n D min(n, D)); memory is min(n, D)² besides the input.
        reference: (D,), the exact g.
        reference_estimates: (m, D) independent draws with mean g, instead of ``reference``.
        rounding: if estimates differ from g by less than this fraction of ‖ḡ‖, they count as equal: value 0, p 1.
    """
    x = np.asarray(estimates)
    samples = [x] if reference_estimates is None else [x, np.asarray(reference_estimates)]
    sizes = [len(sample) for sample in samples]
    n, dimension = x.shape
    if min(sizes) < 2:
        return SquaredNorm(np.nan, np.nan, np.nan, n, np.nan)
    known = np.broadcast_to(np.asarray(reference, np.float64), dimension)
    total = sum(sizes)
    by_rows = total <= dimension
    gram: Any = 0.0
    projections, squares, norms = np.zeros(total), np.zeros(total), np.zeros(2)
    for columns in _slices(dimension) if by_rows else [slice(None)]:
        parts = [_part(sample, columns) for sample in samples]
        means = [part.mean(0) for part in parts]
        delta = means[0] - (known[columns] if len(means) == 1 else means[1])
        # Deviations divided by √(n(n−1)): C is the sum of the outer products of these rows.
        rows = np.vstack([(p - m) / np.sqrt(s * (s - 1)) for p, m, s in zip(parts, means, sizes, strict=True)])
        gram = gram + (rows @ rows.T if by_rows else rows.T @ rows)
        projections += rows @ delta
        squares += (rows**2).sum(1)
        norms += delta @ delta, means[0] @ means[0]
    trace = float(squares[:n].sum() * n)
    if norms[0] + squares.sum() <= rounding**2 * norms[1]:
        return SquaredNorm(0.0, 0.0, 1.0, n, trace)
    value = float(norms[0] - squares.sum())
    second, third = _traces_by_rows(gram, squares, sizes) if by_rows else _traces_by_columns(gram, rows, squares)
    p = _p_value(value, second, third, min(sizes) - 1)
    return SquaredNorm(value, float(2 * np.linalg.norm(projections)), p, n, trace)


def _traces_by_rows(gram: Array, squares: Array, sizes: list[int]) -> tuple[float, float]:
    start = 0
    for size in sizes:
        # Deviations from their own mean are correlated; without this correction tr C² is too large for D about n².
        block = slice(start, start + size)
        gram[block, block] += squares[block].sum() / (size * (size - 1))
        start += size
    np.fill_diagonal(gram, 0)
    return float((gram**2).sum()), float(((gram @ gram) * gram).sum())


def _traces_by_columns(covariance: Array, rows: Array, squares: Array) -> tuple[float, float]:
    """The same two sums over distinct rows, with the diagonal of ``rows @ rows.T`` subtracted afterwards."""
    square = covariance @ covariance
    second = np.trace(square) - (squares**2).sum()
    along = ((rows @ covariance) * rows).sum(1)
    third = (square * covariance).sum() - 3 * squares @ along + 2 * (squares**3).sum()
    return float(second), float(third)


def _p_value(value: float, second: float, third: float, freedom: int) -> float:
    if second <= 0:
        return float(value <= 0)
    score = value / np.sqrt(2 * second)
    if third <= 0:  # many small eigenvalues: the skewness is below the noise, and the limit is normal
        return float(scipy.stats.norm.sf(score))
    shape = second * (second / third) ** 2  # in this order, because the square of a small third would underflow to 0
    return float(scipy.stats.f.sf(1 + score * np.sqrt(2 / shape), shape, shape * freedom))


def _slices(dimension: int) -> list[slice]:
    return [slice(start, start + _COLUMNS) for start in range(0, dimension, _COLUMNS)]


def _part(x: NDArray[Any], columns: slice) -> Array:
    return x[:, columns].astype(np.float64)
