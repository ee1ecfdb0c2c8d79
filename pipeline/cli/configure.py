"""From what stands on the command line to the configuration of a run: options, pipeline.toml, LLM_* and a run's own manifest."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig

RUNS = Path("runs")


def configure(command: str, options: dict[str, Any], *, stream: bool) -> tuple["RunConfig", Path]:
    """The configuration of a run, and its folder."""
    from dataclasses import replace

    from pipeline.config import RunConfig
    from pipeline.records import digest
    from pipeline.resources import shipped

    if options["resume"] is not None:
        return _resumed(command, options)
    options = with_defaults(command, options)
    here = shipped("data")
    config = RunConfig(
        command=command,
        personas=options["personas"] or str(here / "personas"),
        scenarios=options["scenarios"] or str(here / "scenarios"),
        stream=stream,
        columns=",".join(options["columns"]),
        split_by=options.get("split_by", "both"),
        contrast=options.get("contrast", False),
        settings=curation_settings(options),
        scorers=own_scorers(options),
        train_prompt=options.get("train_prompt"),
        train_format=options.get("train_format"),
        **{name: options[name] for name in _PASSED_ON} | server_options(options),
    )
    if command == "eval":
        config = replace(_of_evaluation(config, options), concurrency=config.concurrency or 1)
    config = with_player(config, options["player_server"])
    _check(config)
    name = f"{command}-{digest(config.fingerprint())[:8]}"
    return config, Path(options["out"]) if options["out"] else RUNS / name


def _of_evaluation(config: "RunConfig", options: dict[str, Any]) -> "RunConfig":
    """With the personas and scenarios of a suite, or those that a run holds out; what is given goes before."""
    from dataclasses import replace

    from pipeline.evaluation.suite import read_suite

    config = replace(config, gates=options["gates"], thinking_timeout=options["thinking_timeout"])
    written = given()
    if options["from_run"] is not None:
        if both := written & {"suite", "personas", "scenarios"}:
            raise click.UsageError(f"--from takes the personas and scenarios of its run: no --{min(both)} beside it.")
        return _held_out(config, Path(options["from_run"]))
    suite = read_suite(options["suite"])
    return replace(
        config,
        personas=options["personas"] or suite.personas,
        scenarios=options["scenarios"] or suite.scenarios,
        per_persona=config.per_persona if "per_persona" in written else suite.per_persona,
        samples=config.samples if "samples" in written else suite.repeats,
        turns=config.turns if "turns" in written else suite.turns,
        settings=(*suite.settings, *config.settings),
        scorers=tuple(dict.fromkeys((*suite.own, *config.scorers))),
        gates=(*suite.gates, *config.gates),
    )


def _held_out(config: "RunConfig", path: Path) -> "RunConfig":
    """What the dataset of a run holds out for tests."""
    from dataclasses import replace

    from pipeline.run.folder import RunFolder

    folder = RunFolder(path)
    by = folder.results_of("generate").get("split_by")
    if folder.manifest().get("command") != "generate" or by is None:
        raise ConfigError(
            f"--from {path}: no finished run of pipeline generate: it is its dataset that holds out tests."
        )
    return replace(
        config,
        personas=str(folder.inputs.personas),
        scenarios=str(folder.inputs.scenarios),
        held_out=by,
        turns=config.turns if "turns" in given() else folder.manifest().get("asked", {}).get("turns", 1),
        selected_on=selected_on(path),
    )


def selected_on(run: Path) -> tuple[str, ...]:
    """The scores that chose what a run's dataset has for training: evidence of nothing for a model that was trained on it."""
    from pipeline.curation.criteria import load_criteria
    from pipeline.run.folder import RunFolder

    folder = RunFolder(run)
    asked = folder.manifest().get("asked", {})
    if made_by := folder.criteria():  # by others than the manifest's, where it was curated since
        return tuple(name for name, bounds in made_by["filters"].items() if bounds is not False)
    return tuple(load_criteria(asked.get("settings") or (), asked.get("scorers") or ()).filters)


def _resumed(command: str, options: dict[str, Any]) -> tuple["RunConfig", Path]:
    from pipeline.run.folder import RunFolder

    folder = unfinished(command, options)
    return as_before(folder, RunFolder(folder).manifest().get("asked") or {}, options), folder


def unfinished(command: str, options: dict[str, Any]) -> Path:
    """The folder that --resume means."""
    from pipeline.config import RunConfig
    from pipeline.run.folder import RunFolder, newest_unfinished

    only(("resume", *RunConfig.FREE, *_LIMITS, "quiet", "as_json"), "--resume takes the run's own options")
    folder = Path(options["resume"] or newest_unfinished(RUNS, command))
    begun = RunFolder(folder).manifest().get("command")
    if begun != command:
        raise ConfigError(f"{folder}: a run of pipeline {begun}, not of pipeline {command}.")
    return folder


def as_before(folder: Path, asked: dict[str, Any], options: dict[str, Any]) -> "RunConfig":
    """What was asked for, but for what is given now and may change."""
    from pipeline.config import LLMSettings, RunConfig

    written = given()
    changed = {name: options[name] for name in RunConfig.FREE if name in written}
    for name, more in (("settings", curation_settings(options)), ("scorers", own_scorers(options))):
        if more:
            before = asked.get(name, ())
            changed[name] = (*(one for one in before if one not in more), *more)
    headers = LLMSettings.from_environment().headers if os.environ.get("LLM_HEADERS") else None
    begun = asked.get("concurrency")
    if asked.get("command") == "eval" and changed.get("concurrency", begun) != begun:
        raise ConfigError(f"{folder}: measured at --concurrency {begun}, which is what its latencies hold for.")
    try:
        config = RunConfig(**asked | changed, headers=headers)
        _check(config)
        return config
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder / 'run.json'}: not a whole manifest ({exc}). Make the run anew.") from exc


def _check(config: "RunConfig") -> None:
    """What can be wrong with the options is found before anything is asked."""
    from pipeline.curation.criteria import load_criteria

    known = load_criteria(config.settings, config.scorers).filters
    if config.gates:
        from pipeline.evaluation.gates import parse_gate

        arms = click.get_current_context().params.get("arms") or ()
        for gate in config.gates:
            parse_gate(gate, known, [arm.partition(":")[0] for arm in arms])
    if config.player is not None and config.turns in (None, 1):
        raise ConfigError("--player needs --turns N, from 2 on: how many replies a conversation has at most.")
    if config.max_cost is not None and config.price is None:
        raise ConfigError(
            "--max-cost needs a --price, to know what a reply costs: --price IN,OUT for a million tokens."
        )


_ARM = "pipeline.cli.configure.arm"  # where click keeps what belongs to us
_LIMITS = ("max_per_prompt", "max_per_persona", "max_per_scenario")
_PASSED_ON = (
    "prompts", "template", "samples", "per_persona", "limit", "top_p", "top_k", "min_p", "repeat_penalty", "seed",
    "max_cost", "strict", "turns", "player", "window", "window_tokens",
)  # fmt: skip
_OF_A_TARGET = (
    "dialect", "model", "concurrency", "timeout", "insecure", "system", "format", "price", "requests_per_minute",
    "tokens_per_minute",
)  # fmt: skip


def with_defaults(command: str, options: dict[str, Any]) -> dict[str, Any]:
    """With what pipeline.toml says where the command line says nothing. A model that is named runs in the embedded server."""
    from pipeline.server.project import defaults

    written = given() | ({"server"} if options["model_path"] or options["lora"] else set())
    return options | defaults(command, written)


_NOT_EMBEDDED = ("dialect", "model", "format", "insecure")  # what the embedded server would pass over


def server_options(options: dict[str, Any]) -> dict[str, Any]:
    """Who is to be asked, and how: from the options, then from pipeline.toml, then from LLM_* in the environment."""
    from pipeline.config import LLMSettings
    from pipeline.dialects import dialect_named

    if options["dialect"] != "auto":
        dialect_named(options["dialect"])  # raises, before anybody is asked
    found = {name: options[name] for name in ("max_tokens", "temperature", "model_path", "lora")}
    found |= {name: options[name] for name in _OF_A_TARGET if name in options}
    server = options["server"]
    if server is None and os.environ.get("LLM_HOST") and not (options["model_path"] or options["lora"]):
        settings = LLMSettings.from_environment()
        return found | {"server": settings.address, "headers": settings.headers}
    if server in (None, "embedded"):
        if extra := sorted(given() & set(_NOT_EMBEDDED)):
            raise click.UsageError(
                f"--{extra[0]} is for a server of your own, and the embedded model would answer: "
                "name yours with --server or LLM_HOST. --model-path FILE.gguf takes another model."
            )
        return found | {"server": "embedded"}
    from pipeline.server.project import named_target

    if (target := named_target(server)) is None:
        return found | {"server": server}
    kept = {name: value for name in _OF_A_TARGET if (value := getattr(target, name)) is not None}
    written = {name: options[name] for name in given() if name in _OF_A_TARGET}
    return found | kept | written | {"server": target.url, "key_variable": target.key or "LLM_API_KEY"}


def with_player(config: "RunConfig", server: str | None) -> "RunConfig":
    """With who plays the player. A key goes to its own server only: another one's has to be named in pipeline.toml."""
    from dataclasses import replace

    from pipeline.server.project import named_target

    if server is None:
        return config
    if server == config.server == "embedded" and config.model_path is None:
        return replace(config, player=config.player or "player/default")
    found: dict[str, Any] = {"server": server, "key_variable": ""}
    if server != "embedded" and (target := named_target(server, "--player-server")) is not None:
        kept = {name: value for name in _OF_A_TARGET if (value := getattr(target, name)) is not None}
        found = kept | {"server": target.url, "key_variable": target.key or ""}
    elif _origin(server) == _origin(config.server):
        found |= {"key_variable": config.key_variable, "headers": config.headers}
    return replace(config, player=config.player or "player/default", player_target=found)


def _origin(server: str) -> str:
    return server.rpartition("://")[2].partition("/")[0].rpartition("@")[2]


def import_config(options: dict[str, Any]) -> "RunConfig":
    """The configuration of a run that is made of conversations in `--from`."""
    from pipeline.config import RunConfig

    return RunConfig(
        command="import",
        personas=options["personas"] or "",
        scenarios=options["source"],
        server="imported",
        concurrency=1,
        template=options["template"] or "npc/default",
        temperature=None,
        columns=",".join(options["columns"]),
        strict=options["strict"],
        settings=curation_settings(options),
        scorers=own_scorers(options),
        **{name: options[name] for name in ("prompts", "train_prompt", "train_format", "train_system")},
    )


def importing(options: dict[str, Any]) -> Path:
    """The run that is meant, or with `--from` the one to be made."""
    from pipeline.records import digest

    run = options["run"]
    if (run is None) == (options["source"] is None):
        raise click.UsageError("say which RUN; or --from DATA, to make a run of conversations that you have.")
    if run is not None:
        alone = ("out", "personas", "columns", "template", "strict")
        only(tuple(given() - set(alone)), "without --from")
        return Path(run)
    if options["out"]:
        return Path(options["out"])
    return RUNS / f"import-{digest(import_config(options).fingerprint())[:8]}"


def rescored(config: "RunConfig", options: dict[str, Any]) -> "RunConfig":
    """As a run was configured, but for how its answers are read now. What is added goes before what was there."""
    from dataclasses import replace

    told = ("train_prompt", "train_format", "train_system", "prompts")
    changed = {name: options[name] for name in told if options.get(name) is not None}
    if "thinking_timeout" in given():
        changed["thinking_timeout"] = options["thinking_timeout"]
    return replace(
        config,
        settings=(*config.settings, *curation_settings(options)),
        scorers=tuple(dict.fromkeys((*config.scorers, *own_scorers(options)))),
        gates=tuple(dict.fromkeys((*config.gates, *options.get("gates", ())))),
        **changed,
    )


def curation_settings(options: dict[str, Any]) -> tuple[str, ...]:
    """What --set and its short forms say, as --set would."""
    limits = {name: options.get(name) for name in _LIMITS}
    return (*options["settings"], *(f"selection.{name}={most}" for name, most in limits.items() if most is not None))


def own_scorers(options: dict[str, Any]) -> tuple[str, ...]:
    """With whole paths: a run is curated from other folders, too."""
    specs = (spec.rpartition(":") for spec in options["scorers"])
    return tuple(f"{Path(file).absolute()}:{name}" if file else name for file, _, name in specs)


def given() -> set[str]:
    """Names of the parameters that stand on the command line, or in the arm that is looked at."""
    context = click.get_current_context()
    written = click.core.ParameterSource.COMMANDLINE
    named = {name for name in context.params if context.get_parameter_source(name) is written}
    in_arm: set[str] = context.meta.get(_ARM, set())
    return named | in_arm


@contextmanager
def also_given(names: Iterable[str]) -> Iterator[None]:
    meta = click.get_current_context().meta
    meta[_ARM] = set(names)
    try:
        yield
    finally:
        del meta[_ARM]


def only(allowed: tuple[str, ...], why: str) -> None:
    if extra := sorted(given() - set(allowed)):
        spelled = {param.name: param.opts[0] for param in click.get_current_context().command.params}
        raise click.UsageError(f"{why}: {spelled[extra[0]]} has no place here.")
