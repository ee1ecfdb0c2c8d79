"""Settings: the library's from `LLM_*` in the environment, a command's from its options.

The `LLM_*` names and defaults are those of Evennia's contrib `rpg/llm`, so that settings written for it mean the same
here. Headers and body are JSON in the environment.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pipeline.errors import ConfigError

DEFAULT_HOST = "http://localhost:5000"
DEFAULT_PATH = "/api/v1/generate"
WINDOW = 25  # messages, as Evennia's LLMNPC remembers


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMSettings:
    """Where `LLMClient.get_response` sends a prompt, and how. `path` is None unless somebody set it."""

    # Not in the repr: what may hold a key.
    host: str = field(default=DEFAULT_HOST, repr=False)
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"}, repr=False)
    api_key: str | None = field(default=None, repr=False)
    prompt_keyname: str = "prompt"
    request_body: Mapping[str, Any] = field(
        default_factory=lambda: {"max_new_tokens": 250, "temperature": 0.7}, repr=False
    )

    @property
    def address(self) -> str:
        """Of the server: `host`, and `path` where somebody set it."""
        return self.host.rstrip("/") + (f"/{self.path.lstrip('/')}" if self.path else "")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "LLMSettings":
        given: dict[str, Any] = {}
        for name in ("host", "path", "api_key", "prompt_keyname"):
            if value := environment.get(f"LLM_{name.upper()}"):
                given[name] = value
        if environment.get("LLM_HEADERS"):
            headers = _json_object("LLM_HEADERS", environment["LLM_HEADERS"])
            # Evennia's newer form has lists of values.
            given["headers"] = {
                name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                for name, value in headers.items()
            }
        if environment.get("LLM_REQUEST_BODY"):
            given["request_body"] = _json_object("LLM_REQUEST_BODY", environment["LLM_REQUEST_BODY"])
        return cls(**given)


def _json_object(name: str, text: str) -> dict[str, Any]:
    # The value may hold a key: it is neither shown nor chained.
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{name} in the environment is not JSON: {exc.msg} at character {exc.pos + 1}.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets in brackets in brackets
        raise ConfigError(f"{name} in the environment is no JSON that can be read.") from None
    if not isinstance(value, dict):
        raise ConfigError(f'{name} in the environment has to be a JSON object such as {{"NAME": "VALUE"}}.')
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run, as asked for. Paths are as the user gave them."""

    command: str  # "generate" or "eval"
    personas: str
    scenarios: str
    server: str = field(default="embedded", repr=False)  # may hold a password
    dialect: str = "auto"
    model: str | None = None
    model_path: str | None = None
    lora: str | None = None  # an adapter for the embedded model
    prompts: str | None = None
    template: str = "npc/default"
    samples: int = 1
    per_persona: int | None = None  # None: every scenario that fits
    limit: int | None = None
    format: str = "transcript"  # how messages become one text, for a dialect that wants text
    system: str = "keep"  # or "merge" into the player's message
    max_tokens: int = 80
    temperature: float | None = 0.7
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int = 0
    concurrency: int | None = None  # None: found out while it runs; the embedded server has its own
    timeout: float = 120.0  # seconds for one reply, all its attempts together
    stream: bool = False
    insecure: bool = False  # any TLS certificate will do
    price: tuple[float, float] | None = None  # for a million tokens of prompts, and of replies
    max_cost: float | None = None  # of one invocation
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    key_variable: str = "LLM_API_KEY"  # the environment variable that holds the server's key
    strict: bool = False
    columns: str = ""  # as given to --map: which of theirs are which of ours
    split_by: str = "both"
    contrast: bool = False  # ask every question once more, without the persona
    settings: tuple[str, ...] = ()  # as given to --set
    scorers: tuple[str, ...] = ()  # as given to --scorer
    train_prompt: str | None = None  # a template; None: the prompt as it was sent
    train_format: str | None = None  # a text format; None: messages
    train_system: str | None = None  # keep, merge or drop; None: as it was sent
    held_out: str = ""  # by what a run's test split is held out; only that is asked
    gates: tuple[str, ...] = ()  # as given to --gate
    thinking_timeout: float = 2.0  # seconds after which a game shows that its NPC is thinking
    selected_on: tuple[str, ...] = ()  # scores that chose what the model was trained on
    turns: int | None = 1  # NPC replies of a conversation at most; None: as many as the scenario has lines
    player: str | None = None  # the template of a simulated player, who goes on where the scenario's lines end
    # OF_A_TARGET's, where another server plays the player.
    player_target: Mapping[str, Any] | None = field(default=None, repr=False)
    window: int = WINDOW  # messages of a conversation that are sent
    window_tokens: int | None = None  # of a prompt; None: what the model's context has room for

    headers: Mapping[str, str] | None = field(default=None, repr=False)  # from LLM_HEADERS: may hold a key

    # What may change between a run and its resumption without making it another run: how it is asked, and what becomes of the
    # replies. Latency holds for one concurrency, so that an evaluation has its concurrency for good.
    FREE = (
        *("concurrency", "timeout", "insecure", "limit", "price", "max_cost"),
        *("requests_per_minute", "tokens_per_minute", "key_variable"),
        *("contrast", "settings", "scorers", "train_prompt", "train_format", "train_system"),
        *("gates", "thinking_timeout", "selected_on"),
    )
    # What says who is asked, and how.
    OF_A_TARGET = (
        *("server", "dialect", "model", "model_path", "lora", "format", "system", "concurrency", "timeout", "insecure"),
        *("price", "requests_per_minute", "tokens_per_minute", "key_variable", "headers"),
    )
    # What there was not from the beginning counts only where somebody asks for it: older runs keep their names.
    _LATER = ("turns", "player", "player_target", "window", "window_tokens")

    def asked(self) -> dict[str, Any]:
        """All of it, for the manifest: without what may hold a key."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "headers"}
        if self.player_target is not None:
            player = {name: value for name, value in self.player_target.items() if name != "headers"}
            found["player_target"] = player | {"server": shown(player["server"])}
        return found | {"server": self.shown_server()}

    def fingerprint(self) -> dict[str, Any]:
        """What makes this run this run: two commands that differ in nothing else share a folder."""
        hidden = {*self.FREE, *(name for name in self._LATER if getattr(self, name) == _usual(name))}
        if self.command == "eval":
            hidden.remove("concurrency")
        found = {name: value for name, value in self.asked().items() if name not in hidden}
        return {"server": found.pop("server"), **found}

    def for_player(self) -> "RunConfig":
        """The same with whom the player's lines are asked from in the place of the NPC's server."""
        if self.player_target is None:
            return self
        usual = {name: _usual(name) for name in self.OF_A_TARGET if name != "timeout"}
        return replace(self, **usual | dict(self.player_target))

    def shown_server(self) -> str:
        return shown(self.server)


def _usual(name: str) -> Any:
    return next(one.default for one in fields(RunConfig) if one.name == name)


def shown(server: str) -> str:
    """The server without a user name, a password or a query that may stand in its address."""
    scheme, found, rest = server.partition("?")[0].partition("#")[0].rpartition("://")
    host, slash, path = rest.partition("/")
    return scheme + found + host.rpartition("@")[2] + slash + path
