"""text-generation-webui's first API, the one Evennia's LLM contrib speaks; KoboldCpp still answers to it.

It completes text and does not stream. It answers 200 with an empty body when generation fails (out of memory, say):
that is no reply. The length limit and the stop strings go under both servers' names, since each ignores the other's.
"""

from typing import Any, Literal

from pipeline.dialects.base import Delta, Tokenizer, count_of, reason_of, text_of
from pipeline.records import Completion, Request, Usage


class TextGen:
    name = "textgen"
    path = "/api/v1/generate"
    wants: Literal["messages", "text"] = "text"
    streams = False
    end: bytes | None = None
    tokenizer: Tokenizer | None = Tokenizer(
        "/api/v1/token-count",
        encode=lambda text: {"prompt": text},
        decode=lambda body: count_of(body["results"][0]["tokens"]),
    )

    def encode(self, request: Request, *, model: str | None, stream: bool) -> dict[str, Any]:
        config = request.config
        prompt = request.prompt
        if prompt is None:
            prompt = "\n".join(message.content for message in request.messages)
        body: dict[str, Any] = {"prompt": prompt}
        if config.max_tokens is not None:
            body |= {"max_new_tokens": config.max_tokens, "max_length": config.max_tokens}
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.stop:
            body |= {"stopping_strings": list(config.stop), "stop_sequence": list(config.stop)}
        if config.seed is not None:
            body |= {"seed": config.seed, "sampler_seed": config.seed}
        return body

    def decode(self, body: Any) -> Completion:
        result = body["results"][0]
        return Completion(
            text=text_of(result["text"]),
            finish_reason=reason_of(result.get("finish_reason")),
            usage=Usage(
                prompt_tokens=count_of(result.get("prompt_tokens")),
                completion_tokens=count_of(result.get("completion_tokens")),
            ),
        )

    def decode_event(self, data: str) -> Delta:
        raise TypeError("this API does not stream over HTTP")
