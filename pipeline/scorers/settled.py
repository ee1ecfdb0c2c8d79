"""What a persona's fields settle about it: age, trade, home, kin, and numbers and places in what it knows.

Fields are free text, in any language: what is not understood settles nothing (`data/lexicons/facts.txt` has the words).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.meaning import Meaning, meaning, of_persona, stem, stems
from pipeline.scorers.triggers import vocabulary
from pipeline.scorers.words import plain, words

LOOKED_AT = 4_000  # characters of a field, a line or a reply: claims come early
_ONES = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
VALUES = {**{word: n for n, word in enumerate(_ONES, 1)}, **{word: n * 10 for n, word in enumerate(_TENS, 2)}}
NUMBER = rf"(?:\d{{1,3}}|(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_ONES)}))?|{'|'.join(_ONES)})"
NAME = r"[A-Z][\w'-]*[\w]"
NUMBERS = frozenset((*VALUES, *map(str, range(2, 200)))) - {"one"}
NAMING = frozenset(("name", "name's", "call", "calls", "called", "go"))
LIVING = frozenset(("live", "dwell", "reside", "lodge", "sleep", "home"))
_NOTHING: frozenset[str] = frozenset()

# "a dwarf of fifty-eight who ...", "a widow, seventy years old", "the sixty-eight-year-old keeper"; not "a mother of four".
_AGED = re.compile(
    rf"\b(?:(?P<who>[\w-]+),? (?:of|aged) (?P<of>{NUMBER})(?= (?:who|whose|that|which|in|with|from|at|on|and|by)\b|[,.;]|$)"
    rf"|(?P<old>{NUMBER})[- ]years?[- ]old|aged? (?P<aged>{NUMBER})\b)",
    re.IGNORECASE,
)
_KIN_AGED = re.compile(rf"(?:,? (?:{NAME}))?,? (?:of |aged )?({NUMBER})(?=[,;.]|$)")
_CALLED = re.compile(rf"(?:,| named| called)? ({NAME})(?:(?:,| and|, and) ({NAME}))?(?: and ({NAME}))?")
_NAMED_BEFORE = re.compile(rf"({NAME}), (?:her|his|their) \Z")
_NONE = re.compile(r"none(?: at all| left)?(?:[.;]|$)")
_NO_MORE = re.compile(r"\b(?:nobody|no one|no-one|none) else\b")
_DEAD = (
    r"(?:(?:is|are) (?:long |now )?dead(?! (?:tired|set|drunk|right|wrong|asleep|last|to|on))|died|drowned|passed away"
    r"|(?:was|were) (?:killed|murdered|hanged)|(?:is|are) buried)\b"
)
_WELL = (
    r"(?:is|are)(?: all| both)?(?: very| quite| still)? "
    r"(?:well|alive|fine|healthy|hale|happy|at home|living|coming|waiting)\b"
)


class Kin(NamedTuple):
    kind: str  # "sister"
    role: str  # "sibling"
    many: int | None
    names: tuple[str, ...]
    age: int | None
    dead: bool
    living: bool  # for all that the field says


class Counted(NamedTuple):
    """The ford has seven stones."""

    number: int
    what: str  # a stem
    others: frozenset[str]  # the other telling stems of the sentence


class Excluded(NamedTuple):
    """The east road is closed: then it is not the west one, and not open."""

    said: str  # a stem
    false: frozenset[str]
    others: frozenset[str]


class Lists(NamedTuple):
    kinds: Mapping[str, tuple[str, str, bool]]  # by word: kind, role, whether one
    trade: Mapping[str, int]  # which line of the lexicon a word is in
    trade_words: frozenset[str]
    kin_words: frozenset[str]
    verbs: Mapping[str, str]  # "bake": baker
    dwelling: Mapping[str, int]
    either: tuple[frozenset[str], ...]
    of_knowledge: frozenset[str]  # numbers, and all that is one of several
    telling: frozenset[str]  # a reply without any of these, or a name of kin, contradicts no field
    dead: frozenset[str]
    gone: frozenset[str]
    hearsay: frozenset[str]
    not_so: frozenset[str]
    has_so_many: frozenset[str]
    has: re.Pattern[str]  # "I have two brothers", "Grix has two brothers"
    answers_has: re.Pattern[str]  # the same, and "Two brothers"
    fate: re.Pattern[str]  # "my brother is dead", "Teo is well"
    kin_in_field: re.Pattern[str]
    no_kin: re.Pattern[str]
    denied: re.Pattern[str]
    named: tuple[re.Pattern[str], ...]
    is_a: re.Pattern[str]
    does: re.Pattern[str]
    asks: Mapping[str, re.Pattern[str]]
    asking: Mapping[str, tuple[str, ...]]  # without one of these literals its pattern finds nothing


def number(text: str) -> int:
    if text.isdecimal():
        return int(text)
    return sum(VALUES.get(part, 0) for part in re.split(r"[- ]", text.lower()))


class Facts:
    """What one persona's fields settle, each made out when a reply gives reason to look."""

    def __init__(self, npc: SimpleNamespace) -> None:
        self.npc, self.lists, self.known = npc, _lists(working_folder()), meaning()
        self.home = npc.home[:LOOKED_AT]
        self._in_kin = npc.kin[:LOOKED_AT].replace("’", "'")

    @cached_property
    def of_kin(self) -> frozenset[str]:
        """Words without which a reply says nothing of kin."""
        return self.lists.kin_words | self.kin_names

    @cached_property
    def kin_names(self) -> frozenset[str]:
        names = map(str.lower, re.findall(NAME, self._in_kin))
        return frozenset(form for name in names for form in (name, f"{name}'s"))

    @cached_property
    def any(self) -> bool:
        return bool(self.npc.trade or self.npc.kin or self.npc.home or self.age)

    @cached_property
    def name(self) -> frozenset[str]:
        return frozenset(words(self.npc.name))

    @cached_property
    def age(self) -> int | None:
        age = str(getattr(self.npc, "age", "") or "")  # a column that others' personas have
        return _age(f"aged {age}" if age else self.npc.description[:LOOKED_AT], self.lists)

    @cached_property
    def kin(self) -> tuple[Kin, ...]:
        return tuple(_family(self._in_kin, self.lists))

    @cached_property
    def without(self) -> frozenset[str]:
        """Kinds of kin that it says it has not, or "all" others."""
        return _without(self._in_kin.lower(), self.lists)

    @cached_property
    def dwellings(self) -> frozenset[int]:
        return frozenset(self.lists.dwelling[word] for word in words(self.home) if word in self.lists.dwelling)

    @cached_property
    def counted(self) -> tuple[Counted, ...]:
        return tuple(_counted(self._knows, self.known))

    @cached_property
    def excluded(self) -> tuple[Excluded, ...]:
        return tuple(_excluded(self._knows, self.lists, self.known))

    @cached_property
    def of_knowledge(self) -> frozenset[str]:
        """Words without which a reply says nothing that is otherwise."""
        return self._excluded_words | (NUMBERS if self.counted else _NOTHING)

    @cached_property
    def _excluded_words(self) -> frozenset[str]:
        """With their plurals."""
        false = {one for fact in self.excluded for one in fact.false}
        said = {word for either in self.lists.either for word in either if stem(word) in false} if false else false
        return frozenset((*said, *(f"{word}s" for word in said)))

    @property
    def _knows(self) -> list[str]:
        return [line[:LOOKED_AT] for line in self.npc.knows[:100]]


@of_persona
def facts(npc: SimpleNamespace) -> Facts:
    return Facts(npc)


@lru_cache(maxsize=4)
def _lists(_where: str) -> Lists:
    """`_where` is the working directory, whose own lexicon goes first."""
    return _read(lexicon("facts"))


def _read(found: Mapping[str, tuple[str, ...]]) -> Lists:
    kinds: dict[str, tuple[str, str, bool]] = {}
    for line in found.get("relations", ()):
        singular, plural, role = (part.split() for part in (*line.split("|"), "", "")[:3])
        for word in (*singular, *plural):
            kinds[word] = (singular[0], " ".join(role), word in singular)
    trade = {word: n for n, line in enumerate(found.get("trades", ())) for word in line.split()}
    pairs = (line.partition(" | ") for line in found.get("trade verbs", ()))
    verbs = {verb: trade_ for verb, _, trade_ in pairs}
    either = tuple(frozenset(line.split()) for line in found.get("either", ()))
    of_knowledge = NUMBERS.union(form for words in either for word in words for form in (word, f"{word}s"))
    kin, kin_words = any_of(kinds), frozenset((*kinds, "married", "wed"))
    no = r"(?:haven't|have not|never had|don't have|do not have|have never had|haven't got|have not got) (?:got )?(?:an?|any)"
    stop = r"(?=[.,;:!?…\"”)—–]|$)"
    a = r"\bi(?:'m| am| be| work as| serve as|'ve always been| have always been) (?:\w+ )?an? (?:[\w-]+ ){0,2}?"
    i = re.IGNORECASE
    me = r"(?:i have|i've|i've got|i got|i have got|(?P<self>\w+) has|(?P<my>my))"
    many = rf"(?:only |just |got )?(?P<many>{NUMBER}|an?) (?:[\w-]+ )?(?P<kin>{kin})(?!'|-)"
    who = rf"\b(?:[Mm]y (?P<kin>(?i:{kin}))(?:,? {NAME},?)?|(?P<name>{NAME}))"
    return Lists(
        kinds=kinds,
        trade=trade,
        trade_words=frozenset(trade),
        kin_words=kin_words,
        verbs=verbs,
        dwelling={word: n for n, line in enumerate(found.get("dwellings", ())) for word in line.split()},
        either=either,
        of_knowledge=of_knowledge,
        telling=frozenset((*NAMING, *LIVING, *trade, *kin_words, *of_knowledge)),
        dead=frozenset(found.get("dead", ())),
        gone=frozenset(found.get("gone", ())),
        hearsay=frozenset(found.get("hearsay", ())),
        not_so=frozenset(found.get("not so", ())),
        has_so_many=frozenset(found.get("has so many", ())),
        has=re.compile(rf"\b{me} {many}", i),
        answers_has=re.compile(rf"(?:\b{me} |\A[\"“*]?){many}", i),
        fate=re.compile(rf"{who} (?:(?P<dead>{_DEAD})|(?P<well>{_WELL}))"),
        kin_in_field=re.compile(rf"(?<![\w'-])(ex-)?({kin})(?!')", i),
        no_kin=re.compile(rf"\bno ({kin})"),
        denied=re.compile(rf"(?:\bi(?: have|'ve|'ve got| got) no|(?:^|[.!?;] )no|\bi {no}) (?P<kin>{kin}){stop}", i),
        named=(
            re.compile(rf"\b[Mm]y (?:\w+ )?(?P<kin>(?i:{kin})),? (?P<name>{NAME})"),
            re.compile(rf"\b(?P<name>{NAME})(?:'s| is|, | was) my (?:\w+ )?(?P<kin>(?i:{kin}))(?!')"),
        ),
        is_a=re.compile(rf"{a}({any_of(trade)})(?! (?:of|to|at heart)\b|'s|-)", i),
        does=re.compile(rf"[\"“*]?(?:Well, |Me\? |Why, )?(?:i )?(?:just |only )?({any_of(verbs)})", i),
        asks={
            **{what: re.compile(any_of(found.get(f"asks {what}", ()))) for what in ("age", "name", "home", "trade")},
            "how many": re.compile(rf"\bhow many (?:\w+ )?({kin})"),
            "any": re.compile(rf"\b(?:have|hast|got|has|any) (?:you |thou |a |any |got |no ){{0,3}}({kin})"),
            "any family": re.compile(r"\b(?:family|kin|kinfolk|relatives|relations|children|kids)\b"),
        },
        asking={
            **{what: found.get(f"asks {what}", ()) for what in ("age", "name", "home", "trade")},
            "any family": ("family", "kin", "relati", "children", "kids"),
        },
    )


def asked(line: str) -> frozenset[str]:
    """What the player asks for: "age", "how many sister", "any brother" ..."""
    return _asked(line[:LOOKED_AT], working_folder()) if "?" in line else _NOTHING


@lru_cache(maxsize=512)
def _asked(line: str, where: str) -> frozenset[str]:
    lists, text = _lists(where), plain(line)
    may = [what for what, literals in lists.asking.items() if any(map(text.__contains__, literals))]
    found = {what for what in may if lists.asks[what].search(text)}
    for what in ("how many", "any") if not lists.kin_words.isdisjoint(vocabulary(text)) else ():
        found |= {f"{what} {lists.kinds[match[1]][0]}" for match in lists.asks[what].finditer(text)}
    return frozenset(found)


def _age(description: str, lists: Lists) -> int | None:
    for match in _AGED.finditer(description):
        if not match["who"] or match["who"].lower() not in lists.has_so_many:
            return number(match["of"] or match["old"] or match["aged"])
    return None


def _family(kin: str, lists: Lists) -> Iterator[Kin]:
    """What a field such as "two daughters, Ansa and Brede, and a brother in the mines" says."""
    found = list(lists.kin_in_field.finditer(kin))
    starts: list[int] = []  # of what is said before the word itself: "a late"
    for n, match in enumerate(found):
        marks = (kin.rfind(mark, 0, match.start()) for mark in (",", ";", ".", " and "))
        starts.append(max(*marks, found[n - 1].end() - 1 if n else -1) + 1)
    for n, match in enumerate(found):
        kind, role, one = lists.kinds[match[2].lower()]
        before = (*words(kin[starts[n] : match.start()].replace("-", "")), *(("ex",) if match[1] else ()))
        if "no" in before:
            continue
        end = min([at for mark in ";." if (at := kin.find(mark, match.end())) >= 0] + [len(kin)])
        after = kin[match.end() : min(end, *starts[n + 1 : n + 2], len(kin))]
        aged = _KIN_AGED.match(after) if one else None
        around = {*before, *words(after)}
        dead = not around.isdisjoint(lists.dead)
        yield Kin(
            kind=kind,
            role=role,
            many=next((VALUES[word] for word in before if word in VALUES), 1 if one else None),
            names=_names(kin[: match.start()], after),
            age=number(aged[1]) if aged else None,
            dead=dead,
            living=not dead and around.isdisjoint(lists.gone),
        )


def _names(before: str, after: str) -> tuple[str, ...]:
    """ "a son, Teo", "two daughters, Ansa and Brede", "a dog named Button", "Aldous, her husband"."""
    called, earlier = _CALLED.match(after), _NAMED_BEFORE.search(before[-80:])
    return tuple(name for name in (*(called.groups() if called else ()), earlier and earlier[1]) if name)


def _without(kin: str, lists: Lists) -> frozenset[str]:
    """What it says that there is not."""
    found = {lists.kinds[match[1]][0] for match in lists.no_kin.finditer(kin)}
    if _NONE.match(kin) or _NO_MORE.search(kin):
        found.add("all")
    return frozenset(found)


def _counted(knows: list[str], known: Meaning) -> Iterator[Counted]:
    for line in knows:
        said = words(line)
        if VALUES.keys().isdisjoint(said) or sum(word in VALUES for word in said) != 1 or "-" in line:
            continue  # "a hundred and twelve", "forty-one": which of them is it?
        all_stems = stems(line)
        at = next(at for at, word in enumerate(said) if word in VALUES)
        if at + 1 < len(said) and said[at + 1] not in known.function:
            others = _telling(line, known) - {all_stems[at], all_stems[at + 1]}
            if others:
                yield Counted(VALUES[said[at]], all_stems[at + 1], others)


def _excluded(knows: list[str], lists: Lists, known: Meaning) -> Iterator[Excluded]:
    for line in knows:
        said = frozenset(words(line))
        for either in lists.either if not lists.of_knowledge.isdisjoint(said) else ():
            if len(both := either & said) == 1:
                (one,) = both
                yield Excluded(stem(one), frozenset(map(stem, either - both)), _telling(line, known) - {stem(one)})


def _telling(line: str, known: Meaning) -> frozenset[str]:
    return frozenset(one for word, one in zip(words(line), stems(line), strict=True) if word not in known.function)
