"""A persona as the prompt sees it."""

import tempfile
from itertools import islice
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.personas.load import Checked, load_personas, personas_of, read_personas
from pipeline.personas.macros import Meeting
from pipeline.prompts.lore import lore_of
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Item


def show(
    source: str,
    persona: str | None,
    *,
    columns: tuple[str, ...] = (),
    template: str = "npc/default",
    prompts: str | None = None,
    player: str = "Stranger",
    line: str = "Hello.",
) -> list[dict[str, str]]:
    """The messages of a prompt for the persona with this id or name (None: the first). Raises ConfigError if there is none, or
    if the template fails on it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "personas.jsonl"
        load_personas(source, path, columns=columns)
        npc = next((npc for npc in read_personas(path) if persona is None or persona in (npc.id, npc.name)), None)
    if npc is None:
        there = ", ".join(str(one["id"])[:80] for one in islice(personas_of(source, Checked(), columns=columns), 20))
        raise ConfigError(f"{source}: no persona {persona!r}. There are: {there}.")
    prompt = Templates(prompts).prompt(template)
    item = Item(
        npc=Meeting(npc)(player),
        scenario_id="",
        category="",
        player=player,
        lines=(line,),
        template=prompt.name,
        sample=0,
    )
    lore = lore_of(item.npc, line)
    try:
        return [{"role": message.role, "content": message.content} for message in prompt.render(item, line, lore)]
    except TemplateFailed as exc:
        raise ConfigError(f"{exc} (with persona {npc.id!r})") from exc
