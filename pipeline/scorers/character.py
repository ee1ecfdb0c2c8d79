"""What betrays the model behind the NPC: a chatbot's phrases, the prompt said aloud, lines written for the player."""

import re
from functools import lru_cache

from pipeline.records import Score, Turn
from pipeline.resources import shipped
from pipeline.scorers.shape import WORD

_LEAK_WORDS = 8  # of the prompt in a row: too many for chance
_SECRET_WORDS = 3  # a shorter secret ("gold") is a word like any other
_TEMPLATE_TOKEN = re.compile(
    r"<[|｜][^|｜<>\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|</?(?:s|bos|eos|think|start_of_turn|end_of_turn)>"
    r"|#{2,4} ?(?:Instruction|Response|Human|Assistant|User|System)\b|\{\{\s*(?:char|user|npc\.\w{1,40})\s*\}\}"
)
# Narrated for the player: You nod and say, "...". Not: You say you saw a "ghost"?
_SPEECH = r"\byou (?:say|ask|reply|answer|whisper|shout|nod)\b[^.!?\n\"“]{0,30}[,:]\s?[\"“]"


def in_character(turn: Turn) -> Score:
    """1 unless it says what only a chatbot would say (`data/lexicons/assistant_leak.txt`).

    A phrase out of the persona itself is no leak; nor is it one when a ship's mind calls itself an AI, nor the mere mention
    of a thing that the player brought up.
    """
    if not turn.text:
        return Score(None, "nothing was said")
    text = _plain(turn.text)
    lexicon = _lexicon()
    for section, reason in _REASONS.items():
        for match in lexicon[section].finditer(text):
            if not _may_say(section, match[0], turn):
                return Score(0.0, reason, _as_written(match[0], turn.text))
    return Score(1.0)


_REASONS = {
    "openings": "opens like an assistant",
    "refusals": "refuses like an assistant",
    "assistants": "speaks as an assistant",
    "machines": "speaks as an AI",
    "phrases": "speaks as an assistant",
    "mentions": "mentions what only an assistant knows",
}


def no_prompt_leak(turn: Turn) -> Score:
    """1 unless it tells the secret word for word, repeats a stretch of the system message, or a chat template's tokens.

    What a persona knows, who its kin are, what it greets with or has as example lines may be said; it is in the prompt to be
    said.
    """
    if not turn.text:
        return Score(None, "nothing was said")
    if token := _TEMPLATE_TOKEN.search(turn.text):
        return Score(0.0, "a chat template's token", token[0])
    spans = list(WORD.finditer(turn.text))
    words = [_folded(span[0]) for span in spans]
    secret = _words(turn.item.npc.hides)
    if secret.count(" ") > _SECRET_WORDS and secret in f" {' '.join(words)} " and secret not in _sayable(turn):
        return Score(0.0, "tells its secret", _from_words(turn.text, spans, words, secret.split()))
    system = next((m.content for m in turn.request.messages if m.role == "system"), "") if turn.request else ""
    if not system:
        return Score(None, "there is no system message")
    prompt = _words(system)
    # Every stretch of eight holds one of four that begins at a multiple of four: only these are looked up.
    for part in range(0, len(words) - 3, 4):
        if f" {' '.join(words[part : part + 4])} " not in prompt:
            continue
        for start in range(max(0, part - 4), min(part, len(words) - _LEAK_WORDS) + 1):
            stretch = f" {' '.join(words[start : start + _LEAK_WORDS])} "
            if stretch in prompt and stretch not in _sayable(turn):
                said = turn.text[spans[start].start() : spans[start + _LEAK_WORDS - 1].end()]
                return Score(0.0, "says its prompt aloud", said)
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
    """A name may stand in bold, in brackets or behind a quotation's ">"."""
    name = rf"(?:^|[\r\u2028\u2029])[^\S\n]*[*_\[>\"(]{{0,4}}[^\S\n]?(?:{re.escape(player)}|player|user|human)"
    return re.compile(rf"{name}[*_\])]{{0,4}}[^\S\n]{{0,2}}[:：]|{_SPEECH}", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=1)
def _lexicon() -> dict[str, re.Pattern[str]]:
    """A pattern for each section. Phrases are literals, at word boundaries; the longest one that fits is found."""
    sections: dict[str, list[str]] = {}
    for line in (shipped("data") / "lexicons" / "assistant_leak.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            sections[line.strip("[] ")] = phrases = []
        elif line.strip() and not line.startswith("#"):
            phrases.append(_plain(line))
    anyof = {
        name: "(?:" + "|".join(map(re.escape, sorted(phrases, key=len, reverse=True))) + r")(?!\w)"
        for name, phrases in sections.items()
    }
    of_oneself = r"(?<!\w)(?:as|i am|i'm)(?: (?:just|only|merely|simply|really|but))? (?:an?|your) (?:helpful )?"
    begin = rf"\A[\"“(\s]*(?:{anyof['leads']}[!,.:;]* (?:but )?)?"
    unable = r"i(?:'m| am)? (?:cannot|can't|can not|won't|unable to|not able to) "
    lead = {
        "assistants": of_oneself,
        "machines": of_oneself,
        "openings": begin,
        "refusals": begin + unable,
    }
    return {name: re.compile(lead.get(name, r"(?<!\w)") + pattern) for name, pattern in anyof.items()}


def _may_say(section: str, phrase: str, turn: Turn) -> bool:
    own = _own_words(turn)
    if phrase in own:
        return True
    if section == "machines":
        return _lexicon()["machine words"].search(own) is not None
    return section == "mentions" and phrase in _plain(turn.line)


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").replace("‘", "'").replace("*", "").casefold().split())


def _as_written(phrase: str, text: str) -> str:
    """The span of `text` that reads as `phrase` once it is plain."""
    words = (re.escape(word).replace("'", "['’‘]") for word in phrase.split())
    found = re.search(r"[\s*]+".join(words), text, re.IGNORECASE)
    return found[0] if found else phrase


def _own_words(turn: Turn) -> str:
    npc = turn.item.npc
    about = (npc.name, npc.description, npc.personality, npc.setting, npc.speech, npc.trade, npc.kin, npc.greeting)
    return _plain(" ".join((*about, *npc.knows, *npc.examples)))


def _sayable(turn: Turn) -> str:
    npc = turn.item.npc
    facts = (npc.home, npc.trade, npc.kin, npc.wants, npc.greeting)
    return _words("\n".join((*npc.knows, *npc.examples, *facts, turn.line)))


def _folded(word: str) -> str:
    return word.casefold().replace("’", "'")


@lru_cache(maxsize=16)
def _words(text: str) -> str:
    """With blanks around, so that `in` finds whole words only."""
    return f" {' '.join(map(_folded, WORD.findall(text)))} "


def _from_words(text: str, spans: list[re.Match[str]], words: list[str], wanted: list[str]) -> str:
    size = len(wanted)
    start = next(at for at in range(len(words)) if words[at : at + size] == wanted)
    return text[spans[start].start() : spans[start + size - 1].end()]
