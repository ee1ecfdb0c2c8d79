"""Can the NPCs that ship be told apart by ear? From the example lines alone, how often is the speaker of a line told right?

    python tests/bench/voices.py

Each line is left out in turn; all the others of its set, by TF-IDF of character n-grams, give each NPC a centroid, and the
line goes to the nearest one. Chance is one in as many NPCs as there are. Two references say what the figure is worth:

* strangers   the same lines dealt out at random to NPCs: what the method finds where there is nothing to find
* same world  the speaker among those of its own world only, where common words of a world do not help
"""

import math
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.personas.load import load_personas, read_personas
from pipeline.resources import shipped

SETS = {"generate": "personas", **{suite: f"suites/{suite}/personas" for suite in ("quick", "npc", "adversarial")}}
SIZES = (2, 3, 4, 5)
SHUFFLES = 20

Lines = list[tuple[str, str, str]]  # world, speaker, line


def example_lines(folder: str) -> Lines:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "personas.jsonl"
        load_personas(str(shipped("data") / folder), path)
        return [(npc.world, npc.id, line) for npc in read_personas(path) for line in npc.examples]


def grams(line: str) -> Counter[str]:
    text = f" {' '.join(line.split())} "  # capitals and punctuation are part of a voice
    return Counter(text[start : start + size] for size in SIZES for start in range(len(text) - size + 1))


def similarities(lines: list[str]) -> npt.NDArray[np.float64]:
    """Cosine between all lines."""
    counts = [grams(line) for line in lines]
    spread = Counter(gram for count in counts for gram in count)
    # What stands in a single line only cannot be shared with another.
    column = {gram: number for number, gram in enumerate(gram for gram in spread if spread[gram] > 1)}
    vectors = np.zeros((len(lines), len(column)))
    for row, count in enumerate(counts):
        for gram, times in count.items():
            if gram in column:
                vectors[row, column[gram]] = (1 + math.log(times)) * math.log(len(lines) / spread[gram])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors @ vectors.T


def told_right(near: npt.NDArray[np.float64], speakers: list[str], worlds: list[str]) -> float:
    """The share of lines whose speaker is told right among the speakers of its world, each line left out in turn."""
    names = sorted(set(speakers))
    said = np.array([[speaker == name for name in names] for speaker in speakers], float)
    home = {speaker: world for speaker, world in zip(speakers, worlds, strict=True)}
    right = 0
    for row, speaker in enumerate(speakers):
        rest = said.copy()
        rest[row] = 0
        # A centroid's cosine to the line: the sum of the lines' cosines by the length of the sum of the lines.
        length = np.sqrt(np.einsum("is,ij,js->s", rest, near, rest, optimize=True))
        score = (near[row] @ rest) / np.maximum(length, 1e-12)
        score[[home[name] != worlds[row] for name in names]] = -1
        right += names[int(score.argmax())] == speaker
    return right / len(speakers)


def measure(lines: Lines) -> dict[str, float]:
    worlds, speakers, texts = (list(column) for column in zip(*lines, strict=True))
    near, anywhere = similarities(texts), [""] * len(lines)
    dice, strangers = random.Random(0), []
    for _ in range(SHUFFLES):
        strangers.append(told_right(near, dice.sample(speakers, len(speakers)), anywhere))
    by_world = {world: {speaker for w, speaker, _ in lines if w == world} for world in worlds}
    return {
        "told right": told_right(near, speakers, anywhere),
        "chance": 1 / len(set(speakers)),
        "strangers": sum(strangers) / SHUFFLES,
        "told right, same world": told_right(near, speakers, worlds),
        "chance, same world": sum(1 / len(by_world[world]) for world in worlds) / len(worlds),
    }


if __name__ == "__main__":
    for name, folder in SETS.items():
        lines = example_lines(folder)
        print(f"{name}: {len(lines)} lines of {len({speaker for _, speaker, _ in lines})} NPCs")
        for what, share in measure(lines).items():
            print(f"  {what:24} {share:6.1%}")
