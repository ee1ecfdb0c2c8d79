"""What the journal acknowledged is there, whatever happened to the process or the file."""

import errno
import json
import os
import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, RunStopped
from pipeline.records import Attempt, Timing, digest
from pipeline.run.journal import Journal

TIMING = Timing(sent=1.5, e2e=0.25, ttft=0.125, last=None)


def attempt(body: str | None = "{}", *, number: int = 1, final: bool = True, error: str | None = None) -> Attempt:
    return Attempt(number=number, timing=TIMING, status=200, body=body, error=error, final=final)


def opened(path) -> Journal:
    journal = Journal(path)
    journal.freeze()
    return journal


@given(bodies=st.lists(st.text(), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_what_went_in_comes_out(tmp_path_factory, bodies):
    path = tmp_path_factory.mktemp("journal") / "npc.jsonl"
    journal = Journal(path)
    for number, body in enumerate(bodies):
        journal.append(digest(number), "Mira / greeting / 0", attempt(body))
    journal.close()
    journal = opened(path)
    for number, body in enumerate(bodies):
        found = journal.find(digest(number))
        assert found is not None and found.attempts == 1
        assert found.attempt == attempt(body.encode("utf-8", "replace").decode())
    journal.close()


def test_cut_at_any_byte_it_keeps_every_whole_record_and_takes_new_ones(tmp_path):
    path = tmp_path / "npc.jsonl"
    journal = Journal(path)
    ends = [path.stat().st_size]
    for number in range(4):
        journal.append(digest(number), "Börin / grief / 0", attempt(f'{{"text": "Aye, {number} — ⚓"}}'))
        ends.append(path.stat().st_size)
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = opened(path)
        kept = max(sum(end <= cut for end in ends) - 1, 0)
        assert [journal.answered(digest(n)) for n in range(4)] == [n < kept for n in range(4)], cut
        if cut not in ends:
            assert cut == 0 or journal.found_torn > 0
        journal.append(digest("new"), "Mira / trade / 0", attempt("after the cut"))
        journal.close()
        journal = opened(path)
        assert journal.found_torn == journal.found_damaged == 0
        found = journal.find(digest("new"))
        assert found is not None and found.attempt.body == "after the cut"
        journal.close()


def test_a_flipped_bit_costs_its_record_alone(tmp_path):
    path = tmp_path / "npc.jsonl"
    journal = Journal(path)
    for number in range(3):
        journal.append(digest(number), "x", attempt(f"body {number}"))
    journal.close()
    data = bytearray(path.read_bytes())
    data[data.index(b"body 1")] ^= 1
    path.write_bytes(data)
    journal = opened(path)
    assert journal.found_damaged == 1
    assert [journal.answered(digest(n)) for n in range(3)] == [True, False, True]
    journal.close()


def test_the_last_record_of_a_key_holds_and_all_attempts_are_counted(tmp_path):
    path = tmp_path / "npc.jsonl"
    journal = Journal(path)
    journal.append("ab" * 16, "x", attempt(None, final=False, error="503"))
    journal.append("cd" * 16, "x", attempt("other"))
    journal.append("ab" * 16, "x", attempt("answer", number=2))
    journal.append("cd" * 16, "x", attempt("", final=False, error="not JSON"))
    journal.freeze()
    assert journal.answered("ab" * 16) and not journal.answered("cd" * 16)
    found = journal.find("ab" * 16)
    assert found is not None and (found.attempt.body, found.attempts) == ("answer", 2)
    assert journal.find("ef" * 16) is None
    journal.close()


def test_it_can_be_grepped(tmp_path):
    path = tmp_path / "npc.jsonl"
    journal = Journal(path)
    journal.append(digest(1), "pennywhin-odwin / grief-brother / 0", attempt("Aye."))
    journal.close()
    header, record = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    assert header == {"journal": "npc-pipeline", "version": 2}
    assert record["payload"]["about"] == "pennywhin-odwin / grief-brother / 0"
    assert record["payload"]["timing"] == {"sent": 1.5, "e2e": 0.25, "ttft": 0.125}


def test_a_journal_of_the_first_version_is_read_and_added_to(tmp_path):
    path = tmp_path / "npc.jsonl"
    payload = '{"about":"x","status":200,"timing":[1.5,0.25,0.125,0.2],"body":"Aye."}'
    head = f'"key":"{digest(1)}","attempt":2,"final":true'
    crc = zlib.crc32(payload.encode(), zlib.crc32(head.encode()))
    path.write_text(
        '{"journal":"npc-pipeline","version":1}\n' + f'{{"seq":0,{head},"crc":{crc},"payload":{payload}}}\n', "utf-8"
    )
    for _ in range(2):
        journal = opened(path)
        assert journal.found_damaged == 0 and journal.answered(digest(1))
        assert journal.find(digest(1)).attempt.timing == Timing(sent=1.5, e2e=0.25, ttft=0.125, last=0.2)
        journal.append(digest(2), "y", attempt("Nay."))
        journal.close()
        assert path.read_bytes().startswith(b'{"journal":"npc-pipeline","version":2}\n')


def test_what_is_added_to_an_attempt_is_the_last_word_and_no_further_attempt(tmp_path):
    journal = opened(tmp_path / "npc.jsonl")
    journal.append(digest(1), "x", attempt("Aye."))
    journal.append(digest(1), "x", replace(attempt("Aye."), number=0, tokens=2))
    journal.append(digest(2), "x", attempt("<html>"))
    journal.append(digest(2), "x", replace(attempt(""), number=0, error="no reply", final=False))
    for _ in range(2):  # as long as it is fresh, and when it was indexed
        assert journal.find(digest(1)).attempts == journal.find(digest(2)).attempts == 1
        journal.freeze()
        assert journal.answered(digest(1)) and not journal.answered(digest(2))
    assert journal.find(digest(1)).attempt.tokens == 2
    journal.close()


def test_a_journal_of_another_version_is_refused(tmp_path):
    path = tmp_path / "npc.jsonl"
    path.write_text('{"journal":"npc-pipeline","version":99}\n')
    with pytest.raises(ConfigError, match=r"npc\.jsonl:1: .*99.*--out"):
        Journal(path)


def test_a_full_disk_stops_the_run_and_keeps_what_was_acknowledged(tmp_path, monkeypatch):
    path = tmp_path / "npc.jsonl"
    journal = Journal(path)
    journal.append(digest(1), "x", attempt("first"))
    real = os.write

    def nearly_full(descriptor, data):
        if len(data) > 30:
            return real(descriptor, data[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(RunStopped, match="No space left"):
        journal.append(digest(2), "x", attempt("second"))
    monkeypatch.undo()
    journal.freeze()
    assert journal.find(digest(1)) is not None and journal.find(digest(2)) is None
    journal.close()
    journal = opened(path)
    assert journal.found_torn == 0
    assert journal.answered(digest(1)) and not journal.answered(digest(2))
    journal.close()


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(RunStopped, match="cannot be opened"):
        Journal(tmp_path / "journal" / "npc.jsonl")
