"""Parquet files are whole or not there, and hold what pyarrow itself would have put into them."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.run.tables import TableWriter, column, taken

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("text", pa.string()), ("whole", pa.int32()), ("real", pa.float64()), ("messages", MESSAGES)])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | TEXT,
        "whole": st.none() | st.integers(-(2**31), 2**31 - 1),
        "real": st.none() | st.floats(allow_nan=False),
        "messages": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=3),
    }
)


def batch(*rows):
    return pa.RecordBatch.from_arrays(
        [column([row[one.name] for row in rows], one.type) for one in SCHEMA], schema=SCHEMA
    )


@given(rows=st.lists(ROW, max_size=30))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_pyarrow_would_have_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tables") / "t.parquet"
    with TableWriter(path, SCHEMA, keep_empty=True) as table:
        table.write(batch(*rows))
    found = pq.read_table(path)
    assert found.schema == SCHEMA
    assert found.to_pylist() == pa.Table.from_pylist(rows, schema=SCHEMA).to_pylist()


@pytest.mark.parametrize("count", [0, 1, 700])
def test_without_a_row_there_is_no_file(tmp_path, count):
    path = tmp_path / "t.parquet"
    with TableWriter(path, SCHEMA) as table:
        table.write(batch())
        table.write(batch(*({"text": str(n), "whole": n, "real": None, "messages": []} for n in range(count))))
    assert path.exists() == (count > 0)
    if count:
        assert pq.read_table(path)["whole"].to_pylist() == list(range(count))


def test_a_row_group_is_so_many_bytes_however_large_the_rows_are(tmp_path):
    """What pyarrow holds of a file that is being written grows with the row groups; what we hold of it, with their bytes."""
    groups = {}
    for size in (10, 10_000):
        row = {"text": "x" * size, "whole": 1, "real": 1.0, "messages": []}
        with TableWriter(tmp_path / f"{size}.parquet", SCHEMA) as table:
            for _ in range(20):
                table.write(batch(*[row] * 100))
        groups[size] = pq.ParquetFile(tmp_path / f"{size}.parquet").num_row_groups
    assert groups[10] == 1 and 5 <= groups[10_000] <= 20


def test_a_lone_surrogate_costs_its_character_and_not_the_table(tmp_path):
    path = tmp_path / "t.parquet"
    with TableWriter(path, SCHEMA) as table:
        table.write(
            batch({"text": "a\ud800b", "whole": 1, "real": 1.0, "messages": [{"role": "user", "content": "\udfff"}]})
        )
    assert pq.read_table(path).to_pylist()[0]["text"] == "a?b"


def test_what_breaks_off_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("old")
    row = {"text": "x" * 1000, "whole": 1, "real": 1.0, "messages": []}
    with pytest.raises(KeyboardInterrupt), TableWriter(path, SCHEMA) as table:
        for _ in range(30):
            table.write(batch(*[row] * 100))
        assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_generate_loads_no_pandas(tmp_path):
    """It takes half a second, in a command that may take three."""
    code = "import sys; from pipeline.cli import main\ntry: main()\nfinally: assert 'pandas' not in sys.modules"
    with FakeServer() as server:
        options = [
            "--server",
            server.url,
            "--limit",
            "4",
            "--turns",
            "3",
            "--player",
            "player/default",
            "--set",
            "voice=off",
        ]
        command = [sys.executable, "-c", code, "generate", *options, "--out", str(tmp_path / "run"), "--quiet"]
        subprocess.run(command, check=True)
    assert (tmp_path / "run" / "report.html").exists()


def arrow(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@given(rows=st.lists(ROW, max_size=20), cuts=st.lists(st.integers(0, 20), max_size=4).map(sorted))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_may_come_in_batches(tmp_path_factory, rows, cuts):
    path = tmp_path_factory.mktemp("tables") / "t.parquet"
    with TableWriter(path, SCHEMA, keep_empty=True) as table:
        for start, end in pairwise([0, *cuts, len(rows)]):
            for batch in arrow(rows[start:end]).to_batches():
                table.write(batch)
    assert pq.read_table(path).to_pylist() == arrow(rows).to_pylist()


@pytest.mark.parametrize("size", [1, 700, 1024, 3000])
def test_batches_of_any_size_are_all_there(size, tmp_path):
    path = tmp_path / "t.parquet"
    rows = [{"text": str(n), "whole": n, "real": None, "messages": []} for n in range(5000)]
    with TableWriter(path, SCHEMA) as table:
        for start in range(0, 5000, size):
            table.write(arrow(rows[start : start + size]).to_batches()[0])
    assert pq.read_table(path)["whole"].to_pylist() == list(range(5000))


@given(st.lists(TEXT, min_size=1, max_size=5), st.data())
def test_texts_taken_by_number_are_those_of_the_numbers(texts, data):
    numbers = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12))
    found = taken(texts, np.array(numbers, np.int32))
    assert found.to_pylist() == [texts[number] for number in numbers]
    found.validate(full=True)


@given(st.lists(st.none() | st.booleans(), max_size=70))
def test_truth_values_are_as_pyarrow_would_have_them(values):
    assert column(values, pa.bool_()).equals(pa.array(values, pa.bool_()))


@given(st.lists(st.none() | st.floats(), max_size=20))
def test_no_number_is_null(values):
    known = [None if value is not None and value != value else value for value in values]
    assert column(values, pa.float64()).to_pylist() == known
    assert column(values, pa.float64()).null_count == known.count(None)


def test_what_breaks_off_in_batches_leaves_no_trace(tmp_path):
    batch = arrow([{"text": "x", "whole": 1, "real": 1.0, "messages": []}] * 2000).to_batches()[0]
    with pytest.raises(KeyboardInterrupt), TableWriter(tmp_path / "t.parquet", SCHEMA) as table:
        table.write(batch)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
