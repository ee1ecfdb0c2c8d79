"""From what was asked for to a journal that has all the answers: what `generate` and `eval` have in common.

    options -> templates compiled -> personas and scenarios checked -> tried on -> server found -> asked -> journal

Everything that can be wrong is found before anything is sent. The same configuration on the same folder goes on where it
was, and asks only for what is missing; when nothing is, no server is needed for the embedded model.
"""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from pipeline.client.autolimit import Change
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, RunStopped
from pipeline.interrupt import ending_at_once, ending_gently
from pipeline.personas.load import load_scenarios
from pipeline.prompts.templates import Templates
from pipeline.records import Completion, Speaker, Turn
from pipeline.run import generation
from pipeline.run.conversation import Script, Walk
from pipeline.run.folder import Inputs, RunFolder
from pipeline.run.journal import Journal
from pipeline.run.plan import Count, Plan, Recorded
from pipeline.run.prepare import Seen, Watcher, make_plan, make_script, manifest, prepare, stored_target
from pipeline.server.target import Target, connected, find_target

T = TypeVar("T")
Steps: TypeAlias = Generator[Seen, None, T]  # one reply a step


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
    player: Target | None = None  # who plays the player, where it is another than the NPC's

    @property
    def most(self) -> int:
        """Replies that may be asked for: some conversations end before they have had all their turns."""
        if isinstance(self.plan, Recorded):
            return self.count.items
        longest = max(len(scenario.turns) for scenario in self.plan.scenarios)
        turns = self.config.turns or longest
        if self.config.player is None:
            turns = min(turns, longest)
        return (self.count.items - self.count.contrast) * turns + self.count.contrast

    def turns(self) -> Iterator[Turn]:
        """All planned replies in the order of the plan, with what is known of each."""
        walk = self.walk or self.script.walk(self.plan, self.journal, self.target.dialect)
        return walk.turns()


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
        player = await find_target(config.for_player(), watch.say) if config.player_target is not None else None
        _compare_with_before(folder, config, target, watch)
        aside.replace(folder.inputs)
    finally:
        shutil.rmtree(aside.path, ignore_errors=True)
    plan: Plan | Recorded = replace(prepared.plan, personas=folder.inputs.personas)
    folder.write_manifest(manifest(prepared, target, player))
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
        script=make_script(config, target, prepared.templates, player),
        player=player,
        journal=journal,
    )
    with contextlib.closing(journal), contextlib.closing(sink(produced)) as steps:
        seen = still_open = produced.count.items
        if len(journal):
            walk = produced.script.walk(produced.plan, journal, target.dialect)
            seen = still_open = 0
            for turn in walk.turns():
                seen, still_open = seen + 1, still_open + turn.open
        if still_open:
            watch.begin(produced.most, seen - still_open)
            try:
                await _ask(produced, watch, steps)
            except RunStopped as exc:
                produced.stopped = str(exc)
            finally:
                watch.end()
        else:
            produced.limits = _limits_before(folder)
            watch.say(f"{folder.path}: everything is answered already, nothing is asked. Another --out asks anew.")
        return produced, await _all(steps, produced.most, watch)


def _compare_with_before(folder: RunFolder, config: RunConfig, target: Target, watch: Watcher) -> None:
    """A folder is one run's. Raises ConfigError for another command's; says what else has changed since."""
    if not folder.manifest_path.exists():
        return
    before = folder.manifest()
    if before.get("command") != config.command:
        raise ConfigError(f"{folder.path}: a run of pipeline {before.get('command')}. Take another --out.")
    asked, now_asked = before.get("asked", {}), config.asked()
    compared = dict.fromkeys([*config.fingerprint(), "turns", "player", "window", "window_tokens"])
    changed = [
        f"{name} {asked[name]!r} -> {value!r}"
        for name in compared
        if (value := now_asked[name]) != asked.get(name, value) and name != "player_target"
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
    walk = produced.walk = produced.script.walk(produced.plan, produced.journal, produced.target.dialect)
    failed: ConfigError | None = None

    def on_settled(settled: int) -> None:
        # Two steps at a time: enough to keep up, and too little for the replies in flight to be stamped late.
        nonlocal failed
        try:
            for _ in range(2):
                if failed is None and walk.readable(settled):
                    watch.judged(next(steps))
        except ConfigError as exc:  # a scorer of the user's own: what is being asked for is worth having all the same
            failed = exc

    config, spent = produced.config, 0.0
    prices = {"npc": config.price, "player": config.for_player().price}
    async with contextlib.AsyncExitStack() as stack:
        with ending_at_once():
            client = await stack.enter_async_context(connected(config, produced.target))
            player = None
            if produced.player is not None:
                player = await stack.enter_async_context(connected(config.for_player(), produced.player))
        with ending_gently(watch.say, watch.end) as stop:

            def on_reply(completion: Completion | None, speaker: Speaker) -> None:
                nonlocal spent
                if completion is None or speaker == "npc":
                    watch.reply(completion, client.in_flight)
                price = prices[speaker]
                if completion is None or price is None or config.max_cost is None:
                    return
                spent += completion.usage.cost(price)
                if spent >= config.max_cost and not stop.is_set():
                    produced.stopped = f"--max-cost {config.max_cost:g} is reached"
                    stop.set()

            try:
                await generation.run(
                    walk,
                    client,
                    produced.journal,
                    player=player,
                    stop=stop,
                    on_reply=on_reply,
                    on_settled=on_settled,
                )
            finally:
                produced.interrupted = stop.is_set() and not produced.stopped
                produced.limits = client.limits
    if failed is not None:
        raise failed


async def _all(steps: Steps[T], most: int, watch: Watcher) -> T:
    """Take the steps that are left, with a look at Ctrl-C in between; returns what they made."""
    watch.reading(most)
    try:
        while True:
            watch.judged(next(steps))
            await asyncio.sleep(0)
    except StopIteration as end:
        made: T = end.value
        return made
    finally:
        watch.end()


def exhaust(produced: Produced, sink: Callable[[Produced], Steps[T]], watch: Watcher) -> T:
    """What `sink` makes of a run as it stands."""
    work = _all(sink(produced), produced.most, watch)
    try:
        while True:
            work.send(None)  # no loop is needed: it waits for nothing, and Ctrl-C is obeyed at once
    except StopIteration as end:
        made: T = end.value
        return made


def reopen(folder: RunFolder) -> Produced:
    """A run as it stands in its folder: nothing is asked, and its inputs are those in the folder."""
    manifest = folder.manifest()
    try:
        config = replace(RunConfig(**manifest["asked"]), prompts=str(folder.inputs.prompts))
        skipped = sum(manifest["inputs"][kind]["skipped"] for kind in ("personas", "scenarios"))
        found = stored_target(manifest["target"])
        player = stored_target(manifest["player"]) if manifest.get("player") else None
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{folder.manifest_path}: not a whole manifest ({exc}). Make the run anew.") from exc
    if not folder.journal.is_file():
        go_on = f"pipeline {config.command} --resume {folder.path}"
        raise ConfigError(f"{folder.journal}: gone, and the answers with it. They are asked for again by: {go_on}")
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
        scenarios = load_scenarios(str(folder.inputs.scenarios))[0]
        plan = make_plan(config, folder.inputs.personas, scenarios, template)
    journal = Journal(folder.journal)
    journal.freeze()
    return Produced(
        config=config,
        target=found,
        folder=folder,
        plan=plan,
        count=plan.count(),
        skipped=skipped,
        script=make_script(config, found, templates, player),
        journal=journal,
        player=player,
        again=True,
        imported=imported["from"] if imported else "",
    )
