"""`pipeline.toml` in the working directory: servers under names, so that `--server NAME` is all there is to type; and what
holds in this folder where the command line says nothing else.

[defaults]
personas = "personas"
suite = "suite"                  # eval has people of its own: it never takes those that generate trains on
server = "gpu"

[targets.gpu]
url = "http://127.0.0.1:8000"
model = "mira-7b"                # where the server has several
key = "GPU_KEY"                  # the environment variable that holds the key; LLM_API_KEY without it
price = [0.15, 0.60]             # for a million tokens, in and out
"""

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.dialects import dialect_named
from pipeline.errors import ConfigError
from pipeline.hints import meant, nearest, not_utf8, wanted

FILE = Path("pipeline.toml")

Price = tuple[Annotated[float, Field(ge=0, lt=1e9)], Annotated[float, Field(ge=0, lt=1e9)]]


class NamedTarget(BaseModel):
    """A server and how to talk to it. What is left out is found by looking, or has the command's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    dialect: str | None = None
    model: str | None = None
    key: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    concurrency: int | None = Field(None, ge=1, le=4096)
    timeout: float | None = Field(None, gt=0)
    insecure: bool | None = None
    system: Literal["keep", "merge"] | None = None
    format: str | None = None
    price: Price | None = None
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)


class Defaults(BaseModel):
    """Options of that name; which command takes which, `_TAKES` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    personas: str | None = None
    scenarios: str | None = None
    per_persona: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    suite: str | None = None
    prompts: str | None = None
    template: str | None = None
    server: str | None = None


_TAKES = {
    "generate": ("personas", "scenarios", "per_persona", "prompts", "template", "server"),
    "eval": ("suite", "prompts", "template", "server"),
    "ping": ("server",),
}


class Project(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    defaults: Defaults = Defaults()
    targets: dict[str, NamedTarget] = {}


def defaults(command: str, given: Collection[str]) -> dict[str, Any]:
    """What holds for the options of a command, but for those that are `given`. Raises ConfigError for a file that is not right,
    and for a file or folder that it names and that is not there."""
    written = read_project().defaults
    names = [name for name in _TAKES[command] if name not in given and getattr(written, name) is not None]
    for name in ("personas", "scenarios", "prompts"):
        if name in names and (problem := missing(written, name)):
            raise ConfigError(problem)
    found = {name: getattr(written, name) for name in names}
    return {name: None if name == "per_persona" and value == "all" else value for name, value in found.items()}


def missing(written: Defaults, name: str) -> str:
    """What is wrong with the place that a default names; "" for nothing, and for what may be somewhere else (OWNER/NAME)."""
    place = getattr(written, name)
    if place is None or "/" in place or Path(place).exists():
        return ""
    return f"{FILE}: defaults.{name}: there is no {place!r} in this folder."


def named_target(server: str, option: str = "--server") -> NamedTarget | None:
    """The target of that name; None where `server` is an address. Raises ConfigError for a file that is not right, and for a
    word that is neither."""
    if _is_address(server):
        return None
    targets = read_project().targets
    if server in targets:
        return targets[server]
    known = f"It has {', '.join(targets)}." if targets else "It has no targets." if FILE.exists() else "There is none."
    raise ConfigError(
        f"{option} {server}: no address, and no [targets.{server}] in {FILE} of this folder. {known}"
        f"{meant(server, ('embedded', *targets))} An address looks like http://127.0.0.1:5000."
    )


def _is_address(server: str) -> bool:
    return not server or any(sign in server for sign in ".:/@[") or server in ("localhost", "embedded")


def read_project() -> Project:
    """What the file says; nothing where there is none. Raises ConfigError with the place of what is wrong."""
    text = ""
    try:
        text = FILE.read_text("utf-8-sig")
        found: dict[str, Any] = tomllib.loads(text)
    except FileNotFoundError:
        return Project()
    except UnicodeDecodeError as exc:
        raise ConfigError(not_utf8(FILE)) from exc
    except OSError as exc:
        raise ConfigError(f"{FILE}: cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigError(_no_toml(str(exc))) from exc
    for name in found.get("targets", {}) if isinstance(found.get("targets"), dict) else ():
        if _is_address(name):
            raise ConfigError(f"{FILE}: targets.{name}: no name for a target: --server would take it for an address.")
    try:
        project = Project.model_validate(found)
    except ValidationError as exc:
        # Without what was found: people write a key where the name of its variable belongs.
        raise ConfigError(_said(exc.errors(include_url=False, include_input=False)[0], text)) from None
    for name, target in project.targets.items():
        try:
            dialect_named(target.dialect or "openai")
        except ConfigError as exc:
            raise ConfigError(f"{FILE}{_line(text, name, 'dialect')}: targets.{name}: {exc}") from exc
    server = project.defaults.server
    if server is not None and not _is_address(server) and server not in project.targets:
        raise ConfigError(
            f"{FILE}{_line(text, 'defaults', 'server')}: defaults.server: {server!r} is no address, and there is no "
            f"[targets.{server}].{meant(server, ('embedded', *project.targets))}"
        )
    return project


def _no_toml(said: str) -> str:
    """TOML's own error, which has line and column at its end."""
    said, _, place = said.partition(" (at ")
    line = re.match(r"line (\d+)", place)
    hint = ""
    if "Invalid value" in said:
        hint = ' A text stands in quotes: model = "mira-7b".'
    elif "\\" in said or "escape" in said.lower() or "hex" in said.lower():
        hint = " In 'single quotes' a backslash is a backslash."
    return f"{FILE}{':' + line[1] if line else ''}: not TOML: {said}.{hint}"


def _said(problem: Any, text: str) -> str:
    """The first thing that is wrong, and its line."""
    section, *inside = map(str, problem["loc"])
    if section not in Project.model_fields:
        return f"{FILE}{_line(text, section)}: unknown section {section!r}.{nearest(section, Project.model_fields)}"
    if section == "targets" and inside:
        section, inside = f"targets.{inside[0]}", inside[1:]
    path = section.split(".")
    if not inside:
        return f"{FILE}{_line(text, path[-1])}: [{section}] is a section of its own, with NAME = VALUE below it."
    where = f"{FILE}{_line(text, path[-1], inside[0])}: {section}"
    fields = Defaults.model_fields if section == "defaults" else NamedTarget.model_fields
    if problem["type"] == "missing":
        return f'{where}: it has no {inside[0]}. It needs one: {inside[0]} = "http://127.0.0.1:5000".'
    if problem["type"] == "extra_forbidden":
        return f"{where} has no {inside[0]!r}.{nearest(inside[0], fields)}"
    if inside[0] == "key":
        return f'{where}.key: it is the name of the environment variable that holds the key, as key = "GPU_KEY"; never the key.'
    return f"{where}.{'.'.join(inside)} {wanted(problem)}."


def _line(text: str, *names: str) -> str:
    """ ":LINE" of the section or the key that `names` lead to, as far as it is found."""
    found, names = "", tuple(map(re.escape, names))
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"""\s*(\[\s*(targets\s*\.\s*)?)?["']?{names[0]}["']?\s*[].=]""", line):
            found, names = f":{number}", names[1:]
            if not names:
                break
    return found
