"""Sweeps and their report, by command: planned, stopped, killed, resumed, told; the page in a real browser."""

import html
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report, sweep
from experiments.report_chosen import picked
from experiments.report_page import Code, Figure, Heading, Table, Text, to_html, to_markdown
from experiments.sweep_plan import make_plan, read_plan
from experiments.training.metrics import read_metrics
from vit_jax import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AWKWARD = ["a<b>&c", "d$e$|f"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes whose names need care."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for kind, name in enumerate(AWKWARD):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (30, 40, 3)).astype(np.uint8)
                pixels[:, :20] += np.uint8(120 * (kind if i % 5 else 1 - kind))
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def flags(pictures, *more):
    small = ["--batch-size", "8", "--epochs", "2", "--recipe", "scratch", "--warmup-epochs", "0"]
    models = ["--models", "Pico_6", "Pico_8", "--seeds", "1"]
    return ["--data", str(pictures), *models, *more, "--", *small]


@pytest.fixture(scope="module")
def swept(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    assert sweep.main(flags(pictures, "--set", "learning_rate=1e-3", "--out", str(out))) == 0
    return out


def test_every_run_is_an_ordinary_one(swept, pictures, capsys):
    names = ["Pico_6_learning_rate-1e-3", "Pico_8_learning_rate-1e-3"]
    plan = json.loads((swept / "sweep.json").read_text())
    assert [run["name"] for run in plan["runs"]] == names
    for name in names:
        assert (swept / name / "best" / "model.safetensors").is_file()
        assert "done in" in (swept / f"{name}.log").read_text()
        config = json.loads((swept / name / "config.json").read_text())
        assert (config["recipe"]["learning_rate"], config["recipe"]["seed"]) == (1e-3, 1)
    before = {path: path.read_bytes() for path in swept.rglob("*") if path.is_file() and path.name != "ended.json"}
    assert sweep.main(["--resume", str(swept)]) == 0
    told = capsys.readouterr().out
    assert "2 of 2 runs done" in told
    assert re.search(r"Pico_6_learning_rate-1e-3  done +\d\.\d{4} +-", told)
    assert before == {p: p.read_bytes() for p in swept.rglob("*") if p.is_file() and p.name != "ended.json"}


@pytest.fixture(scope="module")
def page(swept, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "report"
    assert report.main([str(swept), "--out", str(out), "--title", "Pets & <others>"]) == 0
    return out


def test_the_report_has_all_its_parts(page, swept):
    text, marked = (page / "report.html").read_text(), (page / "report.md").read_text()
    for part in (
        "Results",
        "The chosen model",
        "Position embeddings",
        "Where it looks",
        "Confusions",
        "To do it again",
    ):
        assert f"<h2>{part}</h2>" in text
        assert f"## {part}" in marked
    runs = [read_metrics(folder / "metrics.jsonl") for folder in swept.iterdir() if folder.is_dir()]
    for records in runs:
        assert f"{max(r['val_accuracy'] for r in records if 'val_accuracy' in r):.4f}" in text
    assert html.escape(AWKWARD[0]) in text
    assert AWKWARD[0] not in text
    assert "python -m experiments.finetune --data" in text
    figures = {path.name for path in (page / "figures").iterdir()}
    assert {"curves.png", "positions.png", "confusion.png"} < figures
    assert len([name for name in figures if name.startswith("attention_")]) >= 3
    assert set(re.findall(r"\]\(figures/([^)]+)\)", marked)) == figures
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "<script" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [400, 1000])
def test_the_page_in_a_browser(page, width, tmp_path):
    """Every image is decoded, nothing is fetched, and nothing sticks out sideways."""
    script = """<script>addEventListener("load", () => { document.title = "found:" + JSON.stringify({
        widths: [...document.images].map(i => i.naturalWidth), complete: [...document.images].every(i => i.complete),
        fetched: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
        inner: innerWidth, scroll: document.documentElement.scrollWidth}) })</script>"""
    copy = tmp_path / "copy.html"
    copy.write_text((page / "report.html").read_text().replace("</body>", script + "</body>"))
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet,
               f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]  # fmt: skip
    done = subprocess.run(
        [*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(html.unescape(re.search(r"<title>found:(.*?)</title>", done.stdout, re.DOTALL).group(1)))
    assert len(found["widths"]) == len(list((page / "figures").iterdir()))
    assert min(found["widths"]) > 200
    assert found["complete"]
    assert found["fetched"] == []
    assert found["scroll"] <= found["inner"]
    shot = tmp_path / "shot.png"
    subprocess.run([*command, f"--screenshot={shot}", (page / "report.html").as_uri()], check=True, timeout=120,
                   capture_output=True)  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] >= width
    assert (pixels < 60).mean() > 0.005  # text and lines on a white page
    assert (pixels > 240).mean() > 0.5


def test_captions_are_shown(page, swept, tmp_path, capsys):
    folder = tmp_path / "captions"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "one.png")
    told = {"file": "x/one.jpg", "caption": "A <red> cat.", "log_probability": -1.5, "figure": "one.png"}
    (folder / "captions.json").write_text(json.dumps([told, told | {"figure": None}]))
    out = tmp_path / "report"
    assert report.main([str(swept), "--captions", str(folder), "--out", str(out)]) == 0
    text = (out / "report.html").read_text()
    assert "A &lt;red&gt; cat. (log-probability -1.50)" in text
    assert (out / "figures" / "caption_0.png").read_bytes() == (folder / "one.png").read_bytes()
    (folder / "captions.json").write_text("{}")
    assert report.main([str(swept), "--captions", str(folder), "--out", str(tmp_path / "no")]) == 2
    assert "not the captions of experiments.caption" in capsys.readouterr().err


def ended(child):
    told = child.communicate(timeout=240)[0]
    return child.returncode, told


@pytest.mark.slow
def test_a_sweep_that_is_stopped_and_killed_goes_on(pictures, tmp_path):
    """Ctrl-C: the runs save. SIGKILL: they end with it. In the end all is as if nothing had happened."""

    def launched(*arguments):
        command = [sys.executable, "-m", "experiments.sweep", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    given = [*flags(pictures), "--epochs", "12"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    split = given.index("--")
    assert ended(launched(*given[:split], "--out", str(whole), *given[split:]))[0] == 0

    child = launched(*given[:split], "--out", str(broken), *given[split:])
    wait_for(broken / "Pico_6" / "metrics.jsonl", 2)
    child.send_signal(signal.SIGINT)
    code, told = ended(child)
    assert code == 130
    assert f"python -m experiments.sweep --resume {broken}" in told
    assert "saved at step" in (broken / "Pico_6.log").read_text()

    child = launched("--resume", str(broken))
    wait_for(broken / "Pico_8" / "metrics.jsonl", 3)
    child.kill()
    child.communicate()
    code, told = ended(launched("--resume", str(broken)))
    assert code == 0, told
    assert "2 of 2 runs done" in told
    for name in ("Pico_6", "Pico_8"):
        weights = Path(name) / "best" / "model.safetensors"
        assert (whole / weights).read_bytes() == (broken / weights).read_bytes()


def wait_for(metrics, epochs):
    began = time.monotonic()
    while sum("val_accuracy" in r for r in read_metrics(metrics)) < epochs:
        assert time.monotonic() - began < 200
        time.sleep(0.05)


def test_a_run_that_fails_is_told_and_the_others_go_on(pictures, tmp_path, capsys):
    out = tmp_path / "sweep"
    given = ["--data", str(pictures), "--models", "Pico_8", "--set", "image_size=25,24", "--out", str(out)]
    given += ["--gpus", "2"]  # both at once, on a CPU too
    assert sweep.main([*given, "--", "--batch-size", "8", "--epochs", "1", "--recipe", "scratch"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"Pico_8_image_size-25 +failed +- +- +0:00  error: .*25x25 is not divisible", told)
    assert re.search(r"Pico_8_image_size-24 +done", told)
    assert "1 of 2 runs done" in told
    assert report.main([str(out), "--out", str(tmp_path / "report")]) == 0
    assert "no whole epoch yet: Pico_8_image_size-25" in (tmp_path / "report" / "report.html").read_text()


def test_the_study_is_the_default(tmp_path, monkeypatch):
    plan = make_plan(data=None, models=None, seeds=[0], settings=[], flags=[])
    assert [run.model for run in plan.runs] == [
        "B_16_imagenet1k", "L_32_imagenet1k", "B_32_imagenet1k", "B_16", "L_32", "B_32",
    ]  # fmt: skip
    assert plan.runs[0].flags == ("--data", "oxford_iiit_pet", "--model", "B_16_imagenet1k", "--weights",
                                  "B_16_imagenet1k", "--seed", "0")  # fmt: skip
    quick = make_plan(data=None, models=None, seeds=[0], settings=[], flags=[], quick=True)
    assert len(quick.runs) == 6
    assert "--weights" not in quick.runs[0].flags
    (tmp_path / "B_32.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    own = make_plan(data="x", models=["B_32"], seeds=[0, 1], settings=["a=1,2"], flags=["--c"], weights_dir=".")
    assert [run.name for run in own.runs] == [f"B_32_a-{a}_seed-{s}" for s in (0, 1) for a in (1, 2)]
    assert own.runs[-1].flags[4:] == ("--weights", str(tmp_path / "B_32.pth"), "--seed", "1", "--a=2", "--c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "Huge"], "unknown model 'Huge'"),
        (["--set", "lr"], "--set lr: not a setting"),
        (["--models", "Pico_8", "Pico_8"], "two runs would be called Pico_8"),
        (["--weights-dir", "."], "no weights of B_16_imagenet1k"),
        (["--out", "{tmp}"], "exists already and is no sweep"),
        (["--resume", "{tmp}"], "no sweep (no sweep.json)"),
        (["--models", "Pico_4", "--out", "{swept}"], "holds another sweep"),
    ],
)
def test_wrong_sweeps_are_one_line(arguments, message, swept, tmp_path, capsys):
    (tmp_path / "something").write_text("")
    given = [a.replace("{tmp}", str(tmp_path)).replace("{swept}", str(swept)) for a in arguments]
    more = [] if {"--out", "--resume"} & set(given) else ["--out", str(tmp_path / "new")]
    assert sweep.main([*given, *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "new").exists()


def test_wrong_reports_are_one_line(swept, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    for arguments, message in [
        ([str(tmp_path / "run"), "--out", str(tmp_path / "o")], "no run to resume"),
        ([str(swept), "--out", str(swept)], "exists already and is no report"),
        ([str(swept), "--captions", str(tmp_path), "--out", str(tmp_path / "o")], "not written by experiments.caption"),
    ]:
        assert report.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_which_pictures_are_shown():
    logits = np.array([[9.0, 0], [8, 0], [0, 3], [0, 5], [4, 0], [0, 1]])
    labels = np.array([0, 0, 1, 0, 1, 1])
    assert picked(logits, labels, 2) == [
        0,
        2,
        3,
        4,
    ]  # one of each class, though picture 1 is surer; then the wrong ones
    assert picked(logits, labels, 3)[:3] == [0, 2, 1]


def test_blocks_are_escaped():
    blocks = [Heading("a < b"), Text("x & y_z | $1$"), Table(["h|1"], [["<td>"]], [0]), Code("echo ```"),
              Figure("f", "q\"<>", b"png")]  # fmt: skip
    page = to_html("<t>", blocks)
    assert "<title>&lt;t&gt;</title>" in page
    assert '<td class="n">&lt;td&gt;</td>' in page
    assert 'alt="q&quot;&lt;&gt;"' in page
    marked = to_markdown("<t>", blocks, "figures")
    assert marked.startswith("# \\<t\\>\n\n## a \\< b\n\nx \\& y\\_z \\| \\$1\\$\n\n| h\\|1 |\n| --: |\n| \\<td\\> |")
    assert "````sh\necho ```\n````" in marked


def test_plans_are_read_back(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": "vit_jax_sweep/1"}')
    with pytest.raises(InputError, match="not a sweep's plan"):
        read_plan(tmp_path)
