"""CATR (https://github.com/saahiluppal/catr) v1 to v3: ResNet, DETR's transformer and a head over words.

torch packs q, k and v of an attention layer into one dense layer, as this library does.
"""

from caption import ResNetConfig
from weights_convert.layouts.inference import Shapes, count_layers
from weights_convert.layouts.layout import Layout
from weights_convert.model_types import CAPTION_MODEL
from weights_convert.rules import CONV, LINEAR, Rule, Transform, dense, norm

BODY = "backbone.0.body."
ENCODER, DECODER = "transformer.encoder.layers.{i}.", "transformer.decoder.layers.{i}."
STAGES, WORDS = 4, "transformer.embeddings."
# A 1x1 convolution [out, in, 1, 1] -> a dense layer [in, out].
POINTWISE = Transform(lambda w: w[:, :, 0, 0].T, lambda w: (w.T[:, :, None, None],))
STATISTICS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def conv_norm(conv: str, batch_norm: str, target: str) -> tuple[Rule, ...]:
    """Return the rules for a convolution without bias and its frozen batch norm."""
    return (
        Rule(f"{conv}.weight", f"{target}.kernel", CONV),
        *(Rule(f"{batch_norm}.{name}", f"{target}.norm.{parameter}") for name, parameter in STATISTICS.items()),
    )


def stage(number: int) -> tuple[Rule, ...]:
    """Return the rules for the blocks of a ResNet stage. torchvision counts stages from 1, this library from 0."""
    source, target = f"{BODY}layer{number}.", f"encoder.stages.{number - 1}."
    return (
        *conv_norm(source + "0.downsample.0", source + "0.downsample.1", target + "0.shortcut"),
        *(
            rule
            for i in (1, 2, 3)
            for rule in conv_norm(f"{source}{{i}}.conv{i}", f"{source}{{i}}.bn{i}", f"{target}{{i}}.conv{i}")
        ),
    )


def attention(source: str, target: str) -> tuple[Rule, ...]:
    """Return the rules for torch's MultiheadAttention."""
    return (
        Rule(f"{source}.in_proj_weight", f"{target}.qkv.kernel", LINEAR),
        Rule(f"{source}.in_proj_bias", f"{target}.qkv.bias"),
        *dense(f"{source}.out_proj", f"{target}.out"),
    )


RULES = (
    *conv_norm(BODY + "conv1", BODY + "bn1", "encoder.stem"),
    *(rule for number in range(1, STAGES + 1) for rule in stage(number)),
    Rule("input_proj.weight", "project.kernel", POINTWISE),
    Rule("input_proj.bias", "project.bias"),
    *norm(ENCODER + "norm1", "encoder_layers.{i}.norm1"),
    *attention(ENCODER + "self_attn", "encoder_layers.{i}.attn"),
    *norm(ENCODER + "norm2", "encoder_layers.{i}.norm2"),
    *dense(ENCODER + "linear1", "encoder_layers.{i}.mlp.up"),
    *dense(ENCODER + "linear2", "encoder_layers.{i}.mlp.down"),
    *norm("transformer.encoder.norm", "encoder_norm"),
    Rule(WORDS + "word_embeddings.weight", "embedding.words"),
    Rule(WORDS + "position_embeddings.weight", "embedding.positions"),
    *norm(WORDS + "LayerNorm", "embedding.norm"),
    *norm(DECODER + "norm1", "decoder_layers.{i}.norm1"),
    *attention(DECODER + "self_attn", "decoder_layers.{i}.attn"),
    *norm(DECODER + "norm2", "decoder_layers.{i}.norm2"),
    *attention(DECODER + "multihead_attn", "decoder_layers.{i}.cross"),
    *norm(DECODER + "norm3", "decoder_layers.{i}.norm3"),
    *dense(DECODER + "linear1", "decoder_layers.{i}.mlp.up"),
    *dense(DECODER + "linear2", "decoder_layers.{i}.mlp.down"),
    *norm("transformer.decoder.norm", "decoder_norm"),
    *dense("mlp.layers.{i}", "head.layers.{i}"),
)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of CaptionConfig except num_heads.

    The dilated last stage and every eps are CATR's; arrays do not show them.
    """
    blocks = [f"{BODY}layer{number}." for number in range(1, STAGES + 1)]
    widths = [shapes[block + "0.conv1.weight"][0] for block in blocks]
    stem_width, channels, _, _ = shapes[BODY + "conv1.weight"]
    vocab_size, width = shapes[WORDS + "word_embeddings.weight"]
    return dict(
        encoder=ResNetConfig(
            stage_depths=tuple(count_layers(shapes, block + "{i}.") for block in blocks),
            stage_widths=tuple(widths),
            stem_width=stem_width,
            expansion=shapes[blocks[0] + "0.conv3.weight"][0] // widths[0],
            in_channels=channels,
            dilated_last_stage=True,
            norm_eps=1e-5,
        ),
        width=width,
        mlp_dim=shapes[DECODER.replace("{i}", "0") + "linear1.weight"][0],
        encoder_layers=count_layers(shapes, ENCODER),
        decoder_layers=count_layers(shapes, DECODER),
        head_width=shapes["mlp.layers.0.weight"][0],
        vocab_size=vocab_size,
        max_positions=shapes[WORDS + "position_embeddings.weight"][0],
        pad_token=0,
        norm_eps=1e-5,
        embedding_eps=1e-12,
        dropout=0.1,
    )


LAYOUT = Layout(
    name="catr",
    title="CATR, the caption transformer",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        BODY + "conv1.weight",
        "input_proj.weight",
        WORDS + "word_embeddings.weight",
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight",
        "mlp.layers.2.weight",
    ),
    model_type=CAPTION_MODEL,
    wrapper="model",
)
