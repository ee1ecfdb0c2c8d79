"""OpenAI's chat completions: text-generation-webui, KoboldCpp, llama.cpp, Ollama and vLLM all answer to it."""

import json
from typing import Any, Literal

from pipeline.dialects.base import Delta, Tokenizer, count_of, error_text, reason_of, server_figures, text_of
from pipeline.records import Completion, Request, Usage

_INVENTED = Usage(prompt_tokens=100, completion_tokens=100)  # what KoboldCpp 1.76 says of every reply


class OpenAIChat:
    name = "openai"
    path = "/v1/chat/completions"
    wants: Literal["messages", "text"] = "messages"
    streams = True
    end: bytes | None = b"\ndata: [DONE]"  # inside an event's JSON there is no line feed
    tokenizer: Tokenizer | None = None

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
            finish_reason=reason_of(choice.get("finish_reason")),
            usage=_usage(body) or Usage(),
            server=server_figures(body),
        )

    def decode_event(self, data: str) -> Delta:
        if data.strip() == "[DONE]":
            return Delta(done=True)
        body = json.loads(data)
        if body.get("error"):
            return Delta(error=error_text(body) or "an error")
        usage, server = _usage(body), server_figures(body)
        if not body.get("choices"):  # the last event of a stream with include_usage
            return Delta(usage=usage, server=server)
        choice = body["choices"][0]
        delta = choice.get("delta") or {}
        return Delta(
            text=text_of(delta.get("content")),
            reasoning=bool(delta.get("reasoning_content") or delta.get("reasoning")),
            finish_reason=reason_of(choice.get("finish_reason")),
            usage=usage,
            server=server,
        )


def _usage(body: dict[str, Any]) -> Usage | None:
    counts = body.get("usage")
    if not isinstance(counts, dict):
        return None
    usage = Usage(
        prompt_tokens=count_of(counts.get("prompt_tokens")),
        completion_tokens=count_of(counts.get("completion_tokens")),
    )
    model = body.get("model")
    invented = usage == _INVENTED and isinstance(model, str) and model.startswith("koboldcpp/")
    return None if invented else usage
