"""The report: its sections, how it escapes awkward names, what it refuses, and how a real browser shows the page."""

import base64
import html
import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.report import __main__ as report
from experiments.report.best_run import (
    ValidationPredictions,
    _build_attention,
    inspect_model,
    predict_validation,
    rank_confusions,
)
from experiments.report.comparison import Score, plot_comparison
from experiments.report.examples import Example, make_examples, select_examples
from experiments.report.page import Code, Figure, Heading, Table, Text, render_html, render_markdown
from experiments.report.runs import find_runs, make_names_unique
from experiments.report.sections import build_captions, build_results
from tests.create import create
from tests.experiments.browser import CHROMIUM, measure_page, screenshot
from tests.experiments.conftest import AWKWARD
from vit_jax import CONFIGS, InputError, VisionTransformer, load_card
from vit_jax.data.folder import open_folder
from vit_jax.data.loader import CachedImages
from vit_jax.probe import accuracy_interval
from vit_jax.processor import describe_hardware
from vit_jax.summary import count_parameters
from vit_jax.train.logging import read_metrics
from vit_jax.train.run_folder import SPLIT

SECTIONS = ["Results", "The best model", "Position embeddings", "Attention maps", "Confusion matrix", "Reproduction"]


@pytest.fixture(scope="module")
def page(swept, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "report"
    assert report.main([str(swept), "--out", str(out), "--title", "Pets & <others>"]) == 0
    return out


def find_best(swept, model):
    return swept / f"{model}_learning_rate-1e-3" / "best"


def test_the_report_has_all_its_sections(page, swept):
    text, markdown = (page / "report.html").read_text(), (page / "report.md").read_text()
    assert re.findall("<h2>(.*)</h2>", text) == SECTIONS
    assert re.findall("^## (.*)", markdown, re.MULTILINE) == SECTIONS
    assert "published" not in text
    for model in ("Pico_6", "Pico_8"):
        records = read_metrics(find_best(swept, model).parent / "metrics.jsonl")
        best = f"{max(r['val_accuracy'] for r in records if 'val_accuracy' in r):.4f}"
        count = round(float(best) * 12)
        low, high = accuracy_interval(count, 12)
        parameters = count_parameters(create(VisionTransformer, load_card(find_best(swept, model)).config))
        assert f'<tr><td>{model}</td><td class="n">{best}</td><td class="n">{low:.3f} to {high:.3f}</td>' in text
        name = model.replace("_", chr(92) + "_")
        assert f"| {name} | {best} | {low:.3f} to {high:.3f} | {parameters:,} |" in markdown
    assert text.count("python -m experiments.sweep --data") == 1
    assert text.count("python -m experiments.report ") == 1
    assert text.count("python -m experiments.finetune --data") == 2
    assert "--set learning_rate=1e-3" in text
    assert "<td>image_size</td><td>24 x 24</td>" in text
    assert "jax 0." in text
    figures = {path.name for path in (page / "figures").iterdir()}
    assert {"curves.png", "comparison.png", "positions.png", "confusion.png"} < figures
    assert len([name for name in figures if name.startswith("attention_right")]) == 3
    assert len([name for name in figures if name.startswith("attention_wrong")]) >= 1
    assert set(re.findall(r"\]\(figures/([^)]+)\)", markdown)) == figures


def test_a_report_states_dates_and_hardware(page, swept):
    stored = json.loads((find_best(swept, "Pico_6").parent / "config.json").read_text())
    assert abs(datetime.now(UTC) - datetime.fromisoformat(stored["started"])) < timedelta(hours=1)
    assert stored["hardware"] == describe_hardware()
    text = (page / "report.html").read_text()
    assert f"<td>{stored['started']}</td><td>{html.escape(stored['hardware'])}</td>" in text
    assert "This report was written at" in text


@pytest.mark.slow
def test_data_sets_are_kept_apart(swept, pictures, tmp_path, capsys, monkeypatch):
    """Each has its own sections, table and figures; results on different images are not ranked together."""
    other = tmp_path / "more" / pictures.name
    shutil.copytree(pictures, other)
    moved = tmp_path / "moved"
    shutil.copytree(swept / "Pico_8_learning_rate-1e-3", moved)
    stored = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(stored | {"data": str(other)}))
    monkeypatch.chdir(tmp_path)
    assert report.main([str(swept), str(moved), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.html").read_text()
    headings = re.findall("<h2>(.*)</h2>", text)
    first = f"{pictures.parent.name}/{pictures.name}"
    assert [h for h in headings if "Results" in h] == [f"{first}: Results", f"more/{pictures.name}: Results"]
    assert f"2 runs on {first}." in text
    assert f"1 run on more/{pictures.name}." in text
    assert f"<td>data</td><td>more/{pictures.name}</td>" in text  # relative to the current folder
    figures = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {"data1_comparison.png", "data1_curves.png", "data2_curves.png"} < figures
    assert "data2_comparison.png" not in figures


def test_the_comparison_shows_intervals_best_first():
    scores = [Score("a", 0.5, (0.4, 0.6)), Score("a_name_that_is_much_too_long_for_one_line_of_this_chart", 0.9, None)]
    figure = plot_comparison(scores, "validation accuracy")
    axes = figure.axes[0]
    assert [label.get_text()[:6] for label in axes.get_yticklabels()] == ["a_name", "a"]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.9, 0.9], [0.9], [0.4, 0.6], [0.5]]
    assert axes.get_ylim() == (1.5, -0.5)
    figure.canvas.draw()
    for text in (*axes.get_yticklabels(), *axes.texts):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_an_example_states_truth_prediction_and_probability():
    names = ("cat", "dog", "cow")
    assert Example((0,), (1,), 1, 0.614).describe(names) == "true cat, predicted dog (61 %)"
    assert Example((0, 2), (), 1, 0.3).describe(names) == "true cat, cow, predicted nothing (dog 30 %)"


def test_names_are_escaped_and_nothing_is_linked(page):
    text, markdown = (page / "report.html").read_text(), (page / "report.md").read_text()
    assert "<h1>Pets &amp; &lt;others&gt;</h1>" in text
    for name in AWKWARD:
        assert html.escape(name) in text
    assert AWKWARD[0] not in text
    assert r"a\<b\>\&c" in markdown
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    (frame,) = re.findall(
        r'<iframe title="Attention, to explore by hand: image 0 is [^"]*" sandbox="[^"]*" [^>]*>', text
    )
    assert 'srcdoc="&lt;!doctype html&gt;' in frame
    assert "allow-same-origin" not in frame
    inline = {base64.b64decode(data) for data in re.findall('src="data:image/png;base64,([^"]*)', text)}
    assert inline == {path.read_bytes() for path in (page / "figures").iterdir()}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_in_a_browser(page, width, tmp_path):
    """Every image decodes, nothing is fetched, and nothing overflows the width."""
    shown = measure_page(page / "report.html", width, tmp_path)
    assert shown["inner"] == width
    assert len(shown["widths"]) == len(list((page / "figures").iterdir()))
    assert min(shown["widths"]) > 200
    assert shown["complete"]
    assert shown["fetched"] == []
    assert shown["scroll"] <= width


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_as_it_looks(page, tmp_path):
    pixels = screenshot(page / "report.html", 900, 4000, tmp_path)
    assert pixels.shape[1] == 900
    grey = pixels.mean(axis=2)
    assert (grey < 60).mean() > 0.005  # text and lines on a white page
    assert (grey > 240).mean() > 0.5
    colourful = np.ptp(pixels.astype(int), axis=2) > 60
    assert colourful.mean() > 0.02  # the figures


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_in_dark_mode(page, tmp_path):
    pixels = screenshot(page / "report.html", 900, 4000, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (pixels[:20].mean(axis=2) < 60).all()  # the top margin
    assert (pixels.mean(axis=2) > 200).mean() > 0.005  # text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_browser_reports_what_is_wrong(tmp_path):
    """The tests above can fail: a broken image, a fetched file, wide content."""
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><html><head><link rel="stylesheet" href="x.css"></head><body>'
                    '<img src="data:image/png;base64,iVBOR"><img src="https://two.test/y.png">'
                    '<div style="width: 900px">wide</div></body></html>')  # fmt: skip
    shown = measure_page(page, 400, tmp_path)
    assert shown["widths"] == [0, 0]
    assert shown["scroll"] >= 900
    assert {address.rpartition("/")[2] for address in shown["fetched"]} >= {"y.png"}
    assert len(shown["fetched"]) == 2


@pytest.mark.slow
def test_captions_are_shown(swept, tmp_path, capsys):
    folder = tmp_path / "captions"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "one.png")
    record = {"file": "x/one.jpg", "caption": "A <red> cat.", "log_probability": -1.5, "figure": "one.png"}
    (folder / "captions.json").write_text(json.dumps([record, record | {"figure": None}]))
    out = tmp_path / "report"
    assert report.main([str(swept), "--captions", str(folder), "--out", str(out)]) == 0
    text = (out / "report.html").read_text()
    assert "A &lt;red&gt; cat. (log-probability -1.50)" in text
    assert '<img width="38" alt="x/one.jpg' in text  # at its printed size
    assert (out / "figures" / "caption_0.png").read_bytes() == (folder / "one.png").read_bytes()
    Image.new("RGB", (120, 80), "red").save(folder / "one.png", dpi=(300, 300))
    assert build_captions(folder)[1].width == 38
    (folder / "captions.json").write_text(json.dumps([record | {"figure": "one.pdf"}]))
    with pytest.raises(InputError, match=r"one\.pdf is no PNG; caption with --format png for a report"):
        build_captions(folder)
    (folder / "captions.json").write_text(json.dumps([record]))
    (folder / "one.png").write_bytes(b"no picture")
    for broken in (None, "{}"):
        if broken:
            (folder / "captions.json").write_text(broken)
        assert report.main([str(swept), "--captions", str(folder), "--out", str(tmp_path / "no")]) == 2
        assert "not the captions of experiments.caption" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_each_run_is_listed_once_under_a_unique_name(swept, tmp_path):
    one = swept / "Pico_6_learning_rate-1e-3"
    other = tmp_path / "other" / one.name
    shutil.copytree(one, other)
    reported = find_runs([str(one), str(swept), str(other), os.path.relpath(one)])
    assert [run.name for run in reported.runs] == [
        f"sweep/{one.name}",
        "Pico_8_learning_rate-1e-3",
        f"other/{one.name}",
    ]
    table = build_results(reported.runs, 12, {})[1]
    assert list(table.header[:2]) == ["run", "model"]
    assert {row[0] for row in table.rows} == {run.name for run in reported.runs}
    assert make_names_unique([Path("/a/b/c"), Path("/a/d/c"), Path("/e")]) == ["b/c", "d/c", "e"]


@pytest.mark.slow
def test_unreadable_images_shift_no_names(swept, pictures, tmp_path):
    """In a run that skipped them, the names next to the maps are those of the images shown."""
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "val" / AWKWARD[0] / "0.png").write_bytes(b"broken")
    run = tmp_path / "run"
    shutil.copytree(swept / "Pico_8_learning_rate-1e-3", run, ignore=shutil.ignore_patterns(SPLIT))  # of all images
    stored = json.loads((run / "config.json").read_text())
    changed = {"data": str(tmp_path / "data"), "skip_corrupt": True}
    (run / "config.json").write_text(json.dumps(stored | changed))
    sections = inspect_model(predict_validation(find_runs([str(run)]).runs[0]), 3)
    assert sections.num_images == 11
    readable = list(open_folder(str(tmp_path / "data"), val_fraction=0.2, seed=0).val.names)[1:]
    shown = [block for block in sections.blocks if isinstance(block, Figure) and block.name.startswith("attention")]
    assert shown
    for block in shown:
        assert readable[int(block.name.rpartition("_")[2])] in block.caption


def test_a_model_without_maps_is_reported(pictures):
    config = replace(CONFIGS["Pico_8"], pooling="map", num_classes=2)
    model = create(VisionTransformer, config)
    val = CachedImages(open_folder(str(pictures), val_fraction=0.2, seed=0).val, config.image_preprocess, budget=0)
    blocks = _build_attention(ValidationPredictions(model, val, np.eye(2)[val.split.labels], tuple(AWKWARD)), 1)
    assert blocks[-1] == Text(
        "No maps: the model uses attention pooling: no fixed row to read; use integrated_gradients or rise."
    )


def test_wrong_reports_are_one_line(swept, page, tmp_path, capsys):
    unfinished = tmp_path / "begun"
    unfinished.mkdir()
    shutil.copy(swept / "Pico_8_learning_rate-1e-3" / "config.json", unfinished)
    plan = tmp_path / "planned"
    plan.mkdir()
    shutil.copy(swept / "sweep.json", plan)
    mine = tmp_path / "mine"
    shutil.copytree(page, mine)
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for arguments, message in [
        ([str(tmp_path / "nowhere")], "nowhere: no such run; give the folder of"),
        ([str(tmp_path / "empty")], "no config.json"),
        ([str(unfinished)], "begun: no complete epoch yet"),
        ([str(plan)], "planned: none of its runs has finished an epoch yet"),
        ([str(swept), "--captions", str(tmp_path)], "not written by experiments.caption"),
        ([str(swept), "--out", str(swept)], "exists already and holds more than a report"),
        ([str(swept), "--out", str(mine)], "exists already and holds more than a report"),
        ([str(swept), "--out", str(mine / "notes.txt")], "exists already and holds more than a report"),
    ]:
        assert report.main(["--out", str(tmp_path / "o"), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.strip().count("\n") == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_new_report_replaces_the_whole_old_one(swept, page, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(page, out)
    (out / "figures" / "old.png").write_bytes(b"")
    assert report.main([str(swept / "Pico_8_learning_rate-1e-3"), "--out", str(out)]) == 0
    assert not (out / "figures" / "old.png").exists()
    assert "1 run on pictures" in (out / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_examples_are_one_per_class_then_the_most_confident_errors():
    logits = np.array([[9.0, 0], [8, 0], [0, 3], [0, 5], [4, 0], [0, 1]])
    labels = np.array([0, 0, 1, 0, 1, 1])
    examples = make_examples(CONFIGS["Pico_6"], logits, labels)
    shown = select_examples(examples, 2)
    assert shown == [0, 2, 3, 4]  # one of each class, though image 1 is more confident; then the errors
    assert select_examples(examples, 3)[:3] == [0, 2, 1]


def test_confusions_are_ranked_by_count():
    counts = np.array([[5, 0, 3], [1, 9, 0], [0, 4, 0]])
    assert rank_confusions(counts) == [(2, 1), (0, 2), (1, 0)]


def test_blocks_are_escaped():
    blocks = [Heading("a < b"), Text("x & y_z | $1$"), Table(["h|1"], [["<td>"]], [0]), Code("echo ```"),
              Figure("f", "q\"<>", b"png")]  # fmt: skip
    page = render_html("<t>", blocks)
    assert "<title>&lt;t&gt;</title>" in page
    assert '<td class="n">&lt;td&gt;</td>' in page
    assert 'alt="q&#34;&lt;&gt;"' in page
    markdown = render_markdown("<t>", blocks, "figures")
    assert markdown.startswith("# \\<t\\>\n\n## a \\< b\n\nx \\& y\\_z \\| \\$1\\$\n\n| h\\|1 |\n| --: |\n| \\<td\\> |")
    assert "````sh\necho ```\n````" in markdown
