"""The dataset card: what is in the dataset, how it was made, by which model, and what it is not good for.

Its YAML head is what `datasets` and the hub read. Names that come from users or servers are data here too: they are written
as inline code, so that they cannot become markup.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from pipeline.config import RunConfig
from pipeline.curation.diversity import SAMPLE
from pipeline.run.plan import Recorded
from pipeline.run.produce import Produced
from pipeline.run.splits import KNOWN, NEW, TRAIN

_COUNTED_BY = {"server": "the server", "tokenizer": "its tokenizer", "estimate": "an estimate from the text"}
_PERSONAS = 50  # whose variety the card shows
_ABOUT = {
    "sft": "what was kept",
    "conversations": "whole conversations, each up to its first flaw, to learn from what the assistant says in them",
    "preference": "pairs of a better and a worse reply, by `kind`",
    "kto": "single replies, good or bad by `label`",
    "rejected": "what was dropped, by `filter`, with `reason` and `evidence`",
}
_ABOUT_SPLITS = {
    TRAIN: "to train on",
    KNOWN: "scenarios that are not in the training set, with NPCs that were not held out of it",
    NEW: "NPCs that are not in the training set",
}
_DEMO = """\
> **These replies are not worth training on.** They come from the small model that the pipeline carries for demonstration.
> Run the same command with `--server` and a model of your choice.
"""


def write_card(folder: Path, produced: Produced, summary: dict[str, Any], words: Sequence[int]) -> None:
    """`summary` is that of `dataset.Made`; `words` the length of each kept reply."""
    target = produced.target
    configs: list[dict[str, Any]] = [
        {
            "config_name": config,
            **({"default": True} if config == "sft" else {}),
            # `datasets` keeps what it has loaded by the folder's name and this head: by nothing else it would tell the
            # dataset of one run, or of one `curate`, from that of another.
            "description": _content(folder / config),
            "data_files": [{"split": split, "path": f"{config}/{split}.parquet"} for split in splits],
        }
        for config, splits in summary[
            "configs"
        ].items()  # `datasets` cannot load a table without rows: those are left out
    ]
    head = {
        "pretty_name": "NPC replies",
        "tags": ["npc", "role-play", *([] if produced.imported else ["synthetic"])],
        "task_categories": ["text-generation"],
        "configs": configs,
    }
    latency, tokens = summary["latency"], summary["tokens"]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        "# NPC replies\n",
        _DEMO if target.demo else "",
        "Replies of NPCs to players, to fine-tune a model on. The columns that a trainer reads are in the format of TRL's "
        "trainers; the others say where a row comes from and how it scored.\n",
        _table(
            ("config", "columns", "rows", "what"),
            [
                (_code(name), _columns(name), _by_split(splits), _ABOUT[name])
                for name, splits in summary["configs"].items()
            ],
        ),
        f"Pairs by kind: {', '.join(f'{_code(kind)} {count}' for kind, count in summary['pairs'].items())}. Siblings are replies "
        "to the same prompt, apart by a margin in their scores; contrast is what the model says without the persona; "
        "other_persona is what somebody else says to the same line.\n"
        if summary["pairs"]
        else "",
        "## How it was made\n",
        _table(
            ("what", "value"),
            [
                *_asked(produced),
                ("training prompt", _code(summary["training_prompt"])),
            ],
        ),
        "## What became of the replies\n",
        _table(
            ("stage", "rows"),
            [
                ("asked for", str(summary["asked"])),
                ("answered", str(summary["answered"])),
                ("failed", str(summary["failed"])),
                *([("for contrast only", str(summary["contrast"]))] if summary["contrast"] else []),
                *([("not asked yet", str(summary["missing"]))] if summary["missing"] else []),
                *((f"dropped by {_code(name)}", str(count)) for name, count in summary["dropped"].items()),
                ("**kept**", f"**{summary['kept']}**"),
            ],
        ),
        "The criteria are in `curation.yaml`.\n",
        "Dropped rows are in the config `rejected`, each with its filter, reason and evidence.\n"
        if summary["dropped"]
        else "Nothing was dropped: there is no config `rejected`.\n",
        "## Splits\n",
        _table(("split", "rows", "what"), [(n, str(c), _ABOUT_SPLITS[n]) for n, c in summary["splits"].items()]),
        "".join(f"- {note}\n" for note in summary["notes"]),
        "Rows go to a split by a hash of persona and scenario: adding rows moves none.\n",
        _variety(summary),
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
        _lengths(summary["row_tokens"]),
        "## Limits\n",
        (
            "Who said the replies, the data does not tell. "
            if produced.imported
            else "The replies are a language model's. "
        )
        + "Filters look at form and at known phrases; they do not judge whether a reply is "
        "true to its persona. Personas and players' lines are written by hand and cover what their authors thought of.\n",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join(part for part in parts if part), "utf-8", newline="\n")


def _asked(produced: Produced) -> list[tuple[str, str]]:
    """Where the replies come from."""
    target, config, plan = produced.target, produced.config, produced.plan
    if isinstance(plan, Recorded):
        return [
            ("imported from", _code(_named(produced.imported))),
            ("personas", str(produced.count.personas)),
            ("prompt", f"{_code(config.template)}, where the data has no system message"),
        ]
    return [
        ("model", _code(target.model or "not named by the server")),
        ("licence of the model", _code(target.licence) if target.licence else "see the model's own licence"),
        ("identity", _code(target.identity)),
        ("server", f"{_code(target.product or 'not named')}, dialect {_code(target.dialect.name)}"),
        ("personas", f"{produced.count.personas} from {_code(_named(config.personas))}"),
        ("scenarios", f"{len(plan.scenarios)} from {_code(_named(config.scenarios))}"),
        ("generating prompt", _code(config.template)),
        ("samples a scenario", str(config.samples)),
        *([("turns a conversation", _turns(config))] if config.turns != 1 else []),
        *([("the player's lines", _player(produced))] if config.player is not None else []),
        ("sampling", f"max_tokens {config.max_tokens}, temperature {config.temperature}, seed {config.seed}"),
    ]


def _content(folder: Path) -> str:
    """What tells the tables of a folder from any others."""
    mark = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*.parquet")):
        with path.open("rb") as file:
            mark.update(hashlib.file_digest(file, "blake2b").digest())
    return mark.hexdigest()


def _named(source: str) -> str:
    """The card may be read by everybody: of a path, the last name is enough. OWNER/NAME on the hub stays."""
    return source if not Path(source).exists() else Path(source).name


def _turns(config: RunConfig) -> str:
    most = "one for each line of the scenario" if config.turns is None else f"at most {config.turns}"
    return f"{most}, the newest {config.window} messages as history"


def _player(produced: Produced) -> str:
    by = produced.player or produced.target
    return f"from the scenario, then by {_code(by.model or by.identity)} with {_code(str(produced.config.player))}"


def _columns(config: str) -> str:
    found = {
        "conversations": "messages, turns",
        "preference": "prompt, chosen, rejected",
        "kto": "prompt, completion, label",
    }
    return ", ".join(_code(name) for name in found.get(config, "prompt, completion").split(", "))


def _by_split(splits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in splits.items())


def _variety(summary: dict[str, Any]) -> str:
    found, personas = summary["diversity"], summary["diversity_by_persona"]
    if not found or found["self_bleu"] is None:
        return ""
    rows = [("all", found), *sorted(personas.items())][: 1 + _PERSONAS]
    figures = [
        (_code(name), str(of["texts"]), *(_figure(of[key]) for key in ("distinct_1", "distinct_2", "self_bleu")))
        for name, of in rows
    ]
    return (
        "## Variety\n\n"
        "The share of different words and pairs of words (more is more varied), and self-BLEU (less is more varied), over "
        f"at most {SAMPLE} replies each.\n\n"
        + _table(("of", "replies", "distinct-1", "distinct-2", "self-BLEU"), figures)
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _lengths(tokens: dict[str, Any] | None) -> str:
    if tokens is None:
        return ""
    return (
        f"A row, prompt and completion, has {tokens['p50']} tokens at the median, {tokens['p95']} at the 95th percentile and "
        f"{tokens['max']} at most, counted by {' and '.join(_COUNTED_BY[who] for who in tokens['counted_by'].split(' and '))}: "
        "a trainer's longest sequence has to hold them (TRL's default is 1024).\n"
    )


def _code(text: str) -> str:
    shown = "".join(c if c.isprintable() and c not in "`|<>" else " " for c in text)[:200].strip()
    return f"`{shown}`" if shown else "-"


def _at_a_time(asked: int | str) -> str:
    return "as many as served best" if asked == "auto" else str(asked)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"
