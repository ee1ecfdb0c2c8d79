"""From what was asked for to a journal that has all the answers: what `generate` and `eval` have in common.

    options -> templates compiled -> personas and scenarios checked -> tried on -> server found -> asked -> journal

Everything that can be wrong is found before anything is sent. The same configuration on the same folder goes on where it
was, and asks only for what is missing; when nothing is, no server is needed for the embedded model.
"""

import asyncio
import contextlib
import os
import platform
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pipeline import generation
from pipeline.client import LLMClient, default_transport, request_headers
from pipeline.config import RunConfig
from pipeline.conversation import Script
from pipeline.dialects import DIALECTS, Dialect
from pipeline.embedded import EmbeddedServer, slots
from pipeline.errors import ConfigError, RunStopped
from pipeline.journal import Journal
from pipeline.models import Model, demo_model, local_model
from pipeline.personas.load import Checked, load_personas, load_scenarios
from pipeline.personas.schema import Scenario
from pipeline.plan import Count, Plan
from pipeline.probe import probe
from pipeline.records import Completion, GenerateConfig, Turn, digest
from pipeline.runfolder import RunFolder, now
from pipeline.templates import TemplateFailed, Templates

DEFAULT_CONCURRENCY = 6  # for a server we know nothing about: KoboldCpp runs one and queues six, then refuses
TEXT_FORMAT = "transcript"  # for dialects that complete text


class Watcher(Protocol):
    """Who looks on while a run goes: a progress bar, a log, nobody."""

    def say(self, text: str) -> None: ...

    def begin(self, total: int, done: int) -> None: ...

    def reply(self, completion: Completion | None) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who answers. `identity` is that of the model; `shown` is for people and files, and has no key in it."""

    shown: str
    url: str
    dialect: Dialect
    model: str | None
    identity: str
    concurrency: int
    stop: tuple[str, ...] = ()
    demo: bool = False  # replies of the demonstration model are not worth training on
    licence: str = ""
    embedded: Model | None = None
    headers: dict[str, str] | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Checked and counted; nothing sent yet."""

    config: RunConfig
    plan: Plan
    count: Count
    personas: Checked
    scenarios: Checked
    templates: Templates
    template_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """A run whose answers are in its journal. `turns()` reads them again, in the order of the plan."""

    config: RunConfig
    target: Target
    folder: RunFolder
    plan: Plan
    count: Count
    script: Script
    journal: Journal
    last_error: str = ""
    interrupted: bool = False
    stopped: str = ""  # why the run could not go on

    def turns(self) -> Iterator[Turn]:
        return self.script.turns(self.plan, self.journal, self.target.dialect)


def prepare(config: RunConfig, folder: RunFolder, watch: Watcher) -> Prepared:
    """Raises ConfigError for all that a person has to mend."""
    templates = Templates(config.prompts)
    prompt = templates.prompt(config.template)
    scenarios, checked_scenarios = load_scenarios(config.scenarios, strict=config.strict)
    checked_personas = load_personas(config.personas, folder.personas, strict=config.strict)
    write_scenarios(folder.scenarios, scenarios)
    texts = templates.copy(prompt.name, folder.prompts)
    templates.copy(f"formats/{TEXT_FORMAT}", folder.prompts)
    for source, checked in ((config.personas, checked_personas), (config.scenarios, checked_scenarios)):
        report(source, checked, watch)
    plan = Plan(
        personas=folder.personas,
        scenarios=scenarios,
        template=prompt.name,
        samples=config.samples,
        per_persona=config.per_persona,
        limit=config.limit,
    )
    for item in plan.preflight():
        try:
            prompt.render(item, item.lines[0])
        except TemplateFailed as exc:
            raise ConfigError(f"{exc} (tried with persona {item.npc.id!r}, scenario {item.scenario_id!r})") from exc
    count = plan.count()
    if not count.items:
        raise ConfigError("nothing to ask: no persona has the fields that any of the scenarios requires.")
    return Prepared(
        config=config,
        plan=plan,
        count=count,
        personas=checked_personas,
        scenarios=checked_scenarios,
        templates=templates,
        template_fingerprint=digest(texts),
    )


async def produce(config: RunConfig, folder: RunFolder, watch: Watcher) -> Produced:
    """Ask for all that is missing in `folder`. Raises ConfigError before anything is sent; what happens later is in the
    result, since what was answered is worth having."""
    prepared = prepare(config, folder, watch)
    target = await find_target(config, watch)
    script = make_script(config, target, prepared.templates)
    folder.write_manifest(manifest(prepared, target))
    journal = Journal(folder.journal)
    if journal.found_torn or journal.found_damaged:
        watch.say(
            f"{journal.path}: cut {journal.found_torn} bytes of a record that was never finished"
            + (f", passed over {journal.found_damaged} damaged records" if journal.found_damaged else "")
        )
    journal.freeze()
    tally, interrupted, stopped = generation.Tally(), False, ""
    try:
        missing = prepared.count.items
        if len(journal):
            missing -= sum(journal.answered(ask.key) for ask in script.asks(prepared.plan))
        if missing:
            watch.begin(prepared.count.items, prepared.count.items - missing)
            try:
                async with _client(config, target) as client:
                    with _interruptible(watch) as stop:
                        tally = await generation.run(
                            script.asks(prepared.plan),
                            client,
                            journal,
                            concurrency=target.concurrency,
                            stop=stop,
                            on_reply=watch.reply,
                        )
                        interrupted = stop.is_set()
            except RunStopped as exc:
                stopped = str(exc)
            finally:
                watch.end()
        journal.freeze()
    except BaseException:
        journal.close()
        raise

    return Produced(
        config=config,
        target=target,
        folder=folder,
        plan=prepared.plan,
        count=prepared.count,
        script=script,
        journal=journal,
        last_error=tally.last_error,
        interrupted=interrupted,
        stopped=stopped,
    )


def reopen(folder: RunFolder) -> Produced:
    """A run as it stands in its folder: nothing is asked, and nothing outside the folder is read."""
    manifest = folder.manifest()
    try:
        asked = {**manifest["asked"], "prompts": str(folder.prompts)}
        config = RunConfig(**asked)
        target = manifest["target"]
        found = Target(
            shown=target["server"],
            url="",
            dialect=DIALECTS[target["dialect"]],
            model=target["model"],
            identity=target["identity"],
            concurrency=target["concurrency"],
            stop=tuple(target["stop"]),
            demo=target["demo"],
            licence=target["licence"],
        )
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder.manifest_path}: not a whole manifest ({exc}). Make the run anew.") from exc
    templates = Templates(config.prompts)
    plan = Plan(
        personas=folder.personas,
        scenarios=load_scenarios(str(folder.scenarios))[0],
        template=templates.prompt(config.template).name,
        samples=config.samples,
        per_persona=config.per_persona,
        limit=config.limit,
    )
    journal = Journal(folder.journal)
    journal.freeze()
    return Produced(
        config=config,
        target=found,
        folder=folder,
        plan=plan,
        count=plan.count(),
        script=make_script(config, found, templates),
        journal=journal,
    )


def make_script(config: RunConfig, target: Target, templates: Templates) -> Script:
    return Script(
        prompt=templates.prompt(config.template),
        text_format=templates.text_format(TEXT_FORMAT) if target.dialect.wants == "text" else None,
        config=GenerateConfig(max_tokens=config.max_tokens, temperature=config.temperature, stop=target.stop),
        run_seed=config.seed,
        identity=target.identity,
    )


async def find_target(config: RunConfig, watch: Watcher) -> Target:
    """The model to be asked. Looks at a server, but does not start the embedded one."""
    if config.server == "embedded":
        model = local_model(Path(config.model_path)) if config.model_path else demo_model(watch.say)
        return Target(
            shown="embedded",
            url="",
            dialect=DIALECTS["openai"],
            model=model.name,
            identity=model.identity,
            concurrency=config.concurrency or slots(),
            stop=model.stop,
            demo=model.demo,
            licence=model.licence,
            embedded=model,
        )
    if config.model_path:
        raise ConfigError("--model-path is for the embedded server; a server of your own has its model already.")
    api_key = os.environ.get("LLM_API_KEY")
    headers = dict(config.headers) if config.headers else None
    transport = default_transport()
    try:
        found = await probe(
            config.server,
            dialect=config.dialect,
            transport=transport,
            headers=lambda url: request_headers(url, api_key, headers),
        )
    finally:
        await transport.aclose()
    model_name = config.model
    if model_name is None and len(found.models) > 1:
        raise ConfigError(
            f"{config.shown_server()} has {len(found.models)} models. Choose one with --model: "
            + ", ".join(found.models[:10])
        )
    if model_name is None and found.models:
        model_name = found.models[0]
    watch.say(
        f"{config.shown_server()}: {found.dialect}, " + (f"model {model_name}" if model_name else "model unnamed")
    )
    return Target(
        shown=config.shown_server(),
        url=found.url,
        dialect=DIALECTS[found.dialect],
        model=model_name,
        identity=model_name or config.shown_server(),
        concurrency=config.concurrency or DEFAULT_CONCURRENCY,
        headers=headers,
        api_key=api_key,
    )


def report(source: str, checked: Checked, watch: Watcher) -> None:
    for note in checked.notes:
        watch.say(note)
    if checked.bad:
        for problem in checked.problems:
            watch.say(f"skipped: {problem}")
        watch.say(f"{source}: {checked.good} good rows, {checked.bad} skipped (--strict refuses them)")


def write_scenarios(path: Path, scenarios: list[Scenario]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for scenario in scenarios:
            file.write(scenario.model_dump_json() + "\n")


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
            "dialect": target.dialect.name,
            "model": target.model,
            "identity": target.identity,
            "concurrency": target.concurrency,
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


@asynccontextmanager
async def _client(config: RunConfig, target: Target) -> AsyncIterator[LLMClient]:
    async with contextlib.AsyncExitStack() as stack:
        if target.embedded is not None:
            server = await stack.enter_async_context(EmbeddedServer(target.embedded.path, parallel=target.concurrency))
            target = replace(target, url=server.url, api_key=server.api_key)
        yield await stack.enter_async_context(
            LLMClient(
                target.url,
                dialect=target.dialect.name,
                model=target.model,
                api_key=target.api_key,
                headers=target.headers,
                timeout=config.timeout,
                stream=config.stream,
            )
        )


@contextmanager
def _interruptible(watch: Watcher) -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second time ends the process, at once: the journal is whole at any moment."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    handled: list[signal.Signals] = []

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        watch.say("Stopping; waiting a moment for the replies in flight. Once more stops at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        # Not in every thread, and not on Windows: there Ctrl-C stays a KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, on_signal)
            handled.append(number)
    try:
        yield stop
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
