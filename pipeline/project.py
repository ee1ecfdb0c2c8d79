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

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError

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
        f"{option} {server}: no address, and no [targets.{server}] in {FILE} of this folder. {known} "
        "An address looks like http://127.0.0.1:5000."
    )


def _is_address(server: str) -> bool:
    return not server or any(sign in server for sign in ".:/@[") or server in ("localhost", "embedded")


def read_project() -> Project:
    """What the file says; nothing where there is none. Raises ConfigError with the place of what is wrong."""
    try:
        found: dict[str, Any] = tomllib.loads(FILE.read_text("utf-8-sig"))
    except FileNotFoundError:
        return Project()
    except (OSError, ValueError) as exc:  # TOML's own error has line and column
        raise ConfigError(f"{FILE}: cannot be read: {exc}") from exc
    for name in found.get("targets", {}) if isinstance(found.get("targets"), dict) else ():
        if _is_address(name):
            raise ConfigError(f"{FILE}: targets.{name}: no name for a target: --server would take it for an address.")
    try:
        project = Project.model_validate(found)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        of_defaults = first["loc"][0] == "defaults"
        where = ".".join(map(str, first["loc"][: 2 if of_defaults else None]))
        what, model = ("[defaults]", Defaults) if of_defaults else ("A target", NamedTarget)
        known = ", ".join(model.model_fields)
        raise ConfigError(f"{FILE}: {where}: {first['msg']}. {what} may have {known}.") from None
    server = project.defaults.server
    if server is not None and not _is_address(server) and server not in project.targets:
        raise ConfigError(f"{FILE}: defaults.server: {server!r} is no address, and there is no [targets.{server}].")
    return project
