"""The nouns: plain, frozen, keyword-only. Nothing here opens a file or a socket.

Ids and keys are hashes of content, never positions, so that adding a persona moves nothing else:

* item id       persona, scenario, template, arm, sample: one planned conversation
* turn id       item id, turn number, speaker: one reply inside it, or the player's line before it
* request key   the request as it will be sent and the identity of the model: what makes an answer re-usable
* answer key    turn id and request key: what the journal is indexed by
* seed          run seed and turn, without the arm: two arms under comparison draw alike
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

KEY_VERSION = 1  # raise it when the canonical form of a request changes: old answers are then asked for again

Role = Literal["system", "user", "assistant"]
Speaker = Literal["npc", "player", "judge"]
TokenSource = Literal["server", "tokenizer", "estimate"]

_FIRST_SAMPLING = ("max_tokens", "temperature", "stop", "seed")
_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def digest(*parts: object) -> str:
    """128 bits of the parts as 32 hex digits, the same on any machine. JSON keeps ("ab", "c") and ("a", "bc") apart."""
    text = _canonical(parts)
    # A lone surrogate (from a "\ud800" in somebody's JSON) must not cost the run.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """Sampling. A field left None is not sent: the server's own default holds. `max_tokens` in tokens; `json_schema` is what
    the reply has to follow, where the server can see to it."""

    max_tokens: int | None = 80
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    json_schema: Mapping[str, Any] | None = None

    def given(self) -> dict[str, Any]:
        """What is to be sent, by name."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in found.items() if value is not None and value != ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing to ask a server: fully rendered, no template left in it."""

    messages: tuple[Message, ...]
    prompt: str | None = None  # the same as one string, where the dialect wants text
    config: GenerateConfig = field(default_factory=GenerateConfig)

    def key(self, identity: str) -> str:
        """Same request to the same model, same key, on any machine: what resuming goes by."""
        config = self.config
        return digest(
            KEY_VERSION,
            identity,
            [(m.role, m.content) for m in self.messages],
            self.prompt,
            [config.max_tokens, config.temperature, config.stop, config.seed],
            *([name, value] for name, value in config.given().items() if name not in _FIRST_SAMPLING),
        )

    @property
    def about_tokens(self) -> int:
        """An estimate for where nobody counts those of the prompt: four characters a token, as in English; other scripts have
        fewer."""
        return (len(self.prompt) if self.prompt is not None else sum(len(m.content) for m in self.messages)) // 4

    @property
    def text(self) -> str:
        """The prompt, or without one the messages as lines."""
        return self.prompt if self.prompt is not None else "\n".join(message.content for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens; None where nobody counted. `source` says who did: the server in its reply, its tokenizer when asked
    afterwards, or we, by an estimate from the text."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    source: TokenSource = "server"

    def cost(self, price: tuple[float, float]) -> float:
        """`price` is that of a million tokens: of the prompt, and of the reply."""
        return ((self.prompt_tokens or 0) * price[0] + (self.completion_tokens or 0) * price[1]) / 1_000_000


Read = tuple[float, bytes]  # of the network: the moment by `time.perf_counter`, and what came


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. `sent` is the wall clock (Unix time) of writing the request, for the date only.

    What came before the writing is a sum over all attempts so far: `queue` from the intended start until the client took
    the request up, `limiter` waiting for a slot, `backoff` between attempts on purpose, `earlier` in attempts that failed,
    `connect` from having a slot to writing (a new connection; else next to nothing).

    What came after it counts from the writing, by the network reads: `first_event` of a stream, `ttft` the first content,
    `ttfv` the first that a player may see (reasoning is content, but not visible), `last` the last content, `e2e` the end.
    `reads` brought content, the longest pause between two of them was `stall`. A read is not a token. All but `e2e` are None
    where the reply did not stream.

    `lag` is what our own event loop took from the reply's first bytes to whoever waited for them: as much as that may be
    wrong with the rest.
    """

    sent: float
    e2e: float
    queue: float = 0.0
    limiter: float = 0.0
    backoff: float = 0.0
    earlier: float = 0.0
    connect: float = 0.0
    first_event: float | None = None
    ttft: float | None = None
    ttfv: float | None = None
    last: float | None = None
    reads: int = 0
    stall: float | None = None
    lag: float | None = None

    @property
    def total(self) -> float:
        """What whoever asked has waited, from the intended start to the end."""
        return self.queue + self.limiter + self.backoff + self.earlier + self.connect + self.e2e

    @property
    def gap(self) -> float | None:
        """The mean pause between reads that brought content."""
        if self.ttft is None or self.last is None or self.reads < 2:
            return None
        return (self.last - self.ttft) / (self.reads - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a server answered. `timing` is of the attempt that brought it.

    `raw` is the text as it came, where something was taken out of it: thinking, the speaker's name.
    `server` has the server's own figures, under its own names and in its own units (llama.cpp's `timings`, vLLM's
    `metrics`, Ollama's `..._duration`).
    """

    text: str
    raw: str | None = None
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    server: Mapping[str, float] = field(default_factory=dict)
    timing: Timing | None = None
    attempts: int = 1

    @property
    def empty(self) -> bool:
        """The model said nothing: an outcome of its own, neither a reply nor a failure."""
        return not self.text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request on the wire and what became of it: `body` as it came (decoded as UTF-8), or `error`, or both.

    `number` counts from 1; 0 adds to what is known of the attempt before. `tokens` is what the server's tokenizer counts in
    the reply, where the reply itself does not say.
    """

    number: int
    timing: Timing
    status: int | None = None
    streamed: bool = False
    body: str | None = None
    error: str | None = None
    tokens: int | None = None
    dialect: str | None = None  # what the body is written in; None in journals of the first versions
    final: bool = False  # an answer: a reply, or a refusal that would come again; not to be asked for again


class Exchange(NamedTuple):
    """What the player said, and what the NPC answered."""

    line: str
    reply: str


@dataclass(frozen=True)
class Item:
    """One planned conversation. `npc` holds the persona's fields for templates and scorers, `lines` what the player is sure to
    say. `goal`, `temper` and `style` are a simulated player's; `remembers` has, by the line's number from 1 on, words of
    which one has to be in the reply."""

    npc: SimpleNamespace
    scenario_id: str
    category: str
    player: str
    lines: tuple[str, ...]
    template: str
    sample: int
    arm: str = ""
    # Of a reply that was had elsewhere: what was said before the line, the system message if it came with one, and the
    # conversation it is a part of.
    history: tuple[Message, ...] = ()
    system: str | None = None
    talk: str = ""
    goal: str = ""
    temper: str = ""
    style: str = ""
    remembers: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def item_id(self) -> str:
        return digest(self.npc.id, self.scenario_id, self.template, self.arm, self.sample)

    def turn_id(self, turn: int, speaker: Speaker) -> str:
        return f"{self.item_id}/{turn}/{speaker}"

    def seed(self, run_seed: int, turn: int, speaker: Speaker) -> int:
        """31 bits: what every server takes."""
        drawn = digest(run_seed, self.npc.id, self.scenario_id, self.template, self.sample, turn, speaker)
        return int(drawn[:8], 16) & 0x7FFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One reply of an NPC, with what a scorer may look at: the persona, the line it answers, what was sent.

    `number` counts from 0; `history` is what had been said before, as far as it was sent. The last turn of a conversation says
    why it `ended` (see run/ending.py); "" elsewhere, and while it is open.
    """

    item: Item
    line: str  # "": the simulated player has not said it
    request: Request | None  # None: the template failed on this row
    completion: Completion | None  # None: no answer; `error` says why, or else nobody has asked yet
    error: str | None = None
    open: bool = False  # no answer yet, but asking (again) may bring one: resuming will
    number: int = 0
    history: tuple[Exchange, ...] = ()
    ended: str = ""
    line_usage: Usage | None = None  # what the line took, where a simulated player said it
    lore: tuple[str, ...] = ()  # what the request says out of the persona's lorebook

    @property
    def text(self) -> str:
        return self.completion.text if self.completion else ""

    @property
    def reply_id(self) -> str:
        """Of this reply among all; the first one of a conversation goes by the item."""
        return reply_id(self.item.item_id, self.number)


def reply_id(item_id: str, turn: int) -> str:
    return f"{item_id}/{turn}" if turn else item_id


class Score(NamedTuple):
    """`value` is 1 for good and 0 for bad, or between; None: not applicable, which is never a pass."""

    value: float | None
    reason: str = ""
    evidence: str = ""


Row = Mapping[str, Any]
