"""Limits by the minute: kept evenly, and learnt from what a server's headers say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.rate import RateLimit


def test_without_a_limit_nobody_waits():
    rate = RateLimit()
    assert [rate.take(float(n), 10**9) for n in range(5)] == [0.0] * 5


@given(st.floats(1, 10_000), st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_requests_never_exceed_their_limit_in_any_minute(limit, pauses):
    rate, now, sent = RateLimit(requests_per_minute=limit), 0.0, []
    for pause in pauses:
        now += pause
        wait = rate.take(now, 0)
        assert wait >= 0
        sent.append(now + wait)
    for first in range(len(sent)):
        within = [at for at in sent[first:] if at < sent[first] + 60]
        assert len(within) <= limit * (60 + RateLimit.BURST) / 60 + 1 + 1e-6


def test_tokens_are_spent_by_their_number():
    rate = RateLimit(tokens_per_minute=6000)  # 100 a second
    waits = [rate.take(0.0, 100) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.0, 0.8, 1.8, 2.8])


@pytest.mark.parametrize(
    "headers, wait",
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}, 2.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m0.5s"}, 60.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7"}, 7.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:16:43Z",
            },
            3.0,
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "99h"},
            120.0,
        ),  # as long as we wait for anybody
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "2s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_server_that_has_nothing_left_is_believed(headers, wait):
    rate = RateLimit()
    rate.told(headers, now=50.0, wall=1000.0)
    assert rate.take(50.0, 1) == pytest.approx(wait)


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_header_raises(left, reset):
    rate = RateLimit()
    rate.told({"x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset}, now=0.0, wall=0.0)
    rate.told({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}, now=0.0, wall=0.0)
    assert 0 <= rate.take(0.0, 1) <= 120
