"""A run as a notebook sees it: `run = load_run("runs/mine")`, and then

run.frame()          one row a reply
run.scores()         the mean of each score, with its interval
run.latency()        how long replies took, with intervals
run.funnel()         what each filter took out
run.show(3)          a few replies to read
run.dataset("sft")   what a trainer takes
run.arms             the runs of an evaluation's arms, by name
"""

import json
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.run.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict

    from pipeline.excerpt import Excerpt

_TIMES = ("e2e", "ttft", "ttfv", "tpot", "queue")
_QUANTILES = (50, 90, 95, 99)
_REPLY = ("item_id", "turn")  # runs of older versions have one turn, and no column for it


class Run:
    """What a run left in its folder. Nothing is held in memory until it is asked for."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path = folder.path
        self.manifest = folder.manifest()

    def results(self) -> dict[str, Any]:
        """The summaries of the commands that ran on it, by command."""
        if not self._folder.results.exists():
            raise ConfigError(
                f"{self.path}: not finished. Go on with it: pipeline {self.manifest['command']} --resume {self.path}"
            )
        found: dict[str, Any] = json.loads(self._folder.results.read_text("utf-8"))
        return found

    @property
    def arms(self) -> "dict[str, Run]":
        """The run of each arm of an evaluation, by name, in their order; empty for a run that has none."""
        from pipeline.evaluation.arms import arm_folders

        return {name: Run(folder) for name, folder in arm_folders(self._folder).items()}

    def frame(self) -> "pd.DataFrame":
        """One row a reply: the player's line, the reply, timings in seconds, a column for each scorer's value, and for a
        generated run `filter`: what dropped the reply, "" for a kept one, null for what is neither (see `arm`, `error`)."""
        import pandas as pd

        from pipeline.run.plan import CONTRAST

        frame = self._replies()
        scores = pd.read_parquet(self._folder.scores)
        reply = [name for name in _REPLY if name in scores]
        if len(scores):
            wide = scores.pivot(index=reply, columns="scorer", values="value")
            frame = frame.merge(wide.reset_index(), on=reply, how="left")
        if self._folder.dataset.is_dir():
            dropped = self._flaws()[[*reply, "filter"]]
            frame = frame.merge(dropped, on=reply, how="left")
            judged = frame["reply"].notna() & (frame["arm"] != CONTRAST)
            frame["filter"] = frame["filter"].where(~judged | frame["filter"].notna(), "")
        return frame

    def scores(self) -> "pd.DataFrame":
        """One row a score, in the scorer's own unit (for most, 1 is good and 0 is bad): its mean over the `items` it applies to,
        the ends of its 95 % interval, clustered by persona (null for a single one), and the bounds that a reply has to keep,
        `least` and `most`. Of a generated run these are all replies, kept or not."""
        import pandas as pd

        from pipeline.comparison import read_run
        from pipeline.stats import clustered_mean

        self._check_single()
        arm, bounds = read_run(self._folder), self._bounds()
        rows = {}
        for name in [*bounds, *sorted(arm.scores.keys() - bounds.keys())]:
            if name in arm.scores and (values := arm.means(name)):
                mean = clustered_mean(values, {item: item[0] for item in values})
                rows[name] = [mean.value, mean.low, mean.high, *bounds.get(name, (None, None)), mean.n, mean.clusters]
        columns = ["mean", "low", "high", "least", "most", "items", "personas"]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        return frame.astype({"items": int, "personas": int}).rename_axis("score")

    def latency(self) -> "pd.DataFrame":
        """How long replies took, in seconds: a row for each time that was measured, its columns `n`, the quantiles `p50`, `p90`,
        `p95` and `p99`, and the ends of their 95 % intervals (`p50_low`, `p50_high`; null where there is too little to bound
        them), clustered by persona.

        `e2e` is the whole reply, `ttft` its first token and `ttfv` the first that a player sees (where replies streamed), `tpot`
        each further token, `queue` the wait on our side from when it should have been asked for, if there was any. What was asked for
        contrast does not count. A run of imported conversations has no rows: nobody looked at a clock.
        """
        import pandas as pd

        from pipeline.stats import clustered_quantile

        rows = {}
        for name in _TIMES:
            timed = self.times(name, "persona_id")
            same = name == "ttfv" and timed["ttfv"].tolist() == self.times("ttft")["ttft"].tolist()
            if len(timed) and not same and timed[name].any():
                seconds, personas = timed[name].tolist(), timed["persona_id"].tolist()
                found = [clustered_quantile(seconds, personas, q / 100) for q in _QUANTILES]
                rows[name] = [len(timed), *(end for one in found for end in (one.value, one.low, one.high))]
        columns = ["n", *(f"p{q}{end}" for q in _QUANTILES for end in ("", "_low", "_high"))]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
        return frame.astype({"n": int}).rename_axis("seconds")

    def times(self, *columns: str) -> "pd.DataFrame":
        """These columns of `frame()`, of the replies that have them all; none for a column that an older version did not write.
        What was asked for contrast does not count."""
        told = self._answered(columns)
        return told.reindex(columns=list(columns)).dropna()

    def funnel(self) -> "pd.DataFrame":
        """What became of the replies: a row for each filter, in the order they are tried, with how many it `dropped`, how many
        were `left` after it, and the `share` of all that these are. The first row has all that were answered."""
        import pandas as pd

        from pipeline.curation.criteria import AFTER_FLAW, DUPLICATE, LIMITS, UNTRAINABLE

        selection = self._criteria()["selection"]
        counts = self._flaws()["filter"].value_counts()
        limits = [name for name in LIMITS if selection[name] is not None]
        order = [UNTRAINABLE, *self._bounds(), AFTER_FLAW, DUPLICATE, *limits]
        dropped = pd.Series([0, *(int(counts.get(name, 0)) for name in order)], index=["answered", *order])
        answered = len(self._answered(()))
        left = answered - dropped.cumsum()
        return pd.DataFrame({"dropped": dropped, "left": left, "share": left / max(answered, 1)}).rename_axis("filter")

    def dataset(self, config: str = "sft", split: str | None = None) -> "Dataset | DatasetDict":
        """The run's dataset as `datasets` loads it, without any network: all splits by name, or one. Raises ConfigError, naming
        what there is, for a config or a split that is not there."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, in a notebook; its bars are not missed
            import datasets

        folder = self._made()
        splits: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*/*.parquet")):
            splits.setdefault(path.parent.name, []).append(path.stem)
        if config not in splits:
            raise ConfigError(f"{folder}: no config {config!r}. There are: {', '.join(splits) or 'none'}.")
        if split is not None and split not in splits[config]:
            raise ConfigError(f"{folder}: {config} has no split {split!r}. There are: {', '.join(splits[config])}.")
        silent = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(str(folder.resolve()), config, split=split)
        finally:
            if not silent:
                datasets.enable_progress_bars()

    def show(self, n: int = 3, *, kept: bool | None = None, filter: str | None = None) -> "Excerpt":
        """`n` replies to read, from all over the run and always the same ones: of all, of those that were kept or were not, or of
        those that `filter` dropped. In an evaluation, where nothing is dropped, what passes every score counts as kept."""
        from pipeline.excerpt import excerpt

        replies = self._answered((*_REPLY, "persona_id", "scenario_id", "line", "reply", "e2e"))
        return excerpt(replies, self._flaws(), n, kept=kept, filter=filter)

    def _replies(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        self._check_single()
        if not self._folder.replies.exists():
            self.results()  # raises where the run is not finished
            raise ConfigError(f"{self._folder.replies}: gone. It is made again by: pipeline eval {self.path}")
        return _table(self._folder.replies, columns)

    def _answered(self, columns: Sequence[str]) -> "pd.DataFrame":
        """The replies that scorers and filters look at."""
        from pipeline.run.plan import CONTRAST

        told = self._replies((*columns, *(name for name in ("reply", "arm") if name not in columns)))
        return told[told["reply"].notna() & (told["arm"] != CONTRAST)]

    def _flaws(self) -> "pd.DataFrame":
        """What is wrong with which reply: `filter`, `reason`, `evidence`. One for what a dataset dropped; in an evaluation, one
        for each score out of its bounds."""
        import pandas as pd

        columns = [*_REPLY, "filter", "reason", "evidence"]
        if self.manifest["command"] != "eval":
            path = self._made() / "rejected" / "train.parquet"
            return (
                _table(path, columns)
                if path.exists()
                else pd.DataFrame({name: pd.Series(dtype=int if name == "turn" else str) for name in columns})
            )
        scores = pd.read_parquet(self._folder.scores).rename(columns={"scorer": "filter"})
        bounds = self._bounds()
        ends = scores["filter"].map(lambda name: bounds.get(name, (None, None)))
        least, most = (pd.to_numeric(ends.str[end]) for end in (0, 1))
        failing = scores[(scores["value"] < least) | (scores["value"] > most)]
        figure = failing["value"].map("{:.3g}".format)
        return failing.assign(reason=failing["reason"].where(failing["reason"] != "", figure))

    def _bounds(self) -> dict[str, tuple[float | None, float | None]]:
        """The least and the most that passes, by score, in the order of the filters."""
        if self.manifest["command"] == "eval":
            bounds: dict[str, Any] = self.results()["eval"]["bounds"]
            return {name: (own["least"], own["most"]) for name, own in bounds.items()}
        filters = self._criteria()["filters"]
        return {name: (own.get("min"), own.get("max")) for name, own in filters.items() if own is not False}

    def _criteria(self) -> dict[str, Any]:
        """What the dataset was made by."""
        self._made()  # raises where there is none
        return self._folder.criteria()

    def _check_single(self) -> None:
        if arms := self.manifest.get("arms"):
            one = next(iter(arms))
            raise ConfigError(f"{self.path}: an evaluation of {len(arms)} arms. Look at one of them: run.arms[{one!r}]")

    def _made(self) -> Path:
        """The folder of its dataset. Raises ConfigError where there is none."""
        if self.manifest["command"] == "eval":
            raise ConfigError(f"{self.path}: an evaluation. It drops nothing: there is no funnel and no dataset.")
        if not self._folder.dataset.is_dir():
            self.results()  # raises where the run is not finished
            raise ConfigError(f"{self._folder.dataset}: gone. It is made again by: pipeline curate {self.path}")
        return self._folder.dataset

    def __await__(self) -> Generator[Any, None, "Run"]:
        """It is done already: `run = await pipeline.generate(...)` is the same as without `await`."""

        async def itself() -> Run:
            return self

        return itself().__await__()

    def __repr__(self) -> str:
        state = "finished" if self.manifest.get("finished") else "not finished"
        return f"<Run {self.path} ({self.manifest['command']}, {state})>"


def _table(path: Path, columns: Sequence[str] | None) -> "pd.DataFrame":
    """Those of the columns that it has: older versions wrote fewer."""
    import pandas as pd
    import pyarrow.parquet as pq

    there = pq.read_schema(path).names
    return pd.read_parquet(path, columns=None if columns is None else [name for name in columns if name in there])


def load_run(path: "str | Path") -> Run:
    """The run in the folder `path`. Raises ConfigError if there is none."""
    return Run(RunFolder(Path(path)))
