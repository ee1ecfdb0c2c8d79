"""Settings: the library's from `LLM_*` in the environment, a command's from its options.

The `LLM_*` names and defaults are those of Evennia's contrib `rpg/llm`, so that settings written for it mean the same
here. Headers and body are JSON in the environment.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError

DEFAULT_HOST = "http://localhost:5000"
DEFAULT_PATH = "/api/v1/generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMSettings:
    """Where `LLMClient.get_response` sends a prompt, and how. `path` is None unless somebody set it."""

    host: str = DEFAULT_HOST
    path: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    prompt_keyname: str = "prompt"
    request_body: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 250, "temperature": 0.7})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "LLMSettings":
        given: dict[str, Any] = {}
        for name, key in (("host", "LLM_HOST"), ("path", "LLM_PATH"), ("prompt_keyname", "LLM_PROMPT_KEYNAME")):
            if environment.get(key):
                given[name] = environment[key]
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
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        # The value may hold a key: it is not shown.
        raise ConfigError(f"{name} in the environment is not JSON: {exc.msg} at column {exc.colno}.") from exc
    if not isinstance(value, dict):
        raise ConfigError(f'{name} in the environment has to be a JSON object such as {{"NAME": "VALUE"}}.')
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run, as asked for. Paths are as the user gave them; None means the default that ships."""

    command: str  # "generate" or "eval"
    personas: str
    scenarios: str
    server: str = "embedded"
    dialect: str = "auto"
    model: str | None = None
    model_path: str | None = None
    prompts: str | None = None
    template: str = "npc/default"
    samples: int = 1
    per_persona: int | None = None  # None: every scenario that fits
    limit: int | None = None
    max_tokens: int = 80
    temperature: float | None = 0.7
    seed: int = 0
    concurrency: int | None = None  # None: what suits the server
    timeout: float = 120.0  # seconds for one reply, all its attempts together
    stream: bool = False
    strict: bool = False
    split_by: str = "both"

    headers: Mapping[str, str] | None = field(default=None, repr=False)  # from LLM_HEADERS: may hold a key

    # What may change between a run and its resumption without making it another run.
    FREE = ("concurrency", "timeout", "limit")

    def fingerprint(self) -> dict[str, Any]:
        """What makes this run this run: two commands that differ in nothing else share a folder."""
        hidden = {*self.FREE, "headers", "server"}
        return {
            "server": self.shown_server(),
            **{name: getattr(self, name) for name in self.__slots__ if name not in hidden},
        }

    def shown_server(self) -> str:
        """The server without a user name or password that may stand in its address."""
        scheme, found, rest = self.server.rpartition("://")
        host, slash, path = rest.partition("/")
        return scheme + found + host.rpartition("@")[2] + slash + path
