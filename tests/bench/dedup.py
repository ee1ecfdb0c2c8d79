"""Near-duplicates: how fast, how large, and how many of them are found?

    python tests/bench/dedup.py [TEXTS]     all of it, with 100,000 texts in each case

Texts are drawn from the words of the NPCs that ship, as often as they use them. Each persona says 20 of them. Seconds are
of CPU time, on one core. If `datasketch` is installed, its MinHash and LSH get the same shingles, without the exact
comparison.
"""

import importlib.util
import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.curation import dedup
from pipeline.curation.dedup import Match, bands_for, heard, near_duplicates, shingles
from pipeline.personas.load import load_personas, read_personas
from pipeline.resources import shipped

PER_PERSONA = 20


def spoken() -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "personas.jsonl"
        load_personas(str(shipped("data") / "personas"), path)
        return [line for npc in read_personas(path) for line in npc.examples]


class Dice(random.Random):
    def __init__(self) -> None:
        super().__init__(1)
        self.spoken = spoken()
        self.often = Counter(word for line in self.spoken for word in line.split())
        self.rare = list(self.often)

    def line(self) -> str:
        """1 to 60 words, median 17."""
        return " ".join(
            self.choices(self.rare, list(self.often.values()), k=min(60, 1 + int(self.lognormvariate(2.8, 0.5))))
        )

    def variant(self) -> str:
        """A line that ships, with up to six words exchanged, left out or put in."""
        words = self.choice(self.spoken).split()
        for _ in range(self.choice([0, 1, 1, 2, 2, 3, 4, 6])):
            at, what = self.randrange(len(words)), self.random()
            words[at : at + (what < 0.8)] = [] if 0.6 < what < 0.8 else [self.choice(self.rare)]
            words = words or ["nothing"]
        return " ".join(words)


def cases(dice: Dice) -> dict[str, Callable[[int], str]]:
    prefix = " ".join(dice.sample(dice.rare, 30))
    return {
        "lines": lambda _: dice.line(),
        "near-duplicates of 100 lines": lambda _: dice.variant(),
        "equal texts": lambda _: "Keep the lamp low and mind the third step, friend, the tide is coming in.",
        "12 words in common of 20": lambda _: f"{prefix[:70]} {' '.join(dice.choices(dice.rare, k=8))}",
        "30 words in common of 40": lambda _: f"{prefix} {' '.join(dice.choices(dice.rare, k=10))}",
        "one word, of 1,000": lambda _: dice.choice(dice.rare),
        "one word, each another": lambda number: f"word{number}",
        "5 words, 3 to 30 of them": lambda _: " ".join(
            dice.choices(["mind", "the", "third", "step", "friend"], k=dice.randint(3, 30))
        ),
        "all hashes collide": lambda _: dice.line(),
    }


def fill(texts: list[str]) -> tuple[float, int]:
    """Seconds, and how many stayed."""
    owners = len(texts) // PER_PERSONA
    said = [(text, f"persona {number % owners}", number % (3 * owners)) for number, text in enumerate(texts)]
    start = time.process_time()
    stayed = sum(match is None for match in near_duplicates(said))
    return time.process_time() - start, stayed


def speed(count: int) -> None:
    dice = Dice()
    for name, text in cases(dice).items():
        texts, hashed = [text(number) for number in range(count)], dedup._hash
        if "collide" in name:
            dedup._hash = lambda word: 7  # type: ignore[assignment]
        seconds, stayed = fill(texts)
        dedup._hash = hashed
        print(f"{name:30} {seconds:5.1f} s, {count / seconds:7,.0f} texts/s, {stayed:7,} stayed", flush=True)


def memory(count: int) -> None:
    dice = Dice()
    for name in ("lines", "near-duplicates of 100 lines"):
        texts = [cases(dice)[name](number) for number in range(count)]
        owners = [f"persona {number}" for number in range(count // PER_PERSONA)]
        said = [(text, owners[number % len(owners)], number) for number, text in enumerate(texts)]
        tracemalloc.start()
        for _ in near_duplicates(said):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"{name:30} {most / count:.0f} bytes for each text at most, caches and all")


def recall(count: int) -> None:
    """Every text is compared with all that stayed before it, through an index of shingles."""
    dice = Dice()
    least = {True: 0.7, False: 0.8}
    said = [(dice.variant(), f"persona {dice.randrange(count // PER_PERSONA)}", number) for number in range(count)]
    sets: list[tuple[frozenset, str, bool]] = []
    index: dict[object, list[int]] = {}
    there = found = right = 0
    match: Match | None
    for (text, persona, _), match in zip(said, near_duplicates(said), strict=True):
        words = heard(text)
        ours, short = shingles(words), dedup._is_short(words, 6)
        common = Counter(other for shingle in ours for other in index.get(shingle, ()))
        best = 0.0
        for other, shared in common.items():
            theirs, owner, brief = sets[other]
            if (same := owner == persona) or not (short or brief):
                alike = shared / (len(ours) + len(theirs) - shared)
                best = max(best, alike if alike >= least[same] else 0.0)
        assert match is None or best, "a duplicate of nothing"
        there, found, right = (
            there + (best > 0),
            found + (match is not None),
            right + bool(match and match.similarity == best),
        )
        if match is None:
            for shingle in ours:
                index.setdefault(shingle, []).append(len(sets))
            sets.append((ours, persona, short))
    print(
        f"found {found:,} of {there:,} duplicates ({found / there:.2%}), the most similar text named in {right / found:.1%}"
    )


def rival(count: int) -> None:
    if importlib.util.find_spec("datasketch") is None:
        return print("datasketch is not installed")
    from datasketch import MinHash, MinHashLSH

    dice = Dice()
    texts = [dice.line() for _ in range(count)]
    seconds, _ = min(fill(texts) for _ in range(3))
    bands = bands_for(0.7)
    tables = MinHashLSH(num_perm=dedup.ROWS * bands, params=(bands, dedup.ROWS))
    start = time.process_time()
    for number, text in enumerate(texts):
        words = [shingle if isinstance(shingle, str) else " ".join(shingle) for shingle in shingles(heard(text))]
        hashes = MinHash(num_perm=dedup.ROWS * bands)
        hashes.update_batch([word.encode() for word in words])
        if not tables.query(hashes):
            tables.insert(number, hashes)
    theirs = time.process_time() - start
    print(f"{count:,} lines: {seconds:.1f} s, datasketch {theirs:.1f} s, ratio {theirs / seconds:.1f}")


if __name__ == "__main__":
    texts = int(sys.argv[1]) if sys.argv[1:] else 100_000
    speed(texts)
    memory(texts)
    recall(min(texts, 10_000))
    rival(min(texts, 10_000))
