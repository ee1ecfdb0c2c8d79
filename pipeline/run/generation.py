"""Requests out, answers into the journal. Knows neither scorers nor progress nor what a persona is.

A fixed number of workers pull from one plan: no task a row. Each carries one conversation to its end, and has a slot only
while it asks: a slow reply holds up no other, and who goes on comes before who is new. A request that fails costs its
conversation the rest, until somebody asks again; a server that is gone ends the run.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.client.client import LLMClient
from pipeline.client.limits import Slot
from pipeline.errors import RunStopped, ServerError
from pipeline.records import Completion, Speaker
from pipeline.run.conversation import Talk, Walk
from pipeline.run.journal import Journal

GONE_AFTER_SECONDS = 60.0
GONE_AFTER_FAILURES = 20
_SYNC_EVERY = 0.1  # seconds
_GRACE = 5.0  # seconds for what is in flight when a run is told to stop
_WAITING = 64

_FAR = 10_000  # conversations between who asks and who reads: beyond it, asking waits

OnReply = Callable[[Completion | None, Speaker], None]
OnSettled = Callable[[int], None]


@dataclass(slots=True)
class Tally:
    """What this invocation did. Of `kept` conversations all answers were in the journal before it began."""

    kept: int = 0
    answered: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Pulse:
    """Of a server: when it last answered, and how often it has failed since."""

    last_success: float
    answered: int = 0
    failures: int = 0

    def answer(self) -> None:
        self.last_success, self.failures = time.monotonic(), 0
        self.answered += 1

    def failure(self, exc: ServerError) -> None:
        """Raises RunStopped if nobody is there any more."""
        self.failures += 1
        silent = time.monotonic() - self.last_success
        if self.failures >= GONE_AFTER_FAILURES:
            if not self.answered and not exc.retryable:
                raise RunStopped(f"the server refuses everything. The last error: {exc}") from exc
            if silent >= GONE_AFTER_SECONDS:
                raise RunStopped(f"no answer for {silent:.0f} s. The last error: {exc}") from exc


async def run(
    walk: Walk,
    client: LLMClient,
    journal: Journal,
    *,
    player: LLMClient | None = None,
    stop: asyncio.Event,
    on_reply: OnReply,
    on_settled: OnSettled,
) -> Tally:
    """Ask all that is not answered yet. Raises RunStopped if the journal or a server is gone.

    `player` is who plays the player, where it is another server. Setting `stop` sends nothing more and waits a moment for what
    is in flight. `on_reply` gets each completion, None for a failure, and who was to speak; `on_settled` the number of conversations
    from the beginning of the plan that are settled: their turns can be taken from the walk while the rest is being asked for.
    """
    tally = Tally()
    talks = walk.talks()
    clients: dict[Speaker, LLMClient] = {"npc": client, "player": player or client}
    pulses = {one: _Pulse(time.monotonic()) for one in clients.values()}
    flying: set[int] = set()  # places in the plan
    taken = 0
    broken = False

    async def work() -> None:
        nonlocal broken
        try:
            while not (stop.is_set() or broken):
                while walk.ahead > _FAR and flying:  # noqa: ASYNC110 -- rare, and simpler than an event
                    await asyncio.sleep(0.01)
                # What to ask next is decided only when it can be sent: the plan keeps its order, and nothing waits in here.
                async with client.slot() as slot:
                    talk = await next_open()
                    if talk is None:
                        return
                    await carry(talk, slot)
                    flying.remove(talk.place)
                    on_settled(min(flying, default=taken))
        except BaseException:
            broken = True  # nobody sends anything more
            raise

    async def next_open() -> Talk | None:
        nonlocal taken
        for talk in talks:
            if stop.is_set() or broken:
                return None
            taken = talk.place + 1
            if talk.open() is not None:
                flying.add(talk.place)
                return talk
            tally.kept += 1
            on_settled(min(flying, default=taken))
            if tally.kept % 256 == 0:
                await asyncio.sleep(0)  # a long run of answered rows must not starve the replies
        return None

    async def carry(talk: Talk, slot: Slot) -> None:
        """Ask one thing after another, until the conversation is over or something fails."""
        slots, asked, fresh = {client: slot}, client, True
        try:
            while (ask := talk.open()) is not None:
                one = clients[ask.speaker]
                if one is not asked:
                    slots[asked].give_back()
                    asked, fresh = one, False
                slot = slots.setdefault(one, one.slot())
                if not fresh:
                    await slot.take()
                if stop.is_set() or broken:
                    return
                fresh = False
                try:
                    reply = await one.complete(
                        ask.request, partial(journal.append, ask.key, ask.about), slot=slot, stop=stop
                    )
                except ServerError as exc:
                    tally.failed += 1
                    on_reply(None, ask.speaker)
                    pulses[one].failure(exc)
                    return
                tally.answered += 1
                pulses[one].answer()
                talk.heard(reply)
                on_reply(reply, ask.speaker)
        finally:
            for slot in slots.values():
                slot.give_back()

    async def sync() -> None:
        while True:
            await asyncio.sleep(_SYNC_EVERY)
            await asyncio.to_thread(journal.sync)

    # Beside those in flight (at the most: the limit may grow), some that wait for a retry, their slots given back.
    workers = [
        asyncio.create_task(work())
        for _ in range(sum(one.concurrency + max(one.concurrency, _WAITING) for one in pulses))
    ]
    syncing = asyncio.create_task(sync())
    stopping = asyncio.create_task(stop.wait())
    everything = asyncio.gather(*workers)
    try:
        waiting: set[asyncio.Future[Any]] = {everything, syncing, stopping}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if syncing.done():
            await syncing  # raises
        if not everything.done():
            await asyncio.wait({everything}, timeout=_GRACE)
        if everything.done():
            await everything
    finally:
        for task in (*workers, syncing, stopping):
            task.cancel()
        await asyncio.gather(*workers, syncing, stopping, everything, return_exceptions=True)
        journal.sync()
    return tally
