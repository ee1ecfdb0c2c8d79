"""Whether a reply fits where a game shows it: there at all, whole, of a length for a text box."""

import re
import unicodedata
from functools import lru_cache
from types import SimpleNamespace

from pipeline.errors import ConfigError
from pipeline.records import Score, Turn
from pipeline.scorers.meaning import of_persona
from pipeline.scorers.verdict import GOOD, SILENT

_NO_END = re.compile(r"(?:Mr|Mrs|Ms|Dr|Prof|Capt|Lt|Sgt|vs|e\.g|i\.e)\.")  # a name or an example follows
_NOT_FINAL = frozenset(",;:-،、，：；፣၊&@#%/\\([{¿¡•·§")
_QUOTES = frozenset("\"'*_`“”‘’«»„‹›")  # which of them open and which close differs from language to language


def non_empty(turn: Turn) -> Score:
    """1 if there is any letter or digit in it."""
    text = turn.text
    if text[:1].isalnum() or any(c.isalnum() for c in text):
        return GOOD
    return Score(0.0, "nothing was said", text[:80])


def finished(turn: Turn) -> Score:
    """1 if the reply ends where a sentence may end, in any script, or as this persona's own example lines do.

    The server's finish reason alone is no guide: some report "length" for a stop string.
    """
    text = turn.text.rstrip()
    if not text:
        return SILENT
    if _ends(text) or "\u0e00" <= _visible(text)[-1:] <= "\u0eff":  # Thai and Lao have no full stop
        return GOOD
    completion = turn.completion
    cut = completion is not None and completion.finish_reason == "length"
    if not cut and _ends_openly(turn.item.npc):
        return Score(1.0, "ends like the persona's example lines")
    return Score(0.0, "cut off by the token limit" if cut else "no end of a sentence", text[-60:])


@of_persona
def _ends_openly(npc: SimpleNamespace) -> bool:
    """Whether one of its own lines has no end."""
    return any(line and not _ends(line) for line in npc.examples)


def _ends(text: str) -> bool:
    if text[-1:] in ("!", "?"):
        return True
    text = _visible(text)
    last, before = text[-1:], text[-2:-1]
    if last in _QUOTES and not (last == "»" and "«" in text):  # the French put a blank before it
        return bool(before) and not before.isspace()  # behind a blank it opens
    if not last or (last in _NOT_FINAL and not text.endswith("--")):
        return False
    if last == "." and _NO_END.fullmatch(text[-8:].split()[-1]):
        return False
    return last in "~♪" or unicodedata.category(last) in ("Po", "Pf", "Pe", "Pd", "Sk", "So")


def _visible(text: str) -> str:
    """Without what may follow the last visible character: marks of direction, the joiners and variants of emoji."""
    end = len(text)
    while end and ((last := text[end - 1]).isspace() or last in "\ufe0e\ufe0f" or unicodedata.category(last) == "Cf"):
        end -= 1
    return text[:end]


def box_length(turn: Turn, *, words: int = 60, characters: int = 400) -> Score:
    """1 for up to so many words and characters: what a dialogue box shows without scrolling.

    (Lines in shipped games: median 17 words, 95 % under 30.)
    """
    has_characters = len(turn.text)
    if not has_characters:
        return SILENT
    if has_characters < min(2 * words, characters):  # so many words need as many blanks
        return GOOD
    has_words = len(turn.text.split())
    if has_words > words or has_characters > characters:
        return Score(0.0, f"{has_words} words, {has_characters} characters", turn.text[-60:])
    return GOOD


_PLENTY = 20_000  # characters; nobody keeps a longer reply for its format
_EMOTES = ("any", "asterisks", "parentheses", "none")
_MARK = re.compile(r"[#<>{}\[\]|\\`$%&•●▪◦‣_~\n:：=\u20e3]")
_MARKS = ("**", "1. ", "1) ", "www.")
_BULLET = ("- ", "* ", "+ ")
_TAGS = (
    r"b|i|u|em|strong|small|br|p|div|span|hr|h[1-6]|ul|ol|li|a|img|code|pre|sub|sup|table|tr|td|th|font|center|blockquote"
    r"|think|thinking|thought|thoughts|action|actions|speech|say|dialog|dialogue|emote|emotion|mood|narration|narrator|scene"
    r"|response|reply|answer|output|message|text|s|bos|eos|start_of_turn|end_of_turn|npc|assistant|system|character|voice"
)
_BLANK = (  # what stands in a placeholder
    r"(?:insert|enter|your|player'?s?|user'?s?|char|npc'?s?|character'?s?|adventurer'?s?|traveler'?s?|traveller'?s?|hero'?s?"
    r"|customer'?s?|stranger'?s?|name|first|last|specific|some|the)?[ _-]?"
    r"(?:name|player|user|char|character|npc|race|class|title|gender|pronouns?|place|location|town|city|village|kingdom|region"
    r"|item|object|weapon|amount|number|price|quantity|date|time|quest|target|noun|adjective|verb|profession|occupation)"
    r"(?: name| here| of [\w ]{1,20})?|(?:insert|enter|fill in) [^\]>}\n]{1,40}|his/her|he/she|him/her"
)
# Each with marks, in lower case, of which it has one: the patterns of the others need not be tried.
_LISTED = {
    "a chat template's token": (
        ("<", "[", "#"),
        r"<[|｜][^|｜<>\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>"
        r"|^#{2,4} ?(?:Instruction|Response|Human|Assistant|User|System)\b",
    ),
    "a heading": (
        ("#", "===", "---"),
        r"^[^\S\n]{0,3}#{1,6}[^\S\n]+[^\s#][^\n]{0,80}|^[^\s\n][^\n]{0,80}\n(?:={3,}|-{3,})[^\S\n]*$",
    ),
    "a rule": (
        ("--", "- -", "**", "* *", "_", "="),
        r"^[^\S\n]{0,3}(?:-[ ]?){3,}$|^[^\S\n]{0,3}(?:\*[ ]?){3,}$|^[^\S\n]{0,3}(?:[_=][ ]?){3,}$",
    ),
    "a table": (("|",), r"^[^\S\n]{0,3}\|[^\n]{0,300}\|[^\S\n]*$|(?<!-)-{2,}\|[ :]?-{2,}"),
    "a quotation mark of markdown": ((">",), r"^[^\S\n]{0,3}>{1,3}(?:[^\S\n]+\S|[A-Za-z\"“])[^\n]{0,80}"),
    "code": (("`", "~~~"), r"```|^~~~|`[^`'\n]{1,200}`(?!`)"),
    "bold": (
        ("**", "__", "~~"),
        r"(?<![A-Za-z0-9*])\*{2,3}(?=[^\s*])[^*\n]{1,300}(?<=\S)\*{2,3}(?![A-Za-z0-9*])"
        r"|(?<![\w])__(?=[^\W_])[^_\n]{1,300}__(?!\w)|(?<![\w~])~~(?=[^\s~])[^~\n]{1,200}~~|^\*\*(?=[^\s*])",
    ),
    "a link": (("](", "://", "www."), r"\]\([^)\s]{1,300}\)|\bhttps?://|\bwww\.\w"),
    "a tag": (
        ("<", "&"),
        rf"</[A-Za-z][\w:-]{{0,30}}\s?>|<(?:{_TAGS})(?:\s[^<>\n]{{0,100}})?/?>|<[A-Za-z][\w-]{{0,30}}\s?/>"
        r"|<[A-Za-z][\w-]{0,30}\s[\w-]{1,30}=[^<>\n]{1,200}>|<!--|&(?:nbsp|amp|quot|lt|gt|apos|#\d{2,5});",
    ),
    "a placeholder": (
        ("{", "[", "<", "%", "$", "____"),
        rf"\{{\{{[^{{}}\n]{{1,60}}\}}\}}|(?<!\w)\$?\{{[A-Za-z_][\w .'-]{{0,40}}\}}|\[(?:{_BLANK})\]|<(?:{_BLANK})>"
        r"|%[A-Za-z][A-Za-z_]{2,20}%|(?<!\w)\$(?:[a-z]+_[a-z_]+|[Nn]ame|NAME|[Pp]layer|PLAYER)\b|(?<!_)_{4,}(?!_)",
    ),
    "JSON": (
        ("{", "[", '"'),
        r"[{\[]\s{0,8}[\"“'][\w .-]{1,40}[\"”']\s?:\s?|^\s{0,4}\"[\w .-]{1,40}\"\s?:\s?[\"\[{\d]|\A\s*\[\s?\"[^\"\n]{0,200}\"\s?[,\]]|\A\s*\{\s",
    ),
    "LaTeX": (
        ("\\", "$"),
        r"\\(?:[A-Za-z]{2,}|[(){}\[\]]|[nt](?![A-Za-z]))|\$\$[^$\n]{1,80}\$\$|\$[^$\n]{1,80}[\\^=_][^$\n]{0,80}\$",
    ),
}
_FORMATS = {
    reason: (marks, re.compile(pattern, re.MULTILINE | re.IGNORECASE)) for reason, (marks, pattern) in _LISTED.items()
}

_ITEM = re.compile(
    r"^[^\S\n]{0,8}(?:([-+])[^\S\n]+(?=\S)|(\*)[^\S\n]+(?=[^*\n]+$)|([•●▪◦‣][^\S\n]*)|(\(?\d{1,2}[.)])[^\S\n]+(?=\S)"
    r"|(\(?[a-dA-D]\))[^\S\n]+|(\d\ufe0f?\u20e3))[^\n]{0,200}",
    re.MULTILINE,
)
_BULLETS = (3, 6)  # the groups of _ITEM that one line is enough of
_INLINE_LIST = re.compile(
    r"(?:\A|[:.!?…][^\S\n]+)\(?1[.)][^\S\n]+[^\n]{1,300}?[^\S\n]\(?2[.)][^\S\n]+\S|(?:[•●▪][^\n•●▪]{1,200}){2}",
    re.MULTILINE,
)
_FIELD = re.compile(
    r"^[^\S\n]{0,4}(?:[^\W\d_][\w'-]{0,20}(?: [A-Z][\w'-]{0,20}){0,2})(?: ?\([^()\n]{1,60}\))?[:：](?=[^\S\n]|$)",
    re.MULTILINE,
)
_LABEL = re.compile(
    r"\A[*_\[(\"]{0,3}(?:NPC|Character|Response|Reply|Dialogue|Narrator|Narration|Assistant|Output|Bot|OOC|Action|Emotion|Mood)"
    r"[*_\])]{0,3}[:：]|^[A-Z][A-Z.' -]{1,30} \([^()\n]{1,60}\)[:：]",
    re.MULTILINE,
)
_TITLE = re.compile(
    "captain|mother|father|sister|brother|sergeant|doctor|lord|lady|sir|king|queen|old|the", re.IGNORECASE
)
_STARRED = re.compile(r"(?<![\w*])\*(?=[^\s*])[^*\n]{1,300}(?<=\S)\*(?![\w*])")
_BRACKETED = re.compile(r"\([^()\n]{1,300}\)|\[[^\[\]\n]{1,300}\]|<[^<>\n]{1,300}>")


def plain_format(turn: Turn, *, emotes: str = "any") -> Score:
    """1 unless it has what a text box does not show or nobody says: markdown, tags, code, placeholders, labels of a script.

    `emotes` are the gestures that pass beside speech: "any", "asterisks", "parentheses" or "none". Single marks pass (a * b, #7,
    <3, F***), and so do the dashes of a dialogue, verses and one word in *emphasis*.
    """
    text = turn.text[:_PLENTY]
    if not text:
        return SILENT
    if emotes != "any" and (found := _gesture(text, emotes)):
        return Score(0.0, f"a gesture, where emotes are {emotes!r}", found[:120])
    if not (_MARK.search(text) or text.startswith(_BULLET) or any(map(text.__contains__, _MARKS))):
        return GOOD
    if formatted := _format(text):
        reason, shown = formatted
        return Score(0.0, f"has {reason}", shown[0].strip()[:120])
    if (match := _LABEL.search(text)) or (match := _own_label(turn.item.npc.name, text)):
        return Score(0.0, "has a speaker's label", match[0][:120])
    if found := _list(text):
        return Score(0.0, "has a list", found[:120])
    return GOOD


def _format(text: str) -> tuple[str, re.Match[str]] | None:
    """The first one, and what it is."""
    lowered = text.lower()
    tried = [
        (reason, pattern) for reason, (marks, pattern) in _FORMATS.items() if any(map(lowered.__contains__, marks))
    ]
    found = [(reason, match) for reason, pattern in tried if (match := pattern.search(text))]
    return min(found, key=lambda it: it[1].start(), default=None)


def _list(text: str) -> str:
    """Two items of one kind, or two lines that begin with a label: what is seen of them."""
    if "\n" in text:
        items = list(_ITEM.finditer(text))
        kinds = [item.lastindex for item in items]
        for item, kind in zip(items, kinds, strict=True):
            if kinds.count(kind) > 1 or kind in _BULLETS or text[: item.start()].rstrip().endswith((":", "：")):
                return item[0].strip()
        fields = _FIELD.findall(text)
        if len(fields) > 1 and len(fields) * 2 >= sum(bool(line.strip()) for line in text.split("\n")):
            return str(fields[0]).strip()
    found = _INLINE_LIST.search(text)
    return found[0].strip() if found else ""


def _own_label(name: str, text: str) -> re.Match[str] | None:
    """The NPC's name in front of a line."""
    words = [word for word in name.split() if len(word) > 2]
    names = {name, *words[-1:], *(word for word in words[:1] if not _TITLE.fullmatch(word))}
    lowered = text.casefold()
    return _label_of(frozenset(names)).search(text) if any(one.casefold() in lowered for one in names) else None


@lru_cache(maxsize=256)
def _label_of(names: frozenset[str]) -> re.Pattern[str]:
    anyof = "|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name))))
    return re.compile(
        rf"^[*_\[(\"]{{0,3}}(?:{anyof})(?: ?[(*][^()*\n]{{1,60}}[)*])?[*_\])]{{0,3}} ?[:：]",
        re.MULTILINE | re.IGNORECASE,
    )


def _gesture(text: str, emotes: str) -> str:
    """A gesture of another kind than the one that passes: in asterisks anywhere, in brackets before or behind the speech."""
    if emotes not in _EMOTES:
        raise ConfigError(f"plain_format.emotes is {emotes!r}; it can be one of: {', '.join(_EMOTES)}")
    if emotes != "asterisks" and (match := _STARRED.search(text)):
        return match[0]
    begins, ends = len(text) - len(text.lstrip()), len(text.rstrip())
    for match in _BRACKETED.finditer(text):
        if emotes == "parentheses" and match[0][0] == "(":
            continue
        before = text[max(match.start() - 2, 0) : match.start()]
        opens = match.start() == begins or before.endswith("\n")
        closes = match.end() == ends and before.rstrip()[-1:] in tuple(".!?…*)]>\"”'’")
        if opens or closes:
            return match[0]
    return ""
