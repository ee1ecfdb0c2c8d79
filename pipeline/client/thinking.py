"""The block of thinking that some models begin their replies with, where the server does not take it out itself.

It is no part of what an NPC says. A server that takes it out sends it as `reasoning_content`; one that does not leaves
`<think>...</think>` in the text, or only the end of it where the prompt had opened the block.
"""

import re

_NAMES = ("think", "thinking", "reasoning", "seed:think")
_OPEN = re.compile(rf"\s*<({'|'.join(_NAMES)})>")
_TAGS = tuple(f"<{name}>" for name in _NAMES)
_LONGEST = max(map(len, _TAGS)) + 1


def without_thinking(text: str) -> str:
    """What is left of a reply to show. Of thinking that never ended, nothing is."""
    if opened := _OPEN.match(text):
        return text.partition(f"</{opened[1]}>")[2].lstrip()
    before, closed, rest = text.partition("</think>")
    return rest.lstrip() if closed and "<think>" not in before else text


class Thinking:
    """Follows a reply piece by piece."""

    def __init__(self) -> None:
        self._seen = ""  # as much as is needed to find a tag that comes in pieces
        self._close: str | None = None
        self._over = False

    def feed(self, piece: str) -> bool:
        """Whether all of this piece is hidden: thinking, or blank before anything is said."""
        if self._over:
            return False
        self._seen += piece
        if self._close is None:
            if opened := _OPEN.match(self._seen):
                self._close = f"</{opened[1]}>"
            else:
                begun = self._seen.lstrip()
                self._over = not any(tag.startswith(begun) for tag in _TAGS)
                return not self._over
        _, closed, rest = self._seen.partition(self._close)
        self._seen = self._seen[-_LONGEST:]
        self._over = bool(closed)
        return not rest.strip()
