"""A comparison in words: one plain sentence first, then the figures."""

import math
import shutil
from typing import Any

from pipeline.progress import printable

_NAMED = 3  # scorers in a sentence
_EXPLORED = 12  # looks that are listed
_WIDE = 100  # characters of a text that are shown
_FULL = 120  # columns of a terminal that has room for all of the table


def compared(summary: dict[str, Any]) -> str:
    """What `compare_arms` found, for a terminal."""
    lines = [sentence(summary), f"A = {summary['a']}", f"B = {summary['b']}", ""]
    clusters = f" of {summary['clusters']} {summary['cluster']}" if summary["cluster"] else ""
    lines.append(f"{summary['items']} items{clusters} are in both" + _fallen_out(summary))
    if summary["scores"]:
        lines += ["", *_scores(summary)]
    lines += [
        *_explored(summary["explored"]),
        *_latency(summary["latency"]),
        *_states(summary["states"]),
        *_flips(summary),
    ]
    if summary["notes"]:
        lines += ["", *summary["notes"]]
    return printable("\n".join(lines))


def sentence(summary: dict[str, Any]) -> str:
    """The comparison in one sentence."""
    slower = _slower(summary["latency"])
    if summary["verdict"] == "inconclusive":
        return str(summary["why"]) + (f" B is {slower}." if slower else "")
    sure = {
        way: sorted(
            ((name, score) for name, score in _ground(summary).items() if score["verdict"] == way),
            key=lambda one: one[1]["difference"]["p"],
        )
        for way in ("better", "worse")
    }
    parts = [f"{way} {_named(found)}" for way, found in sure.items() if found]
    if parts:
        return f"B is {'; '.join([*parts, *([slower] if slower else [])])}."
    seen = f"No difference was seen between A and B {_where(summary)}"
    return f"{seen}; B is {slower}." if slower else f"{seen}."


def _named(found: list[tuple[str, dict[str, Any]]]) -> str:
    said = [f"{_skill(name)}: {difference(score)}" for name, score in found[:_NAMED]]
    more = [f"and in {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return ", ".join([*said, *more])


def _skill(name: str) -> str:
    """in_character -> in character; slop -> at slop."""
    return name.replace("_", " ") if name.startswith("in_") else f"at {_line(name)}"


def _where(summary: dict[str, Any]) -> str:
    scores = _ground(summary)
    if len(scores) > 1:
        return f"in {len(scores)} scores"
    ((name, score),) = scores.items()
    least = score["difference"]["detectable"]
    unseen = "" if least is None else f"; less than {figure(score, least)} could not have been"
    return f"in {_line(name)}: {difference(score)}{unseen}"


def _ground(summary: dict[str, Any]) -> dict[str, Any]:
    """The scores that a verdict may go by."""
    return {name: score for name, score in summary["scores"].items() if not score["selected_on"]}


def _slower(latency: dict[str, Any]) -> str:
    """The median of whole replies, where its interval has no zero in it."""
    if "e2e" not in latency:
        return ""
    found = latency["e2e"]["p50"]["difference"]
    if found["low"] is None or found["high"] is None or found["low"] <= 0 <= found["high"]:
        return ""
    ends = sorted((abs(found["low"]), abs(found["high"])))
    digits = _digits(ends[1] - ends[0])
    value, low, high = (f"{second:.{digits}f}" for second in (abs(found["value"]), *ends))
    return f"{'slower' if found['value'] > 0 else 'faster'} by {value} s ({low} to {high})"


def difference(score: dict[str, Any]) -> str:
    """+6 points (2 to 10): hundredths of what is between 0 and 1, else the score's own unit."""
    found = score["difference"]
    if found["low"] is None:
        return figure(score, found["difference"], sign=True)
    scale, unit = (100, " points") if score["share"] else (1, "")
    value, low, high = (scale * found[end] for end in ("difference", "low", "high"))
    digits = _digits(high - low)
    if low * high > 0 and round(min(abs(low), abs(high)), digits) == 0:
        digits += 1  # an interval without zero shows none
    return f"{_signed(value, digits)}{unit} ({_plain(low, digits)} to {_plain(high, digits)})"


def figure(score: dict[str, Any], value: float, *, sign: bool = False) -> str:
    scale, unit = (100, " points") if score["share"] else (1, "")
    digits = _digits(abs(scale * value))
    return f"{_signed(scale * value, digits) if sign else _plain(scale * value, digits)}{unit}"


def _digits(width: float) -> int:
    """Decimals that tell two figures apart which are so far from each other; more would be noise."""
    return max(0, min(6, -math.floor(math.log10(width / 4)))) if width > 0 else 1


def _plain(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _fallen_out(summary: dict[str, Any]) -> str:
    out = [
        f"{summary[key]} {what}"
        for key, what in (("only_a", "in A only"), ("only_b", "in B only"), ("asked_otherwise", "asked otherwise"))
        if summary[key]
    ]
    return f"; {', '.join(out)}" if out else ""


def _scores(summary: dict[str, Any]) -> list[str]:
    """A table as wide as the terminal has room for: the standard errors and the counts are what a narrow one goes without."""
    full = shutil.get_terminal_size((_FULL, 24)).columns >= _FULL
    name_wide = max(len("score"), *(len(_line(name)) for name in summary["scores"]))
    difference_wide = max(len("B - A (95 %)"), *(len(difference(score)) for score in summary["scores"].values()))
    mean_wide = 14 if full else 6
    clusters = summary["cluster"].split(" ")[0] or "clusters"

    def row(name: str, a: str, b: str, change: str, p: str, unseen: str, counts: tuple[str, str], verdict: str) -> str:
        cells = f"{name:{name_wide}} {a:>{mean_wide}} {b:>{mean_wide}}  {change:{difference_wide}} {p:>6} {unseen:>10}"
        return f"{cells} {counts[0]:>6} {counts[1]:>9}  {verdict}" if full else f"{cells}  {verdict}"

    means = ("A (SE)", "B (SE)") if full else ("A", "B")
    lines = [row("score", *means, "B - A (95 %)", "p", "unseen <", ("items", clusters), "verdict")]
    for name, score in summary["scores"].items():
        found = score["difference"]
        p = "-" if score["p_holm"] is None else "<0.001" if score["p_holm"] < 0.001 else f"{score['p_holm']:.3f}"
        least = "-" if found["detectable"] is None else figure(score, found["detectable"])
        less = " (less is better)" if score["less_is_better"] else ""
        less += " (selected on)" if score["selected_on"] else ""
        a, b = (_mean(score[arm], error=full) for arm in ("a", "b"))
        counts = (str(found["n"]), str(found["clusters"]))
        lines.append(row(_line(name), a, b, difference(score), p, least, counts, score["verdict"] + less))
    lines += [
        f"p: two-sided, Holm over the {summary['family']} scores that could tell.",
        "unseen: what is less than that is not found in 80 % of such comparisons.",
    ]
    if any(score["selected_on"] for score in summary["scores"].values()):
        lines.append("selected on: chose what a model was trained on, and is no ground for the verdict.")
    return lines


def _mean(found: dict[str, Any], *, error: bool) -> str:
    return f"{found['value']:.3f}" + (f" ({found['se']:.3f})" if error and found["se"] is not None else "")


def _explored(explored: dict[str, Any]) -> list[str]:
    if not explored["found"]:
        return []
    lines = [
        "",
        f"Where to look: what stands out among {explored['looks']} looks by category (Benjamini-Hochberg; no verdict)",
    ]
    for one in explored["found"][:_EXPLORED]:
        p = "<0.001" if one["p_bh"] < 0.001 else f"{one['p_bh']:.3f}"
        lines.append(f"  {_line(one['group']):20} {_line(one['scorer']):20} {difference(one):28} {p:>7}")
    if more := len(explored["found"]) - _EXPLORED:
        lines += [f"  and {more} more"] if more > 0 else []
    return lines


def _latency(latency: dict[str, Any]) -> list[str]:
    if not latency:
        return []
    lines = ["", f"seconds at concurrency {latency['concurrency']}       A        B     B - A (95 %)"]
    for what in ("e2e", "ttft"):
        for q in ("p50", "p95"):
            if what in latency:
                row = latency[what][q]
                low, high = (row["difference"][end] for end in ("low", "high"))
                ends = " to ".join("?" if end is None else f"{end:.2f}" for end in (low, high))
                lines.append(
                    f"  {what:5} {q:18} {row['a']['value']:8.2f} {row['b']['value']:8.2f}   "
                    f"{row['difference']['value']:+.2f} ({ends})"
                )
    return lines


def _states(states: dict[str, list[int]]) -> list[str]:
    return ["", f"{'replies':12}{'A':>8}{'B':>8}", *(f"  {name:10}{a:8d}{b:8d}" for name, (a, b) in states.items())]


def _flips(summary: dict[str, Any]) -> list[str]:
    lines = []
    for flip in summary["flips"]:
        scorer = _line(flip["scorer"])
        asked = f"  {_line(flip['asked'])}" if flip["asked"] else ""
        item = " / ".join(dict.fromkeys(flip["item"]))
        lines += ["", f"{scorer}: {_line(item)}{asked}"]
        lines += [
            f"  {name.upper()} {flip[name]['score']:6.2f}  {_line(flip[name]['text']) or '-'}" for name in ("a", "b")
        ]
    return lines


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."
