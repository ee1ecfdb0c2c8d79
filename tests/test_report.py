"""`report.html`, opened in a real Chromium: what it shows, whom it can be read by, and what it never does."""

import itertools
import json
import re
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from aiohttp import web
from browser import Browser
from click.testing import CliRunner
from fakes import FakeServer
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import cli
from pipeline.curation.criteria import load_criteria
from pipeline.curation.scored import REPLIES, SCORES
from pipeline.evaluation.arms import arm_folders
from pipeline.report import write_report
from pipeline.report.transcripts import embedded
from pipeline.run.folder import RunFolder
from pipeline.run.tables import TableWriter

HOSTILE = [
    "<script>alert(1)</script> I mind the gate.",
    "</script><img src=x onerror=alert(2)> The gate is shut.",
    "<!-- <script> The lamp is out.",
    "</title></style>\u2028\u202e\"]}';alert(3)// Come by daylight.",
]
LEAK = "Well. AS AN AI LANGUAGE MODEL, I keep the gate."


def pipeline(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def server():
    """What a persona's number asks for: hostile texts, silence, a refusal; to three lines a chatbot's phrase, to one when it is
    asked at another temperature."""

    def fault(body):
        said = json.dumps(body["messages"])
        who, line = re.search(r"Npc (\d+)", said), int(re.findall(r"Line (\d)", said)[-1])
        npc = int(who[1]) if who else 5  # nobody knows, where it is asked for contrast
        if npc == 7 and line == 0:
            return web.json_response({"error": {"message": "prompt <b>too long</b>"}}, status=400)
        leaks = {1, 2, 3} if body["temperature"] == 0.7 else {2}
        text = LEAK if line in leaks else "" if npc == 6 and line == 1 else HOSTILE[npc % 4] if npc < 4 else None
        if text is None:
            text = f"Npc {npc} keeps gate {line} of the harbour shut until the tide turns."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    return FakeServer(fault=fault)


def run(folder, command, name, *options, code=0):
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": "a guard <b>here</b>"} for n in range(8)]
    acts = [{"id": f"s-{n}", "category": f"kind <i>{n % 2}", "turns": [f"Line {n}, </script> well?"]} for n in range(4)]
    for kind, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    inputs = [
        "--personas",
        folder / "personas.jsonl",
        "--scenarios",
        folder / "scenarios.jsonl",
        "--per-persona",
        "all",
    ]
    quiet = ["--set", "voice=off", "--set", "overused=off", "--quiet"]
    with server() as fake:
        said = pipeline(command, "--server", fake.url, *inputs, *quiet, "--out", folder / name, *options)
    assert said.exit_code == code, said.output
    return RunFolder(folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Reports by kind. Every run is made before the browser starts."""
    folder = tmp_path_factory.mktemp("reports")
    arms = ["--arm", "base:", "--arm", "tuned:temperature=0.5", "--gate", "in_character >= 0.8"]
    return {
        "eval": run(folder, "eval", "base"),
        "generate": run(folder, "generate", "generated", "--contrast", "--samples", 2, "--temperature", 0.5),
        "arms": run(folder, "eval", "both", *arms, code=3),
    }


@pytest.fixture(scope="module")
def browser(made):
    with Browser() as running:
        yield running


KINDS = ("eval", "generate", "arms")
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true); new Promise(r => setTimeout(r))"


def shown(page):
    return int(page("document.getElementById('found').textContent").split()[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [False, True])
def test_it_asks_for_nothing_and_the_console_is_silent(browser, made, kind, dark):
    page = browser.open(made[kind].report, dark=dark)
    page(OPEN_ALL)
    assert page.asked_for == [made[kind].report.resolve().as_uri()]
    assert page.complaints == []


def test_the_verdict_comes_first(browser, made):
    pages = {kind: browser.open(made[kind].report) for kind in KINDS}
    first = {kind: page("document.querySelector('h1').textContent") for kind, page in pages.items()}
    summary = made["generate"].results_of("generate")
    assert first["generate"] == f"{summary['kept']} of {summary['answered'] - summary['contrast']} replies were kept."
    assert re.fullmatch(r"\d+ of 32 replies pass every scorer\.", first["eval"])
    assert first["arms"] == "1 of 1 gate cannot be decided: tuned: in_character >= 0.8."
    assert pages["arms"]("document.querySelector('h1').className") == "unsure"
    assert "tuned (B) against base (A): B is better" in pages["arms"]("document.querySelector('header').textContent")


def test_without_gates_the_comparison_is_the_verdict(made, tmp_path):
    summary = made["arms"].results_of("eval") | {"gates": [], "verdict": None}
    path = write_report(tmp_path, summary, arm_folders(made["arms"]))
    assert '<h1 class="plain">tuned is better than base.</h1>' in path.read_text("utf-8")


@pytest.mark.parametrize(
    "verdicts, tone, said",
    [
        (("passed", "passed"), "good", "All gates passed.<"),
        (("passed", "inconclusive"), "unsure", "1 of 2 gates cannot be decided: gate 1.<"),
        (("failed", "inconclusive"), "bad", "1 of 2 gates failed: gate 0.<"),
    ],
)
def test_gates_come_before_all_else(made, tmp_path, verdicts, tone, said):
    gates = [
        dict.fromkeys(("value", "low", "high")) | {"gate": f"gate {n}", "arm": "", "verdict": word, "why": ""}
        for n, word in enumerate(verdicts)
    ]
    path = write_report(tmp_path, made["eval"].results_of("eval") | {"gates": gates}, {"": made["eval"]})
    assert f'<h1 class="{tone}">{said}' in path.read_text("utf-8")


def test_what_models_say_is_shown_and_never_obeyed(browser, made):
    page = browser.open(made["eval"].report)
    page(OPEN_ALL)
    seen = page("document.getElementById('list').innerText")
    assert all(text.split("\u2028")[0] in seen for text in HOSTILE)
    assert "Line 0, </script> well?" in seen
    assert page("document.querySelectorAll('#list script, #list img, #list b b').length") == 0
    assert page(
        "[...document.scripts].every(s => s.type === 'application/json' || s.textContent.includes('use strict'))"
    )


def test_the_policy_lets_nothing_else_run_or_load(browser, made):
    page = browser.open(made["eval"].report)
    script = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); window.ran"
    assert page(f"(() => {{ {script.replace('; window.ran', '; return window.ran')} }})()") is None
    assert page("fetch('http://127.0.0.1:9/').then(() => 'loaded', e => e.name)") == "TypeError"
    assert len([one for one in page.complaints if "Content Security Policy" in one]) >= 2


@given(st.dictionaries(st.text(), st.lists(st.text())))
def test_embedded_json_has_nothing_that_html_or_a_script_would_take(value):
    text = embedded(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "words, found",
    [
        ("", 32),
        ("tide TURNS", 9),  # Npc 4 to 7 in line 0, but for the refused one: and all words count
        ("npc-5", 4),
        ("speaks as an assistant", 24),  # a scorer's reason
        ("too long", 1),
        ("zeppelin", 0),
        ("\\ ( [ <script>", 0),
    ],
)
def test_search_looks_at_all_that_is_said(browser, made, words, found):
    page = browser.open(made["eval"].report)
    page("document.getElementById('search').focus()")
    page.type(words)
    if words == "tide TURNS":
        found = page("[...document.querySelectorAll('script[type=\"application/json\"]')].map(s => JSON.parse(s.textContent))"
                     ".flatMap(p => p.reply || []).filter(t => t && t.includes('tide turns')).length")  # fmt: skip
        assert found
    assert shown(page) == found
    assert page("document.querySelectorAll('#list > li').length") == found
    assert page("document.getElementById('found').getAttribute('role')") == "status"


def test_filters_by_persona_scenario_scorer_outcome_and_fate(browser, made):
    page = browser.open(made["eval"].report)
    for select, value, found in (
        ("persona", "npc-3", 4),
        ("scenario", "s-2", 8),
        ("scorer", "in_character", 24),
        ("outcome", "error", 1),
    ):
        page("document.getElementById('filters').reset()")
        page.choose(select, value)
        assert shown(page) == found, select
    page.choose("persona", "npc-7")
    assert shown(page) == 1  # both count
    page("document.getElementById('filters').reset()")
    page.choose("scorer", "-")
    assert f"{shown(page)} of 32 replies pass every scorer." == page("document.querySelector('h1').textContent")
    page.choose("scorer", "*")
    assert f"{32 - shown(page)} of 32 replies" in page("document.querySelector('h1').textContent")
    summary = made["generate"].results_of("generate")
    page = browser.open(made["generate"].report)
    for value, found in (
        ("kept", summary["kept"]),
        ("dropped", sum(summary["dropped"].values())),
        ("dropped by in_character", summary["dropped"]["in_character"]),
    ):
        page.choose("fate", value)
        assert shown(page) == found, value


def test_a_figure_leads_to_its_transcripts(browser, made):
    page = browser.open(made["generate"].report)
    page("document.querySelector('[data-fate=\"dropped by duplicate\"]').click()")
    assert shown(page) == made["generate"].results_of("generate")["dropped"]["duplicate"]
    page = browser.open(made["eval"].report)
    page("document.querySelector('[data-scorer=in_character]').click()")
    assert shown(page) == 24


def test_evidence_is_highlighted_where_it_stands(browser, made):
    page = browser.open(made["eval"].report)
    page.choose("scorer", "in_character")
    page("document.querySelector('#list details').open = true; new Promise(r => setTimeout(r))")
    marks = page("[...document.querySelectorAll('#list mark')].map(m => [m.textContent, m.title])")
    assert any(
        text.casefold().startswith("as an ai language model") and "in character" in title for text, title in marks
    )
    assert "in character 0 from 1" in page("document.querySelector('#list .flaws').innerText")


def test_two_arms_stand_side_by_side(browser, made):
    page = browser.open(made["arms"].report)
    page.choose("scorer", "in_character")
    assert shown(page) == 24  # base leaks in three lines
    page.choose("agree", "0")
    assert shown(page) == 16  # tuned does so in one of them
    page("document.querySelector('#list details').open = true; new Promise(r => setTimeout(r))")
    boxes = "[...document.querySelectorAll('#list .sides > article')].map(a => [a.getBoundingClientRect().x, a.getBoundingClientRect().y])"
    (x1, y1), (x2, y2) = page(boxes)
    assert x2 > x1 + 300 and y1 == y2
    assert page("[...document.querySelectorAll('#list h3')].map(h => h.textContent)") == ["base", "tuned"]
    narrow = browser.open(made["arms"].report, width=400)
    narrow("document.querySelector('#list details').open = true; new Promise(r => setTimeout(r))")
    (x1, y1), (x2, y2) = narrow(boxes)
    assert x1 == x2 and y2 > y1


def test_keys_are_enough(browser, made):
    page = browser.open(made["eval"].report)
    page.press("Tab")
    assert page("document.activeElement.textContent") == "Skip to the transcripts"
    page.press("Enter")
    for _ in range(3):
        page.press("Tab")
        if page("document.activeElement.id") == "search":
            break
    page.type("npc-5")
    page.press("ArrowDown", "ArrowDown", "Enter")
    assert page("document.activeElement === document.querySelectorAll('#list > li > details > summary')[1]")
    page("new Promise(r => setTimeout(r))")
    assert page("[...document.querySelectorAll('#list > li > details')].map(d => d.open)") == [
        False,
        True,
        False,
        False,
    ]
    assert page("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("ArrowUp", "ArrowUp")
    assert page("document.activeElement.id") == "search"


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_shows_it_without_scrolling_sideways(browser, made, kind):
    page = browser.open(made[kind].report, width=400)
    page(OPEN_ALL)
    assert page("document.documentElement.scrollWidth") <= 400


CONTRASTS = """(() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
  const light = rgb => { const [r, g, b] = rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const back = e => { const own = e ? parse(getComputedStyle(e).backgroundColor) : [255, 255, 255, 1];
    return own[3] === 1 ? own.slice(0, 3) : over(own, back(e.parentElement)); };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest('script, noscript, button:disabled')) continue;
    const style = getComputedStyle(e), behind = back(e);
    const front = over(parse(e.namespaceURI.endsWith('svg') ? style.fill : style.color), behind);
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), e.className, (a + .05) / (b + .05)]);
  }
  return found;
})()"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(browser, made, kind, dark):
    page = browser.open(made[kind].report, dark=dark)
    page(OPEN_ALL)
    dim = page("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => Number(c) < 60)")
    assert dim == dark
    assert page(CONTRASTS) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_screen_reader_finds_its_way(browser, made, kind):
    page = browser.open(made[kind].report)
    page(OPEN_ALL)
    nodes = [node for node in page.ask("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    roles = [node["role"]["value"] for node in nodes]
    assert {"banner", "main", "contentinfo", "navigation", "search", "status"} <= set(roles)
    asking = {
        "button",
        "combobox",
        "searchbox",
        "link",
        "table",
        "region",
        "image",
        "navigation",
        "rowheader",
        "columnheader",
    }
    unnamed = [
        node["role"]["value"] for node in nodes if node["role"]["value"] in asking and not node["name"]["value"].strip()
    ]
    assert unnamed == []
    levels = page("[...document.querySelectorAll('h1, h2, h3, h4, h5')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())")
    assert page("[...document.querySelectorAll('th')].every(t => t.scope)")
    assert page(
        "[...document.querySelectorAll('svg')].every(s => s.parentElement.closest('svg') || s.ariaHidden === 'true' || s.ariaLabel)"
    )
    assert page("document.documentElement.lang") == "en"
    ids = page("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_without_scripts_the_figures_are_there(browser, made):
    page = browser.open(made["arms"].report, scripts=False)
    tree = page.ask("DOM.getDocument", depth=-1)["root"]["nodeId"]

    def every(selector):
        return page.ask("DOM.querySelectorAll", nodeId=tree, selector=selector)["nodeIds"]

    assert len(every("#scores svg")) >= 4 and len(every("#latency figure svg polyline")) == 2
    assert every("#comparison svg .better") and every("noscript p")
    assert page.complaints == []


def test_the_figures_are_those_of_the_summary(browser, made):
    page = browser.open(made["eval"].report)
    summary = made["eval"].results_of("eval")
    cells = page("Object.fromEntries([...document.querySelectorAll('.scores tbody tr')].map(r => "
                 "[r.querySelector('a').dataset.scorer, r.querySelector('.mean .number').textContent]))")  # fmt: skip
    told = {name: f"{mean['value']:.3f}" for name, mean in summary["scores"].items() if mean["value"] is not None}
    assert cells == told
    summary = made["generate"].results_of("generate")
    page = browser.open(made["generate"].report)
    rows = page(
        "[...document.querySelectorAll('#funnel tbody tr')].map(r => [...r.cells].slice(2, 4).map(c => Number(c.textContent)))"
    )
    left = summary["answered"] - summary["contrast"]
    for (dropped, after), count in zip(rows, summary["dropped"].values(), strict=True):
        left -= count
        assert (dropped, after) == (count, left)
    assert left == summary["kept"]


def test_a_link_opens_its_reply(browser, made):
    page = browser.open(made["generate"].report)
    page.choose("fate", "dropped by duplicate")
    page("document.querySelector('#list details').open = true; new Promise(r => setTimeout(r))")
    page("document.querySelector('#list .fate a').click(); new Promise(r => setTimeout(r, 50))")
    assert page("document.activeElement.parentElement.open")
    there = page("location.hash")
    again = browser.open(made["generate"].report, hash=there)
    again("new Promise(r => setTimeout(r))")
    assert again(f"document.querySelector('#list details[open] a[href=\"{there}\"]') !== null")


# ---- large ones


def large(folder, count, text, *, rare=None):
    """A run of `count` replies as tables have it, every one of them too long for its box, and one with another flaw; as many
    were not asked for yet."""
    run, bounds = RunFolder(folder), load_criteria().filters
    run.write_manifest({"command": "eval", "asked": {}, "target": {}})
    nothing = dict.fromkeys(REPLIES.names)
    replies, scores = [], []
    for n in range(count):
        who = {
            "item_id": f"{(n + 1) * 2654435761 % 2**32:08x}{n + 1:024x}",
            "persona_id": f"npc-{n // 25}",
            "scenario_id": f"s-{n % 25}",
            "turn": 0,
        }
        said = {"category": "c", "sample": 0, "arm": "", "line": "Well?", "outcome": "reply", "e2e": 0.1}
        replies.append(nothing | who | said | {"reply": f"{n} {text}"})
        for name, passes in bounds.items():
            flawed = name == ("keeps_secret" if n == rare else "box_length")
            value = (0.0 if passes.most is None else 99.0) if flawed else 1.0 if passes.most is None else 0.0
            note = {"reason": "too long" if flawed else "", "evidence": text[:300] if flawed else ""}
            scores.append(who | {"scorer": name, "value": value} | note)
    for n in range(count):
        who = {
            "item_id": f"{n:032x}",
            "persona_id": "late",
            "scenario_id": f"s-{n}",
            "turn": 0,
            "category": "c",
            "line": "Well?",
        }
        replies.append(nothing | who | {"outcome": "missing", "error": "not asked yet", "sample": 0, "arm": ""})
    for path, rows, schema in ((run.replies, replies, REPLIES), (run.scores, scores, SCORES)):
        with TableWriter(path, schema) as table:
            for batch in pa.Table.from_pylist(rows, schema).to_batches():
                table.write(batch)
    summary = {
        **dict.fromkeys(("failed", "missing", "open"), 0),
        **{"asked": count, "answered": count, "errors": {}, "personas": count // 25, "items": count, "scores": {}},
        **{"bounds": {name: asdict(passes) for name, passes in bounds.items()}, "by_category": {}, "latency": {}},
        **{"load": {"concurrency": 1, "streaming": False, "client_bound": False}, "tokens": {"completion_per_second": None}},
    }  # fmt: skip
    return write_report(folder, summary, {"": run})


def test_five_thousand_transcripts_are_small_and_answer_and_the_rare_flaw_is_among_them(browser, tmp_path):
    path = large(tmp_path, 5_100, "salt and rope and tide " * 20, rare=4_444)
    assert path.stat().st_size < 25e6
    page = browser.open(path)
    said = page("document.getElementById('bounded').textContent")
    assert "5000 of 5100 replies are here" in said and "replies.parquet" in said
    assert page("document.querySelectorAll('#list > li').length") == 50  # rows are made when they are looked at
    page.choose("scorer", "keeps_secret")
    assert shown(page) == 1
    page("document.getElementById('all').click()")
    assert shown(page) == 5_000
    page("document.getElementById('search').focus()")
    page.type("npc-177 s-19")
    assert shown(page) == 1
    assert page("document.querySelector('#list .said').textContent").startswith("4444 salt")


def test_texts_that_would_be_too_much_for_a_page_are_cut(browser, tmp_path):
    path = large(tmp_path, 900, "<" * 5_000)
    assert path.stat().st_size < 25e6
    page = browser.open(path)
    assert f"{shown(page)} of 900 replies are here" in page("document.getElementById('bounded').textContent")
    page("document.querySelector('#list details').open = true; new Promise(r => setTimeout(r))")
    assert "more characters" in page("document.querySelector('#list .reply').textContent")


def test_a_run_without_a_single_reply_has_a_page_as_well(browser, tmp_path):
    page = browser.open(large(tmp_path, 0, ""))
    assert page("document.querySelector('h1').textContent") == "Nothing was answered."
    assert shown(page) == 0 and page.complaints == []


def test_an_old_page_stands_until_the_new_one_is_whole(made, tmp_path):
    (tmp_path / "report.html").write_text("old", "utf-8")
    with pytest.raises(KeyError):
        write_report(tmp_path, {"kept": 1}, {"": made["generate"]})
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text("utf-8") == "old"


def test_scoring_and_curating_again_write_it_again(made):
    for command, kind in (("eval", "eval"), ("curate", "generate"), ("eval", "arms")):
        path: Path = made[kind].report
        before = path.read_text("utf-8")
        path.unlink()
        said = pipeline(command, made[kind].path)
        assert f"report   {path}" in said.stdout
        assert len(path.read_text("utf-8")) == pytest.approx(len(before), rel=0.05)
