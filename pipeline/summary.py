"""What a command says at its end, as text. The same, as JSON, is what `--json` prints and `results.json` keeps."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.progress import printable

OWN_SERVER = """\
These replies come from the small embedded model: they show the way, and are
not worth training on. With your own server (text-generation-webui, started with
--api; KoboldCpp has port 5001, llama.cpp 8080, Ollama 11434, vLLM 8000):
    pipeline {command} --server http://127.0.0.1:5000
"""
_LEAST_SAID = 12  # characters; with less, a line may be too long
CLIENT_BOUND = (
    "         client-bound: this machine was too busy to keep up; the server is faster than it looks. "
    "Try a smaller --concurrency."
)


def generated(summary: dict[str, Any], folder: Path, *, demo: bool) -> str:
    kept, asked = summary["kept"], summary["asked"]
    lines = [f"{asked} replies asked for, {summary['answered']} answered, {kept} kept"]
    if summary["failed"]:
        lines[0] += f", {summary['failed']} failed"
    if summary["missing"]:
        lines[0] += f", {summary['missing']} not asked yet"
    if (talks := sum(summary["ended"].values())) < summary["answered"]:
        why = ", ".join(f"{count} by {name}" for name, count in summary["ended"].items())
        lines.append(f"conversations ended: {talks}" + (f" ({why})" if why else ""))
    if summary["contrast"]:
        lines[0] += f"; {summary['contrast']} of the answers are for contrast, without their persona"
    lines += _funnel(summary)
    lines += [f"  failed  {count:5d}  {error}" for error, count in summary["errors"].items()]
    lines.append(_speed(summary["latency"], summary["tokens"]))
    lines.append(_concurrency(summary["concurrency"]["history"]))
    if summary["client_bound"]:
        lines.append(CLIENT_BOUND)
    lines += _dataset(summary, folder)
    text = "\n".join(line for line in lines if line)
    return printable(text) + ("\n\n" + OWN_SERVER.format(command="generate").rstrip() if demo else "")


def curated(summary: dict[str, Any], folder: Path) -> str:
    lines = [f"{summary['answered'] - summary['contrast']} replies, {summary['kept']} kept", *_funnel(summary)]
    lines += [*_dataset(summary, folder), "", *_changes(summary["changes"])]
    return printable("\n".join(lines))


def _funnel(summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, count in summary["dropped"].items():
        line = f"  dropped {count:5d}  {name:17} e.g. "
        lines.append(
            line + _fitting(summary["examples"].get(name, ""), shutil.get_terminal_size((160, 24)).columns - len(line))
        )
    return lines


def _fitting(example: str, room: int) -> str:
    """In so many columns of a terminal: what was said gives way, the reason at the end stays."""
    if len(example) <= room:
        return example
    said, opened, reason = example.rpartition(" (")
    left = max(room - len(f"...{opened}{reason}"), _LEAST_SAID)
    return f"{said[:left].rstrip('. ')}...{opened}{reason}"


def _dataset(summary: dict[str, Any], folder: Path) -> list[str]:
    lines = []
    if summary["kept"]:
        lines.append("splits   " + ", ".join(f"{name} {count}" for name, count in summary["splits"].items()))
    if summary["pairs"]:
        lines.append("pairs    " + ", ".join(f"{kind} {count}" for kind, count in summary["pairs"].items()))
    varied = summary["diversity"]
    if varied and None not in varied.values():  # pairs of words, and another reply, are not always there
        lines.append(
            f"variety  distinct-1 {varied['distinct_1']:.2f}, distinct-2 {varied['distinct_2']:.2f}, "
            f"self-BLEU {varied['self_bleu']:.2f} over {varied['texts']} replies"
        )
    lines += [f"         {note}" for note in summary["notes"]]
    dataset = folder / "dataset"
    if summary["kept"]:
        lines.append(f"dataset  {dataset}")
        for config in ("sft", "conversations"):
            if config in summary["configs"]:
                lines.append(f'    datasets.load_dataset("{dataset.as_posix()}", "{config}")')
        lines.append(f"    pipeline curate {folder.as_posix()} --set ...      other criteria, without asking again")
    else:
        lines.append(f"Nothing was kept; what was dropped, and why, is in {dataset / 'rejected'}.")
    return [*lines, f"report   {folder / 'report.html'}"]


def _changes(changes: dict[str, Any] | None) -> list[str]:
    if changes is None:
        return ["There was no dataset before to compare with."]
    lines = [f"changed  {one}" for one in changes["criteria"]]
    for change in changes["replies"]:
        before, now = (f"dropped by {change[when]}" if change[when] else "kept" for when in ("before", "now"))
        lines.append(f"  {change['count']:5d}  {before} -> {now}")
        for persona, text, reason in change["examples"]:
            said = " ".join(text.split())
            why = f" ({reason})" if reason else ""
            lines.append(f"           {persona}: {said[:100]}{'...' if len(said) > 100 else ''}{why}")
    lines += [f"  {changes['added']:5d}  new since last time"] if changes["added"] else []
    lines += [f"  {changes['gone']:5d}  there last time and not any more"] if changes["gone"] else []
    return lines if changes["replies"] or changes["added"] or changes["gone"] else [*lines, "No reply changed sides."]


def _speed(latency: dict[str, float] | None, tokens: dict[str, Any]) -> str:
    if latency is None:
        return ""
    said = f"latency  p50 {latency['e2e_p50']:.2f} s, p95 {latency['e2e_p95']:.2f} s"
    return f"{said}, {found}" if (found := rate(tokens)) else said


def _concurrency(history: list[dict[str, Any]]) -> str:
    if not history:
        return ""
    looks_up = history[-1]["why"] == "looked up"  # for a moment, from where it has settled
    last = history[-2] if looks_up else history[-1]
    return f"concurrency auto: {'settled' if last['why'] == 'settled' else 'not yet settled,'} at {last['limit']}"


def rate(tokens: dict[str, Any]) -> str:
    """Tokens by the second, and what they cost where that is known; nothing where nobody counted."""
    found = tokens["completion_per_second"]
    if not found:
        return ""
    guessed = tokens["counted_by"].get("estimate")
    cost = f", cost {tokens['cost']:.4g}" if "cost" in tokens else ""
    return (
        f"about {found:.0f} tokens/s (the server does not count them){cost}"
        if guessed
        else f"{found:.0f} tokens/s{cost}"
    )
