"""The order goes down the page: a module imports from its own folder or from what stands above it, and never in circles."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"

LAYERS = [
    "errors hints records config resources interrupt",
    "dialects client server",
    "personas prompts",
    "run",
    "scorers stats",
    "curation dataset",
    "progress summary comparison evaluation report excerpt runs plots",
    "cli api __init__ __main__",
]
ORDER = " ".join(LAYERS).split()
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


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
            inside = node.module.split(".")[1:]
            names = {".".join([*inside, a.name]) for a in node.names}
            found |= {name if name in MODULES else ".".join(inside) for name in names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("pipeline.") for a in node.names if a.name.startswith("pipeline.")}
    return found


def place(module: str) -> int:
    return ORDER.index(module.split(".")[0])


def test_every_module_has_its_place():
    assert {name.split(".")[0] for name in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_goes_up(module):
    wrong = [other for other in imported_by(MODULES[module]) if place(other) > place(module)]
    assert not wrong


def test_no_imports_go_round_in_circles():
    graph = {module: imported_by(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("package", sorted({path.parent for path in MODULES.values()}))
def test_no_public_name_is_that_of_a_module(package):
    found = importlib.import_module(".".join(("pipeline", *package.relative_to(PACKAGE).parts)))
    public = {name for name, value in vars(found).items() if not inspect.ismodule(value)} | set(dir(found))
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert not {name for name in public & modules if not inspect.ismodule(getattr(found, name))}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_read_in_one_sitting(module):
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= 400


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
