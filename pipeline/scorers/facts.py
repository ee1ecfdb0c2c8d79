"""Whether a persona says of itself what contradicts its own fields."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.meaning import own_words, stem, stems
from pipeline.scorers.settled import (
    LIVING,
    LOOKED_AT,
    NAME,
    NAMING,
    NUMBER,
    NUMBERS,
    VALUES,
    Facts,
    Kin,
    asked,
    facts,
    number,
)
from pipeline.scorers.triggers import vocabulary
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import words

_EVIDENCE = 120  # characters
_SHARED = 2  # telling words with what the persona knows
_ROUND = 3  # years: who is thirty-eight may say "forty"
_LOOSE = 6  # years: "nearly forty"
_STOP = r"(?=[.,;:!?…\"”)—–]|$)"
_SENTENCE = re.compile(r"[^.!?…\n]+")
_ASKING = re.compile(r"[^.,;!?\n]{0,80}\?")
_ABOUT = frozenset(("nearly", "almost", "about", "around", "past", "over", "near", "under", "pushing", "some", "maybe"))
_MERELY = frozenset(("only", "just", "but", "still", "now", "aye", "well", "me", "turned"))
_NOWHERE = frozenset(("when", "if", "sometimes", "tonight", "hope", "fear", "peace", "your"))

_SO_OLD = (
    rf"(?P<about>(?:\w+ ){{0,2}}?)(?P<age>{NUMBER})(?:(?: years| winters| summers)(?: old| of age)?)?"
    r"(?P<then>,? (?:next|this|come|and a half)\b[^.,;!?]{0,20})?"
)
_I_AM_SO_OLD = re.compile(rf"\bi(?:'m| am|'ve turned| be) {_SO_OLD}(?:{_STOP}|(?= and\b))", re.IGNORECASE)
_ANSWERS_AGE = re.compile(rf"\A[\"“*]?{_SO_OLD}(?:{_STOP}|(?= and\b))", re.IGNORECASE)
_IS_SO_OLD = re.compile(rf"\b(?P<name>{NAME}?)(?:'s| is) (?:only |just |now )?(?P<age>{NUMBER}){_STOP}")
_MY_NAME = re.compile(rf"\b(?:[Mm]y (?:true |real |full )?name(?: is|'s)|[Tt]he name(?: is|'s)) ({NAME})")
_CALL_ME = re.compile(rf"\b(?:[Cc]all me|calls me|am called|'m called|go by) ({NAME} {NAME})")
_ANSWERS_NAME = re.compile(
    rf"\A[\"“*]?(?:(?:Hello|Hi|Greetings|Well met|Ah|Oh)[,!.]? )?(?:I'm|I am|It's) ({NAME})(?=[,.!]|$)"
)
_PLACE = r"((?i:in|at|on|above|over|under|by|behind|near|inside|beneath|aboard|off|up|down) [^.,;:!?…\n—]{2,80})"
_I_LIVE = re.compile(rf"\b[Ii] (?P<how>live|dwell|reside|lodge|sleep|make my home) (?:alone |here |just )?{_PLACE}")
_MY_HOME = re.compile(rf"\b[Mm]y (?P<how>home) is {_PLACE}")
_ANSWERS_HOME = (
    re.compile(rf"\A[\"“*]?(?P<how>){_PLACE}"),
    re.compile(rf"\A[\"“*]?(?P<how>)((?:[Tt]he )?{NAME}(?: {NAME})+)(?=[.,!])"),
)
_ANSWERS_HOW_MANY = re.compile(
    rf"[\"“*]?(?:I have |I've |I've got |Got |Only |Just |Aye, )?({NUMBER})\b(?=[.,!;])", re.IGNORECASE
)
_ONLY_CHILD = re.compile(r"\b(?:i was|i'm|i am|was) (?:an|my \w+'s|the) only child\b", re.IGNORECASE)
_NEVER_MARRIED = re.compile(
    r"(?:\bi(?:'ve| have| was|)|^|[.!?] )\s?never (?:been |got |)(?:married|wed)(?=[.,!;])", re.IGNORECASE
)
_NONE = re.compile(r"[\"“*]?(?:none|no|never|nay|nope|not one|not a one)(?=[.,!;])", re.IGNORECASE)
_BUT = re.compile(r"\b(?:but|only|except|just one|save)\b")
_ALL_ALIVE = re.compile(r"\b(?:all|both)(?: of them| of 'em)? (?:still )?alive\b")
_AND_ANOTHER = re.compile(r"[^.!?\n]{0,60}\b(?:one|another|other|others)\b")


def true_to_facts(turn: Turn) -> Score:
    """1 unless it says of itself what cannot be true: another age, name, trade or home, more or other kin, the dead alive, or
    another number or place in what the persona knows.

    The past, wishes, hearsay, metaphors and what others are pass, and so does whatever a field does not settle.
    """
    if not turn.text:
        return SILENT
    settled = facts(turn.item.npc)
    if not settled.any:
        return not_applicable("the persona names no age, trade, kin or home")
    said, wanted = vocabulary(turn.text), asked(turn.line)
    there = (settled.lists.telling & said) | (settled.kin_names & said)
    if not there and not wanted:
        return GOOD
    of_itself = not _FIRST.isdisjoint(said)
    whole = None
    for what, rule in _RULES.items():
        tells = (of_itself or not rule.of_itself) and not rule.needed(settled).isdisjoint(there)
        if tells or (wanted and _is_asked(what, wanted)):
            whole = whole or _Said(turn.text[:LOOKED_AT].replace("’", "'"), turn.line, wanted, said)
            if (found := rule.contradicted(whole, settled)) is not None:
                return Score(0.0, rule.reason, turn.text[found[0] : found[1]][:_EVIDENCE])
    return GOOD


class _Said(NamedTuple):
    text: str  # with straight apostrophes, every character where it was
    line: str
    asked: frozenset[str]
    words: frozenset[str]


Found = tuple[int, int] | None  # from where to where in the text


def _is_asked(what: str, wanted: frozenset[str]) -> bool:
    return what in wanted or (what == "kin" and any(one.startswith(("any", "how many")) for one in wanted))


def _meant(said: _Said, settled: Facts, match: re.Match[str]) -> bool:
    """Whether the claim is made, of oneself and now: not "if I were a baker", nor "he says I am"."""
    start = max(said.text.rfind(mark, 0, match.start()) for mark in ".!?;\n") + 1
    before = words(said.text[max(start, match.start() - 60) : match.start()])[-5:]
    return settled.lists.hearsay.isdisjoint(before) and not _ASKING.match(said.text, match.end(), match.end() + 100)


def _wrong_age(said: _Said, settled: Facts) -> Found:
    if not settled.age:
        return None
    for claim in (_I_AM_SO_OLD, _ANSWERS_AGE) if "age" in said.asked else (_I_AM_SO_OLD,):
        for match in claim.finditer(said.text):
            before, claimed = words(match["about"]), number(match["age"])
            if any(word not in _ABOUT and word not in _MERELY for word in before):
                continue
            slack = 1 if match["then"] else _ROUND if claimed >= 30 and claimed % 10 == 0 else 0
            slack = slack if _ABOUT.isdisjoint(before) else _LOOSE
            if abs(claimed - settled.age) > slack and _meant(said, settled, match):
                return match.span()
    return None


def _wrong_name(said: _Said, settled: Facts) -> Found:
    for claim in (_MY_NAME, _CALL_ME, _ANSWERS_NAME) if "name" in said.asked else (_MY_NAME, _CALL_ME):
        for match in claim.finditer(said.text):
            claimed, own = words(match[1]), _own(settled)
            if not all(word.removesuffix("'s") not in own and _is_a_name(word, settled) for word in claimed):
                continue
            short = any(word[:3] == name[:3] for word in claimed for name in settled.name)  # "Ben" of "Benedict"
            if not short and _meant(said, settled, match):
                return match.span()
    return None


def _is_a_name(word: str, settled: Facts) -> bool:
    known = settled.known
    return word not in known.function and stem(word) not in known.common and word not in settled.lists.kinds


def _wrong_trade(said: _Said, settled: Facts) -> Found:
    if not settled.npc.trade:
        return None
    for match in settled.lists.is_a.finditer(said.text):
        denied = {"no", "not", "like"} & {*words(match[0])}
        if not denied and not _could_be(match[1].lower(), settled) and _meant(said, settled, match):
            return match.span()
    if "trade" in said.asked and (does := settled.lists.does.match(said.text)):
        verb = does[1].lower()
        if words(verb)[-1] not in _own(settled) and not _could_be(settled.lists.verbs[verb], settled):
            return does.span()
    return None


def _could_be(trade: str, settled: Facts) -> bool:
    """Whether the persona's own words hold this trade, one like it, or a word of the same root."""
    of_trade = settled.lists.trade
    own = _own(settled)
    return any(word[:4] == trade[:4] or (word in of_trade and of_trade[word] == of_trade.get(trade)) for word in own)


def _own(settled: Facts) -> frozenset[str]:
    return own_words(settled.npc).union(words(settled.npc.hides[:LOOKED_AT]))


def _wrong_home(said: _Said, settled: Facts) -> Found:
    if not settled.home:
        return None
    for claim in (_I_LIVE, _MY_HOME, *_ANSWERS_HOME) if "home" in said.asked else (_I_LIVE, _MY_HOME):
        for match in claim.finditer(said.text):
            if _elsewhere(match[2], settled, by_name=match["how"] == "sleep") and _meant(said, settled, match):
                return match.span()
    return None


def _elsewhere(place: str, settled: Facts, *, by_name: bool) -> bool:
    """Whether no home of the persona's could be called that. `by_name`: one may sleep in any barn, but not in any street."""
    if not _NOWHERE.isdisjoint(words(place)):
        return False
    first, _, rest = place.partition(" ")
    names = re.findall(NAME, rest if first.lower() in settled.known.function else place)
    at_home = re.findall(NAME, settled.home)
    if names:
        strange = [name for name in names if words(name)[0] not in _own(settled)]
        if len(strange) == len(names):
            return bool(at_home)
        pairs = pairwise(names)  # "Depot Four" is not "Depot Nine"
        return any(before in at_home and name in strange and name.lower() in VALUES for before, name in pairs)
    claimed = {settled.lists.dwelling[word] for word in words(place) if word in settled.lists.dwelling}
    if by_name or not settled.dwellings or not claimed or not claimed.isdisjoint(settled.dwellings):
        return False
    own = {stem(word) for word in _own(settled) if word not in settled.known.function}
    return own.isdisjoint(stems(place))


def _wrong_kin(said: _Said, settled: Facts) -> Found:
    if settled.kin or settled.without:
        if (aged := _kin_age(said, settled)) is not None:
            return aged
        named, answers = not settled.lists.kin_words.isdisjoint(said.words), _is_asked("kin", said.asked)
        for rule, needed in _KIN_RULES.items():
            tells = (named or rule is _fate) and not needed.isdisjoint(said.words)
            if (tells or answers) and (found := rule(said, settled)) is not None:
                return found
    return None


def _of_kind(settled: Facts, kind: str) -> list[Kin]:
    return [one for one in settled.kin if one.kind == kind]


def _so_many(said: _Said, settled: Facts) -> Found:
    """ "I have three sons", where there are two, or none."""
    answers = any(what.startswith("any") for what in said.asked)
    for match in (settled.lists.answers_has if answers else settled.lists.has).finditer(said.text):
        if match["self"] and match["self"].lower() not in settled.name:
            continue  # of somebody else
        kind, role, _ = settled.lists.kinds[match["kin"].lower()]
        article = match["many"].lower() in ("a", "an")
        claimed = 1 if article else number(match["many"])
        mine = _of_kind(settled, kind)
        count = mine[0].many if len(mine) == 1 and not article else None
        other = count is not None and claimed != count
        if count is not None and claimed < count:  # "my two eldest sons", "one son at sea and one at home"
            other = not match["my"] and not _AND_ANOTHER.match(said.text, match.end())
        none = not mine and role != "animal" and (kind in settled.without or _closed(settled, kind, role))
        if (other or none) and _meant(said, settled, match):
            return match.span()
    for one in settled.kin:
        if f"how many {one.kind}" in said.asked and one.many and len(_of_kind(settled, one.kind)) == 1:
            first = _ANSWERS_HOW_MANY.match(said.text)
            if first and number(first[1]) != one.many:
                return first.span()
    return None


def _closed(settled: Facts, kind: str, role: str) -> bool:
    """Whether the field leaves no room for such kin."""
    if "all" in settled.without:
        return role not in ("parent", "elder", "other")  # everybody had a mother
    if role == "child" and "child" in settled.without:
        return True
    return kind in ("son", "daughter") and any(one.role == "child" and one.kind != "child" for one in settled.kin)


def _denied(said: _Said, settled: Facts) -> Found:
    """ "I have no brother", where there is one."""
    for match in settled.lists.denied.finditer(said.text):
        mine = _of_kind(settled, settled.lists.kinds[match["kin"].lower()][0])
        if any(one.living for one in mine) and _meant(said, settled, match):
            return match.span()
    roles = {one.role for one in settled.kin}
    for role, claim in (("sibling", _ONLY_CHILD), ("spouse", _NEVER_MARRIED)):
        if role in roles and (found := claim.search(said.text)) and _meant(said, settled, found):
            return found.span()
    none = _NONE.match(said.text)
    if none and not _BUT.search(said.text, 0, 200):
        for one in settled.kin:
            if one.living and f"any {one.kind}" in said.asked and not any(name in said.text for name in one.names):
                return none.span()
    return None


def _other_names(said: _Said, settled: Facts) -> Found:
    """ "Ray's my brother", where he is the ex-husband; "my son Jack", where he is called Teo."""
    by_name = {name: one for one in settled.kin for name in one.names}
    for claim in settled.lists.named:
        for match in claim.finditer(said.text):
            kind, role, single = settled.lists.kinds[match["kin"].lower()]
            name = match["name"].removesuffix("'s")
            if (one := by_name.get(name)) is not None:
                wrong = one.kind != kind and not _alike(one, kind, role)
            else:
                mine = _of_kind(settled, kind)
                alone = single and len(mine) == 1 and mine[0].many == 1 and bool(mine[0].names)
                new = name.lower() not in _own(settled) and name not in said.line
                wrong = alone and new and _is_a_name(name.lower(), settled)
            if wrong and _meant(said, settled, match):
                return match.span()
    return None


def _alike(one: Kin, kind: str, role: str) -> bool:
    """A twin is a sister, and a daughter a child."""
    return one.role == role and not {"twin", "child", "grandchild"}.isdisjoint((one.kind, kind))


def _fate(said: _Said, settled: Facts) -> Found:
    """The dead alive, the living dead."""
    for match in settled.lists.fate.finditer(said.text):
        if match["kin"]:
            mine = _of_kind(settled, settled.lists.kinds[match["kin"].lower()][0])
        else:
            mine = [one for one in settled.kin if match["name"] in one.names]
        wrong = len(mine) == 1 and (mine[0].living if match["dead"] else mine[0].dead)
        if wrong and _meant(said, settled, match):
            return match.span()
    asked_for = any(one.dead and any(what.endswith(f" {one.kind}") for what in said.asked) for one in settled.kin)
    if asked_for and (found := _ALL_ALIVE.search(said.text)):
        return found.span()
    return None


def _kin_age(said: _Said, settled: Facts) -> Found:
    ages = {name: one.age for one in settled.kin for name in one.names if one.age}
    for match in _IS_SO_OLD.finditer(said.text) if ages else ():
        if (age := ages.get(match["name"])) and abs(number(match["age"]) - age) > 1:
            return match.span()
    return None


def _wrong_knowledge(said: _Said, settled: Facts) -> Found:
    """ "Twelve people sleep in the cold berths", where nine do; "Up the west channel", where it is the east one."""
    if settled.of_knowledge.isdisjoint(said.words):
        return None
    line, whole = frozenset(stems(said.line[:LOOKED_AT])), frozenset(stems(said.text))
    if not any(fact.what in whole for fact in settled.counted) and all(
        fact.false.isdisjoint(whole) or len(fact.others & (whole | line)) < _SHARED for fact in settled.excluded
    ):
        return None
    for sentence in _SENTENCE.finditer(said.text):
        spoken, all_stems = words(sentence[0]), frozenset(stems(sentence[0]))
        if not settled.lists.not_so.isdisjoint(spoken) or said.text[sentence.end() : sentence.end() + 1] == "?":
            continue
        for fact in settled.counted:
            shared = fact.what in all_stems and len(fact.others & all_stems) >= min(_SHARED, len(fact.others))
            if shared and _other_number(spoken, fact.number, fact.what):
                return sentence.span()
        answers = "?" in said.line and not sentence.start()
        for other in settled.excluded:
            if other.said in all_stems or other.false.isdisjoint(all_stems):
                continue
            common = len(other.others & (all_stems | line))
            if common >= _SHARED and common * 2 >= len(other.others) and (answers or other.others & all_stems):
                return sentence.span()
    return None


def _other_number(spoken: tuple[str, ...], right: int, what: str) -> bool:
    named = {VALUES[word]: stem(after) == what for word, after in pairwise(spoken) if word in VALUES}
    return right not in named and any(named.values())


# And without which words they find nothing; nor, but for names of the dead and the living, without a word for kin.
_KIN_RULES: dict[Callable[[_Said, Facts], Found], frozenset[str]] = {
    _so_many: frozenset(("have", "i've", "got", "my", "has")),
    _denied: frozenset(("no", "not", "haven't", "don't", "never", "only")),
    _other_names: frozenset(("my",)),
    _fate: frozenset(("is", "are", "died", "drowned", "passed", "was", "were")),
}
_FIRST = frozenset(("i", "i'm", "i've", "my"))


class _Rule(NamedTuple):
    reason: str
    contradicted: Callable[[_Said, Facts], Found]
    needed: Callable[[Facts], frozenset[str]]  # words without any of which a reply says nothing of it
    of_itself: bool  # nor without "I" or "my"


_RULES = {
    "age": _Rule("is another age", _wrong_age, lambda settled: NUMBERS, True),
    "name": _Rule("has another name", _wrong_name, lambda settled: NAMING, False),
    "trade": _Rule("has another trade", _wrong_trade, lambda settled: settled.lists.trade_words, True),
    "kin": _Rule("has other kin", _wrong_kin, lambda settled: settled.of_kin, False),
    "home": _Rule("lives elsewhere", _wrong_home, lambda settled: LIVING, True),
    "knows": _Rule(
        "tells otherwise what it knows", _wrong_knowledge, lambda settled: settled.lists.of_knowledge, False
    ),
}
