"""From what stands on the command line to the configuration of a run: options, pipeline.toml, LLM_* and a run's own manifest."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig

RUNS = Path("runs")


def configure(command: str, options: dict[str, Any], *, stream: bool, suite: str = "") -> tuple["RunConfig", Path]:
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
        contrast=options.get("contrast", False),
        settings=curation_settings(options),
        scorers=own_scorers(options),
        train_prompt=options.get("train_prompt"),
        train_format=options.get("train_format"),
        **{name: options[name] for name in _PASSED_ON} | server_options(options),
    )
    _check(config)
    if command == "eval" and config.concurrency is None:
        config = replace(config, concurrency=1)
    name = f"{command}-{digest(config.fingerprint())[:8]}"
    return config, Path(options["out"]) if options["out"] else RUNS / name


def _resumed(command: str, options: dict[str, Any]) -> tuple["RunConfig", Path]:
    from pipeline.config import LLMSettings, RunConfig
    from pipeline.runfolder import RunFolder, newest_unfinished

    only(("resume", *RunConfig.FREE, *_LIMITS, "quiet", "as_json"), "--resume takes the run's own options")
    folder = Path(options["resume"] or newest_unfinished(RUNS, command))
    manifest = RunFolder(folder).manifest()
    if manifest.get("command") != command:
        raise ConfigError(f"{folder}: a run of pipeline {manifest.get('command')}, not of pipeline {command}.")
    given = {name: options[name] for name in RunConfig.FREE if name in _given()}
    for name, more in (("settings", curation_settings(options)), ("scorers", own_scorers(options))):
        if more:
            before = manifest.get("asked", {}).get(name, ())
            given[name] = (*(one for one in before if one not in more), *more)
    headers = LLMSettings.from_environment().headers if os.environ.get("LLM_HEADERS") else None
    begun = manifest.get("asked", {}).get("concurrency")
    if command == "eval" and given.get("concurrency", begun) != begun:
        raise ConfigError(f"{folder}: measured at --concurrency {begun}, which is what its latencies hold for.")
    try:
        config = RunConfig(**manifest["asked"] | given, headers=headers)
        _check(config)
        return config, folder
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder / 'run.json'}: not a whole manifest ({exc}). Make the run anew.") from exc


def _check(config: "RunConfig") -> None:
    """What can be wrong with the options is found before anything is asked."""
    from pipeline.criteria import load_criteria

    load_criteria(config.settings, config.scorers)
    if config.max_cost is not None and config.price is None:
        raise ConfigError(
            "--max-cost needs a --price, to know what a reply costs: --price IN,OUT for a million tokens."
        )


_LIMITS = ("max_per_prompt", "max_per_persona", "max_per_scenario")
_PASSED_ON = (
    "prompts", "template", "samples", "per_persona", "limit", "top_p", "top_k", "min_p", "repeat_penalty", "seed",
    "max_cost", "strict",
)  # fmt: skip
_OF_A_TARGET = (
    "dialect", "model", "concurrency", "timeout", "insecure", "system", "format", "price", "requests_per_minute",
    "tokens_per_minute",
)  # fmt: skip


def server_options(options: dict[str, Any]) -> dict[str, Any]:
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


def curation_settings(options: dict[str, Any]) -> tuple[str, ...]:
    """What --set and its short forms say, as --set would."""
    limits = {name: options.get(name) for name in _LIMITS}
    return (*options["settings"], *(f"selection.{name}={most}" for name, most in limits.items() if most is not None))


def own_scorers(options: dict[str, Any]) -> tuple[str, ...]:
    """With whole paths: a run is curated from other folders, too."""
    specs = (spec.rpartition(":") for spec in options["scorers"])
    return tuple(f"{Path(file).absolute()}:{name}" if file else name for file, _, name in specs)


def _given() -> set[str]:
    """Names of the parameters that stand on the command line."""
    context = click.get_current_context()
    written = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is written}


def only(allowed: tuple[str, ...], why: str) -> None:
    if extra := sorted(_given() - set(allowed)):
        spelled = {param.name: param.opts[0] for param in click.get_current_context().command.params}
        raise click.UsageError(f"{why}: {spelled[extra[0]]} has no place here.")
