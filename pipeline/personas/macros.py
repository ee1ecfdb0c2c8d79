"""`{{char}}` and `{{user}}` in a persona's texts: its own name, and that of the player it talks with.

They come from character cards, where they also are spelled `<BOT>`, `<CHAR>` and `<USER>`, in any case. This is plain
substitution, done once; all other braces are text.
"""

import re
from types import SimpleNamespace
from typing import Any

_CHAR = re.compile(r"\{\{\s*char\s*\}\}|<(?:bot|char)>", re.IGNORECASE)
# A name as long as a book, called for a million times, would be more text than there is memory.
_LONGEST, _MOST = 100, 10_000
_USER = re.compile(r"\{\{\s*user\s*\}\}|<user>", re.IGNORECASE)


def has_macros(text: str) -> bool:
    return ("{{" in text or "<" in text) and bool(_CHAR.search(text) or _USER.search(text))


def with_own_name(npc: SimpleNamespace) -> SimpleNamespace:
    """With its own name for `{{char}}`: a card's nickname goes before its name."""
    card = getattr(npc, "card", None)
    nickname = card.get("nickname") if isinstance(card, dict) else None
    return _replaced(npc, _CHAR, nickname if isinstance(nickname, str) and nickname.strip() else npc.name)


class Meeting:
    """A persona as it is for each player it meets. The same player finds the same object: prompts are rendered by it."""

    def __init__(self, npc: SimpleNamespace) -> None:
        self._npc = npc
        self._mentions = any(_mentions(value) for value in vars(npc).values())
        self._for: dict[str, SimpleNamespace] = {}

    def __call__(self, player: str) -> SimpleNamespace:
        if not self._mentions:
            return self._npc
        if player not in self._for:
            self._for[player] = _replaced(self._npc, _USER, player)
        return self._for[player]


def _mentions(value: Any, depth: int = 8) -> bool:
    if isinstance(value, str):
        return ("{{" in value or "<" in value) and _USER.search(value) is not None
    if depth and isinstance(value, list | dict):
        return any(_mentions(one, depth - 1) for one in (value.values() if isinstance(value, dict) else value))
    return False


def _replaced(npc: SimpleNamespace, macro: re.Pattern[str], name: str) -> SimpleNamespace:
    name = name[:_LONGEST]
    fields = {key: _in(value, macro, name) for key, value in vars(npc).items() if key not in ("id", "name")}
    return SimpleNamespace(**{**vars(npc), **fields})


def _in(value: Any, macro: re.Pattern[str], name: str, depth: int = 8) -> Any:
    if isinstance(value, str):
        return macro.sub(lambda _: name, value, count=_MOST)
    if depth and isinstance(value, list):
        return [_in(one, macro, name, depth - 1) for one in value]
    if depth and isinstance(value, dict):
        return {key: _in(one, macro, name, depth - 1) for key, one in value.items()}
    return value
