"""Any data set of tensorflow-datasets with an image and a class label, read without TensorFlow."""

import importlib.util
from typing import Any

import numpy as np

from vit_jax.channels import Picture
from vit_jax.data.dataset import Dataset, Split, hold_out
from vit_jax.data.decode import open_picture
from vit_jax.errors import InputError

VAL_SPLITS = ("validation", "val", "test")


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except Exception as error:  # many kinds: unknown names, broken metadata, a builder that imports TensorFlow
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"tfds:{name}: {reason}; not prepared in {data_dir or 'the default data folder'}") from error


def _prepare(builder: Any, name: str) -> None:
    if builder.data_path.exists():
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"tfds:{name}: not prepared in {builder.data_path}, and preparing needs TensorFlow; "
            "pip install 'vit-jax[tfds]', or prepare it elsewhere and give --data-dir"
        )
    builder.download_and_prepare(file_format="array_record")


def _open_split(builder: Any, split: str, source_name: str) -> Split:
    import tensorflow_datasets as tfds

    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise InputError(f"{source_name}: has {', '.join(features)}, not an image and a class label")
    # SkipDecoding makes reading the labels fast, and open_picture decodes the images as in every other data set.
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.array([source[i]["label"] for i in range(len(source))], np.int32)
    names = [f"{source_name}[{i}]" for i in range(len(source))]

    def open_image(index: int, *, max_value: float | None = None) -> Picture:
        return open_picture(source[index]["image"], name=names[index], max_value=max_value)

    return Split(names, labels, open_image)


def open_tfds(
    name: str, *, val_split: str | None = None, data_dir: str | None = None, val_fraction: float = 0.2, seed: int = 0
) -> Dataset:
    """Open the data set `name` (NAME or NAME:version): its train split, and val_split for validation.

    Without val_split, the first existing one of validation, val and test validates, else val_fraction of train.
    A data set that is not prepared is prepared if TensorFlow is installed.
    Raises InputError, in one line, for an unknown, unprepared or unsuitable data set.
    """
    builder = _builder(name, data_dir)
    _prepare(builder, name)
    splits = builder.info.splits
    validation = val_split or next((split for split in VAL_SPLITS if split in splits), None)
    for needed in ("train", val_split):
        if needed is not None and needed not in splits:
            raise InputError(f"tfds:{name}: no split {needed}; it has {', '.join(splits)}")
    try:
        train = _open_split(builder, "train", f"tfds:{name}/train")
        classes = tuple(builder.info.features["label"].names)
        if validation is None:
            return Dataset(f"tfds:{name}", classes, *hold_out(train, val_fraction, seed))
        return Dataset(f"tfds:{name}", classes, train, _open_split(builder, validation, f"tfds:{name}/{validation}"))
    except NotImplementedError as error:
        raise InputError(
            f"tfds:{name}: prepared as {builder.info.file_format}, which cannot be read without TensorFlow; "
            "prepare it with file_format='array_record'"
        ) from error
