"""OpenAI's text completions, for models without a chat template: llama.cpp, vLLM, KoboldCpp and text-generation-webui have it.

The server's own length limit is 16 tokens here (vLLM), so that ours is always sent.
"""

import json
from typing import Any, Literal

from pipeline.dialects.base import Delta, error_in, reason_of, server_figures, text_of
from pipeline.dialects.openai import OpenAIChat, is_reliable, usage_of
from pipeline.records import Completion, Request, Usage


class OpenAICompletions(OpenAIChat):
    name = "completions"
    path = "/v1/completions"
    stream_path: str | None = "/v1/completions"
    wants: Literal["messages", "text"] = "text"

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        body = super().encode(request, model=model, stream=stream)
        return {"prompt": request.text} | {name: value for name, value in body.items() if name != "messages"}

    def decode(self, body: Any) -> Completion:
        choice = body["choices"][0]
        return Completion(
            text=text_of(choice["text"]),
            finish_reason=reason_of(choice.get("finish_reason"), reliable=is_reliable(body)),
            usage=usage_of(body) or Usage(),
            server=server_figures(body),
        )

    def decode_event(self, data: str) -> Delta:
        if data.strip() == "[DONE]":
            return Delta(done=True)
        body = json.loads(data)
        if error := error_in(body):
            return Delta(error=error)
        choice = body["choices"][0] if body.get("choices") else {}
        if choice.get("finish_reason") == "error":
            return Delta(error="finish_reason error")
        return Delta(
            text=text_of(choice.get("text")),
            finish_reason=reason_of(choice.get("finish_reason")),
            usage=usage_of(body),
            server=server_figures(body),
        )
