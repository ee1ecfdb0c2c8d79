"""A language model's server in simulated time: how long replies take, alone and beside others, without a socket or a clock.

`slots` replies are written at a time, whoever comes later waits in order; with `places` that are all taken it refuses. A token
takes `token` seconds, and `batching` more for each reply that is being written: 0 is llama.cpp with idle cores, more is a
GPU's batch. Reading a prompt takes as long as `prompt` tokens.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count


@dataclass
class Simulated:
    slots: int = 1
    token: float = 0.001
    batching: float = 0.0
    places: float = math.inf
    prompt: int = 6

    now: float = 0.0
    _written: float = 0.0  # tokens that each of the replies could have got until now: all go at one speed
    _events: list[tuple[float, int, str, Hashable]] = field(default_factory=list)
    _active: int = 0
    _queue: deque[tuple[Hashable, int]] = field(default_factory=deque)
    _number: count = field(default_factory=count)

    def arrive(self, now: float, name: Hashable, tokens: int) -> bool:
        """False: refused."""
        if self._active + len(self._queue) >= self.places:
            return False
        self._move(now)
        self._queue.append((name, tokens))
        self._start()
        return True

    def next(self) -> float:
        """When `happened` has something to tell."""
        return self.now + max(0.0, self._events[0][0] - self._written) * self._pace if self._events else math.inf

    def happened(self, now: float) -> list[tuple[str, Hashable]]:
        """Until `now`: ("first" or "whole", name) for each first token and each whole reply."""
        found = []
        while self.next() <= now:
            self._move(self.next())
            self._written, _, what, name = heapq.heappop(self._events)
            found.append((what, name))
            if what == "whole":
                self._active -= 1
                self._start()
        return found

    @property
    def _pace(self) -> float:
        return self.token + self.batching * self._active

    def _move(self, now: float) -> None:
        if self._active:
            self._written += (now - self.now) / self._pace
        self.now = now

    def _start(self) -> None:
        while self._queue and self._active < self.slots:
            name, tokens = self._queue.popleft()
            self._active += 1
            for what, due in (("first", self.prompt + 1), ("whole", self.prompt + tokens)):
                heapq.heappush(self._events, (self._written + due, next(self._number), what, name))


def reply_length(dice: random.Random) -> int:
    """Tokens: log-normal, 30 at the median, 34 in the mean."""
    return max(1, round(30 * dice.lognormvariate(0, 0.5)))
