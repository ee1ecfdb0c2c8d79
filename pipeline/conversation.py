"""From a planned conversation to the request that asks for its next reply, and from the journal back to the reply.

For now a conversation is one turn: the player's first line, the NPC's answer.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

from pipeline.dialects import Dialect, dialect_named
from pipeline.journal import Journal
from pipeline.plan import CONTRAST
from pipeline.records import Completion, GenerateConfig, Item, Message, Request, Timing, Turn, digest
from pipeline.reply import UnreadableReply, read_reply, with_prompt_tokens
from pipeline.templates import Prompt, TemplateFailed, TextFormat
from pipeline.thinking import without_thinking


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
    merge_system: bool = False  # for models whose template has no system role

    def request(self, item: Item) -> Request:
        """Raises TemplateFailed: that costs the row."""
        messages = self.prompt.render(item, item.lines[0])
        if item.system is not None:
            rest = (message for message in messages if message.role != "system")
            messages = (Message(role="system", content=item.system), *rest)
        if item.arm == CONTRAST:
            messages = tuple(message for message in messages if message.role != "system")
            if not messages:
                raise TemplateFailed(f"{self.prompt.name}: without its system message nothing is left to ask")
        return self.as_sent(messages, item.npc, item.player, seed=item.seed(self.run_seed, 0, "npc"))

    def as_sent(self, messages: tuple[Message, ...], npc: SimpleNamespace, player: str, *, seed: int) -> Request:
        """The request for the NPC's answer to `messages`, as this model takes it. Raises TemplateFailed."""
        if self.merge_system:
            messages = merged(messages)
        config = replace(self.config, seed=seed)
        if self.text_format is None:
            return Request(messages=messages, config=config)
        text, stop = self.text_format.render(messages, npc, player)
        return Request(messages=messages, prompt=text, config=replace(config, stop=config.stop + stop))

    def ask(self, item: Item, place: int) -> Ask:
        request = self.request(item)
        key = digest(item.turn_id(0, "npc"), request.key(self.identity))
        return Ask(place, key, f"{item.npc.id} / {item.scenario_id} / {item.sample}", request)

    def walk(self, plan: Iterable[Item], journal: Journal, dialect: Dialect) -> "Walk":
        return Walk(self, plan, journal, dialect)


@dataclass(frozen=True, slots=True)
class _Planned:
    item: Item
    ask: Ask | None
    error: str = ""  # why there is nothing to ask


class Walk:
    """One walk along the plan by two: who asks goes ahead (`asks`), who reads the replies follows (`turns`), in the same
    order. What lies between them is held here, so that nothing is rendered twice, and a reply that has just come is not
    read from the journal again.
    """

    def __init__(self, script: Script, plan: Iterable[Item], journal: Journal, dialect: Dialect) -> None:
        self._script, self._journal, self._dialect = script, journal, dialect
        self._plan = self._planned(plan)
        self._between: deque[_Planned] = deque()
        self._fresh: dict[int, Completion] = {}

    @property
    def ahead(self) -> int:
        """How many conversations who asks is ahead of who reads."""
        return len(self._between)

    def asks(self) -> Iterator[Ask]:
        for planned in self._plan:
            self._between.append(planned)
            if planned.ask is not None:
                yield planned.ask

    def answered(self, ask: Ask, completion: Completion) -> None:
        """Hand over a reply that is in the journal already."""
        self._fresh[ask.place] = completion

    def turns(self) -> Iterator[Turn]:
        """All planned replies, with what is known of each."""
        while planned := self._between.popleft() if self._between else next(self._plan, None):
            yield self._turn(planned)

    def _planned(self, plan: Iterable[Item]) -> Iterator[_Planned]:
        for place, item in enumerate(plan):
            try:
                yield _Planned(item, self._script.ask(item, place))
            except TemplateFailed as exc:
                yield _Planned(item, None, str(exc))

    def _turn(self, planned: _Planned) -> Turn:
        item, ask = planned.item, planned.ask
        if ask is None:
            return Turn(item=item, line=item.lines[0], request=None, completion=None, error=planned.error)

        def turn(completion: Completion | None, error: str | None = None, *, is_open: bool = False) -> Turn:
            return Turn(
                item=item, line=item.lines[0], request=ask.request, completion=completion, error=error, open=is_open
            )

        if fresh := self._fresh.pop(ask.place, None):
            return turn(self._as_said(fresh, item, ask, fresh.timing, self._journal.attempts(ask.key)))
        recorded = self._journal.find(ask.key)
        if recorded is None:
            return turn(None, is_open=True)
        attempt = recorded.attempt
        if attempt.error is not None:
            return turn(None, attempt.error, is_open=not attempt.final)
        try:
            # A run may go on in another dialect: what is on record stays in that which it came in.
            dialect = self._dialect if attempt.dialect is None else dialect_named(attempt.dialect)
            reply = read_reply(dialect, attempt.body or "", streamed=attempt.streamed)
        except UnreadableReply as exc:
            return turn(None, str(exc))
        if attempt.tokens is not None:
            usage = replace(reply.usage, completion_tokens=attempt.tokens, source="tokenizer")
            reply = replace(reply, usage=usage)
        timing = attempt.timing if attempt.timing.sent else None  # nobody looked at a clock
        return turn(self._as_said(reply, item, ask, timing, recorded.attempts))

    def _as_said(self, reply: Completion, item: Item, ask: Ask, timing: Timing | None, attempts: int) -> Completion:
        said = clean(reply.text, item.npc.name, ask.request.config.stop)
        raw = reply.text if said != reply.text.strip() else None
        reply = with_prompt_tokens(reply, ask.request)
        return replace(reply, text=said, raw=raw, timing=timing, attempts=attempts)


def merged(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What the system messages say, at the head of the first message of the player."""
    system = [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return messages
    if not rest or rest[0].role != "user":
        return (Message(role="user", content="\n\n".join(system)), *rest)
    return (replace(rest[0], content="\n\n".join([*system, rest[0].content])), *rest[1:])


def clean(text: str, name: str, stop: tuple[str, ...] = ()) -> str:
    """The reply as the NPC says it: without thinking, up to the first of the strings that should have stopped it (some servers
    go on), and without the speaker's own name in front, which models like to repeat, bare or in bold."""
    text = without_thinking(text)
    said = _unlabelled(text.strip(), name)
    if said == text.strip():
        said = text  # with the line feed that it may begin with, and a string that stops it
    for one in stop:
        said = said.partition(one)[0]
    return said.strip()


def _unlabelled(text: str, name: str) -> str:
    # Without a regular expression: compiling one for each name takes longer than all else that is done to a reply.
    opening, closing = next((pair for pair in _BRACKETS if text.startswith(pair[0])), ("", ""))
    rest = text.removeprefix(opening)
    if not rest.startswith(name):
        return text
    rest = rest.removeprefix(name).lstrip()
    if not closing:
        return rest[1:].lstrip() if rest.startswith(":") else text
    if rest.startswith(f":{closing}"):  # **Mira:** Hello.
        return rest.removeprefix(f":{closing}").lstrip()
    after = rest.removeprefix(closing).lstrip()
    return after[1:].lstrip() if rest.startswith(closing) and after.startswith(":") else text


_BRACKETS = (("**", "**"), ("__", "__"), ("[", "]"))
