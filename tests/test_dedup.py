"""What is said once more in nearly the same words is found, and nothing else is."""

import os
import random
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation import dedup
from pipeline.curation.dedup import Match, near_duplicates

LINE = "Keep the lamp low and mind the third step, friend, the tide is coming in and the crow is listening."
COMMON = (
    "the of and a to in is you that it he was for on are as with his they at be this from have or by one had not but "
    "what all were when we there can an your which their said if do will each about how up out them then she many some "
    "lamp tide crow step forge rope bread ship king road night water stone tower door bell salt"
)
WORDS = COMMON.split()
ANY_TEXT = st.text(max_size=60)
WORD = st.text("abcdefghijklmnopqrstuvwxyzäöüßéñσδабвгдеж0123456789", min_size=1, max_size=6)


def found(*said: str | tuple[str, ...], **least) -> list[Match | None]:
    """`said` is texts of mara, or (text, persona), or (text, persona, prompt)."""
    rows = [(one,) if isinstance(one, str) else one for one in said]
    return list(
        near_duplicates(
            [(*row, "mara", "mara/greeting")[:3] if len(row) != 2 else (*row, row[1] + "/greeting") for row in rows],
            **least,
        )
    )


def alike(a: str, b: str) -> float:
    """Jaccard's similarity of the words and the pairs of neighbours."""
    one, other = said_in(a), said_in(b)
    return sum(shingle in other for shingle in one) / len({**one, **other})


@lru_cache(None)
def said_in(text: str) -> dict[object, None]:
    words = dedup.heard(text)
    return dict.fromkeys([*words, *((words[at], words[at + 1]) for at in range(len(words) - 1))] or [""])


def lines(seed: int, count: int) -> list[str]:
    """Lines of 8 to 30 words, most of them an earlier one with up to six words exchanged, left out or put in."""
    dice = random.Random(seed)
    made: list[list[str]] = []
    for _ in range(count):
        if not made or dice.random() < 0.4:
            made.append(dice.choices(WORDS, k=dice.randint(8, 30)))
            continue
        words = list(dice.choice(made))
        for _ in range(dice.randrange(7)):
            at, what = dice.randrange(len(words)), dice.random()
            words[at : at + (what < 0.8)] = [] if 0.6 < what < 0.8 else [dice.choice(WORDS)]
        made.append(words or ["nothing"])
    return [" ".join(words) for words in made]


@pytest.mark.parametrize(
    ("other", "similarity"),
    [
        (LINE.replace("third", "last"), 0.84),
        (LINE.replace("third", "last").replace("listening", "watching"), 0.74),
        (LINE.replace("third", "last").replace("listening", "watching").replace("Keep", "Hold"), 0.66),
        ("The tide is coming in and the crow is listening. Keep the lamp low and mind the third step, friend.", 0.94),
        ("Do not raise the lamp, watch that third stair, my friend: the sea is rising and that crow hears us.", 0.15),
    ],
)
def test_one_other_word_is_alike_for_anyone_two_for_one_persona_and_a_paraphrase_for_nobody(other, similarity):
    assert round(alike(LINE, other), 2) == similarity
    for persona, least in (("mara", 0.7), ("oswin", 0.8)):
        assert (found(LINE, (other, persona))[1] is not None) == (similarity >= least)


@given(st.lists(ANY_TEXT, max_size=12))
def test_a_copy_of_what_stayed_is_always_a_duplicate_whatever_the_text(texts):
    first = found(*texts)
    again = found(*texts, *texts)
    assert again[: len(texts)] == first
    for number, (match, copy) in enumerate(zip(first, again[len(texts) :], strict=True)):
        assert copy == Match(number, 1.0, "prompt") if match is None else copy is not None


@given(st.lists(WORD, min_size=1, max_size=20), st.data())
def test_case_punctuation_and_blanks_do_not_matter(words, data):
    between = st.sampled_from([" ", ", ", "... ", " - ", "\n", "\N{EM DASH}", "! \N{SLIGHTLY SMILING FACE} ", "  "])
    spelled = [data.draw(st.sampled_from([word, word.upper(), word.title()])) for word in words]
    match = found(" ".join(words), "".join(word + data.draw(between) for word in spelled))[1]
    assert match is not None and match.similarity == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("don't", "DON\N{RIGHT SINGLE QUOTATION MARK}T"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}ye", "aye"),
        ("won\N{SOFT HYPHEN}der", "wonder"),
        ("aye \N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", "aye"),
        ("...", "?!"),
    ],
)
def test_spellings_that_sound_the_same_are_the_same(one, other):
    assert found(one, other) == [None, Match(0, 1.0, "prompt")]


def test_vowel_signs_matter():
    assert found("कि", "का") == [None, None]


@pytest.mark.parametrize("seed", range(3))
def test_what_brute_force_finds_is_found_and_nothing_else_with_the_exact_similarity(seed):
    dice = random.Random(seed)
    said = [(text, dice.choice(["mara", "oswin", "brina", "tolk"])) for text in lines(seed, 400)]
    stayed: list[int] = []
    there = found_there = 0
    for number, match in enumerate(found(*said)):
        text, persona = said[number]
        all_alike = {n: alike(text, said[n][0]) for n in stayed}
        enough = [n for n in stayed if all_alike[n] >= (0.7 if said[n][1] == persona else 0.8)]
        if match is None:
            stayed.append(number)
        else:
            assert match.number in enough
            assert match.similarity == all_alike[match.number]
            assert (match.scope == "anyone") == (said[match.number][1] != persona)
        there += bool(enough)
        found_there += match is not None
    assert there > 60
    assert found_there >= 0.97 * there


def test_the_first_stays_and_numbers_count_what_was_handed_in():
    other = "Nobody has come up that road since the bridge fell into the river."
    assert found(LINE, LINE.upper(), other, LINE, other) == [
        None,
        Match(0, 1.0, "prompt"),
        None,
        Match(0, 1.0, "prompt"),
        Match(2, 1.0, "prompt"),
    ]


def test_a_duplicate_is_not_what_later_ones_are_compared_with():
    one = list("abcdefghijklmnopqrst")
    two = [*one[:5], "x", *one[6:]]
    three = [*one[:5], "x", *one[6:12], "y", "z", *one[14:]]
    assert alike(" ".join(two), " ".join(three)) > 0.7 > alike(" ".join(one), " ".join(three))
    assert [match is None for match in found(*map(" ".join, (one, two, three)))] == [True, False, True]


def test_of_several_the_most_similar_is_named():
    two = LINE.replace("lamp", "lantern").replace("crow", "raven").replace("tide", "sea")
    matches = found(LINE, two, two.replace("third", "last"))
    assert matches[:2] == [None, None] and matches[2].number == 1


@pytest.mark.parametrize(
    ("persona", "prompt", "scope"),
    [("mara", "mara/greeting", "prompt"), ("mara", "mara/trade", "persona"), ("oswin", "oswin/trade", "anyone")],
)
def test_each_scope_has_a_least_similarity_of_its_own(persona, prompt, scope):
    other = LINE.replace("third", "last")  # 0.84
    for least, drops in ((0.8, True), (0.9, False)):
        wide_open = dict.fromkeys(["prompt", "persona", "anyone"], 1.0)
        match = found(LINE, (other, persona, prompt), **{**wide_open, scope: least})[1]
        assert (match is not None) == drops
        if match:
            assert match.scope == scope


def test_where_others_have_said_much_of_it_the_own_persona_is_still_heard():
    ours = LINE.replace("third", "last").replace("listening", "watching").split()  # 0.74
    others = [" ".join([*ours[:at], "other", *ours[at + 1 :]]) for at in range(len(ours))]  # 0.84 and more
    matches = found(LINE, *((text, f"persona {at}") for at, text in enumerate(others)), " ".join(ours), anyone=1.0)
    assert matches[:-1] == [None] * len(matches[:-1]) and matches[-1].scope == "prompt"


@pytest.mark.parametrize("text", ["Hm.", "Aye.", "I don't know.", "...", "我不知道。", "ผมไม่รู้ครับ"])
def test_what_is_short_may_be_said_by_every_persona_once(text):
    matches = found(*((text, persona) for persona in ("mara", "oswin", "mara", "brina", "oswin")))
    assert [match is None for match in matches] == [
        True,
        True,
        False,
        True,
        False,
    ]


def test_how_short_is_said_by_the_caller():
    for short, stays in ((5, False), (6, True)):
        text = "Mind the third step, friend."
        assert (found((text, "mara"), (text, "oswin"), short=short)[1] is None) == stays


@pytest.mark.parametrize(
    ("line", "nearly", "another"),
    [
        (
            "老磨坊主昨天夜里又看见塔上有灯光,我的朋友,你最好小心一点。",
            "老磨坊主昨天夜里又看见塔上有火光,我的朋友,你最好小心一点!",
            "今天的面包已经卖完了,明天早上请早点来,我给你留两个。",
        ),
        (
            "昨日の夜、粉屋の老人がまた塔の上に明かりを見たそうだ、気をつけろよ。",
            "昨日の夜、粉屋の老人がまた丘の上に明かりを見たそうだ、気をつけろよ。",
            "今日のパンはもう売り切れだ、明日の朝に早く来てくれれば二つ取っておこう。",
        ),
        (
            "เมื่อคืนนี้คนเฒ่าโรงสีเห็นแสงไฟบนหอคอยอีกแล้ว ระวังตัวด้วยนะเพื่อน",
            "เมื่อคืนนี้คนเฒ่าโรงสีเห็นแสงไฟบนภูเขาอีกแล้ว ระวังตัวด้วยนะเพื่อน",
            "วันนี้ขนมปังขายหมดแล้ว พรุ่งนี้เช้ามาใหม่นะ ฉันจะเก็บไว้ให้สองก้อน",
        ),
    ],
)
def test_in_scripts_without_blanks_one_other_word_is_alike_for_anyone(line, nearly, another):
    _, close, far, equal = found((line, "mara"), (nearly, "oswin"), (another, "mara"), ("".join(line.split()), "brina"))
    assert close.similarity == alike(line, nearly) >= 0.8
    assert far is None
    assert equal.similarity == 1.0


def test_what_came_thousands_of_texts_earlier_is_found():
    dice = random.Random(3)
    early = [[f"{dice.choice(WORDS)}{dice.randrange(30)}" for _ in range(17)] for _ in range(4000)]
    late = [[*words[:9], "other", *words[10:]] for words in early]  # 0.83
    matches = found(*map(" ".join, [*early, *late]), prompt=0.8, persona=0.8)
    assert matches[: len(early)] == [None] * len(early)
    right = sum(match is not None and match.number == n for n, match in enumerate(matches[len(early) :]))
    assert right > 0.99 * len(early)


def test_what_one_text_costs_is_bounded_whatever_came_before(monkeypatch):
    calls = [0]
    exact = dedup.similarity

    def counted(a, b):
        calls[0] += 1
        return exact(a, b)

    monkeypatch.setattr(dedup, "similarity", counted)
    prefix, dice = " ".join(WORDS[:30]), random.Random(1)
    said = [
        (f"{prefix} {' '.join(dice.sample(WORDS, 14))} {number}", f"persona {number % 7}", "p") for number in range(400)
    ]
    for _ in near_duplicates(said):
        assert calls[0] <= 2 * dedup.COMPARED
        calls[0] = 0


def test_a_bucket_that_is_full_takes_no_more():
    keys = [np.array([7, 1, 7, 7, 2, 7], np.uint32), np.array([5, 5, 6, 8, 8, 8], np.uint32)]
    buckets = dedup._Buckets(keys, 2)
    looked = []
    for text, of in enumerate(buckets.of_each()):
        looked.append(buckets.find(of))
        buckets.add(text, of)
    assert looked == [[], [(0, 1)], [(0, 1)], [(0, 1), (2, 1)], [(3, 1)], [(0, 1), (2, 1), (3, 1), (4, 1)]]


CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
from test_dedup import found, lines
from pipeline.curation.dedup import _Hashing
said = [(t, f"p{n % 5}") for n, t in enumerate(lines(9, 600))]
print(*[(m.number, m.similarity, m.scope) if m else "" for m in found(*said)])
print(*_Hashing(17).keys_of(["mind the third step".split()], [7])[:2, 0])
"""


def test_the_same_texts_have_the_same_duplicates_on_any_machine():
    said = [
        subprocess.run(
            [sys.executable, "-c", CHECK, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0].splitlines()[-1] == "973132124 2459832331"


@pytest.mark.parametrize("least", [0.0, 0.49, 1.01, float("nan")])
def test_a_similarity_that_cannot_be_meant_is_refused(least):
    with pytest.raises(ValueError):
        found(LINE, persona=least)


@given(st.integers(0, 99), st.permutations(range(60)))
@settings(deadline=None, max_examples=20)
def test_in_what_order_the_texts_are_read_makes_no_difference(seed, reading):
    said = [(text, f"npc-{number % 3}", number % 7) for number, text in enumerate(lines(seed, 60))]
    assert list(near_duplicates(said, reading)) == list(near_duplicates(said))
