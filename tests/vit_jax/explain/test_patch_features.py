"""PCA, similarity, norms, attention distance and the logit lens against scikit-learn, numpy and loops, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

import tests.reference as reference
from tests.create import create
from vit_jax import (
    InputError,
    VisionTransformer,
    ViTConfig,
    attention_distance,
    forward_with_attention,
    logit_lens,
    patch_pca,
    patch_similarity,
    token_norms,
)
from vit_jax.explain import (
    attention_distance_from_images,
    foreground_mask,
    patch_distances,
    scale_to_colours,
)

GRID, PREFIX = (3, 4), 2
TINY = dict(image_size=(24, 16), patch_size=(8, 8), width=12, depth=2, num_heads=2, mlp_dim=16, num_classes=5)


@pytest.fixture
def features(x64):
    """Tokens [3, 2 + 12, 7] whose directions have different variances."""
    random = np.random.default_rng(0)
    return random.normal(size=(3, 14, 7)) * np.array([3.0, 2.2, 1.5, 1.0, 0.8, 0.5, 0.2]) + random.normal(size=7)


def test_pca_of_several_pictures_is_scikit_learns(features):
    scores = jax.jit(patch_pca, static_argnames=("num_prefix", "components"))(features, num_prefix=PREFIX, components=4)
    expected = PCA(4, svd_solver="full").fit_transform(features[:, PREFIX:].reshape(-1, 7))
    np.testing.assert_allclose(scores, expected.reshape(3, 12, 4), rtol=1e-9, atol=1e-12)


def test_pca_with_a_mask_is_fitted_to_its_patches_and_projects_all(features):
    mask = np.random.default_rng(1).uniform(size=(3, 12)) < 0.6
    patches = features[:, PREFIX:]
    fitted = PCA(3, svd_solver="full").fit(patches[mask])
    scores = patch_pca(features, num_prefix=PREFIX, mask=mask)
    np.testing.assert_allclose(scores.reshape(-1, 3), fitted.transform(patches.reshape(-1, 7)), rtol=1e-9, atol=1e-12)


def test_signs_do_not_depend_on_the_order_of_patches_and_pictures(features):
    scores = patch_pca(features, num_prefix=0)
    turned = patch_pca(features[::-1, ::-1], num_prefix=0)
    np.testing.assert_allclose(turned[::-1, ::-1], scores, rtol=1e-9, atol=1e-12)


def test_pictures_of_their_own_fit_are_mapped(features):
    mapped = jax.vmap(lambda one: patch_pca(one[None], num_prefix=PREFIX)[0])(features)
    for one, scores in zip(features[:, PREFIX:], mapped, strict=True):
        np.testing.assert_allclose(scores, PCA(3, svd_solver="full").fit_transform(one), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_the_side_that_the_border_lacks(x64, sign):
    """The sign of the features does not matter."""
    object_mask = np.zeros((5, 6), bool)
    object_mask[1:4, 2:5] = True
    features = np.random.default_rng(0).normal(scale=0.1, size=(2, 1 + 30, 7))
    features[:, 1:, 3] += sign * object_mask.ravel()
    found = foreground_mask(features, num_prefix=1, grid=(5, 6))
    np.testing.assert_array_equal(found, np.tile(object_mask.ravel(), (2, 1)))


def test_colours_span_the_quantiles_of_the_kept_patches(x64):
    scores = np.random.default_rng(0).normal(size=(2, 50, 3))
    mask = np.random.default_rng(1).uniform(size=(2, 50)) < 0.7
    low, high = np.quantile(scores[mask], (0.01, 0.99), axis=0)
    expected = ((scores - low) / (high - low)).clip(0, 1) * mask[..., None]
    np.testing.assert_allclose(scale_to_colours(scores, mask), expected, rtol=1e-9, atol=1e-12)
    assert not np.asarray(scale_to_colours(np.ones((4, 3)))).any()


def test_similarity_to_a_patch_is_the_cosine(features):
    patches = features[:, PREFIX:]
    expected = [
        [p @ one[5] / (np.linalg.norm(p) * np.linalg.norm(one[5])) for p in one] for one in patches
    ]  # fmt: skip
    found = patch_similarity(features, 5, num_prefix=PREFIX)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found[:, 5], 1, rtol=1e-12)


def test_similarity_to_a_region_is_the_cosine_to_the_mean_direction(features):
    patches = features[:, PREFIX:]
    unit = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
    region = unit[:, [1, 4, 5]].mean(axis=1)
    expected = np.einsum("bnd,bd->bn", unit, region / np.linalg.norm(region, axis=-1, keepdims=True))
    np.testing.assert_allclose(patch_similarity(features, [1, 4, 5], num_prefix=PREFIX), expected, rtol=1e-9)
    chosen = np.isin(np.arange(12), [1, 4, 5])
    np.testing.assert_allclose(patch_similarity(features, chosen, num_prefix=PREFIX), expected, rtol=1e-9)


def test_norms_are_those_of_the_patches(features):
    expected = np.sqrt((features[:, PREFIX:] ** 2).sum(axis=-1))
    np.testing.assert_allclose(token_norms(features, num_prefix=PREFIX), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: patch_pca(x, num_prefix=0, components=8), "components must be 1 to 7"),
        (lambda x: patch_pca(x, num_prefix=0, components=0), "components must be 1 to 7"),
        (lambda x: patch_pca(x[:1], num_prefix=11), "3 components need at least 4 patches, not 3"),
        (lambda x: patch_pca(x, num_prefix=2, mask=np.ones((3, 14), bool)), r"mask of shape \[3, 14\] does not fit"),
        (lambda x: patch_pca(x, num_prefix=2, mask=np.zeros((3, 12), bool)), "not 0"),
        (lambda x: patch_pca(x, num_prefix=14), "num_prefix must be 0 to 13"),
        (lambda x: patch_similarity(x, 12, num_prefix=2), "no patch 12: there are 12, counted 0 to 11"),
        (lambda x: patch_similarity(x, [3, -1], num_prefix=2), "no patch -1"),
        (lambda x: patch_similarity(x, [], num_prefix=2), "whole numbers"),
        (lambda x: patch_similarity(x, np.zeros(12, bool), num_prefix=2), "no patch; give at least one"),
        (lambda x: patch_similarity(x, np.ones(14, bool), num_prefix=2), r"shape \[12\], not \[14\]"),
        (lambda x: patch_similarity(x, 1.5, num_prefix=2), "whole numbers"),
        (lambda x: token_norms(x, num_prefix=-1), "num_prefix must be 0 to 13"),
        (lambda x: foreground_mask(x, num_prefix=2, grid=(3, 5)), "12 patches are not a 3x5 grid"),
        (lambda x: scale_to_colours(x, np.ones((3, 13), bool)), r"mask of shape \[3, 13\]"),
    ],
)
def test_wrong_input_is_one_line(features, call, message):
    with pytest.raises(InputError, match=message) as error:
        call(features)
    assert "\n" not in str(error.value)


def test_attention_distance_is_the_weighted_mean_of_pixel_distances(x64):
    weights = np.random.default_rng(0).uniform(size=(1, 2, 3, 14, 14))
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.zeros((1, 2, 3))
    for b, h in np.ndindex(2, 3):
        for q in range(12):
            row = weights[0, b, h, PREFIX + q, PREFIX:]
            apart = [np.hypot(8 * (q // 4 - k // 4), 6 * (q % 4 - k % 4)) for k in range(12)]
            expected[0, b, h] += row @ apart / row.sum() / 12
    found = attention_distance(jnp.asarray(weights), GRID, num_prefix=PREFIX, patch_size=(8, 6))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert patch_distances((2, 2)).tolist() == [
        [0, 1, 1, 2**0.5], [1, 0, 2**0.5, 1], [1, 2**0.5, 0, 1], [2**0.5, 1, 1, 0],
    ]  # fmt: skip
    with pytest.raises(InputError, match="14 tokens are not 1 prefix tokens and a 3x4 grid"):
        attention_distance(jnp.asarray(weights), GRID, num_prefix=1)


def test_attention_distance_layer_by_layer_is_that_of_all_weights(x64):
    model = jax.tree.map(lambda leaf: leaf.astype("float64"), create(VisionTransformer, ViTConfig(**TINY)))
    images = reference.images(3, 2, 24, 16)
    attention = forward_with_attention(model, images).attention
    expected = attention_distance(attention, (3, 2), num_prefix=1, patch_size=(8, 8))
    np.testing.assert_allclose(attention_distance_from_images(model, images), expected, rtol=1e-12)


LENS = {
    "cls": dict(),
    "distillation": dict(distillation_token=True, distillation_head=True),
    "gap, norm of the pooled": dict(pooling="gap", final_norm="pooled", class_token=False),
    "cls_gap": dict(pooling="cls_gap", num_registers=1),
    "map": dict(pooling="map", class_token=False),
    "pre_logits": dict(representation=6),
}


@pytest.mark.parametrize("name", LENS)
def test_the_lens_reads_a_token_as_the_head_reads_a_sequence_of_it(x64, name):
    config = ViTConfig(**TINY, **LENS[name])
    model = jax.tree.map(lambda leaf: leaf.astype("float64"), create(VisionTransformer, config))
    images = reference.images(3, 2, 24, 16)
    lens = jax.jit(logit_lens)(model, images)
    outputs = model.run(images, return_outputs=True).outputs
    tokens = config.num_prefix + 6
    assert lens.shape == (3, 2, tokens, 5)
    for layer, token in ((0, 0), (1, tokens - 1), (2, 1)):
        repeated = jnp.broadcast_to(outputs[layer][:, token : token + 1], (2, tokens, 12))
        expected = model.classify(model.apply_final_norm(repeated))
        np.testing.assert_allclose(lens[layer, :, token], expected, rtol=1e-9)
    if name == "cls":
        np.testing.assert_allclose(lens[-1, :, 0], model(images), rtol=1e-9)


def test_the_lens_needs_a_head():
    model = create(VisionTransformer, ViTConfig(**TINY | dict(num_classes=0)))
    with pytest.raises(InputError, match="no classification head"):
        logit_lens(model, reference.images(3, 1, 24, 16).astype(np.float32))
