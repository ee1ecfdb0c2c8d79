"""Jinja templates whose blocks are chat messages.

    {% block system %}You are {{ npc.name }}, {{ npc.description }}.{% endblock %}
    {% block user %}{{ line }}{% endblock %}

A block's name is the role of its message; messages come in the order the blocks stand in. With
`{% extends "npc/default.j2" %}` a template overrides single blocks and keeps the rest. Templates under `formats/` turn
messages into one string, for servers that complete text.

Only files under a prompts folder are compiled, never a persona, a line or a reply: those are values. The sandbox is
for templates from elsewhere; what it does not bound (`'a' * 10**9`, endless loops of output) is bounded here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ConfigError
from pipeline.records import Item, Message, Role
from pipeline.resources import shipped

MAX_CHARS = 1_000_000  # of one rendered message; no model's context holds more

_ROLES = get_args(Role)
_NPC_NAMES = {"npc", "player", "line", "category"}
_FORMAT_NAMES = {"npc", "player", "messages"}


class TemplateFailed(Exception):
    """A template could not be rendered for one row. The message has the file and what was missing."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*" and (isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple)):
            size = len(left) * right if isinstance(right, int) else len(right) * left
            if size > MAX_CHARS:
                raise SecurityError(f"a text of {size} characters; {MAX_CHARS} are allowed")
        if operator == "**" and (abs(left) > 1000 or abs(right) > 1000):
            raise SecurityError("a power of such numbers is out of bounds")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text formatting with % is not available; write {{ value }}")
        return super().call_binop(context, operator, left, right)


class Templates:
    """Finds templates: in `folder` if given, then in the working directory's `prompts/`, then in what ships."""

    def __init__(self, folder: str | None = None) -> None:
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"{folder}: no such folder of prompts.")
        places = [Path(folder)] if folder is not None else []
        self._places = [*places, Path("prompts"), shipped("prompts")]
        self._env = _Environment(
            loader=jinja2.FileSystemLoader(self._places),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            auto_reload=False,
        )
        for unbounded in ("center", "format", "indent", "pprint", "tojson", "xmlattr"):
            self._env.filters.pop(unbounded, None)

    def prompt(self, name: str) -> "Prompt":
        """The template `name` ("npc/default"). Raises ConfigError with file and line if there is anything wrong with it."""
        template, chain = self._load(name, _NPC_NAMES)
        order: list[str] = []
        for source, tree in reversed(chain):
            for node in tree.body:
                self._check_top_level(source, node)
            order += [b.name for b in tree.body if isinstance(b, nodes.Block) and b.name not in order]
        if not order:
            raise ConfigError(f"{chain[0][0]}: no message in it. Write {{% block system %}}...{{% endblock %}}.")
        parents = [self._env.get_template(parent) for parent in _parents(chain)]
        return Prompt(name, template, parents, order)

    def text_format(self, name: str) -> "TextFormat":
        return TextFormat(self._load(f"formats/{name}", _FORMAT_NAMES)[0])

    def copy(self, name: str, folder: Path) -> list[str]:
        """Copy a template and all it extends or includes into `folder`: what a run was made with. Returns the texts."""
        known, wanted, texts = _NPC_NAMES | _FORMAT_NAMES, [name.removesuffix(".j2") + ".j2"], []
        done: set[str] = set()
        while wanted:
            current = wanted.pop()
            if current in done:
                continue
            done.add(current)
            tree = self._load(current, known)[1][0][1]
            texts.append(self._loader.get_source(self._env, current)[0])
            target = folder / current
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(texts[-1], "utf-8", newline="\n")
            wanted += [other for other in meta.find_referenced_templates(tree) if other is not None]
        return texts

    def _load(self, name: str, known: set[str]) -> tuple[jinja2.Template, list[tuple[str, nodes.Template]]]:
        name = name.removesuffix(".j2") + ".j2"
        chain: list[tuple[str, nodes.Template]] = []
        try:
            wanted: str | None = name
            while wanted is not None:
                source, path, _ = self._loader.get_source(self._env, wanted)
                tree = self._env.parse(source, wanted, path)
                if any(path == seen for seen, _ in chain):
                    raise ConfigError(f"{path}: it extends itself.")
                chain.append((str(path), tree))
                self._check_names(str(path), tree, known)
                wanted = _extended(str(path), tree)
            return self._env.get_template(name), chain
        except jinja2.TemplateSyntaxError as exc:
            raise ConfigError(f"{exc.filename or exc.name}:{exc.lineno}: {exc.message}") from exc
        except jinja2.TemplateNotFound as exc:
            by = f"{chain[-1][0]} extends it, but there" if chain else "There"
            have = ", ".join(sorted(n.removesuffix(".j2") for n in self._loader.list_templates() if n.endswith(".j2")))
            looked = ", ".join(str(place) for place in self._places)
            raise ConfigError(f"{by} is no template {exc.name!r} in {looked}. There are: {have}.") from exc
        except UnicodeDecodeError as exc:
            raise ConfigError(f"template {name}: not UTF-8 at byte {exc.start}. Save it as UTF-8.") from exc

    @property
    def _loader(self) -> jinja2.FileSystemLoader:
        assert isinstance(self._env.loader, jinja2.FileSystemLoader)
        return self._env.loader

    def _check_names(self, path: str, tree: nodes.Template, known: set[str]) -> None:
        unknown = meta.find_undeclared_variables(tree) - known
        if unknown:
            name = min(unknown)
            line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), 1)
            raise ConfigError(f"{path}:{line}: unknown name {name!r}. A template gets: {', '.join(sorted(known))}.")

    def _check_top_level(self, path: str, node: nodes.Node) -> None:
        if isinstance(node, nodes.Block):
            if node.name not in _ROLES:
                raise ConfigError(
                    f"{path}:{node.lineno}: block {node.name!r} is no role. It can be {', '.join(_ROLES)}."
                )
            return
        blank = isinstance(node, nodes.Output) and all(
            isinstance(part, nodes.TemplateData) and not part.data.strip() for part in node.nodes
        )
        if not blank and not isinstance(node, nodes.Extends):
            raise ConfigError(
                f"{path}:{node.lineno}: outside of any block. What is sent stands in a block: system, user."
            )


class Prompt:
    """A compiled template: messages for one turn of one persona."""

    def __init__(self, name: str, template: jinja2.Template, parents: list[jinja2.Template], order: list[str]) -> None:
        self.name = name
        self._template, self._parents, self._order = template, parents, order

    def render(self, item: Item, line: str) -> tuple[Message, ...]:
        """The messages that ask for the NPC's answer to `line`. Raises TemplateFailed."""
        values = {"npc": item.npc, "player": item.player, "line": line, "category": item.category}
        context = self._template.new_context(values)
        for parent in self._parents:
            for name, block in parent.blocks.items():
                context.blocks.setdefault(name, []).append(block)
        messages = []
        for role in self._order:
            text = _render(self._template, lambda role=role: context.blocks[role][0](context)).strip()  # type: ignore[misc]
            if text:
                messages.append(Message(role=role, content=text))  # type: ignore[arg-type]
        if not messages:
            raise TemplateFailed(f"{self._template.filename}: nothing was rendered; every block is empty")
        return tuple(messages)


class TextFormat:
    """Messages to one string."""

    def __init__(self, template: jinja2.Template) -> None:
        self._template = template

    def render(self, messages: Sequence[Message], npc: SimpleNamespace, player: str) -> str:
        context = self._template.new_context({"messages": messages, "npc": npc, "player": player})
        return _render(self._template, lambda: self._template.root_render_func(context))


def _render(template: jinja2.Template, pieces: Callable[[], Iterator[str]]) -> str:
    try:
        return _bounded(pieces())
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise TemplateFailed(f"{template.filename}: {exc}") from exc
    except RecursionError as exc:
        raise TemplateFailed(f"{template.filename}: it calls itself without end") from exc


def _bounded(pieces: Iterable[str]) -> str:
    parts, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_CHARS:
            raise SecurityError(f"over {MAX_CHARS} characters")
        parts.append(piece)
    return "".join(parts)


def _extended(path: str, tree: nodes.Template) -> str | None:
    node = tree.find(nodes.Extends)
    if node is None:
        return None
    if not isinstance(node.template, nodes.Const):
        raise ConfigError(f'{path}:{node.lineno}: "extends" takes the name of a template in quotes.')
    return str(node.template.value)


def _parents(chain: list[tuple[str, nodes.Template]]) -> Iterator[str]:
    return (name for path, tree in chain if (name := _extended(path, tree)) is not None)
