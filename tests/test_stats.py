"""Intervals that can be believed: scipy as the oracle for the formulas, simulation for what they promise."""

import math

import numpy as np
import pytest
import scipy.stats
from bench.comparisons import Design
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stats import (
    LEAST_CLUSTERS,
    benjamini_hochberg,
    clustered_mean,
    clustered_quantile,
    clustered_se,
    holm,
    least_visible_change,
    mcnemar,
    minimum_detectable_effect,
    paired,
    paired_quantile,
    reduce_repeats,
    sign_flip,
    sign_flip_interval,
    t_central,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 6, 7, 10, 19, 20, 99, 100, 499, 500, 501, 5000, 100_000])
@pytest.mark.parametrize("p", [0.5, 0.6, 0.8, 0.9, 0.95, 0.975, 0.995])
def test_t_quantile_is_scipys(p, df):
    assert t_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 9, 30, 31, 200])
@pytest.mark.parametrize("t", [0.0, 0.01, 0.5, 1.0, 1.96, 3.0, 12.7, 100.0])
def test_t_central_is_scipys(t, df):
    assert t_central(t, df) == pytest.approx(1 - 2 * scipy.stats.t.sf(t, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 10, 64, 250, 1000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_wilson_is_scipys(share, n):
    passed = round(share * n)
    theirs = scipy.stats.binomtest(passed, n).proportion_ci(0.95, method="wilson")
    assert wilson(passed / n, n) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.5, 1e6), st.floats(0.1, 15))
def test_wilson_holds_its_share_and_stays_a_share(p, n, z):
    low, high = wilson(p, n, z)
    assert 0 <= low <= p <= high <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1)), min_size=2))
def test_clustered_se_is_the_formula(rows):
    numbers = {}
    member = [numbers.setdefault(cluster, len(numbers)) for cluster, _ in rows]
    values = [value for _, value in rows]
    if len(numbers) < 2:
        return
    mean, c = math.fsum(values) / len(values), len(numbers)
    sums = [math.fsum(v - mean for v, m in zip(values, member, strict=True) if m == cluster) for cluster in range(c)]
    direct = math.sqrt(math.fsum(s * s for s in sums)) / len(values) * math.sqrt(c / (c - 1))
    assert clustered_se(np.array(values), np.array(member)) == pytest.approx(direct, rel=1e-9, abs=1e-12)


def test_clusters_of_one_item_give_the_plain_standard_error():
    x = np.random.default_rng(1).random(40)
    assert clustered_se(x, np.arange(40)) == pytest.approx(scipy.stats.sem(x))


def test_repeats_of_an_item_are_reduced_to_their_mean_first():
    values = {(f"npc{n}", "greeting"): float(n % 2) for n in range(10)}
    items = [item for item in values for _ in range(7)]
    reduced = reduce_repeats([values[item] for item in items], items)
    assert reduced == values
    assert list(reduced) == list(values)  # in order of first appearance
    persona = {item: item[0] for item in values}
    assert clustered_mean(reduced, persona) == clustered_mean(values, persona)
    assert reduce_repeats([0.0, 1.0, 1.0], ["a", "b", "a"]) == {"a": 0.5, "b": 1.0}


def clusters_of(c, each=4):
    return {(n, k): n for n in range(c) for k in range(each)}


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_where_all_agree_each_persona_counts_once(constant):
    cluster = clusters_of(8)
    mean = clustered_mean(dict.fromkeys(cluster, constant), cluster)
    assert (mean.value, mean.n, mean.clusters) == (constant, 32, 8)
    width = mean.high - mean.low
    assert 0.3 < width < 0.5  # eight observations, not thirty-two
    assert constant in (mean.low, mean.high)


def test_personas_of_equal_shares_count_once_each_too():
    # The residuals of thirds do not cancel to the last bit: that is no variance to go by.
    cluster = clusters_of(8, each=3)
    mean = clustered_mean({(n, k): float(k > 0) for n, k in cluster}, cluster)
    assert (mean.low, mean.high) == pytest.approx(wilson(2 / 3, 8, t_quantile(0.975, 7)))


def test_one_persona_has_a_mean_but_no_interval():
    mean = clustered_mean({"a": 0.0, "b": 1.0}, {"a": "borin", "b": "borin"})
    assert (mean.value, mean.low, mean.high, mean.n, mean.clusters) == (0.5, None, None, 2, 1)


def test_no_values_are_an_error_not_a_zero():
    with pytest.raises(ValueError, match="no values"):
        clustered_mean({}, {})


SCORES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@settings(deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 9)), SCORES, min_size=1))
def test_bounds_are_scores_and_hold_the_mean(values):
    mean = clustered_mean(values, {item: item[0] for item in values})
    assert mean.clusters == len({item[0] for item in values}) and mean.n == len(values)
    if mean.clusters > 1:
        assert 0 <= mean.low <= mean.value + 1e-12
        assert mean.value - 1e-12 <= mean.high <= 1


@settings(deadline=None)
@given(st.permutations(list(range(12))))
def test_the_order_of_items_does_not_matter(order):
    values = {(n // 3, n): (n * 7 % 12) / 12 for n in range(12)}
    cluster = {item: item[0] for item in values}
    shuffled = {item: values[item] for item in [list(values)[n] for n in order]}
    one, other = clustered_mean(values, cluster), clustered_mean(shuffled, cluster)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def simulated(rng, kind, correlation, clusters, each):
    """Scores in [0, 1] whose clusters share a part `correlation` of a normal variable, and their true mean."""
    shared = rng.standard_normal((clusters, 1)) * math.sqrt(correlation)
    z = shared + rng.standard_normal((clusters, each)) * math.sqrt(1 - correlation)
    if kind == "binary":
        return (z < scipy.stats.norm.ppf(0.7)).astype(float), 0.7
    return scipy.stats.norm.cdf(z), 0.5


@pytest.mark.parametrize("kind", ["continuous", "binary"])
@pytest.mark.parametrize("clusters", [8, 20])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
def test_an_interval_of_95_percent_holds_the_truth_about_that_often(kind, clusters, correlation):
    rng = np.random.default_rng([clusters, round(correlation * 10), kind == "binary"])
    cluster = clusters_of(clusters)
    hits, runs = 0, 600
    for _ in range(runs):
        x, truth = simulated(rng, kind, correlation, clusters, 4)
        mean = clustered_mean(dict(zip(cluster, x.ravel().tolist(), strict=True)), cluster)
        hits += mean.low <= truth <= mean.high
    assert 0.92 <= hits / runs <= 0.99, hits / runs
    # (Ignoring the personas, a correlation of 0.7 would bring this down to about 0.75.)


@pytest.mark.parametrize("truth", [0.9, 0.97])
def test_a_high_pass_rate_is_covered_too(truth):
    rng = np.random.default_rng(5)
    cluster = clusters_of(16)
    hits = 0
    for _ in range(400):
        x = rng.random(64) < truth
        mean = clustered_mean(dict(zip(cluster, x.astype(float).tolist(), strict=True)), cluster)
        hits += mean.low <= truth <= mean.high
    assert hits / 400 >= 0.92, hits / 400


def tables(seeds=6):
    """Random arms over personas of unequal sizes: x, y, and whose each item is."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        member = np.sort(np.concatenate([np.arange(24), rng.integers(0, 24, 100)]))
        x, y = rng.normal(0, 1, 124) + rng.normal(0, 1, 24)[member], rng.normal(0.2, 1, 124)
        yield x, y, member


def as_arms(x, y, member):
    items = [(int(m), n) for n, m in enumerate(member)]
    return (
        dict(zip(items, x.tolist(), strict=True)),
        dict(zip(items, y.tolist(), strict=True)),
        {i: i[0] for i in items},
    )


def test_many_clusters_get_the_cluster_robust_regression_of_statsmodels():
    linear_model = pytest.importorskip("statsmodels.regression.linear_model")
    for x, y, member in tables():
        theirs = linear_model.OLS(y - x, np.ones(len(x))).fit(
            cov_type="cluster", cov_kwds={"groups": member}, use_t=True
        )
        ours = paired(*as_arms(x, y, member))
        assert ours.test == "t" and ours.clusters == 24 and ours.n == 124
        assert ours.se == pytest.approx(theirs.bse[0])
        assert ours.p == pytest.approx(theirs.pvalues[0], rel=1e-6)
        assert (ours.low, ours.high) == pytest.approx(tuple(theirs.conf_int()[0]))


def test_a_persona_for_each_item_is_the_paired_t_test_of_scipy():
    for x, y, _ in tables():
        ours = paired(*as_arms(x, y, np.arange(len(x))))
        theirs = scipy.stats.ttest_rel(y, x)
        ends = theirs.confidence_interval()
        assert (ours.p, ours.low, ours.high) == pytest.approx((theirs.pvalue, ends.low, ends.high))


@pytest.mark.parametrize("seed", range(6))
def test_sign_flips_are_scipys_permutations(seed):
    rng = np.random.default_rng(seed)
    sums = rng.integers(-3, 5, 10).astype(float) if seed % 2 else rng.normal(0.5, 1, 10)
    theirs = scipy.stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip(sums) == pytest.approx(min(1.0, theirs.pvalue))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 4)), min_size=LEAST_CLUSTERS, max_size=9))
def test_the_interval_holds_what_a_sign_flip_test_does_not_refuse(clusters):
    sums, sizes = (np.array(part, float) for part in zip(*clusters, strict=True))
    low, high = sign_flip_interval(sums, sizes.astype(int))
    signs = np.array(np.meshgrid(*[[1, -1]] * len(sums))).reshape(len(sums), -1).T

    def refused(difference):  # by either side, at 2.5 %
        totals, seen = signs @ (sums - difference * sizes), (sums - difference * sizes).sum()
        return min((totals >= seen - 1e-9).mean(), (totals <= seen + 1e-9).mean()) <= 0.025

    slack = 1e-6 * max(1.0, high - low)
    assert refused(low - slack) and refused(high + slack)
    assert not refused(low + slack) or high - low < 4 * slack
    assert not refused(high - slack) or high - low < 4 * slack
    assert (low > 0 or high < 0) == (sign_flip(sums) <= 0.05)  # test and interval say the same


@pytest.mark.parametrize("better, worse", [(0, 0), (0, 5), (6, 0), (12, 4), (7, 7), (40, 61), (300, 200)])
def test_mcnemar_is_the_binomial_test_of_scipy_and_statsmodels(better, worse):
    theirs = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(theirs)
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    if better + worse:
        assert mcnemar(better, worse) == pytest.approx(
            contingency.mcnemar([[9, better], [worse, 9]], exact=True).pvalue
        )


def passes(both, better, worse, neither):
    x = [1.0] * both + [0.0] * better + [1.0] * worse + [0.0] * neither
    y = [1.0] * both + [1.0] * better + [0.0] * worse + [0.0] * neither
    return as_arms(np.array(x), np.array(y), np.arange(len(x)))


@pytest.mark.parametrize("table", [(2000, 300, 200, 900), (900, 30, 0, 70), (400, 0, 12, 88)])
def test_passes_of_independent_items_get_newcombes_interval(table):
    """Method 10 of Newcombe (1998), written out for a table of two by two."""
    both, better, worse, neither = table
    n = sum(table)
    ours = paired(*passes(*table))
    a, b, z = (both + worse) / n, (both + better) / n, t_quantile(0.975, n - 1)
    (low_a, high_a), (low_b, high_b) = wilson(a, n - 1, z), wilson(b, n - 1, z)  # a variance over n - 1
    phi = (both * neither - better * worse) / math.sqrt(
        (both + worse) * (better + neither) * (both + better) * (worse + neither)
    )
    lower = b - a - math.sqrt((b - low_b) ** 2 - 2 * phi * (b - low_b) * (high_a - a) + (high_a - a) ** 2)
    upper = b - a + math.sqrt((high_b - b) ** 2 - 2 * phi * (high_b - b) * (a - low_a) + (a - low_a) ** 2)
    assert (ours.low, ours.high) == pytest.approx((lower, upper), rel=1e-6)
    assert ours.test == "mcnemar" and ours.p == pytest.approx(mcnemar(better, worse))


def test_what_never_differed_has_an_interval_only_where_it_passed_or_failed():
    cluster = clusters_of(24)
    ones, tenths = dict.fromkeys(cluster, 1.0), dict.fromkeys(cluster, 0.1)
    same = paired(ones, ones, cluster)
    assert same.p == 1 and same.differing == 0 and 0.1 < same.high == -same.low < 0.2
    assert same.detectable == pytest.approx(least_visible_change(24))
    same = paired(tenths, tenths, cluster)
    assert (same.p, same.low, same.detectable) == (1, None, None)
    rate = paired(ones, ones, cluster, rates=True)
    assert (rate.p, rate.low, rate.detectable) == (1, None, None)


@pytest.mark.parametrize("personas", range(1, 8))
def test_five_personas_can_never_tell_and_six_can(personas):
    cluster = clusters_of(personas)
    found = paired(dict.fromkeys(cluster, 0.1), {item: 0.9 + item[0] / 100 for item in cluster}, cluster)
    assert found.difference > 0.7
    if personas < LEAST_CLUSTERS:
        assert (found.low, found.high, found.p, found.detectable) == (None,) * 4
    else:
        assert found.p == 2 / 2**personas <= 0.05 and found.low > 0


def test_rounding_makes_no_difference():
    cluster = clusters_of(8, each=3)
    a = {item: [0.1, 0.2, 0.3][item[1]] for item in cluster}
    b = {item: [0.3, 0.1, 0.2][item[1]] for item in cluster}
    found = paired(a, b, cluster)
    assert (found.differing, found.p) == (0, 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 29), SCORES, SCORES), min_size=1, max_size=80))
def test_swapping_the_arms_turns_everything_round(rows):
    items = {(cluster, n): (x, y) for n, (cluster, x, y) in enumerate(rows)}
    a, b = ({item: pair[k] for item, pair in items.items()} for k in (0, 1))
    cluster = {item: item[0] for item in items}
    one, other = paired(a, b, cluster), paired(b, a, cluster)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.p, one.se, one.differing, one.test) == pytest.approx((other.p, other.se, other.differing, other.test))
    if one.low is not None:
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
        assert one.low - 1e-9 <= one.difference <= one.high + 1e-9
        assert one.detectable >= 0
    assert one.p is None or 0 <= one.p <= 1


def test_no_shared_items_are_an_error():
    with pytest.raises(ValueError, match="no shared items"):
        paired({"a": 1.0}, {"b": 1.0}, {"a": "x", "b": "x"})


@pytest.mark.parametrize("clusters", [8, 12, 20, 50, 200])
def test_the_detectable_effect_is_found_in_80_percent_by_the_noncentral_t(clusters):
    effect = minimum_detectable_effect(1.0, clusters)
    bound = t_quantile(0.975, clusters - 1)
    power = scipy.stats.nct.sf(bound, clusters - 1, effect) + scipy.stats.nct.cdf(-bound, clusters - 1, effect)
    assert power == pytest.approx(0.8, abs=0.02)


def test_few_clusters_need_a_larger_effect_and_too_few_see_nothing():
    effects = [minimum_detectable_effect(1.0, clusters) for clusters in (6, 8, 12, 30, 1000)]
    assert effects == sorted(effects, reverse=True)
    assert effects[-1] == pytest.approx(2.8, abs=0.01)
    with pytest.raises(ValueError, match="can never tell"):
        minimum_detectable_effect(1.0, 5)


@pytest.mark.parametrize("clusters", [6, 8, 24, 200])
def test_the_least_visible_change_moves_six_personas_in_80_percent(clusters):
    moved = least_visible_change(clusters)
    assert scipy.stats.binom.sf(LEAST_CLUSTERS - 1, clusters, moved) == pytest.approx(0.8, abs=1e-6)
    assert least_visible_change(clusters, items=4) < moved


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@settings(deadline=None)
@given(P_VALUES)
def test_adjusted_p_values_are_those_of_scipy_and_statsmodels(p):
    assert benjamini_hochberg(p) == pytest.approx(list(scipy.stats.false_discovery_control(p)))
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(p) == pytest.approx(list(multitest.multipletests(p, method="holm")[1]))
    assert benjamini_hochberg(p) == pytest.approx(list(multitest.multipletests(p, method="fdr_bh")[1]))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == benjamini_hochberg([]) == []


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 60), st.floats(0, 60)), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.95]),
)
def test_a_difference_of_quantiles_is_that_of_the_quantiles(rows, q):
    clusters, a, b = (list(column) for column in zip(*rows, strict=True))
    found, back = paired_quantile(a, b, clusters, clusters, q), paired_quantile(b, a, clusters, clusters, q)
    assert found.value == pytest.approx(np.quantile(b, q) - np.quantile(a, q))
    assert found.value == pytest.approx(-back.value)
    for end, other in ((found.low, back.high), (found.high, back.low)):
        assert (end is None) == (other is None)
        assert end is None or end == pytest.approx(-other)
    assert found.low is None or found.low <= found.value + 1e-9
    one = clustered_quantile(a, clusters, q)
    assert one.low is None or one.low <= one.value <= (one.high if one.high is not None else math.inf)


def test_a_clustered_quantile_of_independent_values_is_about_the_plain_one():
    from pipeline.stats.latency import quantile

    x = np.random.default_rng(3).gamma(2, 1, 400).tolist()
    for q in (0.5, 0.95):
        ours, plain = clustered_quantile(x, range(400), q), quantile(x, q)
        assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), rel=0.1)


def test_latencies_that_hang_together_by_persona_have_wider_intervals():
    rng = np.random.default_rng(4)
    member = np.repeat(np.arange(20), 10)
    x = (rng.normal(3, 1, 20)[member] + rng.normal(0, 0.2, 200)).tolist()
    together, apart = clustered_quantile(x, member.tolist(), 0.5), clustered_quantile(x, range(200), 0.5)
    assert together.high - together.low > 2 * (apart.high - apart.low)


@pytest.mark.parametrize(
    "design", [Design("continuous", 0.7, 8), Design("continuous", 0.3, 200), Design("passes", 0.3, 200)], ids=str
)
def test_equal_arms_are_seldom_called_different_and_the_detectable_effect_is_mostly_found(design):
    """The whole table: python tests/bench/comparisons.py."""
    false, naive, found = design.shares(1, 300)
    assert false <= 0.07 < naive
    assert 0.72 <= found <= 0.88


@pytest.mark.parametrize("design", [Design("median", 0.7, 8), Design("3 tries", 0.0, 8)], ids=str)
def test_equal_arms_are_seldom_called_different_in_other_scores_either(design):
    assert design.shares(1, 200)[0] <= 0.07


def test_rates_above_one_keep_their_mean_inside_the_interval():
    cluster = clusters_of(8)
    mean = clustered_mean({item: 3.0 + item[0] + item[1] for item in cluster}, cluster)
    assert 3 < mean.low < mean.value == 8 < mean.high
