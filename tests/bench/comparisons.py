"""Does a comparison cry "different" where nothing is, and does it find what it says that it can find?

    python tests/bench/comparisons.py [RUNS]     all of it, with 1,000 simulated comparisons for each row: a few minutes

Two arms meet the same personas, four items each. An arm's success with a persona is its own: that is what the intra-class
correlation of the differences comes from. "naive" is the paired t-test that takes all items as independent. The planted effect
is the minimum detectable one of the design, by its true standard error; nothing stands there where a share cannot rise so far.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np

from pipeline.stats import least_visible_change, minimum_detectable_effect, paired, paired_quantile, t_quantile

ITEMS = 4
KINDS = ("continuous", "passes", "3 tries", "median")
STEPS = {"passes": 1, "3 tries": 1 / 3}
CORRELATIONS, PERSONAS = (0.0, 0.3, 0.7), (8, 20, 200)


@dataclass(frozen=True)
class Design:
    kind: str
    correlation: float
    personas: int

    def arms(self, rng, runs, effect):
        """Scores of A and B, an array of runs x personas x items each; B is raised by `effect` on the scale below them."""
        shape = (runs, self.personas, ITEMS)
        item = rng.standard_normal(shape)  # some lines are harder than others, for both

        def arm(raised):
            persona = rng.standard_normal((runs, self.personas, 1))
            own = np.sqrt(self.correlation) * persona + np.sqrt(1 - self.correlation) * rng.standard_normal(shape)
            level = (item + own) / np.sqrt(2) + raised
            if self.kind in ("continuous", "median"):
                return level
            tries = 3 if self.kind == "3 tries" else 1
            noise = rng.standard_normal((tries, *shape)) if tries > 1 else np.zeros((1, *shape))
            return (level + 0.5 * noise > 0).mean(axis=0)

        return arm(0.0), arm(effect)

    def planted(self, rng):
        """The effect, on the scale below the scores, that makes the difference of means the minimum detectable one."""
        low, high, seed = 0.0, 6.0, int(rng.integers(2**31))
        alone = replace(self, personas=1)
        for _ in range(14):
            middle = (low + high) / 2
            a, b = alone.arms(np.random.default_rng(seed), 100_000, middle)
            d = (b - a)[:, 0]
            needed = minimum_detectable_effect(float(d.mean(axis=1).std() / np.sqrt(self.personas)), self.personas)
            if self.personas <= 20:  # as `paired` has it
                needed += STEPS.get(self.kind, 0) / (ITEMS * self.personas)
            if self.kind == "passes":
                worth = float(d.var() / d.mean(axis=1).var())
                needed = max(needed, least_visible_change(self.personas, worth))
            low, high = (low, middle) if d.mean() >= needed else (middle, high)
        return high if high < 5.9 else None

    def different(self, a, b):
        """What `pipeline compare` would say of one scorer; and what a naive test would."""
        persona = {(p, i): p for p in range(self.personas) for i in range(ITEMS)}
        if self.kind == "median":
            who = list(persona.values())
            found = paired_quantile(a.ravel(), b.ravel(), who, who, 0.5)
            return (found.low or 0) > 0 or (found.high or 0) < 0
        x, y = (dict(zip(persona, arm.ravel().tolist(), strict=True)) for arm in (a, b))
        found = paired(x, y, persona)
        return found.p <= 0.05 and found.low is not None and (found.low > 0 or found.high < 0)

    def shares(self, seed, runs):
        """How often "different" is said: of equal arms, by a naive test, and of arms that are the detectable effect apart."""
        rng = np.random.default_rng(seed)
        a, b = self.arms(rng, runs, 0.0)
        false = np.mean([self.different(*arms) for arms in zip(a, b, strict=True)])
        d = (b - a).reshape(runs, -1)
        n = d.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            naive = np.mean(np.abs(d.mean(axis=1)) / (d.std(axis=1, ddof=1) / np.sqrt(n)) > t_quantile(0.975, n - 1))
        if self.kind == "median" or (effect := self.planted(rng)) is None:
            return false, naive, None
        a, b = self.arms(rng, runs, effect)
        return false, naive, np.mean([self.different(*arms) for arms in zip(a, b, strict=True)])


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{'scores':12}{'correlation':>12}{'personas':>10}{'equal arms':>12}{'naive':>8}{'planted':>9}")
    for kind in KINDS:
        for correlation in CORRELATIONS:
            for personas in PERSONAS:
                design = Design(kind, correlation, personas)
                false, naive, found = design.shares([KINDS.index(kind), round(10 * correlation), personas], runs)
                planted = "" if found is None else f"{found:9.1%}"
                print(f"{kind:12}{correlation:12.1f}{personas:10d}{false:12.1%}{naive:8.1%}{planted}", flush=True)


if __name__ == "__main__":
    main()
