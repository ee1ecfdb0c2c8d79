"""Who looks on: a bar where there is a terminal or a notebook, plain lines where there is neither, nothing when asked to be quiet.

All of it goes to stderr; stdout is for the result. A notebook's cell has one place for both.
"""

import bisect
import html
import math
import os
import sys
import time
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.records import Completion

if TYPE_CHECKING:
    from pipeline.run.prepare import Seen

_LINE_EVERY = 10.0  # seconds between plain lines
_WINDOW = 1000  # latest replies that the quantiles are taken over
_WORTH_A_BAR = 1.0  # seconds of reading


class Meter:
    """Counts what has come of `total`, of which `done` was there before, and puts it in words."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self.begun = time.monotonic()
        self._begun_with = done
        self._failed = self._tokens = self._at_a_time = 0
        self._seen: Seen | None = None
        self._latest: deque[float] = deque()  # seconds
        self._sorted: list[float] = []

    def reply(self, completion: Completion | None, at_a_time: int) -> None:
        self.done += 1
        self._at_a_time = at_a_time
        if completion is None:
            self._failed += 1
            return
        self._tokens += completion.usage.completion_tokens or 0
        if completion.timing is not None:
            self._latest.append(completion.timing.e2e)
            bisect.insort(self._sorted, completion.timing.e2e)
            if len(self._latest) > _WINDOW:
                del self._sorted[bisect.bisect_left(self._sorted, self._latest.popleft())]

    def judged(self, seen: "Seen") -> None:
        self._seen = seen

    def fates(self) -> str:
        """What became of the replies."""
        seen = self._seen
        parts = [f"{seen.kept} kept", f"{seen.dropped} dropped"] if seen and seen.kept + seen.dropped else []
        return ", ".join([*parts, f"{self._failed} failed"] if self._failed else parts)

    def rates(self, now: float) -> str:
        """How fast they come, and at what load."""
        spent = max(now - self.begun, 1e-9)
        rate = (self.done - self._begun_with) / spent
        parts = [f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"]
        if self._tokens:
            parts.append(f"{self._tokens / spent:.0f} tokens/s")
        if self._sorted:
            middle, far = (self._sorted[math.ceil(len(self._sorted) * q) - 1] for q in (0.5, 0.95))
            parts.append(f"p50 {middle:.2f} s, p95 {far:.2f} s, {self._at_a_time} at a time")
        return ", ".join(parts)

    def left(self, now: float) -> str:
        came = self.done - self._begun_with
        to_come = self.total - self.done
        return f"{duration(to_come * (now - self.begun) / came)} left" if came and to_come > 0 else ""

    def line(self, now: float) -> str:
        parts = (f"{self.done}/{self.total} {self.what}", self.fates(), self.rates(now), self.left(now))
        return ", ".join(part for part in parts if part)


class Silent:
    """Nothing but trouble: what there is to say before the first request is information, after it bad news.

    What its methods are told stands at `prepare.Watcher`.
    """

    def __init__(self) -> None:
        self._asking = False

    def say(self, text: str) -> None:
        if self._asking:
            self.warn(text)

    def warn(self, text: str) -> None:
        _tell(text)

    def begin(self, total: int, done: int) -> None:
        self._asking = True

    def reading(self, total: int) -> None:
        pass

    def reply(self, completion: Completion | None, at_a_time: int) -> None:
        pass

    def judged(self, seen: "Seen") -> None:
        pass

    def end(self) -> None:
        self._asking = False


class Plain(Silent):
    """A line now and then."""

    every = _LINE_EVERY  # seconds

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter("replies", 0)
        self._shown = 0.0

    def say(self, text: str) -> None:
        self.warn(text)

    def begin(self, total: int, done: int) -> None:
        self._begin(Meter("replies", total, done))
        self.say(f"{total} replies to ask for" + (f", {done} of them answered already" if done else ""))

    def reading(self, total: int) -> None:
        self._begin(Meter("judged", total))

    def reply(self, completion: Completion | None, at_a_time: int) -> None:
        self.meter.reply(completion, at_a_time)
        self._look()

    def judged(self, seen: "Seen") -> None:
        self.meter.judged(seen)
        if self.meter.what == "judged":
            self.meter.done = seen.read
            self._look()

    def show(self, now: float) -> None:
        self.say(self.meter.line(now))

    def _begin(self, meter: Meter) -> None:
        self.meter, self._shown = meter, meter.begun

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._shown >= self.every:
            self._shown = now
            self.show(now)


class Bar(Plain):
    """A bar that moves, and a line of figures under it."""

    every = 0.2

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live: Any = None  # rich's

    def warn(self, text: str) -> None:
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def show(self, now: float) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        meter = self.meter
        if meter.what == "judged" and now - meter.begun < _WORTH_A_BAR:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        bar = ProgressBar(total=max(meter.total, 1), completed=meter.done, width=32)
        done = Table.grid(padding=(0, 1))
        done.add_row(meter.what, bar, f"{meter.done}/{meter.total}", meter.left(now))
        figures = "; ".join(part for part in (meter.fates(), meter.rates(now)) if part)
        self._live.update(Group(done, Text(figures, style="dim")), refresh=True)

    def end(self) -> None:
        if self._live is not None or self.meter.what == "replies":
            self.show(time.monotonic())
            self._live.stop()
            self._live = None


class Cell(Plain):
    """The same in a notebook, in the place of one output."""

    every = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._output: Any = None  # IPython's DisplayHandle

    def warn(self, text: str) -> None:
        print(printable(text), flush=True)

    def begin(self, total: int, done: int) -> None:
        self._begin(Meter("replies", total, done))

    def show(self, now: float) -> None:
        if self.meter.what == "judged" and now - self.meter.begun < _WORTH_A_BAR:
            return
        line, meter = self.meter.line(now), self.meter
        bar = f'<progress max="{max(meter.total, 1)}" value="{meter.done}"></progress> {html.escape(line)}'
        shown = {"text/plain": line, "text/html": bar}
        if self._output is None:
            self._output = import_module("IPython.display").display(shown, raw=True, display_id=True)
        else:
            self._output.update(shown, raw=True)

    def end(self) -> None:
        if self._output is not None or self.meter.what == "replies":
            self.show(time.monotonic())
            self._output = None


def watcher(*, quiet: bool) -> Silent:
    if quiet:
        return Silent()
    if _in_a_notebook():
        return Cell()
    moves = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Bar() if moves else Plain()


def _in_a_notebook() -> bool:
    python = sys.modules.get("IPython")  # it is loaded where there is one
    return python is not None and hasattr(python.get_ipython(), "kernel")


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Without what a terminal would obey: texts from servers and personas are shown, not executed."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )
