"""Augmentation of image batches on the device: crops, turns, colours, RandAugment, mixup and cutmix."""

from vit_jax.data.augment.mix import NO_MIX, MixConfig, mix_batch
from vit_jax.data.augment.rand_augment import apply_rand_augment
from vit_jax.data.augment.transforms import Augment, augment_batch, augment_one

__all__ = ["NO_MIX", "Augment", "MixConfig", "apply_rand_augment", "augment_batch", "augment_one", "mix_batch"]
