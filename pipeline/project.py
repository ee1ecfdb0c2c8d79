"""`pipeline.toml` in the working directory: servers under names, so that `--server NAME` is all there is to type.

[targets.gpu]
url = "http://127.0.0.1:8000"
model = "mira-7b"                # where the server has several
key = "GPU_KEY"                  # the environment variable that holds the key; LLM_API_KEY without it
price = [0.15, 0.60]             # for a million tokens, in and out
"""

import tomllib
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


class Project(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[str, NamedTarget] = {}


def named_target(server: str, option: str = "--server") -> NamedTarget | None:
    """The target of that name; None where `server` is an address. Raises ConfigError for a file that is not right, and for a
    word that is neither."""
    if _is_address(server):
        return None
    targets = _read().targets
    if server in targets:
        return targets[server]
    known = f"It has {', '.join(targets)}." if targets else "It has no targets." if FILE.exists() else "There is none."
    raise ConfigError(
        f"{option} {server}: no address, and no [targets.{server}] in {FILE} of this folder. {known} "
        "An address looks like http://127.0.0.1:5000."
    )


def _is_address(server: str) -> bool:
    return not server or any(sign in server for sign in ".:/@[") or server in ("localhost", "embedded")


def _read() -> Project:
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
        return Project.model_validate(found)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(NamedTarget.model_fields)
        raise ConfigError(f"{FILE}: {where}: {first['msg']}. A target may have {known}.") from None
