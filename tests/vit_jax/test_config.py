"""Named architectures: exact parameter counts, none left out; what a config refuses."""

import pytest

from vit_jax import CONFIGS, InputError, ViTConfig, count_parameters
from vit_jax.checkpoint import abstract_model
from vit_jax.position import Rotary

COUNTS = {
    "B_16": 102_595_923,
    "B_32": 104_252_499,
    "L_16": 325_690_707,
    "L_32": 327_899_475,
    "B_16_imagenet1k": 86_859_496,
    "B_32_imagenet1k": 88_297_192,
    "L_16_imagenet1k": 304_715_752,
    "L_32_imagenet1k": 306_632_680,
    "S_16": 22_050_664,
    "S_32": 22_878_952,
    "Ti_16": 5_717_416,
    "Mini_16": 1_298_058,
    "Mini_32": 1_586_826,
    "Nano_4": 206_282,
    "Nano_6": 208_842,
    "Nano_8": 213_770,
    "Pico_4": 28_586,
    "Pico_6": 29_866,
    "Pico_8": 32_330,
}


def test_no_config_is_left_out():
    assert set(COUNTS) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_count(name):
    assert count_parameters(abstract_model(CONFIGS[name])) == COUNTS[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(image_size=(100, 100)), "not divisible by the 16x16 patch; try 96x96"),
        (dict(image_size=(224, 100)), "224x100 is not divisible"),
        (dict(image_size=(8, 8)), "try 16x16"),
        (dict(image_size=(0, 8)), "positive"),
        (dict(num_heads=7), "not divisible by num_heads 7"),
        (dict(depth=0), "depth must be at least 1"),
        (dict(dropout=1.0), "dropout is in"),
        (dict(posemb_resize="lanczos"), "unknown posemb_resize"),
        (dict(posemb_resize="geometric"), "'geometric' is of a relative bias, and of a model without a position table"),
        (dict(relative_bias="all"), "unknown relative_bias 'all': one of none, blocks, shared"),
        (dict(relative_bias="blocks", num_registers=1), r"a relative bias needs \[class\] as the only token"),
        (dict(relative_bias="shared", class_token=False, pooling="gap"), r"a relative bias needs \[class\]"),
        (dict(rotary=Rotary(), width=72), "rotary positions need heads of a multiple of 4, not of 6"),
        (dict(rotary=Rotary(periods=(1.0,))), "1 rotary periods, and heads of 64 need 16"),
        (dict(pool_heads=7), "width 768 is not divisible by pool_heads 7"),
    ],
)
def test_numbers_that_do_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        ViTConfig(**change)


def test_resized_changes_the_size_of_preprocessed_images():
    config = CONFIGS["B_16_imagenet1k"].resized((64, 96))
    assert config.grid == (4, 6)
    assert config.num_tokens == 25
    assert config.image_preprocess.size == (64, 96)
