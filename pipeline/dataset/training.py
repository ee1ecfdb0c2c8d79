"""The prompt that trains: as it was sent, or as the game will send it.

A model is asked with a long prompt that makes good replies, and trained on the one that the game can afford: another template
(`--train-prompt npc/short`), as one text (`--train-format transcript`, Evennia's), with its system message kept, merged into
the player's or dropped (`--system`). The replies stay the same, and no server is asked.
"""

from collections.abc import Sequence

from pipeline.config import RunConfig
from pipeline.prompts.templates import TemplateFailed, Templates
from pipeline.records import Message, Turn
from pipeline.run.conversation import merged, with_history

Side = str | list[dict[str, str]]  # a text, or messages as {role, content}


class TrainingPrompt:
    """Writes the prompt of a row, and its completions."""

    def __init__(self, config: RunConfig, templates: Templates) -> None:
        self._prompt = templates.prompt(config.train_prompt) if config.train_prompt else None
        self._format = templates.text_format(config.train_format) if config.train_format else None
        self._system = config.train_system or config.system
        if config.system == "merge" != self._system and self._prompt is None:
            self._prompt = templates.prompt(config.template)  # what was sent has no system message any more
        self._lines = self._prompt or templates.prompt(config.template)
        self.is_text = self._format is not None
        self.as_sent = self._prompt is None and not self.is_text and self._system == config.system
        self.name = "as it was sent" if self._prompt is None else self._prompt.name
        if self._format is not None:
            self.name += f", as one text ({config.train_format})"
        if self._system != "keep":
            self.name += f", system message {'merged into the first message' if self._system == 'merge' else 'dropped'}"

    def prompt(self, turn: Turn) -> Side:
        """Raises TemplateFailed: that costs the row."""
        assert turn.request is not None
        messages = turn.request.messages
        if self._prompt is not None:
            messages = self._prompt.render(turn.item, turn.line, turn.lore)
            messages = with_history(self._prompt, turn.item, messages, turn.history)
        if self._system == "merge":
            messages = merged(messages)
        elif self._system == "drop":
            messages = tuple(message for message in messages if message.role != "system")
        if not messages:
            raise TemplateFailed("without its system message the prompt is empty")
        if self._format is None:
            return _written(messages)
        # A blank at the end would be one token with the reply's first word, or not: it goes to the reply.
        return self._format.render(messages, turn.item.npc, turn.item.player)[0].rstrip(" ")

    def said(self, turn: Turn, prompt: Side) -> Side:
        """What the player's part of a turn adds to its conversation; `prompt` is that of the turn. Raises TemplateFailed."""
        return _written([self._lines.line(turn.item, turn.line)]) if turn.number else prompt

    def completion(self, prompt: Side, text: str) -> Side:
        """A reply to `prompt`. As text it goes on behind it, with a blank between if none is there."""
        if isinstance(prompt, str):
            return text if prompt[-1:].isspace() or not prompt else f" {text}"
        return [{"role": "assistant", "content": text}]


def _written(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
