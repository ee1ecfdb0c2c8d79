"""What waits for the end of a run waits in files, and comes back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.curator import Drop, Drops
from pipeline.curation.texts import Few, Repeated, Scattered, Texts

ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)  # lone surrogates, too


@given(st.lists(ANY_TEXT, max_size=30), st.data())
def test_texts_come_back_in_any_order_while_others_are_added(texts, data):
    held = Texts()
    for number, text in enumerate(texts):
        held.append(text)
        place = data.draw(st.integers(0, number))
        assert held[place] == texts[place]
    assert list(held) == texts and len(held) == len(texts)


def test_long_ones_and_many_are_read_in_blocks(tmp_path):
    texts = [f"{number} " * (number % 400) for number in range(2000)]
    held = Texts(tmp_path)
    for text in texts:
        held.append(text)
    assert list(held) == texts and held[1999] == texts[1999]


def test_the_file_goes_with_who_holds_it(tmp_path):
    held = Texts(tmp_path)
    held.append("Aye." * 100_000)
    del held
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.sampled_from(["", "Borin", "Asha"]), max_size=20))
def test_neighbours_that_are_the_same_are_held_once(given):
    held = Repeated()
    for text in given:
        held.append(text)
    assert list(held) == given and [held[place] for place in reversed(range(len(held)))] == given[::-1]


@given(st.dictionaries(st.integers(0, 50), ANY_TEXT, max_size=20))
def test_some_numbers_have_a_text_and_others_have_none(given):
    held = Scattered()
    for number, text in given.items():
        held[number] = "what stood there before"
        held[number] = text
    assert dict(held) == given and len(held) == len(given) and list(held) == sorted(given)
    for number in range(-1, 55):
        assert (number in held) == (number in given)
        assert held.get(number, "none") == given.get(number, "none")
    with pytest.raises(KeyError):
        held[51]


@given(st.dictionaries(st.integers(0, 50), st.builds(Drop, ANY_TEXT, ANY_TEXT, ANY_TEXT), max_size=9))
def test_a_drop_keeps_its_filter_its_reason_and_its_evidence(given):
    drops = Drops()
    for place, drop in given.items():
        drops[place] = drop
    assert dict(drops) == given


def test_few_different_texts_take_a_byte_each():
    few = Few()
    few.extend(["train", "test", "train"])
    few.extend([])
    few.extend(["new", "train"])
    assert list(few) == ["train", "test", "train", "new", "train"]
