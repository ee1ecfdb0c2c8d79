"""The layers go down the page: a module imports from its own layer or from above, and nothing goes round in circles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

LAYERS = [
    ("words", "errors hints records config resources"),
    (
        "server",
        "dialects sse headers evennia retry autolimit limits httpx_errors transport interrupt thinking reply refusal stopwatch receive rate client probe project models embedded",
    ),
    ("prompts", "personas lore misprints templates"),
    ("produce", "splits tables runfolder plan ending journal conversation generation target prepare produce imported"),
    ("judge", "scorers criteria latency stats scored"),
    ("select", "texts dedup curator pairs diversity training configs judging changes card dataset trainers export"),
    ("tell", "evaluation comparison report hub summary progress dryrun ping starter doctor runs excerpt plots"),
    ("doors", "options configure configure_arms commands cli cli_personas cli_start api __init__ __main__"),
]
LAYER_OF = {name: number for number, (_, names) in enumerate(LAYERS) for name in names.split()}


def modules() -> dict[str, Path]:
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}


def imported_by(path: Path) -> set[str]:
    """Modules of ours that a file imports when it runs, as `a` or `a.b`; what is only for type checkers does not count."""
    found = set()
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            rest = node.module.split(".")[1:]
            found |= {".".join([*rest, a.name]) for a in node.names} if not rest else {".".join(rest)}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("pipeline.") for a in node.names if a.name.startswith("pipeline.")}
    return found


def layer(module: str) -> int:
    return LAYER_OF[module.split(".")[0]]


def test_every_module_has_its_layer():
    assert {name.split(".")[0] for name in modules()} == set(LAYER_OF)


@pytest.mark.parametrize("module", modules())
def test_no_import_goes_up_a_layer(module):
    wrong = [other for other in imported_by(modules()[module]) if layer(other) > layer(module)]
    assert not wrong


def test_no_imports_go_round_in_circles():
    graph = {m.removesuffix(".__init__"): {o for o in imported_by(p)} for m, p in modules().items() if m != "__init__"}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", modules())
def test_a_module_is_read_in_one_sitting(module):
    assert len(modules()[module].read_text("utf-8").splitlines()) <= 400


def test_help_loads_nothing_of_weight():
    code = (
        "import sys, pipeline.cli\n"
        "try: pipeline.cli.cli(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas', 'datasets', 'pyarrow', 'httpx', 'jinja2', 'aiohttp', 'numpy', 'pydantic', 'rich', 'asyncio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--per-persona" in done.stdout
