"""A run made from conversations that people already have: nobody is asked, and what was answered stands in the journal all the same.

So everything that reads a run (curate, eval, export, compare, load_run) reads this one, too. `imported` in run.json says from
where it came. There are no latencies: nobody looked at a clock.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.dialects import DIALECTS
from pipeline.errors import ConfigError
from pipeline.personas.conversations import Cast, Conversation, conversations_of
from pipeline.personas.load import Checked, written_aside
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Attempt, Timing, digest
from pipeline.run.folder import Inputs, RunFolder, now
from pipeline.run.journal import Journal
from pipeline.run.plan import Count, Recorded
from pipeline.run.prepare import Prepared, Watcher, make_script, manifest, report
from pipeline.server.target import Target


def import_run(config: RunConfig, folder: RunFolder, watch: Watcher) -> None:
    """Make `folder` a run of the conversations in `config.scenarios`. What was imported into it before is replaced.

    `config.personas`, if there is any, is where the NPCs are looked up. Raises ConfigError for all that a person has to mend.
    """
    if folder.manifest_path.exists() and not folder.manifest().get("imported"):
        raise ConfigError(f"{folder.path}: a run that asked a server. Take another --out.")
    source = config.scenarios
    aside = folder.path / ".import.part"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        templates = Templates(config.prompts)
        prompt = templates.prompt(config.template)
        inputs = Inputs(aside / "inputs")
        cast, talks = Checked(), Checked()
        known = Cast(config.personas or None, [config.columns], cast)
        conversations = conversations_of(source, talks, cast=known, columns=[config.columns], strict=config.strict)
        personas = _write(conversations, inputs, talks)
        texts = templates.copy(prompt.name, inputs.prompts)
        texts += templates.copy(f"formats/{config.format}", inputs.prompts)
        for name in filter(None, (config.train_prompt and templates.prompt(config.train_prompt).name,
                                  config.train_format and f"formats/{config.train_format}")):  # fmt: skip
            templates.copy(name, inputs.prompts)
        for name, checked in ((config.personas, cast), (source, talks)):
            report(name, checked, watch)
        target = _target(config, talks.fingerprint)
        plan = Recorded(
            personas=inputs.personas,
            conversations=inputs.conversations,
            template=prompt.name,
            size=Count(personas, 0, 0),
        )
        count = Count(personas, _answer(plan, config, target, templates, aside / "journal" / "npc.jsonl"), 0)
        prepared = Prepared(
            config=config,
            plan=plan,
            count=count,
            personas=Checked(good=personas, bad=cast.bad, fingerprint=cast.fingerprint),
            scenarios=talks,
            templates=templates,
            template_fingerprint=digest(texts),
        )
        said = manifest(prepared, target)
        said["imported"] = {"from": source, "rows": talks.good, "replies": count.items, "skipped": talks.bad}
        for name in ("inputs", "journal"):
            shutil.rmtree(folder.path / name, ignore_errors=True)
            (aside / name).replace(folder.path / name)
        folder.write_manifest({**said, "finished": now()})
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(conversations: Iterator[Conversation], inputs: Inputs, checked: Checked) -> int:
    """The conversations, and the NPCs in them; returns how many NPCs."""
    seen: set[int] = set()
    mark = ""
    with written_aside(inputs.personas) as people, written_aside(inputs.conversations) as talks:
        for talk in conversations:
            persona = talk.persona["id"]
            if hash(persona) not in seen:
                seen.add(hash(persona))
                people.write(json.dumps(talk.persona, separators=(",", ":")) + "\n")
            row = {name: getattr(talk, name) for name in ("id", "persona", "player", "system", "category")}
            row["messages"] = [(message.role, message.content) for message in talk.messages]
            talks.write(json.dumps(row, separators=(",", ":")) + "\n")
            mark = digest(mark, talk.id)
    checked.fingerprint = mark
    return len(seen)


def _target(config: RunConfig, fingerprint: str) -> Target:
    name = Path(config.scenarios).name
    return Target(
        shown="imported",
        url="",
        dialect=DIALECTS["openai"],
        model=config.model or f"imported from {name}",
        identity=f"imported:{fingerprint}",
        product=f"imported from {name}",
        concurrency=1,
    )


def _answer(plan: Recorded, config: RunConfig, target: Target, templates: Templates, path: Path) -> int:
    """Write each reply into a journal, under the key that it is looked for by; returns how many replies there are."""
    script = make_script(config, target, templates)
    count = 0
    with contextlib.closing(Journal(path)) as journal:
        for item, reply in plan.replies():
            count += 1
            with contextlib.suppress(TemplateFailed):  # which costs the row when it is read, too
                ask = script.ask(item, count - 1)
                body = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]})
                timing = Timing(sent=0.0, e2e=0.0)
                journal.append(
                    ask.key,
                    ask.about,
                    Attempt(number=1, timing=timing, status=200, body=body, dialect="openai", final=True),
                )
        journal.sync()
    return count
