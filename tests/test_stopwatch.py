"""Where the time went: each wait under its own name, and what the network brought, when."""

import asyncio
import json
import random
import time

import pytest
from wire import Wire, reply, sends, with_length

from pipeline.client.client import LLMClient
from pipeline.errors import ServerError
from pipeline.records import Message, Request, Timing

REQUEST = Request(messages=(Message(role="user", content="Hello"),))
WELL_MET = json.dumps({"choices": [{"message": {"content": "Well met."}, "finish_reason": "stop"}]}).encode()


@pytest.fixture(autouse=True)
def half_of_the_backoff(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.5)


def event(done=False, finish=None, **delta):
    if done:
        return b"data: [DONE]\n\n"
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n".encode()


def ask(answer, *, times=1, intended=None, **options):
    """(completions or errors, attempts), all asked at the same time."""
    attempts = []

    async def main():
        async with Wire(answer) as server, LLMClient(server.url, **options) as client:
            start = None if intended is None else time.perf_counter() - intended
            asked = (client.complete(REQUEST, attempts.append, intended=start) for _ in range(times))
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(main()), attempts


def streams(*pieces, pause=0.06, close=True):
    """The head at once, then each piece after a pause."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return sends(head, *pieces, pause=pause, close=close)


def test_a_schedule_that_could_not_be_kept_is_a_queue():
    [answer], _ = ask(sends(reply(WELL_MET)), intended=0.5)
    assert answer.timing.queue == pytest.approx(0.5, abs=0.05)
    assert answer.timing.total == pytest.approx(0.5, abs=0.2) and answer.timing.total > answer.timing.queue


def test_waiting_for_a_slot_is_told_from_waiting_for_the_server():
    async def slowly(writer):
        await asyncio.sleep(0.1)
        writer.write(with_length(WELL_MET))

    start = time.perf_counter()
    answers, _ = ask(slowly, times=3, concurrency=1)
    first, second, third = (one.timing for one in answers)
    # On a busy machine all may take longer; then those that wait do, too.
    assert min(one.e2e for one in (first, second, third)) > 0.098
    assert first.limiter < 0.05 and second.limiter >= first.e2e and third.limiter >= first.e2e + second.e2e
    assert third.limiter + third.e2e < time.perf_counter() - start


def test_a_retried_reply_has_its_failures_and_its_pauses_beside_its_own_time():
    served = 0

    async def third_time_lucky(writer):
        nonlocal served
        served += 1
        await asyncio.sleep(0.1)
        writer.write(with_length(WELL_MET) if served == 3 else reply(b"{}", status="500 Oh"))
        if served < 3:
            writer.close()

    start = time.perf_counter()
    [answer], attempts = ask(third_time_lucky)
    first, second, third = (attempt.timing for attempt in attempts)
    assert answer.timing == third
    assert min(one.e2e for one in (first, second, third)) > 0.098
    assert first.earlier == 0 and second.earlier >= first.e2e and third.earlier >= first.e2e + second.e2e
    assert first.backoff == 0 and second.backoff > 0.248 and third.backoff - second.backoff > 0.498
    assert third.earlier + third.backoff + third.e2e <= third.total < time.perf_counter() - start
    assert first.sent < second.sent < third.sent


def test_while_one_waits_to_try_again_another_has_its_slot():
    asked = 0

    async def the_first_is_too_soon(writer):
        nonlocal asked
        asked += 1
        if asked == 1:
            writer.write(b"HTTP/1.1 429 Busy\r\nRetry-After: 0.5\r\nContent-Length: 2\r\n\r\n{}")
        else:
            writer.write(with_length(WELL_MET))

    start = time.perf_counter()
    (first, second), _ = ask(the_first_is_too_soon, times=2, concurrency=1)
    assert first.attempts == 2 and first.timing.backoff > 0.45
    assert second.timing.limiter < 0.3  # not the half second that the first one sleeps
    assert time.perf_counter() - start < 2


def test_a_new_connection_is_no_part_of_the_servers_time():
    answers, _ = ask(sends(with_length(WELL_MET), close=False), times=2, concurrency=1)
    first, second = (one.timing for one in answers)
    assert 0 <= second.connect < first.connect < 0.5


def test_what_no_player_sees_is_content_but_not_the_first_that_is_visible():
    answer = streams(
        event(role="assistant", content=""),
        event(reasoning_content="The player greets me."),
        event(content="Well"),
        event(content=" met.", finish="stop"),
        event(done=True),
    )
    [found], _ = ask(answer, stream=True)
    timing = found.timing
    assert found.text == "Well met." and timing.reads == 3
    assert timing.first_event < timing.ttft < timing.ttfv < timing.last < timing.e2e
    steps = [timing.ttft - timing.first_event, timing.ttfv - timing.ttft, timing.last - timing.ttfv]
    assert steps == pytest.approx([0.06] * 3, abs=0.04)
    assert timing.gap == pytest.approx(0.06, abs=0.03) and timing.stall >= timing.gap


def test_a_stall_is_the_longest_pause_between_two_pieces():
    async def stalls(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for pause in (0.02, 0.02, 0.3, 0.02):
            await asyncio.sleep(pause)
            writer.write(event(content="aye "))
        writer.write(event(done=True))
        writer.close()

    [found], _ = ask(stalls, stream=True)
    assert found.timing.stall == pytest.approx(0.3, abs=0.06)
    assert found.timing.gap == pytest.approx(0.34 / 3, abs=0.03)


def test_a_stream_that_stays_open_after_its_end_is_not_waited_for_until_the_deadline():
    start = time.perf_counter()
    [found], [attempt] = ask(streams(event(content="Aye."), event(done=True), close=False), stream=True, timeout=20)
    assert found.text == "Aye." and attempt.final
    assert time.perf_counter() - start < 5
    assert found.timing.e2e < 0.6  # until the last byte, not until we let go


def test_an_attempt_that_was_cut_off_has_the_time_until_then():
    [error], [attempt] = ask(streams(event(content="Aye."), close=False), stream=True, timeout=0.4)
    assert isinstance(error, ServerError)
    assert attempt.timing.e2e == pytest.approx(0.4, abs=0.15)
    assert attempt.timing.ttft == pytest.approx(0.06, abs=0.05)


def test_of_one_piece_nobody_knows_the_pace():
    assert Timing(sent=1.0, e2e=1.0, ttft=0.5, last=0.5, reads=1).gap is None
    assert Timing(sent=1.0, e2e=1.0).gap is None


def test_a_loop_that_is_kept_busy_shows_in_the_lag():
    async def lag(block):
        async def busy():
            while True:
                time.sleep(block)  # noqa: ASYNC251 -- this is the fault
                await asyncio.sleep(0)

        async with Wire(sends(with_length(WELL_MET), close=False)) as server, LLMClient(server.url) as client:
            task = asyncio.create_task(busy()) if block else None
            found = [(await client.complete(REQUEST)).timing.lag for _ in range(5)]
            if task:
                task.cancel()
            return sorted(found)[2]

    assert asyncio.run(lag(0)) < 0.005 < 0.015 < asyncio.run(lag(0.02))
