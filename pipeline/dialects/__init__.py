"""Wire formats of servers, one class a file, without any I/O: a request in, a JSON body out, and back."""

from pipeline.dialects.base import Delta, Dialect
from pipeline.dialects.openai import OpenAIChat
from pipeline.dialects.textgen import TextGen

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (OpenAIChat(), TextGen())}

__all__ = ["DIALECTS", "Delta", "Dialect"]
