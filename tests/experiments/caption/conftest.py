"""A small random captioner with its vocabulary, and pictures of scenes."""

import jax
import numpy as np
import pytest
from PIL import Image

import caption
from caption.data.scenes import make_scene, scene_captions
from caption.preprocess import CaptionPreprocess
from caption.tokenizer import build_vocabulary
from tests.create import create
from tests.experiments.caption.inputs import LENGTH, SIZES
from vit_jax.checkpoint import to_arrays


@pytest.fixture(scope="package")
def tokenizer(tmp_path_factory):
    return build_vocabulary(scene_captions("train"), tmp_path_factory.mktemp("words") / "vocab.txt")


@pytest.fixture(scope="package")
def model(tokenizer):
    """Return a random model whose output distributions are far from uniform."""
    config = caption.CaptionConfig(
        encoder=caption.ResNetConfig(stage_depths=(1, 1), stage_widths=(4, 8), stem_width=4, expansion=2),
        width=16,
        num_heads=2,
        mlp_dim=24,
        encoder_layers=1,
        decoder_layers=2,
        head_width=16,
        vocab_size=tokenizer.vocab_size,
        max_positions=LENGTH,
        preprocess=CaptionPreprocess(longest=48),
    )
    model = create(caption.CaptionTransformer, config)
    rng = np.random.default_rng(1)
    arrays = {
        name: x + np.float32(0.6) * rng.standard_normal(x.shape, "float32") for name, x in to_arrays(model).items()
    }
    arrays = {name: abs(x) if name.endswith("norm.var") else x for name, x in arrays.items()}
    return jax.tree.unflatten(jax.tree.structure(model), list(arrays.values()))


@pytest.fixture(scope="package")
def saved(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    caption.save(model, folder, tokenizer=tokenizer)
    return str(folder)


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """Write five scenes of several shapes below one folder."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    for index, (height, width) in enumerate(SIZES):
        image = Image.fromarray(make_scene(0, index).image[:height, :width])
        image.save(root / ("more" if index == 4 else "") / f"p{index}.png")
    return root
