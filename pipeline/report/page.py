"""The page, put together: structure, style and script in one file that asks for nothing else, written piece by piece.

Whatever came from a persona, a scenario or a model is data: escaped in HTML, and JSON that no parser takes for HTML. Should any
of it get through nevertheless, the page's policy lets nothing run but the one script whose hash it names, and nothing load.
"""

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import pipeline.report.figures as figures
import pipeline.report.story as story
from pipeline.curation.criteria import Bounds
from pipeline.progress import printable
from pipeline.report.sift import Sieve, Sifted
from pipeline.report.transcripts import transcripts
from pipeline.run.folder import RunFolder

_HERE = Path(__file__).parent


def write_report(folder: Path, summary: Mapping[str, Any], arms: Mapping[str, RunFolder]) -> Path:
    """Write `report.html` into `folder`, aside and then renamed; returns its path.

    `summary` is what `results.json` keeps of an evaluation or a dataset. `arms` are the runs that were evaluated, by name; an
    ordinary run is one arm of any name.
    """
    pa.default_memory_pool().release_unused()  # what whoever made the tables had is free by now, and full of holes
    path = RunFolder(folder).report
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            for piece in _pieces(folder, summary, arms):
                file.write(piece)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def _pieces(folder: Path, summary: Mapping[str, Any], arms: Mapping[str, RunFolder]) -> Iterator[str]:
    sieve = Sieve()
    sifted = {name: sieve.sift(arm, _bounds(arm, summary, name)) for name, arm in arms.items()}
    first = next(iter(arms.values()))
    manifest = first.manifest()
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return _page(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        transcripts=map(Markup, transcripts(sieve, sifted)),
        name=folder.name,
        command="generate" if "kept" in summary else "eval",
        arms=list(arms) if len(arms) > 1 else [],
        folders=[str(arm.path) for arm in arms.values()],
        key=figures.key,
        count=sum(arm.count for arm in sifted.values()),
        **_told(summary, manifest, arms, sifted),
    )


def _told(
    summary: Mapping[str, Any], manifest: Mapping[str, Any], arms: Mapping[str, RunFolder], sifted: Mapping[str, Sifted]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "demo": bool((manifest.get("target") or {}).get("demo")),
        "verdict": story.verdict(summary, sifted),
        "tiles": story.tiles(summary, manifest),
        "gates": summary.get("gates") or [],
        "comparisons": [story.comparison(found) for found in summary.get("comparisons") or ()],
        "dimensions": story.dimensions(summary, sifted),
        "held_out": story.held_out(summary),
        "games": story.games(summary),
        "asked": story.asked({name: arm.manifest() for name, arm in arms.items()}),
        "categories": story.categories(summary),
        "funnel": story.funnel(summary, sifted),
        "latencies": story.latencies(summary, sifted),
        "load": story.load(summary, manifest),
        "dataset": story.dataset(summary),
        "errors": story.errors(summary),
        "changes": summary.get("changes"),
        "notes": story.notes(summary),
    }


def _page(**told: Any) -> Iterator[str]:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else "" if value is None else value,
    )
    environment.filters |= {
        "figure": _figure,
        "three": _three,
        "share": _share,
        "plain": lambda name: str(name).replace("_", " "),
    }
    return environment.get_template("page.html").generate(told)


def _figure(value: float | None, digits: int = 3) -> str:
    return "\u2013" if value is None else f"{value:.{digits}f}"


def _three(value: float | None, scale: float = 1) -> str:
    """In three digits; "?" where too little is known."""
    if value is None:
        return "?"
    return f"{value * scale:.0f}" if abs(value * scale) >= 100 else f"{value * scale:.3g}"


def _share(value: float | None) -> int:
    """In tenths, for a shade; 11 for none."""
    return 11 if value is None else min(10, int(value * 10))


def _hash(text: str) -> str:
    """As a content security policy names what may stand in a page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bounds(arm: RunFolder, summary: Mapping[str, Any], name: str) -> dict[str, Bounds]:
    """What passes: by the evaluation, or by the criteria of the dataset."""
    own = summary["arms"][name] if "arms" in summary else summary
    if "bounds" in own:
        return {scorer: Bounds(**bounds) for scorer, bounds in own["bounds"].items()}
    return {
        scorer: Bounds(settings.get("min"), settings.get("max"))
        for scorer, settings in arm.criteria().get("filters", {}).items()
        if isinstance(settings, dict)
    }
