"""One side of a comparison: who was asked what, what came, and its scores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Item = tuple[str, str]  # the cluster, such as the persona; and what was asked of it
Numbers = Sequence[int] | npt.NDArray[Any]
Values = Sequence[float] | npt.NDArray[Any]

_NO_REPLY = ("error", "empty", "open", "missing", "no score")

TEXT = 300  # characters of a text that are kept: it is for looking at


@dataclass(frozen=True, slots=True)
class Columns:
    """What a table calls them. `scores` empty: all that there are, where the format says which they are."""

    item: str | None = None
    cluster: str | None = None
    scores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What the latencies hold for. `concurrency` None: it changed while they were measured."""

    concurrency: int | None
    streaming: bool
    client_bound: bool


@dataclass(slots=True)
class Arm:
    """Replies in the order they were asked for. Several replies to one item are repeats.

    `clusters` says what a cluster is ("personas"); empty where every item is its own. `less` are the scorers of which less is
    better. `states` counts replies by what became of them, `without` by scorer those that it did not apply to.
    """

    path: str
    clusters: str = "personas"
    items: dict[Item, int] = field(default_factory=dict)
    groups: dict[Item, str] = field(default_factory=dict)  # such as the scenario's category, where it is known
    asked: list[str] = field(default_factory=list)  # for each item, "" where nobody knows
    item_of: list[int] = field(default_factory=list)  # for each reply
    texts: list[str] = field(default_factory=list)  # for each reply
    scores: dict[str, tuple[Numbers, Values]] = field(default_factory=dict)  # replies, and the value of each
    seconds: dict[str, tuple[Numbers, Values]] = field(default_factory=dict)  # the same
    states: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    less: frozenset[str] = frozenset()
    load: Load | None = None
    scored_by: Any = None  # settings of the scorers
    selected_on: frozenset[str] = frozenset()  # scores that chose what the model was trained on
    busy: float = 0.0  # seconds in which a reply was under way

    def add(self, item: Item, asked: str, text: str) -> int:
        """A reply; its number."""
        if item not in self.items:
            self.items[item] = len(self.items)
            self.asked.append(asked)
        self.item_of.append(self.items[item])
        self.texts.append(text[:TEXT])
        return len(self.texts) - 1

    def means(self, scorer: str) -> dict[Item, float]:
        """One value for each item that has any: the mean of its repeats."""
        return self.means_of(self.scores[scorer])

    def means_of(self, column: tuple[Numbers, Values]) -> dict[Item, float]:
        """The same of any column: replies, and the value of each."""
        of, values = self._of_items(column)
        counts = np.bincount(of, minlength=len(self.items))
        sums = np.bincount(of, weights=values, minlength=len(self.items))
        items = list(self.items)
        return {items[n]: float(sums[n] / counts[n]) for n in np.flatnonzero(counts)}

    def times(self, what: str, among: set[Item]) -> tuple[list[float], list[str]]:
        """Seconds of the replies to these items, and the cluster of each."""
        of, values = self._of_items(self.seconds[what])
        items = list(self.items)
        rows = [(float(value), items[n][0]) for n, value in zip(of, values, strict=True) if items[n] in among]
        return [value for value, _ in rows], [cluster for _, cluster in rows]

    @property
    def coverage(self) -> float:
        """Share of what was asked that has a reply: failures, silence and what is still open have none."""
        asked = sum(self.states.values())
        return 1 - sum(self.states[state] for state in _NO_REPLY) / asked if asked else 0.0

    def timed(self, what: str) -> set[Item]:
        """The items with a reply that was timed."""
        items = list(self.items)
        return {items[n] for n in np.unique(self._of_items(self.seconds[what])[0])}

    def example(self, item: Item, scorer: str, *, highest: bool) -> str:
        """The reply to an item that has its highest (or lowest) score."""
        replies, values = (np.asarray(column) for column in self.scores[scorer])
        own = np.flatnonzero(np.asarray(self.item_of)[replies] == self.items[item])
        best = own[np.argmax(values[own]) if highest else np.argmin(values[own])]
        return self.texts[int(replies[best])]

    def _of_items(self, column: tuple[Numbers, Values]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        replies, values = column
        return np.asarray(self.item_of, np.int64)[np.asarray(replies, np.int64)], np.asarray(values, np.float64)
