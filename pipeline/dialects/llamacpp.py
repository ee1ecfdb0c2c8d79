"""llama.cpp's own API: text completion, with the server's timings in every reply. The last event says `"stop": true`."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.dialects.base import Delta, Tokenizer, count_of, error_in, fields_for, same, server_figures, text_of
from pipeline.records import Completion, Request, Usage


class LlamaCpp:
    name = "llamacpp"
    path = "/completion"
    stream_path: str | None = "/completion"
    media_type = "text/event-stream"
    wants: Literal["messages", "text"] = "text"
    end: re.Pattern[bytes] | None = re.compile(rb'(?<!\\)"stop": ?true')
    tokenizer: Tokenizer | None = None
    fields: Mapping[str, tuple[str, ...]] = {
        "max_tokens": ("n_predict",),
        **same("temperature", "stop", "seed", "top_p", "top_k", "min_p", "json_schema"),
        **same("repeat_penalty", "presence_penalty", "frequency_penalty"),
    }

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"prompt": request.text} | fields_for(request.config, self.fields)
        if model is not None:
            body["model"] = model  # for a server with several
        return body | ({"stream": True} if stream else {})

    def decode(self, body: Any) -> Completion:
        return Completion(
            text=text_of(body["content"]),
            finish_reason=_reason(body),
            usage=Usage(
                prompt_tokens=count_of(body.get("tokens_evaluated")),
                completion_tokens=count_of(body.get("tokens_predicted")),
            ),
            server=server_figures(body),
        )

    def decode_event(self, data: str) -> Delta:
        body = json.loads(data)
        if error := error_in(body):
            return Delta(error=error)
        if not body["stop"]:
            return Delta(text=text_of(body["content"]))
        last = self.decode(body)
        return Delta(text=last.text, finish_reason=last.finish_reason, usage=last.usage, server=last.server, done=True)


def _reason(body: Mapping[str, Any]) -> str | None:
    if body.get("stop_type") == "limit" or body.get("stopped_limit") is True:  # the latter before 2025
        return "length"
    stopped = body.get("stop_type") in ("eos", "word") or True in (body.get("stopped_eos"), body.get("stopped_word"))
    return "stop" if stopped else None
