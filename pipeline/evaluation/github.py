"""The verdict on the page of a workflow's run: GitHub shows what a step appends to the file that GITHUB_STEP_SUMMARY names.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions#adding-a-job-summary
"""

import os
from pathlib import Path
from typing import Any

from pipeline.comparison.text import sentence

_MARKS = {"passed": "✅", "failed": "❌", "inconclusive": "❔"}
_LIMIT = 900_000  # bytes; GitHub refuses a step's summary over 1 MiB


def step_summary(summary: dict[str, Any], run: Path) -> None:
    """Append `summary` as Markdown, where a workflow waits for it. What cannot be written there costs nothing else."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    text = markdown(summary, run).encode("utf-8", "replace")[:_LIMIT]
    try:
        with open(target, "ab") as file:
            file.write(text)
    except OSError:
        return


def markdown(summary: dict[str, Any], run: Path) -> str:
    """The gates, the comparisons and the figures of an evaluation."""
    arms: dict[str, dict[str, Any]] = summary.get("arms") or {"": summary}
    lines = [f"## NPC evaluation: {_cell(run.name)}", ""]
    names = list(arms)
    for name, comparison in zip(names[1:], summary.get("comparisons", ()), strict=False):
        lines += [f"**{_cell(name)}** (B) against **{_cell(names[0])}** (A): {_cell(sentence(comparison))}", ""]
    if summary["gates"]:
        lines += ["| | gate | arm | found | why |", "|---|---|---|---|---|"]
        for gate in summary["gates"]:
            found = _interval(gate)
            lines.append(
                f"| {_MARKS[gate['verdict']]} {gate['verdict']} | {_cell(gate['gate'])} | {_cell(gate['arm'])} | {found} "
                f"| {_cell(gate['why'])} |"
            )
        lines.append("")
    lines += [
        "| | " + " | ".join(_cell(name) or "mean (95 %)" for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for score in dict.fromkeys(score for arm in arms.values() for score in arm["scores"]):
        cells = [_interval(arm["scores"].get(score)) for arm in arms.values()]
        lines.append(f"| {_cell(score)} | " + " | ".join(cells) + " |")
    for what in ("e2e", "ttft"):
        for q in ("p50", "p95", "p99"):
            cells = [_interval(arm["latency"].get(what, {}).get(q), " s") for arm in arms.values()]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {what} {q} | " + " | ".join(cells) + " |")
    for share in ("in_time", "usable", "usable_per_second"):
        lines.append(f"| {share} | " + " | ".join(_interval(arm[share]) for arm in arms.values()) + " |")
    counts = " | ".join(
        ", ".join(f"{count} {state}" for state, count in arm["states"].items()) for arm in arms.values()
    )
    return "\n".join([*lines, f"| replies | {counts} |", ""]) + "\n"


def _interval(found: dict[str, Any] | None, unit: str = "") -> str:
    if found is None or found["value"] is None:
        return "-"
    ends = [f"{found[end]:.3g}" if found[end] is not None else "?" for end in ("low", "high")]
    return f"{found['value']:.3g}{unit} ({ends[0]} to {ends[1]})"


def _cell(text: str) -> str:
    """Names and reasons are somebody's data: nothing in them is markup."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"&#{ord(c)};" if c in "<>&|`[]*_" else c for c in flat)
