"""Before anything is sent: inputs are checked and counted, templates tried, and what will be asked is settled."""

import contextlib
import platform
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.client.autolimit import AutoLimit
from pipeline.config import RunConfig
from pipeline.dialects import dialect_named
from pipeline.errors import ConfigError
from pipeline.hints import meant
from pipeline.personas.load import Checked, load_personas, load_scenarios
from pipeline.personas.schema import Persona, Scenario
from pipeline.prompts.templates import Prompt, TemplateFailed, Templates
from pipeline.records import Completion, GenerateConfig, digest
from pipeline.run.conversation import Script
from pipeline.run.folder import Inputs, now
from pipeline.run.plan import Count, Plan, Recorded
from pipeline.run.splits import Splitter
from pipeline.server.target import Target


class Watcher(Protocol):
    """Who looks on while a run goes: a progress bar, a log, nobody."""

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None:
        """What is to be told also to those who want to be told little."""

    def begin(self, total: int, done: int) -> None:
        """At most `total` replies will be asked for; `done` of them are there."""

    def reading(self, total: int) -> None:
        """Nobody is asked any more: at most `total` replies that are there will be judged."""

    def reply(self, completion: Completion | None, at_a_time: int) -> None:
        """One has come, or has failed (None), when so many were in flight."""

    def judged(self, seen: "Seen") -> None:
        """How it stands by now."""

    def end(self) -> None:
        """Of what was begun last."""


class Seen(NamedTuple):
    """Replies that were judged so far. What needs the whole run, such as near-duplicates, is still to come."""

    read: int = 0  # the failed ones, too
    kept: int = 0
    dropped: int = 0

    def next(self, passes: bool | None) -> "Seen":
        """With one more, that passes or not; None: that has no scores."""
        return Seen(self.read + 1, self.kept + (passes is True), self.dropped + (passes is False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Checked and counted; nothing sent yet."""

    config: RunConfig
    plan: Plan | Recorded
    count: Count
    personas: Checked
    scenarios: Checked
    templates: Templates
    template_fingerprint: str


def prepare(config: RunConfig, inputs: Inputs, watch: Watcher) -> Prepared:
    """Check everything, and write what was checked to `inputs`. Raises ConfigError for all that a person has to mend."""
    templates = Templates(config.prompts)
    prompt = templates.prompt(config.template)
    scenarios, checked_scenarios = load_scenarios(config.scenarios, inputs.scenarios, strict=config.strict)
    checked_personas = load_personas(config.personas, inputs.personas, columns=[config.columns], strict=config.strict)
    texts = templates.copy(prompt.name, inputs.prompts)
    texts += templates.copy(f"formats/{config.format}", inputs.prompts)
    player = templates.prompt(config.player, "player") if config.player is not None else None
    if player is not None:
        texts += templates.copy(player.name, inputs.prompts)
        templates.copy(f"formats/{config.for_player().format}", inputs.prompts)
    if config.train_prompt:  # not of the fingerprint: it changes nothing that is asked
        templates.copy(templates.prompt(config.train_prompt).name, inputs.prompts)
    if config.train_format:
        templates.text_format(config.train_format)
        templates.copy(f"formats/{config.train_format}", inputs.prompts)
    if config.contrast and "system" not in prompt.roles:
        raise ConfigError(f"--contrast leaves the system message out, and {prompt.name} has none.")
    if config.turns != 1 and "user" not in prompt.roles:
        raise ConfigError(f"--turns: {prompt.name} has no block 'user', before which the conversation would stand.")
    if prompt.hears_nothing:
        watch.warn(f"{prompt.name}: {{{{ line }}}} is nowhere in it, so that nobody hears what the player says.")
    for source, checked in ((config.personas, checked_personas), (config.scenarios, checked_scenarios)):
        report(source, checked, watch)
    plan = make_plan(config, inputs.personas, scenarios, prompt.name)
    for item in plan.preflight():
        try:
            prompt.render(item, item.lines[0])
            if player is not None:
                player.render(item)
        except TemplateFailed as exc:
            raise ConfigError(f"{exc} (tried with persona {item.npc.id!r}, scenario {item.scenario_id!r})") from exc
    count = plan.count()
    if not count.items:
        raise ConfigError(_nothing_to_ask(config, scenarios))
    return Prepared(
        config=config,
        plan=plan,
        count=count,
        personas=checked_personas,
        scenarios=checked_scenarios,
        templates=templates,
        template_fingerprint=digest(texts),
    )


def _nothing_to_ask(config: RunConfig, scenarios: list[Scenario]) -> str:
    wanted = dict.fromkeys(field for scenario in scenarios for field in scenario.requires)
    typos = {name: meant(name, Persona.model_fields) for name in wanted if name not in Persona.model_fields}
    told = ", ".join(f"{name!r}" + (f" ({typos[name].strip()})" if typos.get(name) else "") for name in wanted)
    return (
        f"nothing to ask: no persona of {config.personas} has the fields that the scenarios of {config.scenarios} require: "
        f"{told}." + (" Nothing of it is held out for tests either." if config.held_out else "")
    )


def make_plan(config: RunConfig, personas: Path, scenarios: list[Scenario], template: str) -> Plan:
    """`personas` is the checked file."""
    return Plan(
        personas=personas,
        scenarios=scenarios,
        template=template,
        samples=config.samples,
        per_persona=config.per_persona,
        limit=config.limit,
        contrast=config.contrast,
        held_out=Splitter(config.held_out) if config.held_out else None,
    )


def make_script(config: RunConfig, target: Target, templates: Templates, player: Target | None = None) -> Script:
    """`player` is who plays the player, where it is another than the NPC's."""
    script = _script(config, target, templates, templates.prompt(config.template))
    if config.player is None:
        return script
    prompt = templates.prompt(config.player, "player")
    return replace(script, player=_script(config.for_player(), player or target, templates, prompt))


def _script(config: RunConfig, target: Target, templates: Templates, prompt: Prompt) -> Script:
    room = config.window_tokens
    if room is None and target.context is not None:
        room = target.context - config.max_tokens
    return Script(
        prompt=prompt,
        text_format=templates.text_format(config.format) if target.dialect.wants == "text" else None,
        config=GenerateConfig(
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            stop=target.stop,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p,
            repeat_penalty=config.repeat_penalty,
        ),
        run_seed=config.seed,
        identity=target.identity,
        merge_system=config.system == "merge",
        turns=config.turns,
        window=config.window,
        room=room,
    )


def report(source: str, checked: Checked, watch: Watcher) -> None:
    for note in checked.notes:
        watch.say(note)
    if checked.bad:
        for problem in checked.problems:
            watch.warn(f"skipped: {problem}")
        watch.warn(f"{source}: {checked.good} good rows, {checked.bad} skipped (--strict refuses them)")


def manifest(prepared: Prepared, target: Target, player: Target | None = None) -> dict[str, Any]:
    config = prepared.config
    names = ("npc-pipeline", "datasets", "pyarrow", "jinja2", "aiohttp", "xllamacpp")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": config.command,
        "asked": config.asked(),
        "target": _stored(target),
        **({"player": _stored(player)} if player is not None else {}),
        "inputs": {
            "personas": _input(config.personas, prepared.personas),
            "scenarios": _input(config.scenarios, prepared.scenarios),
            "template": {"name": config.template, "fingerprint": prepared.template_fingerprint},
        },
        "planned": asdict(prepared.count),
        "versions": versions,
        "started": now(),
        "finished": None,
    }


def _stored(target: Target) -> dict[str, Any]:
    return {
        "server": target.shown,
        "product": target.product,
        "dialect": target.dialect.name,
        "model": target.model,
        "context": target.context,
        "identity": target.identity,
        "concurrency": target.at_a_time,
        "stop": target.stop,
        "demo": target.demo,
        "licence": target.licence,
    }


def stored_target(manifest: dict[str, Any]) -> Target:
    """The target of a manifest, whom nobody is going to ask. Raises LookupError or TypeError."""
    return Target(
        shown=manifest["server"],
        url="",
        dialect=dialect_named(manifest["dialect"]),
        model=manifest["model"],
        product=manifest.get("product") or "",
        context=manifest.get("context"),
        identity=manifest["identity"],
        concurrency=AutoLimit() if manifest["concurrency"] == "auto" else manifest["concurrency"],
        stop=tuple(manifest["stop"]),
        demo=manifest["demo"],
        licence=manifest["licence"],
    )


def _input(source: str, checked: Checked) -> dict[str, Any]:
    return {"source": source, "rows": checked.good, "skipped": checked.bad, "fingerprint": checked.fingerprint}
