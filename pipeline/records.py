"""The nouns: plain, frozen, keyword-only. Nothing here opens a file or a socket.

Ids and keys are hashes of content, never positions, so that adding a persona moves nothing else:

* item id       persona, scenario, template, arm, sample: one planned conversation
* turn id       item id, turn number, speaker: one reply inside it
* request key   the request as it will be sent and the identity of the model: what makes an answer re-usable
* answer key    turn id and request key: what the journal is indexed by
* seed          run seed and turn, without the arm: two arms under comparison draw alike
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal

KEY_VERSION = 1  # raise it when the canonical form of a request changes: old answers are then asked for again

Role = Literal["system", "user", "assistant"]
Speaker = Literal["npc", "player", "judge"]

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
    """Sampling. A field left None is not sent: the server's own default holds. `max_tokens` in tokens."""

    max_tokens: int | None = 80
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens, as the server counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. `sent` is the wall clock (Unix time), for the date only; all else counts from the moment of sending.

    `ttft` and `last` are the first and the last piece of content, and None where the reply did not stream.
    """

    sent: float
    e2e: float
    ttft: float | None = None
    last: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a server answered. An empty `text` is an answer. `timing` is of the attempt that brought it."""

    text: str
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    timing: Timing | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request on the wire and what became of it: `body` as it came (decoded as UTF-8), or `error`, or both."""

    number: int
    timing: Timing
    status: int | None = None
    streamed: bool = False
    body: str | None = None
    error: str | None = None
    final: bool = False  # an answer: a reply, or a refusal that would come again; not to be asked for again


@dataclass(frozen=True)
class Item:
    """One planned conversation. `npc` holds the persona's fields for templates and scorers, `lines` the player's."""

    npc: SimpleNamespace
    scenario_id: str
    category: str
    player: str
    lines: tuple[str, ...]
    template: str
    sample: int
    arm: str = ""

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
    """One reply of an NPC, with what a scorer may look at: the persona, the line it answers, what was sent."""

    item: Item
    line: str
    request: Request | None  # None: the template failed on this row
    completion: Completion | None  # None: no answer; `error` says why, or else nobody has asked yet
    error: str | None = None
    open: bool = False  # no answer yet, but asking (again) may bring one: resuming will

    @property
    def text(self) -> str:
        return self.completion.text if self.completion else ""


@dataclass(frozen=True, slots=True)
class Score:
    """`value` is 1 for good and 0 for bad, or between; None: not applicable, which is never a pass."""

    value: float | None
    reason: str = ""
    evidence: str = ""


Row = Mapping[str, Any]
