"""Intervals that can be believed: scipy as the oracle for the formulas, simulation for what they promise."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stats import clustered_mean, clustered_se, reduce_repeats, t_central, t_quantile, wilson


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
