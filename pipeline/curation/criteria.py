"""What a reply has to be to be kept: `data/curation.yaml`, the author's own copy before it, `--set` before both.

Nothing here asks a server or touches a reply: other criteria on the same run ask for nothing anew.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.hints import meant, nearest, read_yaml
from pipeline.records import Score, Turn
from pipeline.resources import data_file, shipped
from pipeline.scorers import OF_PERSONAS, OF_RUN, SCORERS, OfRun, Scorer
from pipeline.scorers.lexicon import settle_folder
from pipeline.scorers.own import own_scorer

Floats = npt.NDArray[np.float64]

_FILE = "curation.yaml"
_FLAW = 0.1
TRAINING_PROMPT = "training_prompt"  # stands in the criteria of a dataset, too, and is no criterion
_PASSING = {"min": 0.5}  # of a user's own scorer that says nothing else
_SECTIONS = ("duplicates", "selection", "preference")
# Filters that are no scorers.
UNTRAINABLE = "train_prompt"  # of what the training prompt cannot be rendered for
AFTER_FLAW = "after_flaw"  # of what follows, in a conversation, on a reply that was dropped for a flaw
DUPLICATE = "duplicate"
LIMITS = ("max_per_prompt", "max_per_persona", "max_per_scenario")
_LEAST_ALIKE = 0.5  # what dedup.py can tell
KINDS = ("siblings", "contrast", "other_persona")
_WORDS = {"none": None, "on": True, "off": False, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which values pass. None: no bound."""

    least: float | None = None
    most: float | None = None

    def passes(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def less_is_better(self) -> bool:
        return self.least is None and self.most is not None

    def goodness(self, values: Floats) -> Floats:
        """How likely all is well on this side, to compare replies: the value itself; where less is better, 1 at nothing and
        a half at the bound. A flaw leaves a tenth, so that two are worse than one. What is not a number stays none."""
        if not self.less_is_better:
            return np.clip(values, _FLAW, 1.0)
        bound = self.most or 1.0
        return np.maximum(bound / (bound + np.maximum(values, 0.0)), _FLAW)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Least similarities (0 to 1) that make a duplicate; `words` is the least length of one across personas."""

    prompt: float
    persona: float
    anyone: float
    words: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The best so many stay; None: all."""

    max_per_prompt: int | None
    max_per_persona: int | None
    max_per_scenario: int | None


@dataclass(frozen=True, slots=True)
class Preference:
    """Kinds of pairs that are made, and the least difference in quality (0 to 1) between siblings."""

    siblings: bool
    contrast: bool
    other_persona: bool
    margin: float


@dataclass(frozen=True, slots=True)
class Panel:
    """The scorers of a run, ready to be asked."""

    of_reply: dict[str, Scorer]
    of_run: dict[str, OfRun]
    of_replies: dict[str, Callable[[Sequence[Turn]], list[Score]]] = field(
        default_factory=dict
    )  # faster, where many come at once

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.of_reply, *self.of_run)

    def read(self, turns: Sequence[Turn]) -> list[dict[str, Score]]:
        """What each says of each turn. Given some dozens at once, a scorer finds its words in the processor's cache and what all
        share of a reply still remembered: that is a quarter faster than one turn after the other."""
        by_scorer = [
            self.of_replies[name](turns) if name in self.of_replies else list(map(scorer, turns))
            for name, scorer in self.of_reply.items()
        ]
        return [dict(zip(self.of_reply, scores, strict=True)) for scores in zip(*by_scorer, strict=True)] or [
            {} for _ in turns
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    filters: Mapping[str, Bounds]  # in the order they are tried
    duplicates: Duplicates
    selection: Selection
    preference: Preference
    written: Mapping[str, Mapping[str, Any]]  # all of it as plain values
    left_out: tuple[str, ...]
    _functions: Mapping[str, Callable[..., Score]]

    def passes(self, scores: Mapping[str, Score]) -> bool:
        """Whether all of them do. What is not applicable drops nothing."""
        return all(score.value is None or self.filters[name].passes(score.value) for name, score in scores.items())

    def plain(self) -> dict[str, Any]:
        """As it could stand in data/curation.yaml."""
        filters: dict[str, Any] = {name: dict(self.written[name]) for name in self.filters}
        filters |= dict.fromkeys(self.left_out, False)
        return {"filters": filters, **{section: dict(self.written[section]) for section in _SECTIONS}}

    def panel(self, personas: Callable[[], Iterable[SimpleNamespace]]) -> Panel:
        """The scorers with their settings. `personas` gives the run's, for those that look at them first."""
        settle_folder()
        panel = Panel({}, {})
        for name in self.filters:
            default = _settings_of(name, self._functions)
            settings = {
                key: value
                for key, value in self.written[name].items()
                if key not in ("min", "max") and value != default[key]
            }
            if name in OF_RUN:
                panel.of_run[name] = OF_RUN[name](**settings)
            elif name in OF_PERSONAS:
                scorer = OF_PERSONAS[name](personas(), **settings)
                panel.of_reply[name], panel.of_replies[name] = scorer.score, scorer.score_all
            else:
                function = self._functions[name]
                panel.of_reply[name] = partial(function, **settings) if settings else function
        return panel


def load_criteria(settings: Sequence[str] = (), own: Sequence[str] = ()) -> Criteria:
    """`settings` as given to --set ("slop.max=8"), `own` as given to --scorer. Raises ConfigError, naming what is wrong."""
    functions: dict[str, Callable[..., Score]] = dict(SCORERS)
    written = _read(shipped("data") / _FILE)
    filters = written.pop("filters")
    # The last word on a scorer of one's own may be that it is left out: then its file need not be there any more.
    last = {name: right for name, _, right in (setting.partition("=") for setting in settings) if "." not in name}
    gone = {spec.rpartition(":")[2] for spec in own if last.get(spec.rpartition(":")[2], "").strip() == "off"}
    settings = [setting for setting in settings if setting.partition("=")[0].partition(".")[0].strip() not in gone]
    for spec in own:
        if spec.rpartition(":")[2] in gone:
            continue
        function = own_scorer(spec)
        name = function.__name__
        if name in filters or name in (*_SECTIONS, UNTRAINABLE, DUPLICATE, *LIMITS):
            raise ConfigError(f"--scorer {spec}: there is a {name} already. Give the function another name.")
        functions[name] = function
        filters[name] = dict(_PASSING)
    table = {**filters, **written}
    left_out: set[str] = set()
    if (path := data_file(_FILE)) != shipped("data") / _FILE:
        theirs = _read(path)
        for name, values in {**theirs.pop("filters", {}), **theirs}.items():
            _change(table, left_out, name, values, str(path), functions)
    for setting in settings:
        left, equals, right = setting.partition("=")
        name, dot, key = left.strip().partition(".")
        if not equals or (not dot and right.strip() not in ("off", "on")):
            raise ConfigError(f"--set {setting}: it has to read NAME.KEY=VALUE, as slop.max=8, or NAME=off.")
        values = {key: _value(right)} if dot else right.strip() == "on"
        _change(table, left_out, name, values, f"--set {setting}", functions)
    table = {name: values for name, values in table.items() if name not in left_out}
    known = (*SCORERS, *OF_PERSONAS, *OF_RUN, *functions)
    try:
        return Criteria(
            filters={
                name: Bounds(_number(values.get("min"), f"{name}.min"), _number(values.get("max"), f"{name}.max"))
                for name, values in table.items()
                if name in known
            },
            duplicates=Duplicates(
                **{
                    key: _share(table["duplicates"][key], f"duplicates.{key}", least=_LEAST_ALIKE)
                    for key in ("prompt", "persona", "anyone")
                },
                words=_count(table["duplicates"]["words"], "duplicates.words") or 0,
            ),
            selection=Selection(
                **{key: _count(value, f"selection.{key}") for key, value in table["selection"].items()}
            ),
            preference=Preference(
                **{kind: _switch(table["preference"][kind], f"preference.{kind}") for kind in KINDS},
                margin=_share(table["preference"]["margin"], "preference.margin"),
            ),
            written=table,
            left_out=tuple(sorted(left_out)),
            _functions=functions,
        )
    except (LookupError, TypeError) as exc:
        raise ConfigError(f"{shipped('data') / _FILE}: not whole: {exc}") from exc


def _read(path: Path) -> dict[str, dict[str, Any]]:
    read, _ = read_yaml(path)
    if read is None:  # all of it is comments
        read = {}
    if isinstance(read, dict):
        read.pop(TRAINING_PROMPT, None)
    if not isinstance(read, dict) or not all(isinstance(value, dict) for value in read.values()):
        raise ConfigError(f"{path}: it has to hold sections such as 'filters:', each with names and values.")
    if unknown := set(read) - {"filters", *_SECTIONS}:
        raise ConfigError(
            f"{path}: unknown section {(name := min(map(str, unknown)))!r}.{nearest(name, ('filters', *_SECTIONS))}"
        )
    return {
        section: {key: _WORDS.get(value, value) if isinstance(value, str) else value for key, value in values.items()}
        if section != "filters"
        else values
        for section, values in read.items()
    }


def _change(
    table: dict[str, dict[str, Any]],
    left_out: set[str],
    name: str,
    values: Any,
    where: str,
    functions: Mapping[str, Callable[..., Score]],
) -> None:
    """Take `values` of `name` into the table; False leaves a scorer out, True or a value takes it in again."""
    if name not in table:
        raise ConfigError(f"{where}: there is no {name!r}.{nearest(str(name), table)}")
    if isinstance(values, bool) and name not in _SECTIONS:
        (left_out.discard if values else left_out.add)(name)
        return
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {name} takes values by name, as {{{next(iter(table[name]), 'min')}: ...}}.")
    allowed = set(table[name]) if name in _SECTIONS else {"min", "max", *_settings_of(name, functions)}
    if unknown := set(values) - allowed:
        key = min(map(str, unknown))
        raise ConfigError(f"{where}: {name} has no {key!r}. It has: {', '.join(sorted(allowed))}.{meant(key, allowed)}")
    if name not in _SECTIONS:
        values = {key: None if key in ("min", "max") and value == "none" else value for key, value in values.items()}
        _check_settings(name, values, where, functions)
    table[name] = {**table[name], **values}
    left_out.discard(name)


def _settings_of(name: str, functions: Mapping[str, Callable[..., Score]]) -> dict[str, Any]:
    """The settings of a scorer, with their defaults."""
    made_by = functions.get(name) or OF_PERSONAS.get(name) or OF_RUN[name]
    parameters = inspect.signature(cast(Callable[..., Any], made_by)).parameters.values()
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
        or (parameter.kind in by_name and parameter.default is not parameter.empty)
    }


def _check_settings(
    name: str, values: Mapping[str, Any], where: str, functions: Mapping[str, Callable[..., Score]]
) -> None:
    """A setting is of the kind that its default is of: who made the scorer has thought of no other."""
    for key, default in _settings_of(name, functions).items():
        value = values.get(key, default)
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if number and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
            raise ConfigError(f"{where}: {name}.{key} is {value!r}: it has to be a number.")
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ConfigError(f"{where}: {name}.{key} is {value!r}: it has to be on or off.")


def _value(text: str) -> Any:
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _number(value: Any, what: str) -> float | None:
    if value is None or value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{what} is {value!r}: it has to be a number, or none for no bound.")
    return float(value)


def _share(value: Any, what: str, least: float = 0) -> float:
    number = _number(value, what)
    if number is None or not least <= number <= 1:
        raise ConfigError(f"{what} is {value!r}: it has to be a number from {least:g} to 1.")
    return number


def _switch(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{what} is {value!r}: it has to be on or off.")
    return value


def _count(value: Any, what: str) -> int | None:
    if value is None or value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} is {value!r}: it has to be a whole number from 1 on, or none.")
    return value
