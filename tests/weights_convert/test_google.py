"""Google's .npz against its forward pass in numpy; facebookresearch's DINOv2 and MAE; hostile .npz files."""

import io
import zipfile
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.special import erf

import tests.reference as reference
from vit_jax import InputError
from weights_convert import convert, export, read_checkpoint

pytestmark = pytest.mark.parity

D, H, K, MLP, CLASSES = 24, 3, 8, 40, 5
BLOCK = "Transformer/encoderblock_{}/"


def google_arrays(depth=2, grid=4, representation=0, seed=0):
    """Return a small random float64 checkpoint in Google's names and shapes."""
    rng = np.random.default_rng(seed)
    width = representation or D
    shapes = {
        "cls": (1, 1, D),
        "embedding/kernel": (8, 8, 3, D),
        "embedding/bias": (D,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + grid * grid, D),
        "Transformer/encoder_norm/scale": (D,),
        "Transformer/encoder_norm/bias": (D,),
        "head/kernel": (width, CLASSES),
        "head/bias": (CLASSES,),
    }
    if representation:
        shapes |= {"pre_logits/kernel": (D, width), "pre_logits/bias": (width,)}
    for i in range(depth):
        b = BLOCK.format(i)
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{b}{norm}/scale": (D,), f"{b}{norm}/bias": (D,)}
        for part in ("query", "key", "value"):
            name = f"{b}MultiHeadDotProductAttention_1/{part}"
            shapes |= {f"{name}/kernel": (D, H, K), f"{name}/bias": (H, K)}
        name = f"{b}MultiHeadDotProductAttention_1/out"
        shapes |= {f"{name}/kernel": (H, K, D), f"{name}/bias": (D,)}
        shapes |= {f"{b}MlpBlock_3/Dense_0/kernel": (D, MLP), f"{b}MlpBlock_3/Dense_0/bias": (MLP,)}
        shapes |= {f"{b}MlpBlock_3/Dense_1/kernel": (MLP, D), f"{b}MlpBlock_3/Dense_1/bias": (D,)}
    return {name: rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))) for name, shape in shapes.items()}


def google_forward(p, image, depth=2):
    """Run vision_transformer's models_vit.py on one image, in numpy."""

    def norm(x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * p[f"{name}/scale"] + p[f"{name}/bias"]

    patches = [
        np.einsum("hwc,hwcd->d", image[y : y + 8, x : x + 8], p["embedding/kernel"]) + p["embedding/bias"]
        for y in range(0, image.shape[0], 8)
        for x in range(0, image.shape[1], 8)
    ]
    x = np.concatenate([p["cls"][0], np.stack(patches)]) + p["Transformer/posembed_input/pos_embedding"][0]
    for i in range(depth):
        b = BLOCK.format(i)
        y, a = norm(x, b + "LayerNorm_0"), b + "MultiHeadDotProductAttention_1/"
        q, k, v = (
            np.einsum("nd,dhk->nhk", y, p[f"{a}{part}/kernel"]) + p[f"{a}{part}/bias"]
            for part in ("query", "key", "value")
        )
        scores = np.exp(np.einsum("nhk,mhk->hnm", q, k) / np.sqrt(K))
        mixed = np.einsum("hnm,mhk->nhk", scores / scores.sum(axis=-1, keepdims=True), v)
        x = x + np.einsum("nhk,hkd->nd", mixed, p[f"{a}out/kernel"]) + p[f"{a}out/bias"]
        y = norm(x, b + "LayerNorm_2") @ p[f"{b}MlpBlock_3/Dense_0/kernel"] + p[f"{b}MlpBlock_3/Dense_0/bias"]
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + y @ p[f"{b}MlpBlock_3/Dense_1/kernel"] + p[f"{b}MlpBlock_3/Dense_1/bias"]
    pooled = norm(x, "Transformer/encoder_norm")[0]
    if "pre_logits/kernel" in p:
        pooled = np.tanh(pooled @ p["pre_logits/kernel"] + p["pre_logits/bias"])
    return pooled @ p["head/kernel"] + p["head/bias"]


@pytest.mark.parametrize("representation", [0, 16])
def test_google_npz(representation, x64, tmp_path):
    arrays = google_arrays(representation=representation)
    np.savez(tmp_path / "ViT-tiny.npz", **arrays)
    model = convert(tmp_path / "ViT-tiny.npz")
    assert model.config.num_heads == H
    assert model.config.representation == representation
    x = reference.images(0, 2, 32, 32)
    logits = jax.jit(lambda m, x: m(x))(model, x)
    for i in range(2):
        assert reference.relative_error(logits[i], google_forward(arrays, x[i])) < 1e-12
    back = export(model, layout="google")
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_hybrids_are_refused():
    arrays = google_arrays() | {"conv_root/kernel": np.zeros((7, 7, 3, 64))}
    with pytest.raises(InputError, match="a hybrid with a ResNet"):
        convert(arrays)


@pytest.mark.parametrize("variant", ["registers", "swiglu", "mae"])
def test_facebookresearchs_names(variant, x64):
    """timm's golden DINOv2 (DINO for MAE) under facebookresearch's names gives the same model."""
    name = "vit_small_patch16_224.dino" if variant == "mae" else "vit_small_patch14_dinov2.lvd142m"
    arrays = {
        key: a
        for key, a in reference.golden_parameters("timm_vit", name).items()
        if "blocks." not in key or "blocks.0." in key
    }
    renamed = dict(arrays)
    if variant == "mae":
        renamed |= {
            "mask_token": np.zeros((1, 1, 384)),
            "decoder_pred.weight": np.zeros((3, 3)),
            "decoder_pos_embed": np.zeros((1, 9, 3)),
        }
    else:
        renamed["mask_token"] = np.zeros((1, 384))
    if variant == "registers":
        arrays["reg_token"] = renamed["register_tokens"] = reference.golden_array("register_tokens", (1, 4, 384))
    if variant == "swiglu":
        for name, shape in [
            ("fc1.weight", (1024, 384)),
            ("fc1.bias", (1024,)),
            ("fc2.weight", (384, 512)),
            ("fc2.bias", (384,)),
        ]:
            array = reference.golden_array(name, shape)
            arrays[f"blocks.0.mlp.{name}"] = array
            del renamed[f"blocks.0.mlp.{name}"]
            renamed["blocks.0.mlp." + name.replace("fc1", "w12").replace("fc2", "w3")] = array
    expected, model = convert(arrays, num_heads=6), convert(renamed, num_heads=6)
    resize = "bicubic_offset" if variant == "swiglu" else "bicubic_antialias"  # DINOv2 without registers has its own
    assert replace(expected.config, preprocess=model.config.preprocess, posemb_resize=resize) == model.config
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(model), strict=True))
    if variant != "mae":
        back = export(model, layout="dinov2")
        assert set(back) == set(renamed)
        assert all(np.array_equal(back[key], renamed[key]) for key in back)


def npz(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def test_npz_of_any_byte_order(tmp_path):
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    read = read_checkpoint(npz(tmp_path / "a.npz", {"x.npy": npy(array), "y/z.npy": npy(np.asfortranarray(array))}))
    np.testing.assert_array_equal(read["x"], array.astype("<f4"))
    np.testing.assert_array_equal(read["y/z"], array)
    assert read["x"].dtype == np.float32


HEADER = npy(np.zeros(3, np.float32))
HOSTILE = {
    "objects": (npy(np.array([{}, 1], object), allow_pickle=True), "has the unsupported type object"),
    "strings": (npy(np.array(["a", "b"])), "has the unsupported type"),
    "no values": (HEADER[:-4], "does not have that size"),
    "more values": (HEADER + b"1234", "does not have that size"),
    "a wrong shape": (HEADER.replace(b"(3,)", b"(9,)"), "does not have that size"),
    "a huge shape": (
        HEADER.replace(b"(3,), }          ", b"(3000000000000,), }")[: len(HEADER)],
        "damaged|does not have",
    ),
    "a header of code": (HEADER.replace(b"(3,)", b"f() "), "damaged"),
    "no header": (b"\x93NUMPY\x01\x00", "damaged"),
    "another version": (b"\x93NUMPY\x09\x00" + HEADER[8:], "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_npz(case, tmp_path):
    data, message = HOSTILE[case]
    with pytest.raises(InputError, match=message) as error:
        read_checkpoint(npz(tmp_path / "x.npz", {"x.npy": data}))
    assert "x.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_and_flipped_npz(tmp_path):
    path = npz(tmp_path / "x.npz", {f"{i}.npy": npy(np.full(100, i, np.float32)) for i in range(4)})
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(intact)
        if trial % 2:
            damaged = damaged[: rng.integers(1, len(intact))]
        else:
            for position in rng.integers(0, len(intact), 3):
                damaged[position] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bytes(damaged))
        try:
            arrays = read_checkpoint(path)
        except InputError:
            refused += 1
            continue
        assert all(
            np.array_equal(array, np.full(100, int(name), np.float32))
            for name, array in arrays.items()
            if name.isdigit()
        )
    assert refused > 200
