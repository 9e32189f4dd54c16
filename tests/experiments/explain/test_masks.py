"""The masks of images, for the scores of explanations."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.common.pictures import list_images
from experiments.explain import __main__ as explain
from experiments.explain.masked_images import find_masks
from tests.experiments.explain.inputs import copy_pictures
from vit_jax import (
    InputError,
)


def test_masks_are_found_by_relative_path(pictures, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    copy_pictures(pictures / "images" / "p0.png", images, ["red/0.png", "green/0.png", "blue/1.png"])
    copy_pictures(pictures / "masks" / "p0.png", masks, ["red/0.png", "green/0.png", "blue/1.gif", "1.png"])
    paths = list_images([str(images)])
    assert [path.result.as_posix() for path in paths] == ["blue/1", "green/0", "red/0"]
    assert find_masks(paths, masks) == [masks / "blue" / "1.gif", masks / "green" / "0.png", masks / "red" / "0.png"]
    (masks / "green" / "0.png").unlink()
    with pytest.raises(InputError, match=r"no mask for green/0; add green/0\.png"):
        find_masks(paths, masks)


def test_masks_may_lack_the_folders_of_the_images_but_never_serve_two(pictures, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    copy_pictures(pictures / "images" / "p0.png", images, ["red/0.png", "blue/1.png"])
    copy_pictures(pictures / "masks" / "p0.png", masks, ["0.png", "1.png"])
    assert find_masks(list_images([str(images)]), masks) == [masks / "1.png", masks / "0.png"]
    copy_pictures(pictures / "images" / "p0.png", images, ["green/0.png"])
    with pytest.raises(InputError, match=r"0\.png: the mask of green/0 or of red/0"):
        find_masks(list_images([str(images)]), masks)


def test_an_image_whose_mask_has_no_object_is_not_scored(saved, pictures, tmp_path, capsys):
    copy_pictures(pictures / "images" / "p0.png", tmp_path / "images", ["a.png", "b.png"])
    copy_pictures(pictures / "masks" / "p0.png", tmp_path / "masks", ["a.png"])
    Image.fromarray(np.full((50, 30), 2, np.uint8)).save(tmp_path / "masks" / "b.png")
    argv = [saved, str(tmp_path / "images"), "--evaluate", "--masks", str(tmp_path / "masks"), "--out", str(tmp_path)]
    assert explain.main([*argv, "--method", "attention"]) == 0
    captured = capsys.readouterr()
    assert "masks/b.png: no object (value 1)" in captured.err
    assert "1 images; of the predicted class" in captured.out
    stored = json.loads((tmp_path / "faithfulness.json").read_text())
    assert [Path(name).name for name in stored["images"]] == ["a.png"]
    assert len(stored["scores"]["attention"]["iou"]) == 1
