"""What ships is whole, is told apart by ear, and no suite of `eval` shares anything with another or with what `generate` uses."""

import re
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
from bench.voices import example_lines, measure

from pipeline.personas.load import load_personas, load_scenarios, read_personas
from pipeline.personas.schema import Persona, Scenario
from pipeline.resources import shipped

FOLDERS = {
    "generate": shipped("data"),
    **{name: shipped("data") / "suites" / name for name in ("quick", "npc", "adversarial")},
}
PAIRS = list(combinations(FOLDERS, 2))
CATEGORIES = {
    *("greeting", "trade", "quest", "lore", "small_talk", "grief", "insult", "tiny_input", "modern_things"),
    *("prompt_injection", "asking_for_the_secret", "claims_in_brackets", "role_swap"),
}
MORE = {
    *("are_you_an_ai", "persona_facts", "spoiler", "over_refusal"),
    *("profanity", "echo", "speaks_for_the_player", "format"),
}
ATTACKS = {
    *("prompt_injection", "claims_in_brackets", "echo", "role_swap", "profanity", "asking_for_the_secret", "memory"),
}

# Two lines count as nearly the same from this Jaccard index of their character 5-grams on. It lies between what was
# measured on the data that ships: at most 0.38 between lines of two sets (a barkeeper and a doorkeeper; 0.28 among whole
# sentences), at least 0.47 between a sentence and itself with a word exchanged in its middle.
NEAR = 0.45

LORE = {"lorebook", "lore_budget"}  # for cards of others

# Words of names that many people have.
TITLES = {"big", "deaf", "mother", "doctor", "colonel", "madame", "sergeant"}


@pytest.fixture(scope="module")
def personas(tmp_path_factory) -> dict[str, list[SimpleNamespace]]:
    loaded = {}
    for name, folder in FOLDERS.items():
        path = tmp_path_factory.mktemp("data") / "personas.jsonl"
        checked = load_personas(str(folder / "personas"), path, strict=True)
        assert not checked.notes
        loaded[name] = list(read_personas(path))
    return loaded


@pytest.fixture(scope="module")
def scenarios() -> dict[str, list[Scenario]]:
    loaded = {}
    for name, folder in FOLDERS.items():
        loaded[name], checked = load_scenarios(str(folder / "scenarios"), strict=True)
        assert not checked.notes
    return loaded


def told(npc: SimpleNamespace) -> dict[str, Any]:
    return {name: value for name, value in vars(npc).items() if name not in LORE}


def texts(npc: SimpleNamespace) -> dict[str, str]:
    """All that is written about a persona, but for the words it does not know."""
    fields = {name: value for name, value in told(npc).items() if name not in ("id", "unknown_words")}
    lists = {name: value for name, value in fields.items() if isinstance(value, list)}
    spread = {f"{name} {number}": line for name, value in lists.items() for number, line in enumerate(value)}
    return {name: value for name, value in fields.items() if name not in lists} | spread


@pytest.mark.parametrize(
    "name, npcs, worlds, plays, categories",
    [
        ("generate", 32, 4, 32, CATEGORIES),
        ("quick", 16, 2, 16, CATEGORIES),
        ("npc", 24, 3, 45, CATEGORIES | MORE),
        ("adversarial", 12, 2, 40, ATTACKS),
    ],
)
def test_there_is_enough_of_everything(name, npcs, worlds, plays, categories, personas, scenarios):
    assert len(personas[name]) >= npcs
    assert len({npc.world for npc in personas[name]}) >= worlds
    assert len(scenarios[name]) >= plays
    assert {scenario.category for scenario in scenarios[name]} == categories


@pytest.mark.parametrize("name", FOLDERS)
def test_each_persona_has_every_field_and_a_few_examples(name, personas):
    for npc in personas[name]:
        assert told(npc).keys() | LORE == Persona.model_fields.keys(), npc.id
        assert all(told(npc).values()), npc.id
        assert 2 <= len(npc.examples) <= 5, npc.id


@pytest.mark.parametrize("name", FOLDERS)
def test_a_world_is_the_same_for_all_who_live_in_it(name, personas):
    for field in ("setting", "unknown_words"):
        assert len({(npc.world, str(vars(npc)[field])) for npc in personas[name]}) == len(
            {n.world for n in personas[name]}
        )


@pytest.mark.parametrize("name", FOLDERS)
def test_nobody_says_a_word_that_its_world_does_not_know(name, personas):
    for npc in personas[name]:
        written = "\n".join(texts(npc).values())
        for word in npc.unknown_words:
            assert not re.search(rf"\b{re.escape(word)}(s|es)?\b", written, re.IGNORECASE), (npc.id, word)


@pytest.mark.parametrize("name", FOLDERS)
def test_nobody_gives_its_secret_away_in_what_others_may_hear(name, personas):
    for npc in personas[name]:
        for line in (npc.greeting, *npc.examples):
            assert likeness(npc.hides, line) < 0.2, npc.id


@pytest.mark.parametrize("name", FOLDERS)
def test_every_scenario_fits_somebody(name, personas, scenarios):
    for scenario in scenarios[name]:
        assert any(scenario.fits(npc) for npc in personas[name]), scenario.id


@pytest.mark.parametrize("name", FOLDERS)
def test_asking_for_the_secret_needs_one(name, scenarios):
    for scenario in scenarios[name]:
        assert ("hides" in scenario.requires) == (scenario.category == "asking_for_the_secret"), scenario.id


def pieces(text: str) -> frozenset[str]:
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    if len(plain) < 5:  # "...", "?", "ok": nothing to take pieces of
        return frozenset({text.strip().casefold()})
    return frozenset(plain[start : start + 5] for start in range(len(plain) - 4))


def likeness(one: str, other: str) -> float:
    return jaccard(pieces(one), pieces(other))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def all_lines(personas: list[SimpleNamespace], scenarios: list[Scenario]) -> dict[str, list[str]]:
    """Every text of a set with the places where it stands."""
    lines: dict[str, list[str]] = {}
    for npc in personas:
        for field, text in texts(npc).items():
            lines.setdefault(text, []).append(f"{npc.id} {field}")
    for scenario in scenarios:
        for number, text in enumerate(scenario.turns):
            lines.setdefault(text, []).append(f"{scenario.id} turn {number}")
    return lines


@pytest.mark.parametrize("one, other", PAIRS)
def test_two_sets_share_no_id_and_no_world(one, other, personas, scenarios):
    for rows in (personas, scenarios):
        assert not {row.id for row in rows[one]} & {row.id for row in rows[other]}
    assert not {npc.world for npc in personas[one]} & {npc.world for npc in personas[other]}


@pytest.mark.parametrize("one, other", [pair for pair in PAIRS if pair != ("generate", "quick")])
def test_two_sets_share_no_name_and_no_trade(one, other, personas):
    names = ({word for npc in personas[name] for word in npc.name.lower().split()} - TITLES for name in (one, other))
    assert not set.intersection(*names)
    assert not {npc.trade for npc in personas[one]} & {npc.trade for npc in personas[other]}


@pytest.fixture(scope="module")
def cut(personas, scenarios) -> dict[str, list[tuple[frozenset[str], list[str]]]]:
    """The pieces of each line of a set, and where it stands."""
    return {
        name: [(pieces(text), places) for text, places in all_lines(personas[name], scenarios[name]).items()]
        for name in FOLDERS
    }


@pytest.mark.parametrize("one, other", PAIRS)
def test_two_sets_share_no_line(one, other, cut):
    near = [
        (here, there)
        for mine, here in cut[one]
        for theirs, there in cut[other]
        # The index is at most the ratio of the sizes: most pairs need no look.
        if min(len(mine), len(theirs)) >= NEAR * max(len(mine), len(theirs)) and jaccard(mine, theirs) >= NEAR
    ]
    assert not near


def test_a_line_with_a_word_exchanged_would_be_found(personas, scenarios):
    for name in FOLDERS:
        for line in all_lines(personas[name], scenarios[name]):
            words = line.split()
            if len(words) >= 8:
                words[len(words) // 2] = "otherwise"
                assert likeness(line, " ".join(words)) >= NEAR, line


@pytest.mark.parametrize("name", FOLDERS)
def test_no_line_of_a_set_stands_there_twice(name, personas, scenarios):
    lines = all_lines(personas[name], scenarios[name])
    shared = {f"{npc.id} {field}" for npc in personas[name] for field in ("world", "setting")}
    twice = {text: places for text, places in lines.items() if len(places) > 1 and not shared & {*places}}
    assert all(len(text) < 5 for text in twice), twice


@pytest.mark.parametrize("name", FOLDERS)
def test_speakers_are_told_by_ear(name):
    found = measure(example_lines(str((FOLDERS[name] / "personas").relative_to(shipped("data")))))
    assert found["told right"] > 10 * found["chance"]
    assert found["told right, same world"] > 5 * found["chance, same world"]
    assert found["strangers"] < 3 * found["chance"]
