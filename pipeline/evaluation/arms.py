"""Several arms over the same items, one after another: which is better, in what, by how much?

Each arm is a run of its own in the folder of the evaluation, so that whatever reads a run reads an arm:

    run.json              the arms, as they were asked for
    results.json          the figures of all arms, the comparisons with the first, the gates
    arms/NAME/            a run: journal, replies.parquet, scores.parquet, results.json

All arms are checked, and their servers looked at, before anything is asked of the first.
"""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.comparison import Arm, compare_arms, read_run
from pipeline.config import RunConfig
from pipeline.curation.criteria import load_criteria
from pipeline.errors import ConfigError
from pipeline.evaluation.evaluate import evaluating
from pipeline.evaluation.gates import decide, overall, parse_gate, plain
from pipeline.interrupt import run
from pipeline.progress import watcher
from pipeline.run.folder import Inputs, RunFolder, now
from pipeline.run.prepare import Watcher, prepare
from pipeline.run.produce import exhaust, produce, reopen
from pipeline.server.target import find_target


@dataclass(frozen=True, slots=True)
class Arms:
    """What is compared: by name, in the order given. The first is what the others are measured against."""

    configs: Mapping[str, RunConfig]
    gates: tuple[str, ...]
    thinking_timeout: float

    def check(self) -> None:
        """Raises ConfigError for a gate that names what there is not."""
        for config in self.configs.values():
            known = load_criteria(config.settings, config.scorers).filters
            for gate in self.gates:
                parse_gate(gate, known, list(self.configs))


@dataclass(slots=True)
class Ended:
    """`summary` is of what is there. `stopped` says why an arm could not go on."""

    summary: dict[str, Any]
    demo: bool = False
    interrupted: bool = False
    stopped: str = ""


def arm_folders(folder: RunFolder) -> dict[str, RunFolder]:
    """The runs of an evaluation's arms that were begun, by name, in their order; empty for any other run."""
    named = folder.manifest().get("arms") or {}
    every = {name: RunFolder(folder.path / "arms" / name) for name in named}
    return {name: arm for name, arm in every.items() if arm.manifest_path.exists()}


def read_arms(folder: RunFolder) -> Arms:
    """As they were asked for. Raises ConfigError for what is no evaluation with arms."""
    manifest = folder.manifest()
    try:
        configs = {name: RunConfig(**asked) for name, asked in manifest["arms"].items()}
        return Arms(configs, tuple(manifest["gates"]), manifest["thinking_timeout"])
    except (LookupError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{folder.manifest_path}: not a whole manifest ({exc}). Make the run anew.") from exc


def run_arms(arms: Arms, folder: RunFolder, watch: Watcher) -> Ended:
    """Ask whatever is missing, arm by arm. Raises ConfigError before anything is sent."""
    before = folder.manifest() if folder.manifest_path.exists() else {"arms": {}}
    if "arms" not in before:
        raise ConfigError(f"{folder.path}: a run without arms. Take another --out.")
    run(_look(arms, folder.path / ".inputs.part"))
    asked = {name: config.asked() for name, config in arms.configs.items()}
    folder.write_manifest(
        {
            "command": "eval",
            "arms": asked,
            "gates": arms.gates,
            "thinking_timeout": arms.thinking_timeout,
            "started": before.get("started") or now(),
            "finished": None,
        }
    )
    ended = Ended({})
    summaries = {}
    for name, config in arms.configs.items():
        watch.say(f"arm {name}")
        arm = RunFolder(folder.path / "arms" / name)
        with arm.locked():
            produced, summary = run(produce(config, arm, watch, evaluating))
            summary |= {"skipped_rows": produced.skipped, "unfit": produced.count.unfit}
            arm.finish("eval", summary, complete=not summary["open"])
        summaries[name] = summary
        ended.demo |= produced.target.demo
        ended.stopped = ended.stopped or (f"arm {name}: {produced.stopped}" if produced.stopped else "")
        if produced.interrupted:
            ended.interrupted = True
            break
    ended.summary = _summary(arms, folder, summaries)
    return ended


def rescore_arms(
    folder: RunFolder, change: Callable[[RunConfig], RunConfig], gates: tuple[str, ...], watch: Watcher
) -> Ended:
    """The same again from what the journals have, without asking anybody."""
    before = read_arms(folder)
    arms = replace(before, gates=tuple(dict.fromkeys((*before.gates, *gates))))
    arms = replace(arms, configs={name: change(config) for name, config in arms.configs.items()})
    arms = replace(arms, thinking_timeout=next(iter(arms.configs.values())).thinking_timeout)
    arms.check()
    ended, summaries = Ended({}), {}
    for name, arm in arm_folders(folder).items():
        with arm.locked():
            produced = reopen(arm)
            produced.config = change(produced.config)
            ended.demo |= produced.target.demo
            with closing(produced.journal):
                summaries[name] = exhaust(produced, evaluating, watch)
            arm.finish("eval", summaries[name], complete=False)
    ended.summary = _summary(arms, folder, summaries)
    return ended


async def _look(arms: Arms, aside: Path) -> None:
    """All that can be found wrong with any arm, without a word."""
    silent = watcher(quiet=True)
    for config in arms.configs.values():
        inputs = Inputs(aside)
        try:
            prepare(config, inputs, silent)
            await find_target(config, silent.say)
            if config.player_target is not None:
                await find_target(config.for_player(), silent.say)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(inputs.path)


def _summary(arms: Arms, folder: RunFolder, summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ready for JSON: every arm's own summary, each compared with the first, and the gates."""
    read: dict[str, Arm] = {}
    for name, arm in arm_folders(folder).items():
        if name in summaries:
            read[name] = read_run(arm)
            read[name].path = name
    names = list(read)
    filters = set[str]()
    for config in arms.configs.values():
        filters |= set(load_criteria(config.settings, config.scorers).filters)
    gates = [parse_gate(gate, filters, list(arms.configs)) for gate in arms.gates]
    whole = len(read) == len(arms.configs)
    decisions = plain(decide(gates, read, arms.thinking_timeout)) if whole else []
    return {
        "arms": summaries,
        "comparisons": [compare_arms(read[names[0]], read[name]) for name in names[1:]],
        "gates": decisions,
        "verdict": overall(decisions) if decisions else None,
        "thinking_timeout": arms.thinking_timeout,
        "answered": sum(summary["answered"] for summary in summaries.values()),
        "open": sum(summary["open"] for summary in summaries.values()) + (not whole),
    }
