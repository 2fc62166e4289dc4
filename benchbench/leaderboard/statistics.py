"""What a board may say of its methods: intervals, comparisons, ties and ranks.

Shifts are those of the board; seeds and test rows are a sample of those there could be. The
variance of a mean over shifts is the sum of two parts:

* *seeds*: the variance over seeds. The seeds of two shifts are two trainings, unless the shifts are
  read off one encoder, or share a stage: then they are one, and vary together;
* *rows*: the variance over the test rows of a domain, of the mean over seeds and over the shifts
  that are tested on them.

The chance of one training on one row is in both of them, which makes the variance too large rather
than too small. Degrees of freedom grow with rows, so that p may be below that of seeds alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri, stdtr, stdtrit

LEVEL = 0.05  # of tests, once corrected for their number


@dataclass(frozen=True)
class Stratum:
    """One domain's test rows on one shift."""

    weight: float  # of its mean in the board's mean: 1 / (shifts × target domains of the shift)
    right: np.ndarray  # float64 or bool [K, N]: whether each row is right, by seed
    domain: str  # strata of one domain are about the same rows, in the same order


@dataclass(frozen=True)
class Results:
    """What a method that is complete reached."""

    values: np.ndarray  # float64 [S, K]: the metric by shift and seed, as a share
    strata: tuple[Stratum, ...]  # none where the metric is no mean over rows, or they are not known
    shared: np.ndarray | None = None  # bool [S, S]: two shifts with a trained stage in common

    @property
    def joined(self) -> np.ndarray:
        """bool [S, S]: whether seeds vary together; at least a shift with itself."""
        alone = np.eye(len(self.values), dtype=bool)
        return alone if self.shared is None else self.shared | alone


@dataclass(frozen=True)
class Comparison:
    """One method less another. None where nothing is known of seeds, for there is one."""

    difference: float  # of the means over shifts
    low: float | None  # of its 95 % interval
    high: float | None
    p: float | None  # two-sided, of no difference
    df: float | None


@dataclass(frozen=True)
class Pairs:
    """Every method, by row, less every other, by column: float64 [M, M], NaN where not known."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    df: np.ndarray
    adjusted: np.ndarray  # p by Holm, over the M (M − 1) / 2 comparisons

    def of(self, one: int, other: int) -> Comparison:
        figures = (self.low, self.high, self.p, self.df)
        said = [None if np.isnan(x[one, other]) else float(x[one, other]) for x in figures]
        return Comparison(float(self.difference[one, other]), *said)


def interval(
    results: Results, level: float = 0.95, draws: int = 2000
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean over shifts; None with one seed and no strata.

    Seeds are drawn for all shifts that share a training together, and rows within each domain, for
    all of its seeds and shifts. The percentiles of K drawn seeds are too narrow (Hesterberg, "What
    Teachers Should Know About the Bootstrap", The American Statistician 2015): their deviations
    from the mean are stretched by √(K / (K − 1)), and by the quantile of Student's t over that of
    the normal. It is not cut at the ends of a metric's range: of two seeds that differ much it may
    reach below 0 or above 1, and says so how little they tell.
    """
    if results.values.shape[1] == 1 and not results.strata:
        return None
    mean = float(results.values.mean())
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    _, df = _variance([results, _nought(results)])
    stretch = stdtrit(df[0, 1], tails[1]) / ndtri(tails[1])
    random = np.random.RandomState(0)  # its streams are frozen (NEP 19)
    deviations = _seeds_drawn(results, draws, random)
    for unit, right in _by_domain(results).values():
        deviations += unit * _rows_drawn(right, draws, random)
    low, high = mean + stretch * np.quantile(deviations, tails)
    return float(low), float(high)


def _nought(like: Results) -> Results:
    strata = (Stratum(s.weight, np.zeros_like(s.right), s.domain) for s in like.strata)
    return Results(np.zeros_like(like.values), tuple(strata))


def _seeds_drawn(results: Results, draws: int, random: np.random.RandomState) -> np.ndarray:
    """Deviations of the mean [draws], whose variance is unbiased; zero with one seed."""
    values = results.values
    shifts, seeds = values.shape
    _, together = connected_components(results.joined)
    chosen = random.randint(0, seeds, (draws, shifts, seeds), dtype=np.int64)[:, together]
    deviations = values - values.mean(1, keepdims=True)
    drawn = deviations[np.arange(shifts)[:, None], chosen].mean((1, 2))
    return np.sqrt(seeds / max(seeds - 1, 1)) * drawn


def _rows_drawn(right: np.ndarray, draws: int, random: np.random.RandomState) -> np.ndarray:
    """Deviations [draws] of the mean of right [K, N], whose variance is unbiased.

    Rows that are as often right are alike, so that it is drawn how many there are of each kind.
    """
    seeds, rows = right.shape
    kinds, counts = np.unique(right.sum(0), return_counts=True)
    drawn = random.multinomial(rows, counts / rows, draws)
    return np.sqrt(rows / max(rows - 1, 1)) * (drawn - counts) @ kinds / (seeds * rows)


def compare(a: Results, b: Results) -> Comparison:
    """The mean over shifts of ``a`` less that of ``b``, paired by shift, seed and test row.

    As ``every_pair`` of the two. ValueError if they differ in shifts, seeds or test rows.
    """
    return every_pair([a, b]).of(0, 1)


def every_pair(results: Sequence[Results]) -> Pairs:
    """Every two methods, paired by shift, seed and test row: Student's t of the difference.

    Rows count between methods that have strata, seeds alone between others; with one shift and no
    strata it is the paired t-test. Degrees of freedom are Satterthwaite's (Biometrics Bulletin
    1946), of a quadratic form of the seeds, by what the variances of the two methods by themselves
    say of each shift's share: from those of the difference, a shift whose K seeds happen to agree
    would count too little. Where shifts share a training it is not the paired t-test of their
    means: the variance is at least that of shifts that do not, and the degrees of freedom are
    others. There it is conservative: of two equal methods with three seeds and six shifts that all
    share a training, correlated by 0, 0.5, 0.9 and 1, it finds 1.2, 2.8, 5.0 and 5.4 % different
    at 5 %, and the paired t-test of the means 4.5, 5.1, 5.3 and 5.4 % (2,000 draws).

    Without any variance, what differs has p = 0. A value that is NaN makes the difference, its
    interval, p and df NaN. ValueError if the methods differ in shifts, seeds or rows.
    """
    means = np.array([result.values.mean() for result in results])
    difference = means[:, None] - means
    variance, df = _variance(results)
    error = np.sqrt(variance)
    t = np.divide(np.abs(difference), error, out=np.zeros_like(error), where=error > 0)
    p = np.where(error > 0, 2 * stdtr(df, -t), difference == 0)
    unknown = np.isnan(error) | np.isnan(difference)
    p[unknown] = df[unknown] = np.nan
    margin = stdtrit(df, 1 - LEVEL / 2) * error
    figures = np.stack([difference - margin, difference + margin, p, df])
    if results[0].values.shape[1] == 1:
        figures[:] = np.nan
    low, high, p, df = figures
    adjusted, upper = np.ones_like(p), np.triu_indices(len(results), 1)
    adjusted[upper] = adjusted.T[upper] = holm(p[upper])
    return Pairs(difference, low, high, p, df, adjusted)


def _variance(results: Sequence[Results]) -> tuple[np.ndarray, np.ndarray]:
    """Of the difference of every two methods, and its degrees of freedom, float64 [M, M] each.

    Without the part of seeds where there is but one, and that of rows where there are no strata.
    """
    values = np.stack([result.values for result in results])
    _, shifts, seeds = values.shape
    free = max(seeds - 1, 1)
    spread = (values - values.mean(2, keepdims=True)) / np.sqrt(free * seeds) / shifts
    joined = np.stack([result.joined for result in results])
    mask = (joined[:, None] | joined).astype(float)  # [M, M, S, S]
    products = np.einsum("ask,btk->abst", spread, spread)
    own = np.einsum("aast->ast", products)
    apart = own[:, None] + own
    total = _sum_where(mask, apart - products - products.swapaxes(2, 3))
    expected = _sum_where(mask, apart)
    weighted = mask @ (mask * apart)
    squares = np.einsum("abst,abts->ab", weighted, weighted) / free
    squares = np.maximum(squares, expected**2 / (shifts * free))
    with_rows = [m for m, result in enumerate(results) if result.strata]
    among = np.ix_(with_rows, with_rows)
    domains = [_by_domain(results[m]) for m in with_rows]
    if any(domain.keys() != domains[0].keys() for domain in domains):
        raise ValueError("methods have test rows of different domains")
    for name in domains[0] if domains else ():
        right = np.stack([domain[name][1] for domain in domains])
        rows = domains[0][name][0] ** 2 * _of_rows(right)
        total[among] += rows
        expected[among] += rows
        squares[among] += rows**2 / max(right.shape[2] - 1, 1)
    df = np.full_like(total, shifts * free)
    np.divide(expected**2, squares, out=df, where=squares > 0)
    return total, df


def _sum_where(mask: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """The variance of a sum whose terms covary as [..., S, S] says, where ``mask`` does.

    At least that of terms that do not: few seeds may covary the other way by chance.
    """
    return np.maximum((mask * covariances).sum((2, 3)), np.einsum("abss->ab", covariances))


def _by_domain(results: Results) -> dict[str, tuple[float, np.ndarray]]:
    """Of each domain a unit of weight, and in such units the sum of its strata, float64 [K, N].

    Where its shifts weigh alike, that is a count, and so exact.
    """
    joined = {}
    for domain in dict.fromkeys(stratum.domain for stratum in results.strata):
        strata = [stratum for stratum in results.strata if stratum.domain == domain]
        unit = min(stratum.weight for stratum in strata)
        right = np.zeros(strata[0].right.shape)
        for stratum in strata:
            right += stratum.weight / unit * stratum.right
        joined[domain] = unit, right
    return joined


def _of_rows(right: np.ndarray) -> np.ndarray:
    """Variance by rows of the difference of the means of right [M, K, N]; exact for counts."""
    _, seeds, rows = right.shape
    by_row = right.sum(1)
    products, sums = by_row @ by_row.T, by_row.sum(1)
    squares = np.diag(products)
    about_nought = squares[:, None] + squares - 2 * products
    about_mean = about_nought - (sums[:, None] - sums) ** 2 / rows
    return about_mean / (max(rows - 1, 1) * rows * seeds**2)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p of a family of tests, float64 [T] (Holm, Scand. J. Statist. 1979); NaN stays."""
    order = np.argsort(p_values, kind="stable")
    still = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(still * p_values[order]), 1)
    return adjusted


def ties(order: Sequence[int], adjusted: np.ndarray) -> list[int]:
    """The group of each method of ``order``, best first: 1, 2, 3 and so on.

    A group is its first method and those that follow and cannot be told from it at 5 %; the first
    that can begins the next. ``adjusted`` is [M, M], of ``every_pair``; NaN tells nothing apart.
    """
    groups: list[int] = []
    first = None
    for method in order:
        if first is None or adjusted[first, method] <= LEVEL:
            first = method
            groups.append(groups[-1] + 1 if groups else 1)
        else:
            groups.append(groups[-1])
    return groups


def rank_intervals(pairs: Pairs) -> np.ndarray:
    """Best and worst rank of each method, int64 [M, 2], all of them together at 95 %.

    As many ranks are above as methods are better, told at 5 % by Holm, and as many below as are
    worse (Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies
    2024).
    """
    told = pairs.adjusted <= LEVEL
    better = (told & (pairs.difference < 0)).sum(1)
    worse = (told & (pairs.difference > 0)).sum(1)
    return np.stack([1 + better, len(told) - worse], axis=1)


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Mean over shifts of each method's rank, float64 [M], of values [M, S]; equals share ranks.

    NaN of a method that has a NaN, which is better or worse than nothing.
    """
    better = (values > values[:, None]).sum(1)
    equal = (values == values[:, None]).sum(1)
    ranks = np.where(np.isnan(values), np.nan, better + (equal + 1) / 2)
    return np.asarray(ranks.mean(1))


def borda(values: np.ndarray) -> np.ndarray:
    """Methods beaten, summed over shifts, float64 [M], of values [M, S]; an equal counts half."""
    methods, shifts = values.shape
    return shifts * (methods - mean_ranks(values))


def interquartile_mean(values: np.ndarray) -> float:
    """Mean without the lowest and the highest quarter of values [S, K].

    Of all shifts and seeds together (Agarwal et al., "Deep Reinforcement Learning at the Edge of
    the Statistical Precipice", NeurIPS 2021, section 4.3). NaN if a value is.
    """
    if np.isnan(values).any():  # sorting would put it where it is cut
        return float("nan")
    ordered = np.sort(values, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def worst(values: np.ndarray) -> tuple[int, float]:
    """Place of the shift with the lowest mean over seeds of values [S, K], and that mean."""
    means = values.mean(1)
    place = int(means.argmin())
    return place, float(means[place])
