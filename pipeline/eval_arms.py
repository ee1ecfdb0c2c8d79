"""`pipeline eval` with arms: runs them, or scores them again, and says what came of it. Ends the process with its exit code."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.configure import configure_arms, curation_settings, own_scorers, resumed_arms

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.evaluation.arms import Arms
    from pipeline.runfolder import RunFolder


def arms_asked_for(options: dict[str, Any]) -> "tuple[Arms, Path] | None":
    """None where there are none: an ordinary evaluation."""
    if options["resume"] is not None:
        return resumed_arms(options)
    return configure_arms(options) if options["arms"] else None


def evaluate_arms(arms: "Arms", path: Path, options: dict[str, Any]) -> NoReturn:
    from pipeline.dryrun import dry_run
    from pipeline.evaluation.arms import run_arms
    from pipeline.progress import watcher
    from pipeline.runfolder import RunFolder

    watch = watcher(quiet=options["quiet"])
    if options["dry_run"]:
        said = {name: dry_run(config, watch) for name, config in arms.configs.items()}
        texts = [f"arm {name}\n{text}" for name, (_, text) in said.items()]
        summaries = {name: summary for name, (summary, _) in said.items()}
        click.echo(json.dumps({"arms": summaries}) if options["as_json"] else "\n\n".join(texts))
        sys.exit(0)
    folder = RunFolder(path)
    with folder.locked():
        ended = run_arms(arms, folder, watch)
        complete = not ended.summary["open"]
        folder.finish("eval", ended.summary, complete=complete)
        _report(ended.summary, folder)
    code = _tell(ended.summary, folder, options, demo=ended.demo)
    if ended.interrupted:
        watch.say("Interrupted. The same command goes on.")
        code = 130
    elif not complete:
        why = ended.stopped or f"{ended.summary['open']} replies are still open"
        watch.say(f"Incomplete: {why}. What is answered is safe; the same command asks for the rest.")
        code = 3
    sys.exit(code)


def rescore(folder: "RunFolder", options: dict[str, Any], given: dict[str, Any]) -> NoReturn:
    """`given` goes before what the arms' configurations say."""
    from pipeline.evaluation.arms import rescore_arms

    def change(config: "RunConfig") -> "RunConfig":
        return replace(
            config,
            settings=(*config.settings, *curation_settings(options)),
            scorers=tuple(dict.fromkeys((*config.scorers, *own_scorers(options)))),
            **given,
        )

    with folder.locked():
        summary = rescore_arms(folder, change, options["gates"])
        folder.finish("eval", summary, complete=False)
        _report(summary, folder)
    code = _tell(summary, folder, options, demo=False)
    sys.exit(3 if summary["open"] else code)


def _report(summary: dict[str, Any], folder: "RunFolder") -> None:
    """Of the arms that were asked anything."""
    from pipeline.evaluation.arms import arm_folders
    from pipeline.report import write_report

    arms = {name: arm for name, arm in arm_folders(folder).items() if name in summary["arms"]}
    if arms:
        write_report(folder.path, summary, arms)


def _tell(summary: dict[str, Any], folder: "RunFolder", options: dict[str, Any], *, demo: bool) -> int:
    from pipeline.evaluation.gates import EXIT_CODES, overall
    from pipeline.evaluation.github import step_summary
    from pipeline.evaluation.text import arms_evaluated

    text = arms_evaluated(summary, folder.path, demo=demo)
    click.echo(json.dumps(summary | {"run": str(folder.path)}) if options["as_json"] else text)
    step_summary(summary, folder.path)
    return EXIT_CODES[overall(summary["gates"])] if summary["answered"] else 1
