"""The dataset card: what is in the dataset, how it was made, by which model, and what it is not good for.

Its YAML head is what `datasets` and the hub read. Names that come from users or servers are data here too: they are written
as inline code, so that they cannot become markup.
"""

from pathlib import Path
from statistics import median
from typing import Any

import yaml

from pipeline.produce import Produced
from pipeline.splits import KNOWN, NEW, TRAIN

_COUNTED_BY = {"server": "the server", "tokenizer": "its tokenizer", "estimate": "an estimate from the text"}
_ABOUT_SPLITS = {
    TRAIN: "to train on",
    KNOWN: "scenarios that are not in the training set, with NPCs that were not held out of it",
    NEW: "NPCs that are not in the training set",
}
_DEMO = """\
> **These replies are not worth training on.** They come from the small model that the pipeline carries for demonstration.
> Run the same command with `--server` and a model of your choice.
"""


def write_card(folder: Path, produced: Produced, summary: dict[str, Any], words: list[int]) -> None:
    """`summary` is that of `dataset.Made`; `words` the length of each kept reply."""
    target, config = produced.target, produced.config
    configs: list[dict[str, Any]] = []
    if summary["splits"]:
        files = [{"split": name, "path": f"sft/{name}.parquet"} for name in summary["splits"]]
        configs.append({"config_name": "sft", "default": True, "data_files": files})
    if summary["dropped"]:  # `datasets` cannot load a table without rows
        files = [{"split": "train", "path": "rejected/train.parquet"}]
        configs.append({"config_name": "rejected", "data_files": files})
    head = {
        "pretty_name": "NPC replies",
        "tags": ["npc", "role-play", "synthetic"],
        "task_categories": ["text-generation"],
        "configs": configs,
    }
    latency, tokens = summary["latency"], summary["tokens"]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        "# NPC replies\n",
        _DEMO if target.demo else "",
        "Replies of NPCs to players, for supervised fine-tuning: `prompt` and `completion` are lists of `role` and `content`, "
        "the format of TRL's `SFTTrainer`. The other columns say where a row comes from and how it scored.\n",
        "## How it was made\n",
        _table(
            ("what", "value"),
            [
                ("model", _code(target.model or "not named by the server")),
                ("licence of the model", _code(target.licence) if target.licence else "see the model's own licence"),
                ("identity", _code(target.identity)),
                ("server", f"{_code(target.shown)}, dialect {_code(target.dialect.name)}"),
                ("personas", f"{produced.count.personas} from {_code(config.personas)}"),
                ("scenarios", f"{len(produced.plan.scenarios)} from {_code(config.scenarios)}"),
                ("template", _code(config.template)),
                ("samples a scenario", str(config.samples)),
                ("sampling", f"max_tokens {config.max_tokens}, temperature {config.temperature}, seed {config.seed}"),
            ],
        ),
        "## What became of the replies\n",
        _table(
            ("stage", "rows"),
            [
                ("asked for", str(summary["asked"])),
                ("answered", str(summary["answered"])),
                ("failed", str(summary["failed"])),
                *([("not asked yet", str(summary["missing"]))] if summary["missing"] else []),
                *((f"dropped by {_code(name)}", str(count)) for name, count in summary["dropped"].items()),
                ("**kept**", f"**{summary['kept']}**"),
            ],
        ),
        "Dropped rows are in the config `rejected`, each with its filter, reason and evidence.\n"
        if summary["dropped"]
        else "Nothing was dropped: there is no config `rejected`.\n",
        "## Splits\n",
        _table(("split", "rows", "what"), [(n, str(c), _ABOUT_SPLITS[n]) for n, c in summary["splits"].items()]),
        "".join(f"- {note}\n" for note in summary["notes"]),
        "Rows go to a split by a hash of persona and scenario: adding rows moves none.\n",
        "## Lengths and speed\n",
        f"Kept replies have {min(words)} to {max(words)} words, the median is {median(words):g}.\n" if words else "",
        f"A reply took {latency['e2e_p50']:.2f} s at the median and {latency['e2e_p95']:.2f} s at the 95th percentile, "
        f"with {_at_a_time(target.at_a_time)} at a time.\n"
        if latency
        else "",
        f"There are {tokens['prompt']} prompt and {tokens['completion']} completion tokens, counted by "
        f"{' and '.join(_COUNTED_BY[source] for source in tokens['counted_by'])}.\n"
        if tokens["counted_by"]
        else "",
        "## Limits\n",
        "The replies are a language model's. Filters look at form and at known phrases; they do not judge whether a reply is "
        "true to its persona. Personas and players' lines are written by hand and cover what their authors thought of.\n",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join(part for part in parts if part), "utf-8", newline="\n")


def _code(text: str) -> str:
    shown = "".join(c if c.isprintable() and c not in "`|<>" else " " for c in text)[:200].strip()
    return f"`{shown}`" if shown else "-"


def _at_a_time(asked: int | str) -> str:
    return "as many as served best" if asked == "auto" else str(asked)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"
