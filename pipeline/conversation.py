"""From a planned conversation to the request that asks for its next reply, and from the journal back to the reply.

For now a conversation is one turn: the player's first line, the NPC's answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.dialects import Dialect
from pipeline.journal import Journal
from pipeline.plan import Plan
from pipeline.records import GenerateConfig, Item, Request, Turn, digest
from pipeline.reply import UnreadableReply, read_reply
from pipeline.templates import Prompt, TemplateFailed, TextFormat


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, its place in the plan, the key its answer goes by in the journal, and a label for people."""

    place: int
    key: str
    about: str
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that turns an item into a request: what was asked for, and to whom it goes.

    `text_format` is there when the dialect wants text; `identity` is that of the model, for the request's key.
    """

    prompt: Prompt
    text_format: TextFormat | None
    config: GenerateConfig
    run_seed: int
    identity: str

    def request(self, item: Item) -> Request:
        """Raises TemplateFailed: that costs the row."""
        messages = self.prompt.render(item, item.lines[0])
        config = replace(self.config, seed=item.seed(self.run_seed, 0, "npc"))
        if self.text_format is None:
            return Request(messages=messages, config=config)
        # A model that completes text would go on with the player's next line.
        stop = (f"\n{item.player}:", f"\n{item.npc.name}:")
        text = self.text_format.render(messages, item.npc, item.player)
        return Request(messages=messages, prompt=text, config=replace(config, stop=config.stop + stop))

    def ask(self, item: Item, place: int) -> Ask:
        request = self.request(item)
        key = digest(item.turn_id(0, "npc"), request.key(self.identity))
        return Ask(place, key, f"{item.npc.id} / {item.scenario_id} / {item.sample}", request)

    def asks(self, plan: Plan) -> Iterator[Ask]:
        for place, item in enumerate(plan):
            try:
                yield self.ask(item, place)
            except TemplateFailed:
                continue  # `turns` says which and why

    def turns(self, plan: Plan, journal: Journal, dialect: Dialect) -> Iterator[Turn]:
        """All planned replies in the order of the plan, with what the journal has of each."""
        for place, item in enumerate(plan):
            try:
                ask = self.ask(item, place)
            except TemplateFailed as exc:
                yield Turn(item=item, line=item.lines[0], request=None, completion=None, error=str(exc))
                continue
            turn = Turn(item=item, line=item.lines[0], request=ask.request, completion=None)
            recorded = journal.find(ask.key)
            if recorded is None:
                yield replace(turn, open=True)
                continue
            attempt = recorded.attempt
            if attempt.error is not None:
                yield replace(turn, error=attempt.error, open=not attempt.final)
                continue
            try:
                reply = read_reply(dialect, attempt.body or "", streamed=attempt.streamed)
            except UnreadableReply as exc:
                yield replace(turn, error=str(exc))
                continue
            text = clean(reply.text, item.npc.name)
            completion = replace(reply, text=text, timing=attempt.timing, attempts=recorded.attempts)
            yield replace(turn, completion=completion)


def clean(text: str, name: str) -> str:
    """The reply without the speaker's own name in front, which models like to repeat. The journal keeps it as it came."""
    text = text.strip()
    rest = text.removeprefix(name).lstrip()
    return rest[1:].lstrip() if text.startswith(name) and rest.startswith(":") else text
