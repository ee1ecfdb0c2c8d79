"""The notebooks run from top to bottom, and what they show was made so: whole, small, and without a trace of whose machine it was."""

import ast
import base64
import json
import re
import struct

import nbformat
import pytest
from aiohttp import web
from fakes import FakeServer, reply_to
from kernel import ALL, FOLDER, executed

PICTURES = {"01_look_at_a_run": 3, "02_tune_curation": 1, "03_compare_models": 3, "04_fine_tune": 0}
TRACES = re.compile(
    r"/(home|root|work|tmp|Users|private|var|opt|usr)/|[A-Z]:\\|0x[0-9a-f]{6}|\x1b|\x08|Warning|Traceback"
)
BY_NAME = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def shown(notebook) -> list[dict]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook) -> list[bytes]:
    found = (output.get("data", {}).get("image/png") for output in shown(notebook))
    return [base64.b64decode(picture) for picture in found if picture]


def texts(notebook) -> str:
    return "\n".join(
        part if isinstance(part, str) else json.dumps(part)
        for output in shown(notebook)
        for part in [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k != "image/png")]
    )


def whole(notebook) -> None:
    """Every cell has run, none failed, and every figure is a picture."""
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not [output for output in shown(notebook) if output.output_type == "error" or output.get("name") == "stderr"]
    for picture in pictures(notebook):
        assert picture.startswith(b"\x89PNG") and struct.unpack(">I", picture[16:20]) == (720,)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All four one after another, as a reader would; the server in place of the embedded model answers at once."""
    folder = tmp_path_factory.mktemp("notebooks")

    def flawed(body):
        """A prompt that asks for a bark gets none, and one line in four a chatbot's answer."""
        text = reply_to(body)
        if "bark" in json.dumps(body["messages"]) or int(body.get("seed") or 0) % 4 == 0:
            text = "I'm just an AI language model."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": len(text.split())}
        return None if body.get("stream") else web.json_response({"choices": [choice], "usage": usage})

    with FakeServer(fault=flawed) as server:
        here = {"LLM_HOST": server.url, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
        yield {path.stem: executed(path, folder, **here) for path in ALL}


@BY_NAME
def test_it_runs_from_top_to_bottom_and_draws_its_figures(path, ran):
    whole(ran[path.stem])
    assert len(pictures(ran[path.stem])) == PICTURES[path.stem]


@BY_NAME
def test_what_it_shows_is_whole_small_and_from_nowhere(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    whole(notebook)
    assert len(pictures(notebook)) == PICTURES[path.stem]
    assert not TRACES.findall(texts(notebook))
    assert path.stat().st_size < 250_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.metadata for cell in notebook.cells)


@BY_NAME
def test_it_defines_nothing_and_its_lines_fit(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]
            assert max(map(len, cell.source.splitlines())) <= 88


@BY_NAME
def test_the_files_that_it_names_are_there(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for name in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / name).exists(), name
