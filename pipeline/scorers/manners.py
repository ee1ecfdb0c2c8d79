"""What a reply does with the player's own words: says them back for want of any, or takes up the swearing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import lexicon, working_folder
from pipeline.scorers.triggers import vocabulary
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import words

_EMOTE = re.compile(r"\*[^*\n]{1,300}\*|\A\([^()\n]{1,300}\)|\([^()\n]{1,300}\)\Z")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # scripts without blanks
_STATEMENT = re.compile(r"[.!…。！](?:\s|\Z)")

_FEW, _TELLING = (
    4,
    2,
)  # words of the player's, and those of them that are no small ones; fewer are an answer that takes them up
_OWN = 2  # a word of its own weighs as much as two of the player's
_ALL_BUT = 0.8  # of the player's line: then it does not matter what sort of words they are
_OF_LINE, _MANY = 0.5, 10  # so much of the player's line has to be there, or so many of its words
_SOLID = 5  # characters of such a line; fewer are a greeting
_IN_ORDER = 0.4  # of the words have to follow on each other as in the line


class _Known(NamedTuple):
    """What the lexicon knows."""

    same: Mapping[str, str]  # a word, to the one that stands for it and others
    others: Mapping[str, frozenset[str]]  # from that one back to all
    nothing: frozenset[str]
    small: frozenset[str]  # beside those, what any two texts have
    formulas: frozenset[str]
    no: frozenset[str]
    asking: frozenset[str]
    questions: frozenset[str]


class _Line(NamedTuple):
    """The player's line, to be compared with."""

    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    asks: bool
    how: frozenset[str]  # its question words
    forms: frozenset[str]  # its words and all that stand for the same
    solid: str  # the whole of it, where it is written without blanks
    known: _Known


def no_echo(turn: Turn, *, share: float = 0.75) -> Score:
    """1 unless at least this share of the reply is the player's line said back: copied, as a question, with the pronouns turned
    round, in pieces, or before a few empty words.

    Greetings and other formulae pass, and so does an answer in the words of the question.
    """
    text = turn.text
    if not text:
        return SILENT
    if not turn.line:
        return not_applicable("there is no line of the player's")
    line = _line(turn.line, working_folder())  # whose own lexicon goes first
    if line.solid and line.solid in (solid := "".join(words(text))) and len(line.solid) >= share * len(solid):
        return Score(0.0, "says the player's line back", text[:120])
    common = line.forms & vocabulary(text)
    if len(common) < _FEW or not _much(len({line.known.same.get(word, word) for word in common}), line):
        return GOOD
    said = _EMOTE.sub(" ", text)
    if _is_echo(words(said), "?" in said or "？" in said, line, turn.item.npc.speech, share):
        return Score(0.0, "says the player's line back", text[:120])
    return GOOD


def _is_echo(spoken: Sequence[str], asks: bool, line: _Line, speech: str, share: float) -> bool:
    known = line.known
    said = [known.same.get(word, word) for word in spoken]
    theirs = [word for word in said if word in line.words]
    there = set(theirs)
    all_but = len(there) >= _ALL_BUT * len(line.words) and len(there - known.formulas) >= _FEW
    if not _much(len(there), line) or (len(there - known.small) < _TELLING and not all_but):
        return False
    if line.asks and not asks and known.asking.isdisjoint(set(said) - line.words) and line.how.isdisjoint(said):
        return False  # an answer in the words of the question
    habits = set(words(speech))  # "little fish"
    own = sum(word not in line.words and word not in known.nothing and word not in habits for word in said)
    own += sum(word not in line.words and (word in known.no or word in known.questions) for word in said)
    if len(theirs) < share * (len(theirs) + _OWN * own):
        return False
    telling = [word for word in said if word not in known.nothing]
    pairs = list(pairwise(telling))
    return sum(pair in line.pairs for pair in pairs) >= _IN_ORDER * len(pairs)


def _much(there: int, line: _Line) -> bool:
    """Whether so many of its words are a good part of the line."""
    return there >= _FEW and (there >= _MANY or there >= _OF_LINE * len(line.words))


@lru_cache(maxsize=1024)
def _line(line: str, here: str) -> _Line:
    known = _known(here)
    said = [known.same.get(word, word) for word in words(line)]
    telling = [word for word in said if word not in known.nothing]
    asks = line.rstrip("\"'”’») ").endswith(("?", "？")) and not _STATEMENT.search(line)
    solid = "".join(words(line)) if _UNSPACED.search(line) else ""
    return _Line(
        words=frozenset(said),
        forms=frozenset(said).union(*[known.others[word] for word in said if word in known.others]),
        pairs=frozenset(pairwise(telling)),
        asks=asks,
        how=known.questions.intersection(said) if asks else frozenset(),
        solid=solid if len(solid) > _SOLID else "",
        known=known,
    )


@lru_cache(maxsize=16)
def _known(here: str) -> _Known:
    """`here` is the working directory, whose own lexicon goes first."""
    lists = lexicon("echo")
    same = {word: line.split()[0] for line in reversed(lists.get("one word", ())) for word in line.split()}

    def section(*names: str) -> frozenset[str]:
        return frozenset(
            same.get(word, word) for name in names for line in lists.get(name, ()) for word in line.split()
        )

    stand_for_others = frozenset(same.values())
    return _Known(
        same=same,
        others={one: frozenset(word for word, other in same.items() if other == one) for one in stand_for_others},
        nothing=section("nothing", "small") - section("no"),
        small=section("nothing", "small", "formulas", "no") | stand_for_others,
        formulas=section("formulas"),
        no=section("no"),
        asking=section("asking"),
        questions=section("questions") - stand_for_others,  # "was" is a form of "be", too
    )


_TOKEN = re.compile(r"[\w*@$#!'’]+")
_MASK = re.compile(r"[*@$#!0-9]")
_LEET = str.maketrans("@$!103457", "asiioeast")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_LONGEST = 24  # letters of a swear word; a longer one is not looked at


class _Swearing(NamedTuple):
    """What the lexicon knows. Words that are forms of each other have a number in common."""

    words: Mapping[str, frozenset[int]]
    begin: Mapping[tuple[int, str], tuple[str, ...]]  # by their length and first letter
    inside: re.Pattern[str]
    innocent: frozenset[str]
    names: frozenset[str]
    beside: Mapping[str, frozenset[str]]


def no_profanity_echo(turn: Turn) -> Score:
    """1 unless a swear word of the player's comes back in the reply, in any form (`data/lexicons/profanity.txt`).

    Not applicable if the player did not swear. Swearing of one's own passes, and so do words that only look alike (assay, shell)
    or speak of what they name (the ass in the stable).
    """
    if not turn.text:
        return SILENT
    here = working_folder()  # whose own lexicon goes first
    sworn = _of_player(turn.line, here)
    if not sworn:
        return not_applicable("the player did not swear")
    for word, spelled in _oaths(turn.text, _swearing(here)):
        if not sworn.isdisjoint(word):
            return Score(0.0, "says the player's swear word back", spelled)
    return GOOD


@lru_cache(maxsize=1024)
def _of_player(line: str, here: str) -> frozenset[int]:
    return frozenset().union(*(word for word, _ in _oaths(line, _swearing(here))))


def _oaths(text: str, known: _Swearing) -> Iterator[tuple[frozenset[int], str]]:
    """The swear words of a text, by their numbers, and as they are spelled."""
    beside: set[str] = set()
    for spelled in dict.fromkeys(token.strip("'’!#") for token in _TOKEN.findall(text)):
        word = spelled.casefold().replace("’", "'")
        found = _of_word(word, known)
        if not found or (word in known.names and spelled[0].isupper() and not spelled[-1].isupper()):
            continue
        if word in known.beside:
            beside = beside or set(words(text))
            if not known.beside[word].isdisjoint(beside):
                continue
        yield found, spelled


def _of_word(word: str, known: _Swearing) -> frozenset[int]:
    """A word may be spelled with marks for some of its letters, with figures, or be drawn out."""
    if found := known.words.get(word):
        return found
    if len(word) > _LONGEST or word in known.innocent:
        return frozenset()
    if _MASK.search(word):
        return _masked(word, known)
    if short := _DRAWN_OUT.search(word):
        once, twice = _DRAWN_OUT.sub(r"\1", word), _DRAWN_OUT.sub(r"\1\1", word)
        if found := known.words.get(once) or known.words.get(twice):
            return found
        word = once if short else word
    inside = known.inside.search(word)
    return known.words[inside[0]] if inside else frozenset()


def _masked(word: str, known: _Swearing) -> frozenset[int]:
    bare = word.strip("*")
    if found := known.words.get(bare) or known.words.get(bare.translate(_LEET)):
        return found
    if not word[0].isalpha() or not ("*" in word.rstrip("*") or word.endswith("**")):
        return frozenset()  # an emote's asterisk
    alike = (
        form
        for form in known.begin.get((len(word), word[0]), ())
        if all(mark == letter or mark == "*" for mark, letter in zip(word, form, strict=True))
    )
    return frozenset().union(*(known.words[form] for form in alike))


@lru_cache(maxsize=16)
def _swearing(here: str) -> _Swearing:
    """`here` is the working directory, whose own lexicon goes first."""
    lists = dict(lexicon("profanity"))
    inside, innocent, names = (
        " ".join(lists.pop(name, ())).split() for name in ("inside longer words", "innocent", "a name")
    )
    beside = dict(line.split(":", 1) for line in lists.pop("innocent beside", ()) if ":" in line)
    numbers: dict[str, set[int]] = {}
    for number, forms in enumerate(line.split() for lines in lists.values() for line in lines):
        for form in forms:
            numbers.setdefault(form, set()).add(number)
    for root in inside:
        numbers.setdefault(root, {len(numbers) + 1_000_000})
    begin: dict[tuple[int, str], list[str]] = {}
    for form in numbers:
        begin.setdefault((len(form), form[0]), []).append(form)
    return _Swearing(
        words={form: frozenset(those) for form, those in numbers.items()},
        begin={key: tuple(forms) for key, forms in begin.items()},
        inside=re.compile("|".join(map(re.escape, sorted(inside, key=lambda root: (-len(root), root)))) or "(?!)"),
        innocent=frozenset(innocent),
        names=frozenset(names),
        beside={word: frozenset(context.split()) for word, context in beside.items()},
    )
