"""`pipeline export`: what each trainer documents, read back from real files; nothing lost, nothing changed, nothing else deleted."""

import ast
import json
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.dataset.export import COLUMNS, FORMATS, export
from pipeline.errors import ConfigError
from pipeline.run.splits import KNOWN, NEW, SPLITS, TRAIN

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
NASTY = 'Line one\nline\ttwo \u2028 \u2029 \x85 \x1e "quoted" \\back </script> <|im_end|> {"role": "system"} é 漢 🜂 {prompt} $HOME %s'


def said(role, content):
    return {"role": role, "content": content}


SYSTEM, HELLO, BACK, MORE = (
    said("system", "You are Mira."),
    said("user", "Hello."),
    said("assistant", "Mind the plank."),
    said("user", "Why?"),
)
PROMPTS = {
    "system": [SYSTEM, HELLO],
    "no system": [HELLO],
    "many turns": [SYSTEM, HELLO, BACK, MORE],
    "nasty": [said("system", NASTY), said("user", NASTY)],
    "role names": [said("system", "assistant"), said("user", "user"), said("assistant", "system"), said("user", "role")],
}  # fmt: skip


def reply(text):
    return [said("assistant", text)]


def rows(config, prompts=None):
    found = []
    for n, prompt in enumerate((prompts or PROMPTS).values()):
        row = {"prompt": prompt, "item_id": f"../../{n}", "persona_id": NASTY, "score_finished": 1.0}
        texts = {"completion": NASTY, "chosen": "The rope. " + NASTY + ".", "rejected": "rejected"}
        is_text = isinstance(prompt, str)
        if config == "conversations":
            row = {"messages": [*prompt, *reply(NASTY)], "turns": 1}
        row |= {name: texts[name] if is_text else reply(texts[name]) for name in COLUMNS[config] if name in texts}
        if config == "kto":
            row["label"] = n % 2 == 0
        if config == "preference":
            row |= {"kind": "best_of", "margin": 0.5}
        found.append(row)
    return found


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {str: pa.string(), list: MESSAGES, bool: pa.bool_(), float: pa.float64()}
    fields = {}
    kinds[int] = pa.int32()
    for row in rows:
        fields |= {name: kinds[type(value)] for name, value in row.items() if value is not None}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(fields.items()))), path)


def texts_of(prompts):
    return {name: "\n".join(m["content"] for m in prompt) for name, prompt in prompts.items()}


TEXTS = tuple(config for config in COLUMNS if config != "conversations")


def make(folder, configs=None, splits=SPLITS, prompts=None):
    is_text = prompts is not None and isinstance(next(iter(prompts.values())), str)
    for config in configs or (TEXTS if is_text else COLUMNS):
        for split in splits:
            write(folder / "dataset" / config / f"{split}.parquet", rows(config, prompts))
    write(folder / "dataset" / "rejected" / "train.parquet", rows("sft", prompts))
    (folder / "dataset" / "README.md").write_text("card", "utf-8")
    return folder


def lines(path):
    data = path.read_bytes()
    assert data.endswith(b"\n") and b"\r" not in data
    text = data.decode("utf-8")
    assert text.splitlines() == text.split("\n")[:-1], "a line of JSON that some reader takes for two"
    return [json.loads(line) for line in text.split("\n")[:-1]]


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# How each format is read back into the dataset's own shape, strictly: any other key or type fails.


def trl(config, row):
    assert list(row) == list(COLUMNS[config])
    return row


def axolotl(config, row):
    if "prompt" in row:
        return row
    if config == "preference":
        assert list(row) == ["messages", "chosen", "rejected"]
        return {"prompt": row["messages"], "chosen": [row["chosen"]], "rejected": [row["rejected"]]}
    if config == "kto":
        assert list(row) == ["completion", "label"]
        return {"prompt": row["completion"][:-1], "completion": row["completion"][-1:], "label": row["label"]}
    assert list(row) == ["messages"]
    trained = [m.pop("train") for m in row["messages"]]
    if config == "conversations":
        assert trained == [m["role"] == "assistant" for m in row["messages"]]
        return row
    assert trained == [False] * (len(trained) - 1) + [True]
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


def llamafactory(config, row):
    if "instruction" in row:
        names = {"instruction": "prompt", "output": "completion"}
        return {names.get(name, name): value for name, value in row.items()}
    if config == "conversations":
        assert list(row) == ["messages"]
        return row
    if config == "preference":
        return {"prompt": row["messages"], "chosen": [row["chosen"]], "rejected": [row["rejected"]]}
    found = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    return found | ({"label": row["label"]} if config == "kto" else {})


def sharegpt(config, row):
    names = {"system": "system", "human": "user", "gpt": "assistant"}

    def back(message):
        assert list(message) == ["from", "value"]
        return said(names[message["from"]], message["value"])

    shaped = {name: back(v) if isinstance(v, dict) else v for name, v in row.items() if name != "conversations"}
    return llamafactory(config, {"messages": [back(m) for m in row["conversations"]], **shaped})


READERS = {"trl": trl, "axolotl": axolotl, "llamafactory": llamafactory, "sharegpt": sharegpt}


def wanted(config, prompts=None):
    return [{name: row[name] for name in COLUMNS[config]} for row in rows(config, prompts)]


@pytest.mark.parametrize("format", FORMATS)
def test_every_config_and_split_comes_back_as_it_was(tmp_path, format):
    result = export(make(tmp_path / "run"), format)
    assert result.folder == tmp_path / "run" / "export" / format
    assert result.rows == {f"{config}.{split}.jsonl": len(PROMPTS) for config in COLUMNS for split in SPLITS}
    assert not result.skipped
    for config in COLUMNS:
        for split in SPLITS:
            found = lines(result.folder / f"{config}.{split}.jsonl")
            assert [READERS[format](config, row) for row in found] == wanted(config)
    extra = {"dataset_info.json"} if format == "llamafactory" else set()
    assert set(os.listdir(result.folder)) == {*result.rows, "README.md", "export.json"} | extra
    assert os.listdir(result.folder.parent) == [format]


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "sharegpt"])
def test_single_strings_come_back_as_they_were(tmp_path, format):
    prompts = texts_of(PROMPTS)
    result = export(make(tmp_path / "run", prompts=prompts), format)
    for config in TEXTS:
        found = lines(result.folder / f"{config}.{TRAIN}.jsonl")
        assert [READERS[format](config, row) for row in found] == wanted(config, prompts)


def test_sharegpt_has_no_place_for_strings(tmp_path):
    run = make(tmp_path / "run", prompts=texts_of(PROMPTS))
    with pytest.raises(ConfigError, match=r"sft: its prompts are single strings.*Take --format trl, axolotl"):
        export(run, "sharegpt")
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_reads_the_files_with_one_type_a_column(tmp_path, format, monkeypatch):
    """Trainers load them with `datasets`, which infers the types: each file of a config has to give the same."""
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = export(make(tmp_path / "run"), format).folder
    for config in COLUMNS:
        files = {split: str(folder / f"{config}.{split}.jsonl") for split in SPLITS}
        found = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
        assert list(found) == list(SPLITS)
        assert found[NEW].features == found[TRAIN].features
        assert [READERS[format](config, row) for row in found[KNOWN].to_list()] == wanted(config)


def snippets(folder, language):
    return re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)


def test_trl_s_snippets_are_python_that_names_the_files(tmp_path):
    folder = export(make(tmp_path / "run"), "trl").folder
    found = snippets(folder, "python")
    assert [re.search(r"import (\w+)Config, \1Trainer", code)[1] for code in found] == ["SFT", "SFT", "DPO", "KTO"]
    assert ["assistant_only_loss=True" in code for code in found] == [False, True, False, False]
    for config, code in zip(COLUMNS, found, strict=True):
        [files] = [
            ast.literal_eval(keyword.value)
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "data_files"
        ]
        assert files == {split: f"{config}.{split}.jsonl" for split in SPLITS}
        assert all((folder / name).is_file() for name in files.values())


def test_axolotl_s_snippets_are_the_documented_yaml(tmp_path):
    folder = export(make(tmp_path / "run"), "axolotl").folder
    sft, talks, dpo, kto = map(yaml.safe_load, snippets(folder, "yaml"))
    [data] = sft["datasets"]
    assert data == {
        "path": "sft.train.jsonl",
        "ds_type": "json",
        "split": "train",
        "type": "chat_template",
        "message_field_training": "train",
        "roles_to_train": [],
        "train_on_eos": "turn",
    }
    assert [d["path"] for d in sft["test_datasets"]] == [f"sft.{KNOWN}.jsonl", f"sft.{NEW}.jsonl"]
    assert talks["datasets"][0] == data | {"path": "conversations.train.jsonl"}
    assert (dpo["rl"], dpo["datasets"][0]["type"]) == ("dpo", "chat_template.default")
    assert (kto["rl"], kto["datasets"][0]["type"], kto["remove_unused_columns"]) == (
        "kto",
        "chatml.argilla_chat",
        False,
    )
    for config in (sft, talks, dpo, kto):
        assert all((folder / d["path"]).is_file() for d in config["datasets"] + config["test_datasets"])


def test_axolotl_s_snippets_for_strings_add_nothing_to_them(tmp_path):
    folder = export(make(tmp_path / "run", prompts=texts_of(PROMPTS)), "axolotl").folder
    types = [yaml.safe_load(text)["datasets"][0]["type"] for text in snippets(folder, "yaml")]
    sft = {"field_instruction": "prompt", "field_output": "completion"}
    assert types == [
        sft | {"format": "{instruction}", "no_input_format": "{instruction}"},
        {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"},
        {"field_prompt": "prompt", "field_completion": "completion", "field_label": "label"},
    ]


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_llamafactory_s_dataset_info_is_the_documented_one(tmp_path, kind):
    prompts = PROMPTS if kind == "chat" else texts_of(PROMPTS)
    folder = export(make(tmp_path / "run", prompts=prompts), "llamafactory").folder
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    configs = COLUMNS if kind == "chat" else TEXTS
    assert list(info) == [f"npc_{config}_{split}" for config in configs for split in SPLITS]
    for name, entry in info.items():
        _, config, split = name.split("_", 2)
        assert entry["file_name"] == f"{config}.{split}.jsonl" and (folder / entry["file_name"]).is_file()
        assert entry["formatting"] == ("sharegpt" if kind == "chat" else "alpaca")
        assert entry.get("ranking", False) is (config == "preference")
        known = {"prompt", "response", "messages", "chosen", "rejected", "kto_tag"}
        first = lines(folder / entry["file_name"])[0]
        assert set(entry["columns"]) <= known and set(entry["columns"].values()) == set(first)
        assert entry["columns"].get("kto_tag") == ("label" if config == "kto" else None)
        if kind == "chat":
            tags = entry["tags"]
            assert set(tags) == {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}
            message = first["messages"][0]
            assert message[tags["role_tag"]] == tags["system_tag"] and tags["content_tag"] in message
    for text in snippets(folder, "yaml"):
        asked = yaml.safe_load(text)
        assert ("mask_history" in asked) == (asked["dataset"] == f"npc_sft_{TRAIN}")
        assert asked["dataset_dir"] == "." and asked["dataset"] in info
        assert all(name in info for name in asked["eval_dataset"].split(","))
        assert asked.get("template") == ("fewshot" if kind == "text" else None)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_not_there_is_not_written_nor_named(tmp_path, format):
    folder = export(make(tmp_path / "run", configs=["sft"], splits=[TRAIN]), format).folder
    assert [name for name in os.listdir(folder) if name.endswith(".jsonl")] == ["sft.train.jsonl"]
    said = (folder / "README.md").read_text("utf-8")
    assert "preference." not in said and "kto." not in said and KNOWN not in said and "test_datasets" not in said


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_without_a_training_split_is_exported_too(tmp_path, format):
    result = export(make(tmp_path / "run", configs=["sft"], splits=[NEW]), format)
    assert list(result.rows) == [f"sft.{NEW}.jsonl"]
    assert "```" not in (result.folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_equal_datasets_give_equal_bytes(tmp_path, format):
    first = tree(export(make(tmp_path / "one"), format).folder)
    assert first == tree(export(make(tmp_path / "two"), format).folder)
    assert first == tree(export(make(tmp_path / "one"), format).folder)
    assert first == tree(export(make(tmp_path / "one"), format, tmp_path / "elsewhere" / "deep").folder)


def test_nothing_that_a_row_says_becomes_a_name_and_no_provenance_is_written(tmp_path):
    folder = export(make(tmp_path / "run"), "trl").folder
    assert "../../" not in "".join(data.decode() for data in tree(folder).values())
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".part" or p.name.endswith(".old")]


BAD = {
    "npc first": [SYSTEM, BACK, HELLO],
    "ends with the npc": [HELLO, BACK],
    "twice the player": [HELLO, MORE],
    "nothing": [],
    "late system": [HELLO, SYSTEM, HELLO],
    "narrator": [said("narrator", "It rains."), HELLO],
}
ALTERNATE = "whose prompt does not go from user to assistant and back, beginning and ending with the user"
ROLES = "with a role other than system, user and assistant"


@pytest.mark.parametrize(
    ("format", "reasons"),
    [("trl", {}), ("llamafactory", {ALTERNATE: 6}), ("sharegpt", {ALTERNATE: 6}), ("axolotl", {ROLES: 2})],
)
def test_rows_that_a_format_cannot_hold_are_left_out_and_counted(tmp_path, format, reasons):
    prompts = {"good": PROMPTS["system"], **BAD}
    result = export(make(tmp_path / "run", ["sft"], [TRAIN], prompts), format)
    assert result.skipped == ({"sft.train.jsonl": reasons} if reasons else {})
    assert result.rows == {"sft.train.jsonl": 7 - sum(reasons.values())}
    assert len(lines(result.folder / "sft.train.jsonl")) == result.rows["sft.train.jsonl"]
    said = (result.folder / "README.md").read_text("utf-8")
    assert all(f"left out {n} {why}" in said for why, n in reasons.items())
    mark = json.loads((result.folder / "export.json").read_text("utf-8"))
    assert (mark["rows"], mark["skipped"]) == (result.rows, result.skipped)
    del mark["made_by"], mark["files"]
    assert result.summary() == mark | {"folder": str(tmp_path / "run" / "export" / format)}


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "trl"])
@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ({"rejected": reply("")}, "with an empty reply"),
        ({"chosen": reply(" \n")}, "with an empty reply"),
        ({"chosen": [BACK, BACK]}, "whose reply is not one message of the assistant"),
        ({"rejected": [HELLO]}, "whose reply is not one message of the assistant"),
        ({"rejected": []}, "whose reply is not one message of the assistant"),
        ({"chosen": None}, "without a prompt, a reply or a label"),
        ({"chosen": [said("assistant", None)]}, "with a message that has no text"),
    ],
)
def test_pairs_that_trainers_would_read_as_something_else_are_left_out(tmp_path, format, spoilt, why):
    good = rows("preference")
    write(tmp_path / "dataset" / "preference" / "train.parquet", [good[0] | spoilt, *good[1:]])
    result = export(tmp_path, format)
    assert result.skipped == {"preference.train.jsonl": {why: 1}}
    found = [READERS[format]("preference", row) for row in lines(result.folder / "preference.train.jsonl")]
    assert found == wanted("preference")[1:]


def test_white_space_around_a_reply_goes_where_axolotl_would_cut_at_the_wrong_place(tmp_path):
    row = rows("preference")[0] | {"chosen": reply("\n  The rope. "), "rejected": reply("No.\n")}
    write(tmp_path / "dataset" / "preference" / "train.parquet", [row])
    [found] = lines(export(tmp_path, "axolotl").folder / "preference.train.jsonl")
    assert (found["chosen"]["content"], found["rejected"]["content"]) == ("The rope.", "No.")
    [found] = lines(export(tmp_path, "trl").folder / "preference.train.jsonl")
    assert found["chosen"] == reply("\n  The rope. ")


def test_an_empty_prompt_would_end_axolotl_s_training(tmp_path):
    prompts = {"empty": "", "good": "Mira: Hello.\nBorin:"}
    result = export(make(tmp_path / "run", ["kto"], [TRAIN], prompts), "axolotl")
    assert result.skipped == {"kto.train.jsonl": {"with an empty prompt": 1}}


def test_a_table_of_which_nothing_is_left_has_no_file(tmp_path):
    run = make(tmp_path / "run", ["sft"], [TRAIN])
    write(run / "dataset" / "kto" / "train.parquet", rows("kto", BAD))
    pq.write_table(
        pq.read_table(run / "dataset" / "sft" / "train.parquet")[:0], run / "dataset" / "sft" / f"{NEW}.parquet"
    )
    result = export(run, "sharegpt")
    assert list(result.rows) == ["sft.train.jsonl"] and result.skipped == {"kto.train.jsonl": {ALTERNATE: 6}}
    assert not (result.folder / "kto.train.jsonl").exists() and not (result.folder / f"sft.{NEW}.jsonl").exists()


def test_nothing_left_at_all_is_said_and_leaves_the_older_export(tmp_path):
    run = make(tmp_path / "run", ["sft"], [TRAIN])
    before = tree(export(run, "sharegpt").folder)
    write(run / "dataset" / "sft" / "train.parquet", rows("sft", BAD))
    with pytest.raises(ConfigError, match=r"no row that sharegpt can hold .whose prompt does not go"):
        export(run, "sharegpt")
    assert tree(run / "export" / "sharegpt") == before and os.listdir(run / "export") == ["sharegpt"]


def test_an_older_export_is_replaced_with_what_it_had_too_much(tmp_path):
    run = make(tmp_path / "run")
    folder = export(run, "trl").folder
    (folder / ".prepared").mkdir()  # axolotl's own, made from the old rows
    for split in SPLITS:
        (run / "dataset" / "kto" / f"{split}.parquet").unlink()
    export(run, "trl")
    assert not [name for name in os.listdir(folder) if name.startswith(("kto", "."))]
    export(run, "axolotl", folder)
    assert json.loads((folder / "export.json").read_text("utf-8"))["format"] == "axolotl"


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_table_leaves_the_older_export(tmp_path, format):
    run = make(tmp_path / "run")
    before = tree(export(run, format).folder)
    path = run / "dataset" / "kto" / f"{NEW}.parquet"
    data = bytearray(path.read_bytes())
    data[4:120] = b"\xff" * 116
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"kto/{NEW}.parquet: damaged"):
        export(run, format)
    assert tree(run / "export" / format) == before and os.listdir(run / "export") == [format]


@pytest.mark.parametrize(
    "mark", [None, "{}", '{"made_by": "pipeline export"}', '{"made_by": "me", "files": []}', "[]", "x"]
)
def test_a_folder_that_is_not_an_export_is_left_alone(tmp_path, mark):
    run, out = make(tmp_path / "run"), tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    if mark is not None:
        (out / "export.json").write_text(mark)
    before = tree(out)
    with pytest.raises(ConfigError, match="mine: holds other things than an export"):
        export(run, "trl", out)
    assert tree(out) == before


def test_what_was_put_beside_an_export_is_not_deleted(tmp_path):
    run = make(tmp_path / "run")
    folder = export(run, "trl").folder
    (folder / "npc-sft").mkdir()
    (folder / "npc-sft" / "adapter.safetensors").write_text("days of work")
    with pytest.raises(ConfigError, match=r"trl: also holds 'npc-sft'.*Move it"):
        export(run, "trl")
    assert (folder / "npc-sft" / "adapter.safetensors").exists()


def test_out_may_be_empty_or_the_working_directory_but_no_file(tmp_path, monkeypatch):
    run, out = make(tmp_path / "run"), tmp_path / "out"
    out.mkdir()
    assert export(run, "trl", out).rows
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file: holds other things"):
        export(run, "trl", tmp_path / "file")
    with pytest.raises(ConfigError, match="run: holds other things"):
        export(run, "trl", run)
    with pytest.raises(ConfigError, match="cannot be written"):
        export(run, "trl", tmp_path / "file" / "below")


def test_what_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gguf: no such format. There are: trl, axolotl, llamafactory, sharegpt"):
        export(tmp_path, "gguf")
    with pytest.raises(ConfigError, match=r"no dataset there\. pipeline generate makes one"):
        export(tmp_path, "trl")
    write(tmp_path / "dataset" / "rejected" / "train.parquet", rows("sft"))
    with pytest.raises(ConfigError, match="no sft, preference or kto there"):
        export(tmp_path, "trl")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda row: {k: v for k, v in row.items() if k != "completion"}, "completion is not there"),
        (lambda row: row | {"completion": "a text"}, "chat, text"),
        (lambda row: row | {"label": "yes"}, "chat, text"),
        (lambda row: row | {"prompt": 1.0}, "prompt is double"),
    ],
)
def test_a_table_of_another_kind_is_named(tmp_path, spoil, why):
    path = tmp_path / "dataset" / "kto" / "train.parquet"
    write(path, [spoil(row) for row in rows("kto")])
    with pytest.raises(ConfigError, match=rf"kto/train.parquet: not a table of kto .*{why}"):
        export(tmp_path, "trl")
    path.write_bytes(b"not Parquet")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        export(tmp_path, "trl")


def test_lists_and_strings_in_one_config_are_refused(tmp_path):
    make(tmp_path, ["sft"], [TRAIN])
    write(tmp_path / "dataset" / "sft" / f"{NEW}.parquet", rows("sft", texts_of(PROMPTS)))
    with pytest.raises(ConfigError, match="lists in one split and strings in another"):
        export(tmp_path, "trl")


def test_other_fields_of_a_message_and_their_order_do_not_matter(tmp_path):
    message = pa.struct([("content", pa.large_string()), ("name", pa.string()), ("role", pa.string())])
    schema = pa.schema([("completion", pa.large_list(message)), ("prompt", pa.large_list(message))])
    row = {"prompt": [HELLO | {"name": "Bo"}], "completion": [BACK | {"name": "Mira"}]}
    (tmp_path / "dataset" / "sft").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "dataset" / "sft" / "train.parquet")
    folder = export(tmp_path, "trl").folder
    assert (folder / "sft.train.jsonl").read_text("utf-8") == (
        '{"prompt": [{"role": "user", "content": "Hello."}], '
        '"completion": [{"role": "assistant", "content": "Mind the plank."}]}\n'
    )


def test_memory_does_not_grow_with_the_rows(tmp_path):
    pytest.importorskip("resource")

    def peak(count):
        run = tmp_path / str(count)
        path = run / "dataset" / "sft" / "train.parquet"
        path.parent.mkdir(parents=True)
        row = {"prompt": [said("user", "x" * 1000)], "completion": reply("y" * 1000)}
        schema = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES)])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for _ in range(count // 1000):
                writer.write_table(pa.Table.from_pylist([row] * 1000, schema))
        code = (
            "import resource, sys; from pathlib import Path; from pipeline.dataset.export import export\n"
            "export(Path(sys.argv[1]), 'axolotl'); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
        return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)

    assert peak(40_000) - peak(2_000) < 25e6  # of 80 MB of text
