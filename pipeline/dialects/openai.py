"""OpenAI's chat completions: text-generation-webui, KoboldCpp, llama.cpp, Ollama and vLLM all answer to it."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.dialects.base import (
    Delta,
    Tokenizer,
    count_of,
    error_in,
    fields_for,
    reason_of,
    same,
    server_figures,
    text_of,
)
from pipeline.records import Completion, Request, Usage

_INVENTED = Usage(prompt_tokens=100, completion_tokens=100)  # what KoboldCpp 1.76 says of every reply


class OpenAIChat:
    name = "openai"
    path = "/v1/chat/completions"
    stream_path: str | None = "/v1/chat/completions"
    media_type = "text/event-stream"
    wants: Literal["messages", "text"] = "messages"
    # Inside an event's JSON there is no line feed, and a quotation mark has a backslash before it.
    end: re.Pattern[bytes] | None = re.compile(rb'(?:^|[\r\n])data: ?\[DONE\]|(?<!\\)"finish_reason": ?"(?!null")\w')
    tokenizer: Tokenizer | None = None
    fields: Mapping[str, tuple[str, ...]] = {
        **same("max_tokens", "temperature", "stop", "seed", "top_p", "json_schema"),
        # The next are not OpenAI's, which refuses them; most other servers have them.
        **same("top_k", "min_p", "presence_penalty", "frequency_penalty"),
        "repeat_penalty": ("repeat_penalty", "repetition_penalty"),  # llama.cpp's name, and vLLM's
    }

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": [{"role": m.role, "content": m.content} for m in request.messages]}
        if model is not None:
            body["model"] = model
        body |= fields_for(request.config, self.fields)
        if schema := body.pop("json_schema", None):
            named = {"name": "reply", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def decode(self, body: Any) -> Completion:
        choice = body["choices"][0]
        return Completion(
            text=text_of(self._text(choice)),
            finish_reason=reason_of(choice.get("finish_reason"), reliable=_is_reliable(body)),
            usage=_usage(body) or Usage(),
            server=server_figures(body),
        )

    def decode_event(self, data: str) -> Delta:
        if data.strip() == "[DONE]":
            return Delta(done=True)
        body = json.loads(data)
        if error := error_in(body):
            return Delta(error=error)
        usage, server = _usage(body), server_figures(body)
        if not body.get("choices"):  # the last event of a stream with include_usage
            return Delta(usage=usage, server=server)
        choice = body["choices"][0]
        if choice.get("finish_reason") == "error":
            return Delta(error="finish_reason error")
        text, reasoning = self._piece(choice)
        return Delta(
            text=text_of(text),
            reasoning=bool(reasoning),
            finish_reason=reason_of(choice.get("finish_reason")),
            usage=usage,
            server=server,
        )

    def _text(self, choice: Any) -> Any:
        return choice["message"]["content"]

    def _piece(self, choice: Any) -> tuple[Any, Any]:
        """Text and reasoning in an event."""
        delta = choice.get("delta") or {}
        return delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning") or delta.get("thinking")


def _usage(body: dict[str, Any]) -> Usage | None:
    counts = body.get("usage")
    if not isinstance(counts, dict):
        return None
    usage = Usage(
        prompt_tokens=count_of(counts.get("prompt_tokens")),
        completion_tokens=count_of(counts.get("completion_tokens")),
    )
    return None if usage == _INVENTED and not _is_reliable(body) else usage


def _is_reliable(body: dict[str, Any]) -> bool:
    """KoboldCpp makes up counts, and reasons for the end."""
    model = body.get("model")
    return not (isinstance(model, str) and model.startswith("koboldcpp/"))
