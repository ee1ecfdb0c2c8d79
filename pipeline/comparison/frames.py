"""A comparison as a notebook sees it: `pipeline.compare(a, b).frame()`."""

from typing import TYPE_CHECKING, Any

from pipeline.comparison.text import compared

if TYPE_CHECKING:
    import pandas as pd


class Comparison:
    """What B is against A. Shown, it says the same as `pipeline compare`; `summary` is its JSON."""

    def __init__(self, summary: dict[str, Any]) -> None:
        self.summary = summary

    @property
    def verdict(self) -> str:
        """better, worse, mixed, none (no difference was seen) or inconclusive; of B."""
        return str(self.summary["verdict"])

    def frame(self) -> "pd.DataFrame":
        """A row for each score: the means of both, B - A with its 95 % interval, p (Holm's), and a verdict: better, worse,
        "not seen", or "too few" personas to tell."""
        import pandas as pd

        rows = [
            {
                "score": name,
                "a": score["a"]["value"],
                "b": score["b"]["value"],
                **{end: score["difference"][end] for end in ("difference", "low", "high")},
                "p": score["p_holm"],
                "items": score["difference"]["n"],
                "verdict": score["verdict"],
                "less_is_better": score["less_is_better"],
                "selected_on": score["selected_on"],
            }
            for name, score in self.summary["scores"].items()
        ]
        return pd.DataFrame(rows, columns=_COLUMNS).set_index("score")

    def flips(self) -> "pd.DataFrame":
        """The items that moved most, a row each: what was asked, and both replies with their scores."""
        import pandas as pd

        rows = [
            {
                "score": flip["scorer"],
                "item": " / ".join(dict.fromkeys(flip["item"])),
                "asked": flip["asked"],
                **{f"{side}_{what}": flip[side][what] for side in ("a", "b") for what in ("score", "text")},
            }
            for flip in self.summary["flips"]
        ]
        return pd.DataFrame(rows, columns=["score", "item", "asked", "a_score", "a_text", "b_score", "b_text"])

    def __repr__(self) -> str:
        return compared(self.summary)


_COLUMNS = [
    "score", "a", "b", "difference", "low", "high", "p", "items", "verdict", "less_is_better", "selected_on",
]  # fmt: skip
