"""How varied the replies are: against sacreBLEU, and by what the figures have to say of the plainest cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.dedup import heard
from pipeline.curation.diversity import SAMPLE, diversity, self_bleu

WORDS = ["salt", "rope", "tide", "lamp", "crow"]
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=2, max_size=8)


def figures(*texts: str):
    return diversity((str(n), text) for n, text in enumerate(texts))


@settings(deadline=None, max_examples=300)
@given(SENTENCES)
def test_self_bleu_is_what_sacrebleu_says_of_each_text_against_the_others(texts):
    from sacrebleu.metrics import BLEU

    bleu = BLEU(smooth_method="add-k", smooth_value=1, effective_order=False, tokenize="none", force=True)
    spelled = [" ".join(words) for words in texts]
    scores = [
        bleu.sentence_score(text, [*spelled[:n], *spelled[n + 1 :]]).score / 100 for n, text in enumerate(spelled)
    ]
    assert self_bleu(texts) == pytest.approx(sum(scores) / len(scores), abs=1e-9)


def test_equal_texts_have_the_highest_self_bleu_and_strangers_none():
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx(1)
    assert self_bleu([["a", "b"], ["c", "d"], ["e"]]) == 0


@given(SENTENCES)
def test_the_order_of_the_texts_does_not_matter(texts):
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1]))
    named = [(str(n), " ".join(words)) for n, words in enumerate(texts)]
    assert diversity(named) == diversity(reversed(named))


@given(SENTENCES)
def test_all_figures_lie_between_nothing_and_one(texts):
    found = figures(*(" ".join(words) for words in texts))
    assert found["texts"] == len(texts)
    assert 0 < found["distinct_1"] <= 1 and 0 <= found["self_bleu"] <= 1 + 1e-12
    assert found["distinct_2"] is None or 0 < found["distinct_2"] <= 1


def test_distinct_is_the_share_of_different_words_and_pairs():
    found = figures("The rope, the ROPE!", "The tide.")
    assert found["distinct_1"] == 3 / 6  # the, rope, tide
    assert found["distinct_2"] == 3 / 4  # the rope twice, rope the, the tide; never across replies


@pytest.mark.parametrize(
    "texts, wanted",
    [
        ([], (0, None, None, None)),
        (["..."], (0, None, None, None)),
        (["Aye."], (1, 1.0, None, None)),
        (["Aye.", "Aye."], (2, 0.5, None, 1.0)),
        (["Aye.", "?!"], (1, 1.0, None, None)),
    ],
)
def test_where_there_is_too_little_to_tell_there_is_no_figure(texts, wanted):
    found = figures(*texts)
    assert (found["texts"], found["distinct_1"], found["distinct_2"]) == wanted[:3]
    assert found["self_bleu"] == (wanted[3] if wanted[3] is None else pytest.approx(wanted[3]))


def test_of_many_texts_the_same_sample_is_drawn_whatever_their_order():
    texts = [(f"id{n}", f"{WORDS[n % 5]} number{n}") for n in range(SAMPLE * 2)]
    assert diversity(texts) == diversity(reversed(texts))
    assert diversity(texts)["texts"] == SAMPLE


def test_words_are_heard_and_not_spelled():
    assert figures("Don't!", "dont")["distinct_1"] == 0.5
    assert len(heard("我不知道。")) == 4
