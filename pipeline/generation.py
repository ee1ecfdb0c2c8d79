"""Requests out, answers into the journal. Knows neither scorers nor progress nor what a persona is.

A fixed number of workers pull from one plan: no task a row, and a slow reply holds up no other. A request that fails costs
its row; a server that is gone ends the run.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.client import LLMClient
from pipeline.conversation import Ask, Walk
from pipeline.errors import RunStopped, ServerError
from pipeline.journal import Journal
from pipeline.limits import Slot
from pipeline.records import Completion

GONE_AFTER_SECONDS = 60.0
GONE_AFTER_FAILURES = 20
_SYNC_EVERY = 0.1  # seconds
_GRACE = 5.0  # seconds for what is in flight when a run is told to stop
_WAITING = 64

_FAR = 10_000  # conversations between who asks and who reads: beyond it, asking waits

OnReply = Callable[[Completion | None], None]
OnSettled = Callable[[int], None]


@dataclass(slots=True)
class Tally:
    """What this invocation did. `kept` answers were in the journal before it began."""

    kept: int = 0
    answered: int = 0
    failed: int = 0
    last_error: str = ""


async def run(
    walk: Walk,
    client: LLMClient,
    journal: Journal,
    *,
    stop: asyncio.Event,
    on_reply: OnReply,
    on_settled: OnSettled,
) -> Tally:
    """Ask all that is not answered yet. Raises RunStopped if the journal or the server is gone.

    Setting `stop` sends nothing more and waits a moment for what is in flight. `on_reply` gets each completion, None for a
    failure; `on_settled` the number of conversations from the beginning of the plan that are settled: their turns can be
    taken from the walk while the rest is being asked for.
    """
    tally = Tally()
    asks = walk.asks()
    flying: set[int] = set()  # places in the plan
    taken = 0
    broken = False
    last_success = time.monotonic()
    failures_since = 0

    async def work() -> None:
        nonlocal broken
        try:
            while not (stop.is_set() or broken):
                while walk.ahead > _FAR and flying:  # noqa: ASYNC110 -- rare, and simpler than an event
                    await asyncio.sleep(0.01)
                # What to ask next is decided only when it can be sent: the plan keeps its order, and nothing waits in here.
                async with client.slot() as slot:
                    ask = await next_open()
                    if ask is None:
                        return
                    await settle(ask, slot)
        except BaseException:
            broken = True  # nobody sends anything more
            raise

    async def next_open() -> Ask | None:
        nonlocal taken
        for ask in asks:
            if stop.is_set() or broken:
                return None
            taken = ask.place + 1
            if not journal.answered(ask.key):
                flying.add(ask.place)
                return ask
            tally.kept += 1
            on_settled(min(flying, default=taken))
            if tally.kept % 256 == 0:
                await asyncio.sleep(0)  # a long run of answered rows must not starve the replies
        return None

    async def settle(ask: Ask, slot: Slot) -> None:
        nonlocal last_success, failures_since
        try:
            reply = await client.complete(
                ask.request, partial(journal.append, ask.key, ask.about), slot=slot, stop=stop
            )
        except ServerError as exc:
            flying.remove(ask.place)
            tally.failed += 1
            tally.last_error = str(exc)
            failures_since += 1
            on_reply(None)
            on_settled(min(flying, default=taken))
            silent = time.monotonic() - last_success
            if failures_since >= GONE_AFTER_FAILURES:
                if not tally.answered and not exc.retryable:
                    raise RunStopped(f"the server refuses everything. The last error: {exc}") from exc
                if silent >= GONE_AFTER_SECONDS:
                    raise RunStopped(f"no answer for {silent:.0f} s. The last error: {exc}") from exc
            return
        flying.remove(ask.place)
        tally.answered += 1
        last_success, failures_since = time.monotonic(), 0
        walk.answered(ask, reply)
        on_reply(reply)
        on_settled(min(flying, default=taken))

    async def sync() -> None:
        while True:
            await asyncio.sleep(_SYNC_EVERY)
            await asyncio.to_thread(journal.sync)

    # Beside those in flight (at the most: the limit may grow), some that wait for a retry, their slots given back.
    workers = [asyncio.create_task(work()) for _ in range(client.concurrency + max(client.concurrency, _WAITING))]
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
