"""Released checkpoints against published figures, over loopback: tiny models whose figures their originals compute."""

import io
import json
import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import caption
import tests.reference as reference
from tests.optional import torch
from tests.server import Server
from tests.weights_convert.hub.server import HubServer, serve_hub
from tests.weights_convert.test_catr import small_arrays
from vit_jax import CONFIGS, InputError
from weights_convert import convert, released
from weights_convert.__main__ import FAMILIES, main
from weights_convert.hub import vocabulary
from weights_convert.hub.releases import RELEASES, Release
from weights_convert.released_figures import CORNER, FIGURES, Figure
from weights_convert.sidecar.huggingface_processor import IMAGENET_MEAN, IMAGENET_STD

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers")
pytest.importorskip("huggingface_hub")

TOWER = dict(
    hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=80, image_size=32, patch_size=8
)
WORDS = ["[PAD]", *(f"word{n}" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", *map(str, range(103, 130))]
TEXTS = ("word1 word2", "word3")


def test_the_table_is_complete():
    assert {"vit", "deit", "dinov2", "dinov3", "clip", "siglip", "catr"} <= set(FAMILIES)
    models = [figure.model for figure in FIGURES]
    assert all(models[i] == models[i - 1] for i in range(1, len(models)) if models[i] in models[:i])  # fetched once
    for figure in FIGURES:
        assert figure.model in RELEASES or re.fullmatch(r"[\w.-]+/[\w.-]+", figure.model)
        assert figure.source.startswith("https://github.com/")
        assert figure.picture.sha256 or figure.picture.url.endswith("val2017/000000039769.jpg")
        is_caption = isinstance(figure.expected, str)
        assert figure.output in (["caption"] if is_caption else released.OUTPUTS)
        assert is_caption or figure.atol > 0
        assert bool(figure.texts) == (figure.output == "similarities")
        assert np.shape(figure.expected)[:1] == (len(figure.texts),) or not figure.texts


def test_a_name_is_a_family_or_a_checkpoint():
    assert [figure.model for figure in released.select_figures("siglip")] == ["google/siglip-base-patch16-224"]
    assert len(released.select_figures("catr_v1")) == 5
    assert released.select_figures("all") == list(FIGURES)
    with pytest.raises(InputError, match=r"'dinov4': one of vit, .*catr_v1, or all; did you mean .*dinov3"):
        released.select_figures("dinov4")


def test_numbers_are_compared_each_with_its_own_tolerance():
    figure = replace(FIGURES[0], expected=(10.0, 1.0), atol=0.1, rtol=0.1)
    comparison = released.compare_numbers(figure, np.array([11.0, 1.1]))
    assert comparison.is_equal
    assert comparison.difference == pytest.approx(1.0)
    assert comparison.tolerance == pytest.approx(1.1)
    comparison = released.compare_numbers(figure, np.array([11.0, 1.3]))
    assert not comparison.is_equal
    assert comparison.difference == pytest.approx(0.3)
    assert not released.compare_numbers(figure, np.array([np.nan, 1.0])).is_equal
    with pytest.raises(InputError, match=r"has shape \(3,\), the published \(2,\)"):
        released.compare_numbers(figure, np.zeros(3))


def test_pictures_resized_in_floating_point_equal_torchs():
    """torchvision's resize of a float tensor is torch's antialiased interpolation."""
    model = convert(reference.state_arrays(reference.tiny_torch()), num_heads=3)
    picture = np.random.default_rng(0).integers(0, 256, (60, 45, 3), np.uint8)
    figure = replace(FIGURES[0], is_float_resized=True, size=32)
    actual = released.prepare_picture(figure, model, Image.fromarray(picture))
    pixels = torch.from_numpy(picture.transpose(2, 0, 1) / 255.0)[None]
    expected = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
    np.testing.assert_allclose(actual, expected.numpy().transpose(0, 2, 3, 1) * 2 - 1, atol=1e-6)


class Published(NamedTuple):
    """Tiny stand-ins on loopback. figures: those that the originals compute."""

    figures: dict[str, Figure]
    files: Server
    hub: HubServer


def save_original(folder, model, processor) -> dict[str, bytes]:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    if hasattr(model, "text_model"):
        _tokenizer().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 102)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", eos_token="[SEP]", unk_token="[UNK]", model_max_length=8
    )


def build(name, **settings):
    """Return a random model of transformers, no parameter at its initial value."""
    torch.manual_seed(0)
    family, kind = re.fullmatch(r"([A-Z]\w+?)((?:For|Model).*)", name).groups()
    model = getattr(transformers, family + kind)(getattr(transformers, f"{family}Config")(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def build_dual(family):
    text = {
        name: TOWER[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    text |= dict(vocab_size=len(WORDS), max_position_embeddings=8, eos_token_id=102, projection_size=48)
    return build(f"{family}Model", vision_config=TOWER, text_config=text, projection_dim=24)


def compute(model, processor, picture, output, index, **options):
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        values = getattr(model(pixel_values=pixels, **options), output)[0]
    return values[index].tolist()


class DINOv3Processor:
    """What transformers' class, which needs torchvision, does: resize in floating point, then normalise."""

    def __init__(self, side):
        self.side = side

    def __call__(self, picture, return_tensors):
        pixels = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1) / np.float32(255))[None]
        size = (self.side, self.side)
        resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return {"pixel_values": (resized - mean) / std}

    def save_pretrained(self, folder):
        stored = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": self.side}
        (folder / "preprocessor_config.json").write_text(json.dumps(stored))


def make_hub_figures(picture, tmp_path):
    """Return the figures of the tiny models on the hub, and the files of their repositories."""
    repositories, figures = {}, {}

    def add(key, model, processor, expected, output, **changes):
        name = f"tiny/{key}"
        repositories[name] = save_original(tmp_path / key, model, processor)
        figures[key] = Figure(
            key, name, "numbers", picture, output, expected, "a test", atol=1e-4, rtol=1e-4, **changes
        )

    pil = {name: getattr(transformers, f"{name}ImageProcessorPil") for name in ("ViT", "DeiT", "CLIP", "Bit", "Siglip")}
    image = Image.open(io.BytesIO(make_picture()))
    square, first = {"height": 32, "width": 32}, (slice(3),)

    model, processor = build("ViTForImageClassification", **TOWER, num_labels=7), pil["ViT"](size=square)
    add("vit", model, processor, compute(model, processor, image, "logits", first), "logits", index=first)
    larger = pil["ViT"](size={"height": 48, "width": 48})
    numbers = compute(model.vit, larger, image, "last_hidden_state", CORNER, interpolate_pos_encoding=True)
    add("dino", model.vit, processor, numbers, "tokens", index=CORNER, size=48)
    model = build("DeiTForImageClassificationWithTeacher", **TOWER, num_labels=7)
    processor = pil["DeiT"](size={"height": 36, "width": 36}, crop_size=square)
    add("deit", model, processor, compute(model, processor, image, "logits", first), "logits", index=first)
    for key, kind in (("dinov2", "Dinov2Model"), ("registers", "Dinov2WithRegistersModel")):
        model, processor = (
            build(kind, **TOWER),
            pil["Bit"](size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}),
        )
        numbers = compute(model, processor, image, "last_hidden_state", CORNER)
        add(key, model, processor, numbers, "tokens", index=CORNER, size=24)
    model, processor = build("DINOv3ViTModel", **TOWER, num_register_tokens=4), DINOv3Processor(24)
    index = ([0, 5], slice(5))  # [class] and the first patch
    numbers = compute(model, processor, image, "last_hidden_state", index)
    add("dinov3", model, processor, numbers, "tokens", index=index, size=24, is_float_resized=True)
    clip, processor = build_dual("CLIP"), pil["CLIP"](size={"shortest_edge": 32}, crop_size=square)
    squash = pil["CLIP"](size={"height": 29, "width": 29}, crop_size={"height": 29, "width": 29})
    numbers = compute(clip.vision_model, squash, image, "last_hidden_state", CORNER, interpolate_pos_encoding=True)
    options = dict(index=CORNER, size=29, preprocess={"crop": None})
    add("clip", clip, processor, numbers, "tokens before the norm", **options)
    for key, model in (("clip", clip), ("siglip", build_dual("Siglip"))):
        processor = processor if key == "clip" else pil["Siglip"](size=square)
        tokens = _tokenizer()(list(TEXTS), padding="max_length", return_tensors="pt")
        numbers = compute(model, processor, image, "logits_per_image", (), **tokens)
        add(f"{key}_texts", model, processor, numbers, "similarities", texts=TEXTS)
    return figures, repositories


def make_picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (41, 57, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return the figures and files of all stand-ins; the picture's address is not yet known."""
    folder = tmp_path_factory.mktemp("originals")
    picture = Release("the test picture", "", "a picture", "none")
    figures, repositories = make_hub_figures(picture, folder)
    lukemelas = reference.tiny_torch().float()
    image = Image.open(io.BytesIO(make_picture())).resize((32, 32), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1
    with torch.no_grad():
        probabilities = torch.softmax(lukemelas(pixels), -1)[0, [2, 0]].tolist()
    torch.save(lukemelas.state_dict(), folder / "B_16.pth")
    torch.save(
        {"model": {name: torch.from_numpy(array) for name, array in small_arrays().items()}}, folder / "catr.pth"
    )
    files = {f"/{name}": (folder / name).read_bytes() for name in ("B_16.pth", "catr.pth")}
    files |= {"/vocab.txt": ("\n".join(WORDS) + "\n").encode(), "/p.png": make_picture()}
    common = dict(what="an output", picture=picture, source="a test")
    figures["B_16"] = Figure(
        "vit", "B_16", output="probabilities", expected=probabilities, index=([2, 0],), atol=1e-5, **common
    )
    figures["catr"] = Figure("catr", "catr_v1", output="caption", expected="", **common)
    return figures, repositories, files


@pytest.fixture
def published(originals, tmp_path, monkeypatch):
    """Publish the stand-ins on loopback, with an empty cache."""
    figures, repositories, files = originals
    server = Server(dict(files))
    monkeypatch.setitem(CONFIGS, "B_16", convert(reference.state_arrays(reference.tiny_torch()), num_heads=3).config)
    monkeypatch.setitem(caption.CONFIGS, "catr", convert(small_arrays(), num_heads=2).config)
    for name, file in (("B_16", "B_16.pth"), ("catr_v1", "catr.pth")):
        monkeypatch.setitem(RELEASES, name, replace(RELEASES[name], url=f"{server.address}/{file}"))
    bert = replace(vocabulary.VOCABULARY, url=f"{server.address}/vocab.txt", sha256=None)
    monkeypatch.setattr(vocabulary, "VOCABULARY", bert)
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIT_JAX_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    figures = {
        key: replace(figure, picture=replace(figure.picture, url=f"{server.address}/p.png"))
        for key, figure in figures.items()
    }
    with serve_hub(dict(repositories)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield Published(figures, server, hub)
    server.shutdown()
    server.server_close()


def run(monkeypatch, figures, name="all") -> int:
    monkeypatch.setattr(released, "FIGURES", tuple(figures))
    return main(["verify", "--released", name])


def test_every_kind_of_output_agrees_with_its_original(published, monkeypatch, capsys):
    figures = published.figures
    caption_of_ours = released.check_figures([figures["catr"]])
    actual = next(caption_of_ours).comparison.actual
    assert actual
    figures["catr"] = replace(figures["catr"], expected=actual)
    assert run(monkeypatch, figures.values()) == 0
    out = capsys.readouterr().out
    assert f"{len(figures)} of {len(figures)} figures agree" in out
    rows = out.splitlines()[1:-1]
    assert len(rows) == len(figures)
    assert all(re.search(r" ok +a test$", row) for row in rows)


def test_a_figure_that_disagrees_is_named_with_its_values(published, monkeypatch, capsys):
    figures = published.figures
    first, *others = figures["vit"].expected
    wrong = replace(figures["vit"], expected=[first + 0.01, *others])
    assert run(monkeypatch, [wrong, figures["deit"]]) == 1
    out = capsys.readouterr().out.splitlines()
    assert re.search(r"tiny/vit .*1\.0e-02 .* WRONG", out[1])
    assert out[3] == f"  published: {wrong.expected}"
    assert out[-2:] == ["1 of 2 figures agree", "WRONG: tiny/vit"]
    assert run(monkeypatch, [replace(figures["catr"], expected="A cat.")]) == 1
    assert "published: A cat." in capsys.readouterr().out


def test_all_goes_on_after_a_failure_and_ends_with_2(published, monkeypatch, capsys):
    """One repository is gated, one missing, and one checkpoint's download breaks off for good."""
    figures = published.figures
    published.hub.gated.add("tiny/vit")
    del published.hub.repositories["tiny/dinov2"]
    monkeypatch.setattr("vit_jax.download.time.sleep", lambda seconds: None)
    published.files.behaviour = ["truncate"] * 5
    assert run(monkeypatch, [figures[key] for key in ("B_16", "vit", "dinov2", "deit")]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "B_16.pth: broke off at" in errors[0]
    assert "try again to resume" in errors[0]
    assert "set HF_TOKEN" in errors[1]
    assert errors[2].startswith("error: hf:tiny/dinov2: ")
    assert captured.out.splitlines()[-2:] == ["1 of 4 figures agree", "not checked: B_16, tiny/vit, tiny/dinov2"]


def test_a_picture_with_another_hash_is_not_used(published, monkeypatch, capsys):
    figure = published.figures["vit"]
    assert run(monkeypatch, [replace(figure, picture=replace(figure.picture, sha256="0" * 64))]) == 2
    assert "p.png: its SHA-256 is not 000" in capsys.readouterr().err


def test_a_file_of_that_name_here_is_not_the_published_one(published, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "B_16").write_bytes(b"not it")
    assert run(monkeypatch, [published.figures["B_16"]], "B_16") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "verify compares FILE --against an original, or --released NAME"),
        (["x.pth"], "verify compares FILE --against an original, or --released NAME"),
        (["--released", "vit", "x.pth"], "leave out FILE and all but --cache"),
        (["--released", "vit", "--num-heads", "3"], "leave out FILE and all but --cache"),
        (["--released", "vitt"], "unknown released checkpoint 'vitt'"),
    ],
)
def test_wrong_flags(arguments, message, capsys):
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err
