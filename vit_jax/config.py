"""The configuration of a vision transformer, and the named architectures."""

from dataclasses import dataclass, replace
from typing import Any

from vit_jax.errors import InputError
from vit_jax.position import RESIZE_METHODS, Rotary
from vit_jax.preprocess import ImagePreprocess, Preprocess
from vit_jax.suggest import describe_unknown

SINGLE_LABEL, MULTI_LABEL = "single_label", "multi_label"
CHOICES = {
    "task": (SINGLE_LABEL, MULTI_LABEL),
    "posemb_resize": tuple(RESIZE_METHODS),
    "relative_bias": ("none", "blocks", "shared"),
    "pooling": ("cls", "gap", "cls_gap", "mean", "map", "map_all"),
    "norm": ("layer", "rms"),
    "norm_position": ("pre", "post"),
    "final_norm": ("tokens", "pooled", "none"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"),
    "representation_activation": ("tanh", "gelu", "relu"),
}


def as_pair(size: Any) -> tuple[int, int]:
    """Return an int or a (height, width) sequence as a (height, width) tuple. Raises InputError for anything else."""
    values = (size, size) if isinstance(size, int) else tuple(size)
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise InputError(f"a size is a positive int or (height, width), not {size!r}")
    return values


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer's architecture.

    The defaults are those of ViT-B/16. Sizes are (height, width) in pixels.

    dropout:           rate on the output of each branch, applied when a call passes a key.
    attention_dropout: rate on the attention weights. PyTorch-Pretrained-ViT uses 0.1 for both; it never reads its
                       attention_dropout_rate = 0.
    drop_path:         drop-path rate of the last block (stochastic depth); it grows linearly from 0 at the first.
    preprocess:        how images were normalised and resized when the weights were trained. One mean and std for all
                       channels, as the default, stand for any number of channels.

    Raises InputError for values that are out of range or contradict one another.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    attention_width: int = 0  # heads * head size; 0: the width
    num_classes: int = 1000  # 0: no head
    task: str = SINGLE_LABEL  # "multi_label": an image has a set of classes; see vit_jax/prediction.py
    in_channels: int = 3
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    class_token: bool = True
    position_table: bool = True  # whether learned positions are added to the patches
    class_position: bool = True  # whether the position table has an entry for [class]
    rotary: Rotary | None = None  # rotation of queries and keys (DINOv3, EVA-02, Perception Encoder)
    relative_bias: str = "none"  # of the attention scores: a table in each of the "blocks" (BEiT), or one "shared"
    distillation_token: bool = False  # DeiT
    distillation_head: bool = False  # with its own head; the logits are the mean of both heads
    num_registers: int = 0  # learned tokens after [class], without position embeddings
    # Input of the head: "cls" [class], "gap" the mean of the patches, "cls_gap" both concatenated, "mean" the mean of
    # all tokens, [class] and registers included (vit-pytorch), "map" attention to the patches, "map_all" attention to
    # all tokens (Perception Encoder).
    pooling: str = "cls"
    pool_heads: int = 0  # heads of attention pooling; 0: num_heads
    # Attention pooling without a layer of the query or an MLP after it, biases of keys and values as qkv_bias (AIMv2).
    plain_pool: bool = False
    norm: str = "layer"  # every norm is a LayerNorm, or "rms" x / sqrt(mean(x^2) + eps), scaled (AIMv2)
    # Of a block's norms: "pre" x + branch(norm(x)), "post" norm(x + branch(x)) (torch's nn.TransformerEncoderLayer).
    norm_position: str = "pre"
    final_norm: str = "tokens"  # the last norm is applied to "tokens" or to the "pooled" vector; or "none"
    pre_norm: bool = False  # a norm before the first block (CLIP)
    layer_scale: bool = False  # a learned scale on each branch (DeiT-III, DINOv2)
    # Of the MLP: "gelu" (erf), "gelu_tanh" (SigLIP), "quick_gelu" (CLIP), "relu" (torch's nn.TransformerEncoderLayer),
    # or "swiglu" (mlp_dim and a gate of mlp_dim).
    activation: str = "gelu"
    representation: int = 0  # width of a dense layer before the head (pre_logits, a head MLP); 0: none
    representation_activation: str = "tanh"  # of that layer: "tanh" (pre_logits), "gelu" (erf), "relu"
    qkv_bias: bool = True
    key_bias: bool = True  # False: the keys' part of qkv's bias is held at zero (DINOv3, EVA-02, BEiT)
    attention_norm: bool = False  # a norm before the attention's output layer (EVA-02's CLIP)
    mlp_norm: bool = False  # a norm before the MLP's output layer (EVA-02 base and large)
    out_bias: bool = True  # of the attention's output
    mlp_bias: bool = True
    patch_bias: bool = True
    patch_norms: bool = False  # norms before and after the patch embedding (vit-pytorch)
    embed_norm: bool = False  # a norm after the patch embedding alone, before positions (AIMv2)
    head_bias: bool = True
    norm_eps: float = 1e-6  # as in flax and big_vision; torch's default is 1e-5
    posemb_resize: str = "zoom"  # of the position table or the relative bias: one of vit_jax.position.RESIZE_METHODS
    preprocess: Preprocess = Preprocess()  # noqa: RUF009  it is frozen

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", as_pair(self.image_size))
        object.__setattr__(self, "patch_size", as_pair(self.patch_size))
        self._check()
        object.__setattr__(self, "preprocess", self.preprocess.for_channels(self.in_channels))

    def _check(self) -> None:
        for name in ("width", "depth", "num_heads", "mlp_dim", "in_channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("num_classes", "num_registers", "representation", "attention_width", "pool_heads"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.heads_width % self.num_heads:
            name = "attention_width" if self.attention_width else "width"
            raise InputError(f"{name} {self.heads_width} is not divisible by num_heads {self.num_heads}")
        if self.pool_heads and self.width % self.pool_heads:
            raise InputError(f"width {self.width} is not divisible by pool_heads {self.pool_heads}")
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is in [0, 1), not {getattr(self, name)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(describe_unknown(name, getattr(self, name), choices))
        if (self.pooling in ("cls", "cls_gap") or self.distillation_token) and not self.class_token:
            raise InputError(
                "this pooling, and a distillation token, need class_token=True; without it take 'gap', 'mean' or 'map'"
            )
        if self.distillation_head and not (self.distillation_token and self.num_classes):
            raise InputError("distillation_head needs distillation_token=True and classes")
        if self.patch_norms and self.embed_norm:
            raise InputError("embed_norm is the second of patch_norms; set one of them")
        self.grid_for(self.image_size)
        self._check_positions()

    def _check_positions(self) -> None:
        if self.rotary is not None:
            self.rotary.check_head_size(self.head_size)
        if self.relative_bias != "none" and (self.num_prefix, self.class_token) != (1, True):
            raise InputError("a relative bias needs [class] as the only token before the patches")
        if self.posemb_resize == "geometric" and (self.position_table or self.relative_bias == "none"):
            raise InputError("posemb_resize 'geometric' is of a relative bias, and of a model without a position table")

    def grid_for(self, image_size: Any) -> tuple[int, int]:
        """Return the (rows, columns) of patches. Raises InputError unless the patch size divides the image size."""
        (height, width), (ph, pw) = as_pair(image_size), self.patch_size
        if height % ph or width % pw:
            down = f"{max(1, height // ph) * ph}x{max(1, width // pw) * pw}"
            raise InputError(f"image size {height}x{width} is not divisible by the {ph}x{pw} patch; try {down}")
        return height // ph, width // pw

    @property
    def grid(self) -> tuple[int, int]:
        """The (rows, columns) of patches at image_size."""
        return self.grid_for(self.image_size)

    @property
    def image_preprocess(self) -> ImagePreprocess:
        """The preprocessing at image_size: config.image_preprocess(picture) is the model's input [h, w, c]."""
        return ImagePreprocess(self.image_size, self.preprocess)

    @property
    def num_prefix(self) -> int:
        """The number of tokens before the patches: [class], [distillation] and the registers."""
        return int(self.class_token) + int(self.distillation_token) + self.num_registers

    @property
    def prefix_positions(self) -> int:
        """The number of entries before the patches in the position table: [class] and [distillation]."""
        has_prefix = self.position_table and self.class_position
        return int(self.class_token) + int(self.distillation_token) if has_prefix else 0

    @property
    def num_positions(self) -> int:
        """The length of the position table; 0 without one."""
        return self.prefix_positions + self.grid[0] * self.grid[1] if self.position_table else 0

    @property
    def num_outputs(self) -> int:
        """The length of the model's output for an image: classes, or pooled features without a head."""
        return self.num_classes or self.representation or self.pooled_width

    @property
    def heads_width(self) -> int:
        """The total width of all heads."""
        return self.attention_width or self.width

    @property
    def head_size(self) -> int:
        """The width of one head."""
        return self.heads_width // self.num_heads

    @property
    def pools_by_attention(self) -> bool:
        """Whether the head reads tokens by attention, so that no fixed weight of each token is known."""
        return self.pooling in ("map", "map_all")

    @property
    def pooled_width(self) -> int:
        """The length of the pooled features."""
        return 2 * self.width if self.pooling == "cls_gap" else self.width

    @property
    def num_head_tokens(self) -> int | None:
        """The number of leading tokens that the head reads; None for all tokens."""
        if self.pooling != "cls":
            return None
        return 2 if self.distillation_head else 1

    @property
    def num_tokens(self) -> int:
        """The length of the token sequence at image_size."""
        return self.num_tokens_for(self.image_size)

    def num_tokens_for(self, image_size: Any) -> int:
        """Return the length of the token sequence at an image size. Raises InputError as grid_for does."""
        rows, columns = self.grid_for(image_size)
        return self.num_prefix + rows * columns

    def describe(self) -> str:
        """Return the architecture in one line."""
        (ph, pw), (height, width) = self.patch_size, self.image_size
        kinds = {
            "rotary positions": self.rotary is not None,
            "relative positions": self.relative_bias != "none",
            "position table": self.position_table,
        }
        positions = " and ".join(kind for kind, has in kinds.items() if has) or "no positions"
        return (
            f"width {self.width}, depth {self.depth}, {self.num_heads} heads, MLP {self.mlp_dim}, "
            f"patch {ph}x{pw}, image {height}x{width}, {self.num_classes} classes"
            f"{'' if positions == 'position table' else f', {positions}'}"
        )

    def resized(self, image_size: Any) -> "ViTConfig":
        """Return the same architecture at another image size."""
        return replace(self, image_size=as_pair(image_size))


def _google(patch: int, *, large: bool, image_size: int, num_classes: int) -> ViTConfig:
    """Return ViT-B or ViT-L as PyTorch-Pretrained-ViT ships them (https://arxiv.org/abs/2010.11929, table 1)."""
    return ViTConfig(
        image_size=(image_size, image_size),
        patch_size=(patch, patch),
        num_classes=num_classes,
        dropout=0.1,
        attention_dropout=0.1,
        width=1024 if large else 768,
        depth=24 if large else 12,
        num_heads=16 if large else 12,
        mlp_dim=4096 if large else 3072,
    )


def _small(image_size: int, patch: int, width: int, depth: int, num_heads: int, num_classes: int) -> ViTConfig:
    """Return a small architecture, such as DeiT's Ti and S, for training from scratch."""
    return ViTConfig(
        image_size=(image_size, image_size),
        patch_size=(patch, patch),
        width=width,
        depth=depth,
        num_heads=num_heads,
        mlp_dim=4 * width,
        num_classes=num_classes,
    )


PUBLISHED_CONFIGS: dict[str, ViTConfig] = {
    # Pretrained on ImageNet-21k (21,843 classes) at 224; the pre_logits layer of the files is unused.
    "B_16": _google(16, large=False, image_size=224, num_classes=21843),
    "B_32": _google(32, large=False, image_size=224, num_classes=21843),
    "L_16": _google(16, large=True, image_size=224, num_classes=21843),
    "L_32": _google(32, large=True, image_size=224, num_classes=21843),
    # The same, fine-tuned on ImageNet-1k at 384.
    "B_16_imagenet1k": _google(16, large=False, image_size=384, num_classes=1000),
    "B_32_imagenet1k": _google(32, large=False, image_size=384, num_classes=1000),
    "L_16_imagenet1k": _google(16, large=True, image_size=384, num_classes=1000),
    "L_32_imagenet1k": _google(32, large=True, image_size=384, num_classes=1000),
    # DeiT's shapes (https://arxiv.org/abs/2012.12877), to train on your own data.
    "S_16": _small(224, 16, width=384, depth=12, num_heads=6, num_classes=1000),
    "S_32": _small(224, 32, width=384, depth=12, num_heads=6, num_classes=1000),
    "Ti_16": _small(224, 16, width=192, depth=12, num_heads=3, num_classes=1000),
}

# Small enough to train from scratch on a CPU.
TOY_CONFIGS: dict[str, ViTConfig] = {
    "Mini_16": _small(128, 16, width=128, depth=6, num_heads=4, num_classes=10),
    "Mini_32": _small(128, 32, width=128, depth=6, num_heads=4, num_classes=10),
    "Nano_4": _small(24, 4, width=64, depth=4, num_heads=4, num_classes=10),
    "Nano_6": _small(24, 6, width=64, depth=4, num_heads=4, num_classes=10),
    "Nano_8": _small(24, 8, width=64, depth=4, num_heads=4, num_classes=10),
    "Pico_4": _small(24, 4, width=32, depth=2, num_heads=2, num_classes=10),
    "Pico_6": _small(24, 6, width=32, depth=2, num_heads=2, num_classes=10),
    "Pico_8": _small(24, 8, width=32, depth=2, num_heads=2, num_classes=10),
}

CONFIGS: dict[str, ViTConfig] = PUBLISHED_CONFIGS | TOY_CONFIGS
