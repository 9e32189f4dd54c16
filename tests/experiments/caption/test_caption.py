"""The caption program as a user runs it: captions, figures, resuming; CATR's own pictures; and what it refuses."""

import csv
import io
import json
import math
import os
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

import caption
from caption.attention import group_word_maps
from caption.captioner import Captioner, CaptionResult, ScoredCaption, SearchOptions
from caption.data.scenes import make_scene
from caption.preprocess import pad_batch
from caption.word_maps import MapOptions
from experiments.caption import __main__ as program
from experiments.caption import check as caption_check
from experiments.caption.jobs import plot_result
from experiments.common import captioners
from experiments.evaluate import __main__ as evaluate
from tests.create import create
from tests.experiments.caption.inputs import LENGTH, records_in
from tests.optional import torch
from tests.server import Server
from vit_jax import VisionTransformer, ViTConfig
from vit_jax import save as save_vit
from vit_jax.locks import lock_folder

run_with_attention = jax.jit(caption.forward_with_attention)
run_relevance = jax.jit(caption.word_relevance)


def caption_alone(model, tokenizer, file, **options):
    """Return the batch, captions and texts of one picture, unpadded and not batched: what the program should write."""
    batch = pad_batch([model.config.preprocess(Image.open(file).convert("RGB"))])
    generated = caption.generate(
        model, *batch, max_length=LENGTH, start=tokenizer.start, end=tokenizer.end, **{"n_best": 1} | options
    )
    texts = [tokenizer.decode(t[:n]) for t, n in zip(generated.tokens[0], generated.lengths[0], strict=True)]
    return batch, generated, list(zip(texts, generated.log_probs[0].tolist(), strict=True))


def test_a_folder(saved, model, tokenizer, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(pictures), "--out", str(out), "--weights", saved, "--batch-size", "2"]
    assert program.main([*command, "--beams", "3", "--n-best", "2", "--length-penalty", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "5/5" in printed
    assert "5 captions in captions.json" in printed
    stems = {"p0", "p1", "p2", "p3", "more/p4"}
    assert {str(p.relative_to(out)) for p in out.rglob("*.*")} == {f"{stem}.png" for stem in stems} | {
        "captions.json", "captions.csv", "settings.json",
    }  # fmt: skip
    records = records_in(out)
    assert {record["file"] for record in records} == {str(pictures / f"{stem}.png") for stem in stems}
    for record in records:
        _, _, expected = caption_alone(model, tokenizer, record["file"], num_beams=3, n_best=2, length_penalty=0.5)
        assert record["caption"] == expected[0][0]
        assert math.isclose(record["log_probability"], expected[0][1], rel_tol=1e-4)
        assert [scored["caption"] for scored in record["n_best"]] == [text for text, _ in expected]
        with Image.open(out / record["figure"]) as opened:
            assert opened.width >= 400
    with open(out / "captions.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["file", "caption"], *([r["file"], r["caption"]] for r in records)]
    references = {
        "images": [{"id": n, "file_name": f"p{n}.png"} for n in range(5)],
        "annotations": [{"image_id": n, "caption": make_scene(0, n).caption} for n in range(5)],
    }
    (tmp_path / "references.json").write_text(json.dumps(references))
    scored = ["--captions", str(out / "captions.json"), "--references", str(tmp_path / "references.json"), "--no-java"]
    assert evaluate.main(scored) == 0


def test_bfloat16(saved, model, tokenizer, pictures, tmp_path, capsys):
    file = str(pictures / "p0.png")
    command = [file, "--out", str(tmp_path / "out"), "--weights", saved, "--no-figures"]
    assert program.main([*command, "--dtype", "bfloat16"]) == 0
    [record] = records_in(tmp_path / "out")
    _, _, [(text, log_probability)] = caption_alone(model, tokenizer, file)
    assert record["caption"] == text
    # Each word's logits are rounded to 8 bits; their log-probabilities are summed in float32.
    assert 0 < abs(record["log_probability"] - log_probability) < 0.1
    capsys.readouterr()
    assert program.main(command) == 2  # another type gives other numbers: it does not continue this folder
    assert "weights" in capsys.readouterr().err


@pytest.mark.parametrize("maps", [MapOptions(), MapOptions(layer=0, head=1), MapOptions(method="relevance")], ids=str)
def test_maps_equal_those_of_the_picture_alone(model, tokenizer, pictures, maps):
    """Padding of the pictures, of the batch and of the text changes no map."""
    files = [pictures / "p1.png", pictures / "p2.png"]
    captioner = Captioner(model, tokenizer, SearchOptions(LENGTH), maps)
    results = captioner([captioner.prepare(Image.open(file)) for file in files], 3)
    assert len(results) == 2
    for file, result in zip(files, results, strict=True):
        batch, generated, [(text, value)] = caption_alone(model, tokenizer, file)
        assert result.captions[0].caption == text
        assert math.isclose(result.captions[0].log_probability, value, rel_tol=1e-4)
        tokens = generated.tokens[0, :, : int(generated.lengths[0, 0])]
        output = run_with_attention(model, *batch, tokens, np.ones(tokens.shape, bool))
        if maps.method == "relevance":
            rows = run_relevance(model, *batch, tokens)
            expected = group_word_maps(np.asarray(rows), tokens[0].tolist(), tokenizer, output.grid)
        else:
            expected = caption.word_attention(output, tokens[0], tokenizer, layer=maps.layer, head=maps.head)
        assert [word for word, _ in result.words] == [word for word, _ in expected]
        assert result.words
        for (_, batched), (_, expected_map) in zip(result.words, expected, strict=True):
            np.testing.assert_allclose(batched, expected_map, atol=2e-5 * float(np.abs(expected_map).max() + 1))


def test_it_resumes_where_it_stopped(saved, pictures, tmp_path, capsys, monkeypatch):
    """Interrupted in the second batch, it keeps the first; called again, it does only the rest."""
    out = tmp_path / "out"
    command = [str(pictures), "--out", str(out), "--weights", saved, "--batch-size", "2"]
    calls = []
    original = Captioner.__call__

    def interrupt(self, images, batch_size):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, images, batch_size)

    monkeypatch.setattr(Captioner, "__call__", interrupt)
    assert program.main(command) == 130
    assert len(records_in(out)) == 2
    assert program.main(command) == 0
    assert calls == [2, 2, 2, 1]
    assert "2 of 5 are done already" in capsys.readouterr().err
    with lock_folder(out, "holds it"):
        assert program.main(command) == 2
    assert "another process captions into it; wait for it" in capsys.readouterr().err
    first = records_in(out)
    assert len(first) == 5
    # A missing figure is plotted again; if all are present, nothing is done.
    (out / "p1.png").unlink()
    assert program.main(command) == 0
    assert program.main(command) == 0
    assert calls == [2, 2, 2, 1, 1]
    assert (out / "p1.png").is_file()
    again = records_in(out)
    assert [(r["file"], r["caption"]) for r in again] == [(r["file"], r["caption"]) for r in first]
    # --no-figures fits the same settings; other settings are refused and change nothing.
    assert program.main([*command, "--no-figures"]) == 0
    capsys.readouterr()
    assert program.main([*command, "--no-repeat", "2"]) == 2
    assert "its captions have other settings (no_repeat_ngram 0, not 2)" in capsys.readouterr().err
    assert len(calls) == 5
    settings = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps(settings | {"background": "#000000"}))
    assert program.main(command) == 2
    assert "its captions have other settings (background #000000, not #ffffff)" in capsys.readouterr().err
    del settings["background"]  # of an older version
    (out / "settings.json").write_text(json.dumps(settings))
    assert program.main(command) == 0
    (out / "settings.json").unlink()
    assert program.main(command) == 2
    assert "it has no settings.json" in capsys.readouterr().err


def test_figures_never_replace_one_another(saved, pictures, tmp_path, capsys):
    """Files with one stem get separate figures; a picture of the same name in another folder is refused."""
    with Image.open(pictures / "p0.png") as opened:
        opened.save(tmp_path / "p0.bmp")
    out = tmp_path / "out"
    command = ["--out", str(out), "--weights", saved]
    assert program.main([str(pictures / "p0.png"), str(tmp_path / "p0.bmp"), *command]) == 0
    assert {p.name for p in out.glob("*.png")} == {"p0.png.png", "p0.bmp.png"}
    other = tmp_path / "other"
    other.mkdir()
    for name in ("p1", "p2"):
        (other / f"{name}.png").write_bytes((pictures / "p1.png").read_bytes())
    assert program.main([str(pictures / "p1.png"), *command]) == 0
    capsys.readouterr()
    assert program.main([str(other), *command]) == 2
    assert "p1.png would replace it" in capsys.readouterr().err
    assert len(records_in(out)) == 3
    assert program.main([str(other), "--out", str(other / "captions"), "--weights", saved]) == 2
    assert "among the images" in capsys.readouterr().err
    assert program.main([str(other / "p1.png"), "--out", str(other), "--weights", saved]) == 2
    assert "an image of the same name as a result" in capsys.readouterr().err


def test_corrupt_pictures_are_refused_or_skipped(saved, pictures, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"no picture")
    Image.new("RGB", (1000, 2)).save(folder / "thin.png")
    (folder / "zebra.png").write_bytes((pictures / "p0.png").read_bytes())
    command = [str(folder), "--out", str(tmp_path / "out"), "--weights", saved, "--no-figures"]
    assert program.main(command) == 2
    error = capsys.readouterr().err
    assert "bad.jpg: not a readable image" in error
    assert len(error.strip().splitlines()) == 1
    assert program.main([*command, "--skip-corrupt"]) == 0
    error = capsys.readouterr().err
    assert "skipped: " in error
    assert "thin.png: an image of 1000x2 is too thin" in error
    assert [record["file"] for record in records_in(tmp_path / "out")] == [str(folder / "zebra.png")]
    (folder / "zebra.png").unlink()
    assert program.main([str(folder), "--out", str(tmp_path / "o"), "--weights", saved, "--skip-corrupt"]) == 2
    assert "none of the images can be read" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_caption_without_words_has_a_figure(pictures):
    shown = np.asarray(Image.open(pictures / "p0.png"))
    figure = plot_result(shown, CaptionResult([ScoredCaption("", -1.0)], []), MapOptions())
    assert figure.get_suptitle() == "(no words)"


def test_a_figure_names_its_layer_and_head(pictures):
    shown = np.asarray(Image.open(pictures / "p0.png"))
    result = CaptionResult([ScoredCaption("A cat.", -1.0)], [("a", np.eye(2)), ("cat", 2 * np.eye(2))])
    titles = [plot_result(shown, result, maps).get_suptitle() for maps in (MapOptions(), MapOptions(layer=0, head=2))]
    assert titles == ["A cat.", "A cat.\nAttention, layer 0, head 2"]
    shared = plot_result(shown, result, MapOptions(), scale="shared")
    assert [axes.get_xlabel() for axes in shared.axes if axes.get_xlabel()] == ["attention weight"]


def test_layers_and_heads_counted_from_the_end_have_one_spelling():
    assert MapOptions(layer=-2, head=-1).resolve(6, 8) == MapOptions(layer=4, head=7)
    assert MapOptions(layer=5).resolve(6, 8) == MapOptions(layer=-1).resolve(6, 8) == MapOptions()


def test_figures_of_other_options_are_drawn_anew(saved, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(pictures / "p0.png"), "--out", str(out), "--weights", saved]
    for flags, suffix in (([], "png"), (["--format", "svg"], "svg"), (["--format", "svg", "--scale", "shared"], "svg")):
        assert program.main([*command, *flags]) == 0
        assert "done already" not in capsys.readouterr().err
        [record] = records_in(out)
        assert record["figure"] == f"p0.{suffix}"
        assert (out / record["figure"]).is_file()
    assert program.main([*command, *flags]) == 0
    assert "1 of 1 are done already" in capsys.readouterr().err


def test_a_vit_sees_the_whole_picture(tokenizer, pictures, tmp_path):
    """Resized to the encoder's size, not padded, and from a run's folder."""
    vit = ViTConfig(image_size=(16, 24), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=16, num_classes=0)
    config = caption.CaptionConfig(
        encoder=vit, width=16, num_heads=2, mlp_dim=16, encoder_layers=0, decoder_layers=1, head_width=16,
        vocab_size=tokenizer.vocab_size, max_positions=LENGTH,
    )  # fmt: skip
    caption.save(create(caption.CaptionTransformer, config), tmp_path / "run" / "best", tokenizer=tokenizer)
    model, _ = captioners.open_captioner(str(tmp_path / "run"))
    captioner = Captioner(model, tokenizer, SearchOptions(4), MapOptions())
    [result] = captioner([captioner.prepare(Image.open(pictures / "p2.png"))], 1)
    assert all(heat.shape == (2, 3) for _, heat in result.words)


@pytest.fixture
def published(monkeypatch, tmp_path, tokenizer, model):
    """Serve stand-ins for CATR's release, BERT's vocabulary and the notebook's pictures on loopback."""
    from tests.weights_convert.test_catr import small_arrays
    from weights_convert import convert
    from weights_convert.hub import vocabulary
    from weights_convert.hub.releases import RELEASES

    arrays = small_arrays()
    torch.save({"model": {name: torch.from_numpy(array) for name, array in arrays.items()}}, tmp_path / "catr.pth")
    words = ["[PAD]", *(f"word{n}" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", *map(str, range(103, 130))]
    files = {"/catr.pth": (tmp_path / "catr.pth").read_bytes(), "/vocab.txt": ("\n".join(words) + "\n").encode()}
    for index, figure in enumerate(caption_check.FIGURES):
        stream = io.BytesIO()
        Image.fromarray(make_scene(0, index).image).save(stream, "PNG")
        files[f"/{figure.picture.name}.png"] = stream.getvalue()
    server = Server(files)
    monkeypatch.setitem(RELEASES, "catr_v1", replace(RELEASES["catr_v1"], url=f"{server.address}/catr.pth"))
    release = replace(vocabulary.VOCABULARY, url=f"{server.address}/vocab.txt", sha256=None)
    monkeypatch.setattr(vocabulary, "VOCABULARY", release)
    config = convert(arrays, num_heads=2).config
    monkeypatch.setitem(caption.CONFIGS, "catr", config)
    monkeypatch.setattr(captioners, "BERT_SIZE", config.vocab_size)
    figures = [
        replace(figure, picture=replace(picture, url=f"{server.address}/{picture.name}.png", sha256=None))
        for figure in caption_check.FIGURES
        for picture in (figure.picture,)
    ]
    monkeypatch.setattr(caption_check, "FIGURES", figures)
    yield server
    server.shutdown()
    server.server_close()


def test_the_released_captions_are_compared(published, tmp_path, monkeypatch, capsys):
    command = ["--check-released", "--cache", str(tmp_path / "cache"), "--max-length", "6"]
    assert program.main(command) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[-1] == "0 of 5 captions agree"
    actual = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in table[2:7]}
    figures = caption_check.FIGURES
    assert list(actual) == [figure.picture.name for figure in figures]
    downloads = len(published.ranges)
    assert downloads == 7
    agreeing = [replace(figure, expected=actual[figure.picture.name]) for figure in figures]
    changed = [replace(agreeing[0], expected=actual["cake"] + "!"), *agreeing[1:]]
    monkeypatch.setattr(caption_check, "FIGURES", changed)
    assert program.main(command) == 1
    assert "| cake | NO |" in capsys.readouterr().out
    monkeypatch.setattr(caption_check, "FIGURES", agreeing)
    assert program.main(command) == 0
    assert "5 of 5 captions agree" in capsys.readouterr().out
    assert len(published.ranges) == downloads
    (tmp_path / "cache" / "pictures" / "girl.png").unlink()
    del published.files["/girl.png"]
    assert program.main(command) == 2
    assert "girl.png: 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["IMAGE"], "no --out"),
        (["--out", "OUT"], "no image given"),
        (["nowhere.jpg", "--out", "OUT"], "nowhere.jpg: no such file"),
        (["IMAGE", "--out", "OUT", "--layer", "2"], "no layer 2: the decoder has 2"),
        (["IMAGE", "--out", "OUT", "--head", "-3"], "no head -3: the decoder has 2"),
        (["IMAGE", "--out", "OUT", "--method", "relevance", "--head", "0"], "are options of --method attention"),
        (["IMAGE", "--out", "OUT", "--method", "lime"], "'lime' is not one of attention"),
        (["IMAGE", "--out", "OUT", "--n-best", "2"], "--n-best 2: at most --beams, 1"),
        (["IMAGE", "--out", "OUT", "--max-length", "10"], "--max-length 10: between 2 and the model's 9"),
        (["IMAGE", "--out", "OUT", "--length-penalty", "-1"], "not a number of at least 0"),
        (["IMAGE", "--out", "OUT", "--weights", "catr_v9"], "no released checkpoint 'catr_v9'"),
        (["IMAGE", "--out", "OUT", "--weights", "B_16"], "B_16: an image model; captions need a captioner"),
        (["IMAGE", "--out", "OUT", "--weights", "VIT"], "vit: an image model; captions need a captioner"),
        (["IMAGE", "--out", "OUT", "--weights", "BARE"], "give --vocabulary"),
        (["IMAGE", "--out", "OUT", "--vocabulary", "WORDS"], "has 5 WordPieces, but the model"),
        (["IMAGE", "--check-released"], "--check-released has its own pictures"),
    ],
)
def test_what_it_refuses(saved, model, pictures, tmp_path, capsys, flags, message):
    vit = ViTConfig(image_size=(8, 8), patch_size=(8, 8), width=8, depth=1, num_heads=1, mlp_dim=8, num_classes=2)
    if "VIT" in flags:
        save_vit(create(VisionTransformer, vit), tmp_path / "vit")
    if "BARE" in flags:
        caption.save(model, tmp_path / "bare")
    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    places = {"IMAGE": pictures / "p0.png", "OUT": tmp_path / "out", "VIT": tmp_path / "vit"}
    places |= {"BARE": tmp_path / "bare", "WORDS": tmp_path / "words.txt"}
    argv = ["--weights", saved, *(str(places.get(flag, flag)) for flag in flags)]
    try:
        code = program.main(argv)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_whose_content_changed_is_captioned_again(saved, model, tokenizer, pictures, tmp_path, capsys):
    """A new time alone changes nothing."""
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, source in zip(files, ("p0", "p1"), strict=True):
        file.write_bytes((pictures / f"{source}.png").read_bytes())
    command = [*map(str, files), "--out", str(tmp_path / "out"), "--weights", saved, "--no-figures"]
    assert program.main(command) == 0
    before = {record["file"]: record for record in records_in(tmp_path / "out")}
    files[0].write_bytes((pictures / "p2.png").read_bytes())
    files[1].touch()
    os.utime(files[1], (1, 1))
    capsys.readouterr()
    assert program.main(command) == 0
    assert "1 of 2 are done already" in capsys.readouterr().err
    after = {record["file"]: record for record in records_in(tmp_path / "out")}
    _, _, [(text, log_probability)] = caption_alone(model, tokenizer, files[0])
    assert after[str(files[0])]["caption"] == text
    assert math.isclose(after[str(files[0])]["log_probability"], log_probability, rel_tol=1e-4)
    assert after[str(files[0])]["source"] != before[str(files[0])]["source"]
    assert after[str(files[1])] == before[str(files[1])]


def test_a_file_name_that_is_not_utf8(saved, pictures, tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    with open(name, "wb") as file:
        file.write((pictures / "p0.png").read_bytes())
    command = [str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--weights", saved]
    assert program.main(command) == 0
    assert [record["file"] for record in records_in(tmp_path / "out")] == [name]
    assert b"caf\xe9.png," in (tmp_path / "out" / "captions.csv").read_bytes()
    assert b"caf\xe9.png" in os.listdir(os.fsencode(tmp_path / "out"))


def test_a_quiet_call_prints_the_path(saved, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--weights", saved, str(pictures / "p0.png"), "--out", str(out), "--no-figures"]
    for _ in range(2):  # the second one has nothing to do
        assert program.main([*command, "--quiet"]) == 0
        printed = capsys.readouterr()
        assert printed.out == f"written to {out}/: 1 captions in captions.json and captions.csv\n"
        assert printed.err == ""
