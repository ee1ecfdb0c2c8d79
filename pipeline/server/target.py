"""Who answers: the embedded model, or a server that somebody runs.

A target is found without asking it for anything: its dialect, its model, and the identity that answers are kept under.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipeline.client.autolimit import AutoLimit
from pipeline.client.client import LLMClient, default_transport
from pipeline.client.headers import request_headers
from pipeline.client.probe import Server, probe
from pipeline.client.rate import RateLimit
from pipeline.config import RunConfig
from pipeline.dialects import DIALECTS, Dialect, dialect_named
from pipeline.errors import ConfigError
from pipeline.hints import meant
from pipeline.interrupt import ending_at_once
from pipeline.server.embedded import CONTEXT, EmbeddedServer, slots
from pipeline.server.models import Model, demo_model, local_model, with_adapter

Say = Callable[[str], None]

_PATIENCE = 10.0  # seconds for a look at a server: it may be busy with somebody else's reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Who answers. `identity` is that of the model; `shown` is for people and files, and has no key in it."""

    shown: str
    url: str
    dialect: Dialect
    model: str | None
    identity: str
    concurrency: int | AutoLimit
    product: str = ""  # what the server calls itself
    slots: int | None = None  # requests that it works on at a time, where it tells
    context: int | None = None  # tokens, where it tells
    stop: tuple[str, ...] = ()
    demo: bool = False  # replies of the demonstration model are not worth training on
    licence: str = ""
    embedded: Model | None = None
    headers: dict[str, str] | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)

    @property
    def at_a_time(self) -> int | Literal["auto"]:
        """How many requests are in flight, for people and files."""
        return self.concurrency if isinstance(self.concurrency, int) else "auto"


async def find_target(config: RunConfig, say: Say) -> Target:
    """The model to be asked. Looks at a server, but does not start the embedded one."""
    if config.server == "embedded":
        model = local_model(Path(config.model_path)) if config.model_path else demo_model(say)
        if config.lora:
            model = with_adapter(model, Path(config.lora))
        at_a_time = config.concurrency or slots()
        return Target(
            shown="embedded",
            url="",
            dialect=DIALECTS["openai"],
            model=model.name,
            product="llama.cpp, embedded",
            identity=model.identity,
            concurrency=at_a_time,
            slots=at_a_time,
            context=CONTEXT,
            stop=model.stop,
            demo=model.demo,
            licence=model.licence,
            embedded=model,
        )
    if config.model_path:
        raise ConfigError("--model-path is for the embedded server; a server of your own has its model already.")
    if config.lora:
        raise ConfigError("--lora is for the embedded server; give the adapter to your own server when you start it.")
    api_key = os.environ.get(config.key_variable)
    if config.key_variable != "LLM_API_KEY" and config.key_variable and not api_key:
        say(f"{config.shown_server()}: its key is to be in {config.key_variable}, which is not set; asking without one")
    headers = dict(config.headers) if config.headers else None
    transport = default_transport(insecure=config.insecure)
    try:
        with ending_at_once():
            found = await probe(
                config.server,
                dialect=config.dialect,
                transport=transport,
                headers=lambda url: request_headers(url, api_key, headers),
                key_variable=config.key_variable,
                patience=min(_PATIENCE, config.timeout),
            )
    finally:
        await transport.aclose()
    model_name = config.model
    if model_name is None and len(found.models) > 1:
        raise ConfigError(
            f"{config.shown_server()} has {len(found.models)} models. Choose one with --model: "
            + ", ".join(found.models[:10])
        )
    if model_name is None and found.models:
        model_name = found.models[0]
    elif found.models and model_name not in found.models:
        say(
            f"{config.shown_server()}: there is no {model_name!r} in its list, but {', '.join(found.models[:10])}; "
            f"asking for it all the same.{meant(str(model_name), found.models)}"
        )
    said = [found.product, found.dialect, f"model {model_name}" if model_name else "model unnamed"]
    said += [f"{found.context} tokens of context"] if found.context else []
    say(f"{config.shown_server()}: " + ", ".join(filter(None, said)))
    return Target(
        shown=config.shown_server(),
        url=found.url,
        dialect=dialect_named(found.dialect),
        model=model_name,
        identity=model_name or config.shown_server(),
        product=found.product,
        slots=found.slots,
        context=found.context,
        concurrency=_concurrency(config, found, say),
        headers=headers,
        api_key=api_key,
    )


def _concurrency(config: RunConfig, found: Server, say: Say) -> int | AutoLimit:
    """As many at a time as were asked for; else what the server says, or what it takes to find out."""
    if config.concurrency is None:
        most = found.most or found.slots or AutoLimit().most
        # Ollama works on one unless told otherwise.
        start = 1 if found.dialect.startswith("ollama") else AutoLimit().start
        return AutoLimit(start=min(found.slots or start, most), most=most)
    if found.most is not None and config.concurrency > found.most:
        say(f"{found.product} takes {found.most} at a time, not {config.concurrency}: more would be refused or cut off")
        return found.most
    return config.concurrency


@asynccontextmanager
async def connected(config: RunConfig, target: Target) -> AsyncIterator[LLMClient]:
    """A client for the target, which is started first if it is the embedded one."""
    async with contextlib.AsyncExitStack() as stack:
        if target.embedded is not None:
            model = target.embedded
            assert isinstance(target.concurrency, int)  # it is started with as many slots
            server = await stack.enter_async_context(
                EmbeddedServer(model.path, parallel=target.concurrency, adapter=model.adapter)
            )
            target = replace(target, url=server.url, api_key=server.api_key)
        yield await stack.enter_async_context(
            LLMClient(
                target.url,
                dialect=target.dialect.name,
                model=target.model,
                api_key=target.api_key,
                headers=target.headers,
                timeout=config.timeout,
                stream=config.stream,
                concurrency=target.concurrency,
                insecure=config.insecure,
                rate=RateLimit(config.requests_per_minute, config.tokens_per_minute),
            )
        )
