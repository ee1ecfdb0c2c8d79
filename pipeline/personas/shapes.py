"""What a row is: a persona of ours, a character card, a character of text-generation-webui, an NPC out of Evennia, or a table's."""

from typing import Any

from pipeline.personas.cards import from_card, is_card
from pipeline.personas.columns import Columns
from pipeline.personas.evennia import from_npc, is_npc
from pipeline.personas.webui import from_character, is_character
from pipeline.records import Row


def is_known(row: Row) -> bool:
    """Whether it is in somebody's format, by the names in it."""
    return is_card(row) or is_character(row) or is_npc(row)


def as_persona(row: Row, columns: Columns, stem: str = "") -> dict[str, Any]:
    """The fields of a persona, not checked yet. `stem` is the name of the file, if the row is all of it: its id if it has no
    other. Raises BadCard."""
    found = dict(row)
    if not {"id", "name", "description"} <= row.keys():
        if is_card(row):
            found = from_card(row)
        elif is_npc(row):
            found = from_npc(row)
        elif is_character(row):
            found = from_character(row)
    if stem and not found.get("id"):
        found["id"] = stem
    return columns.named(found)
