"""How to train on an export: what a person pastes into the trainer's configuration, and LLaMA-Factory's own list of files."""

import json
from typing import Any

from pipeline.run.splits import SPLITS, TRAIN

Row = dict[str, Any]

_TRAINERS = {"sft": "SFT", "conversations": "SFT", "preference": "DPO", "kto": "KTO"}
_RUN = {
    "trl": 'Run in this folder, as Python, with `pip install "trl>=1.16"`; `MODEL` is a hub id or a folder.',
    "axolotl": "The part of an axolotl configuration that says what to train on, for `axolotl train` in this folder. Prepared "
    "data is kept in `.prepared` because axolotl finds it again by the file's name, whatever is in it by then.",
    "llamafactory": "`dataset_info.json` describes the files. Save as YAML here, and run in this folder with "
    "`llamafactory-cli train FILE.yaml model_name_or_path=MODEL output_dir=WHERE`.",
    "sharegpt": "`conversations` of `from` (system, human, gpt) and `value`; pairs have `chosen` and `rejected` of the same, and "
    "KTO a `label`. LLaMA-Factory: `formatting: sharegpt` with its default tags. axolotl: `type: chat_template`, "
    "`field_messages: conversations`, `message_property_mappings: {role: from, content: value}`.",
}
_TRL = """\
from datasets import load_dataset
from trl import {trainer}Config, {trainer}Trainer

data = load_dataset("json", data_files={files})
args = {trainer}Config(output_dir="../npc-{stage}", max_length=2048{more})
{trainer}Trainer("MODEL", args=args, train_dataset=data.pop("train"), eval_dataset=dict(data) or None).train()
"""
_AXOLOTL = {
    "sft chat": "type: chat_template, message_field_training: train, roles_to_train: [], train_on_eos: turn",
    "conversations chat": "type: chat_template, message_field_training: train, roles_to_train: [], train_on_eos: turn",
    "sft text": 'type: {field_instruction: prompt, field_output: completion, format: "{instruction}", '
    'no_input_format: "{instruction}"}',
    "preference chat": "type: chat_template.default",
    "preference text": "type: {field_prompt: prompt, field_chosen: chosen, field_rejected: rejected}",
    "kto chat": "type: chatml.argilla_chat",
    "kto text": "type: {field_prompt: prompt, field_completion: completion, field_label: label}",
}
_WHOLE = (
    "Whole conversations have the same replies as `sft`: train on one of the two. Only what the NPC says is learned"
)
_NOTES = {
    "trl conversations chat": f"{_WHOLE}, for which TRL needs a chat template that marks it; it has its own for the usual families.",
    "axolotl conversations chat": f"{_WHOLE}.",
    "llamafactory conversations chat": f"{_WHOLE}: LLaMA-Factory masks the user's part.",
    "axolotl kto chat": "The type is that of models with ChatML's tokens; for those with Llama 3's it is "
    "`llama3.argilla_chat`. axolotl has no type for others; TRL has. axolotl 0.19 reads whole conversations, some older ones only two messages.",
    "llamafactory sft text": "The template `fewshot` adds nothing before the reply and ends it with two line feeds.",
}


def guide(
    format: str, kinds: dict[str, str], rows: dict[str, int], skipped: dict[str, dict[str, int]]
) -> dict[str, str]:
    """Texts by the names of their files. `kinds` says of each config whether it is "chat" or "text", `rows` and `skipped` what
    was written and left out, by file."""
    texts: dict[str, str] = {}
    info: dict[str, Row] = {}
    parts = [f"# NPC replies for {format}\n\n{_RUN[format]}\n"]
    for config, kind in kinds.items():
        files = {split: name for split in SPLITS if (name := f"{config}.{split}.jsonl") in rows}
        info |= {f"npc_{config}_{split}": _described(config, kind, name) for split, name in files.items()}
        if TRAIN in files and format != "sharegpt":
            language, snippet = _snippet(format, config, kind, files)
            note = _NOTES.get(f"{format} {config} {kind}", "")
            whole = ", whole conversations" if config == "conversations" else ""
            parts += [f"## {_TRAINERS[config]}{whole}\n\n```{language}\n{snippet}```\n", f"{note}\n" if note else ""]
    parts.append("## Rows\n\n| file | rows |\n| --- | --- |\n" + "".join(f"| {n} | {c} |\n" for n, c in rows.items()))
    parts += [f"{name}: left out {n} {why}.\n" for name, whys in skipped.items() for why, n in whys.items()]
    texts["README.md"] = "\n".join(part for part in parts if part)
    if format == "llamafactory":
        texts["dataset_info.json"] = json.dumps(info, indent=2) + "\n"
    return texts


def _snippet(format: str, config: str, kind: str, files: dict[str, str]) -> tuple[str, str]:
    """The language and the text of what a person pastes to train on a config."""
    trainer = _TRAINERS[config]
    tests = {split: name for split, name in files.items() if split != TRAIN}
    if format == "trl":
        more = ', eval_strategy="epoch"' if tests else ""
        more += ", assistant_only_loss=True" if config == "conversations" else ""
        return "python", _TRL.format(trainer=trainer, stage=trainer.lower(), files=json.dumps(files), more=more)
    if format == "llamafactory":
        names = ",".join(f"npc_{config}_{split}" for split in tests)
        lines = [f"stage: {trainer.lower()}", "do_train: true", "dataset_dir: .", f"dataset: npc_{config}_{TRAIN}"]
        lines += [f"eval_dataset: {names}", "eval_strategy: epoch"] if names else []
        lines += ["template: fewshot"] if kind == "text" else []
        lines += ["mask_history: true"] if config == "sft" else []  # an NPC's earlier lines have rows of their own
        return "yaml", "\n".join([*lines, "cutoff_len: 2048", "finetuning_type: lora", ""])
    lines = {
        "sft": [],
        "conversations": [],
        "preference": ["rl: dpo"],
        "kto": ["rl: kto", "remove_unused_columns: false"],
    }[config]
    for key, some in {"datasets": {TRAIN: files[TRAIN]}, "test_datasets": tests}.items():
        lines += [f"{key}:"] if some else []
        lines += [
            f"  - {{path: {n}, ds_type: json, split: train, {_AXOLOTL[f'{config} {kind}']}}}" for n in some.values()
        ]
    return "yaml", "\n".join([*lines, "dataset_prepared_path: .prepared", ""])


def _described(config: str, kind: str, name: str) -> Row:
    """The entry in LLaMA-Factory's dataset_info.json; `tags` are those of its "OpenAI format"."""
    columns = {} if config == "preference" or kind == "chat" else {"response": "output"}
    columns |= {"preference": {"chosen": "chosen", "rejected": "rejected"}, "kto": {"kto_tag": "label"}}.get(config, {})
    entry: Row = {"file_name": name, "ranking": True} if config == "preference" else {"file_name": name}
    if kind == "text":
        return entry | {"formatting": "alpaca", "columns": {"prompt": "instruction", **columns}}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", **columns}
    return entry | {"formatting": "sharegpt", "columns": columns, "tags": tags | {"system_tag": "system"}}
