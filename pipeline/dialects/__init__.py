"""Wire formats of servers, one class an API, without any I/O: a request in, a JSON body out, and back.

Another package can add one: an entry point of the group `pipeline.dialects` names an object that is a Dialect.
"""

from pipeline.dialects.base import Delta, Dialect
from pipeline.dialects.completions import OpenAICompletions
from pipeline.dialects.koboldcpp import KoboldCpp
from pipeline.dialects.llamacpp import LlamaCpp
from pipeline.dialects.ollama import OllamaChat, OllamaGenerate
from pipeline.dialects.openai import OpenAIChat
from pipeline.dialects.textgen import TextGen
from pipeline.errors import ConfigError
from pipeline.hints import meant

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        *(OpenAIChat(), OpenAICompletions(), TextGen(), KoboldCpp(), LlamaCpp(), OllamaChat(), OllamaGenerate()),
    )
}


def dialect_named(name: str) -> Dialect:
    """One of ours, or one that is installed. Raises ConfigError with the names there are."""
    if name in DIALECTS:
        return DIALECTS[name]
    from importlib.metadata import entry_points

    others = {entry.name: entry for entry in entry_points(group="pipeline.dialects")}
    if name not in others:
        known = [*DIALECTS, *others]
        raise ConfigError(f"unknown dialect {name!r}.{meant(name, known)} It can be {', '.join(known)}.")
    try:
        loaded = others[name].load()
        found: Dialect = loaded() if isinstance(loaded, type) else loaded
    except Exception as exc:
        raise ConfigError(f"the dialect {name!r} ({others[name].value}) cannot be loaded: {exc!r}.") from exc
    return found


__all__ = ["DIALECTS", "Delta", "Dialect", "dialect_named"]
