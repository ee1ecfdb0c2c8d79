"""The clock of a request: what it waited for before it was written, and when its answer came, read by read.

Where the transport stamps its reads (`extensions["clock"]`), those stamps count: they are taken where the bytes pass. Else it
is the moment at which we get to see them, which is later when the event loop is busy.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.client.reply import Brought, StreamReader
from pipeline.records import Read, Timing


class Clock(Protocol):
    """Moments by `time.perf_counter`, and the event loop's lag in seconds."""

    @property
    def sent(self) -> float: ...

    @property
    def received(self) -> float: ...

    @property
    def lag(self) -> float: ...


@dataclass(slots=True)
class Waits:
    """Seconds so far, see Timing. `before` is what the slot had waited when it was not yet this request's."""

    queue: float = 0.0
    before: float = 0.0
    limiter: float = 0.0
    backoff: float = 0.0
    earlier: float = 0.0


class Stopwatch:
    """One attempt, which `taken` began: the moment it had its slot."""

    def __init__(self, taken: float) -> None:
        self.clock: Clock | None = None
        self._taken, self._wall = taken, time.time()
        self._first_event: float | None = None
        self._ttft: float | None = None
        self._ttfv: float | None = None
        self._last: float | None = None
        self._end: float | None = None
        self._stall: float | None = None
        self._reads = 0

    async def follow(self, reads: Sequence[Read], reader: StreamReader) -> None:
        """Feed a stream's reads to its reader, and note the moments of those that matter. Of a long one other streams hear
        nothing, so it is done in pieces."""
        for number, (moment, data) in enumerate(reads, 1):
            self._note(moment - self._sent, reader.feed(data))
            if number % 256 == 0:
                await asyncio.sleep(0)

    def _note(self, at: float, brought: Brought) -> None:
        if brought is Brought.NOTHING:
            return
        if self._first_event is None:
            self._first_event = at
        if brought is Brought.EVENT:
            return
        self._reads += 1
        if self._last is None:
            self._ttft = at
        elif self._stall is None or at - self._last > self._stall:
            self._stall = at - self._last
        if self._ttfv is None and brought is Brought.VISIBLE:
            self._ttfv = at
        self._last = at

    def ended(self) -> None:
        """The reply is whole, and the clock stands at the last of its reads."""
        end = self.clock.received if self.clock is not None else time.perf_counter()
        self._end = end - self._sent

    @property
    def _sent(self) -> float:
        return self.clock.sent if self.clock is not None else self._taken

    def timing(self, waits: Waits) -> Timing:
        """As far as it has come: of an attempt that was cut off, `e2e` is the time until now."""
        connect = self._sent - self._taken
        return Timing(
            sent=self._wall + connect,
            e2e=self._end if self._end is not None else time.perf_counter() - self._sent,
            queue=waits.queue,
            limiter=waits.limiter,
            backoff=waits.backoff,
            earlier=waits.earlier,
            connect=connect,
            first_event=self._first_event,
            ttft=self._ttft,
            ttfv=self._ttfv,
            last=self._last,
            reads=self._reads,
            stall=self._stall,
            lag=self.clock.lag if self.clock is not None else None,
        )
