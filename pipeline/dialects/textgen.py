"""text-generation-webui's first API, the one Evennia's LLM contrib speaks; KoboldCpp still answers to it.

It completes text and does not stream. It answers 200 with an empty body when generation fails (out of memory, say):
that is no reply. The length limit and the stop strings go under both servers' names, since each ignores the other's.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.dialects.base import Delta, Tokenizer, count_of, fields_for, reason_of, same, text_of
from pipeline.records import Completion, Request, Usage


class TextGen:
    name = "textgen"
    path = "/api/v1/generate"
    wants: Literal["messages", "text"] = "text"
    stream_path: str | None = None
    media_type = ""
    end: re.Pattern[bytes] | None = None
    tokenizer: Tokenizer | None = Tokenizer(
        "/api/v1/token-count",
        encode=lambda text: {"prompt": text},
        decode=lambda body: count_of(body["results"][0]["tokens"]),
    )
    fields: Mapping[str, tuple[str, ...]] = {
        "max_tokens": ("max_new_tokens", "max_length"),
        "stop": ("stopping_strings", "stop_sequence"),
        "seed": ("seed", "sampler_seed"),
        "repeat_penalty": ("repetition_penalty", "rep_pen"),
        **same("temperature", "top_p", "top_k", "min_p", "presence_penalty"),
    }

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        return {"prompt": request.text} | fields_for(request.config, self.fields)

    def decode(self, body: Any) -> Completion:
        result = body["results"][0]
        return Completion(
            text=text_of(result["text"]),
            finish_reason=reason_of(result.get("finish_reason"), reliable=False),  # it is KoboldCpp's
            usage=Usage(
                prompt_tokens=count_of(result.get("prompt_tokens")),
                completion_tokens=count_of(result.get("completion_tokens")),
            ),
        )

    def decode_event(self, data: str) -> Delta:
        raise TypeError("this API does not stream over HTTP")
