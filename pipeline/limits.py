"""How many requests are in flight: slots, taken for an attempt and given back while its next one has to wait."""

import asyncio
import time
from collections import deque
from typing import Self


class Limiter:
    """At most `slots` at a time. Who has waited to try again goes before who is new."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._new: deque[asyncio.Future[None]] = deque()
        self._again: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, again: bool) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        (self._again if again else self._new).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given to us in the very moment we left
            raise

    def release(self) -> None:
        for waiting in (self._again, self._new):
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


class Slot:
    """`async with Slot(limiter) as slot:` is one place among those in flight. `waited` is the seconds that taking it took, all
    times together."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._held = self._was_held = False
        self.waited = 0.0

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.give_back()

    async def take(self) -> None:
        start = time.perf_counter()
        await self._limiter.acquire(again=self._was_held)
        self._held = self._was_held = True
        self.waited += time.perf_counter() - start

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._limiter.release()


class Turns:
    """One after another, with a look at the network in between.

    Replies that end together would be read, scored and followed by the next requests in one go, and whatever arrives in the
    meantime would be stamped late by all of it.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.append(mine)
            await mine
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
