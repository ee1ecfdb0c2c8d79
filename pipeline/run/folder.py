"""A run is a folder: what was asked for, what was answered, and what came of it.

run.json              what was asked, with what, and whether it is finished; written first, and again last
inputs/               the checked personas, the scenarios and the prompt templates it was made from
journal/npc.jsonl     every attempt as it happened: with the inputs, all that cannot be made again
replies.parquet       one row a reply                                                (made from the journal)
scores.parquet        one row a reply and scorer
dataset/              what is trained on, with its card
results.json          the summary
report.html           the same as a page, with every transcript
"""

import contextlib
import datetime
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.hints import nearest

FORMAT = 1


class Inputs:
    """What a run was made from, checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.personas = path / "personas.jsonl"
        self.scenarios = path / "scenarios.jsonl"
        self.conversations = path / "conversations.jsonl"  # instead of scenarios, where replies were had elsewhere
        self.prompts = path / "prompts"

    def replace(self, other: "Inputs") -> None:
        """Take the place of `other`."""
        shutil.rmtree(other.path, ignore_errors=True)
        os.replace(self.path, other.path)


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest_path = path / "run.json"
        self.inputs = Inputs(path / "inputs")
        self.journal = path / "journal" / "npc.jsonl"
        self.replies = path / "replies.parquet"
        self.scores = path / "scores.parquet"
        self.dataset = path / "dataset"
        self.results = path / "results.json"
        self.report = path / "report.html"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Sole use of the folder. Raises ConfigError if somebody else has it, or if it is something else's folder."""
        import filelock

        try:
            there = os.listdir(self.path) if self.path.is_dir() else []
            # A run that died before its first run.json has inputs and hidden files only.
            strange = [name for name in there if name not in ("inputs", "journal") and not name.startswith(".")]
            if strange and not self.manifest_path.exists():
                raise ConfigError(f"{self.path}: holds other things and no run.json. Take an empty folder for --out.")
            new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except filelock.Timeout as exc:
            raise ConfigError(
                f"{self.path}: {self._holder()} is writing this run. Wait for it, or take another --out."
            ) from exc
        except OSError as exc:
            raise ConfigError(
                f"{self.path}: cannot be written: {exc.strerror}. Choose another folder with --out."
            ) from exc
        holder = self.path / ".holder"
        try:
            with contextlib.suppress(OSError):
                holder.write_text(f"process {os.getpid()} on {platform.node()}, since {now()},", "utf-8", newline="\n")
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink()
            lock.release()
            if not self.manifest_path.exists():  # nothing came of it: leave nothing behind
                with contextlib.suppress(OSError):
                    (self.path / ".lock").unlink(missing_ok=True)
                    for folder in new or [self.path]:
                        folder.rmdir()

    def _holder(self) -> str:
        try:
            return (self.path / ".holder").read_text("utf-8")[:200]
        except (OSError, ValueError):
            return "another process"

    def manifest(self) -> dict[str, Any]:
        """What run.json says; raises ConfigError if it is not there or not ours."""
        try:
            manifest = json.loads(self.manifest_path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ConfigError(self._no_run()) from exc
        except OSError as exc:
            raise ConfigError(f"{self.manifest_path}: cannot be read: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise ConfigError(f"{self.manifest_path}: damaged, it is no JSON: {exc}. Make the run anew.") from exc
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            what = "Upgrade the pipeline" if isinstance(found, int) and found > FORMAT else "Make the run anew"
            raise ConfigError(f"{self.manifest_path}: of format {found}, and this version reads {FORMAT}. {what}.")
        return dict(manifest)

    def _no_run(self) -> str:
        """What somebody may have meant who names a folder that is no run."""
        if inside := next((str(one) for one in self.path.parents if (one / "run.json").is_file()), ""):
            return f"{self.path}: a part of a run, which is meant by its folder: {inside}."
        if self.path.is_file():
            return f"{self.path}: a file. A run is a folder, which pipeline generate and eval make."
        beside = [one.parent.as_posix() for one in (*Path().glob("runs/*/run.json"), *self.path.glob("*/run.json"))]
        there = nearest(self.path.as_posix(), sorted(set(beside))) if beside else ""
        return f"{self.path}: no run there (no run.json). Runs are made by pipeline generate and eval.{there}"

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.manifest_path, {"format": FORMAT, **manifest})

    def finish(self, command: str, summary: dict[str, Any], *, complete: bool) -> None:
        """Write the summary of a command beside that of others, and the mark that says the run is whole."""
        write_json(self.results, {**self._results(), command: summary})
        manifest = self.manifest()
        if complete and not manifest.get("finished"):
            self.write_manifest({**manifest, "finished": now()})

    def results_of(self, command: str) -> dict[str, Any]:
        """The last summary of a command on this run; empty if there is none."""
        found = self._results().get(command)
        return found if isinstance(found, dict) else {}

    def criteria(self) -> dict[str, Any]:
        """What its dataset was made by, as plain values; empty if there is none. Raises ConfigError if it is not whole."""
        import yaml

        path = self.dataset / "curation.yaml"
        try:
            made_by = yaml.safe_load(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as exc:
            raise ConfigError(f"{path}: cannot be read: {' '.join(str(exc).split())}") from exc
        if not isinstance(made_by, dict) or not isinstance(made_by.get("filters"), dict):
            raise ConfigError(
                f"{path}: not what pipeline curate writes. It writes it anew: pipeline curate {self.path}"
            )
        return made_by

    def _results(self) -> dict[str, Any]:
        try:
            results = json.loads(self.results.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return results if isinstance(results, dict) else {}


def replace_folder(final: Path, aside: Path) -> None:
    """Put `aside` in the place of `final`. Killed between the two renames, the old one stands as .NAME.old beside its place:
    `restore_folder`."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(aside, final)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    if old.exists() and not final.exists():
        os.replace(old, final)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_json(path: Path, value: Any) -> None:
    """Aside, then renamed: what stands under `path` is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def newest_unfinished(runs: Path, command: str) -> Path:
    """The folder that `--resume` without a name means."""
    found = []
    for manifest_path in runs.glob("*/run.json"):
        try:
            manifest = RunFolder(manifest_path.parent).manifest()
        except ConfigError:
            continue
        if manifest.get("command") == command and not manifest.get("finished"):
            found.append((manifest.get("started", ""), manifest_path.parent))
    if not found:
        raise ConfigError(f"--resume: no unfinished pipeline {command} under {runs}/.")
    return max(found)[1]
