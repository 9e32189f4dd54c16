"""Helpers for parity tests with small torch models: random parameters, recorded attention, comparison."""

import jax
import numpy as np

import tests.reference as reference
from tests.optional import torch
from vit_jax import forward_with_attention

forward = jax.jit(forward_with_attention)


def randomize(model, seed=0):
    """Return the model in float64 and eval mode, no parameter at its initial value."""
    torch.manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def record_attention(model):
    """Make every nn.MultiheadAttention of a model append its weights [B, H, N, N] to the list returned."""
    recorded = []

    def record(module, arguments, options, output):
        weights = torch.nn.functional.multi_head_attention_forward(
            *(x.transpose(0, 1) for x in arguments[:3]),
            module.embed_dim,
            module.num_heads,
            module.in_proj_weight,
            module.in_proj_bias,
            None,
            None,
            False,
            0.0,
            module.out_proj.weight,
            module.out_proj.bias,
            training=False,
            average_attn_weights=False,
        )[1]
        recorded.append(weights.detach().numpy())

    for module in model.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.register_forward_hook(record, with_kwargs=True)
    return recorded


def run_original(model, images):
    """Return a torch model's output for NHWC images. Gradients stay on: without them torch skips hooks in encoders."""
    return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).detach().numpy()


def check_parity(model, images, logits, attention, bound=1e-9):
    """Assert that a converted model returns the original's logits and attention weights."""
    output = forward(model, images)
    assert reference.relative_error(output.logits, logits) < bound
    assert len(attention) == len(output.attention)
    for actual, expected in zip(output.attention, attention, strict=True):
        assert reference.relative_error(actual, expected) < bound


def check_arrays(actual, expected):
    """Assert that two {name: array} have the same names, shapes and values, bit for bit."""
    assert set(actual) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name, strict=True)
