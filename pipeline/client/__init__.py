"""A request in, an answer out: by the deadline, timed, asked again where that helps, never more at once than pays."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.client.client import LLMClient

__all__ = ["LLMClient"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.client.client import LLMClient  # aiohttp and httpx with it, which most of its neighbours do without

    return LLMClient
