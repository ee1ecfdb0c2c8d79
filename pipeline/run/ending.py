"""When a conversation is over, and why.

    turns        it has had as many as it may have
    script       the scenario has no more lines, and no simulated player goes on
    farewell     one of the two has said goodbye, and the NPC has answered
    repetition   the two say what they have said before
    silence      one of the two said nothing
    failed       a reply cannot be had: the template failed, or the server refused for good

What a scenario's author wrote is said to its end: farewell and repetition end only what a simulated player would go on with.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from pipeline.records import Exchange
from pipeline.resources import shipped

Ending = Literal["", "turns", "script", "farewell", "repetition", "silence", "failed"]

_READ = 2_000  # characters of a text, from its end
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?…\n]+[.!?…]*")
_PART = re.compile(r"[,;:—–]| - ")
_LONG = 8  # words of a farewell; what is longer only begins like one
_RUN = 3  # words in a row that are compared
_SAME = 0.8  # of them have to have been said before


def ending(said: Sequence[Exchange]) -> Ending:
    """Whether a conversation that could go on is over by what was `said`; "" if not."""
    line, reply = said[-1]
    if says_farewell(line) or says_farewell(reply):
        return "farewell"
    before = said[:-1]
    if _said_before(line, (one.line for one in before)) and _said_before(reply, (one.reply for one in before)):
        return "repetition"
    return ""


def says_farewell(text: str) -> bool:
    """Whether its last sentence is a goodbye."""
    sentences = [found for found in _SENTENCE.findall(_straight(text[-_READ:])) if _WORD.search(found)]
    if not sentences or "?" in sentences[-1]:
        return False
    parts = (" ".join(_WORD.findall(part)) for part in _PART.split(sentences[-1]))
    return any(part.count(" ") < _LONG and f"{part} \n".startswith(_farewells()) for part in parts)


def _said_before(text: str, others: Iterable[str]) -> bool:
    runs = _runs(text)
    return any(len(runs & _runs(other)) >= _SAME * len(runs) for other in others)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(_straight(text[-_READ:]))
    return {tuple(words[at : at + _RUN]) for at in range(max(1, len(words) - _RUN + 1))}


def _straight(text: str) -> str:
    return text.casefold().replace("’", "'")


@lru_cache(maxsize=1)
def _farewells() -> tuple[str, ...]:
    """Each with a blank behind it: whole words. A line feed is the end of the part."""
    lines = (shipped("data") / "lexicons" / "farewells.txt").read_text("utf-8").splitlines()
    phrases = (line for line in lines if line and not line.startswith("#"))
    return tuple(" ".join(_WORD.findall(one)) + (" \n" if one.endswith(".") else " ") for one in phrases)
