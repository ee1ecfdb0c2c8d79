"""What the commands do, from their options to what there is to say. `app.py` prints it, `api.py` hands it to Python."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.cli.configure import (
    configure,
    import_config,
    importing,
    only,
    rescored,
)
from pipeline.cli.configure_arms import configure_arms, resumed_arms
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.evaluation.arms import Arms, Ended
    from pipeline.run.folder import RunFolder
    from pipeline.run.prepare import Watcher
    from pipeline.run.produce import Produced, Steps

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command came to: `text` for a person, `summary` for a program, the exit code. `unfinished` says why there is
    more to ask; then the same command goes on."""

    path: Path | None  # the run's folder; None where none was made
    summary: dict[str, Any]
    text: str
    code: int
    unfinished: str = ""


def generate(options: dict[str, Any], watch: "Watcher") -> Outcome:
    from pipeline.dataset.make import Made, making_dataset
    from pipeline.summary import generated

    config, folder = configure("generate", options, stream=False)
    if options["dry_run"]:
        return _dry_run(config, watch)

    def tell(produced: "Produced", made: Made) -> tuple[dict[str, Any], str, int]:
        summary = made.summary()
        return summary, generated(summary, folder, demo=produced.target.demo), 0 if summary["kept"] else 1

    return _ask(config, folder, watch, making_dataset, tell)


def evaluate(options: dict[str, Any], watch: "Watcher") -> Outcome:
    from pipeline.evaluation.evaluate import evaluating
    from pipeline.evaluation.text import evaluated
    from pipeline.run.folder import RunFolder

    def tell(produced: "Produced", summary: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
        path = produced.folder.path
        return summary, evaluated(summary, path, demo=produced.target.demo), _judged(summary, path)

    if options["run"] is not None:
        only(
            ("run", "settings", "scorers", "gates", "thinking_timeout", "quiet", "as_json"), "a RUN is scored as it is"
        )
        folder = RunFolder(Path(options["run"]))
        if "arms" in folder.manifest():
            return _rescore_arms(folder, options, watch)
        return _reread("eval", folder, options, watch, evaluating, tell)
    arms = resumed_arms(options) if options["resume"] is not None else None
    if arms is None and options["arms"]:
        arms = configure_arms(options)
    if arms is not None:
        return _ask_arms(*arms, options, watch)
    config, path = configure("eval", options, stream=True)
    return _dry_run(config, watch) if options["dry_run"] else _ask(config, path, watch, evaluating, tell)


def curate(options: dict[str, Any], watch: "Watcher") -> Outcome:
    from pipeline.dataset.make import Made, making_dataset
    from pipeline.run.folder import RunFolder
    from pipeline.run.imported import import_run
    from pipeline.summary import curated

    def tell(produced: "Produced", made: Made) -> tuple[dict[str, Any], str, int]:
        summary = made.summary() | {"changes": made.changes.summary() if made.changes else None}
        return summary, curated(summary, produced.folder.path), 0 if summary["kept"] else 1

    folder = RunFolder(importing(options))
    if options["source"] is not None:
        with folder.locked():
            import_run(import_config(options), folder, watch)
    begun = folder.manifest().get("command")
    if begun not in ("generate", "import"):
        raise ConfigError(
            f"{folder.path}: a run of pipeline {begun}. What a model is tested on is nothing to train on."
        )
    return _reread("curate", folder, options, watch, making_dataset, tell)


def _ask(
    config: "RunConfig",
    path: Path,
    watch: "Watcher",
    sink: "Callable[[Produced], Steps[T]]",
    tell: "Callable[[Produced, T], tuple[dict[str, Any], str, int]]",
) -> Outcome:
    from pipeline.interrupt import run
    from pipeline.report import write_report
    from pipeline.run.folder import RunFolder
    from pipeline.run.produce import produce

    folder = RunFolder(path)
    with folder.locked():
        produced, made = run(produce(config, folder, watch, sink))
        summary, text, code = tell(produced, made)
        summary |= {"skipped_rows": produced.skipped, "unfit": produced.count.unfit}
        folder.finish(config.command, summary, complete=not summary["open"])
        write_report(path, summary, {"": folder})
    return _ended(path, summary, text, code, interrupted=produced.interrupted, stopped=produced.stopped)


def _ended(path: Path, summary: dict[str, Any], text: str, code: int, *, interrupted: bool, stopped: str) -> Outcome:
    unfinished = ""
    if interrupted:
        unfinished, code = "Interrupted. The same command goes on.", 130
    elif summary["open"]:
        why = stopped or f"{summary['open']} replies are still open"
        unfinished = f"Incomplete: {why}. What is answered is safe; the same command asks for the rest."
        code = 3
    return Outcome(path=path, summary=summary, text=text, code=code, unfinished=unfinished)


def _reread(
    command: str,
    folder: "RunFolder",
    options: dict[str, Any],
    watch: "Watcher",
    sink: "Callable[[Produced], Steps[T]]",
    tell: "Callable[[Produced, T], tuple[dict[str, Any], str, int]]",
) -> Outcome:
    """Something else from the answers that a run has."""
    from pipeline.report import write_report
    from pipeline.run.produce import exhaust, reopen

    with folder.locked():
        produced = reopen(folder)
        produced.config = rescored(produced.config, options)
        with closing(produced.journal):
            summary, text, code = tell(produced, exhaust(produced, sink, watch))
        summary |= {"skipped_rows": produced.skipped, "unfit": produced.count.unfit}
        folder.finish(command, summary, complete=False)
        write_report(folder.path, summary, {"": folder})
    return Outcome(path=folder.path, summary=summary, text=text, code=3 if summary["open"] else code)


def _ask_arms(arms: "Arms", path: Path, options: dict[str, Any], watch: "Watcher") -> Outcome:
    from pipeline.evaluation.arms import run_arms
    from pipeline.run.folder import RunFolder

    if options["dry_run"]:
        said = {name: _dry_run(config, watch) for name, config in arms.configs.items()}
        return Outcome(
            path=None,
            summary={"arms": {name: one.summary for name, one in said.items()}},
            text="\n\n".join(f"arm {name}\n{one.text}" for name, one in said.items()),
            code=0,
        )
    folder = RunFolder(path)
    with folder.locked():
        ended = run_arms(arms, folder, watch)
        text = _tell_arms(folder, ended, complete=not ended.summary["open"])
    code = _judged(ended.summary, path)
    return _ended(path, ended.summary, text, code, interrupted=ended.interrupted, stopped=ended.stopped)


def _rescore_arms(folder: "RunFolder", options: dict[str, Any], watch: "Watcher") -> Outcome:
    from pipeline.evaluation.arms import rescore_arms

    with folder.locked():
        ended = rescore_arms(folder, lambda arm: replace(rescored(arm, options), gates=()), options["gates"], watch)
        text = _tell_arms(folder, ended, complete=False)
    code = _judged(ended.summary, folder.path)
    return Outcome(path=folder.path, summary=ended.summary, text=text, code=3 if ended.summary["open"] else code)


def _tell_arms(folder: "RunFolder", ended: "Ended", *, complete: bool) -> str:
    from pipeline.evaluation.arms import arm_folders
    from pipeline.evaluation.text import arms_evaluated
    from pipeline.report import write_report

    folder.finish("eval", ended.summary, complete=complete)
    if asked := {name: arm for name, arm in arm_folders(folder).items() if name in ended.summary["arms"]}:
        write_report(folder.path, ended.summary, asked)
    return arms_evaluated(ended.summary, folder.path, demo=ended.demo)


def _judged(summary: dict[str, Any], path: Path) -> int:
    """The exit code that an evaluation has by its gates; told on the page of a workflow's run, too."""
    from pipeline.evaluation.gates import EXIT_CODES, overall
    from pipeline.evaluation.github import step_summary

    step_summary(summary, path)
    return EXIT_CODES[overall(summary["gates"])] if summary["answered"] else 1


def _dry_run(config: "RunConfig", watch: "Watcher") -> Outcome:
    from pipeline.cli.dryrun import dry_run

    summary, text = dry_run(config, watch)
    return Outcome(path=None, summary=summary, text=text, code=0)
