"""How many are in flight: never more than allowed, retries before newcomers, and no place lost to a cancelled one."""

import asyncio
import random
import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.limits import Limiter, Slot, Turns


@settings(max_examples=50, deadline=None)
@given(slots=st.integers(1, 5), count=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_never_more_hold_a_slot_than_there_are_and_none_is_lost_whoever_is_cancelled(slots, count, seed):
    dice = random.Random(seed)

    async def main():
        limiter, held, most = Limiter(slots), 0, 0

        async def one():
            nonlocal held, most
            async with Slot(limiter) as slot:
                for _ in range(dice.randrange(1, 4)):
                    held += 1
                    most = max(most, held)
                    try:
                        await asyncio.sleep(0)
                    finally:
                        held -= 1
                    slot.give_back()
                    await asyncio.sleep(0)
                    await slot.take()

        tasks = [asyncio.create_task(one()) for _ in range(count)]
        for task in dice.sample(tasks, count // 2):
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= slots
        async with asyncio.timeout(5):
            for _ in range(slots):  # all of them are there again
                await limiter.acquire(again=False)

    asyncio.run(main())


def test_who_tries_again_goes_before_who_is_new_and_each_in_the_order_of_coming():
    async def main():
        limiter, order = Limiter(1), []
        held = Slot(limiter)
        await held.take()

        async def take(name, slot):
            await slot.take()
            order.append(name)
            slot.give_back()

        tasks = []
        for name in ("new 1", "again 1", "new 2", "again 2"):
            slot = Slot(limiter)
            slot._was_held = name.startswith("again")
            tasks.append(asyncio.create_task(take(name, slot)))
            await asyncio.sleep(0)
        held.give_back()
        held.give_back()  # twice is once
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == ["again 1", "again 2", "new 1", "new 2"]


def test_a_slot_knows_how_long_it_was_waited_for_in_all():
    async def main():
        limiter = Limiter(1)
        first, second = Slot(limiter), Slot(limiter)
        began = time.monotonic()
        await first.take()
        for _ in range(2):
            taking = asyncio.create_task(second.take())
            await asyncio.sleep(0.05)
            first.give_back()
            await taking
            taking = asyncio.create_task(first.take())
            await asyncio.sleep(0)
            second.give_back()
            await taking
        return first.waited, second.waited, time.monotonic() - began

    first, second, spent = asyncio.run(main())
    assert second > 0.098 and first + second <= spent  # one waits while the other has it


def test_between_two_turns_the_loop_looks_at_the_network():
    async def main():
        turns, seen = Turns(), []

        async def work(name):
            await turns.turn()
            seen.append(name)
            asyncio.get_running_loop().call_soon(seen.append, "a round")

        await asyncio.gather(*(work(n) for n in range(4)))
        leaves = asyncio.create_task(turns.turn())
        stays = asyncio.create_task(turns.turn())
        await asyncio.sleep(0)
        leaves.cancel()
        async with asyncio.timeout(5):
            await stays  # whoever is cancelled holds up nobody
        return seen

    seen = asyncio.run(main())
    assert [name for name in seen if name != "a round"] == [0, 1, 2, 3]
    assert not any(a != "a round" and b != "a round" for a, b in pairwise(seen))


def test_who_passes_its_slot_on_comes_after_those_who_go_on_and_before_the_new():
    order = []

    async def main():
        limiter = Limiter(1)
        going = Slot(limiter)
        await going.take()

        async def new(name):
            async with Slot(limiter):
                order.append(name)

        async def again(name, slot):
            await slot.take()
            order.append(name)
            slot.give_back()

        other = Slot(limiter)
        other._was_held = True
        tasks = [asyncio.create_task(new("new")), asyncio.create_task(again("other", other))]
        await asyncio.sleep(0)
        await going.take()
        order.append("going on")
        going.give_back()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert order == ["other", "going on", "new"]
