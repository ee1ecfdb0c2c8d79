"""Requests go out, answers come in; what goes wrong with one row is that row's affair."""

import asyncio
import json
import time

import httpx
import pytest

from pipeline import generation
from pipeline.client import LLMClient
from pipeline.conversation import Ask
from pipeline.errors import RunStopped
from pipeline.journal import Journal
from pipeline.records import Completion, Message, Request, digest


def asks(count: int) -> list[Ask]:
    return [
        Ask(n, digest(n), f"persona {n}", Request(messages=(Message(role="user", content=str(n)),)))
        for n in range(count)
    ]


class Walk:
    """As much of a walk as asking needs; `settled` is what the one who reads would be told."""

    def __init__(self, count: int) -> None:
        self.ahead = 0
        self.completions: dict[int, Completion] = {}
        self.settled: list[int] = []
        self._asks = asks(count)

    def asks(self):
        return iter(self._asks)

    def answered(self, ask, completion):
        self.completions[ask.place] = completion


def answer(text: str = "Aye.") -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def asked(request: httpx.Request) -> int:
    return int(json.loads(request.content)["messages"][0]["content"])


def run(handler, count, journal, *, concurrency=4, stop_after=None, on_reply=None, timeout=5.0, walk_of=None):
    async def main():
        stop = asyncio.Event()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)
        client = LLMClient(
            "http://npc", transport=httpx.MockTransport(handler), timeout=timeout, concurrency=concurrency
        )
        journal.freeze()
        walk = walk_of or Walk(count)
        return await generation.run(
            walk,
            client,
            journal,
            stop=stop,
            on_reply=on_reply or (lambda completion: None),
            on_settled=walk.settled.append,
        )

    return asyncio.run(main())


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "npc.jsonl")
    yield journal
    journal.close()


def test_one_bad_row_costs_one_row(journal):
    def server(request):
        return httpx.Response(400, json={"error": "too long"}) if asked(request) == 7 else answer()

    tally = run(server, 30, journal)
    assert (tally.answered, tally.failed) == (29, 1)
    journal.freeze()
    found = journal.find(digest(7))
    assert found is not None and found.attempt.status == 400 and "too long" in (found.attempt.error or "")


def test_what_is_answered_is_not_asked_again(journal):
    sent = []

    def server(request):
        sent.append(asked(request))
        return httpx.Response(503) if asked(request) == 3 and sent.count(3) < 3 else answer()

    run(server, 10, journal)
    before = len(sent)
    assert before == 12
    tally = run(server, 10, journal)
    assert tally.kept == 10
    assert len(sent) == before


def test_never_more_in_flight_than_asked_for_and_a_slow_reply_holds_up_no_other(journal):
    flying = most = 0
    finished = []

    async def server(request):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.3 if asked(request) == 0 else 0.002)
        flying -= 1
        finished.append(asked(request))
        return answer()

    run(server, 60, journal, concurrency=3)
    assert most == 3
    assert finished[-1] == 0 and len(finished) == 60


def test_each_reply_is_in_the_journal_before_anybody_hears_of_it(journal):
    seen = []

    def on_reply(completion):
        seen.append(len(journal))

    run(lambda request: answer(), 20, journal, on_reply=on_reply)
    assert seen == sorted(seen) and all(length >= heard for heard, length in enumerate(seen, 1))


def test_a_server_that_refuses_everything_ends_the_run_soon(journal):
    sent = []

    def server(request):
        sent.append(1)
        return httpx.Response(401, json={"error": "no key"})

    with pytest.raises(RunStopped, match="LLM_API_KEY"):
        run(server, 1000, journal)
    assert len(sent) < 40


def test_a_server_that_is_gone_ends_the_run(journal, monkeypatch):
    monkeypatch.setattr(generation, "GONE_AFTER_SECONDS", 0.2)

    def server(request):
        raise httpx.ConnectError("Connection refused", request=request)

    began = time.monotonic()
    with pytest.raises(RunStopped, match=r"no answer for .*Connection refused"):
        run(server, 20_000, journal, timeout=0.05, concurrency=8)
    assert time.monotonic() - began < 30


def test_told_to_stop_it_sends_nothing_more_and_waits_for_what_is_in_flight(journal):
    sent = []

    async def server(request):
        sent.append(asked(request))
        await asyncio.sleep(0.05)
        return answer()

    tally = run(server, 1000, journal, concurrency=4, stop_after=0.12)
    assert tally.answered == len(sent) < 40
    journal.freeze()
    assert all(journal.answered(digest(n)) for n in sent)


def test_a_broken_journal_stops_the_run(journal, monkeypatch):
    calls = 0

    def full(key, about, attempt):
        nonlocal calls
        calls += 1
        raise RunStopped("npc.jsonl: cannot be written: No space left on device")

    monkeypatch.setattr(journal, "append", full)
    with pytest.raises(RunStopped, match="No space left"):
        run(lambda request: answer(), 1000, journal)
    assert calls <= 8


def test_settled_is_what_nobody_waits_for_any_more(journal):
    walk = Walk(12)

    async def server(request):
        await asyncio.sleep(0.15 if asked(request) == 3 else 0.005)
        return answer()

    run(server, 12, journal, concurrency=4, walk_of=walk)
    assert walk.settled[-1] == 12
    assert 3 in walk.settled and walk.settled.count(3) >= 5  # while the fourth is awaited, three are settled
    assert set(walk.completions) == set(range(12))


def test_who_asks_does_not_run_away_from_who_reads(journal):
    walk = Walk(200)
    walk.ahead = 10**6
    flown = []

    async def server(request):
        flown.append(asked(request))
        await asyncio.sleep(0.2 if asked(request) == 0 else 0.001)
        if asked(request) == 0:
            assert len(flown) <= 4
            walk.ahead = 0
        return answer()

    tally = run(server, 200, journal, concurrency=4, walk_of=walk)
    assert tally.answered == 200
