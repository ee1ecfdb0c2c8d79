"""The commands from Python, in a script or a notebook: `run = pipeline.generate(limit=24)`.

The options are those of the command line by the same names, checked by the same rules: `--per-persona all` is
`per_persona="all"`, `--from` is `from_`. What may be given several times is a list, or a dictionary: `set={"slop.max": 8}`,
`arm={"cool": {}, "warm": {"temperature": 1}}`.

Each waits until it is done, also where an event loop is running. What goes wrong is raised, as PipelineError; what was answered
is safe then, and the same call goes on. A gate that fails raises nothing: `run.results()` has the verdicts.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import ConfigError
from pipeline.runs import Run, load_run

if TYPE_CHECKING:
    from pipeline.comparison.frames import Comparison

_OF_A_TERMINAL = ("help", "json", "dry-run")


def generate(**options: Any) -> Run:
    """Ask for NPC replies and make a dataset of those worth keeping: `pipeline generate --help`. Raises PipelineError, and
    KeyboardInterrupt when it is told to stop."""
    return _run("generate", None, options)


def evaluate(run: "Run | str | os.PathLike[str] | None" = None, **options: Any) -> Run:
    """Score a model on a suite, or an existing run as it is: `pipeline eval --help`. Raises as `generate` does."""
    return _run("eval", run, options)


def curate(run: "Run | str | os.PathLike[str] | None" = None, **options: Any) -> Run:
    """Make the dataset of a run again by other criteria, without asking anybody: `pipeline curate --help`. Raises as `generate`
    does."""
    return _run("curate", run, options)


def compare(
    a: "Run | str | os.PathLike[str]",
    b: "Run | str | os.PathLike[str]",
    *,
    item: str | None = None,
    cluster: str | None = None,
    score: str | tuple[str, ...] | list[str] = (),
) -> "Comparison":
    """Whether B is different from A, in what and by how much: `pipeline compare --help`. Raises ConfigError."""
    from pipeline.comparison import Columns, compare_arms, read_arm
    from pipeline.comparison.frames import Comparison

    scores = (score,) if isinstance(score, str) else tuple(score)
    return Comparison(compare_arms(*(read_arm(_path(arm), Columns(item, cluster, scores)) for arm in (a, b))))


def _run(name: str, run: Any, options: Mapping[str, Any]) -> Run:
    from pipeline.cli import cli, commands
    from pipeline.interrupt import as_guest
    from pipeline.progress import watcher

    command = cli.commands[name]
    arguments = [*_arguments(command, options), *([] if run is None else ["--", _path(run)])]
    do = {"generate": commands.generate, "eval": commands.evaluate, "curate": commands.curate}[name]
    try:
        inside = click.Context(cli, info_name="pipeline", **cli.context_settings)
        with command.make_context(name, arguments, parent=inside) as context, as_guest():
            watch = watcher(quiet=context.params["quiet"])
            outcome = do(context.params, watch)
    except click.ClickException as exc:
        raise ConfigError(exc.format_message()) from None
    assert outcome.path is not None
    if not context.params["quiet"]:
        watch.say(outcome.text)
    if outcome.unfinished:
        watch.warn(outcome.unfinished)
    if outcome.code == 130:
        raise KeyboardInterrupt(outcome.unfinished)
    return load_run(outcome.path)


def _arguments(command: click.Command, options: Mapping[str, Any]) -> list[str]:
    """As they would stand on the command line."""
    from pipeline.hints import nearest

    known = {spelled: param for param in command.params for spelled in param.opts if spelled.startswith("--")}
    arguments = []
    for name, value in options.items():
        spelled = "--" + name.removesuffix("_").replace("_", "-")
        param = known.get(spelled)
        if not isinstance(param, click.Option) or spelled[2:] in _OF_A_TERMINAL:
            names = sorted(one[2:].replace("-", "_") for one in known if one[2:] not in _OF_A_TERMINAL)
            raise ConfigError(f"{name}: no option of pipeline {command.name}.{nearest(name, names)}")
        if value is None or (param.is_flag and value is False):
            continue
        if param.is_flag:
            arguments.append(spelled)
        elif param.multiple:
            arguments += [f"{spelled}={one}" for one in _several(value)]
        else:
            arguments.append(f"{spelled}={_one(value)}")
    return arguments


def _several(value: Any) -> list[str]:
    if isinstance(value, str | os.PathLike):
        return [_path(value)]
    if not isinstance(value, Mapping):
        return [_one(one) for one in value]
    return [
        f"{key}:" + ",".join(f"{name}={_one(one)}" for name, one in inner.items())
        if isinstance(inner, Mapping)
        else f"{key}={_one(inner)}"
        for key, inner in value.items()
    ]


def _one(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    if isinstance(value, list | tuple):
        return ",".join(map(_one, value))
    return _path(value)


def _path(value: Any) -> str:
    return str(value.path if isinstance(value, Run) else value)
