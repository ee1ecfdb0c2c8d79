"""Gates: what a model has to be, decided on the bound of an interval and not on a figure that another draw would change.

    in_character >= 0.9        passes if the whole 95 % interval lies there, fails if none of it does; else it is inconclusive
    slop <= base + 0.02        the same, of the difference to the arm called base, on the items that both have

All gates have to pass: each does so by its own interval, since a set of claims that all have to hold is no likelier to be
accepted by chance than the weakest of them (an intersection-union test: Berger 1982). One that fails fails the whole, so that
failing is what chance could bring about: it is claimed at a level that Holm (1979) adjusts for how many gates there are.

Where too little was answered, nothing is decided: the replies that failed may have been the hard ones.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.comparison import Arm
from pipeline.errors import ConfigError
from pipeline.evaluation.measures import MEASURES, Estimate, difference, measured
from pipeline.hints import nearest
from pipeline.stats import LEVEL

COVERED = 0.95  # share of what was asked that has to have a reply
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+"
_GATE = re.compile(
    rf"\s*([A-Za-z_]\w*)\s*(>=|<=)\s*(?:(-?(?:{_NUMBER}))|([A-Za-z_][\w-]*)\s*(?:([+-])\s*({_NUMBER}))?)\s*", re.ASCII
)

EXIT_CODES = {"passed": 0, "failed": 1, "inconclusive": 3}

Verdict = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Gate:
    """`measure` at least (or at most) `bound`; with a `base`, its difference to that arm is what is bounded."""

    text: str
    measure: str
    at_least: bool
    bound: float
    base: str | None

    def holds(self, found: Estimate) -> Verdict:
        end = found.low if self.at_least else found.high
        if end is not None and (end >= self.bound if self.at_least else end <= self.bound):
            return "passed"
        return "failed" if self.violated(found) else "inconclusive"

    def violated(self, found: Estimate) -> bool:
        end = found.high if self.at_least else found.low
        return end is not None and (end < self.bound if self.at_least else end > self.bound)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a gate for an arm; the estimate is of the measure, or of its difference to the base."""

    gate: str
    arm: str
    verdict: Verdict
    why: str
    value: float | None
    low: float | None
    high: float | None


def parse_gate(text: str, scorers: Collection[str], arms: Sequence[str] | None = ()) -> Gate:
    """Raises ConfigError, saying what was found and what there is, before anything is asked. `arms` is None where they are not
    known yet."""
    found = _GATE.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--gate {text!r}: it has to read 'MEASURE >= NUMBER', or 'MEASURE <= ARM + NUMBER', as 'in_character >= 0.9'."
        )
    measure, sign, number, base, direction, margin = found.groups()
    known = (*scorers, *MEASURES)
    if measure not in known:
        raise ConfigError(f"--gate {text!r}: there is no {measure!r}.{nearest(measure, known)}")
    if base is not None and arms is not None and base not in arms:
        there = f"There are: {', '.join(arms)}." if arms else "Arms are made by --arm NAME:KEY=VALUE."
        raise ConfigError(f"--gate {text!r}: there is no arm {base!r}. {there}")
    bound = float(number) if number is not None else float(margin or 0) * (-1 if direction == "-" else 1)
    return Gate(text.strip(), measure, sign == ">=", bound, base)


def decide(gates: Sequence[Gate], arms: Mapping[str, Arm], patience: float) -> list[Decision]:
    """Every gate for every arm but the first, which is what the others are measured against; for the only one where there is
    but one. `patience`: seconds until a reply is late."""
    tested = list(arms)[1:] or list(arms)
    asked = [(gate, name) for gate in gates for name in tested if name != gate.base]

    def estimate(gate: Gate, name: str) -> Callable[[float], Estimate]:
        if gate.base is None:
            return lambda level: measured(arms[name], gate.measure, patience, level=level)
        base = arms[gate.base]
        return lambda level: difference(base, arms[name], gate.measure, patience, level=level)

    estimates = [estimate(gate, name) for gate, name in asked]
    thin = [_thin(gate, name, arms) for gate, name in asked]
    failing = _failing([(gate, at) for (gate, _), at, few in zip(asked, estimates, thin, strict=True) if not few])
    decisions = []
    for (gate, name), at, few in zip(asked, estimates, thin, strict=True):
        found = at(LEVEL)
        verdict = "inconclusive" if few else gate.holds(found)
        why = few or _why(gate, found)
        if verdict == "failed" and at not in failing:
            verdict, why = "inconclusive", f"it fails by itself, but among {len(asked)} gates that may be chance"
        decisions.append(Decision(gate.text, name, verdict, "" if verdict == "passed" else why, **asdict(found)))
    return decisions


def _failing(gates: list[tuple[Gate, Callable[[float], Estimate]]]) -> list[Callable[[float], Estimate]]:
    """Those that fail at the level that Holm leaves them: with every gate that is found to fail, one less is to be paid for."""
    failing: list[Callable[[float], Estimate]] = []
    while len(failing) < len(gates):
        level = 1 - (1 - LEVEL) / (len(gates) - len(failing))
        more = [at for gate, at in gates if at not in failing and gate.violated(at(level))]
        if not more:
            break
        failing += more
    return failing


def _thin(gate: Gate, name: str, arms: Mapping[str, Arm]) -> str:
    for arm in filter(None, (name, gate.base)) if gate.base else (name,):
        if arms[arm].coverage < COVERED:
            of = f" of {arm}" if arm else ""
            return f"only {arms[arm].coverage:.0%} of what was asked{of} has a reply; {COVERED:.0%} are needed"
    return ""


def _why(gate: Gate, found: Estimate) -> str:
    if found.value is None:
        return "no reply has a value for it"
    if found.low is None and found.high is None:
        return "too few personas for an interval"
    end, side = (found.low, "lower") if gate.at_least else (found.high, "upper")
    if end is None:
        return f"too few replies for the {side} bound of its interval"
    return "" if gate.violated(found) else f"{gate.bound:g} lies in its interval"


def plain(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    return [asdict(one) for one in decisions]


def overall(decisions: Sequence[Mapping[str, Any]]) -> Verdict:
    """Of all gates together; of none, "passed"."""
    verdicts = {one["verdict"] for one in decisions}
    return "failed" if "failed" in verdicts else "inconclusive" if "inconclusive" in verdicts else "passed"
