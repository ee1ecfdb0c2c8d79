"""Whatever a server does to some requests, or to all for a while: the run ends complete, or says so and can be resumed.

Real sockets, the real client, journal and loop of a run.
"""

import asyncio
import json
import time
from collections import Counter

import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer, calm
from test_generation import Walk
from wire import Wire, reply

from pipeline.cli import cli
from pipeline.client.client import LLMClient
from pipeline.run import generation
from pipeline.run.journal import Journal

ROWS, CONCURRENCY, TIMEOUT, A_WHILE = 30, 6, 30.0, 0.7
CHUNK = b'data: {"choices": [{"delta": {"content": "Aye. "}}]}\n\n'
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = json.dumps({"choices": [{"message": {"content": "Aye. Aye. Aye. "}, "finish_reason": "stop"}]}).encode()


async def write(writer, *pieces, pause=0.0):
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.close()


async def good(writer, streamed, pause=0.0, wait=0.0):
    await asyncio.sleep(wait)
    if streamed:
        await write(writer, reply(b"", kind="text/event-stream"), CHUNK, CHUNK, CHUNK, END, pause=pause)
    else:
        middle = len(WHOLE) // 2
        await write(
            writer, reply(b"", headers=[f"Content-Length: {len(WHOLE)}"]), WHOLE[:middle], WHOLE[middle:], pause=pause
        )


async def reset(writer, streamed):
    writer.transport.abort()


async def stalled(writer, streamed):
    await asyncio.sleep(60)


async def cut(writer, streamed):
    kind = "text/event-stream" if streamed else "application/json"
    await write(writer, reply(b"", kind=kind, headers=["Content-Length: 999"]), CHUNK if streamed else WHOLE[:20])


async def garbage(writer, streamed):
    await write(writer, b"\x00\xfe\xff <not> http at all\r\n\r\n")


def refusal(status, *headers):
    async def answer(writer, streamed):
        await write(writer, reply(b'{"error": {"message": "not now"}}', status=status, headers=headers))

    return answer


async def empty(writer, streamed):
    await write(
        writer, reply(b"", kind="text/event-stream" if streamed else "application/json", headers=["Content-Length: 0"])
    )


async def slow_to_begin(writer, streamed):
    await good(writer, streamed, wait=0.4)


async def slow_to_go_on(writer, streamed):
    await good(writer, streamed, pause=0.1)


FAULTS = {
    "reset": reset,
    "stalled": stalled,
    "cut": cut,
    "garbage": garbage,
    "429 with Retry-After": refusal("429 Too Many", "Retry-After: 1"),
    "429": refusal("429 Too Many"),
    "500": refusal("500 Oh"),
    "503": refusal("503 Busy"),
    "slow to the first byte": slow_to_begin,
    "slow between tokens": slow_to_go_on,
    "empty 200": empty,
}


class Faulty:
    """Does `fault` to one request in five, or to all in the first moments; counts the whole replies it gave."""

    def __init__(self, fault, streamed, share):
        self.fault, self.streamed, self.share = fault, streamed, share
        self.asked, self.given, self.start = 0, 0, time.monotonic()
        self.third = asyncio.Event()

    async def __call__(self, writer):
        self.asked += 1
        faulty = time.monotonic() - self.start < A_WHILE if self.share == 1 else self.asked % 5 == 0
        if faulty:
            await self.fault(writer, self.streamed)
        else:
            await good(writer, self.streamed)
            self.given += 1
            if self.given == ROWS // 3:
                self.third.set()


async def run(url, journal, streamed, patience=TIMEOUT):
    walk = Walk(ROWS, journal)
    journal.freeze()
    async with LLMClient(url, stream=streamed, timeout=patience, concurrency=CONCURRENCY) as client:
        tally = await generation.run(
            walk,
            client,
            journal,
            stop=asyncio.Event(),
            on_reply=lambda completion, speaker: None,
            on_settled=walk.settled.append,
        )
    return walk, tally


def heard(walk):
    return [completion for said in walk.completions.values() for completion in said]


def answers(path):
    """How many answers each key has; a body is recorded as it came, and a second record says if it is found to be none."""
    found = Counter()
    for line in path.read_text().splitlines()[1:]:
        record = json.loads(line)
        if record["attempt"] > 0:
            found[record["key"]] += record["final"]
        elif not record["final"]:
            found[record["key"]] -= 1
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_time_and_no_reply(name, tmp_path):
    async def one(streamed, share):
        journal = Journal(tmp_path / f"{streamed}-{share}.jsonl")
        faulty, start = Faulty(FAULTS[name], streamed, share), time.monotonic()
        timeout = 1.2 if name == "stalled" else TIMEOUT
        async with Wire(faulty) as server:
            walk, tally = await run(server.url, journal, streamed, timeout)
            # Nothing hangs past its deadline: the worst is that all of a worker's rows do.
            assert time.monotonic() - start < timeout * (ROWS / CONCURRENCY + 1)
            assert tally.answered == len(heard(walk)) == ROWS - tally.failed
            assert all(completion.text == "Aye. Aye. Aye. " for completion in heard(walk))
            if name != "stalled":
                assert tally.failed == 0
                assert faulty.given + (name.startswith("slow")) * (faulty.asked - faulty.given) == ROWS
            for _ in range(5):  # the same command again asks for what is open, and for nothing else
                _, second = await run(server.url, journal, streamed, timeout)
                if not second.failed:
                    break
            assert second.kept + second.answered == ROWS
        journal.close()
        assert len(found := answers(journal.path)) == ROWS and set(found.values()) == {1}

    async def all_four():
        await asyncio.gather(*(one(streamed, share) for streamed in (False, True) for share in (0.2, 1)))

    asyncio.run(all_four())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_is_started_late_or_again_in_mid_run_costs_no_reply(streamed, tmp_path):
    async def main():
        journal = Journal(tmp_path / "npc.jsonl")
        first = Faulty(slow_to_begin, streamed, 0.2)
        async with Wire(first) as server:
            port = server.port
            running = asyncio.create_task(run(server.url, journal, streamed))
            await first.third.wait()
        await asyncio.sleep(0.5)  # connections refused
        async with Wire(Faulty(slow_to_begin, streamed, 0.2), port=port):
            walk, tally = await running
        assert (tally.answered, tally.failed) == (ROWS, 0) and len(heard(walk)) == ROWS
        journal.close()
        assert set(answers(journal.path).values()) == {1}

    asyncio.run(main())


def test_with_one_request_in_five_failing_three_thousand_rows_are_complete(tmp_path):
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": "a guard"} for n in range(750)]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, people)), "utf-8")
    asked = 0

    def one_in_five(body):
        nonlocal asked
        asked += 1
        return None if asked % 5 else web.json_response({"error": "oh"}, status=(500, 429, 503)[asked % 3])

    with FakeServer(fault=one_in_five) as server:
        command = ["generate", "--server", server.url, "--personas", str(tmp_path / "people.jsonl"), *calm()]
        result = CliRunner().invoke(
            cli, [*command, "--per-persona", "4", "--out", str(tmp_path / "run"), "--json"], catch_exceptions=False
        )
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["asked"], summary["answered"], summary["failed"], summary["open"]) == (3000, 3000, 0, 0)
    assert asked == 3000 + asked // 5
    found = answers(tmp_path / "run" / "journal" / "npc.jsonl")
    assert len(found) == 3000 and set(found.values()) == {1}
