"""Who looks on: a bar where there is a terminal, plain lines where there is none, nothing when asked to be quiet.

All of it goes to stderr; stdout is for the result.
"""

import bisect
import sys
import time
from typing import Any

from pipeline.records import Completion

_LINE_EVERY = 10.0  # seconds between plain lines
_WINDOW = 1000  # latest replies that the median is taken over


class Silent:
    """Nothing but trouble: what there is to say before the first request is information, after it bad news."""

    def __init__(self) -> None:
        self._asking = False

    def say(self, text: str) -> None:
        if self._asking:
            _tell(text)

    def begin(self, total: int, done: int) -> None:
        self._asking = True

    def reply(self, completion: Completion | None) -> None:
        pass

    def end(self) -> None:
        pass


class Plain(Silent):
    """A line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._total = self._done = self._failed = self._tokens = self._begun_with = 0
        self._start = self._shown = 0.0
        self._latest: list[float] = []
        self._sorted: list[float] = []

    def say(self, text: str) -> None:
        _tell(text)

    def begin(self, total: int, done: int) -> None:
        self._total, self._done, self._begun_with = total, done, done
        self._start = self._shown = time.monotonic()
        self.say(f"{total} replies to ask for" + (f", {done} of them answered already" if done else ""))

    def reply(self, completion: Completion | None) -> None:
        self._done += 1
        if completion is None:
            self._failed += 1
        else:
            self._tokens += completion.usage.completion_tokens or 0
            if completion.timing is not None:
                self._add(completion.timing.e2e)
        now = time.monotonic()
        if now - self._shown >= self._every():
            self._shown = now
            self.show(now)

    def show(self, now: float) -> None:
        self.say(f"{self._done}/{self._total} replies, {self.rates(now)}")

    def rates(self, now: float) -> str:
        spent = max(now - self._start, 1e-9)
        rate = (self._done - self._begun_with) / spent
        parts = [f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"]
        if self._tokens:
            parts.append(f"{self._tokens / spent:.0f} tokens/s")
        if self._sorted:
            parts.append(f"p50 {self._sorted[len(self._sorted) // 2]:.2f} s")
        if self._failed:
            parts.append(f"{self._failed} failed")
        if rate > 0:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join(parts)

    def _every(self) -> float:
        return _LINE_EVERY

    def _add(self, seconds: float) -> None:
        self._latest.append(seconds)
        bisect.insort(self._sorted, seconds)
        if len(self._latest) > _WINDOW:
            oldest = self._latest.pop(0)
            del self._sorted[bisect.bisect_left(self._sorted, oldest)]


class Bar(Plain):
    """A bar that moves."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            console=self._console,
            auto_refresh=False,
        )
        self._task: Any = None

    def say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def begin(self, total: int, done: int) -> None:
        super().begin(total, done)
        self._progress.start()
        self._task = self._progress.add_task("replies", total=total, completed=done, rates="")

    def show(self, now: float) -> None:
        self._progress.update(self._task, completed=self._done, rates=self.rates(now), refresh=True)

    def end(self) -> None:
        self.show(time.monotonic())
        self._progress.stop()

    def _every(self) -> float:
        return 0.2


def watcher(*, quiet: bool) -> Silent:
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Plain()


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
