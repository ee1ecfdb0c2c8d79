"""Ollama's own APIs. They stream unless told not to, one JSON value a line, and give durations in nanoseconds.

Unlike its OpenAI-style API, these take every sampling option, and say how long loading the model took.
"""

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


class OllamaChat:
    name = "ollama"
    path = "/api/chat"
    stream_path: str | None = "/api/chat"
    media_type = "application/x-ndjson"
    wants: Literal["messages", "text"] = "messages"
    end: re.Pattern[bytes] | None = re.compile(rb'(?<!\\)"done": ?true')
    tokenizer: Tokenizer | None = None
    fields: Mapping[str, tuple[str, ...]] = {
        "max_tokens": ("num_predict",),
        "json_schema": ("format",),
        **same("temperature", "stop", "seed", "top_p", "top_k", "min_p"),
        **same("repeat_penalty", "presence_penalty", "frequency_penalty"),
    }

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        options = fields_for(request.config, self.fields)
        schema = {"format": options.pop("format")} if "format" in options else {}
        return {"model": model or "", **self._asked(request), "stream": stream, "options": options} | schema

    def decode(self, body: Any) -> Completion:
        return Completion(
            text=text_of(self._text(body)),
            finish_reason=reason_of(body.get("done_reason")),
            # Where the whole prompt was in its cache, the count of prompt tokens is missing.
            usage=Usage(
                prompt_tokens=count_of(body.get("prompt_eval_count")),
                completion_tokens=count_of(body.get("eval_count")),
            ),
            server=server_figures(body),
        )

    def decode_event(self, data: str) -> Delta:
        body = json.loads(data)
        if error := error_in(body):
            return Delta(error=error)
        if body.get("done") is not True:
            return Delta(text=text_of(self._text(body)), reasoning=bool(self._thinking(body)))
        last = self.decode(body)
        return Delta(text=last.text, finish_reason=last.finish_reason, usage=last.usage, server=last.server, done=True)

    def _asked(self, request: Request) -> dict[str, Any]:
        return {"messages": [{"role": m.role, "content": m.content} for m in request.messages]}

    def _text(self, body: Any) -> Any:
        return body["message"]["content"]

    def _thinking(self, body: Any) -> Any:
        return body["message"].get("thinking")


class OllamaGenerate(OllamaChat):
    """Text completion, past the model's own template (`raw`)."""

    name = "ollama-generate"
    path = "/api/generate"
    stream_path: str | None = "/api/generate"
    wants: Literal["messages", "text"] = "text"

    def _asked(self, request: Request) -> dict[str, Any]:
        return {"prompt": request.text, "raw": True}

    def _text(self, body: Any) -> Any:
        return body["response"]

    def _thinking(self, body: Any) -> Any:
        return body.get("thinking")
