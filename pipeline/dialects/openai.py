"""OpenAI's chat completions: text-generation-webui, KoboldCpp, llama.cpp, Ollama and vLLM all answer to it."""

import json
from typing import Any, Literal

from pipeline.dialects.base import Delta, count_of, error_text, text_of
from pipeline.records import Completion, Request, Usage


class OpenAIChat:
    name = "openai"
    path = "/v1/chat/completions"
    wants: Literal["messages", "text"] = "messages"
    streams = True

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        config = request.config
        body: dict[str, Any] = {"messages": [{"role": m.role, "content": m.content} for m in request.messages]}
        if model is not None:
            body["model"] = model
        if config.max_tokens is not None:
            body["max_tokens"] = config.max_tokens
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.stop:
            body["stop"] = list(config.stop)
        if config.seed is not None:
            body["seed"] = config.seed
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def decode(self, body: Any) -> Completion:
        choice = body["choices"][0]
        return Completion(
            text=text_of(choice["message"]["content"]),
            finish_reason=choice.get("finish_reason"),
            usage=_usage(body.get("usage")) or Usage(),
        )

    def decode_event(self, data: str) -> Delta:
        if data.strip() == "[DONE]":
            return Delta(done=True)
        body = json.loads(data)
        if body.get("error"):
            return Delta(error=error_text(body))
        usage = _usage(body.get("usage"))
        if not body.get("choices"):  # the last event of a stream with include_usage
            return Delta(usage=usage)
        choice = body["choices"][0]
        return Delta(
            text=text_of((choice.get("delta") or {}).get("content")),
            finish_reason=choice.get("finish_reason"),
            usage=usage,
        )


def _usage(body: Any) -> Usage | None:
    if not isinstance(body, dict):
        return None
    return Usage(
        prompt_tokens=count_of(body.get("prompt_tokens")),
        completion_tokens=count_of(body.get("completion_tokens")),
    )
