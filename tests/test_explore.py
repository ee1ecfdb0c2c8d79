"""Where two arms differ is found by category; where nothing differs, hardly anything stands out however many looks are taken."""

import random

from pipeline.comparison import compare_arms, compared
from pipeline.comparison.arm import Arm

CATEGORIES = tuple("abcdefgh")


def arm(seed, worse=(), personas=24, scorers=6):
    draw = random.Random(seed)
    made = Arm("arm")
    columns = {f"score_{n}": ([], []) for n in range(scorers)}
    for persona in range(personas):
        for category in CATEGORIES:
            for scene in range(2):
                item = (f"p{persona}", f"{category}{scene}")
                row = made.add(item, "?", "text")
                made.groups[item] = category
                for name, (rows, values) in columns.items():
                    rows.append(row)
                    values.append(float(draw.random() < (0.3 if (category, name) in worse else 0.9)))
    made.scores = columns
    return made


def test_what_differs_in_one_category_alone_stands_out_there():
    summary = compare_arms(arm(1), arm(2, worse={("c", "score_2")}))
    found = summary["explored"]["found"]
    assert (found[0]["group"], found[0]["scorer"]) == ("c", "score_2") and found[0]["difference"]["difference"] < -0.3
    assert len(found) <= 2 and summary["explored"]["looks"] > 20
    text = compared(summary)
    assert "Where to look" in text and "no verdict" in text


def test_of_equal_arms_hardly_anything_stands_out():
    cried = sum(bool(compare_arms(arm(2 * n), arm(2 * n + 1))["explored"]["found"]) for n in range(1, 41))
    assert cried <= 5  # 2 of 40 on average


def test_without_categories_nothing_is_looked_at():
    a, b = arm(1), arm(2)
    a.groups = {}
    assert compare_arms(a, b)["explored"] == {"looks": 0, "found": []}
