"""Whether a reply keeps to the language of its persona, or of the player who speaks to it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise, repeat
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import lexicon, working_folder
from pipeline.scorers.meaning import of_persona
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import spans, words

_LATIN = "Latin"
# Scripts beside the Latin one: their letters, and the languages that a script alone tells apart no further here.
_SCRIPTS = {
    "Greek": (r"\u0370-\u03ff\u1f00-\u1fff", "Greek, Ελληνικά"),
    "Cyrillic": (r"\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f", ""),
    "Armenian": (r"\u0531-\u058a", "Armenian, Հայերեն"),
    "Hebrew": (r"\u0591-\u05f4", "Hebrew, Yiddish, עברית"),
    "Arabic": (r"\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff", ""),
    "Devanagari": (r"\u0900-\u097f", "Hindi, Marathi, Nepali, Sanskrit, हिन्दी"),
    "Bengali": (r"\u0980-\u09ff", "Bengali, Assamese, বাংলা"),
    "Gurmukhi": (r"\u0a00-\u0a7f", "Punjabi, ਪੰਜਾਬੀ"),
    "Gujarati": (r"\u0a80-\u0aff", "Gujarati, ગુજરાતી"),
    "Tamil": (r"\u0b80-\u0bff", "Tamil, தமிழ்"),
    "Telugu": (r"\u0c00-\u0c7f", "Telugu, తెలుగు"),
    "Kannada": (r"\u0c80-\u0cff", "Kannada, ಕನ್ನಡ"),
    "Malayalam": (r"\u0d00-\u0d7f", "Malayalam, മലയാളം"),
    "Sinhala": (r"\u0d80-\u0dff", "Sinhala, සිංහල"),
    "Thai": (r"\u0e00-\u0e7f", "Thai, ไทย"),
    "Lao": (r"\u0e80-\u0eff", "Lao, ລາວ"),
    "Burmese": (r"\u1000-\u109f", "Burmese, မြန်မာ"),
    "Khmer": (r"\u1780-\u17ff", "Khmer, ខ្មែរ"),
    "Georgian": (r"\u10a0-\u10ff", "Georgian, ქართული"),
    "Ethiopic": (r"\u1200-\u139f", "Amharic, Tigrinya, አማርኛ"),
    "Tibetan": (r"\u0f00-\u0fff", "Tibetan, བོད"),
    "Korean": (r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af", "Korean, 한국어"),
    "Japanese": (r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f", "Japanese, 日本語"),
    "Chinese": (r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", "Chinese, Mandarin, Cantonese, 中文, 汉语, 漢語"),
}
_UNSPACED = frozenset(("Thai", "Lao", "Burmese", "Khmer", "Tibetan", "Japanese", "Chinese"))  # two letters make a word
_LETTERS = {
    _LATIN: r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    **{script: letters for script, (letters, _) in _SCRIPTS.items()},
}
_LETTER = re.compile(
    "|".join(f"([{letters}])" for letters in _LETTERS.values())
)  # one group for each script, in their order
_ASCII, _NOT_ASCII = re.compile("[A-Za-z]+"), re.compile(r"[^\x00-\x7f]")
_KANA = re.compile(f"[{_LETTERS['Japanese']}]")
_SCRIPT_NAMES = tuple(_LETTERS)

_OWN, _UNKNOWN = -1.0, -0.1  # what a word of the persona's language, and one of none, take from a stretch's evidence
_SHORT = (0.0, 0.3, 0.5)  # what small words of so many letters add: invented tongues have them as well
_BY_LETTER = 0.6  # what a word adds by a letter of theirs, as "kůň"
_LETTERED = 3  # words that are known by no more than that are enough
_ENOUGH = 2.0  # the evidence that makes a stretch; a longer small word is 1, and so is any word of another script
# Where no word of the whole reply is as expected, less will do: so much, and so much of each word. We know more of English.
_ENGLISH, _OTHER, _OFTEN = 1.0, 1.5, 0.15
_KNOWN = 3  # small words by which the language of a persona is known
_ENGLISH_ALONE = frozenset(("English",))
_PART = 0.3  # of a persona's letters: it is written in this script, too
_PLENTY = 20_000  # characters are enough to know a language by
_AS_MANY = 0.8  # of the small words of the likeliest language: it may be this one, too (Danish for Norwegian)


class _Languages(NamedTuple):
    """What the lexicon knows."""

    of_word: Mapping[str, tuple[str, ...]]  # the languages that have it
    small: Mapping[str, frozenset[str]]
    script: Mapping[str, str]
    names: Mapping[str, str]  # as people call it, to the language
    english: frozenset[str]  # its small words
    no_english: frozenset[str]  # those that some other language has
    tinge: frozenset[str]


class _Expected(NamedTuple):
    """What may be spoken, ready to be looked up."""

    languages: frozenset[str]
    own: frozenset[str]
    foreign: Mapping[str, tuple[str, ...]]  # a small word, to the other languages that have it
    telling: frozenset[str]  # those of them that are no words of one's own
    alone: frozenset[str]  # one's own that are no words of others
    letters: Mapping[str, tuple[str, ...]]  # beyond the English ones and one's own
    latin: bool
    elsewhere: re.Pattern[str]  # a letter of a script that none of these languages is written in
    all_of_it: float  # the evidence that will do where no word in the whole reply is as expected


class _Word(NamedTuple):
    """What a word speaks for, and how much."""

    languages: tuple[str, ...]
    weight: float  # for these languages
    against: float = _UNKNOWN  # for all others
    length: float = 1.0


def language(turn: Turn, *, stretch: int = 4, also: str = "") -> Score:
    """1 unless so many words in a row are in another language than the persona's own text and the player's line.

    `also` names languages that may be spoken besides ("Spanish, German"). A language is known by its small words and its script:
    names, dialects, accents, stutters, spells and invented tongues pass, and so does a foreign word or two.
    """
    text, npc = turn.text[:_PLENTY], turn.item.npc
    if not text:
        return SILENT
    here = working_folder()  # whose own lexicon goes first
    known = _known_of(npc)
    if (expected := known.get(also)) is None:
        expected = known[also] = _of_persona(npc, here, also)
    if expected.languages and not _stretch(text, expected, stretch):
        return GOOD
    expected = _with_line(here, expected.languages, turn.line)
    if not expected.languages:
        return not_applicable("the persona's language is not known")
    found = _stretch(text, expected, stretch)
    return Score(0.0, f"goes over to {found[0]}", found[1][:120]) if found else GOOD


def _stretch(text: str, expected: _Expected, least: int) -> tuple[str, str] | None:
    """The language that a stretch of the text is in, and that stretch; None if all of it is as expected."""
    said = words(text)
    strange = None if expected.latin and text.isascii() else expected.elsewhere.search(text)
    if not said or (not strange and not (foreign := expected.telling.intersection(said))):
        return None
    few = text.isascii() and not strange and len(foreign) + text.count("'") < _ENOUGH
    if few and not expected.alone.isdisjoint(said):  # where some of it is as expected, a single word makes no stretch
        return None
    evidence = _evidence(text, expected, bool(strange))
    for_each: dict[str, float] = {}
    for word in evidence:
        for name in word.languages:
            for_each[name] = for_each.get(name, 0.0) + word.weight
    for name in sorted(for_each, key=lambda name: (-for_each[name], name))[:2]:
        if start_end := _in_another(name, evidence, expected, least):
            start, end = start_end
            found = spans(text)
            return f"{name} script" if name in _LETTERS else name, text[found[start].start() : found[end - 1].end()]
    return None


def _in_another(name: str, evidence: Sequence[_Word], expected: _Expected, least: int) -> tuple[int, int] | None:
    """Where the words are in that language or script: all of them, or a stretch."""
    length = sum(word.length for word in evidence)
    theirs = [word for word in evidence if name in word.languages]
    if name in _LETTERS:
        if len(theirs) == len(evidence) and length >= min(least, 2):
            return 0, len(evidence)
        weights = [word.weight if name in word.languages else _OWN for word in evidence]
    elif all(word.weight < 1.0 for word in theirs) and sum(word.weight == _BY_LETTER for word in theirs) < _LETTERED:
        return None  # spells and invented tongues have that, too
    else:
        weights = [word.weight if name in word.languages else word.against for word in evidence]
        if _OWN not in weights:
            weight = sum(word.weight for word in theirs)
            everything = length >= least and weight >= max(expected.all_of_it, length * _OFTEN)
            return (0, len(evidence)) if everything else None
    weight, start, end = _heaviest(weights)
    while start and weights[start - 1] > _OWN:
        start -= 1
    while end < len(weights) and weights[end] > _OWN:
        end += 1
    stretched = weight >= _ENOUGH and sum(word.length for word in evidence[start:end]) >= least
    return (start, end) if stretched else None


def _evidence(text: str, expected: _Expected, strange: bool) -> list[_Word]:
    """What each word speaks for; one that was there before adds nothing."""
    evidence, seen = [], set()
    han = "Japanese" if strange and _KANA.search(text) else "Chinese"
    shown = [span[0] for span in spans(text)]
    for word, spelled, after in zip(words(text), shown, [*shown[1:], ""], strict=True):
        if strange and len(letters := expected.elsewhere.findall(spelled)) * 2 >= len(spelled):
            script = _script(letters[0])
            script = han if script in ("Chinese", "Japanese") else script
            size = len(spelled) / 2 if script in _UNSPACED else 1.0
            evidence.append(_Word((script,), size, length=size))
            continue
        part = next((part for part in _parts(word) if part in expected.own or part in expected.foreign), "")
        languages, own = expected.foreign.get(part, ()), part in expected.own
        weight = 0.0 if own or part in seen else _weight(part)
        if not part and not word.isascii() and not spelled[0].isupper() and word not in seen:
            languages = next((expected.letters[letter] for letter in word if letter in expected.letters), ())
            part, weight = word, _BY_LETTER
        if spelled[0].isupper() and after[:1].isupper() and not after.isupper():  # La Rochelle, Van der Berg
            weight /= 2
        evidence.append(_Word(languages, weight, _OWN if own else _UNKNOWN))
        seen.add(part)
    return evidence


def _weight(part: str) -> float:
    return _SHORT[len(part)] if len(part) < len(_SHORT) else 1.0


def _parts(word: str) -> Sequence[str]:
    """A word, and what is before and behind its apostrophe."""
    if "'" not in word:
        return (word,)
    head, _, tail = word.partition("'")
    return word, f"{head}'", f"'{tail}"


def _heaviest(weights: Sequence[float]) -> tuple[float, int, int]:
    """The run with the largest sum, and where it is (Kadane's algorithm)."""
    best, run, start = (0.0, 0, 0), 0.0, 0
    for at, weight in enumerate(weights):
        if run <= 0:
            run, start = 0.0, at
        run += weight
        if run > best[0]:
            best = (run, start, at + 1)
    return best


@of_persona
def _known_of(npc: SimpleNamespace) -> dict[str, _Expected]:
    """By what may be spoken besides."""
    return {}


def _of_persona(npc: SimpleNamespace, here: str, also: str) -> _Expected:
    """Of what it is described and greets in, of its example lines, of what it is said to speak."""
    known = _languages(here)
    about, voice = (npc.description, npc.personality, npc.speech), (npc.greeting, *npc.examples)
    found = {*_written_in(known, "\n".join(about)), *_written_in(known, "\n".join(voice))}
    said = words(npc.speech)
    if known.tinge.isdisjoint(said):
        found.update(known.names[word] for word in said if word in known.names)
    described = words(npc.description)
    if not known.names.keys().isdisjoint(described):
        for before, after in pairwise(described):
            found.update(
                known.names[word]
                for word, verb in ((before, after), (after, before))
                if verb.startswith("speak") and word in known.names
            )
    for name in filter(None, (name.strip().casefold() for name in also.split(","))):
        if name not in known.names and name != "latin":
            raise ConfigError(f"language.also: {name!r} is no language that data/lexicons/languages.txt has.")
        found.update([known.names[name]] if name in known.names else [])
    return _expected(here, frozenset(found))


@lru_cache(maxsize=1024)
def _with_line(here: str, languages: frozenset[str], line: str) -> _Expected:
    return _expected(here, languages | _written_in(_languages(here), line))


def _written_in(known: _Languages, text: str) -> frozenset[str]:
    """The language of most of its words, with those that it cannot be told from; more, where a text is in several scripts."""
    text = text[:_PLENTY]
    said = words(text)
    # Most letters are ASCII's, and need not be looked at one by one.
    scripts: Counter[str] = Counter() if text.isascii() else Counter(map(_script, _NOT_ASCII.findall(text)))
    if not scripts.keys() - {""}:  # and mostly English
        english = sum(map(known.english.__contains__, said))
        if english >= _KNOWN and sum(map(known.no_english.__contains__, said)) < english * _AS_MANY:
            return _ENGLISH_ALONE
    scripts[_LATIN] += sum(map(len, _ASCII.findall(text)))
    del scripts[""]
    if scripts["Japanese"] > scripts["Chinese"] / 5:  # it is written in both
        scripts["Japanese"] += scripts.pop("Chinese", 0)
    counts = Counter(chain.from_iterable(map(known.of_word.get, said, repeat(()))))
    found: set[str] = set()
    for script, letters in scripts.items():
        if letters < scripts.total() * _PART:
            continue
        possible = [name for name, of in known.script.items() if of == script]
        most = max((counts[name] for name in possible), default=0)
        if most >= _KNOWN:
            found.update(name for name in possible if counts[name] >= most * _AS_MANY)
        elif script != _LATIN:
            found.update(possible)
    return frozenset(found)


@lru_cache(maxsize=64)
def _expected(here: str, languages: frozenset[str]) -> _Expected:
    known = _languages(here)
    own = frozenset().union(*(known.small[name] for name in languages))
    scripts = {known.script[name] for name in languages} | ({"Chinese"} if "Japanese" in languages else set())
    foreign = {
        word: others
        for word, names in known.of_word.items()
        if (others := tuple(name for name in names if name not in languages and known.script[name] in scripts))
    }
    written = {name: {letter for letter in "".join(known.small[name]) if not letter.isascii()} for name in known.small}
    mine = {letter for name in languages for letter in written[name]}
    letters = {
        letter: tuple(name for name in written if letter in written[name] and known.script[name] in scripts)
        for letter in set().union(*written.values()) - mine
    }
    elsewhere = "".join(letters for script, letters in _LETTERS.items() if script not in scripts)
    return _Expected(
        languages=languages,
        own=own,
        foreign=foreign,
        telling=frozenset(foreign) - own,
        alone=own - frozenset(foreign),
        letters=letters,
        latin=_LATIN in scripts,
        elsewhere=re.compile(f"[{elsewhere}]"),
        all_of_it=_ENGLISH if "English" in languages else _OTHER,
    )


@lru_cache(maxsize=16)
def _languages(here: str) -> _Languages:
    """`here` is the working directory, whose own lexicon goes first."""
    small: dict[str, frozenset[str]] = {}
    script: dict[str, str] = {}
    names: dict[str, str] = {}
    sections = dict(lexicon("languages"))
    tinge = frozenset(" ".join(sections.pop("a tinge", ())).split())
    by_script = {title: key for key, (_, title) in _SCRIPTS.items() if title}
    for title, lines in [*sections.items(), *((title, ()) for title in by_script)]:
        called = [name.strip() for name in title.split(",")]
        small[called[0]] = frozenset(" ".join(lines).split())
        script[called[0]] = by_script[title] if title in by_script else _script("".join(lines)[:1])
        names.update((name.casefold(), called[0]) for name in called)
    of_word: dict[str, list[str]] = {}
    for name, those in small.items():
        for word in those:
            of_word.setdefault(word, []).append(name)
    english = small.get("English", frozenset())  # an author's own list may lack it
    no_english = frozenset(word for word, of in of_word.items() if of != ["English"])
    return _Languages(
        {word: tuple(of) for word, of in of_word.items()}, small, script, names, english, no_english, tinge
    )


def _script(letter: str) -> str:
    found = _LETTER.match(letter)
    return _SCRIPT_NAMES[found.lastindex - 1] if found and found.lastindex else ""
