"""Character cards, as SillyTavern and others keep them: versions 1, 2 and 3, to personas and back.

    name, description, personality    the same
    scenario                          setting
    first_mes                         greeting
    mes_example                       examples: what the character itself says in it
    character_book                    lorebook, lore_budget

All else that a card has (its own prompts, other greetings, tags, extensions, whatever is to come) is kept under `card`, and
written back. What only we have (secrets, trades ...) is written as the extension `npc_pipeline`. What reads, writes and
reads a card again has the same persona.

Specifications: github.com/malfoyslastname/character-card-spec-v2, github.com/kwaroran/character-card-spec-v3.
"""

import re
from typing import Any

from pipeline.personas.lorebook import BadBook, read_book, write_book
from pipeline.personas.schema import Persona
from pipeline.records import Row

EXTENSION = "npc_pipeline"
DEPTH = 60  # of what is in a card: nobody nests so deep but to break something

_TEXTS = {
    "name": "name",
    "description": "description",
    "personality": "personality",
    "scenario": "setting",
    "first_mes": "greeting",
}
# Names of version 1 and before it (Pygmalion, text-generation-webui).
_OLD = {
    "char_name": "name",
    "char_persona": "description",
    "world_scenario": "scenario",
    "char_greeting": "first_mes",
    "example_dialogue": "mes_example",
}
_LISTS = ("alternate_greetings", "tags")
_EMPTY_TEXTS = ("creator_notes", "system_prompt", "post_history_instructions", "creator", "character_version")


class BadCard(ValueError):
    """Not a card that can be read. The message says why."""


def is_card(row: Row) -> bool:
    data = row.get("data")
    if "spec" in row and isinstance(row["spec"], str) and row["spec"].startswith("chara_card"):
        return True
    if isinstance(data, dict) and "name" in data and ("first_mes" in data or "mes_example" in data):
        return True
    return "first_mes" in row or "mes_example" in row or "char_name" in row or "char_persona" in row


def from_card(card: Row) -> dict[str, Any]:
    """The fields of a persona; without an `id`, unless we wrote the card. Raises BadCard."""
    bounded(card)
    data = card.get("data")
    if not isinstance(data, dict) or (not data.get("name") and "name" in card):
        data = card  # version 1; or one that says it is newer, and has all where version 1 has it
    if data is card and "spec" in card and "name" not in card:
        raise BadCard(f"a card that calls itself {card['spec']!r:.40} and has no 'data'")
    rest = {_OLD.get(name, name): value for name, value in data.items() if _says(value)}
    if data is card:
        for name in ("spec", "spec_version", "data"):
            rest.pop(name, None)
    row: dict[str, Any] = {ours: _text(rest.pop(theirs, ""), theirs) for theirs, ours in _TEXTS.items()}
    if not row["name"].strip():
        raise BadCard("a card without a name")
    if not row["description"].strip():  # some say all of it in the field beside
        row["description"], row["personality"] = row["personality"] or row["setting"], ""
    nickname = rest.get("nickname")
    said = _text(rest.pop("mes_example", ""), "mes_example")
    if said.strip():
        row["examples"] = own_lines(said, row["name"], nickname if isinstance(nickname, str) else "")
        if said != _dialogue(row["examples"]):  # the player's part has no other place
            rest["mes_example"] = said
    if "character_book" in rest:
        try:
            row["lorebook"], row["lore_budget"], rest["character_book"] = read_book(rest["character_book"])
        except BadBook as exc:
            raise BadCard(str(exc)) from exc
        if not rest["character_book"]:
            del rest["character_book"]
    extensions = rest.pop("extensions", None)
    if isinstance(extensions, dict):
        rest["extensions"] = {name: value for name, value in extensions.items() if name != EXTENSION}
        ours = extensions.get(EXTENSION)
        row |= {name: value for name, value in ours.items() if name != "card"} if isinstance(ours, dict) else {}
    rest = {name: value for name, value in rest.items() if _says(value)}
    return row | ({"card": rest} if rest else {})


def to_card(persona: Row) -> dict[str, Any]:
    """A version 2 card of a persona with all its fields."""
    rest = dict(persona["card"]) if isinstance(persona.get("card"), dict) else {}
    known = {*_TEXTS.values(), "card", "examples", "lorebook", "lore_budget"}
    told = {name for name, value in persona.items() if name not in Persona.model_fields or _says(value)}
    ours = {name: value for name, value in persona.items() if name in told - known}
    example = rest.pop("mes_example", "")
    nickname = rest.get("nickname", "")
    if not example or own_lines(example, persona["name"], nickname) != persona["examples"]:
        example = _dialogue(persona["examples"])
        if own_lines(example, persona["name"], nickname) != persona["examples"]:  # a line that cannot be written so
            ours["examples"], example = persona["examples"], ""
    book = rest.pop("character_book", {})
    extensions = rest.pop("extensions", {})
    data: dict[str, Any] = {theirs: persona[ours] for theirs, ours in _TEXTS.items()}
    data |= {"mes_example": example, **dict.fromkeys(_EMPTY_TEXTS, ""), **{name: [] for name in _LISTS}}
    data |= rest
    if persona["lorebook"] or book or persona["lore_budget"]:
        data["character_book"] = write_book(persona["lorebook"], persona["lore_budget"], book)
    data["extensions"] = {**extensions, **({EXTENSION: ours} if ours else {})}
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}


def _dialogue(lines: list[str]) -> str:
    return "".join(f"<START>\n{{{{char}}}}: {line}\n" for line in lines)


_START = re.compile("<start>", re.IGNORECASE)
_SELF = ("{{char}}", "<bot>", "<char>")
_PLAYER = ("{{user}}", "<user>", "you", "user")


def own_lines(text: str, name: str, nickname: str = "") -> list[str]:
    """What the character says in example dialogue: lines with its label, and those below that go on with it."""
    mine = {label.casefold() for label in (*_SELF, name.strip(), nickname.strip(), *name.split()[:1]) if label}
    found: list[str] = []
    for block in _START.split(text):
        speaking = False
        for line in block.splitlines():
            label, colon, said = line.partition(":")
            who = label.strip().strip("*_[]").casefold()
            if colon and who in mine:
                found.append(said.strip())
                speaking = True
            elif colon and who in _PLAYER:
                speaking = False
            elif speaking and line.strip():
                found[-1] = f"{found[-1]} {line.strip()}".strip()
    return [line for line in found if line]


def bounded(value: Any) -> None:
    """Raises BadCard for what is nested too deeply to be worked with. Does not recurse itself."""
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise BadCard(f"nested over {DEPTH} levels deep")


def _text(value: Any, name: str) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    if isinstance(value, dict | list):
        raise BadCard(f"its {name} is no text")
    return str(value)


def _says(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}
