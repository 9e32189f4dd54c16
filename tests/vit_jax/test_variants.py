"""What small models do differently: post-norm, ReLU, a head MLP, the mean of all tokens, 1 to N input channels.

Compared with torch's nn.TransformerEncoder in a small model written here; its properties under every execution.
"""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from tests.jaxprs import primitives_of
from tests.optional import torch
from vit_jax import InputError, VisionTransformer, ViTConfig, forward_with_attention, load, readout, save
from vit_jax.attention import attention_weights, dropout
from vit_jax.block import Block, drop_path, swiglu
from vit_jax.checkpoint import from_arrays
from vit_jax.execution import PLAIN_EXECUTION, BlockExecution
from vit_jax.explain import METHODS
from vit_jax.explain.gradients import trace_attention
from vit_jax.explain.methods import MethodOptions

pytestmark = pytest.mark.parity

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=(4, 4), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=5, norm_eps=1e-5
)
POST = replace(CONFIG, norm_position="post", final_norm="none")
VARIANTS = {
    "pre-norm, relu": replace(CONFIG, activation="relu", final_norm="none"),
    "pre-norm, gelu, final norm, head of gelu": replace(CONFIG, representation=10, representation_activation="gelu"),
    "post-norm, relu": replace(POST, activation="relu"),
    "post-norm, gelu, head of relu": replace(POST, representation=10, representation_activation="relu"),
    "post-norm, final norm, head of tanh": replace(POST, final_norm="tokens", representation=10),
    "mean of all tokens, normed after, 1 channel": replace(POST, pooling="mean", final_norm="pooled", in_channels=1),
    "mean of all tokens, 5 channels": replace(CONFIG, pooling="mean", in_channels=5),
    "mean of the patches, 2 channels": replace(POST, pooling="gap", in_channels=2),
}
EXECUTIONS = {
    "plain": PLAIN_EXECUTION,
    "scan": BlockExecution(scan=True),
    "scan and remat": BlockExecution(scan=True, remat="full"),
}
POOLS = {"cls": lambda x: x[:, 0], "mean": lambda x: x.mean(1), "gap": lambda x: x[:, 1:].mean(1)}


def create_in_float64(config, seed=0):
    """Return a random model; its norms and biases are far from 1 and 0."""
    model = create(VisionTransformer, config, seed=seed)
    keys = iter(jax.random.split(jax.random.key(seed), 200))
    return jax.tree.map(lambda x: x.astype(jnp.float64) + 0.2 * jax.random.normal(next(keys), x.shape), model)


def draw_images(config, count=2):
    shape = (count, *config.image_size, config.in_channels)
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, shape))


def torch_model(config):
    """Return a model as people write it on nn.TransformerEncoder, in float64 and eval mode."""
    nn, (ph, pw) = torch.nn, config.patch_size
    activations = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}

    class SmallViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Linear(ph * pw * config.in_channels, config.width)
            self.cls = nn.Parameter(torch.randn(1, 1, config.width))
            self.pos = nn.Parameter(torch.randn(1, config.num_tokens, config.width))
            layer = nn.TransformerEncoderLayer(
                config.width,
                config.num_heads,
                config.mlp_dim,
                activation=config.activation,
                batch_first=True,
                norm_first=config.norm_position == "pre",
            )
            self.encoder = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(config.width) if config.final_norm != "none" else nn.Identity()
            width, hidden = config.width, config.representation
            steps = [nn.Linear(width, hidden), activations[config.representation_activation]()] if hidden else []
            self.head = nn.Sequential(*steps, nn.Linear(hidden or width, config.num_classes))

        def forward(self, images):
            b, h, w, c = images.shape
            x = images.reshape(b, h // ph, ph, w // pw, pw, c).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
            x = torch.cat([self.cls.expand(b, -1, -1), self.patches(x)], dim=1) + self.pos
            x = self.encoder(x)
            if config.final_norm == "pooled":
                return self.head(self.norm(POOLS[config.pooling](x)))
            return self.head(POOLS[config.pooling](self.norm(x)))

    torch.manual_seed(0)
    model = SmallViT().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def from_torch(config, module):
    """Return our model with a SmallViT's parameters."""
    state = reference.state_arrays(module)
    arrays = {
        "patch_embed.kernel": state["patches.weight"].T.reshape(*config.patch_size, config.in_channels, config.width),
        "patch_embed.bias": state["patches.bias"],
        "class_token": state["cls"],
        "position_embedding": state["pos"],
    }

    def copy(ours, theirs, kernel="kernel"):
        arrays[f"{ours}.{kernel}"] = state[f"{theirs}.weight"].T
        arrays[f"{ours}.bias"] = state[f"{theirs}.bias"]

    for i in range(config.depth):
        ours, theirs = f"blocks.{i}.", f"encoder.layers.{i}."
        arrays[ours + "attn.qkv.kernel"] = state[theirs + "self_attn.in_proj_weight"].T
        arrays[ours + "attn.qkv.bias"] = state[theirs + "self_attn.in_proj_bias"]
        copy(ours + "attn.out", theirs + "self_attn.out_proj")
        copy(ours + "mlp.up", theirs + "linear1")
        copy(ours + "mlp.down", theirs + "linear2")
        copy(ours + "norm1", theirs + "norm1", "scale")
        copy(ours + "norm2", theirs + "norm2", "scale")
    if config.final_norm != "none":
        copy("norm", "norm", "scale")
    layers = ["representation", "head"] if config.representation else ["head"]
    for index, name in enumerate(layers):
        copy(name, f"head.{2 * index}")
    return from_arrays(config, arrays)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_attention_are_those_of_torch(name, x64):
    config = VARIANTS[name]
    theirs, images = torch_model(config), draw_images(config)
    ours, x = from_torch(config, theirs), torch.from_numpy(np.array(images))
    inputs = []
    for layer in theirs.encoder.layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        logits = theirs(x).numpy()
        weights = [
            layer.self_attn(*[layer.norm1(z) if layer.norm_first else z] * 3, average_attn_weights=False)[1].numpy()
            for layer, z in zip(theirs.encoder.layers, inputs, strict=True)
        ]
    output = forward_with_attention(ours, images)
    assert reference.relative_error(ours(images), logits) < 1e-9
    assert reference.relative_error(output.logits, logits) < 1e-9
    assert reference.relative_error(output.attention, np.stack(weights)) < 1e-9


@pytest.mark.parametrize("name", EXECUTIONS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_execution_does_not_change_the_output(name, pooling, x64):
    """With pooling by [class] alone the last block computes one query."""
    config = replace(POST, pooling=pooling, layer_scale=True, activation="relu")
    model, images = create_in_float64(config), draw_images(config)
    expected = forward_with_attention(model, images).logits
    np.testing.assert_allclose(model(images, execution=EXECUTIONS[name]), expected, rtol=0, atol=1e-12)


def test_the_plain_program_has_no_nested_jit():
    config = replace(POST, activation="relu", representation=6, representation_activation="relu", pooling="mean")
    model, images = create(VisionTransformer, config), draw_images(config).astype(jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: model(x, execution=PLAIN_EXECUTION))(images).jaxpr
    assert not primitives_of(jaxpr) & {"optimization_barrier", "remat2", "checkpoint", "split", "jit", "pjit"}


def test_a_post_norm_block_drops_branches_before_the_sum(x64):
    """As nn.TransformerEncoderLayer: dropout on the branch, then the sum, then the norm."""
    config = replace(POST, layer_scale=True, dropout=0.3, attention_dropout=0.2)
    block = jax.tree.map(lambda x: x.astype(jnp.float64), create(Block, config))
    x, key, rate = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 16))), jax.random.key(3), jnp.float32(0.4)
    attention_key, out_key, mlp_key = jax.random.split(key, 3)

    def drop(branch, scale, key):
        return drop_path(dropout(branch * scale[...].reshape(1, 1, -1), 0.3, key), rate, key)

    y = block.norm1(x + drop(block.attn(x, key=attention_key)[0], block.scale1, out_key))
    expected = block.norm2(y + drop(block.mlp(y), block.scale2, mlp_key))
    output, _ = block(x, key=key, drop_path_rate=rate)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    assert float(jnp.abs(output - block(x)[0]).max()) > 0.01


def test_gradients_in_the_attention_are_finite_differences(x64):
    config = replace(POST, pooling="mean", activation="relu", representation=6, representation_activation="gelu")
    model, images = create_in_float64(config), draw_images(config, 1)
    trace = trace_attention(model, images, [0, 1])
    gradients = trace.pull(jax.nn.one_hot(jnp.array([2]), config.num_classes, dtype=jnp.float64))
    step = 1e-6
    for layer, entry in [(0, (0, 1, 3, 2)), (1, (0, 0, 0, 5))]:
        nudges = jnp.zeros((2, *trace.weights[layer].shape[1:])).at[:, *entry[1:]].set(jnp.array([step, -step]))
        tokens = model.run(jnp.repeat(images, 2, axis=0), perturbations={layer: nudges}).tokens
        up, down = model.classify(model.apply_final_norm(tokens))[:, 2]
        difference = float(up - down) / (2 * step)
        assert abs(difference) > 1e-4
        np.testing.assert_allclose(gradients[layer][entry], difference, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_a_post_norm_model_of_one_channel(method):
    config = replace(POST, pooling="mean", activation="relu", in_channels=1)
    model, images = create(VisionTransformer, config), draw_images(config).astype(jnp.float32)
    maps = METHODS[method].run(model, images, jnp.array([[0, 3], [1, 2]]), MethodOptions(steps=2, num_masks=4))
    assert maps.shape == {"rise": (2, 2, 8, 12), "pca": (2, 2, 6, 3)}.get(method, (2, 2, 6))
    assert np.isfinite(maps).all()
    assert np.asarray(maps).any()


def test_the_mean_reads_every_token():
    config = replace(CONFIG, pooling="mean", num_registers=2)
    model = create(VisionTransformer, config)
    np.testing.assert_allclose(readout(model, 9), np.full(9, 1 / 9), rtol=1e-6)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 16)), jnp.float32)
    np.testing.assert_allclose(model.classify(features), model.head(features.mean(axis=1)), rtol=1e-5, atol=1e-6)
    assert not replace(config, class_token=False, num_registers=0).num_prefix  # it needs no [class]


def test_inner_norms_are_before_the_output_layers(x64):
    """Of the concatenated heads, and of the MLP's activations (EVA-02)."""
    config = replace(CONFIG, attention_norm=True, mlp_norm=True, activation="swiglu", norm_eps=0.1)
    block = jax.tree.map(lambda x: x.astype(jnp.float64), create(Block, config))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 16)))

    def normalise(x, norm):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.1)
        return scaled * norm.scale[...][None, None] + norm.bias[...][None, None]

    q, k, v = block.attn.project(x, "qkv")
    heads = jnp.einsum("bhnm,bmhk->bnhk", attention_weights(q, k), v).reshape(2, 7, 16)
    expected = block.attn.out(normalise(heads, block.attn.norm))
    np.testing.assert_allclose(block.attn(x)[0], expected, rtol=1e-12, atol=1e-12)
    expected = block.mlp.down(normalise(swiglu(block.mlp.up(x)), block.mlp.norm))
    np.testing.assert_allclose(block.mlp(x), expected, rtol=1e-12, atol=1e-12)


def test_attention_pooling_may_have_heads_of_its_own_and_read_every_token(x64):
    config = replace(CONFIG, pooling="map_all", pool_heads=4, num_registers=1)
    model = create_in_float64(config)
    assert model.pool.num_heads == 4
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 16)))
    pooled = model.pool_features(tokens)
    np.testing.assert_array_equal(pooled, model.pool(tokens))
    moved = model.pool_features(tokens.at[:, 0].add(1.0))  # [class]
    assert float(jnp.abs(moved - pooled).max()) > 1e-3
    with pytest.raises(InputError, match="attention pooling: no fixed row"):
        readout(model, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(norm_position="sandwich"), "unknown norm_position 'sandwich': one of pre, post"),
        (dict(activation="tanh"), "unknown activation 'tanh'"),
        (
            dict(representation_activation="swiglu"),
            "unknown representation_activation 'swiglu': one of tanh, gelu, relu",
        ),
        (dict(pooling="sum"), "unknown pooling 'sum': one of cls, gap, cls_gap, mean, map, map_all"),
    ],
    ids=str,
)
def test_unknown_variants_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)


def test_variants_are_saved_and_older_files_load(tmp_path):
    config = replace(POST, activation="relu", representation=6, representation_activation="gelu", pooling="mean")
    model = create(VisionTransformer, config)
    save(model, tmp_path / "new")
    assert load(tmp_path / "new").config == config
    save(create(VisionTransformer, CONFIG), tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    card = json.loads(path.read_text())
    for name in ("norm_position", "representation_activation", "position_table", "rotary", "relative_bias", "key_bias"):
        del card["config"][name]
    path.write_text(json.dumps(card))
    assert load(tmp_path / "old").config == CONFIG
