"""From NPC personas to fine-tuning datasets, and proof that the tuned model plays them well and fast.

The names below are all that a notebook needs; each is imported when it is first used, so that `pipeline --help` is quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import compare, curate, evaluate, generate
    from pipeline.client.client import LLMClient
    from pipeline.errors import BadReply, ConfigError, PipelineError, Refused, ServerError, Unreachable
    from pipeline.records import Completion, GenerateConfig, Message, Request, Score, Turn
    from pipeline.runs import Run, load_run

_HOME = {
    "LLMClient": "client.client",
    "BadReply": "errors",
    "ConfigError": "errors",
    "PipelineError": "errors",
    "Refused": "errors",
    "ServerError": "errors",
    "Unreachable": "errors",
    "Completion": "records",
    "GenerateConfig": "records",
    "Message": "records",
    "Request": "records",
    "Score": "records",
    "Turn": "records",
    "Run": "runs",
    "compare": "api",
    "curate": "api",
    "evaluate": "api",
    "generate": "api",
    "load_run": "runs",
}

__all__ = [
    "BadReply",
    "Completion",
    "ConfigError",
    "GenerateConfig",
    "LLMClient",
    "Message",
    "PipelineError",
    "Refused",
    "Request",
    "Run",
    "Score",
    "ServerError",
    "Turn",
    "Unreachable",
    "compare",
    "curate",
    "evaluate",
    "generate",
    "load_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
