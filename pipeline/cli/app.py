"""The command line: options in, one library call, a summary out.

Heavy imports live inside the functions that need them: `pipeline --help` loads click and nothing else of weight.

Exit codes: 0 done, 1 nothing was kept or a gate failed, 2 wrong usage or no server, 3 incomplete (the same command goes on) or
inconclusive, 130 interrupted.
"""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.cli import commands
from pipeline.cli.configure import server_options, with_defaults
from pipeline.cli.options import (
    AS_JSON,
    GATING,
    IMPORTING,
    PROMPTS,
    QUIET,
    SCORING,
    TO_A_SERVER,
    TRAINING,
    run_options,
    with_options,
)
from pipeline.cli.personas import personas
from pipeline.cli.start import doctor, init
from pipeline.errors import PipelineError, RunStopped

if TYPE_CHECKING:
    from pipeline.cli.commands import Outcome
    from pipeline.run.prepare import Watcher


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="npc-pipeline", prog_name="pipeline")
def cli() -> None:
    """From NPC personas to fine-tuning datasets, and proof that the tuned model plays them well and fast."""


cli.add_command(init)
cli.add_command(doctor)
cli.add_command(personas)


@cli.command()
@run_options(per_persona=2, auto=True)
@click.option(
    "--split-by", type=click.Choice(["persona", "scenario", "both"]), default="both", show_default=True,
    help="What the test splits hold out.",
)  # fmt: skip
@click.option("--contrast", is_flag=True, help="Ask each line once more without the persona, for preference pairs.")
@with_options(*TRAINING)
def generate(**options: Any) -> None:
    """Ask for NPC replies and make a dataset of those worth keeping.

    The same command goes on where it was interrupted, and asks only for what is missing. What pipeline.toml has under
    [defaults] goes before the defaults below.
    """
    _run(commands.generate, options)


@cli.command(name="eval")
@click.argument("run", required=False, metavar="[RUN]")
@click.option(
    "--suite", default="quick", show_default=True, metavar="NAME|FOLDER",
    help="What is asked: quick, npc, adversarial, or a folder of your own. generate never uses it.",
)  # fmt: skip
@click.option(
    "--from", "from_run", metavar="RUN", help="Ask what the dataset of this RUN holds out, instead of a suite."
)
@click.option(
    "--arm", "arms", multiple=True, metavar="NAME:KEY=VALUE,...",
    help="One of several to compare, over the same items: base:, warm:temperature=1, tuned:lora=FILE.gguf. "
    "KEY is an option's name.",
)  # fmt: skip
@run_options(per_persona=4, auto=False)
@with_options(*SCORING, *GATING)
def evaluate(**options: Any) -> None:
    """Score a model on a suite, with intervals and latencies; compare several; or score an existing RUN, without asking any
    server.

    Exits with 1 if a gate fails, and with 3 if a gate cannot be decided.
    """
    _run(commands.evaluate, options)


@cli.command()
@click.argument("run", required=False, metavar="[RUN]")
@with_options(
    *IMPORTING,
    *TRAINING,
    click.option(
        "--system", "train_system", type=click.Choice(["keep", "merge", "drop"]), help="Of the prompts to train on."
    ),
    PROMPTS,
    *QUIET,
)
def curate(**options: Any) -> None:
    """Make the dataset of a RUN again, with other criteria or another training prompt, and show what that changes.

    Asks no server. It starts from the options that the run was generated with; those given here go before them. With --from it
    makes a run of conversations that you already have.
    """
    _run(commands.curate, options)


@cli.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--format",
    "trainer",
    type=click.Choice(["trl", "axolotl", "llamafactory", "sharegpt"]),
    help="Whose files to write.",
)
@click.option("--out", metavar="DIR", help="Where to.  [default: RUN/export/FORMAT]")
@click.option(
    "--push-to-hub", metavar="OWNER/NAME", help="Send the dataset to the Hugging Face hub. HF_TOKEN is its key."
)
@click.option("--public", is_flag=True, help="For everybody to see; else it is private.")
@click.option("--with-rejected/--without-rejected", default=None, help="Send the dropped rows, too.  [default: ask]")
@with_options(*QUIET)
def export(run: str, **options: Any) -> None:
    """Write the dataset of a RUN as files for a trainer, with what to paste into its configuration; or send it to the hub."""
    from pipeline.dataset.export import export as write
    from pipeline.dataset.hub import push_to_hub
    from pipeline.progress import printable, watcher
    from pipeline.run.folder import RunFolder

    if options["trainer"] is None and options["push_to_hub"] is None:
        raise click.UsageError("say what for: --format trl, or --push-to-hub OWNER/NAME.")
    folder = RunFolder(Path(run))
    folder.manifest()
    summary: dict[str, Any] = {}
    with folder.locked():
        if options["trainer"] is not None:
            result = write(folder.path, options["trainer"], Path(options["out"]) if options["out"] else None)
            summary |= result.summary()
        if options["push_to_hub"] is not None:
            with_rejected = options["with_rejected"]
            if with_rejected is None and sys.stdin.isatty() and (folder.dataset / "rejected").is_dir():
                with_rejected = click.confirm("Send the dropped rows, too?", err=True)
            summary["hub"] = push_to_hub(
                folder.dataset,
                options["push_to_hub"],
                public=options["public"],
                with_rejected=bool(with_rejected),
                say=watcher(quiet=options["quiet"]).say,
            )
    click.echo(json.dumps(summary) if options["as_json"] else printable(_exported(summary)))


def _exported(summary: dict[str, Any]) -> str:
    lines = [f"{name}  {rows} rows" for name, rows in summary.get("rows", {}).items()]
    for name, reasons in summary.get("skipped", {}).items():
        lines += [f"{name}  left out {count} {reason}" for reason, count in reasons.items()]
    if "folder" in summary:
        lines += [f"written  {summary['folder']}", f"how to train: {summary['folder']}/README.md"]
    if "hub" in summary:
        lines.append(f"hub      {summary['hub']}")
    return "\n".join(lines)


@cli.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--item", metavar="COL", help="In a table: what was asked. Rows with the same are repeats.")
@click.option("--cluster", metavar="COL", help="What items have in common, such as the persona.")
@click.option(
    "--score", "scores", metavar="COL", multiple=True, help="What to compare.  [default: all of a run or a log]"
)
@AS_JSON
def compare(a: str, b: str, *, item: str | None, cluster: str | None, scores: tuple[str, ...], as_json: bool) -> None:
    """Say whether B is different from A, in what and by how much, and what could not have been seen.

    A and B are runs, or scores from anywhere: JSONL, CSV, Parquet, logs of inspect_ai (.eval, JSON), samples of lm-eval.
    """
    from pipeline.comparison import Columns, compare_arms, compared, read_arm

    summary = compare_arms(*(read_arm(arm, Columns(item, cluster, scores)) for arm in (a, b)))
    click.echo(json.dumps(summary) if as_json else compared(summary))
    sys.exit(3 if summary["verdict"] == "inconclusive" else 0)


@cli.command()
@with_options(*TO_A_SERVER, *QUIET)
def ping(**options: Any) -> None:
    """Say who is there: server, model, context, slots; what would be sent; and one timed reply."""
    import asyncio

    from pipeline.cli.ping import ping as one
    from pipeline.config import RunConfig
    from pipeline.progress import watcher

    target = server_options(with_defaults("ping", options))
    config = RunConfig(command="ping", personas="", scenarios="", stream=True, **target)
    summary, text = asyncio.run(one(config, watcher(quiet=options["quiet"])))
    click.echo(json.dumps(summary) if options["as_json"] else text)
    sys.exit(2 if summary["error"] else 0)


def main() -> None:
    """Runs the command and turns what it raises into a sentence and an exit code."""
    code = 0
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # pyarrow's own keeps 60 MB more than it needs
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to end ends as with Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an old code page lacks letters: better a ? than no result
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
        sys.stdout = open(os.devnull, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 -- for the interpreter's own last flush
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


def _run(command: Callable[[dict[str, Any], "Watcher"], "Outcome"], options: dict[str, Any]) -> NoReturn:
    from pipeline.progress import printable, watcher

    outcome = command(options, watcher(quiet=options["quiet"]))
    run = {"run": str(outcome.path)} if outcome.path is not None else {}
    click.echo(json.dumps(outcome.summary | run) if options["as_json"] else outcome.text)
    if outcome.unfinished:
        click.echo(printable(outcome.unfinished), err=True)
    sys.exit(outcome.code)
