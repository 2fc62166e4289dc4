from dataclasses import replace
from math import sqrt
from statistics import fmean, variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchbench.leaderboard.statistics import (
    Results,
    Stratum,
    borda,
    compare,
    every_pair,
    holm,
    interquartile_mean,
    interval,
    mean_ranks,
    rank_intervals,
    ties,
    worst,
)

UNEQUAL = np.geomspace(0.01, 0.04, 6)  # standard deviations over seeds, by shift
ONE_WILD = np.array([0.05, *[0.01] * 5])


def board(
    random, methods=8, shifts=6, seeds=3, rows=500, domains=3, sd=0.02, lead=0.0, alike=0.4, own=0.3
):
    """Methods of equal truth on domains in turn, but that the first is better by ``lead``.

    A row is as hard for all as ``alike`` says, and ``own`` for one method; the rest is chance of
    one training. ``sd`` is that over seeds of the share that would be right of all rows there are.
    """
    truth = np.linspace(0.45, 0.75, shifts)[:, None] + np.zeros((methods, shifts, seeds))
    truth[0] += lead
    reach = truth + np.broadcast_to(sd, shifts)[:, None] * random.standard_normal(truth.shape)
    level = stats.norm.ppf(np.clip(reach, 0.001, 0.999))
    hard = sqrt(alike) * random.standard_normal((domains, rows))
    hard = hard + sqrt(own) * random.standard_normal((methods, domains, rows))
    chance = sqrt(1 - alike - own) * random.standard_normal((methods, shifts, seeds, rows))
    where = np.arange(shifts) % domains
    right = level[..., None] > hard[:, where, None] + chance
    return [
        Results(
            method.mean(2),
            tuple(
                Stratum(1 / shifts, r, f"domain {d}") for r, d in zip(method, where, strict=True)
            ),
        )
        for method in right
    ]


def of_seeds(values):
    return Results(np.array(values, dtype=float), ())


def best_first(results):
    return np.argsort([-result.values.mean() for result in results], kind="stable").tolist()


def slow_comparison(a, b):
    """Difference, standard error and degrees of freedom, by plain sums."""
    shifts, seeds = a.values.shape
    part = 1 / (seeds * shifts**2)
    error, expected, squares = 0.0, 0.0, 0.0
    for one, other in zip(a.values, b.values, strict=True):
        error += part * variance([x - y for x, y in zip(one, other, strict=True)])
        alone = part * (variance(one.tolist()) + variance(other.tolist()))
        expected += alone
        squares += alone**2 / (seeds - 1)
    for domain in {stratum.domain for stratum in (a.strata if b.strata else ())}:
        pairs = [(x, y) for x, y in zip(a.strata, b.strata, strict=True) if x.domain == domain]
        count = pairs[0][0].right.shape[1]
        rows = [
            sum(x.weight * (fmean(x.right[:, n]) - fmean(y.right[:, n])) for x, y in pairs)
            for n in range(count)
        ]
        of_rows = variance(rows) / count
        error += of_rows
        expected += of_rows
        squares += of_rows**2 / (count - 1)
    return fmean(a.values.ravel()) - fmean(b.values.ravel()), sqrt(error), expected**2 / squares


def test_with_one_shift_and_no_rows_it_is_the_paired_t_test():
    random = np.random.RandomState(0)
    for seeds in (2, 3, 10):
        a, b = random.rand(2, 1, seeds)
        told, asked = compare(of_seeds(a), of_seeds(b)), stats.ttest_rel(a[0], b[0])
        assert told.p == pytest.approx(asked.pvalue, rel=1e-12)
        assert told.df == pytest.approx(seeds - 1, rel=1e-12)
        between = asked.confidence_interval(0.95)
        assert (told.low, told.high) == pytest.approx((between.low, between.high), rel=1e-9)


def test_with_seeds_that_agree_it_is_the_paired_t_test_of_rows():
    random = np.random.RandomState(1)
    one, other = random.rand(2, 80) < [[0.7], [0.55]]
    a, b = (
        Results(np.full((1, 3), right.mean()), (Stratum(1.0, np.tile(right, (3, 1)), "d"),))
        for right in (one, other)
    )
    told, asked = compare(a, b), stats.ttest_rel(one.astype(float), other.astype(float))
    assert told.p == pytest.approx(asked.pvalue, rel=1e-9)
    discordant, more = (one != other).mean(), one.mean() - other.mean()
    closed = sqrt((discordant - more**2) / 79)
    margin = stats.t.ppf(0.975, 79) * closed
    assert (told.low, told.high) == pytest.approx((more - margin, more + margin), rel=1e-9)


def test_every_pair_is_what_plain_sums_say():
    results = board(np.random.RandomState(2), methods=4, rows=40, domains=2, lead=0.05)
    weights = (0.1, 0.3, 0.2, 0.15, 0.05, 0.2)
    results[1:] = [
        replace(
            r, strata=tuple(replace(s, weight=w) for s, w in zip(r.strata, weights, strict=True))
        )
        for r in [replace(results[0], values=results[1].values), *results[2:]]
    ]
    results[0] = replace(results[0], strata=())
    pairs = every_pair(results)
    for i in range(4):
        for j in set(range(4)) - {i}:
            difference, error, df = slow_comparison(results[i], results[j])
            told = pairs.of(i, j)
            margin = stats.t.ppf(0.975, df) * error
            expected = (difference, difference - margin, difference + margin, df)
            assert (told.difference, told.low, told.high, told.df) == pytest.approx(expected)
            assert told.p == pytest.approx(2 * stats.t.sf(abs(difference) / error, df), rel=1e-9)
            alone = compare(results[i], results[j])
            assert vars(told) == pytest.approx(vars(alone), rel=1e-9)
    above = np.triu_indices(4, 1)
    adjusted = multipletests(pairs.p[above], method="holm")[1]
    assert pairs.adjusted[above] == pytest.approx(adjusted, rel=1e-12)
    assert (pairs.adjusted == pairs.adjusted.T).all()


def test_rows_on_which_two_shifts_are_tested_count_once():
    random = np.random.RandomState(3)
    right = np.repeat(random.rand(2, 1, 60) < 0.6, 2, axis=1)
    values = np.repeat(right.mean(2)[:, None], 2, axis=1)
    once = [
        Results(v[:1], (Stratum(1.0, r, "photos"),)) for v, r in zip(values, right, strict=True)
    ]
    again, apart = (
        [
            Results(v, tuple(Stratum(0.5, r, domain) for domain in domains))
            for v, r in zip(values, right, strict=True)
        ]
        for domains in (("photos", "photos"), ("photos", "scans"))
    )
    width = compare(*once).high - compare(*once).difference
    assert compare(*again).high - compare(*again).difference == pytest.approx(width, rel=1e-12)
    assert compare(*apart).high - compare(*apart).difference < 0.8 * width


def test_one_seed_tells_nothing_apart():
    results = board(np.random.RandomState(4), methods=3, seeds=1, lead=0.2)
    told = compare(*results[:2])
    assert told.difference > 0.1
    assert (told.low, told.high, told.p, told.df) == (None,) * 4
    pairs = every_pair(results)
    assert ties([0, 1, 2], pairs.adjusted) == [1, 1, 1]
    assert rank_intervals(pairs).tolist() == [[1, 3]] * 3


def test_without_variance_equals_are_equal_and_others_are_not():
    same, better = of_seeds(np.full((2, 3), 0.5)), of_seeds(np.full((2, 3), 0.75))
    assert (compare(same, same).p, compare(better, same).p) == (1, 0)
    assert (compare(better, same).low, compare(better, same).high) == (0.25, 0.25)


def test_methods_of_other_shifts_or_rows_are_not_compared():
    one, *_ = board(np.random.RandomState(5), methods=1, shifts=2, rows=10)
    for strata in (
        (one.strata[0], replace(one.strata[1], domain="another")),
        (one.strata[0], replace(one.strata[1], right=one.strata[1].right[:, :5])),
    ):
        with pytest.raises(ValueError, match="domains|shape"):
            compare(one, replace(one, strata=strata))
    with pytest.raises(ValueError, match="shape"):
        compare(one, replace(one, values=one.values[:1]))


def test_holm_is_that_of_statsmodels():
    random = np.random.RandomState(15)
    for count, digits in ((1, 9), (2, 9), (28, 9), (28, 2)):  # to two digits, some are equal
        p_values = (random.rand(count) ** 4).round(digits)
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(holm(np.array([np.nan, np.nan]))).all()


def test_the_next_group_begins_with_the_first_that_is_told_from_the_first():
    adjusted = np.ones((5, 5))
    for one, other in ((3, 4), (3, 2), (0, 4), (1, 2)):
        adjusted[one, other] = adjusted[other, one] = 0.05
    assert ties([3, 0, 1, 4, 2], adjusted) == [1, 1, 1, 2, 2]
    adjusted[4, 2] = adjusted[2, 4] = 0.001
    assert ties([3, 0, 1, 4, 2], adjusted) == [1, 1, 1, 2, 3]
    assert ties([0], adjusted) == [1]
    assert ties([], adjusted) == []


def test_a_rank_is_bounded_by_those_told_better_and_worse():
    random = np.random.RandomState(6)
    clear = [of_seeds(mean + 0.001 * random.randn(3, 4)) for mean in (0.5, 0.9, 0.7)]
    assert rank_intervals(every_pair(clear)).tolist() == [[3, 3], [1, 1], [2, 2]]
    vague = [*clear, of_seeds(0.7 + random.randn(3, 4))]
    assert rank_intervals(every_pair(vague)).tolist() == [[3, 4], [1, 2], [2, 3], [1, 4]]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 2**31))
def test_the_order_of_methods_changes_nothing(order, seed):
    results = board(np.random.RandomState(seed), methods=5, shifts=2, rows=30, domains=1, lead=0.2)
    pairs, turned = every_pair(results), every_pair([results[m] for m in order])
    grid = np.ix_(order, order)
    for name, figures in vars(pairs).items():
        assert getattr(turned, name) == pytest.approx(figures[grid], rel=1e-9, abs=1e-12), name
    assert (rank_intervals(turned) == rank_intervals(pairs)[list(order)]).all()
    best = best_first(results)
    places = [order.index(m) for m in best]
    assert ties(places, turned.adjusted) == ties(best, pairs.adjusted)


@settings(max_examples=25, deadline=None)
@given(st.floats(-1, 1), st.integers(0, 2**31))
def test_a_constant_moves_means_only(constant, seed):
    a, b = board(np.random.RandomState(seed), methods=2, shifts=2, rows=30)
    raised = replace(a, values=a.values + constant)
    before, after = compare(a, b), compare(raised, b)
    assert after.difference == pytest.approx(before.difference + constant, abs=1e-9)
    assert after.high - after.low == pytest.approx(before.high - before.low, abs=1e-9)
    assert after.df == pytest.approx(before.df, rel=1e-9)
    moved = [bound + constant for bound in interval(a)]
    assert interval(raised) == pytest.approx(moved, abs=1e-9)


def test_an_interval_of_one_seed_is_that_of_a_binomial_share():
    right = np.arange(400) < 260
    told = interval(Results(np.array([[0.65]]), (Stratum(1.0, right[None], "d"),)), draws=20_000)
    drawn = stats.binom(400, 0.65).ppf([0.025, 0.975]) / 400 - 0.65
    stretch = stats.t.ppf(0.975, 399) / stats.norm.ppf(0.975) * sqrt(400 / 399)
    assert told == pytest.approx(0.65 + stretch * drawn, abs=1 / 400)
    assert interval(of_seeds([[0.65]])) is None


def test_an_interval_of_seeds_is_a_stretched_bootstrap_of_them():
    values = np.random.RandomState(7).rand(1, 12)
    drawn = stats.bootstrap(
        values, np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    stretch = sqrt(12 / 11) * stats.t.ppf(0.975, 11) / stats.norm.ppf(0.975)
    mean = values.mean()
    expected = [mean + stretch * (bound - mean) for bound in drawn]
    assert interval(of_seeds(values), draws=20_000) == pytest.approx(expected, abs=0.005)


def test_an_interval_of_seeds_and_rows_is_as_wide_as_both_say():
    result, *_ = board(np.random.RandomState(8), methods=1, seeds=8, rows=100)
    nought = replace(
        result,
        values=0 * result.values,
        strata=tuple(replace(s, right=0 * s.right) for s in result.strata),
    )
    _, error, df = slow_comparison(result, nought)
    low, high = interval(result, draws=20_000)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, df) * error, rel=0.03)
    low, high = interval(result, level=0.5, draws=20_000)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.75, df) * error, rel=0.03)


def test_an_interval_is_the_same_each_time():
    result, *_ = board(np.random.RandomState(9), methods=1, rows=50)
    np.random.seed(1)
    before, told = np.random.get_state()[1].copy(), interval(result)
    np.random.seed(2)
    assert interval(result) == told
    np.random.seed(1)
    assert (np.random.get_state()[1] == before).all()
    assert interval(of_seeds(np.full((2, 3), 0.5))) == (0.5, 0.5)


@pytest.mark.parametrize(("seeds", "shifts"), [(3, 1), (3, 6), (5, 1)])
def test_intervals_hold_the_truth(seeds, shifts):
    random = np.random.RandomState(10)
    drawn = [of_seeds(random.standard_normal((shifts, seeds))) for _ in range(400)]
    held = [low <= 0 <= high for low, high in map(interval, drawn)]
    assert 0.92 <= np.mean(held) <= 0.98


def test_ranks_and_points_are_those_of_scipy():
    values = np.random.RandomState(11).randint(0, 6, (9, 5)) / 6
    ranks = stats.rankdata(-values, axis=0).mean(1)
    assert mean_ranks(values) == pytest.approx(ranks, rel=1e-12)
    points = [
        sum((mine > values[:, s]).sum() + ((mine == values[:, s]).sum() - 1) / 2 for s, mine in row)
        for row in map(enumerate, values)
    ]
    assert borda(values) == pytest.approx(points, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 5), (6, 3)])
def test_the_interquartile_mean_is_that_of_scipy(shape):
    values = np.random.RandomState(12).rand(*shape)
    expected = stats.trim_mean(values, 0.25, axis=None)
    assert interquartile_mean(values) == pytest.approx(expected, rel=1e-12)


def test_the_worst_shift_is_the_lowest_on_average():
    assert worst(np.array([[0.9, 0.1], [0.4, 0.3], [0.8, 0.8]])) == (1, pytest.approx(0.35))


def one_group(boards, **how):
    random, count = np.random.RandomState(13), 0
    for _ in range(boards):
        results = board(random, **how)
        count += max(ties(best_first(results), every_pair(results).adjusted)) == 1
    return count / boards


def told_apart(boards, **how):
    """How often the first is told from another, and how often from all of them."""
    random, told = np.random.RandomState(14), []
    for _ in range(boards):
        pairs = every_pair(board(random, **how))
        told.append((pairs.adjusted[0, 1:] <= 0.05) & (pairs.difference[0, 1:] > 0))
    return np.mean(told), np.mean(np.all(told, axis=1))


ALIKE = {"alike": 0.9, "own": 0.0}  # methods find the same rows hard
ONE_SHIFT = {"shifts": 1, "domains": 1}
EQUAL = {
    "rows of its own": {},
    "rows alike": ALIKE,
    "unequal": {"sd": UNEQUAL},
    "rows alike, unequal": {**ALIKE, "sd": UNEQUAL},
    "rows alike, one wild": {**ALIKE, "sd": ONE_WILD},
    "one shift": ONE_SHIFT,
    "one shift, rows alike": {**ONE_SHIFT, **ALIKE},
}
BETTER = {**ALIKE, "sd": 0.016, "lead": 0.04}  # with the chance of 500 rows, an sd of 0.02


@pytest.mark.parametrize(
    "name", ["rows of its own", "rows alike, unequal", "one shift, rows alike"]
)
def test_equal_methods_are_one_group(name):
    assert one_group(200, **EQUAL[name]) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
def test_equal_methods_are_one_group_on_a_thousand_boards(name):
    assert one_group(1000, **EQUAL[name]) >= 0.94


@pytest.mark.parametrize("boards", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_method_better_by_two_standard_deviations_is_told_from_the_others(boards):
    one, all_of_them = told_apart(boards, **BETTER)
    assert one >= 0.9
    assert all_of_them >= 0.65


def sharing(random, pairs, shifts=6, seeds=3):
    """Two equal methods, of which the shifts in ``pairs`` are read off one encoder."""
    joined = np.eye(shifts, dtype=bool)
    cause = np.arange(shifts)
    for one, other in pairs:
        cause[cause == cause[other]] = cause[one]
    joined |= cause[:, None] == cause
    found = []
    for _ in range(2):
        values = 0.5 + 0.02 * random.standard_normal((shifts, seeds))[cause]
        found.append(Results(values + 0.002 * random.standard_normal(values.shape), (), joined))
    return found


ALL = [(0, shift) for shift in range(1, 6)]
TWO_BY_TWO = [(0, 1), (2, 3), (4, 5)]


def test_shifts_that_all_share_a_training_are_one_by_seed():
    """Where that has the larger variance it is the paired t-test of seeds' means over shifts."""
    random = np.random.default_rng(5)
    larger = wider = 0
    for _ in range(20):
        a, b = sharing(random, ALL)
        told = stats.ttest_rel(a.values.mean(0), b.values.mean(0))
        found = compare(a, b)
        apart = compare(replace(a, shared=None), replace(b, shared=None))
        if apart.df > 2:
            wider += 1
            assert found.p >= apart.p - 1e-12
        by_seed = (a.values - b.values).mean(0)
        if variance(by_seed.tolist()) * 36 >= np.var(a.values - b.values, axis=1, ddof=1).sum():
            larger += 1
            assert found.p == pytest.approx(told.pvalue, abs=1e-9)
            assert found.df == pytest.approx(2)
    assert larger >= 5 and wider >= 5


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 1.0])
def test_equal_methods_whose_shifts_share_a_training_are_told_apart_at_most_as_often_as_said(
    correlation,
):
    """40 equal methods, six shifts, three seeds: of 780 pairs of each of four boards."""
    random, shifts = np.random.default_rng(11), 6
    together = np.ones((shifts, shifts), dtype=bool)
    told, theirs = [], []
    for _ in range(4):
        own = random.standard_normal((40, shifts, 3))
        of_seed = random.standard_normal((40, 1, 3))
        values = 0.5 + 0.02 * (sqrt(correlation) * of_seed + sqrt(1 - correlation) * own)
        pairs = every_pair([Results(one, (), together) for one in values])
        upper = np.triu_indices(40, 1)
        told.append((pairs.p[upper] < 0.05).mean())
        means = values.mean(1)
        theirs.append(stats.ttest_rel(means[upper[0]], means[upper[1]], axis=1).pvalue < 0.05)
    assert np.mean(told) <= 0.07  # seeds of 40 methods vary the share itself
    assert np.mean(told) <= np.mean(theirs) + 0.02


def test_a_value_that_is_not_known_tells_nothing_apart_and_has_no_rank():
    known = np.array([[0.5, 0.4, 0.6], [0.7, 0.6, 0.8]])
    spoilt = known.copy()
    spoilt[0, 1] = np.nan
    methods = [Results(values, ()) for values in (known, spoilt, known - 0.3)]
    pairs = every_pair(methods)
    for figures in (pairs.difference, pairs.low, pairs.high, pairs.p, pairs.df, pairs.adjusted):
        assert np.isnan(figures[[0, 2], 1]).all() and np.isnan(figures[1, [0, 2]]).all()
    alone = every_pair([methods[0], methods[2]])
    assert pairs.p[0, 2] == alone.p[0, 1] < 0.05
    told = compare(*methods[:2])
    assert (told.low, told.high, told.p, told.df) == (None,) * 4
    assert ties([0, 1, 2], pairs.adjusted) == [1, 1, 2]
    assert rank_intervals(pairs).tolist() == [[1, 2], [1, 3], [2, 3]]
    assert np.isnan(interval(methods[1])).all()
    means = np.stack([method.values.mean(1) for method in methods])
    assert mean_ranks(means)[[0, 2]].tolist() == [1.25, 2.5]
    assert np.isnan(mean_ranks(means)[1]) and np.isnan(borda(means)[1])
    assert np.isnan(interquartile_mean(spoilt)) and np.isnan(worst(spoilt)[1])


def test_an_interval_of_two_seeds_may_pass_the_ends_of_accuracy():
    low, high = interval(of_seeds([[0.2, 0.8]]))
    assert low < 0 and high > 1


@pytest.mark.parametrize("pairs", [ALL, TWO_BY_TWO], ids=["all", "two by two"])
def test_equal_methods_are_rarely_told_apart_where_shifts_share_a_training(pairs):
    """Taken for independent, they would be in one board of four, or of two."""
    random = np.random.default_rng(6)
    boards = [sharing(random, pairs) for _ in range(400)]
    told = [compare(a, b).p < 0.05 for a, b in boards]
    blind = [compare(replace(a, shared=None), replace(b, shared=None)).p < 0.05 for a, b in boards]
    assert np.mean(told) <= 0.075
    assert np.mean(blind) > 0.1


def test_an_interval_knows_that_shifts_share_a_training():
    random = np.random.default_rng(7)
    held = []
    for _ in range(150):
        low, high = interval(sharing(random, ALL)[0])
        held.append(low <= 0.5 <= high)
    assert np.mean(held) >= 0.89


def test_a_partner_that_shares_joins_the_shifts_of_a_pair():
    a, b = sharing(np.random.default_rng(8), ALL)
    lone = replace(b, shared=None)
    assert compare(a, lone) == compare(a, b)
