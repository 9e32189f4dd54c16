"""mixup and cutmix against torchvision's own code, and in a batch with rows of weight 0, which stay unmixed."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tests.create import create
from tests.optional import torch
from vit_jax import Preprocess, VisionTransformer, ViTConfig
from vit_jax.data.augment.mix import MixConfig, cutmix, mix_batch, mixup, partner_rows
from vit_jax.data.augment.transforms import Augment, augment_batch
from vit_jax.data.loader import Batch
from vit_jax.train.classify import classification_loss, make_prepare

H, W, CLASSES = 9, 13, 4
PREPROCESS = Preprocess()


def torchvision_mixup(images, labels, lam):
    """torchvision/transforms/v2/_augment.py, MixUp; images [B, C, H, W]."""

    def mix(x):
        return x.roll(1, 0).mul_(1.0 - lam).add_(x.mul(lam))

    return mix(images), mix(labels)


def torchvision_cutmix(images, labels, lam, r_y, r_x):
    """torchvision/transforms/v2/_augment.py, CutMix."""
    height, width = images.shape[-2:]
    r = 0.5 * math.sqrt(1.0 - lam)
    r_w_half, r_h_half = int(r * width), int(r * height)
    x1, y1 = max(r_x - r_w_half, 0), max(r_y - r_h_half, 0)
    x2, y2 = min(r_x + r_w_half, width), min(r_y + r_h_half, height)
    lam = float(1.0 - (x2 - x1) * (y2 - y1) / (width * height))
    output = images.clone()
    output[..., y1:y2, x1:x2] = images.roll(1, 0)[..., y1:y2, x1:x2]
    return output, labels.roll(1, 0).mul_(1.0 - lam).add_(labels.mul(lam))


def test_both_equal_torchvision(x64):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(5, H, W, 3)), rng.dirichlet(np.ones(CLASSES), 5)
    x, y = jnp.asarray(images), jnp.asarray(labels)
    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    partners = partner_rows(jnp.ones(5))
    blend = jax.jit(lambda lam: mixup(x, y, partners, lam))
    paste = jax.jit(lambda lam, row, column: cutmix(x, y, partners, lam, (row, column)))
    empty = full = 0
    for _ in range(200):
        lam = float(rng.beta(0.5, 0.5))
        row, column = int(rng.integers(H)), int(rng.integers(W))
        expected = [torchvision_mixup(*theirs, lam), torchvision_cutmix(*theirs, lam, row, column)]
        actual = [blend(jnp.asarray(lam)), paste(jnp.asarray(lam), jnp.asarray(row), jnp.asarray(column))]
        for (ours, our_labels), (other, other_labels) in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, other.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-14)
            np.testing.assert_allclose(our_labels, other_labels, rtol=0, atol=1e-14)
        empty += bool((actual[1][0] == x).all())
        full += bool((actual[1][0] != x).mean() > 0.6)
    assert empty > 5  # boxes without a pixel occur,
    assert full > 5  # and boxes of nearly the full image


def batch(real, padding=0, seed=0, fill=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (real, H, W, 3)).astype(np.uint8)
    images = np.concatenate([images, np.full((padding, H, W, 3), fill, np.uint8)])
    labels = np.concatenate([np.arange(real) % CLASSES, np.full(padding, fill % CLASSES)]).astype(np.int32)
    return Batch(images, labels, np.repeat([1.0, 0.0], [real, padding]).astype(np.float32))


def test_padding_rows_affect_no_other():
    """Four images have the same loss and gradient alone and before padding of any content."""
    config = ViTConfig(image_size=(9, 13), patch_size=(9, 13), width=8, depth=1, num_heads=2, mlp_dim=8, num_classes=4)
    model = create(VisionTransformer, config)
    model.head.kernel[...] = jax.random.normal(jax.random.key(1), (8, CLASSES))

    def loss_and_gradient(model, batch, key, mixing):
        def mean(model):
            loss = classification_loss(model, prepare(batch, key), None, label_smoothing=0.1)
            return loss.total / loss.divisor

        prepare = make_prepare(Augment(), PREPROCESS, mixing)
        return jax.value_and_grad(mean)(model)

    run = jax.jit(loss_and_gradient, static_argnums=3)
    losses = []
    for seed in range(6):
        key, mixing = jax.random.key(seed), MixConfig(0.8, 1.0, CLASSES)
        alone, dark, light = (run(model, b, key, mixing) for b in (batch(4), batch(4, 2), batch(4, 2, fill=201)))
        jax.tree.map(np.testing.assert_array_equal, dark, light)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), alone, dark)  # float32 sums of 4 and 6
        losses.append(float(alone[0]))
    assert len(set(losses)) == 6  # keys matter
    assert abs(losses[0] - float(run(model, batch(4), jax.random.key(0), MixConfig())[0])) > 1e-4


def test_unmixed_inputs_are_the_augmented_images():
    settings, key = Augment(crop_scale=(0.3, 1.0), flip=0.5, hue=0.2), jax.random.key(7)
    original = batch(5, 1)
    inputs = jax.jit(make_prepare(settings, PREPROCESS))(original, key)
    expected = jax.jit(lambda images: PREPROCESS.normalize(augment_batch(key, images, settings)))(
        jnp.asarray(original.images)
    )
    np.testing.assert_array_equal(inputs.images, expected)
    assert inputs.shares is None

    mixing = MixConfig(0.8, 0.0, CLASSES)  # does not change the random numbers of the augmentations
    labels = jax.nn.one_hot(original.labels, CLASSES)
    weights = jnp.asarray(original.weights)
    expected, soft = jax.jit(lambda x: mix_batch(jax.random.fold_in(key, 1), x, labels, weights, mixing))(expected)
    mixed = jax.jit(make_prepare(settings, PREPROCESS, mixing))(original, key)
    np.testing.assert_allclose(mixed.images, expected, atol=1e-6)
    np.testing.assert_allclose(mixed.shares, soft, atol=1e-6)
    assert 0 < float(soft[1, 1]) < 1
