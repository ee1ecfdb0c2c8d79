"""NPCs exported from an Evennia game: `key`, `desc`, `location`, and an LLMNPC's `prompt_prefix` and `chat_memory`.

A `prompt_prefix` has `{name}`, `{desc}`, `{location}` and `{character}` in it, as contrib/rpg/llm fills them in; they are
replaced as text. The memory is {character: ["Name: text", ...]}, the last 25 lines with each.
"""

import re
from typing import Any

from pipeline.records import Row

_COLOUR = re.compile(r"\|\||\|(?:\[?[0-5]{3}|\[?=[a-z]|\[[a-zA-Z]|\[?#[0-9a-fA-F]{3,6}|[a-zA-Z*^!>_/-])")
_SPACES = {"|/": "\n", "|-": "\t", "|_": " ", "|>": " "}
_DBREF = re.compile(r"\s*\(#\d+\)$")


def is_npc(row: Row) -> bool:
    return "key" in row and ("desc" in row or "chat_memory" in row or "prompt_prefix" in row)


def from_npc(row: Row) -> dict[str, Any]:
    """The fields of a persona; without an `id`, unless the export has one. What was said to it stays out: it is no part of it."""
    rest = {
        name: value for name, value in row.items() if name not in ("key", "desc", "location", "chat_memory", "dbref")
    }
    name, description = plain(row.get("key")), plain(row.get("desc")) or "someone"
    home = plain(row.get("location"))
    found = {**rest, "name": name, "description": description, "home": home}
    if "dbref" in row and "id" not in rest:
        found["id"] = f"{name}{row['dbref']}"
    if prefix := rest.get("prompt_prefix"):
        filled = {"name": name, "desc": description, "location": home or "the void", "character": "{{user}}"}
        found["prompt_prefix"] = re.sub(r"\{(name|desc|location|character)\}", lambda m: filled[m[1]], plain(prefix))
    return found


def plain(text: Any) -> str:
    """Without the game's colours."""
    return _COLOUR.sub(lambda m: _SPACES.get(m[0], "|" if m[0] == "||" else ""), str(text or "")).strip()


def memories(row: Row) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was said, with each player: who, and the words. Raises ValueError for what is no chat_memory."""
    memory = row.get("chat_memory") or {}
    if not isinstance(memory, dict):
        raise ValueError("its chat_memory is no mapping of players to lines")
    found = []
    for player, lines in memory.items():
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise ValueError(f"its chat_memory with {str(player)[:40]!r} is no list of lines")
        said = [line.partition(":") for line in lines]
        found.append((str(player), [(_DBREF.sub("", plain(who)), plain(text)) for who, _, text in said]))
    return found
