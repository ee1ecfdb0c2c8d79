"""The replies that the page shows, as JSON for its script: columns, with what is said often told by number.

    part   so many replies of one arm: a column for each thing that is known of a reply, a column for each scorer
    head   last: the texts that numbers stand for, the scorers with their bounds, and how many replies there are in all

A part is written when its rows are read, so that no more than its texts are in memory.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.sift import CUT, Numbers, Sieve, Sifted, batches, floats, lengths, places, rows_of

_PART = 256  # replies
_EVIDENCE = 240  # characters
_COLUMNS = (
    *("item_id", "persona_id", "scenario_id", "category", "sample", "arm", "line", "reply", "error", "outcome"),
    *("finish_reason", "completion_tokens", "e2e", "ttft"),
)
_BY_NUMBER = {
    "persona": "persona_id",
    "scenario": "scenario_id",
    "category": "category",
    "line": "line",
    "error": "error",
    "outcome": "outcome",
    "finish": "finish_reason",
    "of": "arm",
}


def embedded(value: object) -> str:
    """JSON that no HTML parser takes for anything else."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def transcripts(sieve: Sieve, arms: Mapping[str, Sifted]) -> Iterator[str]:
    """Texts of `<script>` blocks: parts, then the head."""
    texts = Numbers()
    sifted = list(arms.values())
    shown = sieve.choose(sifted) if any(len(arm.keys) for arm in sifted) else [np.zeros(0, bool) for _ in sifted]
    for number, (arm, chosen) in enumerate(zip(sifted, shown, strict=True)):
        for part in _parts(arm, chosen, texts, list(sieve.fates)):
            yield embedded({"arm": number, **part})
    bounds = {name: [own.least, own.most] for arm in sifted for name, own in arm.bounds.items()}
    yield embedded(
        {
            "arms": list(arms),
            "texts": list(texts),
            "bounds": bounds,
            "shown": int(sum(chosen.sum() for chosen in shown)),
            "all": sum(arm.count for arm in sifted),
            "cut": CUT,
        }
    )


def _parts(
    arm: Sifted, chosen: npt.NDArray[np.bool_], texts: Numbers, fates: Sequence[str]
) -> Iterator[dict[str, Any]]:
    values, notes = _scores(arm, chosen, texts)
    drops = _drops(arm, chosen, texts)
    at = np.cumsum(chosen) - 1  # among the chosen
    start = 0
    for batch in batches(arm.folder.replies, _COLUMNS, rows=_PART):
        rows = start + np.flatnonzero(chosen[start : start + len(batch["item_id"])])
        if len(rows):
            there = (rows - start).tolist()
            columns = {name: batch[column].to_pylist() for name, column in _BY_NUMBER.items()}
            places = at[rows].tolist()
            yield {
                "id": _taken(batch["item_id"].to_pylist(), there),
                **{name: [texts.of((column[n] or "")[:CUT]) for n in there] for name, column in columns.items()},
                "sample": _taken(batch["sample"].to_pylist(), there),
                "reply": [_cut(text) for text in _taken(batch["reply"].to_pylist(), there)],
                "tokens": _taken(batch["completion_tokens"].to_pylist(), there),
                "ms": [_ms(seconds) for seconds in _taken(batch["e2e"].to_pylist(), there)],
                "first": [_ms(seconds) for seconds in _taken(batch["ttft"].to_pylist(), there)],
                "fate": [texts.of(fates[fate]) for fate in arm.fates[rows]],
                "drop": [drops.get(place, []) for place in places],
                "scores": {name: [_short(column[place]) for place in places] for name, column in values.items()},
                "notes": [notes.get(place, []) for place in places],
            }
        start += len(batch["item_id"])


def _scores(
    arm: Sifted, chosen: npt.NDArray[np.bool_], texts: Numbers
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[int, list[list[Any]]]]:
    """Of the chosen replies: each scorer's values, and [scorer, reason, evidence] where it had anything to say."""
    at = np.where(chosen, np.cumsum(chosen) - 1, -1)
    scorers = Numbers()
    values = np.empty((0, int(chosen.sum())))
    notes: dict[int, list[list[Any]]] = {}
    columns = ("item_id", "scorer", "value", "reason", "evidence")
    for batch in batches(arm.folder.scores, columns, as_numbers=("item_id", "scorer", "reason")):
        rows, of = rows_of(arm, batch["item_id"]), scorers.column(batch["scorer"])
        here = np.flatnonzero((rows >= 0) & (at[rows] >= 0))
        values = np.vstack([values, np.full((len(scorers) - len(values), values.shape[1]), np.nan)])
        values[of[here], at[rows[here]]] = floats(batch["value"])[here]
        names = list(scorers)
        reasons, evidence = batch["reason"].dictionary.to_pylist(), batch["evidence"]
        said_of = places(batch["reason"])
        told = np.array([bool(reason) for reason in reasons], bool)[said_of] | (lengths(evidence) > 0)
        for row in here[told[here]].tolist():
            seen = (evidence[row].as_py() or "")[:_EVIDENCE]
            said = [texts.of(names[of[row]]), texts.of(reasons[said_of[row]] or "")]
            notes.setdefault(int(at[rows[row]]), []).append([*said, seen] if seen else said)
    return dict(zip(scorers, values, strict=True)), notes


def _drops(arm: Sifted, chosen: npt.NDArray[np.bool_], texts: Numbers) -> dict[int, list[Any]]:
    """Why the dataset does not have a reply: [reason, evidence]; of a duplicate, the evidence is the other one's item."""
    at = np.where(chosen, np.cumsum(chosen) - 1, -1)
    drops: dict[int, list[Any]] = {}
    for path in sorted(arm.folder.dataset.glob("rejected/*.parquet")):
        for batch in batches(path, ("item_id", "reason", "evidence")):
            rows = rows_of(arm, batch["item_id"])
            reasons, evidence = (batch[name].to_pylist() for name in ("reason", "evidence"))
            for n in np.flatnonzero((rows >= 0) & (at[rows] >= 0)).tolist():
                drops[int(at[rows[n]])] = [texts.of(reasons[n] or ""), (evidence[n] or "")[:_EVIDENCE]]
    return drops


def _taken(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[n] for n in places]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= CUT else f"{text[:CUT]}\u2026 ({len(text) - CUT} more characters)"


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _short(value: float) -> float | None:
    """1 rather than 1.0, four digits rather than seventeen."""
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.4g}")
