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


WRONG = [
    ("{", COCO, "p.json: not a JSON file"),
    (BY_NUMBER, "", "r.json: not a JSON file"),
    ([], COCO, "p.json: holds no captions"),
    ([{"image_id": 7}], COCO, "p.json: not captions; it should be a list of"),
    (5, COCO, "p.json: not captions; it should be a list of"),
    ([{"image_id": 7, "caption": None}], COCO, "p.json: not captions"),
    (BY_NUMBER, {"images": []}, "r.json: holds no captions"),
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
