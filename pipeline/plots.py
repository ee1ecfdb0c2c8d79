"""Pictures of runs, for notebooks and for files: each function returns a matplotlib Figure.

    latency(run, ...)       how many of the replies had come after so many seconds
    lengths(run)            seconds by the length of the reply
    funnel(run)             what each filter took out
    scores(run, ...)        means with their intervals
    differences(found)      what is better in B, what is worse, and how sure that is

    plots.funnel(run).savefig("funnel.png")

Black on white, whatever style is set, in colours that everybody can tell apart; arms differ in shape, too. Names are data: no
dollar sign in one of them begins a formula.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.comparison.frames import Comparison
    from pipeline.runs import Run

_GOOD, _BAD, _UNSURE = "#0072b2", "#d55e00", "#767676"  # here and below: Okabe and Ito's palette
_COLOURS = (_GOOD, _BAD, "#009e73", "#cc79a7", "#000000", "#e69f00")
_LINES = ("-", "--", "-.", ":")
_MARKS = ("o", "D", "s", "^")
_WIDE = 7.2  # inches
_ROW = 0.26  # inches that a name takes
_NAME = 34  # characters of it
_LOOK = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "errorbar.capsize": 2.5,
}


def latency(*runs: "Run", of: str = "e2e") -> "Figure":
    """For each run the share of its replies that had come after so many seconds, with its median and 95th percentile marked:
    `of` "e2e" the end of the reply, of "ttft" its first token. Raises ConfigError where no run was timed."""
    what = {"e2e": "the whole reply", "ttft": "the first token"}[of]
    with _sheet(3.2) as (figure, (axes,)):
        for number, (name, run) in enumerate(_named(runs)):
            seconds = run.times(of)[of].to_numpy()
            if not len(seconds):
                continue
            colour = _COLOURS[number % len(_COLOURS)]
            half, most = np.quantile(seconds, (0.5, 0.95))
            label = f"{name}: p50 {half:.3g} s, p95 {most:.3g} s ({len(seconds)} replies)".removeprefix(": ")
            axes.ecdf(seconds, color=colour, linestyle=_LINES[number % len(_LINES)], label=label)
            axes.plot([half, most], [0.5, 0.95], _MARKS[number % len(_MARKS)], color=colour)
        if not axes.lines:
            raise ConfigError(
                f"nothing to draw: {runs[0].path} has no {of}. Replies of pipeline eval are streamed and timed."
            )
        axes.set(xlim=(0, None), ylim=(0, 1.02), xlabel=f"seconds to {what}", ylabel="share of the replies")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        _title(figure, " ".join(dict.fromkeys(_load(run) for run in runs)))
        figure.legend(loc="outside lower left")
    return figure


def lengths(run: "Run") -> "Figure":
    """Each reply by its length in tokens and the seconds it took. Raises ConfigError where nobody counted or timed."""
    frame = run.times("e2e", "completion_tokens")
    if not len(frame):
        raise ConfigError(f"nothing to draw: in {run.path} no reply has both its tokens and its seconds.")
    with _sheet(3.2) as (figure, (axes,)):
        axes.scatter(frame["completion_tokens"], frame["e2e"], s=18, color=_GOOD, alpha=0.6, linewidths=0)
        axes.set(xlim=(0, None), ylim=(0, None), xlabel="tokens in the reply", ylabel="seconds to the whole reply")
        _title(figure, f"{len(frame)} replies. {_load(run)}")
    return figure


def funnel(run: "Run") -> "Figure":
    """What each filter took out of what the one before it had left; filters that took nothing are only counted."""
    told = run.funnel()
    taking = told[told["dropped"] > 0]
    answered, kept = int(told["left"].iloc[0]), int(told["left"].iloc[-1])
    names = ["answered", *taking.index, "kept"]
    left = [answered, *taking["left"], kept]
    dropped = [0, *taking["dropped"], 0]
    with _sheet(_ROW * len(names) + 0.9) as (figure, (axes,)):
        places = range(len(names))
        axes.barh(places, left, color=_GOOD, height=0.7, label="left")
        axes.barh(places, dropped, left=left, color=_BAD, height=0.7, hatch="///", edgecolor="white", label="dropped")
        for place, (stays, goes) in enumerate(zip(left, dropped, strict=True)):
            text = f"{stays}" + (f"  (-{goes})" if goes else "")
            axes.text(stays + goes + answered * 0.01, place, text, va="center")
        _rows(axes, names)
        axes.grid(visible=False, axis="y")
        axes.set(xlim=(0, max(answered, 1) * 1.12), xlabel="replies")
        idle = len(told) - 1 - len(taking)
        _title(figure, f"{kept} of {answered} replies kept. {idle} filters dropped nothing.")
        if len(taking):
            figure.legend(loc="outside lower left", ncols=2)
    return figure


def scores(*runs: "Run") -> "Figure":
    """The mean of each score with its 95 % interval. Scores that have a greatest value have scales of their own, with a
    stroke at it."""
    frames = [run.scores() for run in runs]
    order = list(dict.fromkeys(name for frame in frames for name in frame.index))
    rates = [name for name in order if any(frame["most"].reindex([name]).notna().any() for frame in frames)]
    shares = [name for name in order if name not in rates]
    panels = [part for part in (shares, *([name] for name in rates)) if part]
    if not panels:
        raise ConfigError(f"nothing to draw: {runs[0].path} has no scores.")
    with _sheet(*(_ROW * len(part) + 0.55 for part in panels)) as (figure, sheet):
        for axes, part in zip(sheet, panels, strict=True):
            for number, (name, frame) in enumerate(zip((name for name, _ in _named(runs)), frames, strict=True)):
                there = frame.reindex(part)
                shift = (number - (len(runs) - 1) / 2) * 0.6 / len(runs)
                ends = [there["mean"] - there["low"], there["high"] - there["mean"]]
                _points(axes, there["mean"], np.arange(len(part)) + shift, ends, number, name)
            _rows(axes, part)
            bounds = frames[0].reindex(part)
            if part is shares:
                axes.set(xlim=(-0.02, 1.02), xlabel="mean score: 1 is good; 95 % interval, by persona")
            else:
                axes.plot(bounds["most"], range(len(part)), "|", color="black", markersize=14)
                less = ": less is better" if bounds["least"].isna().all() else ""
                axes.set(xlim=(0, None), xlabel=f"mean score{less}; 95 % interval, by persona")
        if len(runs) > 1:
            figure.legend(*sheet[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def differences(found: "Comparison") -> "Figure":
    """What `pipeline.compare` found better or worse in B than in A, with 95 % intervals. Scores that are equal in every item are
    only counted."""
    from pipeline.comparison.text import sentence

    scores_of, latency_of = found.summary["scores"], found.summary["latency"]
    moved = {name: score for name, score in scores_of.items() if score["difference"]["differing"]}
    shares = {name: score for name, score in moved.items() if score["share"]}
    seconds = {
        f"{what} {q}": latency_of[what][q]["difference"]
        for what in ("e2e", "ttft")
        for q in ("p50", "p95")
        if what in latency_of
    }
    panels: list[tuple[str, Mapping[str, Any]]] = [("points (hundredths of a score), more is better", shares)]
    panels += [
        (f"{'less' if score['less_is_better'] else 'more'} is better", {name: score})
        for name, score in moved.items()
        if not score["share"]
    ]
    panels += [("seconds, less is better", {name: {"difference": one, "verdict": ""} for name, one in seconds.items()})]
    panels = [(label, part) for label, part in panels if part] or [("nothing differs", {})]
    names = (f"{side.upper()} = {Path(found.summary[side]).name[:_NAME]}" for side in ("a", "b"))
    title = f"{', '.join(names)}. {sentence(found.summary)}"
    if same := len(scores_of) - len(moved):
        title += f" {same} scores are equal in every item."
    with _sheet(*(_ROW * len(part) + 0.55 for _, part in panels)) as (figure, sheet):
        for axes, (label, part) in zip(sheet, panels, strict=True):
            scale = 100 if part is shares else 1
            for place, score in enumerate(part.values()):
                one = score["difference"]
                value = scale * one.get("difference", one.get("value"))
                ends = [[value - _end(one["low"], scale)], [_end(one["high"], scale) - value]]
                verdict = {"better": (_GOOD, 0), "worse": (_BAD, 1)}.get(score["verdict"], (_UNSURE, 2))
                _points(axes, [value], [place], ends, verdict[1], "", colour=verdict[0])
            axes.axvline(0, color="black", linewidth=1)
            _rows(axes, list(part))
            reach = max(map(abs, axes.get_xlim()))
            axes.set(xlim=(-reach, reach), xlabel=f"B - A: {label}")
        _title(figure, title)
    return figure


@contextmanager
def _sheet(*heights: float) -> "Iterator[tuple[Figure, list[Axes]]]":
    """A figure of panels one below the other, so many inches high."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise ConfigError('plots need matplotlib: pip install -e ".[notebooks]"') from exc

    class Sheet(Figure):
        """Not one of pyplot's: those stay in memory until they are closed. A notebook shows it all the same."""

        def _repr_png_(self) -> bytes:
            from io import BytesIO

            file = BytesIO()
            self.savefig(file, format="png", dpi=100, metadata={"Software": None})
            return file.getvalue()

    with style.context(["default", _LOOK]):
        figure = Sheet(figsize=(_WIDE, sum(heights)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
        yield figure, list(panels[:, 0])


def _points(
    axes: "Axes", values: Any, places: Any, ends: Any, number: int, label: str, colour: str | None = None
) -> None:
    """Values with their intervals, as far as they have any."""
    colour = colour or _COLOURS[number % len(_COLOURS)]
    axes.errorbar(
        values, places, xerr=np.nan_to_num(np.asarray(ends, float)).clip(0), fmt=_MARKS[number % len(_MARKS)],
        color=colour, markersize=5, label=label,
    )  # fmt: skip


def _rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_plain(name, _NAME) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _named(runs: "Sequence[Run]") -> "list[tuple[str, Run]]":
    """A single run needs no name."""
    return [(_plain(run.path.name, _NAME) if len(runs) > 1 else "", run) for run in runs]


def _load(run: "Run") -> str:
    """What its latencies hold for."""
    from pipeline.report.story import load

    results = run.results()
    return load(results.get("eval") or results.get("generate") or {}, run.manifest)


def _end(end: float | None, scale: float) -> float:
    return float("nan") if end is None else scale * end


def _title(figure: "Figure", text: str) -> None:
    figure.suptitle(textwrap.fill(_plain(text, 400), 95), x=0.01, ha="left", fontsize=10)


def _plain(text: str, longest: int) -> str:
    """What the font can show of a name, and not all of a long one."""
    from matplotlib import font_manager

    from pipeline.dataset.make import one_line

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    said = "".join(c if font.get_char_index(ord(c)) else "\N{WHITE SQUARE}" for c in one_line(text))
    return said if len(said) <= longest else f"{said[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
