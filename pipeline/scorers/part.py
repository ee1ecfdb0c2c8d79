"""What is known of a persona's part: its names, its trade, the people around it; and the words of other parts (`data/lexicons/roles.txt`)."""

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.meaning import of_persona
from pipeline.scorers.words import has_word, plain, words

_ALIAS = re.compile(
    r"\b(?:is|was|are|really|as|alias|called|named) (?:(?:Lady|Lord|Sir|Miss|Mister|Captain|the) )?([A-Z][\w-]*)"
)
_PLACE = re.compile(
    r"\b(?:at|in|to|from|of|on|near|off|past|beyond|over|under|across|through|outside|inside|the|by|called) \Z"
)


_BEGINS = r"(?:\A|(?<=[.!?…\n*\"”)] )|(?<=\n))"
_TITLE = r"(?:(?:[A-Z][a-z]+\.?|old|young|dear|good|kind) )?"
_BEFORE = 80  # characters: the longest greeting, and a title


def _places_of(name: str, text: str) -> Iterator[tuple[int, int]]:
    at = text.find(name)
    while at >= 0:
        yield at, at + len(name)
        at = text.find(name, at + 1)


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
    addresses: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]  # how, what is before a name, and behind it
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
        addresses=(
            (
                "greets",
                re.compile(
                    rf"{_BEGINS}(?i:{any_of(lists.get('greetings', ()))}),?(?: (?:there|again|to you),?)? {_TITLE}\Z"
                ),
                re.compile(r"[.,!?…;]|\Z|\n"),
            ),
            ("first", re.compile(rf"{_BEGINS.replace(')]', ']')}{_TITLE}\Z"), re.compile(r",\s")),
            ("last", re.compile(rf", {_TITLE}\Z"), re.compile(r"[.!?…;]|\Z|, ")),
        ),
        hires=any_of(lists.get("hires", ())),
    )


class Role:
    """What is known of a persona, each made out when a reply gives reason to look."""

    def __init__(self, npc: SimpleNamespace) -> None:
        self._npc, self._name, self._lists = npc, npc.name[:READ], lists_of(working_folder())
        self._parts = [part for part in self._name.split() if len(part) > 1]
        titles = self._lists.titles
        proper = [part for part in self._parts if part.casefold().strip(".") not in titles and part[0].isupper()]
        # That it may be addressed by.
        self.names = tuple(dict.fromkeys([self._name, *proper[:1], *proper[-1:]]))
        trade = npc.trade
        trades = [trade] if 0 < len(trade) < 60 else []
        if self._name.startswith(("Dr.", "Dr ", "Doctor ")):
            trades.append("doctor")
        trades += [part.split()[-1] for part in re.split(r",| and ", trade[:60]) if part.split()]
        plainly = {plain(one) for one in trades} - self._lists.plain_words
        self.trades = tuple(one for one in plainly if len(one) > 3)
        self.trade_words = frozenset(word for one in self.trades for word in words(one))
        self.home = _house(npc.home)  # a word: gatehouse

    @cached_property
    def _itself(self) -> str:
        npc = self._npc
        about = (npc.description, npc.personality, npc.speech, npc.trade, npc.greeting, npc.wants, *npc.examples)
        return _beginnings(about)

    @cached_property
    def _others(self) -> str:
        return _beginnings((self._npc.kin, self._npc.hides, *self._npc.knows))

    @cached_property
    def own(self) -> frozenset[str]:
        """Every capitalised word of what is said of itself, in lower case."""
        written = (*capitals(self._name), *self._parts, *capitals(self._itself), *_ALIAS.findall(self._others))
        return frozenset(part.casefold() for part in written)

    @cached_property
    def about(self) -> str:
        """All that is said of itself, plain."""
        return plain(f"{self._name}\n{self._itself}\n{self._npc.trade}")

    @cached_property
    def others(self) -> frozenset[str]:
        """Names of people it knows, in lower case."""
        return frozenset(_people(self._others)) - self.own

    @cached_property
    def known(self) -> frozenset[str]:
        """Occupations of people it knows."""
        others, about = plain(self._others), self.about
        return frozenset(
            word for word in self._lists.occupations if has_word(word, others) and not has_word(word, about)
        )

    @cached_property
    def places(self) -> frozenset[str]:
        """Every capitalised word of its world."""
        around = _beginnings((self._npc.world, self._npc.setting, self._npc.home))
        return frozenset(found.casefold() for found in capitals(f"{around}\n{self._others}\n{self._itself}"))

    def addressed(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Where the other one is called by its name: how ("greets", "first" or "last" in the sentence), and from where to where."""
        done = 0
        for at, end in sorted(
            {span for name in self.names for span in _places_of(name, text)}, key=lambda it: (it[0], -it[1])
        ):
            for how, before, after in self._lists.addresses if at >= done else ():
                found = before.search(text, max(at - _BEFORE, done), at) if after.match(text, end) else None
                if found:
                    yield how, found.start(), end
                    done = end
                    break

    @cached_property
    def hailed(self) -> re.Pattern[str]:
        """Its trade as an address."""
        trade = any_of(self.trades)
        return re.compile(
            rf"(?:\A|(?<=[.!?\"] ))(?:good|dear|kind|noble|wise|great|honou?red|o|sir|master|mistress) (?:sir |master |mistress )?"
            rf"{trade}(?=,)|, (?:good |dear |kind |master )?{trade}(?=[.!?;,]|\Z)"
        )

    @cached_property
    def sought(self) -> re.Pattern[str]:
        """Its trade, asked for."""
        trade = any_of(self.trades)
        return re.compile(
            rf"(?<!\w){self._lists.hires} (?:the|an?) (?:[\w-]+ )?{trade}"
            rf"|(?<!\w)is (?:the|your) {trade} (?:about|here|in|around|home|available)(?!\w)"
        )

    @cached_property
    def at_yours(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:your|thy) {re.escape(self.home)}\b", re.IGNORECASE)


@of_persona
def role_of(npc: SimpleNamespace) -> Role:
    return Role(npc)


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


def _people(text: str) -> Iterator[str]:
    """Capitalised words that are no beginning of a sentence and no place."""
    for found in re.finditer(r"[A-Z][\w-]*", text):
        before = text[max(0, found.start() - 12) : found.start()]
        begins = not before.strip() or before[-1] == "\n" or before.rstrip()[-1] in '.!?:"'
        if not begins and not _PLACE.search(before):
            yield found[0].casefold()
