"""Every format gives the same rows, and what cannot be read is refused with place, finding and remedy."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.personas import csvfile
from pipeline.personas.rows import LINE_LIMIT, YAML_LIMIT, Found, read_rows

NEEDED = ("id", "name", "description")

ROWS: list[dict[str, Any]] = [
    {
        "id": "mira",
        "name": "Mira",
        "description": 'says "aye", often,\nand in two lines',
        "hides": "100 % {{ npc.name }}",
    },
    {"id": "borin", "name": "Bórin 🗡", "description": "a smith; 'quoted'"},
    {"id": "שרה", "name": "שרה", "description": "back\\slash\tand tab", "home": "a mill"},
]
COLUMNS = ("id", "name", "description", "hides", "home")
PADDED = [{name: row.get(name) for name in COLUMNS} for row in ROWS]


def read(path: Path) -> list[Found]:
    return list(read_rows(str(path), "personas", NEEDED))


def table(delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def in_a_file(name: str, text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(text.encode())
        return folder / name

    return write


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(PADDED), folder / "p.parquet")
    return folder / "p.parquet"


def files_in_a_folder(folder: Path) -> Path:
    (folder / "2.jsonl").write_text("\n".join(map(json.dumps, ROWS[1:])), "utf-8")
    (folder / "1.yaml").write_text(yaml.safe_dump(ROWS[:1]), "utf-8")
    (folder / "README.md").write_text("# ours", "utf-8")
    (folder / ".1.yaml.swp.json").write_text("not ours", "utf-8")
    (folder / "._2.jsonl").write_bytes(b"\0\xff")
    (folder / "dataset_infos.json").write_text("{}", "utf-8")
    return folder


def saved_to_disk(folder: Path) -> Path:
    datasets.Dataset.from_list(PADDED).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def saved_to_disk_in_splits(folder: Path) -> Path:
    splits = {"train": datasets.Dataset.from_list(PADDED[:2]), "test": datasets.Dataset.from_list(PADDED[2:])}
    datasets.DatasetDict(splits).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def as_from_the_hub(folder: Path) -> Path:
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/*.parquet\n---\n"
    (folder / "README.md").write_text(card, "utf-8")
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(PADDED), folder / "data" / "train-00000.parquet")
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a list in YAML": in_a_file("p.yaml", yaml.safe_dump(ROWS, allow_unicode=True)),
    "a mapping in YAML": in_a_file("p.yml", yaml.safe_dump({"personas": ROWS})),
    "a list in JSON": in_a_file("p.json", json.dumps(ROWS)),
    "an object in JSON": in_a_file("p.json", json.dumps({"personas": ROWS})),
    "JSONL": in_a_file("p.jsonl", "\n".join(map(json.dumps, ROWS))),
    "JSONL with nulls, blank lines and a byte order mark": in_a_file(
        "p.ndjson", "\ufeff" + "\n\n".join(map(json.dumps, PADDED)) + "\n\n"
    ),
    "CSV": in_a_file("p.csv", table(",")),
    "CSV as Excel saves it": in_a_file("p.CSV", "\ufeff" + table(",")),
    "TSV": in_a_file("p.tsv", table("\t")),
    "Parquet": parquet,
    "a folder of files": files_in_a_folder,
    "a saved dataset": saved_to_disk,
    "a saved dataset in splits": saved_to_disk_in_splits,
    "a folder as on the hub": as_from_the_hub,
}


@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_all_formats_give_the_same_rows(write, tmp_path):
    assert [found.row for found in read(write(tmp_path))] == ROWS


def test_a_folder_named_like_a_format_of_datasets_is_still_that_folder(tmp_path, monkeypatch):
    (tmp_path / "csv" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(PADDED), tmp_path / "csv" / "data" / "train.parquet")
    monkeypatch.chdir(tmp_path)
    assert [found.row for found in read(Path("csv"))] == ROWS


DEFAULTS = {"defaults": {"world": "Salt", "home": "a boat"}, "personas": [{"id": "a"}, {"id": "b", "home": "a hut"}]}


@pytest.mark.parametrize("name, text", [("p.yaml", yaml.safe_dump(DEFAULTS)), ("p.json", json.dumps(DEFAULTS))])
def test_defaults_fill_what_a_row_does_not_say(name, text, tmp_path):
    rows = [found.row for found in read(in_a_file(name, text)(tmp_path))]
    assert rows == [{"id": "a", "world": "Salt", "home": "a boat"}, {"id": "b", "world": "Salt", "home": "a hut"}]


PLACES = {
    "p.yaml": ("# top\n- id: a\n\n-\n  id: b\n", ["p.yaml:2", "p.yaml:5"]),
    "p.json": ('[{"id": 1},\n\n{"id": 2}]', ["p.json entry 1", "p.json entry 2"]),
    "p.jsonl": ('{"id": 1}\n\n{"id": 2}\n', ["p.jsonl:1", "p.jsonl:3"]),
    "p.csv": ('id,name,description\na,b,"c\nd\ne"\nf,g,h\n', ["p.csv:2", "p.csv:5"]),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_row_is_named_by_the_line_it_begins_at(name, tmp_path):
    text, places = PLACES[name]
    assert [found.where for found in read(in_a_file(name, text)(tmp_path))] == [f"{tmp_path}/{p}" for p in places]


def laughs() -> str:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "l0: &l0 [lol]\n" + "\n".join(levels) + "\npersonas: *l9\n"


HEADER = b"id,name,description\n"
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a column is missing in CSV": (
        "p.csv",
        b"id,Name,description\na,b,c\n",
        "p.csv:1: no column 'name'. Found: id, Name, description. Needed: id, name, description.",
    ),
    "a column is missing in TSV": ("p.tsv", HEADER, "p.tsv:1: no column 'id'. Found: id,name,description."),
    "two columns of one name": ("p.csv", b"id,name,name,description\n", "p.csv:1: two columns are named 'name'"),
    "an empty CSV": ("p.csv", b"", "p.csv: nothing in it"),
    "an open quote in the header": ("p.csv", b'id,"name', "p.csv:1: not CSV: a quote is opened and never closed"),
    "a spreadsheet by another name": ("p.csv", b"PK\x03\x04\x14\x00", "p.csv: no text, .* as .xlsx .* CSV"),
    "a key that stands twice": ("p.yaml", b"personas: []\npersonas: []\n", "p.yaml:2: 'personas' stands twice"),
    "a list in JSONL": ("p.jsonl", b'[{"id": "a"},\n', "p.jsonl:1: a list. .* name it .json"),
    "a wrong ending": ("p.txt", b"id: a", "p.txt: cannot tell what '.txt' is. It can be .*yaml"),
    "no ending": ("p", b"id: a", "cannot tell what 'a file without an ending' is"),
    "not UTF-8 in YAML": (
        "p.yaml",
        "- id: a\n  name: café\n".encode("latin-1"),
        "p.yaml:2: not UTF-8: byte e9 .*'é'.* Save it",
    ),
    "not UTF-8 in JSON": ("p.json", b'[\n"\xe9"]', "p.json:2: not UTF-8"),
    "not UTF-8 far into a CSV": ("p.csv", HEADER + b"a,b,c\n" * 3000 + b"\xe9,b,c\n", "p.csv:3002: not UTF-8"),
    "UTF-16": ("p.csv", HEADER.decode().encode("utf-16"), "p.csv: UTF-16, not UTF-8. Save it"),
    "a tab in YAML": ("p.yaml", b"- id: a\n\tname: b\n", "p.yaml:2: not YAML: .*tab character.* indented with spaces"),
    "a control character in YAML": ("p.yaml", b"- id: a\0", "p.yaml: no text: there are zero bytes in it"),
    "an alias in YAML": ("p.yaml", b"- &a {id: a}\n- *a\n", r"p.yaml:2: an alias \(\*name\). Write the value out."),
    "a billion laughs": ("p.yaml", laughs().encode(), "p.yaml:2: an alias"),
    "a Python object in YAML": (
        "p.yaml",
        b"- id: a\n  name: !!python/object/apply:os.system ['exit 1']\n",
        "p.yaml:2: not YAML: could not determine a constructor for the tag .*python/object/apply",
    ),
    "two documents in YAML": ("p.yaml", b"- id: a\n---\n- id: b\n", "p.yaml:2: not YAML: but found another document"),
    "too much YAML": ("p.yaml", b"#" * (YAML_LIMIT + 1), "over 8 MiB of YAML. Long lists belong in JSONL"),
    "deep YAML": ("p.yaml", b"- " + b"[" * 500_000, "p.yaml:1: nested over 100 levels deep"),
    "deep YAML, by lines": ("p.yaml", b"- " * 500_000, "p.yaml:1: nested over 100 levels deep"),
    "deep JSON": ("p.json", b"[" * 500_000, "p.json: nested too deeply to be a list of personas"),
    "an unknown part of YAML": (
        "p.yaml",
        b"people: []\n",
        "p.yaml:1: unknown key 'people'. At the top there can be: personas, def",
    ),
    "defaults that are no mapping": ("p.yaml", b"defaults: [1]\npersonas: []\n", "'defaults' has to be a mapping"),
    "text for YAML": ("p.yaml", b"just words\n", "no list of personas. It begins with 'personas:' or is a list itself"),
    "an empty YAML": ("p.yaml", b"", "p.yaml: nothing in it"),
    "an empty JSON": ("p.json", b" \n", "p.json: nothing in it"),
    "JSONL by another name": ("p.json", b'{"id": 1}\n{"id": 2}\n', "p.json:2: not JSON: Extra data.* name it .jsonl"),
    "an object without a list": ("p.json", b'{"people": []}', "no list of personas. It is a list, or an object with"),
    "a number of 5,000 digits": ("p.json", b'[{"id": ' + b"1" * 5000 + b"}]", "p.json: not JSON: Exceeds the limit"),
    "a line without end": ("p.jsonl", b'"' * (LINE_LIMIT + 1), "p.jsonl:1: a line of over 16 MiB"),
    "an empty Parquet": ("p.parquet", b"", "p.parquet: not a whole Parquet file"),
    "text for Parquet": ("p.parquet", b"PAR1" + b"x" * 99 + b"PAR1", "p.parquet: not a whole Parquet file"),
}


@pytest.mark.parametrize("name, content, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_place_and_remedy(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message.replace("p.", r"p\.", 1)) as refused:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_truncated_parquet_is_refused(tmp_path):
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"p\.parquet: not a whole Parquet file"):
        read(path)


def test_a_damaged_parquet_is_refused(tmp_path):
    path = parquet(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"p\.parquet: "):
        read(path)


def test_a_column_missing_in_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "prompt": ["b"]}), tmp_path / "p.parquet")
    with pytest.raises(ConfigError, match=r"p\.parquet: no column 'name'\. Found: id, prompt\. Needed: id, name, desc"):
        read(tmp_path / "p.parquet")


def test_a_column_missing_in_a_dataset_is_refused_with_its_split(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list([{"persona": "a"}])}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(ConfigError, match=r"d \(train\): no column 'id'\. Found: persona\."):
        read(tmp_path / "d")


def test_a_damaged_file_within_a_dataset_is_refused(tmp_path):
    folder = as_from_the_hub(tmp_path)
    path = folder / "data" / "train-00000.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        read(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"an empty folder. There can be .*yaml"):
        read(tmp_path)


@pytest.mark.parametrize("source", ["nowhere.yaml", "no/such/place.csv", "/no/such"])
def test_a_path_that_leads_nowhere_is_refused_without_asking_the_hub(source):
    with pytest.raises(ConfigError, match=rf"{source}: no such file or folder. It can be \*\.yaml.* hub id OWNER/NAME"):
        read(Path(source))


def test_a_dataset_that_the_hub_does_not_give_is_named_once(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pipeline", "generate", "--personas", "someone/npcs", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Error: someone/npcs: no such file or folder here; taken for a dataset on the hub: cannot"
    )
    assert done.stderr.count("\n") == 1


BAD_LINES = {
    "a number": ("3", "3 where a mapping of fields to values is expected"),
    "a list": ("[1]", r"\[1\] where a mapping"),
    "half a line": ('{"id": "b", "na', "not JSON: Unterminated string"),
    "deep": ("[" * 200_000, "not JSON: maximum recursion depth"),
    "a huge number": ("1" * 5000, "not JSON: Exceeds the limit"),
}


@pytest.mark.parametrize("line, problem", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_costs_only_itself(line, problem, tmp_path):
    found = read(in_a_file("p.jsonl", '{"id": "a"}\n' + line + '\n{"id": "c"}\n')(tmp_path))
    assert [f.row for f in found] == [{"id": "a"}, None, {"id": "c"}]
    assert found[1].where.endswith("p.jsonl:2")
    assert re.match(problem, found[1].problem)


def test_a_line_that_is_not_utf_8_costs_only_itself(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "a"}\n{"id": "\xe9"}\n')
    assert [(f.row, f.problem) for f in read(tmp_path / "p.jsonl")] == [({"id": "a"}, ""), (None, "not UTF-8")]


def test_csv_rows_may_be_short_but_not_long(tmp_path):
    found = read(in_a_file("p.csv", "id,name,description,\na\n\nb,c,d,e,f\ng,h,i,,,\n")(tmp_path))
    assert [f.row for f in found] == [{"id": "a"}, None, {"id": "g", "name": "h", "description": "i"}]
    assert (found[1].where, found[1].problem) == (
        f"{tmp_path}/p.csv:4",
        "5 cells where the header has 4 columns",
    )


def test_a_quote_that_is_never_closed_costs_its_line(tmp_path):
    (tmp_path / "p.csv").write_bytes(HEADER + b'a,"b\nc,d,e\nf,"g ""h"" i\nj",k\n')
    found = read(tmp_path / "p.csv")
    assert [(f.where.rpartition(":")[2], f.row and f.row["id"]) for f in found] == [("2", None), ("3", "c"), ("4", "f")]
    assert found[2].row == {"id": "f", "name": 'g "h" i\nj', "description": "k"}


def test_what_is_made_to_be_read_again_without_end_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "_AGAIN", 1000)
    (tmp_path / "p.csv").write_bytes(HEADER + b'x""","a\n' * 1000)
    problems = [f.problem for f in read(tmp_path / "p.csv")]
    assert len(problems) < 100 and "lines after it are lost with it" in problems[-1]
