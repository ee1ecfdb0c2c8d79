"""Whether a reply leaves the player's part to the player."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import Lazily, any_of, lazily, lexicon, working_folder
from pipeline.scorers.triggers import vocabulary
from pipeline.scorers.verdict import GOOD, SILENT
from pipeline.scorers.words import words

_EVIDENCE = 120  # characters
_LONGEST_NAME = 200
_ENOUGH = 1000  # times that a reply says "you"

_YOU = re.compile(r"\b([Yy]ou|[Tt]hou|[Yy]e) (?:(?:then|now|just|(?!reply|rely|fly|apply|comply)\w+ly) )?([a-z']+)")
_ADDRESSED = frozenset(["you", "your", "thou", "thy"])
_QUOTED = re.compile(
    r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|(?<!\w)['‘](?:[^'’\n]|(?<=\w)['’](?=\w)){1,300}[,.!?…]['’](?!\w)"
)
# What may stand between the end of a sentence and "you".
_SENTENCE_BEGINS = re.compile(
    r"(?:\A|[.!?…\n*_>\"”»’()\[\]]|—|--)\s{0,3}"
    r"(?:as you [^,.!?\n]{3,60}, |(?:with|without|after) [^,.!?\n]{3,40}, |(?:and|then|so|now|instead|[a-z]{3,12}ly),? (?:then )?)?\Z",
    re.IGNORECASE,
)
_STAGE = re.compile(r"(?:[*_(\[]|(?:\A|\n)\s{0,3}>)\s{0,2}\Z")  # opens a stage direction
_ASKED_OR_SUPPOSED = re.compile(
    r"\b(?:if|when|whenever|whatever|what|as|do|did|does|would|could|might|should|shall|will|can|may|must|to|that|how|why|until"
    r"|unless) (?:\w+ly )?\Z",
    re.IGNORECASE,
)
_CLOSING_QUOTE = re.compile(r"[,.!?…—-][\"”»’']\s?\Z")
# A bargain, a warning, a general truth, a remark: You raise that hand and I'll take it. You smile, but you lie.
_NO_STORY = re.compile(
    r"\b(?:if|when|whenever|until|unless|every|always|never|or|but|because|though|enough|too|like|than|usually|first|again)\b"
    r"|,? (?:and|then) (?:i'll|you'll|we'll|that|that's)\b"
    r"|, (?:i|i'll|i'm|you|you'll|you're|we|he|she|they|it|it's|that|that's|there|don't|do|nobody|no one)\b"
    r"|\bin my (?:house|hall|shop|inn|bar|tavern|office|town|court|church|kitchen|ship|gate|yard|presence|doorway)\b"
    r"|\b(?:on|at|to) me\b|\b(?:here|there)\b",
    re.IGNORECASE,
)
_SOMEBODY_ELSE = re.compile(r",? (?:and|then) (?:I|we|they|he|she|it)\b")
_BARGAIN = re.compile(
    r"\b(?:if|when|until|unless|always|never|or|but|too|than)\b|, (?:i|you|don't|do)\b|, that's|, that is",
    re.IGNORECASE,
)
_AS_YOU = re.compile(r"\bas (?:you|i|he|she|we|they|the|your|my)\b", re.IGNORECASE)
_WHILE_DOING = re.compile(
    r", (?:still |slowly |now )?(?!nothing|something|anything|everything|morning|evening|darling|king|sterling)[a-z]{2,12}ing\b"
    r"|, (?:the|your|a) \w+ (?:\w+ )?(?!nothing|something|morning|evening)[a-z]{2,12}ing\b"
    r"|, (?:unable|curious|uncertain|unsure|eager|lost in|grateful|relieved|wary|nervous|careful not)\b",
    re.IGNORECASE,
)
_AT_YOUR_BODY = re.compile(
    r"\b(?:your|thy) (?:fingers|skin|face|heart|cheeks?|hands?|palms?|lips|eyes|back|spine|bones|lungs|throat)\b",
    re.IGNORECASE,
)
_DOWN_YOUR_CHEEK = re.compile(
    r"\b(?:(?:a|the) (?:single |small |faint |cold |slow |sudden )?"
    r"(?:tear|chill|shiver|smile|grin|blush|shudder|flush|warmth|thrill|sweat) (?:\w+ )?(?:runs?|rolls?|creeps?|spreads?|slides?"
    r"|trickles?|crosses|passes|washes|crawls?|tugs?|falls|courses|shoots?|breaks)"
    r"|tears (?:well|stream|fill|roll|run|spring|prick|burn|blur))"
    r" (?:\w+ )?(?:up |out )?(?:down|up|across|over|through|on|at|from|in|to)? ?(?:the corners? of )?"
    r"(?:you|your|thy|thee)\b(?! ?\?)",
    re.IGNORECASE,
)
_TRICKLES = frozenset(words("tear tears chill shiver smile grin blush shudder flush warmth thrill sweat"))
_NOTICES = frozenset(["notice", "see", "hear", "feel", "find", "realise", "realize", "spot", "catch", "sense"])
_AS_YOU_ENTER = re.compile(
    r"(?:\A|[.!?…\n*_(\"”] ?)As you (?:step|enter|approach|lean|walk in|sit|turn|reach|draw closer|move closer|take|open|look"
    r"|cross)\b[^,.!?\n]{0,60}, \Z"
)
_SENSE_VERBS = frozenset(["feel", "sense"])
# Directions and recipes are told in the same words; so is what the player asks to be taught.
_ASKS_HOW = re.compile(
    r"\b(?:how|which way|where|recipe|teach|directions?|explain|what (?:do|should|must|shall) (?:i|we)|show me|rules?)\b",
    re.IGNORECASE,
)
_THEN_DOES = re.compile(r"(?:,? and(?: then)?|, then) [a-z]+ (?:your|the) ", re.IGNORECASE)
_ADVERBIAL = re.compile(
    r"\b(?:With(?:out)? (?:a|an|your|one|another) [\w ]{2,30}|After a (?:moment|pause|while)[\w ]{0,20}), \Z"
)
_TO_HEAR = re.compile(r"\b(?:to (?:hear|see|listen|look|get) (?:better|more|closer|me|him|her|a )|before [a-z]+ing )")
_THEN_SPEECH = re.compile(r"\.? ?[\"“]")
_THIS = re.compile(r"\b(?:this|that|these|those|one)\b")
_OLD_ENDING = re.compile(r"(?<=[a-z]{3})est\b")
_SENTENCE_END = re.compile(r"[.!?…\n*\"“”]")
_SENSED = re.compile(r"\b(?:if|when|I (?:can |could )?(?:hear|see|feel|smell|sense|know|saw|felt))\b")
_OPENING_QUOTE = re.compile(r"[\w' ]{2,20}?\b[^.!?\n\"“]{0,30}(?:[,:]\s?|\s)[\"“]")
_MINE_OR_YOURS = re.compile(r"\b(?:my|me|your|yourself)\b")


def no_player_speech(turn: Turn) -> Score:
    """1 unless it plays the player, too: says the player's lines, or narrates what the player does and feels.

    Orders, questions, conditions, directions, reproaches, the past, and what the player really said pass.
    """
    text = turn.text
    if not text:
        return SILENT
    said = words(text)
    folder = working_folder()
    player = _player(turn.item.player, turn.item.npc.name, folder)
    if (":" in text or "：" in text or "[" in text) and (match := _label(player, text)):
        return Score(0.0, "speaks for the player", match[0].strip()[:_EVIDENCE])
    if player.key in said and (span := _about(player, text)):
        return Score(0.0, "narrates the player", span[:_EVIDENCE])
    if not _ADDRESSED.isdisjoint(said):
        for reason, span in _told(turn, _acts(folder)):
            return Score(0.0, reason, span[:_EVIDENCE].strip())
    return GOOD


class _Player(NamedTuple):
    key: str  # a word that is there whenever the name is
    begins: str  # what the name begins with, in any case
    label: Lazily  # a line with the name in front
    script: Lazily  # both parts in one line: Me: ... You: ...
    staged: Lazily  # *Kaela nods*
    plainly: Lazily  # Kaela nods.


class _Acts(NamedTuple):
    """`data/lexicons/player_acts.txt`, made ready."""

    first_words: frozenset[str]  # of every act
    deeds: re.Pattern[str]
    orders: re.Pattern[str]
    moves: re.Pattern[str]
    narrated: re.Pattern[str]
    then_a_deed: re.Pattern[str]
    then_an_act: re.Pattern[str]
    manner: re.Pattern[str]
    feelings: re.Pattern[str]
    speech: re.Pattern[str]
    inner_words: frozenset[str]
    inner: re.Pattern[str]
    generic: frozenset[str]
    of_others: str  # a pattern of the acts as they look behind a name: nods


@lru_cache(maxsize=8)
def _acts(folder: str) -> _Acts:
    lists = lexicon("player_acts")
    deeds, orders, moves, speech, inner = (
        lists.get(name, ()) for name in ("deeds", "orders", "moves", "speech", "inner")
    )
    every = (*deeds, *orders, *moves, *speech, *lists.get("narrated", ()))
    then = r"(?:,? and(?: then)?|, then|,) (?:\w+ly )?"
    return _Acts(
        first_words=frozenset(act.split()[0] for act in every) | _SENSE_VERBS | _NOTICES,
        deeds=re.compile(any_of(deeds), re.IGNORECASE),
        orders=re.compile(any_of(orders), re.IGNORECASE),
        moves=re.compile(any_of(moves), re.IGNORECASE),
        narrated=re.compile(any_of(lists.get("narrated", ())), re.IGNORECASE),
        then_a_deed=re.compile(then + any_of((*deeds, *speech)), re.IGNORECASE),
        then_an_act=re.compile(then + any_of(every), re.IGNORECASE),
        manner=re.compile(r"(?<!\w)" + any_of(lists.get("manner", ())), re.IGNORECASE),
        feelings=re.compile(any_of(lists.get("feelings", ())), re.IGNORECASE),
        speech=re.compile(r"(?<!\w)" + any_of((*speech, "nod")), re.IGNORECASE),
        inner_words=frozenset(phrase.split()[0] for phrase in inner),
        inner=re.compile(rf"\b(?:your|thy) {any_of(inner)}", re.IGNORECASE),
        generic=frozenset(lists.get("generic players", ())),
        of_others=any_of(_third_person(act) for act in (*deeds, *orders, *moves) if not _MINE_OR_YOURS.search(act)),
    )


@lru_cache(maxsize=256)
def _player(name: str, npc: str, folder: str) -> _Player:
    generic = _acts(folder).generic
    name, npc = name[:_LONGEST_NAME], npc[:_LONGEST_NAME]
    parts = name.split()
    first = parts[0] if parts else name
    names = {name} if first.casefold() in generic or len(first) < 3 else {name, first}
    either = any_of(names)
    cue = r"(?:^|[.!?…\"”*]\s)[*_]{0,2}"
    you, me = rf"{cue}(?:you|{either})[*_]{{0,2}}: ", rf"{cue}(?:me|{any_of({npc, *npc.split()[:1]})})[*_]{{0,2}}: "
    verb = r"(?!is |was |has |does )[a-z]+(?:s|ed)\b"
    # "Stranger walks in, asks for water, leaves" is about any stranger, and the NPC may have the player's name.
    nobody_else = not ({part.casefold() for part in parts} & ({part.casefold() for part in npc.split()} | generic))
    sentence = rf"(?:\A|(?<=[.!?…\n] )|(?<=\n)){either} (?:\w+ly )?{_acts(folder).of_others}[^.!?\n]{{0,100}}"
    return _Player(
        key=(words(name) or ("",))[0],
        begins=first.casefold(),
        label=lazily(_labelled(either, either), re.IGNORECASE | re.MULTILINE),
        script=lazily(rf"{me}.{{1,300}}?{you}|{you}.{{1,300}}?{me}", re.IGNORECASE | re.MULTILINE | re.DOTALL),
        staged=lazily(
            rf"(?:[*_(\[]|(?:\A|(?<=\n))[^\S\n]{{0,3}}>)[^\S\n]{{0,2}}(?:the )?{either} {verb}[^*\n]{{0,100}}",
            re.IGNORECASE,
        ),
        plainly=lazily(sentence if nobody_else else "(?!)"),
    )


def _labelled(who: str, bracketed: str) -> str:
    """A line with a name in front, which may stand in bold, in brackets or behind a quotation's ">"."""
    begins = r"(?:^|[\r\u2028\u2029])[^\S\n]*[*_\[<>\"(]{0,4}[^\S\n]?"
    return rf"{begins}(?:{who})[*_\])>]{{0,4}}[^\S\n]{{0,2}}[:：]|^\[(?:{bracketed})\](?= \S)"


_ANYBODY = re.compile(
    _labelled("player|user|human", "player|user|you")
    + r"|^> ?you:|^\s?\*\*you(?:\*\*:|:\*\*)|(?<=[.!?…*\"”] )(?:player|user): ",
    re.IGNORECASE | re.MULTILINE,
)


def _label(player: _Player, text: str) -> re.Match[str] | None:
    """The player's label in front of a line, or both parts in one."""
    found = [_ANYBODY.search(text), player.label.search(text) if player.begins in text.casefold() else None]
    labels = [match for match in found if match]
    if labels:
        return min(labels, key=re.Match.start)
    return player.script.search(text) if text.count(": ") > 1 else None


def _third_person(act: str) -> str:
    act, *rest = act.split()
    return " ".join((_with_s(act), *rest))


def _with_s(act: str) -> str:
    if act.endswith(("s", "sh", "ch", "x", "z", "o")):
        return act + "es"
    return act[:-1] + "ies" if act.endswith("y") and act[-2:-1] not in "aeiou" else act + "s"


def _about(player: _Player, text: str) -> str:
    """What is narrated of the player by name."""
    if match := player.staged.search(text):
        return match[0].strip()
    match = player.plainly.search(text)
    if match is None or text[match.end() : match.end() + 1] == "?" or in_quotes(match.start(), text):
        return ""
    return match[0]


def _told(turn: Turn, acts: _Acts) -> Iterator[tuple[str, str]]:
    """What is narrated of "you", with the reason."""
    text, said = turn.text, vocabulary(turn.text)
    acted = "thou" in said or not acts.first_words.isdisjoint(said)
    for match in islice(_YOU.finditer(text), _ENOUGH) if acted else ():
        verb = _base(match, acts)
        if verb is None:
            continue
        start, end = match.start(), match.start(2)
        sentence = _SENTENCE_END.split(text[end : end + 240], 1)[0]
        act = verb + sentence[len(match[2]) :]
        if match[1] in ("Thou", "thou"):
            act = _OLD_ENDING.sub("", act)
        before = text[max(0, start - 80) : start]
        asked = text[end + len(sentence) :][:1] == "?"
        if acts.speech.search(act) and _puts_words(match, before, turn):
            yield "speaks for the player", text[start : end + len(sentence)]
        elif asked or not _SENTENCE_BEGINS.search(before) or in_quotes(start, text):
            continue
        elif _is_narrated(act, before, acts, turn) or _speaks_next(act, text[end + len(sentence) :][:4], acts):
            yield "narrates the player", text[start : end + len(sentence)]
    for found in (_search(_DOWN_YOUR_CHEEK, _TRICKLES, text), _search(acts.inner, acts.inner_words, text)):
        if found and not in_quotes(found.start(), text) and not _is_observed(found.end(), text):
            yield "narrates the player", found[0]


def _search(pattern: re.Pattern[str], keys: frozenset[str], text: str) -> re.Match[str] | None:
    return None if keys.isdisjoint(vocabulary(text)) else pattern.search(text)


def _is_observed(end: int, text: str) -> bool:
    """Your heart races, I can hear it. Your heart races?"""
    rest = _SENTENCE_END.split(text[end : end + 200], 1)[0]
    return text[end + len(rest) :][:1] == "?" or _SENSED.search(rest) is not None


def _speaks_next(act: str, after: str, acts: _Acts) -> bool:
    """You raise your hand. "Yes?" """
    return acts.deeds.match(act) is not None and _THEN_SPEECH.match(after) is not None


def _base(match: re.Match[str], acts: _Acts) -> str | None:
    """The verb behind "you", if any act begins with it: "drink" of "thou drinkest", too."""
    verb = match[2].lower()
    if match[1] not in ("Thou", "thou"):
        return verb if verb in acts.first_words else None
    return next((verb[:-cut] for cut in (3, 2, 1) if verb.endswith("t") and verb[:-cut] in acts.first_words), None)


def _puts_words(match: re.Match[str], before: str, turn: Turn) -> bool:
    """You say, "..." and "...," you say; but not the player's own words, nor: "A ghost," you say?"""
    text, end = turn.text, match.start(2)
    if _ASKED_OR_SUPPOSED.search(before):
        return False
    if opening := _OPENING_QUOTE.match(text[end : end + 60]):
        rest = text[end + opening.end() : end + 200]
        said = re.split(r"[\"”]", rest, maxsplit=1)
        long_enough = "," in opening[0][-3:] or ":" in opening[0][-3:] or len(said[0].split()) > 3
        if re.match(r"(?:ask|tell) me\b", text[end : end + 10]):
            return False
        return long_enough and rest[len(said[0]) + 1 :][:1] != "?" and not _player_said(said[0], turn)
    if _CLOSING_QUOTE.search(before) and not re.match(r"[^.!…\n]{0,40}\?", text[end : end + 60]):
        return not _player_said(re.split(r"[\"“‘«]", before.rstrip(" \"”»’'"))[-1], turn)
    return False


def _player_said(quote: str, turn: Turn) -> bool:
    """Whether the quote is of the player's own lines in this talk."""
    before = turn.request.messages if turn.request else ()
    lines = (turn.line, *(message.content for message in before if message.role == "user"))
    own = {word for line in lines for word in words(line)}
    return set(words(quote)) <= own


def _is_narrated(act: str, before: str, acts: _Acts, turn: Turn) -> bool:
    """Whether "you" and this is a narrator's sentence. A remark, an order, a bargain or directions may begin alike."""
    verb, _, what = act.partition(" ")
    if verb in _NOTICES and _AS_YOU_ENTER.search(before):
        return not _ASKS_HOW.search(turn.line)
    if verb in _SENSE_VERBS:
        return bool(acts.feelings.match(what) and not _BARGAIN.search(act))
    deed, order, move = acts.deeds.match(act), acts.orders.match(act), acts.moves.match(act)
    if _STAGE.search(before):
        return bool(deed or ((order or move) and " " in act.strip()))
    if _ASKS_HOW.search(turn.line):
        return False
    if (told := acts.narrated.match(act)) and not _THIS.search(act) and not _BARGAIN.search(act, told.end()):
        return True
    rest = act[max([found.end() for found in (deed, order, move) if found], default=len(act)) :]
    if not rest or _NO_STORY.search(rest):
        return False
    if _ADVERBIAL.search(before) and (deed or order):
        return True
    rest = _SOMEBODY_ELSE.split(rest, 1)[0]
    if _WHILE_DOING.search(rest) or (deed and _AS_YOU.search(rest)):
        return True
    if deed:
        return any(tail.search(rest) for tail in (acts.then_an_act, acts.manner, _THEN_DOES, _TO_HEAR))
    if move:
        return bool(_AT_YOUR_BODY.search(rest))
    return acts.then_a_deed.search(rest) is not None


def in_quotes(at: int, text: str) -> bool:
    """Whether somebody is quoted there. A reply that is one quotation is the NPC's own speech."""
    starts, ends = _quotes(text)
    before = bisect_right(starts, at) - 1
    return before >= 0 and at < ends[before]


@lru_cache(maxsize=16)
def _quotes(text: str) -> tuple[list[int], list[int]]:
    """Where quotations start and end."""
    whole = len(text.strip())
    found = [quote.span() for quote in _QUOTED.finditer(text) if quote.end() - quote.start() < whole]
    return [start for start, _ in found], [end for _, end in found]
