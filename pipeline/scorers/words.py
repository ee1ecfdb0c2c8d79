"""The words of a text, and its plain form: what scorers compare."""

import re
from functools import lru_cache

# \w has no combining marks: without them, a word of Hindi, Thai or vocalised Arabic would fall into pieces.
_LETTER = (
    r"[\w\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0df3\u0e31-\u0e4e\u0eb1-\u0ecd"
    r"\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3]"
)
WORD = re.compile(rf"{_LETTER}+(?:['’]{_LETTER}+)*")


@lru_cache(maxsize=64)
def spans(text: str) -> tuple[re.Match[str], ...]:
    """Where the words of a text are."""
    return tuple(WORD.finditer(text))


@lru_cache(maxsize=256)
def words(text: str) -> tuple[str, ...]:
    """The words in lower case, with straight apostrophes. Several scorers look at the same reply: it is split once."""
    if not text.isascii():
        text = text.casefold()
        for mark, straight in _TYPOGRAPHIC:
            text = text.replace(mark, straight)
    if not text.isascii() or "''" in text:
        return tuple(WORD.findall(text.casefold()))
    # The same without the pattern, three times as fast: all that is neither a letter, a digit nor inside a word is a blank.
    spaced = text.encode().translate(_SPACED).decode()
    if "'" in spaced:
        spaced = f" {spaced} ".replace(" '", "  ").replace("' ", "  ")
    return tuple(spaced.split())


_TYPOGRAPHIC = (("’", "'"), ("‘", " "), ("“", " "), ("”", " "), ("—", " "), ("–", " "), ("…", " "))
_SPACED = bytes(ord(c.lower()) if WORD.fullmatch(c) or c == "'" else 32 for c in map(chr, range(128))) + bytes(128)


@lru_cache(maxsize=256)
def plain(text: str) -> str:
    """In lower case, with straight apostrophes and quotes, without asterisks, one blank between words."""
    for mark, straight in _STRAIGHT if not text.isascii() else ():
        text = text.replace(mark, straight)
    text = text.replace("*", "")
    return " ".join(text.casefold().split())


_STRAIGHT = (("’", "'"), ("‘", "'"), ("“", '"'), ("”", '"'))


def has_word(word: str, text: str) -> bool:
    """Whether it is there as a whole."""
    return word in text and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def as_written(phrase: str, text: str) -> str:
    """The span of `text` that reads as `phrase` once it is plain."""
    pieces = (re.escape(word).replace("'", "['’‘]").replace('"', '["“”]') for word in phrase.split())
    found = re.search(r"[\s*]+".join(pieces), text, re.IGNORECASE)
    return found[0] if found else phrase
