"""The README's lists are complete. (That its commands and code run: test_readme.py.)"""

import re
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def table_of_options() -> str:
    """What --help says of each, as the README shows it; an option that says the same in several commands has one row."""
    from pipeline.cli import cli

    commands = [(name, command) for name, command in cli.commands.items() if name != "personas"]
    commands += [(f"personas {name}", command) for name, command in cli.commands["personas"].commands.items()]
    inside = click.Context(cli, info_name="pipeline", **cli.context_settings)
    rows: dict[tuple[str, str], list[str]] = {}
    for name, command in commands:
        context = command.make_context(name, [], parent=inside, resilient_parsing=True)
        for param in command.params:
            if isinstance(param, click.Option):
                spelled, said = param.get_help_record(context)
                rows.setdefault((" ".join(spelled.split()), " ".join(said.split())), []).append(name)
    lines = ["| option | of | |", "|---|---|---|"]
    for (spelled, said), names in sorted(rows.items()):
        cells = (f"`{spelled}`", ", ".join(names), said)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def test_the_table_of_options_says_what_help_says():
    assert table_of_options() in README, f"put this into the README:\n{table_of_options()}"


def test_the_file_tree_has_every_module():
    tree = next(block for block in blocks("") if "__init__.py" in block)
    shown: list[Path] = []
    for spaces, name in re.findall(r"^( *)(\S+)", tree, re.MULTILINE):
        inside = next((path for path in reversed(shown) if len(path.parts) == len(spaces) // 2), Path())
        shown.append(inside / name)
    assert not [path for path in shown if not (ROOT / path).exists()]
    modules = {path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py")}
    assert {path for path in modules if path.name != "__init__.py"} <= set(shown)


def test_every_filter_is_explained():
    from pipeline.curation.criteria import DUPLICATE, LIMITS, load_criteria

    assert all(f"`{name}`" in README for name in (*load_criteria().filters, DUPLICATE, *LIMITS))


def test_ci_runs_the_line_that_the_readme_gives():
    line = 'pip install -e ".[test]" && pytest -n logical --dist loadfile'
    assert line in README and line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
