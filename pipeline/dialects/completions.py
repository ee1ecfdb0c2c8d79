"""OpenAI's text completions, for models without a chat template: llama.cpp, vLLM, KoboldCpp and text-generation-webui have it.

The server's own length limit is 16 tokens here (vLLM), so that ours is always sent.
"""

from typing import Any, Literal

from pipeline.dialects.openai import OpenAIChat
from pipeline.records import Request


class OpenAICompletions(OpenAIChat):
    name = "completions"
    path = "/v1/completions"
    stream_path: str | None = "/v1/completions"
    wants: Literal["messages", "text"] = "text"

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        body = super().encode(request, model=model, stream=stream)
        return {"prompt": request.text} | {name: value for name, value in body.items() if name != "messages"}

    def _text(self, choice: Any) -> Any:
        return choice["text"]

    def _piece(self, choice: Any) -> tuple[Any, Any]:
        return choice.get("text"), None
