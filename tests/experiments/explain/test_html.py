"""explain --html: the page of the images, alone or next to figures, and wrong calls of it."""

import json
import re

import pytest

from experiments.explain.__main__ import main
from tests.experiments.explain.inputs import NAMES


def test_a_page_of_two_images(saved, pictures, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    images = [str(pictures / "images" / name) for name in ("p0.png", "p1.png")]
    assert main([saved, *images, "--html", str(page), "--method", "relevance,pca", "--target", "cow,cat"]) == 0
    printed = capsys.readouterr().out
    size = f"{page.stat().st_size / 1e6:.2f} MB"
    assert re.fullmatch(rf"\S+page.html: 2 images, {size}; attention weights are exact to [\d.e-]+\n", printed)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL).group(1))
    assert data["title"] == "tiny"
    assert [picture["name"] for picture in data["pictures"]] == ["p0.png", "p1.png"]
    shown = [(each["method"], each["target"]) for each in data["pictures"][0]["maps"]]
    assert shown == [("Relevance", NAMES[2]), ("Relevance", NAMES[0]), ("PCA of the features", "")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no --out: give a folder to write to, or --html FILE"),
        (["--html-full", "--out", "o"], "--html-full needs --html"),
        (["--html", "p0.png"], "p0.png: this command reads it"),
        (["--html", "."], "is a folder; name an .html file"),
        (["--html", "page.html", "--evaluate", "--masks", "."], "--html needs images, and writes no scores"),
        (["--html", "page.html", "--target", "dog"], "no class 'dog'"),
    ],
    ids=str,
)
def test_wrong_calls_are_one_line(flags, message, saved, pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "p0.png").write_bytes((pictures / "images" / "p0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main([saved, "p0.png", *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.count("\n") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["p0.png"]
