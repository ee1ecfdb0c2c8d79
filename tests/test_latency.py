from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.scored import Load, replies_of
from pipeline.records import Completion, Item, Timing, Turn, Usage
from pipeline.stats.latency import client_bound, quantile, tpot


def completion(sent=0.0, e2e=1.0, ttft=None, last=None, tokens=None):
    timing = Timing(sent=sent, e2e=e2e, ttft=ttft, last=last)
    return Completion(text="Aye.", timing=timing, usage=Usage(prompt_tokens=5, completion_tokens=tokens))


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 3, 5, 6, 10, 59, 64, 73, 500, 5000])
def test_the_interval_is_the_tightest_pair_of_ranks_that_holds_the_quantile(q, n):
    ranks = list(range(1, n + 1))  # each value is its own rank
    found = quantile(ranks, q)
    assert found.value == pytest.approx(np.quantile(ranks, q))
    below = scipy.stats.binom(n, q)  # how many values lie below the true quantile
    if found.low is not None:
        assert below.cdf(found.low - 1) <= 0.025 < below.cdf(found.low)
    else:
        assert below.cdf(0) > 0.025
    if found.high is not None:
        assert below.sf(found.high - 1) <= 0.025 < below.sf(found.high - 2)
    else:
        assert below.sf(n - 1) > 0.025
    if None not in (found.low, found.high):
        assert below.cdf(found.high - 1) - below.cdf(found.low - 1) >= 0.95


@pytest.mark.parametrize(
    "n, q, ends",
    [(1, 0.5, (None, None)), (5, 0.5, (None, None)), (6, 0.5, (1, 6)), (64, 0.95, (57, None)), (73, 0.95, (65, 73))],
)
def test_few_values_bound_nothing(n, q, ends):
    found = quantile(range(1, n + 1), q)
    assert (found.low, found.high) == ends


def test_the_promised_coverage_holds_in_simulation():
    rng = np.random.default_rng(3)
    truth = scipy.stats.lognorm(0.5).ppf(0.95)
    hits = 0
    for _ in range(500):
        found = quantile(rng.lognormal(0, 0.5, 200).tolist(), 0.95)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 500 <= 0.99


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=200))
def test_quantiles_are_monotone_and_lie_in_their_intervals(values):
    found = [quantile(values, q) for q in (0.05, 0.5, 0.9, 0.95, 0.99)]
    assert sorted(q.value for q in found) == [q.value for q in found]
    for q in found:
        assert q.low is None or min(values) <= q.low <= q.value
        assert q.high is None or q.value <= q.high <= max(values)
    for side in ("low", "high"):
        ends = [end for q in found if (end := getattr(q, side)) is not None]
        assert sorted(ends) == ends


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@pytest.mark.parametrize(
    "ttft, last, tokens, seconds",
    [
        (0.2, 1.2, 11, 0.1),
        (0.2, 0.2, 2, None),  # the whole stream came in one read
        (0.2, 1.2, 1, None),  # one token: nothing to divide by
        (0.2, 1.2, None, None),
        (None, None, 11, None),  # not streamed
    ],
)
def test_time_per_token_counts_from_the_first_one(ttft, last, tokens, seconds):
    found = tpot(completion(ttft=ttft, last=last, tokens=tokens))
    assert found == (seconds if seconds is None else pytest.approx(seconds))


def turn(said):
    about = {"scenario_id": "s", "category": "c", "player": "P", "lines": ("Hi",), "template": "t", "sample": 0}
    item = Item(npc=SimpleNamespace(id="mira", world=""), **about)
    return Turn(item=item, line="Hi", request=None, completion=said, error=None if said else "refused")


def load_of(*spans):
    load = Load()
    for sent, e2e in spans:
        load.add(replies_of([turn(completion(sent=sent, e2e=e2e, tokens=3))]))
    return load


@pytest.mark.parametrize(
    "spans, busy",
    [
        ([], 0),
        ([(100, 2)], 2),
        ([(100, 2), (102, 2)], 4),
        ([(100, 2), (101, 2)], 3),  # side by side
        ([(100, 10), (101, 1), (109, 2)], 11),  # one inside another
        ([(100, 2), (5000, 2)], 4),  # a pause of more than an hour
        ([(5000, 2), (100, 10), (103, 1), (5001, 0.5)], 12),  # in any order
        ([(100, 0), (100, 0)], 0),
    ],
)
def test_busy_is_the_time_with_a_reply_under_way(spans, busy):
    assert load_of(*spans).busy() == pytest.approx(busy)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30))
def test_busy_is_the_length_of_the_union(spans):
    seconds = {second for sent, e2e in spans for second in range(sent, sent + e2e)}
    assert load_of(*spans).busy() == pytest.approx(len(seconds))


def test_load_counts_only_what_the_server_counted():
    load = load_of((0, 1), (1, 1))
    load.add(replies_of([turn(completion(tokens=None)), turn(None)]))
    assert (dict(load.counted), load.completion_tokens, load.prompt_tokens, len(load.e2e)) == ({"server": 2}, 6, 10, 3)


@pytest.mark.parametrize(
    "lags, latencies, bound",
    [
        ([], [0.02], False),
        ([0.001], [], False),
        ([0.0004, 0.0004, 0.9], [0.02], False),
        ([0.0006, 0.0006, 0.0], [0.02], True),
        ([0.02], [2.0], False),
    ],
)
def test_a_machine_that_cannot_keep_up_is_told_by_its_lag(lags, latencies, bound):
    assert client_bound(lags, latencies) is bound
