"""Jinja templates whose blocks are chat messages.

    {% block system %}You are {{ npc.name }}, {{ npc.description }}.{% endblock %}
    {% block user %}{{ line }}{% endblock %}

A block's name is the role of its message; messages come in the order the blocks stand in. With
`{% extends "npc/default.j2" %}` a template overrides single blocks and keeps the rest. Templates under `formats/` turn
messages into one string, for servers that complete text.

Only files under a prompts folder are compiled, never a persona, a line or a reply: those are values. The sandbox is
for templates from elsewhere; what it does not bound (`'a' * 10**9`, endless loops of output) is bounded here. Not covered:
a template that computes for ever and puts out nothing, or that piles up text by `~`, `join` or `replace`.

Equal values give equal prompts, or a run could not be resumed: what draws at random is not available.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.loaders import split_template_path
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ConfigError
from pipeline.hints import meant
from pipeline.prompts.misprints import first_not_utf8, place, undefined
from pipeline.records import Item, Message, Role
from pipeline.resources import shipped

MAX_CHARS = 1_000_000  # of one rendered message; no model's context holds more

_ROLES = get_args(Role)
_NAMES = {
    "npc": {"npc", "player", "line", "category", "lore"},
    "player": {"npc", "player", "category", "goal", "temper", "style"},
}
_FORMAT_NAMES = {"npc", "player", "messages"}

_RANDOM = ("random", "lipsum")
_UNBOUNDED_FILTERS = ("center", "format", "indent", "pprint", "tojson", "xmlattr", "batch", "slice")
_UNBOUNDED_METHODS = {"center", "expandtabs", "format", "format_map", "ljust", "rjust", "to_bytes", "zfill"}


class TemplateFailed(Exception):
    """A template could not be rendered for one row. The message has the file and what was missing."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def join_path(self, template: str, parent: str) -> str:
        return _named(template)

    def wrap_str_format(self, value: Any) -> None:
        """Without the sandbox's own `str.format`, which takes any width, it is an unsafe attribute as those below."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        unbounded = isinstance(obj, str | bytes | int) and attr in _UNBOUNDED_METHODS
        return not unbounded and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # The sandbox's own way asks a dozen questions for each attribute; a persona is plain data, and half of all look-ups.
        if type(obj) is SimpleNamespace and attribute in obj.__dict__ and not attribute.startswith("_"):
            return obj.__dict__[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        size = 0
        if isinstance(left, int) and isinstance(right, int):
            if operator == "**" and (abs(left) > 1000 or abs(right) > 1000):
                raise SecurityError("a power of such numbers is out of bounds")
            size = left.bit_length() + right.bit_length() if operator == "*" else 0
        elif operator == "*":
            size = _length(left) * right if isinstance(right, int) else _length(right) * left
        elif operator == "+":
            size = _length(left) + _length(right)
        elif operator == "%" and isinstance(left, str):
            raise SecurityError("text formatting with % is not available; write {{ value }}")
        if size > MAX_CHARS:
            raise SecurityError(f"a text of {size} characters; {MAX_CHARS} are allowed")
        return super().call_binop(context, operator, left, right)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


class Templates:
    """Finds templates: in `folder` if given, then in the working directory's `prompts/`, then in what ships."""

    def __init__(self, folder: str | None = None) -> None:
        if folder is not None and not Path(folder).is_dir():
            found = "a file, where" if Path(folder).exists() else "no such folder:"
            raise ConfigError(
                f"{folder}: {found} --prompts names a folder with npc/*.j2 in it; --template names one of those."
            )
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
        for name in (*_UNBOUNDED_FILTERS, *_RANDOM):
            self._env.filters.pop(name, None)
            self._env.globals.pop(name, None)

    def prompt(self, name: str, speaker: Literal["npc", "player"] = "npc") -> "Prompt":
        """The template `name` ("npc/default") for what the speaker is to say. Raises ConfigError with file and line if there is
        anything wrong with it."""
        template, chain = self._load(name, _NAMES[speaker])
        order: list[str] = []
        for source, tree in reversed(chain):
            for node in tree.body:
                self._check_top_level(source, node)
            order += [b.name for b in tree.body if isinstance(b, nodes.Block) and b.name not in order]
        if not order:
            raise ConfigError(f"{chain[0][0]}: no message in it. Write {{% block system %}}...{{% endblock %}}.")
        parents = [self._env.get_template(parent) for parent in _parents(chain)]
        trees = [tree for _, tree in chain]
        about_persona = frozenset(role for role in order if _only_about_persona(role, trees))
        return Prompt(_named(name).removesuffix(".j2"), template, parents, order, about_persona)

    def text_format(self, name: str) -> "TextFormat":
        return TextFormat(self._load(f"formats/{name}", _FORMAT_NAMES)[0])

    def copy(self, name: str, folder: Path) -> list[str]:
        """Copy a template and all it extends or includes into `folder`: what a run was made with. Returns the texts."""
        texts: list[str] = []
        done: set[str] = set()
        wanted: list[tuple[str, str | None, bool]] = [(name, None, False)]
        while wanted:
            current, named_by, optional = wanted.pop()
            with self._explained([named_by] if named_by else []):
                current = _named(current)
                if current in done:
                    continue
                try:
                    source, path, _ = self._loader.get_source(self._env, current)
                except jinja2.TemplateNotFound:
                    if optional:
                        continue
                    raise
                tree = self._env.parse(source, current, path)
            done.add(current)
            texts.append(source)
            target = folder / current
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source, "utf-8", newline="\n")
            for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
                others = _others(str(path), node)
                may_miss = isinstance(node, nodes.Include) and (node.ignore_missing or len(others) > 1)
                wanted += [(other, str(path), may_miss) for other in others]
        return texts

    def _load(self, name: str, known: set[str]) -> tuple[jinja2.Template, list[tuple[str, nodes.Template]]]:
        chain: list[tuple[str, nodes.Template]] = []
        seen: list[str] = []
        with self._explained(seen):
            wanted: str | None = _named(name)
            while wanted is not None:
                source, path, _ = self._loader.get_source(self._env, wanted)
                if path in seen:
                    raise ConfigError(f"{path}: it extends itself.")
                tree = self._env.parse(source, wanted, path)
                chain.append((str(path), tree))
                seen.append(str(path))
                self._env.get_template(wanted)
                self._check_names(str(path), tree, known)
                parent = _extended(str(path), tree)
                wanted = None if parent is None else _named(parent)
            return self._env.get_template(_named(name)), chain

    @contextmanager
    def _explained(self, chain: list[str]) -> Iterator[None]:
        """What may go wrong with finding and compiling a template that the last of `chain` names."""
        try:
            yield
        except jinja2.TemplateSyntaxError as exc:
            raise ConfigError(f"{exc.filename or exc.name}:{exc.lineno}: {exc.message}") from exc
        except jinja2.TemplateNotFound as exc:
            by = f"{chain[-1]} asks for it, but there" if chain else "There"
            wanted = str(exc.name).removesuffix(".j2")
            have = sorted(n.removesuffix(".j2") for n in self._loader.list_templates() if n.endswith(".j2"))
            alike = [name for name in have if name.startswith(f"{wanted.partition('/')[0]}/")] or have
            looked = ", ".join(str(place) for place in self._places)
            raise ConfigError(
                f"{by} is no template {exc.name!r} in {looked}.{meant(wanted, have)} There are: {', '.join(alike)}."
            ) from exc
        except UnicodeDecodeError as exc:
            raise ConfigError(first_not_utf8(self._places)) from exc
        except (RecursionError, SyntaxError) as exc:  # of Python's own compiler
            by = chain[-1] if chain else "the template"
            raise ConfigError(f"{by}: nested too deeply to be compiled.") from exc

    @property
    def _loader(self) -> jinja2.FileSystemLoader:
        assert isinstance(self._env.loader, jinja2.FileSystemLoader)
        return self._env.loader

    def _check_names(self, path: str, tree: nodes.Template, known: set[str]) -> None:
        unknown = meta.find_undeclared_variables(tree) - known
        if unknown:
            name = min(unknown)
            line = next((n.lineno for n in tree.find_all(nodes.Name) if n.name == name), 1)
            raise ConfigError(
                f"{path}:{line}: unknown name {name!r}.{meant(name, known)} A template gets: {', '.join(sorted(known))}."
            )

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
    """A compiled template: messages for one turn of one conversation."""

    def __init__(
        self,
        name: str,
        template: jinja2.Template,
        parents: list[jinja2.Template],
        order: list[str],
        about_persona: frozenset[str],
    ) -> None:
        self.name = name
        self._template, self._parents, self.roles = template, parents, order
        self._about_persona = about_persona  # blocks that are the same for all lines to a persona with the same lore
        self._rendered: dict[str, str] = {}
        self._rendered_for: tuple[object, str, Sequence[str]] = (None, "", ())
        self._last: tuple[object, tuple[object, ...], tuple[Message, ...]] = (None, (), ())

    @property
    def hears_nothing(self) -> bool:
        """Whether nothing in it changes with what the player says."""
        return self._about_persona.issuperset(self.roles)

    def render(self, item: Item, line: str = "", lore: Sequence[str] = ()) -> tuple[Message, ...]:
        """The messages that ask for the NPC's answer to `line`, or for what the player says next. Raises TemplateFailed."""
        # Samples of one scenario come one after another, so remembering the last one is enough.
        seen = (item.player, line, lore, item.category, item.goal, item.temper, item.style, item.history)
        if self._last[0] is not item.npc or self._last[1] != seen:
            self._last = (item.npc, seen, self._rendered_anew(item, line, lore))
        return self._last[2]

    def _rendered_anew(self, item: Item, line: str, lore: Sequence[str]) -> tuple[Message, ...]:
        context = self._context(item, line, lore)
        # Personas come one after another, too.
        if self._rendered_for[0] is not item.npc or self._rendered_for[1:] != (item.player, lore):
            self._rendered, self._rendered_for = {}, (item.npc, item.player, lore)
        messages = []
        for role in self.roles:
            text = self._rendered.get(role)
            if text is None:
                text = self._block(role, context)
                if role in self._about_persona:
                    self._rendered[role] = text
            if text:
                messages.append(Message(role=role, content=text))  # type: ignore[arg-type]
        if not messages:
            raise TemplateFailed(f"{self._template.filename}: nothing was rendered; every block is empty")
        return (*messages[:-1], *item.history, messages[-1])

    def line(self, item: Item, line: str) -> Message:
        """What the player said earlier, as it was sent then, but without the lore of then. Raises TemplateFailed."""
        return Message(role="user", content=self._block("user", self._context(item, line)))

    def _context(self, item: Item, line: str, lore: Sequence[str] = ()) -> jinja2.runtime.Context:
        values = {
            **{"npc": item.npc, "player": item.player, "line": line, "category": item.category},
            **{"lore": lore, "goal": item.goal, "temper": item.temper, "style": item.style},
        }
        context = self._template.new_context(values)
        for parent in self._parents:
            for name, block in parent.blocks.items():
                context.blocks.setdefault(name, []).append(block)
        return context

    def _block(self, role: str, context: jinja2.runtime.Context) -> str:
        return _render(self._template, lambda: context.blocks[role][0](context)).strip()


class TextFormat:
    """Messages to one string.

    A format may set `stop`, a list of strings that end a reply, and `markers`: what marks the messages for the model, and is
    taken out of their contents, so that nobody's persona can begin a message of its own.
    """

    def __init__(self, template: jinja2.Template) -> None:
        self._template = template
        self._markers: tuple[str, ...] = ()
        with suppress(TemplateFailed):  # on nothing, it may well fail
            nothing = {"messages": (), "npc": SimpleNamespace(name=""), "player": ""}
            _, self._markers = self._rendered(nothing, "markers")

    def render(self, messages: Sequence[Message], npc: SimpleNamespace, player: str) -> tuple[str, tuple[str, ...]]:
        """The text, and the strings that end a reply. Raises TemplateFailed."""
        if any(marker in message.content for message in messages for marker in self._markers):
            messages = [replace(message, content=self._unmarked(message.content)) for message in messages]
        return self._rendered({"messages": messages, "npc": npc, "player": player}, "stop")

    def _unmarked(self, text: str) -> str:
        before = None
        while text != before:  # what is left may make a marker again
            before = text
            for marker in self._markers:
                text = text.replace(marker, "")
        return text

    def _rendered(self, values: dict[str, Any], wanted: str) -> tuple[str, tuple[str, ...]]:
        context = self._template.new_context(values)
        text = _render(self._template, lambda: self._template.root_render_func(context))
        found = context.vars.get(wanted, ())
        if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
            raise TemplateFailed(f"{self._template.filename}: {wanted} is not a list of strings")
        return text, tuple(one for one in found if one)


def _render(template: jinja2.Template, pieces: Callable[[], Iterator[str]]) -> str:
    try:
        return _bounded(pieces())
    except jinja2.UndefinedError as exc:
        raise TemplateFailed(f"{place(template, exc)}: {undefined(str(exc))}") from exc
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        raise TemplateFailed(f"{place(template, exc)}: {exc}") from exc
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


def _only_about_persona(role: str, trees: list[nodes.Template]) -> bool:
    """Whether the block uses nothing that changes from line to line. What it includes might."""
    blocks = [b for tree in trees for b in tree.find_all(nodes.Block) if b.name == role]
    names = {n.name for b in blocks for n in b.find_all(nodes.Name)}
    return not names & {"line", "category", "goal", "temper", "style", "self"} and not any(
        b.find(kind) for b in blocks for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Block)
    )


def _named(name: str) -> str:
    """A template by the one name it has, however it is written: `npc/default`, `./npc/default.j2`. Never outside."""
    return "/".join(split_template_path(name)).removesuffix(".j2") + ".j2"


def _others(path: str, node: Any) -> list[str]:
    """The templates that an `extends`, `include` or `import` names."""
    several = isinstance(node.template, nodes.List | nodes.Tuple)
    parts = node.template.items if several else [node.template]
    if not all(isinstance(part, nodes.Const) for part in parts):
        raise ConfigError(f"{path}:{node.lineno}: what it extends or includes is the name of a template, in quotes.")
    values = [part.value for part in parts]
    return [str(v) for value in values for v in (value if isinstance(value, tuple | list) else [value])]


def _extended(path: str, tree: nodes.Template) -> str | None:
    node = tree.find(nodes.Extends)
    return None if node is None else _others(path, node)[0]


def _parents(chain: list[tuple[str, nodes.Template]]) -> Iterator[str]:
    return (_named(name) for path, tree in chain if (name := _extended(path, tree)) is not None)
