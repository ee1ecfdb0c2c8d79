"""Who is there, and does it answer? The first thing to look at when something does not work."""

import json
from types import SimpleNamespace
from typing import Any

from pipeline.client.probe import base_url
from pipeline.client.thinking import without_thinking
from pipeline.config import RunConfig
from pipeline.errors import ServerError
from pipeline.progress import printable
from pipeline.prompts.templates import Templates
from pipeline.records import Attempt, Completion, Message
from pipeline.run.prepare import Watcher, make_script
from pipeline.server.target import connected, find_target

_MESSAGES = (
    Message(role="system", content="You are Mira, who keeps the ferry at Ash Ford. You answer in one short sentence."),
    Message(role="user", content="Good morning! Is the river safe today?"),
)


async def ping(config: RunConfig, watch: Watcher) -> tuple[dict[str, Any], str]:
    """One timed reply, as a summary and as text. Raises ConfigError where nobody is known, and ServerError's problem stands in
    the summary under `error`."""
    if config.server != "embedded":
        base_url(config.server)  # raises for what is no address
        watch.say(f"{config.shown_server()}: looking who is there ...")
    target = await find_target(config, watch.say)
    script = make_script(config, target, Templates(config.prompts))
    request = script.as_sent(_MESSAGES, SimpleNamespace(name="Mira"), "Traveller", seed=0)
    attempts: list[Attempt] = []
    reply: Completion | None = None
    error = None
    async with connected(config, target) as client:
        sent = target.dialect.encode(request, model=target.model, stream=config.stream)
        try:
            reply = await client.complete(request, attempts.append)
        except ServerError as exc:
            error = str(exc)
        address = "the embedded server" if target.embedded else client.address
    timing = reply.timing if reply else None
    tokens = reply.usage if reply else None
    rate = None
    if timing and tokens and tokens.completion_tokens and timing.ttft is not None and timing.last != timing.ttft:
        rate = (tokens.completion_tokens - 1) / ((timing.last or timing.e2e) - timing.ttft)
    summary = {
        "server": target.shown,
        "product": target.product or None,
        "dialect": target.dialect.name,
        "model": target.model,
        "context": target.context,
        "slots": target.slots,
        "request": sent,
        "reply": reply.text if reply else None,
        "finish_reason": reply.finish_reason if reply else None,
        "connect": timing.connect if timing else None,
        "ttft": timing.ttft if timing else None,
        "e2e": timing.e2e if timing else None,
        "tokens_per_second": rate,
        "tokens_by": tokens.source if tokens else None,
        "attempts": reply.attempts if reply else max((attempt.number for attempt in attempts), default=0),
        "error": error,
    }
    return summary, printable(_text(summary, address))


def _text(summary: dict[str, Any], address: str) -> str:
    unknown = "it does not say"
    lines = [
        f"server   {summary['server']}" + (f", {summary['product']}" if summary["product"] else ""),
        f"dialect  {summary['dialect']}: POST {address}",
        f"model    {summary['model'] or unknown}",
        f"context  {summary['context'] or unknown}" + (" tokens" if summary["context"] else ""),
        f"slots    {summary['slots'] or unknown}",
        "",
        "sent     " + json.dumps(summary["request"], ensure_ascii=False),
    ]
    if summary["error"]:
        return "\n".join([*lines, f"failed   {summary['error']}"])
    said = without_thinking(summary["reply"]).strip()
    seconds = [f"{summary['e2e']:.2f} s in all"]
    if summary["ttft"] is not None:
        seconds.insert(0, f"first token after {summary['ttft']:.2f} s")
    if summary["tokens_per_second"]:
        about = "about " if summary["tokens_by"] == "estimate" else ""
        seconds.append(f"{about}{summary['tokens_per_second']:.0f} tokens/s")
    if summary["attempts"] > 1:
        seconds.append(f"{summary['attempts']} attempts")
    lines += [f"reply    {said or '(nothing)'}", f"took     {', '.join(seconds)}"]
    if not said:
        lines.append("         An empty reply: is a model loaded? Does it think for longer than --max-tokens allows?")
    return "\n".join(lines)
