"""What a run would be: how many requests, about how many tokens and minutes, and the first ones as they would be sent."""

import contextlib
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.client.autolimit import AutoLimit
from pipeline.client.probe import base_url
from pipeline.config import RunConfig
from pipeline.dialects import dialect_named
from pipeline.progress import duration, printable
from pipeline.prompts.templates import TemplateFailed
from pipeline.records import Usage
from pipeline.run.folder import Inputs
from pipeline.run.prepare import Watcher, make_script, prepare
from pipeline.server.embedded import slots
from pipeline.server.models import DEMO_NAME, DEMO_STOP
from pipeline.server.target import Target

_SHOWN = 2
_SAMPLED = 200  # requests that the estimate of tokens goes by
# Tokens per second of one reply: of the embedded model on two cores, and a guess for somebody's server.
_EMBEDDED = (250.0, 60.0)
_SERVER = (1000.0, 40.0)


def dry_run(config: RunConfig, watch: Watcher) -> tuple[dict[str, Any], str]:
    """The summary, and the same as text. No server is asked: with `--dialect auto` the requests are shown as OpenAI's."""
    embedded = config.server == "embedded"
    name = "openai" if embedded else (base_url(config.server)[1] or config.dialect)
    dialect = dialect_named("openai" if name == "auto" else name)
    concurrency = config.concurrency or (slots() if embedded else AutoLimit().start)
    demo = embedded and config.model_path is None
    model = DEMO_NAME if demo else config.model
    target = Target(
        shown=config.shown_server(),
        url="",
        dialect=dialect,
        model=model,
        identity="",
        concurrency=concurrency,
        stop=DEMO_STOP if demo else (),
    )
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(config, Inputs(Path(scratch)), watch)
        script = make_script(config, target, prepared.templates)
        asks = []
        tokens = replies = said = 0  # of the sampled conversations; `said` by a simulated player
        for place, item in enumerate(islice(prepared.plan, _SAMPLED)):
            with contextlib.suppress(TemplateFailed):  # which costs the run that row, too
                asks.append(script.ask(item, place))
                turns = script.most(item)
                replies, said = replies + turns, said + max(0, turns - len(item.lines))
                exchanges = sum(min(number, config.window // 2) for number in range(turns))
                tokens += turns * asks[-1].request.about_tokens + exchanges * 2 * config.max_tokens
    each = prepared.count.items / max(len(asks), 1)
    requests = round(each * (replies + said))
    prompt_tokens = round(requests * tokens / max(replies, 1))  # those of the player are about as long
    completion_tokens = requests * config.max_tokens
    reading, writing = _EMBEDDED if embedded else _SERVER
    most = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    seconds = (prompt_tokens / reading + completion_tokens / writing) / concurrency
    shown = [dialect.encode(ask.request, model=model, stream=config.stream) for ask in asks[:_SHOWN]]
    summary = {
        "personas": prepared.count.personas,
        "scenarios": prepared.scenarios.good,
        "requests": requests,
        "unfit": prepared.count.unfit,
        "prompt_tokens_about": prompt_tokens,
        "completion_tokens_at_most": completion_tokens,
        "seconds_at_most_about": round(seconds),
        **({"cost_at_most_about": most.cost(config.price)} if config.price else {}),
        "first_requests": shown,
    }
    lines = [
        f"{summary['personas']} personas, {summary['scenarios']} scenarios: {requests} requests to {config.shown_server()}"
        + (f" at most, in {prepared.count.items} conversations" if replies > len(asks) else ""),
        f"{prepared.count.unfit} pairs left out, where a persona lacks a field that the scenario needs",
        f"about {prompt_tokens} prompt tokens (at four characters each), at most {completion_tokens} completion tokens",
        f"at most about {duration(seconds)}, if one reply is written at {writing:g} tokens/s and read at {reading:g}, "
        f"{concurrency} at a time"
        + ("" if embedded or config.concurrency else " (--concurrency auto finds out how many)"),
        *([f"at most about {summary['cost_at_most_about']:.4g} at that price"] if config.price else []),
        "",
        *(["If the server speaks OpenAI's dialect:"] if name == "auto" else []),
        *(f"POST {dialect.path}\n{json.dumps(body, indent=2, ensure_ascii=False)}" for body in shown),
    ]
    return summary, printable("\n".join(lines))
