"""What of a persona's lorebook belongs into the prompt of one turn.

An entry is there when one of its keys has come up, in the player's line or in the last messages before it: as whole words,
whatever stands between them, and in any case unless it says otherwise. Keys and contents are data: a key is no pattern, and
no content is compiled. Depends on nothing but its arguments, so that reading a journal again finds the same.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from pipeline.records import Exchange, Message

BUDGET = 200  # tokens, where the persona has no `lore_budget`

_CHARS = 4  # a token, as Request.about_tokens has it
_BEFORE = 4  # messages looked into before the line
_LOOKED_AT = 20_000  # characters, the newest
_LONGEST_KEY = 200

_BETWEEN = re.compile(r"[\W_]+")
# Scripts that put no blanks between words: a key is found anywhere.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def lore_of(
    npc: SimpleNamespace, line: str, said: tuple[Exchange, ...] = (), before: tuple[Message, ...] = ()
) -> tuple[str, ...]:
    """The contents that belong to the answer to `line`, in their order: what is `constant`, and what was brought up.

    `said` is the conversation so far; `before` what was said earlier yet, where a reply was had elsewhere. What does not fit
    into the persona's budget any more is left out, and what is shorter may still come after it.
    """
    book = getattr(npc, "lorebook", None)
    if not book:
        return ()
    messages = [message.content for message in before[-_BEFORE:] if message.role != "system"]
    messages += [text for exchange in said[-_BEFORE:] for text in exchange]
    text = "\n".join([*messages[-_BEFORE:], line])[-_LOOKED_AT:]
    spoken = {cased: _Spoken(_words(text if cased else text.casefold())) for cased in (False, True)}
    room = (getattr(npc, "lore_budget", 0) or BUDGET) * _CHARS
    found: dict[str, None] = {}
    for entry in sorted((e for e in book if _belongs(e, spoken)), key=lambda e: e["order"]):
        content = _undecorated(entry["content"])
        if content and content not in found and len(content) <= room:
            found[content] = None
            room -= len(content)
    return tuple(found)


class _Spoken:
    """What was said. A key is looked for only where its first word is there: books have thousands, and most come up never."""

    def __init__(self, text: str) -> None:
        self.text, self.words = text, {"", *text.split()}

    def has(self, keys: Iterable[str], *, cased: bool) -> bool:
        for key in keys:
            if len(key) <= _LONGEST_KEY:
                first, wanted = _key(key, cased)
                if first in self.words and wanted and wanted in self.text:
                    return True
        return False


def _belongs(entry: dict[str, Any], spoken: dict[bool, _Spoken]) -> bool:
    if not entry["enabled"]:
        return False
    if entry["constant"]:
        return True
    cased = entry["case_sensitive"]
    has = partial(spoken[cased].has, cased=cased)
    second = entry["secondary_keys"] if entry["selective"] else []
    return has(entry["keys"]) and (not second or has(second))


@lru_cache(maxsize=2**16)
def _key(key: str, cased: bool) -> tuple[str, str]:
    """The key's first word ("": it may be a part of one), and what stands in a text where the key does ("": nothing can)."""
    words = _words(key if cased else key.casefold())
    if words.isspace() or _UNSPACED.search(words):
        return "", words.strip()
    return words.split()[0], words


def _words(text: str) -> str:
    """The words, each with a blank on either side: looking for whole words is looking for a part of the text."""
    return f" {_BETWEEN.sub(' ', unicodedata.normalize('NFC', text)).strip()} "


def _undecorated(content: str) -> str:
    """Without the lines at its head that tell a program of version 3 cards what to do (`@@depth 4`)."""
    while content.startswith("@@"):
        content = content.partition("\n")[2].lstrip()
    return content.strip()
