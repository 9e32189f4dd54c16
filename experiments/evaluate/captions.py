"""python -m experiments.evaluate --captions FILE --references FILE: score captions against human references."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from caption.scoring.metrics import CaptionScores, score_images
from vit_jax import InputError
from vit_jax.files import atomic_write

PREDICTIONS = 'a list of {"image_id": ..., "caption": ...} or {"file": ..., "caption": ...}, or {file: caption}'
REFERENCES = 'COCO ("images" and "annotations") or Karpathy ("images" with "sentences")'


class References(NamedTuple):
    """Human captions by image number, and the image numbers by file name."""

    captions: dict[int, list[str]]
    numbers: dict[str, int]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for scoring captions to the parser of `evaluate`."""
    group = parser.add_argument_group("captions")
    group.add_argument("--captions", metavar="FILE", help=f"JSON to score: {PREDICTIONS}")
    group.add_argument("--references", metavar="FILE", help=f"JSON to score them against: {REFERENCES}")
    group.add_argument("--no-java", action="store_true", help="leave out METEOR and SPICE, which need Java")


def evaluate(args: argparse.Namespace) -> int:
    """Score --captions against --references, print a table and write evaluation.json into --out."""
    for name in ("captions", "references"):
        if getattr(args, name) is None:
            raise InputError(f"--{name} is missing; --captions and --references go together")
    if args.model is not None or args.data is not None:
        raise InputError(f"{args.model or '--data'}: captions are scored without a model or data; leave it out")
    references = read_references(args.references)
    predictions = read_predictions(args.captions, references, args.references)
    truths = {number: references.captions.get(number, []) for number in predictions}
    for number in predictions:
        if not truths[number]:
            raise InputError(f"{args.references}: has no captions of image {number}, which is in {args.captions}")
    scores = score_images(predictions, truths, java=not args.no_java)
    for name, value in scores.overall.items():
        print(f"{name:8} {value:7.4f}")
    print(f"({len(predictions)} captions; {args.references} has {len(references.captions)} images)")
    if args.out:
        _write_scores(Path(args.out), scores)
    return 0


def _write_scores(folder: Path, scores: CaptionScores) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result = {"scores": scores.overall, "images": len(scores.by_image), "by_image": scores.by_image}
    with atomic_write(folder / "evaluation.json") as path:
        path.write_text(json.dumps(result) + "\n")
    print(f"written to {folder}/: evaluation.json")


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error


def read_references(path: str) -> References:
    """Read captions by image, in COCO's or Karpathy's format. Raises InputError for other and for empty files."""
    stored = _read_json(path)
    captions: dict[int, list[str]] = {}
    numbers: dict[str, int] = {}
    try:
        coco = "annotations" in stored
        for image in stored["images"]:
            number = image["id"] if coco else image.get("cocoid", image.get("imgid"))
            numbers[PurePath(image["file_name" if coco else "filename"]).name] = int(number)
            if not coco:
                captions[int(number)] = [str(sentence["raw"]) for sentence in image["sentences"]]
        for annotation in stored["annotations"] if coco else ():
            captions.setdefault(int(annotation["image_id"]), []).append(str(annotation["caption"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not captions by image; it should be {REFERENCES}") from error
    if not captions:
        raise InputError(f"{path}: holds no captions")
    return References(captions, numbers)


def _read_records(path: str) -> Iterator[tuple[int | str, str]]:
    """Yield each image, by number or file name, and its caption. Raises InputError for another format."""
    stored = _read_json(path)
    if isinstance(stored, dict):
        pairs = [{"file": file} | (v if isinstance(v, dict) else {"caption": v}) for file, v in stored.items()]
    else:
        pairs = stored
    try:
        for record in pairs:
            image = record["image_id"] if "image_id" in record else record["file"]
            if not isinstance(record["caption"], str) or not isinstance(image, int | str):
                raise TypeError
            yield image, record["caption"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not captions; it should be {PREDICTIONS}") from error


def read_predictions(path: str, references: References, where: str) -> dict[int, str]:
    """Read the captions to score, by image number. File names are matched with the references', ignoring folders.

    where: path of the references, for messages.

    Raises InputError for another format, an unknown image, and a second caption for an image.
    """
    captions: dict[int, str] = {}
    for image, caption in _read_records(path):
        if isinstance(image, int) or image.isdigit():
            number = int(image)
        elif (name := PurePath(image).name) in references.numbers:
            number = references.numbers[name]
        else:
            raise InputError(f"{path}: {image} is not an image of {where}; check that the two files match")
        if number in captions:
            raise InputError(f"{path}: image {image} has two captions; keep one")
        captions[number] = caption
    if not captions:
        raise InputError(f"{path}: holds no captions")
    return captions
