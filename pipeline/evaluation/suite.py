"""What an evaluation asks: a folder with personas and scenarios of its own, and `suite.yaml`, which says the rest.

    description: ...
    personas: personas          a file or folder beside suite.yaml; this is what it is called unless something else stands here
    scenarios: scenarios
    per_persona: 4              scenarios that each persona meets, or all
    repeats: 1                  replies to each
    scorers: [in_character, slop, my.py:rhymes]         those alone; without it, all
    gates: ["in_character >= 0.9"]

What stands on the command line goes before it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.curation.criteria import load_criteria
from pipeline.errors import ConfigError
from pipeline.evaluation.gates import parse_gate
from pipeline.hints import nearest, read_yaml, wanted
from pipeline.resources import shipped

_FILE = "suite.yaml"
_LIMIT = 2**20  # bytes


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid")

    description: str = ""
    personas: str = "personas"
    scenarios: str = "scenarios"
    per_persona: Annotated[int, Field(ge=1)] | Literal["all"] = 4
    turns: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    repeats: int = Field(1, ge=1)
    scorers: list[str] | None = None
    gates: list[str] = []


class Suite:
    """A suite that was read and found whole: what it names is there.

    `settings` leave out the scorers it does not name, as --set would; `own` are scorers of the user's own, with whole paths.
    """

    def __init__(self, path: Path, written: _Written) -> None:
        self.path = path
        self.description = written.description
        self.personas, self.scenarios = (
            self._there(kind, name) for kind, name in (("personas", written.personas), ("scenarios", written.scenarios))
        )
        self.per_persona = None if written.per_persona == "all" else written.per_persona
        self.turns = None if written.turns == "all" else written.turns
        self.repeats = written.repeats
        self.gates = tuple(written.gates)
        self.settings, self.own = self._scorers(written.scorers)
        self._check_gates()

    def _there(self, kind: str, name: str) -> str:
        found = self.path.parent / Path(name).expanduser()
        if not found.exists():
            raise ConfigError(f"{self.path}: {kind} {name!r}: there is no {found}. It is looked for beside the suite.")
        return str(found)

    def _check_gates(self) -> None:
        known = (*load_criteria().filters, *(spec.rpartition(":")[2] for spec in self.own))
        for gate in self.gates:
            try:
                parse_gate(gate, known, arms=None)
            except ConfigError as exc:
                raise ConfigError(f"{self.path}: gates: {str(exc).removeprefix('--gate ')}") from exc

    def _scorers(self, named: list[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if named is None:
            return (), ()
        own = tuple(f"{self.path.parent.absolute() / file}:{name}" for file, name in _own(named))
        known = load_criteria().filters
        for name in named:
            if ":" not in name and name not in known:
                raise ConfigError(f"{self.path}: scorers: there is no {name!r}.{nearest(name, known)}")
        return tuple(f"{name}=off" for name in known if name not in named), own


def read_suite(name: str) -> Suite:
    """A suite that ships, by its name; or a folder, or a YAML file. Raises ConfigError for what is not there or not whole."""
    path = Path(name).expanduser()
    if path.is_file():
        return Suite(path, _read(path))
    folder = path if path.is_dir() else shipped("data") / "suites" / name
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in (shipped("data") / "suites").iterdir() if p.is_dir()))
        raise ConfigError(
            f"--suite {name}: no such suite. There are: {known}; or give a folder with personas/ and scenarios/, "
            f"or its {_FILE}."
        )
    file = folder / _FILE
    return Suite(file, _read(file) if file.is_file() else _Written.model_validate({}))


def _read(path: Path) -> _Written:
    if path.stat().st_size > _LIMIT:
        raise ConfigError(f"{path}: over {_LIMIT // 2**20} MiB. A suite names its personas, it does not hold them.")
    values, lines = read_yaml(path)
    if values is None:  # all of it is comments
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a suite has to hold keys such as {', '.join(_Written.model_fields)}.")
    try:
        return _Written.model_validate({str(key): value for key, value in values.items()})
    except ValidationError as exc:
        raise ConfigError(_said(path, lines, exc)) from exc


def _said(path: Path, lines: Mapping[str, int], exc: ValidationError) -> str:
    """The first thing that is wrong, and its line."""
    problem = exc.errors(include_url=False)[0]
    key = str(problem["loc"][0])
    where = f"{path}:{lines[key]}" if key in lines else str(path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: a suite has no {key!r}.{nearest(key, _Written.model_fields)}"
    return f"{where}: {key} is {str(problem['input'])[:80]!r}: it {wanted(problem)}."


def _own(named: list[str]) -> list[tuple[str, str]]:
    return [(file, name) for file, colon, name in (one.rpartition(":") for one in named) if colon]
