"""`python -m experiments.evaluate --captions` as a user runs it: formats, table, wrong input."""

import json

import pytest

from caption.scoring.metrics import score_captions
from experiments.evaluate import __main__ as evaluate

CAPTIONS = {7: ["A cat on a mat.", "The cat sits."], 8: ["Two dogs run.", "Dogs in grass."], 9: ["A bus."]}
COCO = {
    "images": [{"id": n, "file_name": f"00{n}.jpg"} for n in CAPTIONS],
    "annotations": [{"image_id": n, "caption": text} for n, texts in CAPTIONS.items() for text in texts],
}
KARPATHY = {
    "images": [
        {"cocoid": n, "filename": f"00{n}.jpg", "split": "test", "sentences": [{"raw": text} for text in texts]}
        for n, texts in CAPTIONS.items()
    ]
}
PREDICTED = {7: "a cat on the mat", 8: "three dogs in grass"}
BY_NUMBER = [{"image_id": n, "caption": text} for n, text in PREDICTED.items()]
BY_FILE = [{"file": f"pictures/00{n}.jpg", "caption": text, "words": []} for n, text in PREDICTED.items()]
BY_NAME = {f"00{n}.jpg": text for n, text in PREDICTED.items()}


def run(tmp_path, predictions, references, *more) -> int:
    for name, content in (("p.json", predictions), ("r.json", references)):
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    files = ["--captions", str(tmp_path / "p.json"), "--references", str(tmp_path / "r.json")]
    return evaluate.main([*files, "--no-java", *more])


@pytest.mark.parametrize("references", [COCO, KARPATHY], ids=["coco", "karpathy"])
@pytest.mark.parametrize("predictions", [BY_NUMBER, BY_FILE, BY_NAME], ids=["number", "file", "mapping"])
def test_every_format_gives_the_same_scores(predictions, references, tmp_path, capsys):
    assert run(tmp_path, predictions, references, "--out", str(tmp_path / "out")) == 0
    expected = score_captions(PREDICTED, {n: CAPTIONS[n] for n in PREDICTED}, java=False)
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["scores"] == expected
    assert set(result["by_image"]) == {"7", "8"}
    out = capsys.readouterr().out
    assert f"CIDEr-D  {expected['CIDEr-D']:7.4f}" in out
    assert "(2 captions;" in out
    assert "has 3 images)" in out


def two_folders(*names):
    """Return references of images a/0.jpg (a cat) and b/0.jpg (a dog)."""
    texts = {"a/0.jpg": "a cat on a mat", "b/0.jpg": "a dog in the grass"}
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(texts)],
        "annotations": [{"image_id": n, "caption": text} for n, text in enumerate(texts.values())],
    }


@pytest.mark.parametrize("file", ["a/0.jpg", "pictures/a/0.jpg"])
def test_images_of_one_name_are_told_apart_by_their_folders(file, tmp_path):
    """The caption of a/0.jpg is that of its own reference: BLEU-1 is 1."""
    assert run(tmp_path, {file: "a cat on a mat"}, two_folders(), "--out", str(tmp_path / "out")) == 0
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["scores"]["BLEU-1"] == pytest.approx(1)
    assert set(result["by_image"]) == {"0"}


def as_ids(convert):
    """Return the references and the predictions with the ids of images written differently."""
    images = [image | {"id": convert(image["id"])} for image in COCO["images"]]
    annotations = [item | {"image_id": convert(item["image_id"])} for item in COCO["annotations"]]
    predictions = [item | {"image_id": convert(item["image_id"])} for item in BY_NUMBER]
    return {"images": images, "annotations": annotations}, predictions


@pytest.mark.parametrize("convert", [str, float, "img_{}".format], ids=["text", "float", "flickr"])
def test_ids_as_people_write_them(convert, tmp_path):
    references, predictions = as_ids(convert)
    expected = score_captions(PREDICTED, {n: CAPTIONS[n] for n in PREDICTED}, java=False)
    for candidates in (predictions, BY_FILE, BY_NAME):
        assert run(tmp_path, candidates, references, "--out", str(tmp_path / "out")) == 0
        assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["scores"] == expected


def test_composed_and_decomposed_file_names_are_one(tmp_path):
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.jpg"
    references = {"images": [{"id": 7, "file_name": composed}], "annotations": COCO["annotations"][:2]}
    assert run(tmp_path, {decomposed: "a cat"}, references) == 0


def test_annotations_that_occur_twice_count_once(tmp_path, capsys):
    annotations = [item | {"id": number} for number, item in enumerate(COCO["annotations"])]
    results = []
    for repeated in (annotations, annotations + annotations[:2]):
        references = COCO | {"annotations": repeated}
        assert run(tmp_path, BY_NUMBER, references, "--out", str(tmp_path / "out")) == 0
        results.append((tmp_path / "out" / "evaluation.json").read_text())
    assert results[0] == results[1]
    assert "r.json: repeated annotations left out: 2" in capsys.readouterr().err


WRONG = [
    ({"0.jpg": "a cat"}, two_folders(), "0.jpg is a/0.jpg or b/0.jpg; name its folder too"),
    ({"c/0.jpg": "a cat"}, two_folders(), "c/0.jpg is not an image of"),
    ({"a/0.jpg": "a cat", "x/a/0.jpg": "a cat"}, two_folders(), "image x/a/0.jpg has two captions (as a/0.jpg too)"),
    ([{"image_id": "\u00b2", "caption": "a"}], COCO, "\u00b2 is not an image of"),
    ([{"image_id": True, "caption": "a"}], COCO, "p.json: not captions"),
    ([{"image_id": 7.5, "caption": "a"}], COCO, "p.json: not captions"),
    ([{"image_id": "", "caption": "a"}], COCO, "p.json: not captions"),
    (BY_NUMBER, {**COCO, "images": [*COCO["images"], {"id": 7, "file_name": "x.jpg"}]}, "image 7 is both 007.jpg and"),
    ("{", COCO, "p.json: not a JSON file"),
    (BY_NUMBER, "", "r.json: not a JSON file"),
    ([], COCO, "p.json: holds no captions"),
    ([{"image_id": 7}], COCO, "p.json: not captions; it should be a list of"),
    (5, COCO, "p.json: not captions; it should be a list of"),
    ([{"image_id": 7, "caption": None}], COCO, "p.json: not captions"),
    (BY_NUMBER, {"images": []}, "r.json: holds no captions"),
    (BY_NUMBER, {**COCO, "annotations": [{"image_id": 7, "caption": 5}]}, "r.json: not captions by image"),
    (
        BY_NUMBER,
        {"images": [{"cocoid": 7, "filename": "7.jpg", "sentences": [{"raw": None}]}]},
        "r.json: not captions by image",
    ),
    ("[" * 100_000, COCO, "p.json: not a JSON file"),
    (BY_NUMBER, [1], "r.json: not captions by image; it should be COCO"),
    (BY_NUMBER, {"images": [{"id": 1}], "annotations": []}, "r.json: not captions by image"),
    (BY_NUMBER + BY_FILE, COCO, "image pictures/007.jpg has two captions"),
    ({"x.jpg": "a cat"}, COCO, "x.jpg is not an image of"),
    ([{"image_id": 3, "caption": "a"}], COCO, "image 3, which"),
]


@pytest.mark.parametrize(("predictions", "references", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_files_end_in_one_line(predictions, references, message, tmp_path, capsys):
    assert run(tmp_path, predictions, references) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_wrong_flags_end_in_one_line(tmp_path, capsys):
    assert evaluate.main(["--captions", "p.json"]) == 2
    assert "--references is missing" in capsys.readouterr().err
    assert evaluate.main(["--captions", str(tmp_path / "none.json"), "--references", "r.json"]) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(tmp_path, BY_NUMBER, COCO, "--data", "digits") == 2
    assert "--data: captions are scored without a model" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([])
    assert "give a model, or --captions" in capsys.readouterr().err
