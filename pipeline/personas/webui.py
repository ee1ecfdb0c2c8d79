"""Characters of text-generation-webui: one YAML or JSON file each, with `name`, `context`, `greeting`, `example_dialogue`.

The JSON of old, which Pygmalion's editors write (`char_name`, `char_persona` ...), reads as a card: see cards.py.
"""

from typing import Any

from pipeline.personas.cards import own_lines
from pipeline.records import Row

_NAMES = ("name", "bot")


def is_character(row: Row) -> bool:
    named = any(isinstance(row.get(name), str) for name in _NAMES)
    return named and "description" not in row and ("context" in row or ("greeting" in row and "persona" not in row))


def from_character(row: Row) -> dict[str, Any]:
    """The fields of a persona, without an `id`. Whatever else the file has is kept under its own name."""
    rest = dict(row)
    name = next(str(rest[name]) for name in _NAMES if isinstance(rest.get(name), str))
    context, greeting, said = (str(rest.pop(key, "") or "") for key in ("context", "greeting", "example_dialogue"))
    for key in _NAMES:
        rest.pop(key, None)
    # Many have their examples at the end of the context, as the older versions wanted it.
    about, start, talk = context.partition("<START>")
    opening, colon, description = about.strip().partition("'s Persona:")
    if not colon or "\n" in opening:
        description = about
    examples = own_lines(talk, name) if start else []
    return {**rest, "name": name, "description": description.strip(), "greeting": greeting,
            "examples": examples + own_lines(said, name)}  # fmt: skip
