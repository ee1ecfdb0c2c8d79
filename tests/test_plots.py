"""What the figures show is what the frames say, and any name can be drawn: no formula, no overlap, no warning."""

import itertools
import json
from io import BytesIO

import matplotlib.image
import matplotlib.style
import numpy as np
import pytest
from aiohttp import web
from click.testing import CliRunner
from fakes import FakeServer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import pipeline
from pipeline import ConfigError, load_run, plots
from pipeline.cli import cli

HOSTILE = ["$\\frac{$", "$x^2$", "\x1b[31m\u202ered", "\u91d1\U0001f600", "n" * 300, "<b>&amp;", "100 % \\n", "_", ""]
FLAWS = {0: "I'm just an AI language model.", 1: "The lamp is", 2: "```python\nprint()\n```"}


def leaky(body):
    line = int(body["messages"][-1]["content"].split()[1])
    hot = body["temperature"] == 1.5
    text = FLAWS.get(line) if not hot or line else None
    if text is None:
        return None
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice], "usage": {"completion_tokens": len(text)}})


def make(folder, command, *more):
    people = [{"id": f"npc-{n}", "name": f"Npc {n}", "description": "a guard"} for n in range(8)]
    acts = [{"id": f"s-{n}", "category": "greeting", "turns": [f"Line {n} , well?"]} for n in range(6)]
    for name, rows in (("personas", people), ("scenarios", acts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    run = folder / "$a^{$ \u91d1 run of a name that is far too long for any axis label"
    with FakeServer(fault=leaky) as server:
        inputs = ["--personas", folder / "personas.jsonl", "--scenarios", folder / "scenarios.jsonl"]
        options = [*inputs, "--per-persona", "all", "--server", server.url, "--out", run, "--quiet", *more]
        done = CliRunner().invoke(cli, [command, *map(str, options)])
    assert done.exit_code == 0, done.output
    return load_run(run)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("generated"), "generate")


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    more = ["--arm", "cool:", "--arm", "hot:temperature=1.5"]
    return list(make(tmp_path_factory.mktemp("arms"), "eval", *more).arms.values())


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Somebody else's scores, under names that nobody should choose."""
    folder = tmp_path_factory.mktemp("tables")
    draw = np.random.default_rng(1)
    for name in ("$a$", "$b"):
        rows = [{"id": n, "who": n % 9, **{score: draw.random() for score in HOSTILE}} for n in range(36)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return pipeline.compare(folder / "$a$.jsonl", folder / "$b.jsonl", item="id", cluster="who", score=HOSTILE)


def drawn(figure):
    """Its pixels, and every text in it with the box that it takes."""
    pixels = matplotlib.image.imread(BytesIO(figure._repr_png_()))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    beyond = set()  # what matplotlib keeps for ticks that are out of view
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [text for text in figure.findobj(Text) if text not in beyond and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]
    return pixels, [(text, box) for text, box in boxes if box.width > 1]


def figures(generated, arms, tables):
    yield "latency", plots.latency(generated)
    yield "latency of two", plots.latency(*arms, of="ttft")
    yield "lengths", plots.lengths(generated)
    yield "funnel", plots.funnel(generated)
    yield "scores", plots.scores(generated)
    yield "scores of two", plots.scores(*arms)
    yield "differences", plots.differences(pipeline.compare(*arms))
    yield "differences of tables", plots.differences(tables)


def test_every_figure_is_a_modest_picture_whose_texts_are_all_inside_and_apart(generated, arms, tables):
    for name, figure in figures(generated, arms, tables):
        pixels, texts = drawn(figure)
        high, wide, _ = pixels.shape
        assert wide == 720 and high < 900 and len(figure._repr_png_()) < 60_000, name
        assert (pixels[0, :, :3] == 1).all(), name  # white
        for (text, box), (other, beside) in itertools.combinations(texts, 2):
            assert not box.padded(-1).overlaps(beside.padded(-1)), f"{name}: {text!r} and {other!r}"
        for text, box in texts:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high, f"{name}: {text!r}"


def test_the_same_is_drawn_whatever_style_is_set(generated):
    light = plots.funnel(generated)._repr_png_()
    with matplotlib.style.context("dark_background"):
        assert plots.funnel(generated)._repr_png_() == light


def test_latency_marks_the_quantiles_that_are_told(generated, arms):
    (axes,) = plots.latency(generated).axes
    half, most = axes.lines[1].get_xdata()
    assert [half, most] == generated.latency().loc["e2e", ["p50", "p95"]].tolist()
    assert "not streaming" in axes.figure.get_suptitle()
    (axes,) = plots.latency(*arms).axes
    assert [text.get_text().split(":")[0] for text in axes.figure.legends[0].get_texts()] == ["cool", "hot"]


def test_what_was_not_measured_is_said(generated):
    with pytest.raises(ConfigError, match="has no ttft"):
        plots.latency(generated, of="ttft")


def test_the_funnel_has_a_bar_for_each_filter_that_took_something(generated):
    (axes,) = plots.funnel(generated).axes
    told = generated.funnel()
    taking = told[told["dropped"] > 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["answered", *taking.index, "kept"]
    left, dropped = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert left[1:-1] == taking["left"].tolist() and dropped[1:-1] == taking["dropped"].tolist()
    assert len(taking) >= 3 and "filters dropped nothing" in axes.figure.get_suptitle()


def test_scores_of_which_less_is_better_have_a_panel_of_their_own(arms):
    shares, slop = plots.scores(*arms).axes[:2]
    assert [label.get_text() for label in slop.get_yticklabels()] == ["slop"]
    names = [label.get_text() for label in shares.get_yticklabels()]
    assert names == [name for name in arms[0].scores().index if name not in ("slop", "overused")]
    assert shares.containers[0].lines[0].get_xdata().tolist() == arms[0].scores()["mean"][names].tolist()


def test_differences_are_those_of_compare_and_equal_scores_are_counted(arms):
    found = pipeline.compare(*arms)
    panel = plots.differences(found).axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    values = [bar.lines[0].get_xdata()[0] for bar in panel.containers]
    assert names and values == pytest.approx((100 * found.frame()["difference"])[names].tolist())
    title = " ".join(panel.figure.get_suptitle().split())
    assert title.startswith("A = cool, B = hot.") and "scores are equal in every item." in title


def test_two_runs_that_do_not_differ_make_a_figure_that_says_so(arms):
    figure = plots.differences(pipeline.compare(arms[0], arms[0]))
    assert "No difference was seen" in figure.get_suptitle() and drawn(figure)


def test_without_matplotlib_the_command_to_type_is_told(generated, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    for draw in (plots.latency, plots.lengths, plots.funnel, plots.scores):
        with pytest.raises(ConfigError, match=r'pip install -e "\.\[notebooks\]"'):
            draw(generated)
