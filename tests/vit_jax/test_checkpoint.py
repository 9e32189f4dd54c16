"""Saving and loading: exact, complete or not at all; errors name what is wrong."""

import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.create import create
from vit_jax import InputError, Preprocess, VisionTransformer, ViTConfig, load, load_card, save
from vit_jax.checkpoint import abstract_model, from_arrays, to_arrays

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=3,
    posemb_resize="bicubic", preprocess=Preprocess(mean=(0.1, 0.2, 0.3), kernel="bicubic", crop=0.9),
)  # fmt: skip


@pytest.fixture
def model():
    initial = create(VisionTransformer, CONFIG)
    initial.head.kernel[...] = jax.random.normal(jax.random.key(0), (16, 3))
    return initial


def test_round_trip_is_exact(model, tmp_path):
    save(model, tmp_path / "m", class_names=["a", "b", "c"], provenance={"from": "a test"})
    loaded = load(tmp_path / "m")
    assert loaded.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, model, loaded)
    card = load_card(tmp_path / "m")
    assert card.class_names == ("a", "b", "c")
    assert card.provenance == {"from": "a test"}
    assert card.config.preprocess.crop == 0.9


def test_shapes_are_those_of_the_real_model(model):
    abstract = abstract_model(CONFIG)
    assert jax.tree.structure(abstract) == jax.tree.structure(model)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(abstract)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(model)
    ]


def test_other_libraries_read_the_file(model, tmp_path):
    save(model, tmp_path / "m")
    theirs = load_file(tmp_path / "m" / "model.safetensors")
    assert set(theirs) == set(to_arrays(model))
    np.testing.assert_array_equal(theirs["blocks.1.attn.qkv.kernel"], model.blocks[1].attn.qkv.kernel[...])


def test_another_size_and_class_count(model, tmp_path):
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m", image_size=(32, 32), num_classes=7)
    assert loaded.config.grid == (4, 4)
    assert loaded.config.image_preprocess.size == (32, 32)
    assert loaded(jnp.ones((1, 32, 32, 3))).shape == (1, 7)
    assert not np.asarray(loaded.head.kernel[...]).any()
    np.testing.assert_array_equal(load(tmp_path / "m", num_classes=3).head.kernel[...], model.head.kernel[...])
    with pytest.raises(InputError, match="20x20 is not divisible by the 8x8 patch"):
        load(tmp_path / "m", image_size=20)


def test_saving_again_replaces_a_model_but_nothing_else(model, tmp_path):
    save(model, tmp_path / "m")
    save(model, tmp_path / "m", class_names=["x", "y", "z"])
    assert load_card(tmp_path / "m").class_names == ("x", "y", "z")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="is not a saved model"):
        save(model, tmp_path / "photos")
    assert (tmp_path / "photos" / "me.jpg").exists()
    with pytest.raises(InputError, match="2 class names for 3 classes"):
        save(model, tmp_path / "n", class_names=["x", "y"])


def test_a_full_disk_leaves_nothing_behind(model, tmp_path):
    save(model, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # a write past it fails, as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            save(model, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before


def test_from_arrays_lists_what_does_not_fit(model):
    arrays = to_arrays(model)
    del arrays["norm.scale"]
    arrays["extra"] = jnp.zeros(1)
    arrays["head.bias"] = jnp.zeros(4)
    with pytest.raises(InputError, match=r"missing: norm.scale; 1 left over: extra; .*head.bias is \(4,\), not"):
        from_arrays(CONFIG, arrays)


def test_config_files_with_a_preprocess_size_or_without_preprocess_load(model, tmp_path):
    save(model, tmp_path / "m")
    stored = json.loads((tmp_path / "m" / "config.json").read_text())
    assert "size" not in stored["config"]["preprocess"]
    damage_config(tmp_path / "m", lambda c: c["config"]["preprocess"].update(size=[16, 24]))
    assert load_card(tmp_path / "m").config == CONFIG
    damage_config(tmp_path / "m", lambda c: c["config"].pop("preprocess"))
    assert load_card(tmp_path / "m").config.preprocess == Preprocess()


def damage_config(folder, change):
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "not a saved model"),
        (
            lambda f: (f / "config.json").write_text('{"format":\n"vit_jax/1"\n"config": 3}'),
            "config.json: not JSON .*line 3 column 1",
        ),
        (lambda f: (f / "config.json").write_bytes(b'{"format": "\xff"}'), "config.json: not JSON .*0xff"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "config.json: .*its format is not there, not 'vit_jax/1'"),
        (lambda f: damage_config(f, lambda c: c.pop("config")), "config.json: .*it has no 'config'"),
        (lambda f: damage_config(f, lambda c: c.update(config=[1])), "config.json: .*the config is an object"),
        (
            lambda f: damage_config(f, lambda c: c.update(class_names="cat")),
            "class_names is a list of texts, not 'cat'",
        ),
        (lambda f: damage_config(f, lambda c: c.update(class_names=["cat"])), "1 class_names for 3 classes"),
        (
            lambda f: damage_config(f, lambda c: c["config"].update(width="64")),
            "config.json: .*width is a whole number",
        ),
        (lambda f: damage_config(f, lambda c: c["config"].update(widht=3)), "unknown fields widht"),
        (
            lambda f: damage_config(f, lambda c: c["config"]["preprocess"].update(sice=3)),
            r"unknown fields preprocess\.sice",
        ),
        (lambda f: damage_config(f, lambda c: c["config"].update(width=32)), "of another shape"),
        (lambda f: damage_config(f, lambda c: c["config"].update(num_heads=3)), "not divisible by num_heads 3"),
        (lambda f: (f / "model.safetensors").unlink(), "missing; the folder is incomplete"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "model.safetensors: "),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "safetensors: "),
    ],
)
def test_damaged_folders_are_named(model, tmp_path, damage, message):
    save(model, tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "m")
    assert "\n" not in str(caught.value)
