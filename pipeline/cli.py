"""The command line: options in, one library call, a summary out.

Heavy imports live inside the functions that need them: `pipeline --help` loads click and nothing else of weight.

Exit codes: 0 done, 1 nothing was kept, 2 wrong usage or no server, 3 incomplete (the same command goes on), 130 interrupted.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from pipeline.errors import ConfigError, PipelineError, RunStopped
from pipeline.options import TO_A_SERVER, run_options, with_options

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.produce import Produced, Steps

T = TypeVar("T")

RUNS = Path("runs")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="npc-pipeline", prog_name="pipeline")
def cli() -> None:
    """From NPC personas to fine-tuning datasets, and proof that the tuned model plays them well and fast."""


@cli.command()
@run_options(per_persona=2, auto=True)
@click.option(
    "--split-by", type=click.Choice(["persona", "scenario", "both"]), default="both", show_default=True,
    help="What the test splits hold out.",
)  # fmt: skip
def generate(**options: Any) -> None:
    """Ask for NPC replies and make a dataset of those worth keeping.

    The same command goes on where it was interrupted, and asks only for what is missing.
    """
    from pipeline.dataset import Made, making_dataset
    from pipeline.summary import generated

    config, folder = _configure("generate", options, stream=False)
    if options["dry_run"]:
        return _dry_run(config, options)

    def tell(produced: "Produced", made: Made) -> tuple[dict[str, Any], str, int]:
        summary = made.summary()
        return summary, generated(summary, folder, demo=produced.target.demo), 0 if summary["kept"] else 1

    _run(config, folder, options, making_dataset, tell)


@cli.command(name="eval")
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--suite", default="quick", show_default=True, help="Personas and scenarios that generate never uses.")
@run_options(per_persona=4, auto=False)
def evaluate(run: str | None, suite: str, **options: Any) -> None:
    """Score a model on a suite, with intervals and latencies; or score an existing RUN, without asking any server."""
    from pipeline.evaluation import evaluating
    from pipeline.summary import evaluated

    def tell(produced: "Produced", summary: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
        text = evaluated(summary, produced.folder.path, demo=produced.target.demo)
        return summary, text, 0 if summary["answered"] else 1

    if run is not None:
        _rescore(Path(run), options, evaluating, tell)
    config, folder = _configure("eval", options, stream=True, suite=suite)
    if options["dry_run"]:
        return _dry_run(config, options)
    _run(config, folder, options, evaluating, tell)


@cli.command()
@with_options(*TO_A_SERVER, click.option("--json", "as_json", is_flag=True, help="The same as one JSON object."))
def ping(**options: Any) -> None:
    """Say who is there: server, model, context, slots; what would be sent; and one timed reply."""
    import asyncio

    from pipeline.config import RunConfig
    from pipeline.ping import ping as one
    from pipeline.progress import watcher

    config = RunConfig(command="ping", personas="", scenarios="", stream=True, **_server_options(options))
    summary, text = asyncio.run(one(config, watcher(quiet=options["as_json"])))
    click.echo(json.dumps(summary) if options["as_json"] else text)
    sys.exit(2 if summary["error"] else 0)


def main() -> None:
    """Runs the command and turns what it raises into a sentence and an exit code."""
    code = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to end ends as with Ctrl-C
    try:
        code = cli(standalone_mode=False) or 0
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. The same command goes on.", err=True)
        code = 130
    except PipelineError as exc:
        from pipeline.progress import printable

        click.echo(f"Error: {printable(str(exc))}", err=True)
        code = 3 if isinstance(exc, RunStopped) else 2
    except BrokenPipeError:  # whoever read our output has had enough of it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- for the interpreter's own last flush
        code = 3
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        click.echo(
            f"Error: {where}{exc.strerror or exc}. What is answered is safe; the same command goes on.", err=True
        )
        code = 3
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    sys.exit(code)


def _configure(command: str, options: dict[str, Any], *, stream: bool, suite: str = "") -> tuple["RunConfig", Path]:
    from dataclasses import replace

    from pipeline.config import RunConfig
    from pipeline.records import digest
    from pipeline.resources import shipped

    if options["resume"] is not None:
        return _resumed(command, options)
    here = shipped("data")
    if suite:
        here = Path(suite) if Path(suite).is_dir() else here / "suites" / suite
        if not here.is_dir():
            known = ", ".join(sorted(p.name for p in (shipped("data") / "suites").iterdir() if p.is_dir()))
            raise ConfigError(
                f"--suite {suite}: no such suite. There are: {known}; or give a folder with personas/ and scenarios/."
            )
    config = RunConfig(
        command=command,
        personas=options["personas"] or str(here / "personas"),
        scenarios=options["scenarios"] or str(here / "scenarios"),
        stream=stream,
        split_by=options.get("split_by", "both"),
        **{name: options[name] for name in _PASSED_ON} | _server_options(options),
    )
    _check_cost(config)
    if command == "eval" and config.concurrency is None:
        config = replace(config, concurrency=1)
    name = f"{command}-{digest(config.fingerprint())[:8]}"
    return config, Path(options["out"]) if options["out"] else RUNS / name


def _resumed(command: str, options: dict[str, Any]) -> tuple["RunConfig", Path]:
    from pipeline.config import LLMSettings, RunConfig
    from pipeline.runfolder import RunFolder, newest_unfinished

    _only(("resume", *RunConfig.FREE, "quiet", "as_json"), "--resume takes the run's own options")
    folder = Path(options["resume"] or newest_unfinished(RUNS, command))
    manifest = RunFolder(folder).manifest()
    if manifest.get("command") != command:
        raise ConfigError(f"{folder}: a run of pipeline {manifest.get('command')}, not of pipeline {command}.")
    given = {name: options[name] for name in RunConfig.FREE if name in _given()}
    headers = LLMSettings.from_environment().headers if os.environ.get("LLM_HEADERS") else None
    begun = manifest.get("asked", {}).get("concurrency")
    if command == "eval" and given.get("concurrency", begun) != begun:
        raise ConfigError(f"{folder}: measured at --concurrency {begun}, which is what its latencies hold for.")
    try:
        config = RunConfig(**manifest["asked"] | given, headers=headers)
        _check_cost(config)
        return config, folder
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder / 'run.json'}: not a whole manifest ({exc}). Make the run anew.") from exc


def _check_cost(config: "RunConfig") -> None:
    if config.max_cost is not None and config.price is None:
        raise ConfigError(
            "--max-cost needs a --price, to know what a reply costs: --price IN,OUT for a million tokens."
        )


_PASSED_ON = (
    "prompts", "template", "samples", "per_persona", "limit", "top_p", "top_k", "min_p", "repeat_penalty", "seed",
    "max_cost", "strict",
)  # fmt: skip
_OF_A_TARGET = (
    "dialect", "model", "concurrency", "timeout", "insecure", "system", "format", "price", "requests_per_minute",
    "tokens_per_minute",
)  # fmt: skip


def _server_options(options: dict[str, Any]) -> dict[str, Any]:
    """Who is to be asked, and how: from the options, then from pipeline.toml, then from LLM_* in the environment."""
    from pipeline.config import LLMSettings

    found = {name: options[name] for name in ("max_tokens", "temperature", "model_path")}
    found |= {name: options[name] for name in _OF_A_TARGET if name in options}
    server = options["server"]
    if server is None and os.environ.get("LLM_HOST") and not options["model_path"]:
        settings = LLMSettings.from_environment()
        path = f"/{settings.path.lstrip('/')}" if settings.path else ""
        return found | {"server": settings.host.rstrip("/") + path, "headers": settings.headers}
    if server in (None, "embedded"):
        return found | {"server": "embedded"}
    from pipeline.project import named_target

    if (target := named_target(server)) is None:
        return found | {"server": server}
    kept = {name: value for name in _OF_A_TARGET if (value := getattr(target, name)) is not None}
    written = {name: options[name] for name in _given() if name in _OF_A_TARGET}
    return found | kept | written | {"server": target.url, "key_variable": target.key or "LLM_API_KEY"}


def _run(
    config: "RunConfig",
    path: Path,
    options: dict[str, Any],
    sink: "Callable[[Produced], Steps[T]]",
    tell: "Callable[[Produced, T], tuple[dict[str, Any], str, int]]",
) -> NoReturn:
    import asyncio

    from pipeline.produce import produce
    from pipeline.progress import watcher
    from pipeline.runfolder import RunFolder

    folder = RunFolder(path)
    watch = watcher(quiet=options["quiet"])
    with folder.locked():
        produced, made = asyncio.run(produce(config, folder, watch, sink))
        summary, text, code = tell(produced, made)
        summary |= {"skipped_rows": produced.skipped, "unfit": produced.count.unfit}
        complete = not summary["open"]
        folder.finish(config.command, summary, complete=complete)
    _print(summary, text, path, options)
    if produced.interrupted:
        watch.say("Interrupted. The same command goes on.")
        code = 130
    elif not complete:
        why = produced.stopped or f"{summary['open']} replies are still open"
        watch.say(f"Incomplete: {why}. What is answered is safe; the same command asks for the rest.")
        code = 3
    sys.exit(code)


def _rescore(
    path: Path,
    options: dict[str, Any],
    sink: "Callable[[Produced], Steps[T]]",
    tell: "Callable[[Produced, T], tuple[dict[str, Any], str, int]]",
) -> NoReturn:
    from contextlib import closing

    from pipeline.produce import exhaust, reopen
    from pipeline.runfolder import RunFolder

    _only(("run", "quiet", "as_json"), "a RUN is scored as it is")
    folder = RunFolder(path)
    folder.manifest()
    with folder.locked():
        produced = reopen(folder)
        with closing(produced.journal):
            summary, text, code = tell(produced, exhaust(sink(produced)))
        summary |= {"skipped_rows": produced.skipped, "unfit": produced.count.unfit}
        folder.finish("eval", summary, complete=False)
    _print(summary, text, path, options)
    sys.exit(3 if summary["open"] else code)


def _dry_run(config: "RunConfig", options: dict[str, Any]) -> None:
    from pipeline.dryrun import dry_run
    from pipeline.progress import watcher

    summary, text = dry_run(config, watcher(quiet=options["quiet"]))
    click.echo(json.dumps(summary) if options["as_json"] else text)


def _print(summary: dict[str, Any], text: str, path: Path, options: dict[str, Any]) -> None:
    click.echo(json.dumps(summary | {"run": str(path)}) if options["as_json"] else text)


def _given() -> set[str]:
    """Names of the parameters that stand on the command line."""
    context = click.get_current_context()
    written = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is written}


def _only(allowed: tuple[str, ...], why: str) -> None:
    if extra := sorted(_given() - set(allowed)):
        spelled = {param.name: param.opts[0] for param in click.get_current_context().command.params}
        raise click.UsageError(f"{why}: {spelled[extra[0]]} has no place here.")
