"""Which failures are worth another attempt, and after how long: tables over pure functions."""

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.retry import (
    LONGEST_WAIT,
    MAX_ATTEMPTS,
    RetryBudget,
    final_status,
    retry_after,
    retry_delay,
    retryable_status,
)

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_go_away_by_itself_is_asked_again(status):
    assert retryable_status(status)
    assert not final_status(status)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_this_very_request_is_final(status):
    assert final_status(status)
    assert not retryable_status(status)


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 405])
def test_somebodys_wrong_setting_is_neither_repeated_nor_final(status):
    assert not retryable_status(status)
    assert not final_status(status)


def test_a_status_is_never_both_final_and_worth_repeating():
    assert not [status for status in range(100, 600) if retryable_status(status) and final_status(status)]


@pytest.mark.parametrize("attempt, longest", [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0)])
def test_jitter_is_full_and_its_bound_doubles_up_to_eight_seconds(attempt, longest):
    assert retry_delay(attempt, retry_after=None, left=60.0, dice=0.0) == 0.0
    assert retry_delay(attempt, retry_after=None, left=60.0, dice=0.5) == longest / 2
    assert retry_delay(attempt, retry_after=None, left=60.0, dice=1.0) == longest


@given(attempt=st.integers(1, 10**6), left=st.floats(0, 600), dice=st.floats(0, 1, exclude_max=True))
def test_a_delay_stays_within_its_bounds_and_attempts_within_theirs(attempt, left, dice):
    delay = retry_delay(attempt, retry_after=None, left=left, dice=dice)
    if attempt >= MAX_ATTEMPTS:
        assert delay is None
    else:
        assert delay is not None and 0.0 <= delay < 8.0
        assert delay <= left / 2  # the dice alone never cost a row


@pytest.mark.parametrize(
    "asked, delay", [(0.0, 0.0), (3.0, 3.0), (LONGEST_WAIT, LONGEST_WAIT), (LONGEST_WAIT + 1, None), (math.inf, None)]
)
def test_a_server_that_names_a_delay_is_obeyed_up_to_a_cap(asked, delay):
    assert retry_delay(1, retry_after=asked, left=600.0, dice=0.0) == delay
    later = retry_delay(1, retry_after=asked, left=600.0, dice=0.9)
    assert later == (None if delay is None else pytest.approx(delay + 0.45))  # or all would come back in step


def test_a_server_that_says_at_once_does_not_burn_all_attempts_at_once():
    assert retry_delay(5, retry_after=0.0, left=60.0, dice=0.5) == 4.0
    assert retry_delay(1, retry_after=50.0, left=40.0, dice=0.5) is None
    assert retry_delay(1, retry_after=40.0, left=40.0, dice=0.5) == 40.0
    assert retry_delay(1, retry_after=math.nan, left=40.0, dice=0.5) is None


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-5", 0.0),
        ("", None),
        ("soon", None),
        ("nan", 0.0),
        ("inf", math.inf),
        ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 13:00:30 +0100", 30.0),
        ("Sat, 21 Nov 2026 12:00:30 -0000", 30.0),
        ("Saturday, 21-Nov-26 12:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 11:59:00 GMT", 0.0),
        ("Sat, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after({} if value is None else {"retry-after": value}, now=NOW) == seconds


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),  # the finer one
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1"}, 0.0),
    ],
)
def test_milliseconds_are_understood_too(headers, seconds):
    assert retry_after(headers, now=NOW) == seconds


@given(st.integers(0, 10**6))
def test_a_date_gives_the_seconds_until_then(seconds):
    then = datetime.fromtimestamp(NOW + seconds, tz=UTC)
    assert retry_after({"retry-after": format_datetime(then, usegmt=True)}, now=NOW) == seconds


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_nothing_in_that_header_raises(value):
    seconds = retry_after({} if value is None else {"retry-after": value}, now=NOW)
    assert seconds is None or seconds >= 0


@given(st.lists(st.sampled_from(["Sat,", "21", "Nov", "2026", "12:00", "12:00:99", "0", "-0000", "+9999", "GMT"])))
def test_nor_does_anything_like_a_date(words):
    seconds = retry_after({"retry-after": " ".join(words)}, now=NOW)
    assert seconds is None or seconds >= 0


def test_a_few_retries_are_free_and_a_storm_of_them_waits_its_turn():
    budget = RetryBudget()
    waits = [budget.take(100.0, left=60.0) for _ in range(60)]
    assert waits[:20] == [0.0] * 20
    assert waits[20:] == pytest.approx([n / RetryBudget.PER_SECOND for n in range(1, 41)])


def test_a_retry_that_comes_too_late_is_none_and_costs_nothing():
    budget = RetryBudget()
    for _ in range(3000):  # a server that is away, and requests that cannot wait
        budget.take(100.0, left=1.0)
    assert budget.take(100.0, left=1.0) is None
    assert budget.take(101.1, left=1.0) is not None  # as soon as it is back, there is room again


def test_requests_that_go_well_earn_retries_and_so_does_time():
    budget = RetryBudget()
    for _ in range(20):
        budget.take(0.0, left=60.0)
    for _ in range(10):
        budget.first_attempt()
    assert [budget.take(0.0, left=60.0) for _ in range(3)] == pytest.approx([0.0] * 3)
    assert budget.take(0.0, left=60.0) == pytest.approx(1 / RetryBudget.PER_SECOND)
    assert budget.take(1.0, left=60.0) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200), st.floats(0, 10))
def test_over_any_time_retries_stay_within_the_budget(steps, left):
    budget, now, first, granted = RetryBudget(), 0.0, 0, []
    for retry, elapsed in steps:
        now += elapsed
        if not retry:
            first += 1
            budget.first_attempt()
        elif (wait := budget.take(now, left=left)) is not None:
            assert 0 <= wait < left
            granted.append(now + wait)
    if granted:
        assert len(granted) <= 20 + 0.3 * first + RetryBudget.PER_SECOND * max(granted) + 1e-6
