"""What an evaluation says at its end, as text."""

from pathlib import Path
from typing import Any

from pipeline.comparison import compared
from pipeline.curation.criteria import Bounds
from pipeline.evaluation.conversations import VOICE
from pipeline.progress import printable
from pipeline.summary import CLIENT_BOUND, OWN_SERVER, rate

_SLOWEST = 3  # personas that are named
_IN_MS = ("tpot", "gap")


def evaluated(summary: dict[str, Any], folder: Path, *, demo: bool) -> str:
    """The summary of one run."""
    lines = [
        *_replies(summary),
        "",
        *_scores(summary),
        *_splits(summary),
        *_conversations(summary),
        "",
        *_latency(summary),
        *_gates(summary),
    ]
    lines += ["", "Intervals are clustered by persona: they hold for more personas like these.", f"written  {folder}"]
    lines.append(f"report   {folder / 'report.html'}")
    return printable("\n".join(lines)) + (f"\n\n{OWN_SERVER.format(command='eval').rstrip()}" if demo else "")


def arms_evaluated(summary: dict[str, Any], folder: Path, *, demo: bool) -> str:
    """The summary of several arms: what the comparisons say, then the figures of each."""
    arms = summary["arms"]
    lines: list[str] = []
    for comparison in summary["comparisons"]:
        lines += [compared(comparison), "", ""]
    for name, arm in arms.items():
        lines += [f"arm {name}", *(f"  {line}".rstrip() for line in [*_replies(arm), *_latency(arm)]), ""]
    lines += [*_gates(summary)[1:], ""] if summary["gates"] else []
    lines += [f"written  {folder}", *(f"    arm {name}: {folder / 'arms' / name}" for name in arms)]
    lines += [f"report   {folder / 'report.html'}"] if arms else []
    return printable("\n".join(lines)) + (f"\n\n{OWN_SERVER.format(command='eval').rstrip()}" if demo else "")


def _replies(summary: dict[str, Any]) -> list[str]:
    first = (
        f"{summary['answered']} of {summary['asked']} replies, {summary['personas']} personas, {summary['items']} items"
    )
    first += f", {summary['failed']} failed" if summary["failed"] else ""
    first += f", {summary['missing']} not asked yet" if summary["missing"] else ""
    for state in ("empty", "truncated"):
        first += f", {summary['states'][state]} {state}" if summary["states"].get(state) else ""
    return [first, *(f"  failed  {count:5d}  {error}" for error, count in summary["errors"].items())]


def _scores(summary: dict[str, Any]) -> list[str]:
    lines = [f"{'score (1 is good)':20} {'mean':>7}  {'95 % interval':>16}  not applicable"]
    for name, mean in summary["scores"].items():
        notes = ["0 is good"] if Bounds(**summary["bounds"][name]).less_is_better else []
        notes += ["selected on"] if mean["selected_on"] else []
        line = f"{name:20} {_value(mean):>7}  {_ends(mean):>16}  {mean['not_applicable'] or '':>14}  {', '.join(notes)}"
        lines.append(line.rstrip())
    if any(mean["selected_on"] for mean in summary["scores"].values()):
        lines.append(
            "selected on: chose what the model's training data has, and says nothing of a model trained on it."
        )
    return lines


def _splits(summary: dict[str, Any]) -> list[str]:
    """Known NPCs in new scenarios, and new NPCs, side by side."""
    splits = summary["by_split"]
    if not splits:
        return []
    lines = ["", f"{'held out':20} " + " ".join(f"{split:>24}" for split in splits)]
    for name in summary["scores"]:
        cells = [f"{_value(found[name])} ({_ends(found[name])})" if name in found else "-" for found in splits.values()]
        lines.append(f"{name:20} " + " ".join(f"{cell:>24}" for cell in cells))
    return lines


def _conversations(summary: dict[str, Any]) -> list[str]:
    found = summary.get("conversations")
    if not found:
        return []
    ended = ", ".join(f"{count} by {why}" for why, count in found["ended"].items())
    lines = ["", f"{found['count']} conversations of several turns, ended: {ended}"]
    gave_in = ", ".join(f"{number}: {count}" for number, count in found["gave_in_at"].items())
    lines.append(
        f"  without a flaw to the end  {_value(found['held'])} ({_ends(found['held'])})"
        + (f"; gave in at reply {gave_in}" if gave_in else "")
    )
    for name, drift in found["drift"].items():
        seen = drift["low"] is not None and not drift["low"] <= 0 <= drift["high"]
        if seen or name == VOICE:
            lines.append(f"  drift from first to last reply  {name} {drift['difference']:+.3f} ({_ends(drift)})")
    return lines


def _latency(summary: dict[str, Any]) -> list[str]:
    load = summary["load"]
    if not summary["latency"]:
        return []
    how = "streaming" if load["streaming"] else "not streaming"
    lines = [f"latency at concurrency {load['concurrency']}, {how}"]
    for name, found in summary["latency"].items():
        unit, scale = ("ms", 1000) if name in _IN_MS else ("s", 1)
        for p in ("p50", "p95", "p99"):
            ends = [f"{found[p][end] * scale:.2f}" if found[p][end] is not None else "?" for end in ("low", "high")]
            lines.append(f"  {name:4} {p}  {found[p]['value'] * scale:8.2f} {unit:2}  ({ends[0]} to {ends[1]})")
    if summary["in_time"]["value"] is not None:
        within = f"within {summary['thinking_timeout']:g} s"
        lines.append(f"  {within}  {_value(summary['in_time'])} of the replies ({_ends(summary['in_time'])})")
    if summary["usable"]["value"] is not None:
        by_second = summary["usable_per_second"]["value"]
        lines.append(
            f"  usable, which is in time and in character  {_value(summary['usable'])} ({_ends(summary['usable'])}): "
            f"{by_second:.2f} a second"
        )
    if len(summary["slowest"]) > 1:
        named = [f"{one['persona']} {one['p50']:.2f} s" for one in summary["slowest"][:_SLOWEST]]
        by_category = sorted(summary["latency_by_category"].items(), key=lambda one: -one[1]["p50"])[:_SLOWEST]
        named += [f"{category} {found['p50']:.2f} s" for category, found in by_category]
        lines.append(f"  slowest by median: {', '.join(named)}")
    if speed := rate(summary["tokens"]):
        lines.append(f"  {speed}")
    if load["client_bound"]:
        lines.append(CLIENT_BOUND)
    return lines


def _gates(summary: dict[str, Any]) -> list[str]:
    lines = []
    for gate in summary["gates"]:
        arm = f"{gate['arm']}: " if gate["arm"] else ""
        found = f"{_value(gate)} ({_ends(gate)})"
        why = f"  {gate['why']}" if gate["why"] else ""
        lines.append(f"  {gate['verdict']:12}  {arm}{gate['gate']}  {found}{why}")
    return ["", "gates", *lines] if lines else []


def _value(found: dict[str, Any]) -> str:
    return "-" if found["value"] is None else f"{found['value']:.3f}"


def _ends(found: dict[str, Any]) -> str:
    if found["low"] is None and found["high"] is None:
        return "-"
    return " to ".join("?" if found[end] is None else f"{found[end]:.3f}" for end in ("low", "high"))
