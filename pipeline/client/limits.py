"""How many requests are in flight: slots, taken for an attempt and given back while its next one has to wait."""

import asyncio
import time
from collections import deque
from typing import Self

from pipeline.client.autolimit import AutoLimit, Change, LimitFinder


class Limiter:
    """At most `limit` at a time, or as many as turn out to be best. Who has waited to try again goes before who is new.

    When the limit shrinks, slots are not handed out until enough have come back.
    """

    def __init__(self, limit: int | AutoLimit) -> None:
        self._fixed = 0 if isinstance(limit, AutoLimit) else limit
        self._finder = LimitFinder(limit, time.perf_counter()) if isinstance(limit, AutoLimit) else None
        self._shut: asyncio.TimerHandle | None = None  # until then the server has asked us to wait
        self._new: deque[asyncio.Future[int]] = deque()
        self._again: deque[asyncio.Future[int]] = deque()
        self.held = 0  # slots

    @property
    def limit(self) -> int:
        return self._finder.limit if self._finder is not None else self._fixed

    @property
    def history(self) -> list[Change]:
        """Of a limit that is found out; else empty."""
        return self._finder.history if self._finder is not None else []

    async def acquire(self, *, again: bool) -> int:
        """Returns how many slots are held from that moment on, this one with them."""
        if self._open:
            self.held += 1
            return self.held
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        (self._again if again else self._new).append(turn)
        return await self._given(turn)

    async def _given(self, turn: "asyncio.Future[int]") -> int:
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given to us in the very moment we left
            raise

    async def pass_on(self) -> int:
        """Release and acquire, behind whoever waits to go on and before whoever is new."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._again.append(turn)
        self.release()
        return await self._given(turn)

    def release(self) -> None:
        self.held -= 1
        self._hand_out()

    def replied(self, *, sent: float, flying: int, tokens: int | None, ttft: float | None) -> None:
        """See `LimitFinder.replied`; for an empty or uncounted reply `tokens` is None or 0."""
        if self._finder is not None:
            self._finder.replied(time.perf_counter(), sent=sent, flying=flying, work=tokens or 1, ttft=ttft)
            self._hand_out()

    def pushed_back(self, *, sent: float, flying: int, wait: float | None) -> None:
        """See `LimitFinder.pushed_back`. For the `wait` seconds that the server has asked for nobody gets a slot: that is
        another clock than the one that keeps a crowd of refusals from being many cuts."""
        if self._finder is not None:
            self._finder.pushed_back(time.perf_counter(), sent=sent, flying=flying)
            if wait and self._shut is None:
                self._shut = asyncio.get_running_loop().call_later(wait, self._reopen)

    @property
    def _open(self) -> bool:
        return self.held < self.limit and self._shut is None

    def _reopen(self) -> None:
        self._shut = None
        self._hand_out()

    def _hand_out(self) -> None:
        for waiting in (self._again, self._new):
            while waiting and self._open:
                turn = waiting.popleft()
                if not turn.done():
                    self.held += 1
                    turn.set_result(self.held)


class Slot:
    """`async with Slot(limiter) as slot:` is one place among those in flight. `waited` is the seconds that taking it took, all
    times together; `taken` the moment of the last time, by `time.perf_counter`."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._held = self._was_held = False
        self._flying = 0
        self.waited = self.taken = 0.0

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.give_back()

    async def take(self) -> None:
        """A slot that is held already is for the next request of the same: see `Limiter.pass_on`."""
        start = time.perf_counter()
        held, self._held = self._held, False
        self._flying = await (self._limiter.pass_on() if held else self._limiter.acquire(again=self._was_held))
        self._held = self._was_held = True
        self.taken = time.perf_counter()
        self.waited += self.taken - start

    def give_back(self) -> None:
        if self._held:
            self._held = False
            self._limiter.release()

    def replied(self, *, tokens: int | None, ttft: float | None) -> None:
        """What the slot was taken for has brought a whole reply."""
        self._limiter.replied(sent=self.taken, flying=self._flying, tokens=tokens, ttft=ttft)

    def pushed_back(self, *, wait: float | None = None) -> None:
        """The server was not up to it, and may have asked to `wait` some seconds."""
        if self._held:
            self._limiter.pushed_back(sent=self.taken, flying=self._flying, wait=wait)


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
