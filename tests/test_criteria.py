"""What decides: the criteria that ship, the author's own before them, --set before both; and what is said of a wrong one."""

import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ConfigError
from pipeline.curation.criteria import Bounds, load_criteria
from pipeline.resources import shipped
from pipeline.scorers import OF_PERSONAS, OF_RUN, SCORERS

SHIPPED = yaml.safe_load((shipped("data") / "curation.yaml").read_text("utf-8"))
ALL = {**SCORERS, **OF_PERSONAS, **OF_RUN}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The author's working directory; `here(text)` writes their data/curation.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()

    def write(text: str) -> Path:
        path = tmp_path / "data" / "curation.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def wrong(*settings: str, own: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_criteria(settings, own)
    return str(caught.value)


# What ships


def test_every_scorer_is_a_filter_and_every_filter_a_scorer():
    assert set(load_criteria().filters) == set(ALL) == set(SHIPPED["filters"])


def test_filters_are_tried_in_the_order_of_the_file():
    assert list(load_criteria().filters) == list(SHIPPED["filters"])


@pytest.mark.parametrize("name", ALL)
def test_what_the_file_sets_is_a_setting_of_its_scorer(name):
    settings = set(SHIPPED["filters"][name]) - {"min", "max"}
    assert settings <= set(inspect.signature(ALL[name]).parameters)


@pytest.mark.parametrize("name", ALL)
def test_every_scorer_that_ships_has_a_bound(name):
    assert load_criteria().filters[name] != Bounds()


def test_a_panel_has_a_scorer_for_each_filter():
    assert sorted(load_criteria().panel(lambda: []).names) == sorted(ALL)


# The author's own


def test_the_authors_own_file_goes_first_entry_by_entry(here):
    here("filters:\n  box_length: {words: 12}\nselection: {max_per_persona: 3}\n")
    found = load_criteria()
    before = SHIPPED["filters"]["box_length"]
    assert found.written["box_length"] == {**before, "words": 12}
    assert found.selection.max_per_persona == 3 and found.selection.max_per_prompt is None
    assert list(found.filters) == list(SHIPPED["filters"])  # whatever the order of theirs


def test_a_copy_of_the_file_that_ships_changes_nothing(here):
    before = load_criteria().written
    shutil.copy(shipped("data") / "curation.yaml", "data/curation.yaml")
    assert load_criteria().written == before


def test_set_goes_before_the_authors_own(here):
    here("filters: {box_length: {words: 12}, finished: off}\n")
    assert load_criteria(["box_length.words=30"]).written["box_length"]["words"] == 30
    assert "finished" not in load_criteria().filters
    assert "finished" in load_criteria(["finished=on"]).filters


@pytest.mark.parametrize(
    "text, said",
    [
        ("filters: [", "curation.yaml:2: not YAML"),
        ("filters:", "sections such as 'filters:'"),
        ("- a\n- b", "sections such as 'filters:'"),
        ("filter: {}", "unknown section 'filter'"),
        ("filters: {finnished: {min: 1}}", "there is no 'finnished'. Did you mean finished?"),
        ("filters: {yes: {min: 1}}", "there is no True"),
        ("filters: {finished: {least: 1}}", "finished has no 'least'. It has: max, min."),
        ("filters: {finished: 3}", "finished takes values by name, as {min: ...}"),
        ("filters: {finished: {min: high}}", "finished.min is 'high'"),
        ("filters: {box_length: {words: many}}", "box_length.words is 'many': it has to be a number"),
        ("selection: {max_per_prompt: 2.5}", "selection.max_per_prompt is 2.5"),
        ("preference: {siblings: perhaps}", "preference.siblings is 'perhaps': it has to be on or off"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(text, said, here):
    path = here(text)
    message = wrong()
    assert said in message
    assert str(path) in message or "is '" in message or "is 2.5" in message


# --set


def test_a_bound_is_set_by_name_and_key():
    assert load_criteria(["no_repetition.min=0.5"]).filters["no_repetition"] == Bounds(least=0.5)
    assert load_criteria(["no_repetition.max = 0.9"]).filters["no_repetition"].most == 0.9


def test_of_two_settings_of_a_key_the_later_wins():
    assert load_criteria(["box_length.words=5", "box_length.words=9"]).written["box_length"]["words"] == 9
    assert load_criteria(["finished.min=0.2", "finished.min=none"]).filters["finished"].least is None


def test_off_leaves_a_scorer_out():
    found = load_criteria(["finished=off"])
    assert "finished" not in found.filters and "finished" not in found.written
    assert "finished" not in found.panel(lambda: []).names


@pytest.mark.parametrize("later", ["finished=on", "finished.min=0.5"])
def test_what_was_left_out_comes_back_to_its_place_by_a_later_setting(later):
    # A run that was generated with --set finished=off can be curated with it.
    assert list(load_criteria(["finished=off", later]).filters) == list(SHIPPED["filters"])
    assert "finished" not in load_criteria([later, "finished=off"]).filters


@pytest.mark.parametrize("word", ["none", "None", "NONE"])
def test_none_is_no_bound(word):
    found = load_criteria([f"finished.min={word}", f"selection.max_per_prompt={word}"])
    assert found.filters["finished"] == Bounds() and found.selection.max_per_prompt is None
    assert found.filters["finished"].passes(-1e9) and found.filters["finished"].passes(1e9)


@pytest.mark.parametrize("word, value", [("on", True), ("off", False), ("true", True), ("False", False)])
def test_kinds_of_pairs_are_on_or_off(word, value):
    assert load_criteria([f"preference.other_persona={word}"]).preference.other_persona is value


@pytest.mark.parametrize(
    "setting, said",
    [
        ("finished", "--set finished: it has to read NAME.KEY=VALUE, as slop.max=8, or NAME=off."),
        ("finished=1", "--set finished=1: it has to read NAME.KEY=VALUE"),
        ("=1", "it has to read NAME.KEY=VALUE"),
        ("", "it has to read NAME.KEY=VALUE"),
        ("finnished.min=1", "there is no 'finnished'. Did you mean finished?"),
        ("zzzz.min=1", f"there is no 'zzzz'. There are: {', '.join(SHIPPED['filters'])}, duplicates, "),
        ("finished.mim=1", "finished has no 'mim'. It has: max, min."),
        ("box_length.word=1", "box_length has no 'word'. It has: characters, max, min, words."),
        ("box_length.words=many", "box_length.words is 'many': it has to be a number"),
        ("box_length.words=none", "box_length.words is None: it has to be a number"),
        ("box_length.words=inf", "box_length.words is inf: it has to be a number"),
        ("finished.min=high", "finished.min is 'high': it has to be a number, or none for no bound"),
        ("finished.min=on", "finished.min is True"),
        ("finished.min=nan", "finished.min is nan"),
        ("duplicates=off", "duplicates takes values by name"),
        ("duplicates.persona=0.3", "duplicates.persona is 0.3: it has to be a number from 0.5 to 1"),
        ("duplicates.persona=none", "duplicates.persona is None: it has to be a number from 0.5 to 1"),
        ("duplicates.words=-1", "duplicates.words is -1: it has to be a whole number from 1 on, or none"),
        ("selection.max_per_prompt=0", "selection.max_per_prompt is 0"),
        ("selection.max_per_prompt=2.5", "selection.max_per_prompt is 2.5"),
        ("selection.per_prompt=2", "selection has no 'per_prompt'"),
        ("preference.margin=2", "preference.margin is 2: it has to be a number from 0 to 1"),
        ("preference.siblings=perhaps", "preference.siblings is 'perhaps': it has to be on or off"),
        ("preference.siblings=3", "preference.siblings is 3: it has to be on or off"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(setting, said):
    assert said in wrong(setting)


@settings(deadline=None)  # a file is read each time
@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_whatever_is_set_is_taken_or_named_as_wrong(name, key, value):
    for setting in (f"{name}.{key}={value}", f"finished.{key}={value}", f"box_length.words={value}", value):
        try:
            load_criteria([setting])
        except ConfigError as exc:
            assert str(exc)


# Bounds

reals = st.floats(-1e6, 1e6)


@given(value=reals, least=st.none() | reals, most=st.none() | reals)
def test_what_lies_between_the_bounds_passes(value, least, most):
    passes = Bounds(least, most).passes(value)
    assert passes == ((least is None or least <= value) and (most is None or value <= most))


@given(st.lists(reals, max_size=8).map(sorted), st.floats(0, 1e6))
def test_where_more_is_better_goodness_rises_and_where_less_is_it_falls(values, most):
    for bounds, order in ((Bounds(), 1), (Bounds(least=0.5), 1), (Bounds(0.5, most), 1), (Bounds(most=most), -1)):
        good = bounds.goodness(np.array(values))
        assert ((good >= 0) & (good <= 1)).all() and (order * np.diff(good) >= 0).all()


def test_a_rate_at_its_bound_is_half_as_good_as_none_at_all():
    assert Bounds(most=8).goodness(np.array([0.0, 8.0])).tolist() == [1, 0.5]
    first, second = Bounds(most=0).goodness(np.array([0.0, 0.1]))
    assert first == 1 > second


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(least=1), Bounds(most=8), Bounds(most=0)])
def test_what_does_not_apply_is_neither_good_nor_bad(bounds):
    assert np.isnan(bounds.goodness(np.array([np.nan]))).all()
