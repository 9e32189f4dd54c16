"""CaptionConfig: everything that defines a caption model's architecture, and the named architectures."""

from dataclasses import dataclass, replace

from caption.preprocess import CaptionPreprocess, ViTPreprocess
from vit_jax import CONFIGS as VIT_CONFIGS
from vit_jax import InputError, ViTConfig


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet of bottleneck blocks (https://arxiv.org/abs/1512.03385) with frozen batch norm.

    Defaults are CATR's ResNet-101: the last stage is dilated instead of strided. A stage has its width inside its
    blocks, and `expansion` times as many output channels.

    Raises InputError for values that do not fit one another.
    """

    stage_depths: tuple[int, ...] = (3, 4, 23, 3)
    stage_widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    expansion: int = 4
    in_channels: int = 3
    dilated_last_stage: bool = True  # stride 16 instead of 32
    norm_eps: float = 1e-5  # torchvision's FrozenBatchNorm2d

    def __post_init__(self) -> None:
        if not self.stage_depths or len(self.stage_depths) != len(self.stage_widths):
            raise InputError(f"{len(self.stage_depths)} stage_depths for {len(self.stage_widths)} stage_widths")
        if min(*self.stage_depths, *self.stage_widths, self.stem_width, self.expansion, self.in_channels) < 1:
            raise InputError(f"depths, widths, expansion and channels must be at least 1: {self}")

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Return the stride of each stage's first block."""
        last = len(self.stage_depths) - 1
        return tuple(1 if i == 0 or (i == last and self.dilated_last_stage) else 2 for i in range(last + 1))

    @property
    def out_channels(self) -> int:
        """Return the number of output channels of the last stage."""
        return self.stage_widths[-1] * self.expansion


@dataclass(frozen=True)
class CaptionConfig:
    """A caption model: an image encoder, a DETR-like transformer over its grid, and a decoder of words.

    Defaults are CATR's. encoder_layers = 0 hands the encoder's projected output directly to the decoder: for a ViT,
    which is a transformer already. Dropout is where the reference has it, and only active in calls with a key.

    Raises InputError for values that do not fit one another.
    """

    encoder: ResNetConfig | ViTConfig = ResNetConfig()
    width: int = 256
    num_heads: int = 8
    mlp_dim: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    head_width: int = 512  # of the two hidden layers before the words
    vocab_size: int = 30522  # bert-base-uncased
    max_positions: int = 128  # maximum text length in tokens
    pad_token: int = 0  # its row of the word embedding is not trained
    dropout: float = 0.1
    norm_eps: float = 1e-5  # torch's default
    embedding_eps: float = 1e-12  # of the norm after word + position, as in BERT
    preprocess: CaptionPreprocess = CaptionPreprocess()  # noqa: RUF009  it is frozen

    def __post_init__(self) -> None:
        for name in ("width", "num_heads", "mlp_dim", "decoder_layers", "head_width", "vocab_size", "max_positions"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.encoder_layers < 0:
            raise InputError(f"encoder_layers must be at least 0, not {self.encoder_layers}")
        if self.width % self.num_heads:
            raise InputError(f"width {self.width} is not divisible by num_heads {self.num_heads}")
        if self.width % 4:
            raise InputError(f"width {self.width} is not divisible by 4, which the sines and cosines of y and x need")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is in [0, 1), not {self.dropout}")
        if not 0 <= self.pad_token < self.vocab_size:
            raise InputError(f"pad_token {self.pad_token} is not among the {self.vocab_size} tokens")
        encoder = self.encoder
        if isinstance(encoder, ViTConfig) and encoder.in_channels != 3:
            raise InputError(f"captioners take RGB pictures, and this encoder takes {encoder.in_channels} channels")
        has_head = isinstance(encoder, ViTConfig) and (encoder.num_classes or encoder.representation)
        if has_head or (
            isinstance(encoder, ViTConfig) and (encoder.pools_by_attention or encoder.final_norm == "pooled")
        ):
            raise InputError("a ViT encoder ends at its patches: no classes, no representation, no attention pooling")

    @property
    def image_preprocess(self) -> CaptionPreprocess | ViTPreprocess:
        """Return how pictures become the model's input: a ViT encoder's own preprocessing, else `preprocess`."""
        if isinstance(self.encoder, ResNetConfig):
            return self.preprocess
        return ViTPreprocess(self.encoder.image_preprocess)

    def describe(self) -> str:
        """Return the architecture in one line."""
        if isinstance(self.encoder, ResNetConfig):
            image = f"ResNet of {'+'.join(map(str, self.encoder.stage_depths))} blocks"
        else:
            image = f"ViT of {self.encoder.depth} blocks"
        return (
            f"{image}, {self.encoder_layers} + {self.decoder_layers} layers, width {self.width}, "
            f"{self.num_heads} heads, MLP {self.mlp_dim}, {self.vocab_size} words, {self.max_positions} positions"
        )


PUBLISHED_CONFIGS: dict[str, CaptionConfig] = {
    # https://github.com/saahiluppal/catr; its releases v1, v2 and v3 all have this architecture.
    "catr": CaptionConfig(),
    # The same decoder over ViT-B/16 at 224.
    "vit_b16": CaptionConfig(
        encoder=replace(VIT_CONFIGS["B_16"], num_classes=0, dropout=0.0, attention_dropout=0.0), encoder_layers=0
    ),
}

TOY_CONFIGS: dict[str, CaptionConfig] = {
    # Small enough to learn the generated 64-pixel scenes in minutes on a CPU.
    "scenes": CaptionConfig(
        encoder=ResNetConfig(
            stage_depths=(1, 1), stage_widths=(16, 32), stem_width=16, expansion=2, dilated_last_stage=False
        ),
        width=96,
        num_heads=4,
        mlp_dim=192,
        encoder_layers=1,
        decoder_layers=2,
        head_width=96,
        vocab_size=32,
        max_positions=16,
        dropout=0.0,
        preprocess=CaptionPreprocess(longest=64),
    ),
    # Small enough to train from scratch on a CPU.
    "mini": CaptionConfig(
        encoder=ResNetConfig(stage_depths=(1, 1, 1, 1), stage_widths=(16, 32, 64, 128), stem_width=16),
        width=128,
        num_heads=4,
        mlp_dim=256,
        encoder_layers=2,
        decoder_layers=2,
        head_width=128,
    ),
}

CONFIGS: dict[str, CaptionConfig] = PUBLISHED_CONFIGS | TOY_CONFIGS
