"""A planned conversation: what to ask next, after all that was said.

The player's lines come first from the scenario; then a simulated player may go on, a model as well. Each request follows from
the plan and the answers before it alone, so that walking the plan with the journal rebuilds every conversation: who asks and
who reads take the same steps.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

from pipeline.client.reply import UnreadableReply, read_reply, with_prompt_tokens
from pipeline.client.thinking import without_thinking
from pipeline.config import WINDOW
from pipeline.dialects import Dialect, dialect_named
from pipeline.prompts.lore import lore_of
from pipeline.prompts.templates import Prompt, TemplateFailed, TextFormat
from pipeline.records import Completion, Exchange, GenerateConfig, Item, Message, Request, Turn, Usage, digest
from pipeline.run.ending import Ending, ending
from pipeline.run.journal import Journal
from pipeline.run.plan import CONTRAST

_BYTES = 3  # a token: fewer than in English, where a prompt that is too long would be refused

Said = tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, its place in the plan, the key its answer goes by in the journal, and a label for people.

    `speaker` is who answers. `line` is what an NPC answers to, and `history` what it is reminded of, with `lore` out of its
    lorebook. After the `last` nothing is asked, whatever the answer.
    """

    place: int
    key: str
    about: str
    request: Request
    speaker: Literal["npc", "player"] = "npc"
    line: str = ""
    history: Said = ()
    lore: tuple[str, ...] = ()
    last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that turns an item into requests: what was asked for, and to whom it goes.

    `text_format` is there when the dialect wants text; `identity` is that of the model, for the request's key. `turns` is how
    many replies a conversation has at most (None: as many as the scenario has lines), and `player` asks for the lines of a
    simulated player. Of the conversation, the newest `window` messages are sent, as far as there is `room` (tokens, with the
    rest of the prompt).
    """

    prompt: Prompt
    text_format: TextFormat | None
    config: GenerateConfig
    run_seed: int
    identity: str
    merge_system: bool = False  # for models whose template has no system role
    turns: int | None = 1
    player: "Script | None" = None
    window: int = WINDOW
    room: int | None = None

    def most(self, item: Item) -> int:
        """How many turns the conversation may have."""
        if item.arm == CONTRAST:
            return 1
        lines = len(item.lines)
        return (self.turns or lines) if self.player is not None else min(self.turns or lines, lines)

    def request(self, item: Item) -> Request:
        """That for the NPC's first reply. Raises TemplateFailed: that costs the row."""
        return self.ask(item, 0).request

    def ask(self, item: Item, place: int, said: Said = (), line: str = "") -> Ask:
        """For the NPC's answer to `line`, or to that of the scenario. Raises TemplateFailed."""
        number = len(said)
        line = line or item.lines[number]
        lore = () if item.arm == CONTRAST else lore_of(item.npc, line, said, item.history)
        messages, history = self.prompt.render(item, line, lore), said
        if item.system is not None:
            rest = (message for message in messages if message.role != "system")
            messages = (Message(role="system", content=item.system), *rest)
        if item.arm == CONTRAST:
            messages = tuple(message for message in messages if message.role != "system")
            if not messages:
                raise TemplateFailed(f"{self.prompt.name}: without its system message nothing is left to ask")
        # Not every template shows it, nor does a prompt that has lost its system message.
        lore = tuple(one for one in lore if any(one in message.content for message in messages))
        if said:
            history = self._remembered(said, messages, (self.window - 1) // 2)
            messages = with_history(self.prompt, item, messages, history)
        request = self.as_sent(messages, item.npc, item.player, seed=item.seed(self.run_seed, number, "npc"))
        key = digest(item.turn_id(number, "npc"), request.key(self.identity))
        last = number + 1 >= self.most(item)
        return Ask(place, key, _label(item, number), request, line=line, history=history, lore=lore, last=last)

    def ask_player(self, item: Item, place: int, said: Said) -> Ask:
        """For what the player says next. In its eyes the NPC is the user. Raises TemplateFailed."""
        number = len(said)
        messages = self.prompt.render(item)
        # Without the reply that it goes on from, it has nothing to say.
        history = self._remembered(said, messages, self.window // 2) or said[-1:]
        told = (
            message
            for line, reply in history
            for message in (Message(role="assistant", content=line), Message(role="user", content=reply))
        )
        seed = item.seed(self.run_seed, number, "player")
        request = self.as_sent((*messages, *told), SimpleNamespace(name=item.player), item.npc.name, seed=seed)
        key = digest(item.turn_id(number, "player"), request.key(self.identity))
        return Ask(place, key, _label(item, number) + " / player", request, "player", history=history, last=False)

    def as_sent(self, messages: tuple[Message, ...], npc: SimpleNamespace, player: str, *, seed: int) -> Request:
        """The request for the NPC's answer to `messages`, as this model takes it. Raises TemplateFailed."""
        if self.merge_system:
            messages = merged(messages)
        config = replace(self.config, seed=seed)
        if self.text_format is None:
            return Request(messages=messages, config=config)
        text, stop = self.text_format.render(messages, npc, player)
        return Request(messages=messages, prompt=text, config=replace(config, stop=config.stop + stop))

    def walk(self, plan: Iterable[Item], journal: Journal, dialect: Dialect) -> "Walk":
        return Walk(self, plan, journal, dialect)

    def _remembered(self, said: Said, messages: tuple[Message, ...], most: int) -> Said:
        """The newest of what was said that is to be sent with the other messages. The oldest goes first."""
        spent, kept = sum(_tokens(message.content) for message in messages), 0
        for exchange in reversed(said[-most:] if most else ()):
            spent += _tokens(exchange.line) + _tokens(exchange.reply)
            if self.room is not None and spent > self.room:
                break
            kept += 1
        return said[len(said) - kept :]


class Talk:
    """One planned conversation, as far as it has come."""

    def __init__(self, script: Script, item: Item, place: int, journal: Journal, dialect: Dialect) -> None:
        self.item, self.place = item, place
        self._script, self._journal, self._dialect = script, journal, dialect
        self._turns: list[Turn] = []
        self._said: Said = ()
        self._fresh: Completion | None = None
        self._line_usage: Usage | None = None
        self._next: Ask | None = None
        self._ask_npc()

    def open(self) -> Ask | None:
        """What is to be asked now; None when all is answered."""
        while (ask := self._next) is not None:
            if self._fresh is None and not self._journal.answered(ask.key):
                return ask
            if ask.last:  # who reads will look at it
                return None
            self._step(ask)
        return None

    def heard(self, completion: Completion) -> None:
        """Hand over the answer to what was open. It is in the journal already, and need not be read from there."""
        self._fresh = completion

    def turns(self) -> list[Turn]:
        """All its turns, with what is known of each. Nothing is asked any more."""
        while self._next is not None:
            self._step(self._next)
        return self._turns

    def _step(self, ask: Ask) -> None:
        """From what was asked to what comes next."""
        self._next = None
        completion, error, is_open = self._answer(ask)
        if ask.speaker == "player" and completion is not None:
            self._line_usage = completion.usage
            if completion.empty:
                self._turns[-1] = replace(self._turns[-1], ended="silence")
            else:
                self._ask_npc(completion.text)
            return
        ended: Ending = "" if is_open else "failed"
        if completion is not None:
            self._said += (Exchange(ask.line, completion.text),)
            ended = self._ending(completion)
        request = ask.request if ask.speaker == "npc" else None
        if ask.speaker == "player" and error is not None:
            error = f"the player's line: {error}"
        self._end(
            ask.line, request, completion, error, is_open=is_open, history=ask.history, lore=ask.lore, ended=ended
        )
        if completion is None or ended:
            return
        if len(self._said) < len(self.item.lines):
            self._ask_npc()
        else:
            self._ask_player()

    def _ending(self, reply: Completion) -> Ending:
        number, script = len(self._said), self._script
        if number >= script.most(self.item):
            return "script" if script.turns is None or number < script.turns else "turns"
        if reply.empty:
            return "silence"
        return "" if number < len(self.item.lines) else ending(self._said)

    def _ask_npc(self, line: str = "") -> None:
        try:
            self._next = self._script.ask(self.item, self.place, self._said, line)
        except TemplateFailed as exc:
            line = line or self.item.lines[len(self._said)]
            self._end(line, None, None, str(exc), ended="failed")

    def _ask_player(self) -> None:
        assert self._script.player is not None
        try:
            self._next = self._script.player.ask_player(self.item, self.place, self._said)
        except TemplateFailed as exc:
            self._end("", None, None, f"the player's line: {exc}", ended="failed")

    def _end(
        self,
        line: str,
        request: Request | None,
        completion: Completion | None,
        error: str | None,
        *,
        is_open: bool = False,
        history: Said = (),
        lore: tuple[str, ...] = (),
        ended: Ending = "",
    ) -> None:
        """A turn is over."""
        self._turns.append(
            Turn(
                item=self.item,
                line=line,
                request=request,
                completion=completion,
                error=error,
                open=is_open,
                number=len(self._turns),
                history=history,
                lore=lore,
                ended=ended,
                line_usage=self._line_usage,
            )
        )
        self._line_usage = None

    def _answer(self, ask: Ask) -> tuple[Completion | None, str | None, bool]:
        """What was said, or why nothing was, and whether asking (again) may help."""
        if (fresh := self._fresh) is not None:
            self._fresh = None
            return self._as_said(replace(fresh, attempts=self._journal.attempts(ask.key)), ask), None, False
        recorded = self._journal.find(ask.key)
        if recorded is None:
            return None, None, True
        attempt = recorded.attempt
        if attempt.error is not None:
            return None, attempt.error, not attempt.final
        try:
            # A run may go on in another dialect: what is on record stays in that which it came in.
            dialect = self._dialect if attempt.dialect is None else dialect_named(attempt.dialect)
            reply = read_reply(dialect, attempt.body or "", streamed=attempt.streamed)
        except UnreadableReply as exc:
            return None, str(exc), False
        if attempt.tokens is not None:
            usage = replace(reply.usage, completion_tokens=attempt.tokens, source="tokenizer")
            reply = replace(reply, usage=usage)
        timing = attempt.timing if attempt.timing.sent else None  # nobody looked at a clock
        return self._as_said(replace(reply, timing=timing, attempts=recorded.attempts), ask), None, False

    def _as_said(self, reply: Completion, ask: Ask) -> Completion:
        names = (self.item.npc.name, self.item.player)
        speaker, other = names if ask.speaker == "npc" else names[::-1]
        stop = ask.request.config.stop
        # Nobody has told the model that plays the player where to stop.
        said = clean(reply.text, speaker, stop if ask.speaker == "npc" else (*stop, f"\n{other}:"))
        raw = reply.text if said != reply.text.strip() else None
        return replace(with_prompt_tokens(reply, ask.request), text=said, raw=raw)


class Walk:
    """One walk along the plan by two: who asks goes ahead (`talks`), who reads the replies follows (`turns`), in the same
    order. What lies between them is held here, so that nothing is rendered twice, and a reply that has just come is not
    read from the journal again.
    """

    def __init__(self, script: Script, plan: Iterable[Item], journal: Journal, dialect: Dialect) -> None:
        self._plan = (Talk(script, item, place, journal, dialect) for place, item in enumerate(plan))
        self._between: deque[Talk] = deque()
        self._read = self._unread = 0  # conversations that the reader has taken; turns left of the last

    @property
    def ahead(self) -> int:
        """How many conversations who asks is ahead of who reads."""
        return len(self._between)

    def talks(self) -> Iterator[Talk]:
        for talk in self._plan:
            self._between.append(talk)
            yield talk

    def turns(self) -> Iterator[Turn]:
        """All turns, with what is known of each."""
        while talk := self._between.popleft() if self._between else next(self._plan, None):
            turns = talk.turns()
            self._read += 1
            self._unread = len(turns)
            for turn in turns:
                self._unread -= 1
                yield turn

    def readable(self, settled: int) -> bool:
        """Whether there is a turn to read, when so many conversations from the beginning of the plan are settled."""
        return self._unread > 0 or self._read < settled


def with_history(prompt: Prompt, item: Item, messages: tuple[Message, ...], history: Said) -> tuple[Message, ...]:
    """What was said before, ahead of the player's newest line. Raises TemplateFailed."""
    if history and "user" not in prompt.roles:
        raise TemplateFailed(f"{prompt.name} has no block 'user', before which the conversation would stand")
    at = max((place for place, message in enumerate(messages) if message.role == "user"), default=len(messages))
    told = (
        message
        for line, reply in history
        for message in (prompt.line(item, line), Message(role="assistant", content=reply))
    )
    return (*messages[:at], *told, *messages[at:])


def _tokens(text: str) -> int:
    return 4 + len(text.encode("utf-8", "replace")) // _BYTES  # four for the marks of a message


def _label(item: Item, number: int) -> str:
    return f"{item.npc.id} / {item.scenario_id} / {item.sample}" + (f" / {number}" if number else "")


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
