"""Parquet files are whole or not there, and hold what pyarrow itself would have put into them."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.tables import TableWriter

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


@given(rows=st.lists(ROW, max_size=30))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_pyarrow_would_have_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tables") / "t.parquet"
    with TableWriter(path, SCHEMA, keep_empty=True) as table:
        for row in rows:
            table.add(row)
    found = pq.read_table(path)
    assert found.schema == SCHEMA
    assert found.to_pylist() == pa.Table.from_pylist(rows, schema=SCHEMA).to_pylist()


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048])
def test_every_row_is_there_also_at_the_edges_of_a_batch(tmp_path, count):
    path = tmp_path / "t.parquet"
    with TableWriter(path, SCHEMA) as table:
        for number in range(count):
            table.add({"text": str(number), "whole": number, "real": None, "messages": []})
    assert path.exists() == (count > 0)
    if count:
        assert pq.read_table(path)["whole"].to_pylist() == list(range(count))


def test_a_lone_surrogate_costs_its_character_and_not_the_table(tmp_path):
    path = tmp_path / "t.parquet"
    with TableWriter(path, SCHEMA) as table:
        table.add({"text": "a\ud800b", "whole": 1, "real": 1.0, "messages": [{"role": "user", "content": "\udfff"}]})
    assert pq.read_table(path).to_pylist()[0]["text"] == "a?b"


def test_what_breaks_off_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_text("old")
    row = {"text": "x", "whole": 1, "real": 1.0, "messages": []}
    with pytest.raises(KeyboardInterrupt), TableWriter(path, SCHEMA) as table:
        for _ in range(3000):
            table.add(row)
        raise KeyboardInterrupt
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_writing_loads_no_pandas(tmp_path):
    code = (
        "import sys, pyarrow as pa; from pathlib import Path; from pipeline.tables import TableWriter\n"
        "with TableWriter(Path(sys.argv[1]), pa.schema([('a', pa.string()), ('b', pa.float64())])) as table:\n"
        "    table.add({'a': 'x', 'b': None})\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.parquet")], check=True)
