"""How many requests should be in flight? Found out while a run goes on, from nothing but its replies.

    double while it pays --> narrow down to the least that is enough --> hold, and look up now and then
              a push-back: cut, begin again from there, and for a while do not go where it came from

By Little's law (J. D. C. Little, Operations Research 9, 1961: L = X W) the throughput is the limit times the mean rate of one
stream, as long as the limit is really used. It is worked out from replies that were sent after the limit was last changed.
Raw latency would tell nothing: it follows the lengths of the replies.

Beyond the knee throughput stays and replies queue; the least limit that is enough has the best latency of all that are. More
in flight makes no single reply faster, so that k times as many bring k times the throughput at most: what was measured below
the knee says already where it is at the least, and saves most of the narrowing.

No I/O and no clock in here: moments are handed in, in seconds of any steady clock.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple, TypeAlias

_PAYS = 0.15  # of what a higher limit could bring (twice the limit, twice the throughput): less is not worth it
_CLEARLY = 0.45  # the same, where a few replies are enough to say so
_ENOUGH = 0.92  # of the best throughput
_LACKS = 0.75  # of enough: where a few replies are enough to say that it is not
_NEAR = 1.1  # limits with a smaller ratio are not told apart
_SLOW = (
    1.9  # times to first token: that many times the best known, which is rarely quite unloaded: so at most twice that
)
_FEW, _MANY = 6, 64  # replies that a clear difference takes, and a small one; more where more are in flight
_CUT = 0.8  # of what was in flight when the server pushed back
_REMEMBERED = 60.0  # seconds for which a push-back is a ceiling
_CHANGED = 0.25  # of the throughput: beyond it the server is not what it was
_PATIENCE = 16  # measurements between one look up and the next; twice as many after each that was in vain


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoLimit:
    """Find out how many requests should be in flight: begin with `start`, and never have more than `most`.

    Where a server says how many slots it has, both are that number. Raises ValueError unless 1 <= start <= most.
    """

    start: int = 4
    most: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.most:
            raise ValueError(f"a limit cannot start at {self.start} when it may be 1 to {self.most}")


class Change(NamedTuple):
    """From `seconds` after the start on the limit is `limit`; `why` in a word or two."""

    seconds: float
    limit: int
    why: str


class _Sample:
    """What the replies tell that were sent while the limit was `limit`. `flying` is how many were in flight when a reply was
    sent, itself with them: those that found the limit used up are `full`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.replies = self.full = 0
        self._work = self._held = self._full_work = self._full_held = self._work_then = 0.0
        self._ttft: list[float] = []

    def add(self, flying: int, work: float, held: float, ttft: float | None) -> None:
        self.replies += 1
        self._work += work
        self._held += held
        self._work_then += flying * work
        if flying >= self.limit:
            self.full += 1
            self._full_work += work
            self._full_held += held
            if ttft is not None:
                self._ttft.append(ttft)

    @property
    def whole(self) -> bool:
        """As many replies as it takes to see a small difference."""
        return self.full >= max(_MANY, self.limit)

    @property
    def clear(self) -> bool:
        """As many as it takes to see a large one."""
        return self.full > 0 and self.replies >= max(_FEW, self.limit // 4)

    @property
    def throughput(self) -> float:
        """Work per second: the limit times the rate of a stream. Rather too much until it is whole: who comes first to a queue
        waits less than those who follow."""
        work, held = (self._full_work, self._full_held) if self.whole else (self._work, self._held)
        return self.limit * work / max(held, 1e-9)

    @property
    def at_least(self) -> float:
        """The same by what was in flight when each reply was sent: rather too little until it is whole."""
        return self.throughput if self.whole else self._work_then / max(self._held, 1e-9)

    @property
    def ttft(self) -> float | None:
        return median(self._ttft) if self._ttft else None


Seen: TypeAlias = Callable[[_Sample], bool]  # whether a few replies have shown enough
_Wanted: TypeAlias = tuple[int, str, Seen]  # measure at this limit, why, and unless seen earlier until it is whole
_Plan: TypeAlias = Generator[_Wanted, _Sample, None]


class LimitFinder:
    """The limit as it should be at any moment, given what became of the requests. `began` is the moment of the start."""

    def __init__(self, auto: AutoLimit, began: float) -> None:
        self.limit = auto.start
        self.history = [Change(0.0, auto.start, "start")]
        self._start, self._most = auto.start, auto.most
        self._began = self._now = began
        self._since = self._cut = -math.inf
        self._ceilings: list[tuple[float, int]] = []
        self._known: dict[int, _Sample] = {}
        self._unloaded = math.inf  # seconds to the first token, the least median of any limit
        self._plan = self._search("start", _at_once, auto.start)
        self._wanted(next(self._plan))

    def replied(self, now: float, *, sent: float, flying: int, work: float, ttft: float | None) -> None:
        """A whole reply has come. `flying` requests were in flight when it was sent at the moment `sent`, itself with them;
        `work` is its length in tokens, or 1 for each where nobody counts them; `ttft` in seconds, where it is known."""
        self._now = now
        if sent < self._since:
            return
        sample = self._sample
        sample.add(flying, work, now - sent, ttft)
        if sample.whole or (sample.clear and self._seen(sample)):
            self._wanted(self._plan.send(sample))

    def pushed_back(self, now: float, *, sent: float, flying: int) -> None:
        """The server was not up to it: a 429, a 503, or no whole reply by the deadline.

        What was sent before the last cut says nothing about the limit since, so that a crowd of refusals is one cut.
        """
        self._now = now
        if sent < self._cut:
            return
        self._cut = now
        self._ceilings.append((now + _REMEMBERED, max(1, flying - 1)))
        self._plan = self._search("pushed back", _never, max(1, min(self.limit, int(flying * _CUT))))
        self._wanted(next(self._plan))

    def _wanted(self, wanted: _Wanted) -> None:
        limit, why, self._seen = wanted
        self._sample = _Sample(limit)
        if limit != self.limit or (why == "settled" and self.history[-1].why != why):
            self.history.append(Change(self._now - self._began, limit, why))
        if limit != self.limit:
            self.limit, self._since = limit, self._now

    def _search(self, why: str, seen: Seen, limit: int) -> _Plan:
        """Find the limit, hold it, and do so again when the server is no longer what it was."""
        while True:
            self._known.clear()
            limit = yield from self._grow(limit, why, seen)
            limit = yield from self._narrow(limit)
            yield from self._hold(limit)
            self._unloaded = math.inf
            limit, why, seen = min(limit, self._start), "again", _at_once

    def _grow(self, limit: int, why: str, seen: Seen) -> Generator[_Wanted, _Sample, int]:
        """Double as long as it pays; returns the last that paid."""
        here = yield limit, why, seen  # not known for good: who came first may have waited for the model to be loaded
        self._unloaded = min(self._unloaded, here.ttft or math.inf)
        while (higher := self._higher(limit)) > limit * _NEAR:
            before = here
            here = yield from self._measure(higher, "doubled", partial(self._pays, than=before, share=_CLEARLY))
            if here.whole and not before.whole:  # a few replies are the first to come, which are the short ones
                before = yield from self._measure(limit, "compared", _never)
            if not self._pays(here, before, _PAYS):
                break
            limit = higher
        return limit

    def _narrow(self, paid: int) -> Generator[_Wanted, _Sample, int]:
        """Between the highest limit that is not enough and the lowest that is; returns the latter."""
        if paid not in self._known or not self._known[paid].whole:
            yield from self._measure(paid, "narrowed", _never)
        while True:
            best = max((s for s in self._known.values() if s.whole), key=lambda s: s.throughput)
            target = _ENOUGH * best.throughput
            enough = min(n for n, s in self._known.items() if s.throughput >= target or self._slow(s))
            # More in flight brings at most as much more: below these it cannot be enough either. But if the best is too slow, the
            # most that is not may lie anywhere in between.
            least = 1.0
            for n, sample in self._known.items():
                if n < enough and _lacks(sample, target):
                    at_most = sample.throughput * (1.0 if sample.whole else _NEAR)
                    least = max(least, n + 1 if self._slow(best) else n * target / max(at_most, 1e-9))
            if enough <= math.ceil(least) or enough < least * _NEAR:
                return max(1, min(enough - 1, int(least))) if self._slow(self._known[enough]) else enough
            between = max(math.ceil(least), enough // 2, round(math.sqrt(least * enough)))
            yield from self._measure(min(between, enough - 1), "narrowed", partial(_lacks, target=target))

    def _hold(self, limit: int) -> _Plan:
        """Stay at the limit as long as the server is what it was, and look now and then whether a higher one would pay."""
        settled = yield from self._measure(limit, "settled", _never)
        patience, strikes = _PATIENCE, 0
        while True:
            for _ in range(patience):
                now = yield limit, "settled", _never
                strikes = strikes + 1 if _differs(now, settled) else 0
                if strikes == 2:
                    return
            if (higher := self._higher(limit)) > limit * _NEAR:
                look = yield higher, "looked up", partial(self._pays, than=settled, share=_CLEARLY)
                if self._pays(look, settled, _PAYS):
                    return
            patience *= 2

    def _measure(self, limit: int, why: str, seen: Seen) -> Generator[_Wanted, _Sample, _Sample]:
        self._known[limit] = sample = yield limit, why, seen
        self._unloaded = min(self._unloaded, sample.ttft or math.inf)
        return sample

    def _higher(self, limit: int) -> int:
        """Twice the limit, as far as it may be."""
        self._ceilings = [(until, most) for until, most in self._ceilings if until > self._now]
        return min(2 * limit, self._most, *(most for _, most in self._ceilings))

    def _pays(self, higher: _Sample, than: _Sample, share: float) -> bool:
        """Whether so large a share of what the higher limit could bring more is there, and no reply begins too late for it."""
        wanted = than.throughput * (1 + share * (higher.limit / than.limit - 1))
        return higher.at_least >= wanted and not self._slow(higher)

    def _slow(self, sample: _Sample) -> bool:
        return sample.ttft is not None and sample.ttft > _SLOW * self._unloaded


def _lacks(sample: _Sample, target: float) -> bool:
    return sample.throughput < target * (1.0 if sample.whole else _LACKS)


def _differs(now: _Sample, before: _Sample) -> bool:
    if now.ttft is not None and before.ttft is not None and now.ttft > _SLOW * before.ttft:
        return True
    return abs(now.throughput / max(before.throughput, 1e-9) - 1) > _CHANGED


def _at_once(_: _Sample) -> bool:
    return True


def _never(_: _Sample) -> bool:
    return False
