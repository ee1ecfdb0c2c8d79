"""The README's lists are complete. (That its commands and code run: test_readme.py.)"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


@pytest.mark.parametrize("command", ["generate", "eval", "curate", "export", "compare", "personas"])
def test_every_option_is_in_the_readme(command):
    from pipeline.cli import cli

    found = cli.commands[command]
    every = [found, *getattr(found, "commands", {}).values()]
    options = {name for one in every for p in one.params for name in p.opts if name.startswith("--")}
    assert not options - set(re.findall(r"--[a-z-]+", README))


def test_the_file_tree_has_every_module():
    tree = next(block for block in blocks("") if "__init__.py" in block)
    modules = {p.relative_to(ROOT / "pipeline").as_posix() for p in (ROOT / "pipeline").rglob("*.py")}
    missing = {m for m in modules if Path(m).name not in tree} - {"dialects/__init__.py"}
    assert not missing
    mentioned = set(re.findall(r"([\w/]+\.py)\b", tree))
    assert not {name for name in mentioned if not list(ROOT.glob(f"*/**/{name}"))}


def test_every_filter_is_explained():
    from pipeline.criteria import DUPLICATE, LIMITS, load_criteria

    assert all(f"`{name}`" in README for name in (*load_criteria().filters, DUPLICATE, *LIMITS))


def test_ci_runs_the_line_that_the_readme_gives():
    line = 'pip install -e ".[test]" && pytest'
    assert line in README and line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
