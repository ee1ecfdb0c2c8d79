"""From what was asked for to a journal that has all the answers: what `generate` and `eval` have in common.

    options -> templates compiled -> personas and scenarios checked -> tried on -> server found -> asked -> journal

Everything that can be wrong is found before anything is sent. The same configuration on the same folder goes on where it
was, and asks only for what is missing; when nothing is, no server is needed for the embedded model.
"""

import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any, Protocol, TypeAlias, TypeVar

from pipeline import generation
from pipeline.autolimit import AutoLimit, Change
from pipeline.config import RunConfig
from pipeline.conversation import Script, Walk
from pipeline.dialects import dialect_named
from pipeline.errors import ConfigError, RunStopped
from pipeline.interrupt import ending_at_once, ending_gently
from pipeline.journal import Journal
from pipeline.personas.load import Checked, load_personas, load_scenarios
from pipeline.plan import Count, Plan, Recorded
from pipeline.records import Completion, GenerateConfig, Turn, digest
from pipeline.runfolder import Inputs, RunFolder, now
from pipeline.splits import Splitter
from pipeline.target import Target, connected, find_target
from pipeline.templates import TemplateFailed, Templates

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # one reply a step


class Watcher(Protocol):
    """Who looks on while a run goes: a progress bar, a log, nobody."""

    def say(self, text: str) -> None: ...

    def begin(self, total: int, done: int) -> None: ...

    def reply(self, completion: Completion | None) -> None: ...

    def end(self) -> None: ...


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


@dataclass(slots=True, kw_only=True)
class Produced:
    """A run, and what its journal has of the answers. `turns()` reads them again, in the order of the plan."""

    config: RunConfig
    target: Target
    folder: RunFolder
    plan: Plan | Recorded
    count: Count
    skipped: int  # bad rows of personas and scenarios
    script: Script
    journal: Journal
    interrupted: bool = False
    stopped: str = ""  # why the run could not go on
    limits: list[Change] = field(default_factory=list)  # how --concurrency auto went, as far as anything was asked
    imported: str = ""  # where the replies come from, if nobody was asked

    walk: Walk | None = None  # while it is being asked
    again: bool = False  # read from its folder: nothing will be asked

    def turns(self) -> Iterator[Turn]:
        """All planned replies in the order of the plan, with what is known of each."""
        walk = self.walk or self.script.walk(self.plan, self.journal, self.target.dialect)
        return walk.turns()


def prepare(config: RunConfig, inputs: Inputs, watch: Watcher) -> Prepared:
    """Check everything, and write what was checked to `inputs`. Raises ConfigError for all that a person has to mend."""
    templates = Templates(config.prompts)
    prompt = templates.prompt(config.template)
    scenarios, checked_scenarios = load_scenarios(config.scenarios, inputs.scenarios, strict=config.strict)
    checked_personas = load_personas(config.personas, inputs.personas, columns=[config.columns], strict=config.strict)
    texts = templates.copy(prompt.name, inputs.prompts)
    texts += templates.copy(f"formats/{config.format}", inputs.prompts)
    if config.train_prompt:  # not of the fingerprint: it changes nothing that is asked
        templates.copy(templates.prompt(config.train_prompt).name, inputs.prompts)
    if config.train_format:
        templates.text_format(config.train_format)
        templates.copy(f"formats/{config.train_format}", inputs.prompts)
    if config.contrast and "system" not in prompt.roles:
        raise ConfigError(f"--contrast leaves the system message out, and {prompt.name} has none.")
    for source, checked in ((config.personas, checked_personas), (config.scenarios, checked_scenarios)):
        report(source, checked, watch)
    plan = Plan(
        personas=inputs.personas,
        scenarios=scenarios,
        template=prompt.name,
        samples=config.samples,
        per_persona=config.per_persona,
        limit=config.limit,
        contrast=config.contrast,
        held_out=_splitter(config),
    )
    for item in plan.preflight():
        try:
            prompt.render(item, item.lines[0])
        except TemplateFailed as exc:
            raise ConfigError(f"{exc} (tried with persona {item.npc.id!r}, scenario {item.scenario_id!r})") from exc
    count = plan.count()
    if not count.items:
        held_out = " Nothing of it is held out for tests either." if config.held_out else ""
        raise ConfigError(f"nothing to ask: no persona has the fields that any of the scenarios requires.{held_out}")
    return Prepared(
        config=config,
        plan=plan,
        count=count,
        personas=checked_personas,
        scenarios=checked_scenarios,
        templates=templates,
        template_fingerprint=digest(texts),
    )


async def produce(
    config: RunConfig, folder: RunFolder, watch: Watcher, sink: Callable[[Produced], Steps[T]]
) -> tuple[Produced, T]:
    """Ask for all that is missing in `folder`, while `sink` makes something of what is there.

    `sink` takes one reply a step, in the order of the plan, and returns what it made. Raises ConfigError before anything is
    sent; what goes wrong later is in the result, since what was answered is worth having.
    """
    aside = Inputs(folder.path / ".inputs.part")
    try:
        prepared = prepare(config, aside, watch)
        target = await find_target(config, watch.say)
        _compare_with_before(folder, config, target, watch)
        aside.replace(folder.inputs)
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)
    plan: Plan | Recorded = replace(prepared.plan, personas=folder.inputs.personas)
    folder.write_manifest(manifest(prepared, target))
    journal = Journal(folder.journal)
    if journal.found_torn or journal.found_damaged:
        watch.say(
            f"{journal.path}: cut {journal.found_torn} bytes of a record that was never finished"
            + (f", passed over {journal.found_damaged} damaged records" if journal.found_damaged else "")
        )
    journal.freeze()
    produced = Produced(
        config=config,
        target=target,
        folder=folder,
        plan=plan,
        count=prepared.count,
        skipped=prepared.personas.bad + prepared.scenarios.bad,
        script=make_script(config, target, prepared.templates),
        journal=journal,
    )
    with contextlib.closing(journal), contextlib.closing(sink(produced)) as steps:
        missing = produced.count.items
        if len(journal):
            walk = produced.script.walk(produced.plan, journal, target.dialect)
            missing = sum(turn.open for turn in walk.turns())
        if missing:
            watch.begin(produced.count.items, produced.count.items - missing)
            try:
                await _ask(produced, watch, steps)
            except RunStopped as exc:
                produced.stopped = str(exc)
            finally:
                watch.end()
        else:
            produced.limits = _limits_before(folder)
            watch.say(f"{folder.path}: everything is answered already, nothing is asked. Another --out asks anew.")
        return produced, exhaust(steps)


def _compare_with_before(folder: RunFolder, config: RunConfig, target: Target, watch: Watcher) -> None:
    """A folder is one run's. Raises ConfigError for another command's; says what else has changed since."""
    if not folder.manifest_path.exists():
        return
    before = folder.manifest()
    if before.get("command") != config.command:
        raise ConfigError(f"{folder.path}: a run of pipeline {before.get('command')}. Take another --out.")
    asked, now_asked = before.get("asked", {}), config.fingerprint()
    changed = [
        f"{name} {asked[name]!r} -> {value!r}" for name, value in now_asked.items() if asked.get(name, value) != value
    ]
    if (identity := before.get("target", {}).get("identity")) != target.identity:
        changed.append(f"model {identity!r} -> {target.identity!r}")
    if changed:
        watch.say(f"{folder.path}: changed since it was begun: {'; '.join(changed)}. What that touches is asked anew.")


def _limits_before(folder: RunFolder) -> list[Change]:
    """When nothing is asked this time, what the results say of the last time still holds."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        history = json.loads(folder.results.read_text("utf-8"))["generate"]["concurrency"]["history"]
        return [Change(**change) for change in history]
    return []


async def _ask(produced: Produced, watch: Watcher, steps: Steps[Any]) -> None:
    produced.walk = produced.script.walk(produced.plan, produced.journal, produced.target.dialect)
    made = 0
    failed: ConfigError | None = None

    def on_settled(settled: int) -> None:
        # Two steps at a time: enough to keep up, and too little for the replies in flight to be stamped late.
        nonlocal made, failed
        try:
            for _ in range(min(2, settled - made) if failed is None else 0):
                next(steps)
                made += 1
        except ConfigError as exc:  # a scorer of the user's own: what is being asked for is worth having all the same
            failed = exc

    config, spent = produced.config, 0.0
    async with contextlib.AsyncExitStack() as stack:
        with ending_at_once():
            client = await stack.enter_async_context(connected(config, produced.target))
        with ending_gently(watch.say, watch.end) as stop:

            def on_reply(completion: Completion | None) -> None:
                nonlocal spent
                watch.reply(completion)
                if completion is None or config.price is None or config.max_cost is None:
                    return
                spent += completion.usage.cost(config.price)
                if spent >= config.max_cost and not stop.is_set():
                    produced.stopped = f"--max-cost {config.max_cost:g} is reached"
                    stop.set()

            try:
                await generation.run(
                    produced.walk,
                    client,
                    produced.journal,
                    stop=stop,
                    on_reply=on_reply,
                    on_settled=on_settled,
                )
            finally:
                produced.interrupted = stop.is_set() and not produced.stopped
                produced.limits = client.limits
    if failed is not None:
        raise failed


def exhaust(steps: Steps[T]) -> T:
    """Take all steps that are left; returns what they made."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made


def reopen(folder: RunFolder) -> Produced:
    """A run as it stands in its folder: nothing is asked, and its inputs are those in the folder."""
    manifest = folder.manifest()
    try:
        config = replace(RunConfig(**manifest["asked"]), prompts=str(folder.inputs.prompts))
        skipped = sum(manifest["inputs"][kind]["skipped"] for kind in ("personas", "scenarios"))
        target = manifest["target"]
        found = Target(
            shown=target["server"],
            url="",
            dialect=dialect_named(target["dialect"]),
            model=target["model"],
            product=target.get("product") or "",
            identity=target["identity"],
            concurrency=AutoLimit() if target["concurrency"] == "auto" else target["concurrency"],
            stop=tuple(target["stop"]),
            demo=target["demo"],
            licence=target["licence"],
        )
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder.manifest_path}: not a whole manifest ({exc}). Make the run anew.") from exc
    templates = Templates(config.prompts)
    template = templates.prompt(config.template).name
    imported = manifest.get("imported")
    plan: Plan | Recorded
    if imported:
        plan = Recorded(
            personas=folder.inputs.personas,
            conversations=folder.inputs.conversations,
            template=template,
            size=Count(**manifest["planned"]),
        )
    else:
        plan = Plan(
            personas=folder.inputs.personas,
            scenarios=load_scenarios(str(folder.inputs.scenarios))[0],
            template=template,
            samples=config.samples,
            per_persona=config.per_persona,
            limit=config.limit,
            contrast=config.contrast,
            held_out=_splitter(config),
        )
    journal = Journal(folder.journal)
    journal.freeze()
    return Produced(
        config=config,
        target=found,
        folder=folder,
        plan=plan,
        count=plan.count(),
        skipped=skipped,
        script=make_script(config, found, templates),
        journal=journal,
        again=True,
        imported=imported["from"] if imported else "",
    )


def _splitter(config: RunConfig) -> Splitter | None:
    return Splitter(config.held_out) if config.held_out else None


def make_script(config: RunConfig, target: Target, templates: Templates) -> Script:
    return Script(
        prompt=templates.prompt(config.template),
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
    )


def report(source: str, checked: Checked, watch: Watcher) -> None:
    for note in checked.notes:
        watch.say(note)
    if checked.bad:
        for problem in checked.problems:
            watch.say(f"skipped: {problem}")
        watch.say(f"{source}: {checked.good} good rows, {checked.bad} skipped (--strict refuses them)")


def manifest(prepared: Prepared, target: Target) -> dict[str, Any]:
    config = prepared.config
    names = ("npc-pipeline", "datasets", "pyarrow", "jinja2", "aiohttp", "xllamacpp")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": config.command,
        "asked": {**config.fingerprint(), **{name: getattr(config, name) for name in config.FREE}},
        "target": {
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
        },
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


def _input(source: str, checked: Checked) -> dict[str, Any]:
    return {"source": source, "rows": checked.good, "skipped": checked.bad, "fingerprint": checked.fingerprint}
