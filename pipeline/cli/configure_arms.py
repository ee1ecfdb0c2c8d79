"""`pipeline eval --arm`: from what stands on the command line to one configuration for each arm."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.configure import RUNS, also_given, as_before, configure, given, selected_on, unfinished
from pipeline.errors import ConfigError
from pipeline.hints import meant

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.evaluation.arms import Arms


def configure_arms(options: dict[str, Any]) -> "tuple[Arms, Path]":
    """`--arm NAME:KEY=VALUE,...`: a configuration for each, over the same items and seeds. KEY is the name of an option."""
    from dataclasses import replace

    from pipeline.evaluation.arms import Arms
    from pipeline.records import digest

    configs: dict[str, RunConfig] = {}
    gates: tuple[str, ...] = ()
    for text in options["arms"]:
        name, _, rest = text.partition(":")
        if not _ARM_NAME.fullmatch(name):
            raise click.UsageError(f"--arm {text}: it has to read NAME:KEY=VALUE,KEY=VALUE, as warm:temperature=1.")
        if name in configs:
            raise click.UsageError(f"--arm {text}: there is an arm {name} already.")
        changed, trained_on = _changes(text, [part for part in rest.split(",") if part.strip()])
        with also_given(changed):
            config, _ = configure("eval", options | changed, stream=True)
        gates = config.gates
        config = replace(
            config, gates=(), selected_on=selected_on(Path(trained_on)) if trained_on else config.selected_on
        )
        configs[name] = config
    arms = Arms(configs, gates, options["thinking_timeout"])
    arms.check()
    name = f"eval-{digest(*([name, config.fingerprint()] for name, config in configs.items()))[:8]}"
    return arms, Path(options["out"]) if options["out"] else RUNS / name


def resumed_arms(options: dict[str, Any]) -> "tuple[Arms, Path] | None":
    """The arms of the run that --resume means; None if it has none."""
    from dataclasses import replace

    from pipeline.evaluation.arms import read_arms
    from pipeline.run.folder import RunFolder

    folder = unfinished("eval", options)
    manifest = RunFolder(folder).manifest()
    if "arms" not in manifest:
        return None
    arms = read_arms(RunFolder(folder))
    if "concurrency" in given():
        raise ConfigError(f"{folder}: an arm keeps its concurrency, which is what its latencies hold for.")
    arms = replace(
        arms,
        configs={
            name: replace(as_before(folder, asked, options), gates=()) for name, asked in manifest["arms"].items()
        },
        gates=tuple(dict.fromkeys((*arms.gates, *options["gates"]))),
        thinking_timeout=options["thinking_timeout"] if "thinking_timeout" in given() else arms.thinking_timeout,
    )
    arms.check()
    return arms, folder


def _changes(text: str, parts: list[str]) -> tuple[dict[str, Any], str]:
    """What an arm does otherwise, as options; and the run whose dataset its model was trained on."""
    context = click.get_current_context()
    known = {p.opts[0].removeprefix("--"): p for p in context.command.params if p.name in _OF_AN_ARM}
    changed: dict[str, Any] = {}
    trained_on = ""
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = key.replace("_", "-")
        if key == _TRAINED_ON and value:
            trained_on = value
            continue
        if not equals or not value or key not in known:
            keys = [*known, _TRAINED_ON]
            raise click.UsageError(
                f"--arm {text}: {part.strip()!r} is not KEY=VALUE.{meant(key, keys)} KEY can be: {', '.join(keys)}."
            )
        param = known[key]
        try:
            changed[str(param.name)] = param.type_cast_value(context, value)
        except click.BadParameter as exc:
            raise click.UsageError(f"--arm {text}: {key}: {exc.message}") from exc
    return changed, trained_on


_ARM_NAME = re.compile(r"[A-Za-z_][\w-]{0,60}", re.ASCII)  # the name of a folder, too
_TRAINED_ON = "trained-on"
_OF_AN_ARM = (
    "server", "dialect", "model", "model_path", "lora", "prompts", "template", "format", "system", "max_tokens",
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "concurrency", "timeout", "insecure", "window",
    "window_tokens",
)  # fmt: skip
