"""Whether a reply says its prompt aloud: recites it, talks about it, or has a chat template's tokens."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import filterfalse
from types import SimpleNamespace
from typing import NamedTuple

from pipeline.records import Score, Turn
from pipeline.scorers.lexicon import any_of, lexicon, working_folder
from pipeline.scorers.meaning import meaning, of_persona, stems, stems_of
from pipeline.scorers.triggers import Triggers
from pipeline.scorers.verdict import GOOD, SILENT, not_applicable
from pipeline.scorers.words import as_written, plain, spans, words

_SHORTEST = 4  # words in a row that are looked up
_IN_A_ROW = 8  # words of the prompt: too many for chance
_EVIDENCE = 120  # characters
_PROMPTS = 8  # of one persona that are kept
_WORDS = 2_000  # of a reply or a line that are looked at
_INDEXED = 30_000  # characters of a prompt; whoever recites a longer one is seen by its beginning
_TEMPLATE_TOKEN = re.compile(
    r"<[|｜][^|｜<>\n]{1,40}[|｜]>|\[/?(?:INST|SYS|SYSTEM|USER|ASSISTANT|AVAILABLE_TOOLS|TOOL_CALLS)\]|<</?SYS>>"
    r"|</?(?:s|bos|eos|unk|pad|think|start_of_turn|end_of_turn|system|user|assistant|instructions?|prompt)>"
    r"|#{2,4} ?(?:Instruction|Response|Human|Assistant|User|System|Rules|Character|Input|Output|Prompt|Scenario)s?\b"
    r"|\{\{\s*(?:char|user|npc\.\w{1,40})\s*\}\}"
)
_SENTENCE = re.compile(r"[.!?…\n]+")


def no_prompt_leak(
    turn: Turn, *, in_a_row: int = _IN_A_ROW, near: int = 8, of_rules: int = 6, after_cue: int = 3
) -> Score:
    """1 unless it recites the system message, speaks of its prompt, or has a chat template's tokens.

    Recited are `in_a_row` words, or nearly: `near` telling words in stretches of three and more, `of_rules` of its rules and
    traits, `after_cue` behind "I was told to". What a persona knows, who its kin are, its greeting and example lines may be
    said; they are in the prompt to be said. Its secret is for `keeps_secret`. In fiction, too, there are orders and rules.
    """
    text = turn.text
    if not text:
        return SILENT
    marked = "<" in text or "[" in text or "#" in text or "{" in text
    if marked and (token := _TEMPLATE_TOKEN.search(text)):
        return Score(0.0, "a chat template's token", token[0])
    if found := _spoken_of(turn):
        return Score(0.0, "speaks of its prompt", as_written(found, text)[:_EVIDENCE])
    system = _system(turn)
    if not system:
        return not_applicable("there is no system message")
    prompt = _prompt(system, turn.item.npc)
    if found := _row(turn, prompt, max(in_a_row, _SHORTEST)) or _nearly(turn, prompt, near, of_rules, after_cue):
        return Score(0.0, "says its prompt aloud", found[:_EVIDENCE])
    return GOOD


def _system(turn: Turn) -> str:
    for message in turn.request.messages if turn.request else ():
        if message.role == "system":
            return message.content
    return ""


class _Phrases(NamedTuple):
    triggers: Triggers  # by pattern: own, orders, mentions
    own: re.Pattern[str]
    mentions: re.Pattern[str]
    machines: re.Pattern[str]
    cues: frozenset[str]
    rules: re.Pattern[str]
    orders: re.Pattern[str]
    labels: re.Pattern[str]


@lru_cache(maxsize=4)
def _phrases(_where: str) -> _Phrases:
    """`_where` is the working directory, whose own lexicon goes first."""
    lists = lexicon("prompt_leak")
    listed = {name: lists.get(name, ()) for name in ("own", "mentions")}
    orders = rf"\b(?:my|these|the) (?:instructions?|directives|guidelines)\b[^.!?]{{0,80}}?\b{any_of(lists.get('orders', ()))}"
    return _Phrases(
        Triggers({**listed, "orders": ("instruction", "instructions", "directives", "guidelines")}),
        re.compile(r"(?<!\w)" + any_of(lists.get("own", ()))),
        re.compile(r"(?<!\w)" + any_of(lists.get("mentions", ()))),
        re.compile(r"(?<!\w)" + any_of(lists.get("machines", ()))),
        frozenset(lists.get("cues", ())),
        re.compile(r"(?<!\w)" + any_of(lists.get("rule words", ()))),
        re.compile(orders),
        re.compile(rf"(?:^|[.!?;,*\n\"(] ?)({any_of(lists.get('labels', ()))}):", re.MULTILINE),
    )


@of_persona
def _own_words(npc: SimpleNamespace) -> str:
    about = (
        npc.name,
        npc.description,
        npc.setting,
        npc.personality[:_INDEXED],
        npc.speech[:_INDEXED],
        npc.trade,
        npc.kin,
    )
    return plain(" ".join((*about, npc.greeting, *npc.knows, *npc.examples)))


def _spoken_of(turn: Turn) -> str:
    text, phrases = turn.text, _phrases(working_folder())
    if text.count(":") > 1 and (found := _form(phrases, text)):
        return found
    if not phrases.triggers.pulled_by(text):
        return ""
    text, own = plain(text), _own_words(turn.item.npc)
    for pattern in (phrases.own, phrases.orders, phrases.mentions):
        for match in pattern.finditer(text):
            if match[0] in own or _asked(text, match.end()):
                continue
            if pattern is phrases.mentions and (match[0] in plain(turn.line) or phrases.machines.search(own)):
                continue
            return match[0]
    return ""


def _asked(text: str, at: int) -> bool:
    """Whether the sentence there ends as a question."""
    end = _SENTENCE.search(text, at, at + 400)
    return end is not None and "?" in end[0]


def _form(phrases: _Phrases, text: str) -> str:
    """The second label of a filled form ("Speech: ... Kin: ..."), or ""."""
    labels = {match[1]: match[0] for match in phrases.labels.finditer(text[:4_000].lower())}
    return list(labels.values())[1].strip(" .,;") if len(labels) > 1 else ""


class _Prompt:
    """A system message, ready for replies to be looked up in it. Most replies share nothing with it that counts: what only the
    others need is made when the first of them comes."""

    def __init__(self, system: str, npc: SimpleNamespace) -> None:
        self.system, self._npc = system, npc
        self.cues, self.function = _phrases(working_folder()).cues, meaning().function
        said = words(system[:_INDEXED])
        self.said, self.words = _in_a_row(said), frozenset(said)
        self._told = stems_of(filterfalse(self.function.__contains__, said))
        self.told_row = _in_a_row(self._told)  # its telling words
        self.telling = frozenset(self._told)

    def recites(self, row: tuple[str, ...]) -> bool:
        """Whether these words stand in it so, and may not be said."""
        return _in_a_row(row) in self.said and not _sayable(row, self._may_say)

    @cached_property
    def _may_say(self) -> str:
        return _in_a_row(words("\n".join((*_facts(self._npc), self._npc.description))[:_INDEXED]))

    @cached_property
    def told(self) -> set[int]:
        """Its telling words three by three."""
        return set(_runs(self._told, 3))

    @cached_property
    def sayable(self) -> set[int]:
        """Those that may be said."""
        return _grams(_facts(self._npc), self.function)

    @cached_property
    def rules(self) -> set[int]:
        """Those out of its rules, and out of the persona's traits."""
        rules = _phrases(working_folder()).rules
        sentences = [sentence for sentence in _SENTENCE.split(self.system[:_INDEXED]) if rules.search(plain(sentence))]
        traits = (self._npc.personality[:_INDEXED], self._npc.speech[:_INDEXED])
        return _grams([" ".join(sentences), *sentences, *traits], self.function)


@of_persona
def _prompts_of(npc: SimpleNamespace) -> list[_Prompt]:
    return []


def _prompt(system: str, npc: SimpleNamespace) -> _Prompt:
    """A persona has several: a system message may name the player."""
    prompts = _prompts_of(npc)
    for prompt in prompts:
        if prompt.system == system:  # faster than to hash each message
            return prompt
    if len(prompts) >= _PROMPTS:
        prompts.clear()
    prompts.append(_Prompt(system, npc))
    return prompts[-1]


def _facts(npc: SimpleNamespace) -> tuple[str, ...]:
    lists = ("\n".join(npc.knows), "\n".join(npc.examples))
    facts = (npc.home, npc.trade, npc.kin, npc.wants, npc.hides, npc.greeting, *lists)
    return tuple(text[:_INDEXED] for text in facts)


def _sayable(row: tuple[str, ...], may_say: str) -> bool:
    """Whether most of it is."""
    most = max(len(row) * 3 // 4, 1)
    return _in_a_row(row[:most]) in may_say or _in_a_row(row[-most:]) in may_say


def _grams(texts: Iterable[str], function: frozenset[str]) -> set[int]:
    return {gram for text in texts for gram in _runs(_telling(text, function), 3)}


def _runs(said: Sequence[str], size: int) -> Iterator[int]:
    """Each `size` words in a row, by their hash: hundreds of tuples for each persona would keep the garbage collector busy."""
    return map(hash, zip(*(said[at:] for at in range(size)), strict=False))


def _telling(text: str, function: frozenset[str]) -> list[str]:
    return stems_of(filterfalse(function.__contains__, words(text)))


def _in_a_row(said: Iterable[str]) -> str:
    """With blanks around, so that `in` finds whole words only."""
    return f" {' '.join(said)} "


def _row(turn: Turn, prompt: _Prompt, in_a_row: int) -> str:
    """The first `in_a_row` words that stand so in the prompt, or ""."""
    said = words(turn.text)[:_WORDS]
    # Of so many words in a row, one is the first of four that are looked up here.
    for at in range(0, len(said) - _SHORTEST + 1, in_a_row - _SHORTEST + 1):
        few = said[at : at + _SHORTEST]
        if prompt.words.issuperset(few) and _in_a_row(few) in prompt.said:
            break
    else:
        return ""
    heard = _in_a_row(words(turn.line)[:_WORDS])
    for start in range(len(said) - in_a_row + 1):
        row = said[start : start + in_a_row]
        if prompt.recites(row) and _in_a_row(row) not in heard:
            where = spans(turn.text)
            return turn.text[where[start].start() : where[start + in_a_row - 1].end()]
    return ""


def _nearly(turn: Turn, prompt: _Prompt, near: int, of_rules: int, after_cue: int) -> str:
    """Where stretches of telling words that stand so in the prompt add up, or ""."""
    said, function = words(turn.text)[:_WORDS], prompt.function
    told = [one for word, one in zip(said, stems(turn.text), strict=False) if word not in function]
    row = 0
    for end, one in enumerate(told, 1):
        row = row + 1 if one in prompt.telling else 0
        if row > 2 and _in_a_row(told[end - 3 : end]) in prompt.told_row:  # nothing that counts is shorter
            break
    else:
        return ""
    grams = list(_runs(told, 3))
    asked = _grams([turn.line[:_INDEXED]], prompt.function)
    hits = [
        n for n, gram in enumerate(grams) if gram in prompt.told and gram not in prompt.sayable and gram not in asked
    ]
    if not hits:
        return ""
    at = [n for n, word in enumerate(said) if word not in prompt.function]
    recited = {n + more for n in hits for more in range(3)}
    of_rule = {n + more for n in hits if grams[n] in prompt.rules for more in range(3)}
    cued = len(of_rule) >= after_cue and not prompt.cues.isdisjoint(said[: at[min(of_rule)]])
    if cued or len(of_rule) >= of_rules or len(recited) >= near:
        first = min(recited)
        where = spans(turn.text)
        return turn.text[where[at[first]].start() : where[at[max(recited)]].end()]
    return ""
