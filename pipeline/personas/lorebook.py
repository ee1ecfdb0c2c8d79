"""A card's `character_book`, or a SillyTavern world, to the entries of a persona's `lorebook` and back.

What an entry says of itself under other names (priority, position, extensions, ...) is kept beside.
"""

from typing import Any

MAX_ENTRIES = 10_000
_KEYS = ("keys", "secondary_keys")
_FLAGS = {"constant": False, "enabled": True, "case_sensitive": False, "selective": False}
# Worlds that stand alone have other names than books in cards.
_WORLD = {"key": "keys", "keysecondary": "secondary_keys", "caseSensitive": "case_sensitive"}


class BadBook(ValueError):
    """Not a lorebook that can be read."""


def read_book(book: Any) -> tuple[list[dict[str, Any]], int, dict[str, Any]]:
    """The entries; the budget in tokens (0: none given); what the book says besides. Raises BadBook."""
    if not isinstance(book, dict):
        raise BadBook("its character_book is no object")
    entries = book.get("entries") or []
    if isinstance(entries, dict):
        entries = list(entries.values())
    if not isinstance(entries, list):
        raise BadBook("its character_book has no list of entries")
    if len(entries) > MAX_ENTRIES:
        raise BadBook(f"its character_book has {len(entries)} entries; {MAX_ENTRIES} are allowed")
    rest = {name: value for name, value in book.items() if name not in ("entries", "token_budget") and _says(value)}
    return [_entry(entry, place) for place, entry in enumerate(entries, 1)], _number(book.get("token_budget"), 0), rest


def write_book(entries: list[dict[str, Any]], budget: int, rest: dict[str, Any]) -> dict[str, Any]:
    """As a `character_book` of version 2."""
    book: dict[str, Any] = {"extensions": {}, **rest}
    if budget:
        book["token_budget"] = budget
    book["entries"] = [
        {"extensions": {}, **{name: value for name, value in entry.items() if name != "order"}}
        | {"insertion_order": entry["order"]}
        for entry in entries
    ]
    return book


def _entry(entry: Any, place: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise BadBook(f"entry {place} of its character_book is no object")
    found: dict[str, Any] = {str(_WORLD.get(name, name)): value for name, value in entry.items() if _says(value)}
    if found.pop("disable", False):
        found["enabled"] = False
    content = found.get("content", "")
    if not isinstance(content, str):
        raise BadBook(f"entry {place} of its character_book: its content is no text")
    order = found.pop("insertion_order", found.pop("order", None))
    return {
        **found,
        "content": content,
        "order": _number(order, 100),
        **{name: _texts(found.get(name), place) for name in _KEYS},
        **{name: bool(found.get(name, usual)) for name, usual in _FLAGS.items()},
    }


def _texts(value: Any, place: int) -> list[str]:
    """Keys are a list, or in some cards one text with commas."""
    found = value.split(",") if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(one, str | int | float) for one in found):
        raise BadBook(f"entry {place} of its character_book: its keys are no list of texts")
    return [text for one in found if (text := str(one).strip())]


def _number(value: Any, usual: int) -> int:
    try:
        return max(-(10**9), min(int(value), 10**9))
    except (TypeError, ValueError, OverflowError):
        return usual


def _says(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}
