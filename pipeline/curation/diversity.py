"""How varied are the replies? Figures for a set of texts, all from 0 to 1.

    distinct_1, distinct_2   share of different words, and pairs of words, among all        higher is more varied
    self_bleu                how much of a reply is in the others, by BLEU                   lower is more varied

distinct-n: Li et al. 2016, arXiv 1510.03055. self-BLEU: Zhu et al. 2018, arXiv 1802.01886, with n-grams up to 4, each smoothed by
adding one beyond the first order (Lin and Och 2004). All three depend on how many texts there are: they are compared on
the same number, `SAMPLE` at most, drawn by hash.
"""

import heapq
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

import numpy as np

from pipeline.curation.dedup import heard
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
    for n, (clipped, total) in enumerate(_clipped(texts, order), 1):
        plus = int(n > 1)
        for number, (hits, grams) in enumerate(zip(clipped, total, strict=True)):
            precision = (hits + plus) / (grams + plus) if grams + plus else 0.0
            logs[number] += math.log(precision) / order if precision else -math.inf
    return sum(math.exp(log) * _brevity(len(words), lengths) for log, words in zip(logs, texts, strict=True)) / len(
        texts
    )


def _clipped(texts: Sequence[list[str]], order: int) -> Iterator[tuple[list[int], list[int]]]:
    """For n-grams of one word, two ... the number of each text's that are in another one, each as often as there at most; and
    the number of all it has."""
    numbers: dict[str, int] = {}
    words = np.array([numbers.setdefault(word, len(numbers)) for text in texts for word in text], np.int64)
    of = np.repeat(np.arange(len(texts)), [len(text) for text in texts])  # the text of each
    grams = words  # by number; each stands where its first word does
    for n in range(1, order + 1):
        begin = slice(max(len(of) - n + 1, 0))
        if n > 1:
            grams = np.unique(grams[begin] * len(numbers) + words[n - 1 :], return_inverse=True)[1]
        whole = of[begin] == of[n - 1 :]
        found, times = np.unique(grams[whole] * len(texts) + of[begin][whole], return_counts=True)
        gram, text = np.divmod(found, len(texts))
        # The most that any other text has of a gram: the highest count, unless that is its own.
        rank = np.lexsort((-times, gram))
        first = np.append(True, gram[rank[1:]] != gram[rank[:-1]])[: len(rank)]
        most = np.empty_like(times)
        most[rank] = times[rank][first][np.cumsum(first) - 1]
        second = np.flatnonzero(first) + 1
        there = ~np.append(first, True)[second]  # another text has the gram, too
        most[rank[first]] = np.where(there, np.append(times[rank], 0)[second], 0)
        hits = np.bincount(text, np.minimum(times, most), len(texts))
        yield hits.astype(int).tolist(), np.bincount(text, times, len(texts)).astype(int).tolist()


def _brevity(length: int, sorted_lengths: Sequence[int]) -> float:
    """BLEU's penalty against the reference of the nearest length, its own once left out."""
    at = bisect_left(sorted_lengths, length)
    near = (*sorted_lengths[max(at - 1, 0) : at], *sorted_lengths[at + 1 : at + 2])
    nearest = min(near, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / length)


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(n)), strict=False))
