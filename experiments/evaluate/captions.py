"""python -m experiments.evaluate --captions FILE --references FILE: score captions against human references."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeGuard

from caption.data.entries import drop_repeated, parse_image_id
from caption.scoring.metrics import CaptionScores, score_images
from experiments.evaluate.result import RESULT, write_result
from vit_jax import InputError
from vit_jax.data.unicode_names import compose_name
from vit_jax.outputs import check_apart, check_out_folder

ImageId = int | str

PREDICTIONS = 'a list of {"image_id": ..., "caption": ...} or {"file": ..., "caption": ...}, or {file: caption}'
REFERENCES = 'COCO ("images" and "annotations") or Karpathy ("images" with "sentences")'


class References(NamedTuple):
    """Human captions by image id, and the images (path, id) by file name. File names have composed characters."""

    captions: dict[ImageId, list[str]]
    files: dict[str, list[tuple[PurePath, ImageId]]]

    def find(self, file: str) -> ImageId:
        """Return the id of an image by its path. Leading folders may be missing from either path.

        Raises InputError if no image has the path, or if several have.
        """
        path = PurePath(compose_name(file))
        matches = [(_common_parts(path, known), known, number) for known, number in self.files.get(path.name, ())]
        best = max((common for common, _, _ in matches), default=0)
        found = {number: known for common, known, number in matches if common == best}
        if not best:
            raise InputError(f"{file} is not an image")
        if len(found) > 1:
            raise InputError(
                f"{file} is {' or '.join(map(str, list(found.values())[:3]))}; name its folder too, an image"
            )
        return next(iter(found))


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
    if args.model is not None or args.data is not None or args.probe is not None:
        unused = args.model or ("--data" if args.data is not None else "--probe")
        raise InputError(f"{unused}: captions are scored without a model or data; leave it out")
    if args.out:
        check_out_folder(args.out)
        check_apart([Path(args.out) / RESULT], [args.captions, args.references])
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
    result = {"scores": scores.overall, "images": len(scores.by_image), "by_image": scores.by_image}
    write_result(folder, result)
    print(f"written to {folder}/: {RESULT}")


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from error


def _common_parts(path: PurePath, other: PurePath) -> int:
    """Return the number of trailing parts in which two paths agree, if one ends with the other; else 0."""
    shared = min(len(path.parts), len(other.parts))
    return shared if path.parts[-shared:] == other.parts[-shared:] else 0


def _read_id(value: Any) -> ImageId:
    """Return an image's id. Raises TypeError for what is none."""
    image = parse_image_id(value)
    if image is None:
        raise TypeError(f"{value!r} is not an image's id")
    return image


def _read_text(value: Any) -> str:
    """Return a caption. Raises TypeError for what is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a caption")
    return value


def read_references(path: str) -> References:
    """Read captions by image, in COCO's or Karpathy's format. Raises InputError for other and for empty files."""
    stored = _read_json(path)
    captions: dict[ImageId, list[str]] = {}
    files: dict[str, list[tuple[PurePath, ImageId]]] = {}
    names: dict[ImageId, PurePath] = {}
    try:
        coco = "annotations" in stored
        for image in stored["images"]:
            number = _read_id(image["id"] if coco else image.get("cocoid", image.get("imgid")))
            name = PurePath(compose_name(image["file_name" if coco else "filename"]))
            if names.setdefault(number, name) != name:
                raise InputError(f"{path}: image {number} is both {names[number]} and {name}; correct the file")
            files.setdefault(name.name, []).append((name, number))
            if not coco:
                captions[number] = [_read_text(sentence["raw"]) for sentence in image["sentences"]]
        for annotation in drop_repeated(stored["annotations"], Path(path)) if coco else ():
            captions.setdefault(_read_id(annotation["image_id"]), []).append(_read_text(annotation["caption"]))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not captions by image; it should be {REFERENCES}") from error
    if not captions:
        raise InputError(f"{path}: holds no captions")
    return References(captions, files)


def _read_records(path: str) -> Iterator[tuple[ImageId, str]]:
    """Yield each image, by id or file name, and its caption. Raises InputError for another format."""
    stored = _read_json(path)
    if isinstance(stored, dict):
        pairs = [{"file": file} | (v if isinstance(v, dict) else {"caption": v}) for file, v in stored.items()]
    else:
        pairs = stored
    try:
        for record in pairs:
            image = record["image_id"] if "image_id" in record else record["file"]
            yield _read_id(image), _read_text(record["caption"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not captions; it should be {PREDICTIONS}") from error


def _is_file(image: ImageId, references: References) -> TypeGuard[str]:
    return isinstance(image, str) and image not in references.captions


def read_predictions(path: str, references: References, where: str) -> dict[ImageId, str]:
    """Read the captions to score, by image id. Files are matched with the references' by path: References.find.

    where: path of the references, for messages.

    Raises InputError for another format, an unknown image, and a second caption for an image.
    """
    captions: dict[ImageId, str] = {}
    images: dict[ImageId, ImageId] = {}
    for image, caption in _read_records(path):
        try:
            number = references.find(image) if _is_file(image, references) else image
        except InputError as error:
            raise InputError(f"{path}: {error} of {where}; check that the two files match") from error
        if number in captions:
            twice = "" if images[number] == image else f" (as {images[number]} too)"
            raise InputError(f"{path}: image {image} has two captions{twice}; keep one")
        captions[number], images[number] = caption, image
    if not captions:
        raise InputError(f"{path}: holds no captions")
    return captions
