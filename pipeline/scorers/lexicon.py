"""Word lists that scorers look for: `data/lexicons/NAME.txt`, where an author changes them.

    # a comment
    [section]
    a phrase a line

The working directory's own `data/lexicons/NAME.txt` stands for the one that ships. Phrases are literals, never patterns.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.resources import data_file
from pipeline.scorers.words import plain


def lexicon(name: str) -> Mapping[str, tuple[str, ...]]:
    """The phrases of a list by section, plain (see `words.plain`); those before the first [section] are under ""."""
    return _read(_found(name, working_folder()))


def working_folder() -> str:
    """Whose own lexicons go first: what is made of a lexicon is kept by it."""
    return _settled or _folder()


def settle_folder(*, settled: bool = True) -> None:
    """Look where we are once, and not for every reply: to ask costs as much as a scorer."""
    global _settled
    _settled = _folder() if settled else ""


_settled = ""


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # somebody has removed it
        return ""


@lru_cache(maxsize=256)
def _found(name: str, _where: str) -> Path:
    return data_file(f"lexicons/{name}.txt")


@lru_cache(maxsize=64)
def _read(path: Path) -> Mapping[str, tuple[str, ...]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read: {exc}. A lexicon is a UTF-8 text, one phrase a line.") from exc
    sections: dict[str, list[str]] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line and not line.startswith("#"):
            sections.setdefault(section, []).append(plain(line))
    return {name: tuple(dict.fromkeys(phrases)) for name, phrases in sections.items()}


def any_of(phrases: Iterable[str]) -> str:
    """A pattern for any of these literals, the longest that fits first, up to the end of its last word."""
    longest_first = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    return "(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)" if longest_first else r"(?!)"


class Lazily:
    """A pattern of one persona's words, compiled when a reply gives reason to look: for most personas none does."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self._pattern, self._flags = pattern, flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._pattern, self._flags)

    def search(self, text: str) -> re.Match[str] | None:
        return self._compiled.search(text)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        return self._compiled.finditer(text)


lazily = lru_cache(maxsize=256)(
    Lazily
)  # one for all who have these words: most NPCs are spoken to by the same few players
