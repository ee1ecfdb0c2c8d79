"""Who is there? Which dialect does this address speak, and with which model?

Looking comes before asking: the lists of models first, then whether the paths exist, and only where nothing else tells, a
request for a single token.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from pipeline.client.headers import secrets_in, without
from pipeline.dialects import DIALECTS
from pipeline.dialects.base import count_of, error_text, well_formed
from pipeline.errors import ConfigError
from pipeline.records import GenerateConfig, Message, Request

_SUFFIXES = (
    *("/v1/chat/completions", "/v1/completions", "/v1/models", "/api/v1/generate", "/api/extra/generate/stream"),
    *("/api/v1/model", "/api/chat", "/api/generate", "/completion", "/v1"),
)
_TRIED = ("openai", "textgen", "completions", "llamacpp")  # by asking for a token, where nothing else tells
_HELLO = Request(messages=(Message(role="user", content="Hello"),), prompt="Hello", config=GenerateConfig(max_tokens=1))
_GLANCE = 3.0  # seconds for a look at what would be nice to know


@dataclass(frozen=True, slots=True)
class Server:
    """What was found at `url`, which is the address that the dialects' paths are appended to."""

    url: str = field(repr=False)  # may hold a password
    dialect: str
    models: tuple[str, ...]
    product: str = ""  # what it calls itself, with its version, where it tells
    slots: int | None = None  # requests that it works on at a time
    most: int | None = None  # requests beyond which it refuses
    context: int | None = None  # tokens of prompt and reply together


def base_url(address: str) -> tuple[str, str | None]:
    """An address as a person may paste it, without the path of an API, and the dialect if that path gives it away."""
    given = address.strip()
    # A password with a slash in it, say: what is shown could be a part of it.
    hidden = "@" in given or "?" in given
    looks = (
        f"the server's address looks like http://127.0.0.1:5000; {'what was given' if hidden else repr(given)} is none"
    )
    try:
        url = httpx.URL(given if "://" in given else f"http://{given}")
    except httpx.InvalidURL as exc:
        raise ConfigError(looks + ("." if hidden else f" ({exc}).")) from None
    sound = url.scheme in ("http", "https") and url.host and (url.port or 0) <= 65535
    if not sound or re.search(r"\s", given) or re.match(r"https?:/?(?!/)", given):
        raise ConfigError(f"{looks}. Without --server and LLM_HOST, the embedded model runs.")
    bare = str(url.copy_with(query=None, fragment=None)).rstrip("/")
    for suffix in _SUFFIXES:
        if url.path.rstrip("/").endswith(suffix):  # of the path: a host may be called v1
            named = next((name for name, dialect in DIALECTS.items() if dialect.path == suffix), None)
            return bare.removesuffix(suffix), named
    return bare, None


async def probe(
    address: str,
    *,
    dialect: str,
    transport: httpx.AsyncBaseTransport,
    headers: Callable[[str], httpx.Headers],
    key_variable: str = "LLM_API_KEY",
    patience: float = 10.0,
) -> Server:
    """Raises ConfigError if nobody answers, if a key is missing, or if it is some other service.

    `key_variable` is where a key would be found, `patience` in seconds, for one look.
    """
    url, named = base_url(address)
    if dialect == "auto" and named is not None:
        dialect = named
    look = _Look(url, transport, headers(url), key_variable, patience)
    status, body = await look.get("/v1/models")
    only_posts = status in (405, 501)  # to any GET, it seems: then that says nothing about a path
    if status == 200 and isinstance(body, dict) and isinstance(body.get("data"), list):
        listed = [model for model in body["data"] if isinstance(model, dict) and isinstance(model.get("id"), str)]
        found = Server(url, "openai", tuple(well_formed(model["id"]) for model in listed))
        if listed:
            found = replace(found, context=count_of(listed[0].get("max_model_len")))
        found = await _product(look, found, listed[0] if listed else {})
        return found if dialect == "auto" else replace(found, dialect=dialect)
    if dialect == "openai":
        return Server(url, dialect, ())
    status, body = await look.get("/api/v1/model")
    if status == 200 and isinstance(body, dict) and isinstance(body.get("result"), str):
        found = await _product(look, Server(url, "textgen", (body["result"],)), {})
        return found if dialect == "auto" else replace(found, dialect=dialect)
    if dialect != "auto":
        return Server(url, dialect, ())
    for name, candidate in DIALECTS.items():
        if not only_posts and (await look.get(candidate.path))[0] == 405:  # the path is there, and wants a POST
            return Server(url, name, ())
    refused = None
    for name in _TRIED:
        candidate = DIALECTS[name]
        status, body = await look.post(candidate.path, candidate.encode(_HELLO, model=None, stream=False))
        if status in (400, 422) and error_text(body) is not None:
            refused = refused or name  # it knows the path, and wants a model's name perhaps
        try:
            if status == 200 and candidate.decode(body) is not None:
                return Server(url, name, ())
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
    if refused is not None:
        return Server(url, refused, ())
    if url.endswith("/api"):  # as people write KoboldCpp's address
        return await probe(
            url.removesuffix("/api"),
            dialect=dialect,
            transport=transport,
            headers=headers,
            key_variable=key_variable,
            patience=patience,
        )
    raise ConfigError(look.nobody_known(await look.front_page()))


async def _product(look: "_Look", found: Server, model: dict[str, Any]) -> Server:
    """Which of the servers that all speak one dialect it is, and what it tells about itself. None of the looks has
    to be answered."""
    owner = model.get("owned_by")
    if owner == "vllm":
        version = await look.glance("/version")
        return replace(found, product=_called("vLLM", version))
    kobold = await look.glance("/api/extra/version")
    if kobold.get("result") == "KoboldCpp":
        context = count_of((await look.glance("/api/extra/true_max_context_length")).get("value"))
        # It works on one, queues six and refuses the next.
        return replace(found, product=_called("KoboldCpp", kobold), slots=1, most=6, context=context)
    props = await look.glance("/props")
    if "total_slots" in props:
        settings = props.get("default_generation_settings")
        context = count_of(settings.get("n_ctx") if isinstance(settings, dict) else props.get("n_ctx"))
        product = _called("llama.cpp", {"version": props.get("build_info")})
        return replace(found, product=product, slots=count_of(props["total_slots"]), context=context)
    tags, version = await look.glance("/api/tags"), await look.glance("/api/version")
    if isinstance(tags.get("models"), list) and "version" in version:
        # Its own API takes every option, and says what a reply took.
        running = (await look.glance("/api/ps")).get("models")
        loaded = [one["name"] for one in running or () if isinstance(one, dict) and isinstance(one.get("name"), str)]
        models = tuple(loaded) if len(loaded) == 1 and len(found.models) > 1 else found.models
        return replace(found, product=_called("Ollama", version), dialect="ollama", models=models)
    if (await look.glance("/v1/internal/health")).get("status") == "ok":
        return replace(found, product="text-generation-webui")
    owned = (await look.glance("/api/v0/models")).get("data")
    if isinstance(owned, list) and any(isinstance(one, dict) and "state" in one for one in owned):
        # It lists all that was ever downloaded, models for embeddings with them, and loads what is asked for.
        speak = [one for one in owned if isinstance(one, dict) and one.get("type") != "embeddings" and one.get("id")]
        loaded = [one for one in speak if one.get("state") == "loaded"] or speak
        models = tuple(one["id"] for one in loaded if isinstance(one["id"], str))
        return replace(found, product="LM Studio", models=models)
    described = await look.glance("/openapi.json")
    about, paths = described.get("info"), described.get("paths")
    if isinstance(about, dict) and "llama.cpp Python API" in str(about.get("title")):
        # A second request makes it break off the stream of the first, in the middle and without a word.
        return replace(found, product=_called("llama-cpp-python", about), slots=1, most=1)
    if isinstance(paths, dict) and "/load_model" in paths:
        # It lists the models in its cache. Started for one model, it serves that one and refuses the name of any other;
        # then it needs no name.
        hello = DIALECTS["openai"].encode(_HELLO, model=None, stream=False)
        status, _ = await look.post(DIALECTS["openai"].path, hello)
        return replace(found, product="transformers serve", slots=1, models=() if status == 200 else found.models)
    return found


def _called(name: str, answer: dict[str, Any]) -> str:
    version = answer.get("version")
    return f"{name} {version[:40]}" if isinstance(version, str) else name


class _Look:
    """Asks, and remembers what came in case that none of it is known."""

    def __init__(
        self,
        url: str,
        transport: httpx.AsyncBaseTransport,
        headers: httpx.Headers,
        key_variable: str,
        patience: float,
    ) -> None:
        self._url, self._transport, self._headers, self._patience = url, transport, headers, patience
        self._key_variable = key_variable
        self._seen: set[int] = set()  # statuses, 0 for no HTTP
        self._busy = ""
        self._text = ""
        self._slow = False
        self.shown = str(httpx.URL(url).copy_with(userinfo=b""))

    def nobody_known(self, page: str) -> str:
        if self._seen == {0}:
            return f"{self.shown}: something is there, but it speaks no HTTP. Is it the right port? Is it https://?"
        if self._busy:
            return f"{self.shown}: the server says: {self._busy}. Is it still loading its model? Try again in a moment."
        if "gradio" in page.lower():
            return (
                f"{self.shown}: a web page made with Gradio, as text-generation-webui has one, and no API. Start it with "
                "--api; the API then has a port of its own, usually 5000."
            )
        moved = any(300 <= status < 400 for status in self._seen)
        if 400 in self._seen and "https" in self._text.lower():
            return f"{self.shown}: it wants to be asked by https://, it says."
        title = re.search(r"<title[^>]*>([^<]{1,80})", page, re.IGNORECASE)
        return (
            f"{self.shown}: something answers"
            + (f", a page called {' '.join(title[1].split())!r}," if title else ",")
            + " but none of the APIs we know: OpenAI's (/v1/chat/completions), Ollama's, llama.cpp's, KoboldCpp's, "
            "text-generation-webui's. Is it the right port? text-generation-webui has an API only when started with --api. "
            "If you know better, say it with --dialect."
            + (" It redirects, which is not followed: give the address it points to." if moved else "")
        )

    async def front_page(self) -> str:
        """What a browser would get, in part."""
        with contextlib.suppress(ConfigError):
            status, _ = await self._ask("GET", "/", None)
            return self._text if status == 200 else ""
        return ""

    async def glance(self, path: str) -> dict[str, Any]:
        """The JSON object there, or an empty one whatever goes wrong. A server that keeps us waiting is not looked at again."""
        if self._slow:
            return {}
        try:
            async with asyncio.timeout(_GLANCE):
                status, body = await self._ask("GET", path, None)
        except ConfigError:
            return {}
        except TimeoutError:
            self._slow = True
            return {}
        return body if status == 200 and isinstance(body, dict) else {}

    async def get(self, path: str) -> tuple[int, Any]:
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await self._ask("POST", path, json.dumps(body).encode())

    async def _ask(self, method: str, path: str, content: bytes | None) -> tuple[int, Any]:
        request = httpx.Request(method, self._url + path, headers=self._headers, content=content)
        try:
            async with asyncio.timeout(self._patience):
                response = await self._transport.handle_async_request(request)
                try:
                    body = b"".join([chunk async for chunk in response.aiter_bytes()])
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as exc:
            usual = (
                "Is the server running, and is this its port? Without --server and LLM_HOST, the embedded model runs."
            )
            raise ConfigError(f"{self.shown}: cannot connect ({exc}). {getattr(exc, 'hint', usual)}") from exc
        except TimeoutError as exc:
            raise ConfigError(
                f"{self.shown}: connected, but no answer to {method} {path} within {self._patience:g} s. "
                "Is it still loading its model, or another service's port?"
            ) from exc
        except httpx.HTTPError:
            self._seen.add(0)
            return 0, None  # an answer of a kind: it may still know another path
        status = response.status_code
        self._seen.add(status)
        if status in (401, 403):
            where = (
                f"The environment variable {self._key_variable}" if self._key_variable else "`key` of a [targets.NAME]"
            )
            found = "another key than it was sent" if "Authorization" in self._headers else "a key"
            raise ConfigError(f"{self.shown}: the server wants {found} ({status}). {where} says which.")
        self._text = body[:20_000].decode("utf-8", "replace")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return status, None
        if status in (429, 503):
            self._busy = without(error_text(answer) or "", secrets_in(self._headers))
        return status, answer
