"""KoboldCpp's own API: that of text-generation-webui's beginnings with other names, streamed on a path of its own.

It knows `max_length` and not the `max_new_tokens` of the API it descends from. The stream has no mark for its end but a
finish_reason; the JSON body `null` is how an exception looks.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.dialects.base import Delta, Tokenizer, count_of, error_text, fields_for, reason_of, same, text_of
from pipeline.dialects.textgen import TextGen
from pipeline.records import Request


class KoboldCpp(TextGen):
    name = "koboldcpp"
    stream_path: str | None = "/api/extra/generate/stream"
    media_type = "text/event-stream"
    end: re.Pattern[bytes] | None = re.compile(rb'(?<!\\)"finish_reason": ?"(?!null")\w')
    tokenizer: Tokenizer | None = Tokenizer(
        "/api/extra/tokencount", encode=lambda text: {"prompt": text}, decode=lambda body: count_of(body["value"])
    )
    fields: Mapping[str, tuple[str, ...]] = {
        "max_tokens": ("max_length",),
        "stop": ("stop_sequence",),
        "seed": ("sampler_seed",),
        "repeat_penalty": ("rep_pen",),
        **same("temperature", "top_p", "top_k", "min_p", "presence_penalty"),
    }

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        return {"prompt": request.text, "trim_stop": True} | fields_for(request.config, self.fields)

    def decode_event(self, data: str) -> Delta:
        body = json.loads(data)
        if "token" not in body:
            return Delta(error=error_text(body) or "an event without a token")
        reason = reason_of(body.get("finish_reason"))
        return Delta(
            text=text_of(body["token"]),
            finish_reason=reason_of(reason, reliable=False),
            done=reason is not None,
        )
