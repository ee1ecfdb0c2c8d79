"""An arm from a run folder. What is compared is an item: a persona in a scenario; samples and turns are repeats of it.

Template, model and sampling may differ, that is what a comparison is for; and so the ids of the replies may.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.comparison.arm import TEXT, Arm, Load
from pipeline.curation.criteria import Bounds, load_criteria
from pipeline.errors import ConfigError
from pipeline.run.folder import RunFolder
from pipeline.run.plan import CONTRAST
from pipeline.run.tables import column
from pipeline.stats.latency import busy_seconds

_REPLIES = (
    *("item_id", "turn", "persona_id", "scenario_id", "category", "sample", "arm"),
    *("line", "reply", "outcome", "finish_reason"),
    *("e2e", "ttft", "ttfv", "tpot", "gap", "sent"),
)
_TIMES = ("e2e", "ttft", "ttfv", "tpot", "gap")


def read_run(folder: RunFolder) -> Arm:
    """Raises ConfigError if the run has not come so far yet."""
    manifest = folder.manifest()
    if arms := manifest.get("arms"):
        paths = ", ".join(str(folder.path / "arms" / name) for name in arms)
        raise ConfigError(f"{folder.path}: an evaluation of several arms. Compare two of them: {paths}")
    if not folder.replies.exists() or not folder.scores.exists():
        if folder.results.exists():
            raise ConfigError(
                f"{folder.path}: its tables are gone. They are made again by: pipeline eval {folder.path}"
            )
        go_on = f"pipeline {manifest.get('command')} --resume {folder.path}"
        raise ConfigError(f"{folder.path}: nothing is scored in it yet. Go on with: {go_on}")
    replies = _table(folder.replies, _REPLIES).sort_by([("sample", "ascending"), ("turn", "ascending")])
    replies = replies.filter(pc.not_equal(pc.fill_null(replies["arm"], ""), CONTRAST))
    scores = _table(folder.scores, ("item_id", "turn", "scorer", "value"))
    arm = Arm(str(folder.path))
    cut = pc.utf8_slice_codeunits(pc.fill_null(replies["reply"], ""), 0, TEXT).to_pylist()
    columns = (
        replies[name].to_pylist()
        for name in ("persona_id", "scenario_id", "category", "line", "outcome", "finish_reason")
    )
    for persona, scenario, category, line, outcome, reason, text in zip(*columns, cut, strict=True):
        arm.add((persona, scenario), line or "", text)
        arm.groups[persona, scenario] = category or ""
        arm.states["truncated" if outcome == "reply" and reason == "length" else outcome] += 1
    for name in _TIMES:
        seconds = replies[name].to_numpy()
        measured = np.flatnonzero(~np.isnan(seconds.astype(float)))
        if len(measured):
            arm.seconds[name] = measured, seconds[measured].astype(float)
    timed = replies.filter(pc.and_(pc.is_valid(replies["sent"]), pc.is_valid(replies["e2e"])))
    arm.busy = busy_seconds(timed["sent"].to_numpy(), timed["e2e"].to_numpy())
    row_of = pc.index_in(_reply_ids(scores), value_set=_reply_ids(replies).combine_chunks())
    for name in pc.unique(scores["scorer"]).to_pylist():
        mine = pc.and_(pc.equal(scores["scorer"], name), pc.is_valid(row_of))
        values, rows = scores["value"].filter(mine), row_of.filter(mine)
        there = pc.is_valid(values)
        arm.without[name] += values.null_count
        arm.scores[name] = rows.filter(there).to_numpy(), values.filter(there).to_numpy()
    arm.less = less_is_better(folder.results_of("eval").get("bounds", {}))
    arm.load = _load(folder, manifest, streaming="ttft" in arm.seconds)
    arm.selected_on = frozenset(manifest.get("asked", {}).get("selected_on") or ())
    arm.scored_by = [manifest.get("asked", {}).get(name) or [] for name in ("settings", "scorers")]
    return arm


def _reply_ids(table: pa.Table) -> Any:
    return pc.binary_join_element_wise(table["item_id"], table["turn"].cast(pa.string()), "/")


def _table(path: Any, columns: tuple[str, ...]) -> pa.Table:
    try:
        older = "turn" not in pq.read_schema(path).names  # a run whose conversations had one turn
        table = pq.read_table(path, columns=[name for name in columns if name != "turn" or not older])
        return table.append_column("turn", column(np.zeros(len(table), np.int32), pa.int32())) if older else table
    except (pa.ArrowException, OSError) as exc:
        raise ConfigError(f"{path}: not a whole table: {' '.join(str(exc).split())[:200]}") from exc


def less_is_better(bounds: dict[str, Any]) -> frozenset[str]:
    """Such scorers, by the criteria at hand and by what the run says of its own."""
    known = {**load_criteria().filters, **{name: Bounds(**own) for name, own in bounds.items()}}
    return frozenset(name for name, own in known.items() if own.less_is_better)


def _load(folder: RunFolder, manifest: dict[str, Any], *, streaming: bool) -> Load:
    asked = manifest.get("asked", {}).get("concurrency")
    evaluated, generated = folder.results_of("eval"), folder.results_of("generate")
    bound = evaluated.get("load", {}).get("client_bound") or generated.get("client_bound")
    return Load(asked if isinstance(asked, int) else None, streaming, client_bound=bool(bound))
