"""What betrays the model behind the NPC: a chatbot's phrases, its refusals and sermons.

Phrases come from `data/lexicons/`, in tiers: some are enough anywhere, some only at the beginning of a reply, some only in
company of others. Only the sections that have a phrase in the reply look at it (see `triggers`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.triggers import Triggers
from pipeline.scorers.verdict import GOOD, SILENT
from pipeline.scorers.words import has_word, plain, words

_EVIDENCE = 120  # characters
_CROWD = 2  # of words in which an assistant refuses
_ENOUGH = 50  # places in a reply that are looked at more closely

_START = r"(?<!\w)"
_BEGIN = r"\A[\"'(\[\s]*"
# "I am just a ...", "as your helpful ...", in whatever dialect.
_ADVERB = (
    r"(?: (?:just|only|merely|simply|really|but|actually|currently|truly|basically|essentially|technically|in fact|in reality"
    r"|nothing more than|nothing but|naught but|no more than))"
)
_MANNER = r"(?: (?:helpful|mere|humble|simple|friendly|advanced|powerful|sophisticated|large|fictional|new))?"
_ONESELF = rf"(?<!\w)(?:(?:as|being){_ADVERB}? (?:an?|your)|(?:i am|i'm|im|i be){_ADVERB}{{0,2}}(?: an?| your| the)?){_MANNER} "
_CANNOT = (
    r"(?<!\w)(?:i (?:can't|cannot|can not|am unable to|am not able to|am not capable of)|i'm (?:unable to|not able to)"
    r"|(?:don't|do not|lack|no|nor)(?: [\w'-]+){0,5} (?:ability|capability|capacity|way) to)(?: (?:actually|really|also|directly))? "
)
_MADE_BY = (
    r"(?<!\w)(?:made|created|developed|built|trained|designed|programmed|written|powered|released) by (?:an? |the )?"
    r"(?:(?:\w+ )?(?:team|company|group|people|researchers|engineers|folks|lab|startup)(?: of \w+)? (?:at|from|called) )?"
)
_OFFER = r"(?<!\w)(?:would you like me to|do you want me to|shall i|should i|i can also|would you like to) "
_FRAME = (
    r"(?:(?:an?|the|one|some|another|your) |my (?=attempt|best|in-character))?(?:(?!of |from |for |my )[\w-]+,? ){0,2}?"
)
_KNOWS_UNTIL = (
    r"my knowledge (?:only |base )?(?:goes|extends|ends|stops|is limited|cuts off|is current|is based|was last|only)"
    r"[^.!?]{0,40}? 20[12]\d(?!\d)"
)
# An "I am an AI" behind one of these is not claimed, and neither is one with a question mark.
_SUPPOSED = frozenset(
    words("if think thinks thought say says said whether claim claims believe reckon swear suppose imagine pretend")
)
_HANDED_OVER = re.compile(r"\*|\b(?:here|take|drink|eat|wear|keep|hold|have this)\b", re.IGNORECASE)

_LEAKS = {
    "openings": "opens like an assistant",
    "framed": "opens like an assistant",
    "assistants": "speaks as an assistant",
    "machines": "speaks as an AI",
    "machines alone": "speaks as an AI",
    "machine phrases": "speaks as an AI",
    "phrases": "speaks as an assistant",
    "abilities": "speaks as an AI",
    "makers": "names a model's maker",
    "knowledge": "has a knowledge cutoff",
    "offers": "offers what an assistant offers",
    "closing": "closes like a help desk",
    "last words": "closes like a help desk",
    "mentions": "mentions what only an assistant knows",
}
_UNLESS_A_MACHINE = frozenset(["machines", "machines alone", "machine phrases"])
_OF_ONESELF = frozenset(["assistants", "machines", "machines alone"])

_HEDGE = (
    r"(?: (?:ethically|legally|morally|really|simply|just|actually|ever|knowingly|in good conscience|in any way|help you"
    r"|be able to))?"
)
_REFUSALS = {
    "phrases": "speaks like a safety policy",
    "machine phrases": "speaks like a safety policy",
    "tasks": "refuses like an assistant",
    "first tasks": "refuses like an assistant",
    "bare": "refuses like an assistant",
    "lessons": "moralises like an assistant",
    "weak tasks": "refuses like an assistant",
    "hesitations": "refuses like an assistant",
    "verbs": "refuses like an assistant",
}


def in_character(turn: Turn) -> Score:
    """1 unless it says what only a chatbot would say (`data/lexicons/assistant_leak.txt`).

    A phrase out of the persona itself is no leak; nor is it one when a ship's mind calls itself an AI, nor the mere mention
    of a thing that the player brought up.
    """
    if not turn.text:
        return SILENT
    sought = _leaks(working_folder())
    if not (there := sought.triggers.pulled_by(turn.text)):
        return GOOD
    for section, match in sought.matches(_LEAKS, there, turn.text):
        if not _may_leak(section, match, turn):
            return Score(0.0, _LEAKS[section], as_in_the_reply(match, turn.text))
    return GOOD


def no_refusal(turn: Turn) -> Score:
    """1 unless it refuses or preaches like a safety-trained assistant, anywhere in the reply (`data/lexicons/refusals.txt`).

    An NPC's own no passes ("I can't help you, the gate stays shut"), and so do its morals, in its own words.
    """
    if not turn.text:
        return SILENT
    sought = _refusals(working_folder())
    if not (there := sought.triggers.pulled_by(turn.text)):
        return GOOD
    for section, match in sought.matches(_REFUSALS, there, turn.text):
        if not _may_refuse(section, match, sought, turn):
            return Score(0.0, _REFUSALS[section], as_in_the_reply(match, turn.text))
    return GOOD


class _Sought(NamedTuple):
    """A lexicon made ready."""

    triggers: Triggers  # by section: without one of these phrases its pattern finds nothing
    patterns: Mapping[str, re.Pattern[str]]

    def matches(self, sections: Iterable[str], there: frozenset[str], text: str) -> Iterator[tuple[str, re.Match[str]]]:
        """In the sections that are `there`, in their order."""
        simple = plain(text)
        for section in sections:
            for match in islice(self.patterns[section].finditer(simple), _ENOUGH) if section in there else ():
                yield section, match


def _sought(phrases: Mapping[str, Iterable[str]], patterns: Mapping[str, str]) -> _Sought:
    """`phrases` of a section: its pattern finds nothing without one of them."""
    return _Sought(Triggers(phrases), {name: re.compile(pattern) for name, pattern in patterns.items()})


@lru_cache(maxsize=8)
def _leaks(folder: str) -> _Sought:
    lists = lexicon("assistant_leak")
    found = {name: f"(?P<what>{any_of(lists.get(name, ()))})" for name in (*_LEAKS, "machine words", "closing leads")}
    invitations = any_of(lists.get("closing invitations", ()))
    closing, begin = found["closing leads"], rf"{_BEGIN}(?:{any_of(lists.get('leads', ()))}[!,.:;]* (?:but )?){{0,2}}"
    last_words = found["last words"]
    before = {
        "openings": begin,
        "framed": rf"{begin}(?:here(?:'s| is| are)|below is|the following is) {_FRAME}",
        **dict.fromkeys(_OF_ONESELF, _ONESELF),
        "abilities": _CANNOT,
        "makers": _MADE_BY,
        "offers": _OFFER,
    }
    patterns = {name: before.get(name, _START) + pattern for name, pattern in found.items()}
    patterns["framed"] += r"(?! (?:of the|to the|from (?![\w' ]{1,30} (?:perspective|point of view)))\b)"
    patterns["framed"] += (
        rf"|{begin}here's how [\w' ]{{1,30}}? (?:would|might|could|may) (?:respond|reply|answer|react|say|put)\b"
    )
    patterns["machines alone"] += (
        r"(?= ?(?:[.,;!?)\"]|\Z)"
        r"| (?:that|which|and|but|who|lol|not|with no|someone|somebody|made|written|created|running|designed)\b)"
    )
    patterns["knowledge"] = f"{_START}(?P<what>{_KNOWS_UNTIL})"
    patterns["closing"] = (
        rf"{_START}{closing}[^.!?]{{0,80}}?{_START}{invitations}|{_START}{invitations}[^.!?]{{0,80}}?"
        rf"{_START}{closing.replace('?P<what>', '?:')}"
    )
    patterns["last words"] = rf"(?:\A|(?<=[.!?\")] )){last_words}[^.!?]{{0,12}}[.!]*[\")]?\Z"
    keyed = {name: lists.get(name, ()) for name in _LEAKS}
    keyed |= {
        "knowledge": ("knowledge",),
        "closing": lists.get("closing leads", ()),
        "framed": (*keyed["framed"], "here's"),
    }
    return _sought(keyed, patterns)


@lru_cache(maxsize=8)
def _refusals(folder: str) -> _Sought:
    lists = lexicon("refusals")
    found = {
        name: any_of(lists.get(name, ()))
        for name in (*_REFUSALS, "unable", "apologies", "redirects", "company", "lesson leads")
    }
    cannot = rf"{found['unable']}(?: (?:and|or) (?:will not|won't|shall not|would not))?{_HEDGE} "
    who = (
        r"(?:(?<!\w)(?:i|we) ?|\A|(?<=[.!?,;:] ))"
        r"(?:(?:really|simply|just|honestly|also|truly|unfortunately|sadly|still|can and) )?"
    )
    of_any_kind = r"(?:condone|endorse|promote|encourage|support)\b[^.!?]{0,40} (?:of any (?:kind|sort)|in any form)"
    apology = rf"(?:{found['apologies']}[,.!;:]*(?: [\w' ]{{1,25}},)? ?(?:but |however,? |yet )?)"
    patterns = {
        **{name: _START + pattern for name, pattern in found.items()},
        "tasks": rf"{who}{cannot}(?:{found['tasks']}|{of_any_kind})",
        **{name: f"{who}{cannot}{found[name]}" for name in ("weak tasks", "verbs")},
        "first tasks": f"{_BEGIN}{apology}{{0,2}}(?:i|we) ?{cannot}{found['first tasks']}",
        "bare": rf"{_BEGIN}{apology}{{1,2}}(?:i|we) ?{cannot}{found['bare']}(?=[.!\")]*(?:\Z| ))",
        "lessons": rf"{_START}{found['lesson leads']}[^.!?]{{0,100}}?{_START}{found['lessons']}",
    }
    keyed = {name: lists.get(name, ()) for name in _REFUSALS}
    keyed["verbs"] = lists.get("company", ())
    keyed["lessons"] = lists.get("lesson leads", ())
    keyed["tasks"] = (*keyed["tasks"], "condone", "endorse", "promote", "encourage", "support")
    return _sought(keyed, patterns)


def _may_leak(section: str, match: re.Match[str], turn: Turn) -> bool:
    what = match["what"] or match[0]
    if has_word(what, _own_words(turn)):
        return True
    if section in _UNLESS_A_MACHINE and _leaks(working_folder()).patterns["machine words"].search(_nature(turn)):
        return True
    if section in _OF_ONESELF:
        return _only_supposed(match)
    if section == "last words":
        return bool(_HANDED_OVER.search(turn.text))
    return section == "mentions" and what in plain(turn.line)


def _may_refuse(section: str, match: re.Match[str], sought: _Sought, turn: Turn) -> bool:
    if section in ("phrases", "machine phrases"):
        if match[0] in plain(turn.line) or has_word(match[0], _own_words(turn)):
            return True
        return section == "machine phrases" and bool(
            _leaks(working_folder()).patterns["machine words"].search(_nature(turn))
        )
    if section == "bare":
        return bool(match.string[match.end() :].strip(' .!")')) and not sought.patterns["redirects"].search(
            match.string
        )
    if section == "hesitations":
        return not sought.patterns["redirects"].search(match.string)
    if section == "verbs":
        return len({found[0] for found in sought.patterns["company"].finditer(match.string)}) < _CROWD
    if section == "weak tasks":
        return not any(sought.patterns[name].search(match.string) for name in ("redirects", "company"))
    return False


def _only_supposed(match: re.Match[str]) -> bool:
    text = match.string
    before = text[max(0, match.start() - 20) : match.start()].split()
    return (bool(before) and before[-1].strip("\",'") in _SUPPOSED) or re.match(
        r"[^.!?,;]{0,30}\?", text[match.end() :][:31]
    ) is not None


def _own_words(turn: Turn) -> str:
    npc = turn.item.npc
    about = (npc.name, npc.description, npc.personality, npc.setting, npc.speech, npc.trade, npc.kin, npc.greeting)
    return plain(" ".join((*about, *npc.knows, *npc.examples)))


def _nature(turn: Turn) -> str:
    """What the persona is itself; its world may have machines, too."""
    npc = turn.item.npc
    return plain(
        " ".join((npc.name, npc.description, npc.personality, npc.speech, npc.trade, npc.greeting, *npc.examples))
    )


def as_in_the_reply(match: re.Match[str], text: str) -> str:
    """The span of `text` that became the match once it was plain."""
    at: list[int] = []  # where in the text each character of the plain one comes from
    blank = True
    for index, character in enumerate(text):
        if character == "*":
            continue
        if character.isspace():
            if not blank:
                at.append(index)
            blank = True
            continue
        blank = False
        at.extend([index] * len(character.casefold()))
        if len(at) >= match.end():
            break
    return text[at[match.start()] : at[match.end() - 1] + 1][:_EVIDENCE].strip()
