"""A run as a notebook sees it: `load_run("runs/mine").frame()`."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.runfolder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


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

    def frame(self) -> "pd.DataFrame":
        """One row a reply: the player's line, the reply, timings in seconds, a column for each scorer's value, and for a
        generated run `filter`: what dropped the reply, "" for a kept one, null for what is neither (see `arm`, `error`)."""
        import pandas as pd

        from pipeline.plan import CONTRAST

        if not self._folder.replies.exists():
            self.results()  # raises where the run is not finished
            raise ConfigError(f"{self._folder.replies}: gone. It is made again by: pipeline eval {self.path}")
        frame = pd.read_parquet(self._folder.replies)
        scores = pd.read_parquet(self._folder.scores)
        reply = [name for name in ("item_id", "turn") if name in scores]  # runs of older versions have one turn
        if len(scores):
            wide = scores.pivot(index=reply, columns="scorer", values="value")
            frame = frame.merge(wide.reset_index(), on=reply, how="left")
        if self._folder.dataset.is_dir():
            rejected = self._folder.dataset / "rejected" / "train.parquet"
            if rejected.exists():
                dropped = pd.read_parquet(rejected, columns=[*reply, "filter"])
                frame = frame.merge(dropped, on=reply, how="left")
            else:
                frame["filter"] = pd.Series(dtype=str)
            judged = frame["reply"].notna() & (frame["arm"] != CONTRAST)
            frame["filter"] = frame["filter"].where(~judged | frame["filter"].notna(), "")
        return frame

    def __await__(self) -> Generator[None, None, "Run"]:
        """It is done already: `run = await pipeline.generate(...)` is the same as without `await`."""
        return self
        yield  # which makes this a generator

    def __repr__(self) -> str:
        state = "finished" if self.manifest.get("finished") else "not finished"
        return f"<Run {self.path} ({self.manifest['command']}, {state})>"


def load_run(path: "str | Path") -> Run:
    """The run in the folder `path`. Raises ConfigError if there is none."""
    return Run(RunFolder(Path(path)))
