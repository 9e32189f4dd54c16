"""CATR's loss, parameter groups and optimiser against the golden figures of the reference's training; definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import caption.model
import tests.reference as reference
from caption import CONFIGS, caption_loss, make_optimizer, parameter_groups, trainable
from caption.checkpoint import abstract_model
from tests.caption.positions import torch_positions
from tests.optional import torch
from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from weights_convert import convert, export


def sample_array(arrays, name):
    flat = arrays[name].reshape(-1)
    return flat[:: max(1, flat.size // 64)][:64]


@pytest.mark.slow
def test_three_steps(x64, monkeypatch):
    """Losses, gradient norms before clipping, gradients, and parameters after three steps of AdamW."""
    golden, parity = reference.golden_arrays("catr_train"), reference.golden_arrays("catr")
    positions = jnp.asarray(torch_positions(~parity["b_fmask"], 256))
    monkeypatch.setattr(caption.model, "sine_positions", lambda mask, width: positions)
    model = convert(reference.catr_parameters())
    images, mask = reference.catr_padded()
    tokens, content = golden["tokens"], ~golden["caption_mask"]
    optimizer = make_optimizer(model)
    is_trained = trainable(model)

    def loss_of(model):
        return caption_loss(model(images, mask, tokens[:, :-1], content[:, :-1], padding="reference"), tokens[:, 1:])

    @jax.jit
    def step(model, state):
        loss, gradients = jax.value_and_grad(loss_of)(model)
        norm = optax.tree.norm([g for name, g in to_arrays(gradients).items() if is_trained[name]])
        updates, state = optimizer.update(gradients, state, model)
        return optax.apply_updates(model, updates), state, loss, norm, gradients

    state = optimizer.init(model)
    for index in range(3):
        model, state, loss, norm, gradients = step(model, state)
        print(f"loss {reference.relative_error(loss, golden['losses'][index]):.1e}", end=", ")
        print(f"norm {reference.relative_error(norm, golden['grad_norms'][index]):.1e}")
        assert reference.relative_error(loss, golden["losses"][index]) < 1e-9
        assert reference.relative_error(norm, golden["grad_norms"][index]) < 1e-9
        if index == 0:
            arrays = export(gradients, layout="catr")
            compare(arrays, golden, "grad0")
    compare(export(model, layout="catr"), golden, "param3")


def compare(arrays, golden, kind):
    names = [name.removeprefix(f"{kind}/") for name in golden if name.startswith(f"{kind}/")]
    assert names
    for name in names:
        error = reference.relative_error(sample_array(arrays, name), golden[f"{kind}/{name}"])
        print(f"{kind} {name} {error:.1e}")
        assert error < 1e-9, name


@pytest.mark.slow
def test_groups_are_the_references():
    model = abstract_model(CONFIGS["catr"])
    groups = parameter_groups(model)
    assert groups["encoder.stem.kernel"] == groups["encoder.stages.0.2.conv3.kernel"] == "frozen"
    assert groups["encoder.stages.1.0.conv1.kernel"] == groups["encoder.stages.3.0.shortcut.kernel"] == "backbone"
    assert groups["encoder.stages.3.2.conv3.norm.scale"] == "frozen"
    assert groups["project.kernel"] == groups["decoder_layers.0.norm1.scale"] == "rest"
    assert (
        sum(group == "backbone" for group in groups.values()) == 3 * (4 + 23 + 3) + 3
    )  # three convolutions a block, and a shortcut a stage
    none_frozen = parameter_groups(model, frozen_stages=0)
    assert none_frozen["encoder.stem.kernel"] == "backbone"
    assert none_frozen["encoder.stem.norm.mean"] == "frozen"
    with pytest.raises(InputError, match="frozen_stages is between 0 and 4, not 5"):
        parameter_groups(model, frozen_stages=5)


def test_all_parameters_of_a_vit_are_trained():
    assert set(parameter_groups(abstract_model(CONFIGS["vit_b16"])).values()) == {"backbone", "rest"}


@pytest.mark.parametrize("ignored", [None, 0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torchs(ignored, smoothing, x64):
    random = np.random.RandomState(0)
    logits, targets = random.standard_normal((2, 5, 7)), random.randint(0, 3, (2, 5))
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).reshape(-1, 7),
        torch.from_numpy(targets).reshape(-1),
        ignore_index=-100 if ignored is None else ignored,
        label_smoothing=smoothing,
    )
    ours = caption_loss(jnp.asarray(logits), targets, ignore_token=ignored, label_smoothing=smoothing)
    assert abs(float(ours) - theirs.item()) < 1e-12


def test_padding_alone_has_zero_loss():
    assert float(caption_loss(jnp.ones((1, 2, 3)), np.zeros((1, 2), int), ignore_token=0)) == 0
