"""Other people's columns under our names: as `--map name=title,description=bio` says, or by what such columns are called.

A row that has an id, a name and a description under these names is ours, and taken as it is; only what `--map` says is changed.
Any other is looked through for what it may call our fields, and what was found is told. Columns that nobody takes are kept
under their own names.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.personas.schema import Persona
from pipeline.records import Row, digest

# The first that is there counts. By lower case, with "_" for blanks and hyphens.
ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("uid", "uuid", "slug", "persona_id", "character_id", "npc_id"),
    "name": ("character_name", "char_name", "npc_name", "full_name", "character", "npc", "title", "key"),
    "description": (
        *("desc", "bio", "biography", "persona", "character_description", "char_persona", "background", "backstory"),
        *("short_story", "profile", "summary", "about", "context", "system_prompt", "text"),
    ),
    "personality": ("traits", "temperament", "personality_traits"),
    "speech": ("speaking_style", "speech_style", "way_of_speaking", "style", "voice", "tone"),
    "world": ("universe", "franchise", "game"),
    "setting": ("setting_description", "scenario", "world_scenario", "room_description", "room", "scene", "setting_name"),
    "home": ("location", "residence", "place"),
    "trade": ("occupation", "profession", "job", "role", "class"),
    "kin": ("family", "relatives", "relationships"),
    "knows": ("knowledge", "known_facts", "facts"),
    "hides": ("secret", "secrets", "hidden"),
    "wants": ("goal", "goals", "motivation", "motivations", "objective", "desire", "desires"),
    "greeting": ("first_mes", "first_message", "char_greeting", "opening_line", "intro"),
    "examples": ("example_dialogue", "example_lines", "sample_lines", "dialogue_examples", "quotes", "lines"),
}  # fmt: skip
REQUIRED = tuple(name for name, info in Persona.model_fields.items() if info.is_required())
_LISTS = ("knows", "examples", "unknown_words")


class Columns:
    """How the rows of a source become personas. `told` says what was found out, by our names."""

    def __init__(self, given: Iterable[str] = (), also: tuple[str, ...] = ()) -> None:
        """`given` as `--map` has it: "name=title"; `also` are fields that a persona has not. Raises ConfigError."""
        self.told: dict[str, str] = {}
        self._given: dict[str, str] = {}
        for pair in ",".join(given).split(","):
            ours, equals, theirs = (part.strip() for part in pair.partition("="))
            if not pair.strip():
                continue
            if not equals or not theirs or ours not in (*Persona.model_fields, *also):
                known = ", ".join((*Persona.model_fields, *also))
                raise ConfigError(f"--map {pair}: has to be FIELD=COLUMN, where FIELD is one of {known}.")
            self._given[ours] = theirs
        self._known: dict[tuple[str, ...], dict[str, str]] = {}

    def missing(self, names: Iterable[str]) -> list[str]:
        """The fields that a table with these columns cannot fill."""
        names = list(names)
        found = self._found(names)
        lost = [theirs for theirs in self._given.values() if theirs not in names and theirs.split(".")[0] not in names]
        return lost or [name for name in REQUIRED if name != "id" and name not in names and name not in found]

    def given(self, row: Row) -> dict[str, Any]:
        """What `--map` alone says of the row, by our names."""
        found = {ours: _at(row, theirs) for ours, theirs in self._given.items()}
        return {ours: value for ours, value in found.items() if value is not None}

    def named(self, row: Row) -> dict[str, Any]:
        """The row by our names, with an id."""
        if not self._given and all(row.get(name) for name in REQUIRED):
            return dict(row)
        found = self._found(row)
        for ours, theirs in found.items():
            if self._given.get(ours) != theirs:
                self.told.setdefault(ours, theirs)
        taken = {ours: _as(ours, _at(row, theirs)) for ours, theirs in found.items()}
        named = {name: value for name, value in row.items() if name not in found.values()}
        named |= {ours: value for ours, value in taken.items() if value is not None}
        if not str(named.get("id") or "").strip() and named.get("name"):
            named["id"] = own_id(named)
        return named

    def _found(self, names: Iterable[str]) -> dict[str, str]:
        """Their column for each of our fields that is not there under its own name."""
        names = tuple(names)
        if names not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[names] = self._find(names)
        return self._known[names]

    def _find(self, names: tuple[str, ...]) -> dict[str, str]:
        found = dict(self._given)
        if all(name in names or name in found for name in REQUIRED):
            return found
        by_word: dict[str, str] = {}
        for name in names:
            by_word.setdefault(re.sub(r"[\s-]+", "_", str(name).strip().casefold()), name)
        free = {word: name for word, name in by_word.items() if name not in found.values()}
        for ours, aliases in ALIASES.items():
            if ours in names or ours in found:
                continue
            for word in (ours, *aliases):
                if word in free and free[word] not in Persona.model_fields:
                    found[ours] = free.pop(word)
                    break
        return found


def own_id(row: Mapping[str, Any]) -> str:
    """An id for a row without one: its name, and a hash of what it says of itself. Never its place."""
    name = re.sub(r"[^\w]+", "-", str(row["name"]).casefold()).strip("-_")[:40]
    said = [
        str(row.get(field, "")).strip() for field in ("name", "description", "setting", "home", "personality", "wants")
    ]
    return f"{name or 'npc'}-{digest(*said)[:8]}"


def _at(row: Row, column: str) -> Any:
    """The column, or with dots what is inside of it: `setting.name`."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _as(field: str, value: Any) -> Any:
    """Sentences in a list are a text where we have one."""
    if field not in _LISTS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(one.strip() for one in value)
    return value
