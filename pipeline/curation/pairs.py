"""Preference pairs: to one prompt, a reply that is better and one that is worse.

    siblings        another reply of the same model to the same prompt, worse by a margin
    contrast        what the model says to the line without the persona            (`generate --contrast`)
    other_persona   what another persona says to the same line

Of siblings the worst is not the best choice: it is so bad that nothing is learned from it. The one nearest to two standard
deviations under their mean is taken (arXiv 2502.16825), as long as it is worse than the chosen one by the margin. The other two
kinds teach what a persona is (arXiv 2511.01689); they have no margin, and each pair says its kind.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import numpy as np

from pipeline.curation.criteria import Preference
from pipeline.curation.curator import Candidates
from pipeline.curation.dedup import heard, shingles, similarity
from pipeline.records import digest

ALIKE = 0.5  # replies that are so similar (Jaccard) teach no difference
_DRAWN = 4  # replies of other personas that are looked at, before a prompt goes without one


@dataclass(frozen=True, slots=True)
class Pair:
    """`chosen` is a place among the candidates, `rejected` the text; `of` says where that comes from, `margin` by how much
    better the chosen one is, in quality (None: not compared)."""

    chosen: int
    rejected: str
    kind: str
    of: str
    margin: float | None


def pairs(candidates: Candidates, contrast: Mapping[int, str], wanted: Preference) -> Iterator[Pair]:
    """The pairs of each prompt, in the order of the plan. `contrast` has the replies without a persona by prompt."""
    spoken = bytearray(bool(text.strip()) for text in candidates.texts)
    best = array("q")
    by_scenario: defaultdict[tuple[str, str], array[int]] = defaultdict(lambda: array("q"))
    for places in candidates.siblings():
        kept = [place for place in places if spoken[place] and place not in candidates.drops]
        chosen = min(kept, key=lambda place: (-candidates.quality[place], candidates.item_ids[place]), default=-1)
        best.append(chosen)
        if chosen >= 0 and not candidates.turns[chosen]:
            by_scenario[candidates.scenarios[chosen], candidates.splits[chosen]].append(chosen)
    in_order = {scenario: _Others(candidates, places) for scenario, places in by_scenario.items()}
    for places, chosen in zip(candidates.siblings(), best, strict=True):
        if chosen < 0 or candidates.turns[chosen]:  # later in a conversation, nobody else has heard the same
            continue
        places = [place for place in places if spoken[place]]
        if wanted.siblings and (pair := _sibling(candidates, places, chosen, wanted.margin)):
            yield pair
        said = contrast.get(candidates.prompts[chosen], "")
        if wanted.contrast and said and not _alike(said, candidates.texts[chosen]):
            yield Pair(chosen, said, "contrast", "", None)
        others = in_order[candidates.scenarios[chosen], candidates.splits[chosen]]
        if wanted.other_persona and (pair := _of_another(candidates, others, chosen)):
            yield pair


def _sibling(candidates: Candidates, places: Sequence[int], chosen: int, margin: float) -> Pair | None:
    quality = {place: candidates.quality[place] for place in places}
    worse = [place for place, value in quality.items() if quality[chosen] - value >= margin]
    worse = [place for place in worse if candidates.texts[place] != candidates.texts[chosen]]
    if not worse:
        return None
    taken = worse[0]
    if len(worse) > 1:
        aim = fmean(quality.values()) - 2 * pstdev(quality.values())
        taken = min(worse, key=lambda place: (abs(quality[place] - aim), candidates.item_ids[place]))
    return Pair(
        chosen, candidates.texts[taken], "siblings", candidates.item_ids[taken], quality[chosen] - quality[taken]
    )


class _Others:
    """The places of the best replies in a scenario, in the order of their ids."""

    def __init__(self, candidates: Candidates, places: "array[int]") -> None:
        ids = np.array([candidates.item_ids[place].encode() for place in places])
        order = np.argsort(ids)
        self._ids, self._places = ids[order], np.array(places)[order]

    def from_(self, item_id: str) -> Iterator[int]:
        """Some, from where that id would stand."""
        start = int(self._ids.searchsorted(np.bytes_(item_id)))
        for step in range(min(_DRAWN, len(self._places))):
            yield int(self._places[(start + step) % len(self._places)])


def _of_another(candidates: Candidates, others: _Others, chosen: int) -> Pair | None:
    """The next ones from where a hash of the chosen reply falls among the others: who comes in when does not matter, and
    another persona changes few pairs."""
    for other in others.from_(digest("pair", candidates.item_ids[chosen])):
        text = candidates.texts[other]
        if candidates.personas[other] != candidates.personas[chosen] and not _alike(text, candidates.texts[chosen]):
            return Pair(chosen, text, "other_persona", candidates.item_ids[other], None)
    return None


def _alike(one: str, other: str) -> bool:
    return similarity(shingles(heard(one)), shingles(heard(other))) >= ALIKE
