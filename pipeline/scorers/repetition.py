"""What is said over again: within a reply, or in the same dialogue. Scripts without blanks count by characters."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from pipeline.records import Score, Turn
from pipeline.scorers.pieces import (
    SOLID_RUN,
    SOLID_SCALE,
    everyday_english,
    pieces_of,
    places_of,
    runs_of,
    stretches_of,
)
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import words

_SHORT = 12  # words; a refrain in so short a reply is style
_WINDOW = 40  # words among which half are new in any honest reply; over a whole page, fewer would be
_EXCITED = 8  # "no, no, no", "ha ha ha": one word so many times in a row is one word
_ECHO = 5  # words; what is said twice, and no more than this, is an echo on purpose
_SENTENCE = re.compile(r"[^.!?…。！？\n]+[.!?…。！？]*")
_CLAUSE = re.compile(r"[^,;:.!?…\n]+")


def no_repetition(turn: Turn, *, variety: float = 0.5, sentence: int = 5) -> Score:
    """The share of the reply that is new: of its runs of three words, of its words, of its sentences, whichever is least.

    Half of `variety` different words is 0.75 of that share; a sentence said again counts from so many words on. On purpose
    pass: replies of under 12 words without such a sentence, one word over and over ("no, no, no"), an echo of up to five
    words, a cry ("Burn the witch!"), lines of a song that come twice. (The runs of three words are the fraction of duplicate
    n-grams of the Gopher rules, Rae et al. 2021, arXiv 2112.11446, the other way round.)
    """
    text = turn.text
    said, solid = pieces_of(text)
    if not said:
        return SILENT
    if _plainly_new(said, solid):
        return GOOD
    again = [(share, span) for share, span in _said_again(text, said, solid, variety, sentence) if share < 1]
    if not again:
        return GOOD
    share, (start, end) = min(again)
    return Score(share, "goes in circles", text[start:end][:120])


def no_repeated_turn(turn: Turn, *, words: int = 12) -> Score:
    """The share of the reply that an earlier reply of this dialogue did not have already; 0 from so many words in a row on.

    On purpose pass: answers of under five words ("Aye."), an NPC that insists ("I told you: two coppers"), and the formulas
    that a persona has in several of its example lines.
    """
    if not turn.text:
        return SILENT
    earlier = [m.content for m in turn.request.messages if m.role == "assistant"] if turn.request else []
    if not earlier:
        return not_applicable("it has not said anything before")
    said, solid = pieces_of(turn.text)
    scale, run = (SOLID_SCALE, SOLID_RUN) if solid else (1, 3)
    if len(said) < _ANSWER * scale:
        return GOOD
    grams = list(zip(*(said[at:] for at in range(run)), strict=False))
    most: list[tuple[int, int]] = []
    own = _formulas(turn.item.npc.greeting, tuple(turn.item.npc.examples))
    for before in set(earlier):
        known = runs_of(before)
        stretches = stretches_of([gram in known and (gram not in own or before == turn.text) for gram in grams], run)
        if sum(b - a for a, b in stretches) > sum(b - a for a, b in most):
            most = stretches
    if not most:
        return GOOD
    where = places_of(turn.text)
    covered, longest = sum(b - a for a, b in most), max(most, key=lambda stretch: stretch[1] - stretch[0])
    length = longest[1] - longest[0]
    exact = covered == len(said)
    if not exact and covered < (_ANSWER + 1) * scale:
        return GOOD
    start, end = where[longest[0]][0], where[longest[1] - 1][1]
    if length < words * scale and not exact and _INSISTS.search(turn.text[:start] + "\n" + turn.text[end:]):
        return GOOD
    value = 0.0 if length >= words * scale else 1 - covered / len(said)
    return Score(value, "said before in this dialogue", turn.text[start:end][:120])


_ANSWER = 5  # words; two answers shorter than that may be the same
_INSISTS = re.compile(
    r"\b(?:i(?:'ve| have|’ve)? (?:already )?(?:told|said)|as i (?:said|told|say)|like i (?:said|told)|i repeat|i say again"
    r"|i'll say it again|i will say it again|once more|again[,:])",
    re.IGNORECASE,
)


@lru_cache(maxsize=256)
def _formulas(greeting: str, examples: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    times = Counter(gram for line in {greeting, *examples} for gram in runs_of(line))
    return frozenset(gram for gram, count in times.items() if count > 1)


def _plainly_new(said: tuple[str, ...], solid: bool) -> bool:
    """No run of three words comes twice, and most words are different: what nearly all replies are."""
    different, length = len(set(said)), len(said)
    if different == length:
        return True
    if solid or length > _WINDOW or 3 * different < 2 * length:
        return False
    if length - different < 3:  # in a run of three that comes again, three words come again
        return True
    return len(set(zip(said, said[1:], said[2:], strict=False))) >= length - 2


def _said_again(
    text: str, said: tuple[str, ...], solid: bool, variety: float, sentence: int
) -> Iterator[tuple[float, tuple[int, int]]]:
    """Shares of the reply that are new, each with a span that is not."""
    scale = SOLID_SCALE if solid else 1
    if len(said) >= _SHORT * scale:
        kept = _once(text, said, solid)
        run = SOLID_RUN if solid else 3
        grams = list(zip(*([said[at] for at in kept[start:]] for start in range(run)), strict=False))
        repeated, (start, end) = _circles(grams, run, _ECHO * scale)
        if repeated:
            where = places_of(text)
            yield 1 - repeated / len(grams), (where[kept[start]][0], where[kept[end - 1]][1])
        if not solid:
            share, word = _variety([said[at] for at in kept])
            if (new := 0.75 * share / variety) < 1:
                yield new, places_of(text)[max(at for at in kept if said[at] == word)]
    yield from _sentences(text, len(said), sentence, scale)


def _once(text: str, said: tuple[str, ...], solid: bool) -> list[int]:
    """The words that count, by number: not those of an excited run, nor a line of verse that comes a second time."""
    kept: list[int] = []
    times = 0
    for at, word in enumerate(said):
        times = times + 1 if at and word == said[at - 1] else 1
        if times == 1 or times > _EXCITED or solid:
            kept.append(at)
    lines = [line for line in map(words, text.split("\n")) if line] if text.count("\n") > 1 else []
    if len(lines) < 3 or 2 * len(set(lines)) <= len(lines):
        return kept
    seen: Counter[tuple[str, ...]] = Counter()
    dropped: set[int] = set()
    at = 0
    for clause in _CLAUSE.finditer(text):
        # Split at a mark inside a word ("3.5"), clauses have other words than the text: then no line is let off.
        heard = words(clause[0])
        if said[at : at + len(heard)] != heard:
            return kept
        seen[heard] += 1
        if seen[heard] == 2:
            dropped.update(range(at, at + len(heard)))
        at += len(heard)
    return [at for at in kept if at not in dropped]


def _circles(grams: list[tuple[str, ...]], run: int, echo: int) -> tuple[int, tuple[int, int]]:
    """How many runs of words were said before, and the longest stretch of them. A short one that comes for the second time is
    an echo."""
    seen: Counter[tuple[str, ...]] = Counter()
    times: list[int] = []
    for gram in grams:
        times.append(seen[gram])
        seen[gram] += 1
    repeated, longest = 0, (0, 0)
    for start, end in stretches_of([time > 0 for time in times], run):
        within = times[start : end - run + 1]
        if end - start > echo or max(within) > 1:
            repeated += sum(time > 0 for time in within)
            longest = max(longest, (start, end), key=lambda stretch: stretch[1] - stretch[0])
    return repeated, longest


def _variety(said: list[str]) -> tuple[float, str]:
    """The least share of different words in any 40 in a row, and the word that comes most often there.

    Where only small words come again ("no coin, no crossing; no crossing, no ferry"), the other words are counted alone.
    """
    least, most_said = 1.0, ""
    small = everyday_english().small
    for start in range(0, max(1, len(said) - _WINDOW // 2), _WINDOW // 2):
        part = said[start : start + _WINDOW]
        share = len(set(part)) / len(part)
        if share < min(least, 0.7):
            telling = [word for word in part if word not in small] or part
            share = max(share, len(set(telling)) / len(telling))
            if share < least:
                least, most_said = share, Counter(telling).most_common(1)[0][0]
    return least, most_said or said[0]


def _sentences(text: str, length: int, least: int, scale: int) -> Iterator[tuple[float, tuple[int, int]]]:
    """The share that is not a whole sentence said again: right after the first time, or, with one word more, anywhere. A cry
    is no such sentence."""
    seen: dict[tuple[str, ...], int] = {}
    repeated, span = 0, (0, 0)
    found = [s for s in _SENTENCE.finditer(text) if not s[0].isspace()]
    for number, match in enumerate(found):
        heard = pieces_of(match[0])[0]
        if len(heard) < least * scale:
            continue
        before = seen.get(heard)
        seen[heard] = number
        if before is None or (match[0].endswith(("!", "！")) and len(heard) < 2 * least * scale):
            continue
        if before == number - 1 or len(heard) > least * scale:
            repeated += len(heard)
            span = match.span()
    if repeated:
        start = span[0] + len(text[span[0] : span[1]]) - len(text[span[0] : span[1]].lstrip())
        yield max(0.0, 1 - repeated / length), (start, span[1])
