"""What is known of a persona's part: its names, its trade, the people around it; and the words of other parts (`data/lexicons/roles.txt`)."""

import re
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.scorers.lexicon import Lazily, any_of, lexicon
from pipeline.scorers.words import plain, words

_ALIAS = re.compile(
    r"\b(?:is|was|are|really|as|alias|called|named) (?:(?:Lady|Lord|Sir|Miss|Mister|Captain|the) )?([A-Z][\w-]*)"
)
_PLACE = re.compile(
    r"\b(?:at|in|to|from|of|on|near|off|past|beyond|over|under|across|through|outside|inside|the|by|called) \Z"
)


class Role(NamedTuple):
    """What is known of a persona."""

    names: tuple[str, ...]  # that it may be addressed by
    own: frozenset[str]  # every capitalised word of what is said of itself, in lower case
    about: str  # all that is said of itself, plain
    others: frozenset[str]  # names of people it knows, in lower case
    known: frozenset[str]  # occupations of people it knows
    places: frozenset[str]  # every capitalised word of its world
    addressed: Lazily
    trades: frozenset[str]  # words of its trade
    hailed: Lazily  # its trade as an address
    sought: Lazily  # its trade, asked for
    home: str  # a word: gatehouse
    at_yours: Lazily


Fields = tuple[str, ...]


class Lists(NamedTuple):
    """`data/lexicons/roles.txt`, made ready."""

    titles: frozenset[str]
    requests: re.Pattern[str]
    visitors: frozenset[str]
    visitor: re.Pattern[str]
    visits: re.Pattern[str]
    plain_words: frozenset[str]
    demonyms: tuple[str, ...]
    occupations: frozenset[str]
    swaps: re.Pattern[str]
    greetings: str
    hires: str


@lru_cache(maxsize=8)
def lists_of(folder: str) -> Lists:
    lists = lexicon("roles")
    visitors = any_of(lists.get("visitors", ()))
    return Lists(
        titles=frozenset(lists.get("titles", ())),
        requests=re.compile(r"(?<!\w)" + any_of(lists.get("requests", ()))),
        visitors=frozenset(max(words(phrase), key=len) for phrase in lists.get("visitors", ()) if words(phrase)),
        visitor=re.compile(
            r"(?:\b(?:i am|i'm|i be)(?: (?:just|only|but|merely|nobody,|no one,))*|(?:\A|[.!?,] )(?:just|only|nobody,)) an? "
            rf"(?:[\w-]+ ){{0,2}}?(?P<what>{visitors})"
        ),
        visits=re.compile(r"(?<!\w)" + any_of(lists.get("visits", ()))),
        plain_words=frozenset(lists.get("plain words", ())),
        demonyms=lists.get("demonyms", ()),
        occupations=frozenset(lists.get("occupations", ())),
        swaps=re.compile(r"(?<!\w)" + any_of(lists.get("swaps", ()))),
        greetings=any_of(lists.get("greetings", ())),
        hires=any_of(lists.get("hires", ())),
    )


def role_of(npc: SimpleNamespace, folder: str) -> Role:
    itself = (npc.description, npc.personality, npc.speech, npc.trade, npc.greeting, npc.wants, *npc.examples)
    others = (npc.kin, npc.hides, *npc.knows)
    return _role(npc.name, npc.trade, npc.home, itself, (npc.world, npc.setting, npc.home), others, folder)


@lru_cache(maxsize=256)
def _role(
    name: str, trade: str, home: str, of_itself: Fields, of_world: Fields, of_others: Fields, folder: str
) -> Role:
    itself, around, others = map(_beginnings, (of_itself, of_world, of_others))
    name, lists = name[:READ], lists_of(folder)
    parts = [part for part in name.split() if len(part) > 1]
    proper = [part for part in parts if part.casefold().strip(".") not in lists.titles and part[0].isupper()]
    names = tuple(dict.fromkeys([name, *(part for part in (*proper[:1], *proper[-1:]))])) if proper else (name,)
    own = frozenset(part.casefold() for part in (*capitals(name), *parts, *capitals(itself)))
    own |= {alias.casefold() for alias in _ALIAS.findall(others)}
    either = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    title = r"(?:(?:[A-Z][a-z]+\.?|old|young|dear|good|kind) )?"
    trades = [trade] if 0 < len(trade) < 60 else []
    if name.startswith(("Dr.", "Dr ", "Doctor ")):
        trades.append("doctor")
    trades += [part.split()[-1] for part in re.split(r",| and ", trade[:60]) if part.split()]
    trades = [one for one in {plain(one) for one in trades} if one and one not in lists.plain_words and len(one) > 3]
    trade_words = any_of(trades)
    known = plain(others)
    about = plain(f"{name}\n{itself}\n{trade}")
    return Role(
        names=names,
        own=own,
        about=about,
        others=frozenset(_people(others)) - own,
        known=frozenset(word for word in lists.occupations if has_word(word, known) and not has_word(word, about)),
        places=frozenset(found.casefold() for found in capitals(f"{around}\n{others}\n{itself}")),
        addressed=Lazily(
            rf"(?P<greets>(?:\A|(?<=[.!?…\n*\"”)] )|(?<=\n))(?i:{lists.greetings}),?(?: (?:there|again|to you),?)?"
            rf" {title}(?:{either}))(?=[.,!?…;]|\Z|\n)"
            rf"|(?P<first>(?:\A|(?<=[.!?…\n*\"”] )|(?<=\n)){title}(?:{either})),\s"
            rf"|(?P<last>, {title}(?:{either}))(?=[.!?…;]|\Z|, )"
        ),
        trades=frozenset(word for one in trades for word in words(one)),
        hailed=Lazily(
            rf"(?:\A|(?<=[.!?\"] ))(?:good|dear|kind|noble|wise|great|honou?red|o|sir|master|mistress) (?:sir |master |mistress )?"
            rf"{trade_words}(?=,)|, (?:good |dear |kind |master )?{trade_words}(?=[.!?;,]|\Z)"
        ),
        sought=Lazily(
            rf"(?<!\w){lists.hires} (?:the|an?) (?:[\w-]+ )?{trade_words}"
            rf"|(?<!\w)is (?:the|your) {trade_words} (?:about|here|in|around|home|available)(?!\w)"
        ),
        home=_house(home),
        at_yours=Lazily(rf"\b(?:your|thy) {re.escape(_house(home))}\b", re.IGNORECASE),
    )


def _house(home: str) -> str:
    """The gatehouse of "the gatehouse at Kell Pass"."""
    found = re.match(
        r"(?:an?|the|her|his|its|their) (?:[a-z]+ )?([a-z-]{5,})\b(?= (?:at|of|in|on|by|behind|above|under)\b|,|\Z)",
        home[:200],
    )
    return found[1] if found else ""


READ = 5_000  # characters of a field or line: beyond that it is no longer about names


def _beginnings(fields: Fields) -> str:
    return "\n".join(field[:READ] for field in fields)[: 4 * READ]


def capitals(text: str) -> list[str]:
    return re.findall(r"[A-Z][\w'’-]*", text)


def has_word(word: str, text: str) -> bool:
    return word in text and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _people(text: str) -> Iterator[str]:
    """Capitalised words that are no beginning of a sentence and no place."""
    for found in re.finditer(r"[A-Z][\w-]*", text):
        before = text[max(0, found.start() - 12) : found.start()]
        begins = not before.strip() or before[-1] == "\n" or before.rstrip()[-1] in '.!?:"'
        if not begins and not _PLACE.search(before):
            yield found[0].casefold()
