"""How varied are the replies? Figures for a set of texts, all from 0 to 1.

    distinct_1, distinct_2   share of different words, and pairs of words, among all        higher is more varied
    self_bleu                how much of a reply is in the others, by BLEU                   lower is more varied

distinct-n: Li et al. 2016, arXiv 1510.03055. self-BLEU: Zhu et al. 2018, arXiv 1802.01886, with n-grams up to 4, each smoothed by
adding one beyond the first order (Lin and Och 2004). All three depend on how many texts there are: they are compared on
the same number, `SAMPLE` at most, drawn by hash.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypedDict

from pipeline.dedup import heard
from pipeline.records import digest

SAMPLE = 500


class Diversity(TypedDict):
    texts: int
    distinct_1: float | None
    distinct_2: float | None
    self_bleu: float | None


def diversity(texts: Iterable[tuple[str, str]], most: int = SAMPLE) -> Diversity:
    """Of (id, text); `texts` in the result says how many were looked at. None: too few to tell."""
    drawn = heapq.nsmallest(most, ((digest("diversity", name), text) for name, text in texts))
    words = [spoken for _, text in drawn if (spoken := heard(text))]
    return {
        "texts": len(words),
        "distinct_1": _distinct(words, 1),
        "distinct_2": _distinct(words, 2),
        "self_bleu": self_bleu(words),
    }


def _distinct(texts: Sequence[list[str]], n: int) -> float | None:
    grams = [gram for words in texts for gram in _grams(words, n)]
    return len(set(grams)) / len(grams) if grams else None


def self_bleu(texts: Sequence[list[str]], order: int = 4) -> float | None:
    """The mean BLEU of each text against all the others, which are its references."""
    if len(texts) < 2:
        return None
    lengths = sorted(map(len, texts))
    logs = [0.0] * len(texts)
    for n in range(1, order + 1):
        counts = [Counter(_grams(words, n)) for words in texts]
        first, second = _two_highest(counts)
        for number, count in enumerate(counts):
            # The most that any other text has of a gram: the highest count, unless that is its own.
            clipped = sum(
                min(times, second[gram] if first[gram] == (times, number) else first[gram][0])
                for gram, times in count.items()
            )
            total, plus = count.total(), int(n > 1)
            precision = (clipped + plus) / (total + plus) if total + plus else 0.0
            logs[number] += math.log(precision) / order if precision else -math.inf
    return sum(math.exp(log) * _brevity(len(words), lengths) for log, words in zip(logs, texts, strict=True)) / len(
        texts
    )


def _two_highest(
    counts: Sequence[Counter[tuple[str, ...]]],
) -> tuple[dict[tuple[str, ...], tuple[int, int]], Counter[tuple[str, ...]]]:
    """For each gram its highest count in a text, with the number of that text; and the highest of all other texts."""
    first: dict[tuple[str, ...], tuple[int, int]] = {}
    second: Counter[tuple[str, ...]] = Counter()
    for number, count in enumerate(counts):
        for gram, times in count.items():
            if gram not in first:
                first[gram] = (times, number)
            elif times > first[gram][0]:
                second[gram], first[gram] = first[gram][0], (times, number)
            elif times > second[gram]:
                second[gram] = times
    return first, second


def _brevity(length: int, sorted_lengths: Sequence[int]) -> float:
    """BLEU's penalty against the reference of the nearest length, its own once left out."""
    rest = list(sorted_lengths)
    rest.remove(length)
    nearest = min(rest, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / length)


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))
