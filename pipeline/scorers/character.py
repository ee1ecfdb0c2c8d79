"""What betrays the model behind the NPC: a chatbot's phrases, the prompt said aloud, lines written for the player."""

import re
from functools import lru_cache

from pipeline.records import Score, Turn
from pipeline.resources import shipped

_LEAK_WORDS = 8  # of the prompt in a row: too many for chance
_WORD = re.compile(r"\w+")
_TEMPLATE_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|### ?(?:Instruction|Response)\b")
_SPEECH = r"\byou (?:say|ask|reply|answer|whisper|shout|nod)\b[^.!?\n]{0,30}[\"“]"


def in_character(turn: Turn) -> Score:
    """1 unless it says what only a chatbot would say (`data/lexicons/assistant_leak.txt`).

    A phrase out of the persona itself is no leak; nor is the mere mention of a thing that the player brought up.
    """
    if not turn.text:
        return Score(None, "nothing was said")
    lexicon = _lexicon()
    text = _plain(turn.text)
    for kind, reason in (("openings", "opens like an assistant"), ("claims", "speaks as an assistant")):
        for match in lexicon[kind].finditer(text):
            if match[0] not in _own_words(turn):
                return Score(0.0, reason, match[0])
    for match in lexicon["mentions"].finditer(text):
        if match[0] not in _plain(turn.line) and match[0] not in _own_words(turn):
            return Score(0.0, "mentions what only an assistant knows", match[0])
    return Score(1.0)


def no_prompt_leak(turn: Turn) -> Score:
    """1 unless it repeats a stretch of the system message, or a chat template's tokens.

    What a persona knows, greets with or has as example lines may be said; it is in the prompt to be said.
    """
    if not turn.text:
        return Score(None, "nothing was said")
    if token := _TEMPLATE_TOKEN.search(turn.text):
        return Score(0.0, "a chat template's token", token[0])
    system = next((m.content for m in turn.request.messages if m.role == "system"), "") if turn.request else ""
    if not system:
        return Score(None, "there is no system message")
    npc = turn.item.npc
    prompt, sayable = _words(system), _words("\n".join((*npc.knows, *npc.examples, npc.greeting, turn.line)))
    words = _words(turn.text).split()
    for start in range(len(words) - _LEAK_WORDS + 1):
        stretch = f" {' '.join(words[start : start + _LEAK_WORDS])} "
        if stretch in prompt and stretch not in sayable:
            return Score(0.0, "says its prompt aloud", stretch.strip())
    return Score(1.0)


def no_player_speech(turn: Turn) -> Score:
    """1 unless it goes on with the player's part: a line with the player's name in front, or "you say: ..."."""
    if not turn.text:
        return Score(None, "nothing was said")
    if match := _player_line(turn.item.player).search(turn.text):
        return Score(0.0, "speaks for the player", match[0].strip())
    return Score(1.0)


@lru_cache(maxsize=256)
def _player_line(player: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*(?:{re.escape(player)}|player|user|human)\s*:|{_SPEECH}", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=1)
def _lexicon() -> dict[str, re.Pattern[str]]:
    """Phrases as literals, at word boundaries, by section."""
    sections: dict[str, list[str]] = {}
    for line in (shipped("data") / "lexicons" / "assistant_leak.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            sections[line.strip("[] ")] = phrases = []
        elif line.strip() and not line.startswith("#"):
            phrases.append(re.escape(_plain(line)))
    patterns = {name: "(?:" + "|".join(phrases) + r")(?!\w)" for name, phrases in sections.items()}
    return {
        name: re.compile(rf"\A[\"*(\s]*{pattern}" if name == "openings" else rf"(?<!\w){pattern}")
        for name, pattern in patterns.items()
    }


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").casefold().split())


def _own_words(turn: Turn) -> str:
    npc = turn.item.npc
    return _plain(" ".join((npc.description, npc.personality, npc.setting, npc.speech, *npc.knows, *npc.examples)))


@lru_cache(maxsize=64)
def _words(text: str) -> str:
    """With blanks around, so that `in` finds whole words only."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "
