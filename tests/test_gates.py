"""Gates are decided on the bound of an interval; where it cannot be told, they say so."""

import random

import numpy as np
import pytest

from pipeline.comparison.arm import Arm, Load
from pipeline.errors import ConfigError
from pipeline.evaluation.gates import decide, overall, parse_gate
from pipeline.evaluation.measures import MEASURES, measured

SCORERS = ("in_character", "slop")


def arm(share, *, personas=30, scenarios=6, seconds=1.0, errors=0.0, seed=0, repeats=1):
    """Replies of which a share is in character; each takes about so many seconds."""
    draw = random.Random(seed)
    made = Arm("arm", less=frozenset({"slop"}), load=Load(1, True, False))
    replies, values, times, slop = [], [], [], []
    for persona in range(personas):
        for scenario in range(scenarios):
            for _ in range(repeats):
                if draw.random() < errors:
                    made.states["error"] += 1
                    continue
                replies.append(made.add((f"p{persona}", f"s{scenario}"), "?", "text"))
                made.states["reply"] += 1
                values.append(float(draw.random() < share))
                slop.append(draw.random() * 4)
                times.append(seconds * draw.uniform(0.5, 1.5))
    made.scores = {"in_character": (replies, values), "slop": (replies, slop)}
    made.seconds = {"e2e": (replies, times)}
    made.busy = sum(times)
    return made


def verdict(gate, arms, patience=2.0):
    (decision,) = decide([parse_gate(gate, SCORERS, list(arms))], arms, patience)
    return decision.verdict, decision.why


@pytest.mark.parametrize(
    "gate, expected",
    [
        ("in_character >= 0.8", "passed"),
        ("in_character >= 0.9", "inconclusive"),
        ("in_character >= 0.99", "failed"),
        ("slop <= 2.5", "passed"),
        ("slop<=1", "failed"),
        ("e2e_p50 <= 1.2", "passed"),
        ("e2e_p95 <= 0.9", "failed"),
        ("in_time >= .8", "passed"),
        ("usable >= 0.8", "passed"),
        ("usable_per_second >= 0.1", "passed"),
        ("usable_per_second >= 5", "failed"),
    ],
)
def test_an_absolute_gate_goes_by_the_bound_of_its_interval(gate, expected):
    assert verdict(gate, {"": arm(0.9)})[0] == expected


def test_a_gate_against_an_arm_goes_by_the_paired_difference():
    arms = {"base": arm(0.9, seed=1), "tuned": arm(0.6, seed=2, seconds=2.0)}
    assert verdict("in_character >= base - 0.1", arms)[0] == "failed"
    assert verdict("in_character >= base - 0.6", arms)[0] == "passed"
    assert verdict("in_character <= base", arms)[0] == "passed"
    assert verdict("e2e_p50 <= base + 0.2", arms)[0] == "failed"
    assert verdict("e2e_p50 <= base + 3", arms)[0] == "passed"
    assert verdict("usable_per_second >= base", arms)[0] == "failed"


def test_the_first_of_several_arms_is_measured_against_and_not_tested():
    arms = {"base": arm(0.2), "one": arm(0.95), "two": arm(0.95)}
    decisions = decide([parse_gate("in_character >= 0.8", SCORERS)], arms, 2.0)
    assert [(one.arm, one.verdict) for one in decisions] == [("one", "passed"), ("two", "passed")]


def test_what_was_hardly_answered_decides_nothing_whatever_the_rest_says():
    verdict_, why = verdict("in_character >= 0.5", {"": arm(1.0, errors=0.3)})
    assert verdict_ == "inconclusive" and "of what was asked" in why and "95%" in why


def test_one_persona_has_no_interval_and_no_verdict():
    assert verdict("in_character >= 0.5", {"": arm(1.0, personas=1)})[0] == "inconclusive"


def test_a_quantile_that_too_few_replies_bound_is_inconclusive_and_says_so():
    found, why = verdict("e2e_p99 <= 60", {"": arm(1.0, personas=6, scenarios=1)})
    assert found == "inconclusive" and "too few replies" in why


def test_a_measure_without_values_is_inconclusive():
    assert verdict("ttft_p50 <= 1", {"": arm(1.0)}) == ("inconclusive", "no reply has a value for it")


def test_failing_pays_for_the_number_of_gates_and_passing_does_not():
    """One gate that just fails by itself is, among many that pass, what chance brings about."""
    one = arm(0.7, seed=5)
    low, high = (getattr(measured(one, "in_character", 2.0), end) for end in ("low", "high"))
    just = f"in_character >= {high + 0.002:.4f}"
    assert verdict(just, {"": one})[0] == "failed"
    easy = [parse_gate(f"in_character >= {low - 0.01 * n - 0.01:.4f}", SCORERS) for n in range(9)]
    decisions = decide([parse_gate(just, SCORERS), *easy], {"": one}, 2.0)
    assert decisions[0].verdict == "inconclusive" and "chance" in decisions[0].why
    assert {other.verdict for other in decisions[1:]} == {"passed"}


def test_of_models_that_just_hold_few_are_failed_however_many_gates():
    """The truth lies on the bound: ten gates fail any in at most a twentieth of the cases, where each by itself may."""
    alone, together = 0, 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        made = Arm("arm")
        replies = [made.add((f"p{n // 4}", f"s{n % 4}"), "?", "") for n in range(160)]
        made.states["reply"] = 160
        made.scores = {f"s{k}": (replies, draw.normal(size=160)) for k in range(10)}
        gates = [parse_gate(f"s{k} >= 0", list(made.scores)) for k in range(10)]
        together += overall([{"verdict": d.verdict} for d in decide(gates, {"": made}, 2.0)]) == "failed"
        alone += any(decide([gate], {"": made}, 2.0)[0].verdict == "failed" for gate in gates)
    assert together / 200 <= 0.05 < alone / 200


def test_a_late_reply_is_not_usable_and_neither_is_one_out_of_character():
    made = arm(0.5, seconds=2.0, personas=60)
    in_time, usable = (measured(made, name, 2.0).value for name in ("in_time", "usable"))
    assert in_time == pytest.approx(0.5, abs=0.1) and usable == pytest.approx(0.25, abs=0.1)
    by_second = measured(made, "usable_per_second", 2.0).value
    assert by_second == pytest.approx(usable * len(made.texts) / made.busy)


@pytest.mark.parametrize(
    "gate, said",
    [
        ("in_caracter >= 0.9", "Did you mean in_character"),
        ("in_character > 0.9", "MEASURE >= NUMBER"),
        ("in_character >= ", "MEASURE >= NUMBER"),
        ("in_character", "MEASURE >= NUMBER"),
        ("in_character >= nan", "no arm 'nan'"),
        ("slop <= base + 0.02", "no arm 'base'"),
        ("slop <= 1; import os", "MEASURE >= NUMBER"),
        ("", "MEASURE >= NUMBER"),
    ],
)
def test_a_gate_that_cannot_be_understood_is_an_error_that_says_what_there_is(gate, said):
    with pytest.raises(ConfigError, match="--gate") as caught:
        parse_gate(gate, SCORERS)
    assert said in str(caught.value)


def test_negative_and_exponent_bounds_are_read():
    assert parse_gate("in_character >= -1e-3", SCORERS).bound == -0.001
    assert parse_gate("slop <= base - 0.5", SCORERS, ["base"]).bound == -0.5


def test_all_measures_have_a_name_that_can_be_typed():
    for name in MEASURES:
        parse_gate(f"{name} <= 1", SCORERS)


def test_all_verdicts_together():
    passed, failed, unknown = ({"verdict": one} for one in ("passed", "failed", "inconclusive"))
    assert overall([]) == overall([passed]) == "passed"
    assert overall([passed, unknown]) == "inconclusive"
    assert overall([unknown, failed]) == "failed"
