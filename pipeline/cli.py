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

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.produce import Produced, Steps

T = TypeVar("T")

RUNS = Path("runs")


class _PerPersona(click.ParamType[int | None]):
    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all":
            return None
        return click.IntRange(min=1).convert(value, param, ctx)


class _Concurrency(click.ParamType[int | None]):
    def __init__(self, *, auto: bool) -> None:
        self.name = "auto|N" if auto else "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value != "auto":
            return click.IntRange(1, 4096).convert(value, param, ctx)
        if self.name == "N":
            self.fail("a latency holds for one concurrency: give a number. Auto is for generate.", param, ctx)
        return None


def _options(*, per_persona: int, auto: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What `generate` and `eval` share."""
    server_help = (
        "'embedded' (the default), or the address of a server. LLM_HOST stands for it, LLM_API_KEY is its key."
    )
    each = [
        click.option("--server", metavar="embedded|URL", help=server_help),
        click.option("--dialect", type=click.Choice(["auto", "openai", "textgen"]), default="auto", show_default=True),
        click.option("--model", help="The model's name, where a server has several."),
        click.option("--model-path", metavar="FILE.gguf", help="A model of your own for the embedded server."),
        click.option("--personas", metavar="SOURCE", help="YAML, JSONL, CSV, Parquet, a folder of them, or a hub id."),
        click.option("--scenarios", metavar="SOURCE", help="The same, for scenarios."),
        click.option("--prompts", metavar="DIR", help="A folder of templates that is looked into first."),
        click.option("--template", default="npc/default", show_default=True, help="The prompt, e.g. npc/barks."),
        click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Replies per line."),
        click.option(
            "--per-persona", type=_PerPersona(), default=str(per_persona), show_default=True, help="Scenarios for each."
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Ask for the first so many only."),
        click.option("--max-tokens", type=click.IntRange(min=1), default=80, show_default=True),
        click.option("--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True),
        click.option("--seed", type=int, default=0, show_default=True, help="Another seed, other replies."),
        click.option(
            "--concurrency",
            type=_Concurrency(auto=auto),
            help="Requests at a time" + (", or found out.  [default: auto]" if auto else ".  [default: 1]"),
        ),
        click.option(
            "--timeout", type=click.FloatRange(min=0.001), default=120.0, show_default=True, help="Seconds a reply."
        ),
        click.option("--insecure", is_flag=True, help="Take any TLS certificate, for a server at home."),
        click.option("--strict", is_flag=True, help="Refuse a source with any bad row."),
        click.option("--out", metavar="DIR", help="The run's folder.  [default: under runs/, named by the options]"),
        click.option(
            "--resume",
            is_flag=False,
            flag_value="",
            metavar="[RUN]",
            help="Go on with a run: the newest unfinished one.",
        ),
        click.option("--dry-run", is_flag=True, help="Count, estimate and show the first prompts. Sends nothing."),
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object."),
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(each):
            function = option(function)
        return function

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="npc-pipeline", prog_name="pipeline")
def cli() -> None:
    """From NPC personas to fine-tuning datasets, and proof that the tuned model plays them well and fast."""


@cli.command()
@_options(per_persona=2, auto=True)
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
@_options(per_persona=4, auto=False)
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
    from pipeline.config import LLMSettings, RunConfig
    from pipeline.records import digest
    from pipeline.resources import shipped
    from pipeline.runfolder import RunFolder, newest_unfinished

    if options["resume"] is not None:
        _only(("resume", *RunConfig.FREE, "quiet", "as_json"), "--resume takes the run's own options")
        folder = Path(options["resume"] or newest_unfinished(RUNS, command))
        manifest = RunFolder(folder).manifest()
        if manifest.get("command") != command:
            raise ConfigError(f"{folder}: a run of pipeline {manifest.get('command')}, not of pipeline {command}.")
        given = {name: options[name] for name in RunConfig.FREE if name in _given()}
        headers = LLMSettings.from_environment().headers if os.environ.get("LLM_HEADERS") else None
        try:
            return RunConfig(**manifest["asked"] | given, headers=headers), folder
        except (LookupError, TypeError) as exc:
            raise ConfigError(f"{folder / 'run.json'}: not a whole manifest ({exc}). Make the run anew.") from exc
    server, headers = options["server"], None
    if server is None and os.environ.get("LLM_HOST") and not options["model_path"]:
        settings = LLMSettings.from_environment()
        path = f"/{settings.path.lstrip('/')}" if settings.path else ""
        server, headers = settings.host.rstrip("/") + path, settings.headers
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
        server=server or "embedded",
        headers=headers,
        concurrency=options["concurrency"] or (1 if command == "eval" else None),
        stream=stream,
        split_by=options.get("split_by", "both"),
        **{name: options[name] for name in _PASSED_ON},
    )
    name = f"{command}-{digest(config.fingerprint())[:8]}"
    return config, Path(options["out"]) if options["out"] else RUNS / name


_PASSED_ON = (
    "dialect", "model", "model_path", "prompts", "template", "samples", "per_persona", "limit", "max_tokens",
    "temperature", "seed", "timeout", "insecure", "strict",
)  # fmt: skip


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
        raise click.UsageError(f"{why}: --{extra[0].replace('_', '-')} has no place here.")
