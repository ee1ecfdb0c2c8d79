"""Requests go out, answers come in; what goes wrong with one row is that row's affair."""

import asyncio
import json
import time

import httpx
import pytest

from pipeline.client.client import LLMClient
from pipeline.errors import RunStopped
from pipeline.records import Completion, Message, Request, digest
from pipeline.run import generation
from pipeline.run.conversation import Ask
from pipeline.run.journal import Journal


class Talk:
    """As much of a conversation as asking needs: so many turns, the NPC's and the player's one after the other."""

    def __init__(self, walk, place: int, turns: int) -> None:
        self.place, self._walk, self._turns = place, walk, turns

    def open(self) -> Ask | None:
        said = self._walk.completions.setdefault(self.place, [])
        while len(said) < self._turns:
            key = digest(self.place, len(said)) if said else digest(self.place)
            if not self._walk.journal.answered(key):
                content = f"{self.place}/{len(said)}" if self._turns > 1 else str(self.place)
                request = Request(messages=(Message(role="user", content=content),))
                return Ask(self.place, key, f"persona {self.place}", request, ("npc", "player")[len(said) % 2])
            said.append(None)
        return None

    def heard(self, completion: Completion) -> None:
        self._walk.completions[self.place].append(completion)


class Walk:
    """As much of a walk as asking needs; `settled` is what the one who reads would be told."""

    def __init__(self, count: int, journal, turns: int = 1) -> None:
        self.ahead, self.journal = 0, journal
        self.completions: dict[int, list[Completion | None]] = {}
        self.settled: list[int] = []
        self._talks = [Talk(self, place, turns) for place in range(count)]

    def talks(self):
        return iter(self._talks)


def answer(text: str = "Aye.") -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def asked(request: httpx.Request) -> int:
    return int(json.loads(request.content)["messages"][0]["content"])


def run(
    handler, count, journal, *, concurrency=4, stop_after=None, on_reply=None, timeout=5.0, walk_of=None, player=None
):
    async def main():
        stop = asyncio.Event()
        if stop_after is not None:
            asyncio.get_running_loop().call_later(stop_after, stop.set)

        def client(handler):
            transport = httpx.MockTransport(handler)
            return LLMClient("http://npc", transport=transport, timeout=timeout, concurrency=concurrency)

        journal.freeze()
        walk = walk_of or Walk(count, journal)
        return await generation.run(
            walk,
            client(handler),
            journal,
            player=client(player) if player else None,
            stop=stop,
            on_reply=on_reply or (lambda completion, speaker: None),
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

    def on_reply(completion, speaker):
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
    walk = Walk(12, journal)

    async def server(request):
        await asyncio.sleep(0.15 if asked(request) == 3 else 0.005)
        return answer()

    run(server, 12, journal, concurrency=4, walk_of=walk)
    assert walk.settled[-1] == 12
    assert 3 in walk.settled and walk.settled.count(3) >= 5  # while the fourth is awaited, three are settled
    assert set(walk.completions) == set(range(12))


def test_who_asks_does_not_run_away_from_who_reads(journal):
    walk = Walk(200, journal)
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


def test_a_conversation_goes_on_before_a_new_one_begins_and_each_asks_one_thing_at_a_time(journal):
    walk, order, flying = Walk(30, journal, turns=5), [], set()

    async def server(request):
        place, number = map(int, json.loads(request.content)["messages"][0]["content"].split("/"))
        assert place not in flying and number == len(walk.completions[place])
        flying.add(place)
        order.append((place, number))
        assert len(flying) <= 3
        await asyncio.sleep(0.001)
        flying.remove(place)
        return answer()

    tally = run(server, 0, journal, concurrency=3, walk_of=walk)
    assert tally.answered == 150 and len(set(order)) == 150
    begun = [order.index((place, 0)) for place in range(30)]
    assert begun == sorted(begun)
    assert begun[6] > order.index((0, 4))  # of the first, all is asked before the seventh begins
    assert walk.settled[-1] == 30


def test_who_waits_for_the_player_holds_no_slot_of_the_npcs_server(journal):
    """One slot each: while the slow player of one conversation thinks, the NPCs of all others answer."""
    walk, asked = Walk(8, journal, turns=3), []

    async def npc(request):
        asked.append(json.loads(request.content)["messages"][0]["content"])
        return answer()

    async def player(request):
        if not waited.is_set():
            while len([one for one in asked if one.endswith("/0")]) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            waited.set()
        return answer("And?")

    waited = asyncio.Event()
    tally = run(npc, 0, journal, concurrency=1, walk_of=walk, player=player)
    assert tally.answered == 24 and len(asked) == 16


def test_a_failure_costs_its_conversation_the_rest_and_no_other(journal):
    walk = Walk(6, journal, turns=4)

    def server(request):
        content = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(400, json={"error": "too long"}) if content == "2/1" else answer()

    tally = run(server, 0, journal, walk_of=walk)
    assert (tally.answered, tally.failed) == (5 * 4 + 1, 1)


def test_a_players_server_that_is_gone_ends_the_run_though_the_npcs_answer(journal, monkeypatch):
    monkeypatch.setattr(generation, "GONE_AFTER_SECONDS", 0.1)

    def gone(request):
        raise httpx.ConnectError("Connection refused", request=request)

    with pytest.raises(RunStopped, match="Connection refused"):
        run(lambda request: answer(), 0, journal, walk_of=Walk(2000, journal, turns=2), player=gone, timeout=0.05)
