"""The limit finds itself: on simulated servers, in simulated time, and once against a real socket."""

import asyncio
import math
import random
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pytest
from aiohttp import web
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import Simulated, reply_length

from pipeline.client.autolimit import AutoLimit, LimitFinder
from pipeline.client.client import LLMClient
from pipeline.client.limits import Limiter, Slot
from pipeline.errors import Busy, ServerError
from pipeline.records import Message, Request

ASKED = Request(messages=(Message(role="user", content="Well met."),))


@dataclass
class Run:
    finder: LimitFinder
    rate: float  # tokens a second
    ttft: float
    refused: int

    @property
    def settled(self) -> int:
        return [change.limit for change in self.finder.history if change.why != "looked up"][-1]


def run(server, auto=None, *, replies=2000, streams=True, seed=0, demand=math.inf, then=None):
    """As many replies of a simulated server, with never more in flight than the limit and than there are to send. `then` is
    called with the server when half of them are there."""
    dice, finder = random.Random(seed), LimitFinder(auto or AutoLimit(), 0.0)
    now, number, tokens, refused, ttft = 0.0, 0, 0, 0, []
    flying: dict[int, list] = {}
    while len(ttft) < replies:
        while len(flying) < min(finder.limit, demand):
            number += 1
            flying[number] = [now, len(flying) + 1, reply_length(dice), None]
            if not server.arrive(now, number, flying[number][2]):
                sent, with_it, _, _ = flying.pop(number)
                finder.pushed_back(now, sent=sent, flying=with_it)
                refused += 1
                break
        now = server.next()
        for what, name in server.happened(now):
            if what == "first":
                flying[name][3] = now - flying[name][0]
                continue
            sent, with_it, length, first = flying.pop(name)
            ttft.append(first)
            tokens += length
            if then is not None and len(ttft) == replies // 2:
                then(server)
            finder.replied(now, sent=sent, flying=with_it, work=length, ttft=first if streams else None)
    return Run(finder, tokens / now, median(ttft), refused)


def fixed(server, limit):
    return run(server, AutoLimit(start=limit, most=limit), replies=max(300, 10 * limit), demand=limit)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("slots, replies, about", [(1, 1000, {1}), (4, 2000, {4}), (64, 3000, range(60, 68))])
def test_it_settles_at_the_servers_slots(slots, replies, about, streams):
    unloaded = run(Simulated(slots=slots), AutoLimit(start=1, most=1), replies=300)
    best = slots * unloaded.rate
    for seed in range(3):
        found = run(Simulated(slots=slots), replies=replies, streams=streams, seed=seed)
        assert found.settled in about
        assert found.rate >= 0.85 * best  # with its search; the slots, known beforehand, would give all of it
        assert found.ttft <= 2 * unloaded.ttft


def test_a_server_that_says_how_many_slots_it_has_is_never_asked_for_more():
    found = run(Simulated(slots=64), AutoLimit(start=64, most=64), replies=3000)
    assert found.settled == 64 and max(change.limit for change in found.finder.history) == 64


@pytest.mark.parametrize("streams", [True, False])
def test_a_batch_grows_while_it_is_worth_it_and_replies_begin_in_time(streams):
    def gpu():
        return Simulated(slots=512, batching=0.001 / 64, prompt=12)

    unloaded = run(gpu(), AutoLimit(start=1, most=1), replies=300)
    found = run(gpu(), replies=3000, streams=streams)
    if streams:
        assert found.settled > 32 and found.ttft <= 2.1 * unloaded.ttft
    else:  # nobody can know when they begin
        assert found.settled > 64


def test_a_server_that_refuses_is_cut_once_for_a_crowd_and_not_driven_there_again_soon():
    found = run(Simulated(slots=7, places=7, token=0.01), replies=300)
    assert found.settled == 7 and found.refused == 1
    assert [change.why for change in found.finder.history][:3] == ["start", "doubled", "pushed back"]
    queueing = run(Simulated(slots=1, places=7), replies=1000)
    assert queueing.settled == 1 and queueing.refused == 1


def test_a_server_that_becomes_slower_is_searched_anew():
    def shrink(server):
        server.slots = 8

    found = run(Simulated(slots=64), replies=8000, then=shrink)
    assert "again" in {change.why for change in found.finder.history}
    assert 6 <= found.settled <= 9


def test_a_limit_that_is_never_used_does_not_grow():
    found = run(Simulated(slots=64), demand=3)
    assert [change.limit for change in found.finder.history] == [4]
    assert max(c.limit for c in run(Simulated(slots=64), demand=5).finder.history) <= 8


def test_a_start_has_to_be_within_its_bounds():
    for start, most in ((0, 4), (5, 4)):
        with pytest.raises(ValueError, match="cannot start"):
            AutoLimit(start=start, most=most)


@st.composite
def lives(draw):
    most = draw(st.integers(1, 40))
    auto = AutoLimit(start=draw(st.integers(1, most)), most=most)
    return auto, draw(st.integers(0, 2**32)), draw(st.floats(0, 0.3)), draw(st.booleans())


@settings(max_examples=60, deadline=None)
@given(life=lives())
def test_whatever_happens_the_limit_is_within_its_bounds_and_never_grows_right_after_a_push_back(life):
    auto, seed, trouble, streams = life
    dice, now, replied = random.Random(seed), 0.0, 100
    finder = LimitFinder(auto, now)
    for _ in range(1500):
        before = finder.limit
        now += dice.expovariate(100)
        sent, flying = now - dice.lognormvariate(-2, 1), dice.randint(1, before)
        if dice.random() < trouble * dice.random() ** 3:
            finder.pushed_back(now, sent=sent, flying=flying)
            assert finder.limit <= before
            replied = 0
        else:
            ttft = dice.random() if streams else None
            flying = before if dice.random() < 0.8 else flying
            finder.replied(now, sent=max(0.0, sent), flying=flying, work=dice.randint(1, 80), ttft=ttft)
            replied += 1
            assert finder.limit <= before or replied > 5
        assert 1 <= finder.limit <= auto.most
    assert all(a.seconds <= b.seconds for a, b in pairwise(finder.history))
    assert finder.history[-1].limit == finder.limit


def test_when_the_limit_shrinks_slots_are_handed_out_again_only_when_enough_have_come_back():
    async def main():
        limiter = Limiter(AutoLimit(start=10, most=10))
        slots = [Slot(limiter) for _ in range(10)]
        for slot in slots:
            await slot.take()
        slots[0].pushed_back()
        assert limiter.limit == 1  # it was alone when it was sent
        waiting = asyncio.create_task(Slot(limiter).take())
        for slot in slots[:9]:
            slot.give_back()
            await asyncio.sleep(0)
            assert not waiting.done()
        slots[9].give_back()
        await waiting

    asyncio.run(main())


def test_while_the_server_has_asked_to_wait_nobody_gets_a_slot():
    async def main():
        limiter = Limiter(AutoLimit())
        first = Slot(limiter)
        await first.take()
        first.pushed_back(wait=0.05)
        first.give_back()
        start = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            await Slot(limiter).take()
        return asyncio.get_running_loop().time() - start

    assert asyncio.run(main()) >= 0.04


def test_a_real_server_of_seven_places_answers_everything_and_refuses_little():
    places = asyncio.Semaphore(7)
    refused = 0

    class Kobold(FakeServer):
        async def _chat(self, request):
            nonlocal refused
            if places.locked():
                refused += 1
                return web.json_response({"error": {"message": "busy"}}, status=503)
            async with places:
                await asyncio.sleep(0.005)
                return await super()._chat(request)

    async def main(url):
        async with LLMClient(url, concurrency=AutoLimit()) as client:
            todo, replies = iter(range(400)), []

            async def work():
                for _ in todo:
                    replies.append(await client.complete(ASKED))

            await asyncio.gather(*(work() for _ in range(64)))
            return replies, client.limits

    with Kobold() as server:
        replies, limits = asyncio.run(main(server.url))
    assert len(replies) == 400 and all(reply.text for reply in replies)
    assert 0 < refused < 20
    assert "pushed back" in {change.why for change in limits}


def test_a_refusal_that_waiting_does_not_mend_is_no_push_back():
    spent = web.json_response
    with FakeServer(fault=lambda _: spent({"error": {"code": "insufficient_quota"}}, status=429)) as server:

        async def main():
            async with LLMClient(server.url, concurrency=AutoLimit()) as client:
                with pytest.raises(ServerError) as caught:
                    await client.complete(ASKED)
                return caught.value, client.limits

        error, limits = asyncio.run(main())
    assert isinstance(error, Busy) and [change.why for change in limits] == ["start"]
