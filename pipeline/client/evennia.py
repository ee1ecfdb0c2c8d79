"""What Evennia's contrib `rpg/llm` sends, and the replies that its promises stand for."""

from typing import Any

from pipeline.config import LLMSettings
from pipeline.dialects.base import well_formed


def seed_body(settings: LLMSettings, text: str) -> dict[str, Any]:
    if (settings.path or "").endswith("/chat/completions"):
        return {**settings.request_body, "messages": [{"role": "user", "content": text}]}
    return {**settings.request_body, settings.prompt_keyname: text}


def text_in(body: Any) -> str:
    """The reply in any of the shapes that the paths of `get_response` answer with."""
    if "results" in body:
        text = body["results"][0]["text"]
    else:
        choice = body["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    if not isinstance(text, str):
        raise TypeError("no text")
    return well_formed(text)
