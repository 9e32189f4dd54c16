"""Figures that others publish for released checkpoints: a table of numbers and captions, each with its source.

Those of Hugging Face come from transformers' tests and conversion scripts, at versions whose image processors resize
with Pillow, as this library does. Later versions resize tensors by default and publish other figures for the same
weights, which differ by up to 0.01. DINOv3's processor has always resized in floating point, before it normalises.

CLIP and SigLIP publish similarities with texts: transformers encodes the texts, this library the picture. CATR's
authors publish captions only, and no numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weights_convert.hub.releases import Release

GITHUB = "https://raw.githubusercontent.com"
TRANSFORMERS = "https://github.com/huggingface/transformers/blob"
COCO_LICENCE = "COCO's terms of use"

CATS = Release(  # the picture of cats in transformers' tests
    "the test picture",
    f"{GITHUB}/huggingface/transformers/d05a9215b4f311963e465b99753ac711fb828893"
    "/tests/fixtures/tests_samples/COCO/000000039769.png",
    "a picture",
    COCO_LICENCE,
    "cf6f3c4befa148732c7453e0de5afab00f682427435fead2d88b07a9615cdac2",
)
CATS_JPEG = Release(  # the same, as COCO has it; its hash is not published
    "the test picture", "http://images.cocodataset.org/val2017/000000039769.jpg", "a picture", COCO_LICENCE
)
PANDA = Release(
    "the test picture",
    f"{GITHUB}/lukemelas/PyTorch-Pretrained-ViT/8ec2cab38b2dfae6386f37d4879a325f552eb791/examples/simple/img.jpg",
    "a picture",
    "Apache-2.0",
    "2389d1990f74682ab3fb7df3e31ef15d7da7cd0368f85c594f74c76a3eebc0ad",
)


@dataclass(frozen=True)
class Figure:
    """An output that is published for a released checkpoint and a picture.

    family:   another name for the checkpoints of one family.
    model:    a release's name, or owner/name of the Hugging Face hub.
    what:     the output, for people.
    output:   the output, one of weights_convert.released.OUTPUTS.
    index:    of the output, of a single image: what is published.
    expected: numbers, or a caption.
    source:   where the figure is published.
    atol, rtol: the source's tolerance: |x - expected| <= atol + rtol |expected|.
    size:     height and width that the source's image processor makes, where they are not the model's.
    preprocess: fields of Preprocess that the source changes.
    is_float_resized: whether the source resizes in floating point, bilinear or bicubic with antialiasing.
    texts:    of a similarity.
    """

    family: str
    model: str
    what: str
    picture: Release
    output: str
    expected: Any
    source: str
    index: Any = ()
    atol: float = 0.0
    rtol: float = 0.0
    size: int | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    is_float_resized: bool = False
    texts: tuple[str, ...] = ()


CORNER = (slice(3), slice(3))  # of tokens [N, D]


def _dinov3(model: str, picture: Release, source: str, class_token: tuple, first_patch: tuple) -> tuple[Figure, ...]:
    """Return the figures of a DINOv3: five features of [class], and of the first patch, which follows 4 registers."""
    common: dict[str, Any] = dict(
        picture=picture, output="tokens", source=source, atol=1e-4, rtol=1e-4, size=224, is_float_resized=True
    )
    name = f"facebook/dinov3-{model}-pretrain-lvd1689m"
    return (
        Figure("dinov3", name, "[class] features", expected=class_token, index=(0, slice(5)), **common),
        Figure("dinov3", name, "first patch's features", expected=first_patch, index=(5, slice(5)), **common),
    )


DINOV3_TEST = (
    f"{TRANSFORMERS}/0159620269dec5524b126697473c0bdc71159052/tests/models/dinov3_vit/test_modeling_dinov3_vit.py"
)
DINOV3_SCRIPT = (
    f"{TRANSFORMERS}/0882cbfddd4683cf90cf03bfcb2ee920443889eb"
    "/src/transformers/models/dinov3_vit/convert_dinov3_vit_to_hf.py"
)
CATR = "https://github.com/saahiluppal/catr/blob/fac82f9b4004b1dd39ccf89760b758ad19a2dbee/catr_demo.ipynb"
CATR_PICTURES = f"{GITHUB}/saahiluppal/catr/fac82f9b4004b1dd39ccf89760b758ad19a2dbee/.github"
CATR_CAPTIONS = (  # picture, SHA-256, caption
    (
        "cake",
        "6c0d4054dcf2a801d7b79ad9c5eeef7ecf84a1b911fbc70374ea26729b7b4cb0",
        "A person cutting a cake with a knife.",
    ),
    (
        "girl",
        "a9dc023b2d8b0a485aa8361a880e5e23293b40fa6b8a8bf070258b436821fafb",
        "A woman sitting on a curb holding a pink umbrella.",
    ),
    (
        "office",
        "d4936f754c0eeff5263dedc1f8d87aef1d0db268d12b2dac0f929eefc5bc934c",
        "A group of people sitting at a table with laptops.",
    ),
    (
        "horse",
        "fbf71aef2dbaaf76c65aa5446af890bf0393b8fef52e12cfa2497a5f9245f246",
        "A man riding on the back of a brown horse.",
    ),
    (
        "airplane",
        "c9cbdb7b7835a8aba1e68c6f0cf5a707df1ffab8b0bb7ac813a3ca34de1bfd21",
        "A large jetliner sitting on top of an airport runway.",
    ),
)

FIGURES: tuple[Figure, ...] = (
    Figure(
        "vit",
        "B_16_imagenet1k",
        "probability of the best 3 classes",
        PANDA,
        "probabilities",
        # Printed in percent with two decimals; the tolerance is one unit of the last, since the source states none.
        (0.9951, 0.0016, 0.0005),
        "https://github.com/lukemelas/PyTorch-Pretrained-ViT/blob/8ec2cab38b2dfae6386f37d4879a325f552eb791"
        "/examples/simple/example.ipynb",
        index=([388, 387, 297],),
        atol=1e-4,
    ),
    Figure(
        "vit",
        "google/vit-base-patch16-224",
        "first 3 logits",
        CATS,
        "logits",
        (-0.2744, 0.8215, -0.0836),
        f"{TRANSFORMERS}/v4.57.3/tests/models/vit/test_modeling_vit.py",
        index=(slice(3),),
        atol=1e-4,
        rtol=1e-4,
    ),
    Figure(
        "dino",
        "facebook/dino-vits8",
        "3 features of 3 tokens, 480x480",
        CATS,
        "tokens",
        ((4.2325, 4.3882, -6.6678), (4.5372, 1.8933, -6.7355), (4.4454, 0.8514, -5.8747)),
        f"{TRANSFORMERS}/v4.57.3/tests/models/vit/test_modeling_vit.py",
        index=CORNER,
        atol=1e-3,
        rtol=1e-3,
        size=480,
    ),
    Figure(
        "deit",
        "facebook/deit-base-distilled-patch16-224",
        "first 3 logits",
        CATS,
        "logits",
        (-1.0266, 0.1912, -1.2861),
        f"{TRANSFORMERS}/v4.57.3/tests/models/deit/test_modeling_deit.py",
        index=(slice(3),),
        atol=1e-4,
        rtol=1e-4,
    ),
    Figure(
        "dinov2",
        "facebook/dinov2-base",
        "3 features of 3 tokens",
        CATS,
        "tokens",
        ((-2.2005, -0.4495, 1.0964), (-3.3959, -0.8942, -1.0315), (-2.9355, 1.1564, -0.7656)),
        f"{TRANSFORMERS}/v4.57.3/tests/models/dinov2/test_modeling_dinov2.py",
        index=CORNER,
        atol=1e-3,
        rtol=1e-3,
        size=224,
    ),
    Figure(
        "dinov2",
        "facebook/dinov2-with-registers-base",
        "3 features of 3 tokens",
        CATS,
        "tokens",
        ((-0.4636, -1.4582, -0.0274), (-1.4738, -0.8858, 0.3002), (0.0714, -0.2407, -1.5940)),
        f"{TRANSFORMERS}/v4.57.3/tests/models/dinov2_with_registers/test_modeling_dinov2_with_registers.py",
        index=CORNER,
        atol=1e-4,
        rtol=1e-4,
        size=224,
    ),
    *_dinov3(
        "vits16",
        CATS,
        DINOV3_TEST,
        (0.4637, -0.4160, 0.4086, -0.1265, -0.2865),
        (-0.0386, -0.2509, -0.0161, -0.4556, 0.5716),
    ),
    *_dinov3(
        "vits16plus",
        CATS_JPEG,
        DINOV3_SCRIPT,
        (-0.47134942, -1.36577892, -0.31798324, 0.37721941, -0.76908571),
        (0.14455189, -0.38811746, -0.39343396, -0.15769549, -0.60038012),
    ),
    *_dinov3(
        "vitb16",
        CATS_JPEG,
        DINOV3_SCRIPT,
        (1.03464317, -0.18060929, -0.34101826, -0.06637695, -0.01138397),
        (-0.08252374, -0.45627278, -0.72802997, -0.43068025, -0.15288019),
    ),
    *_dinov3(
        "vitl16",
        CATS_JPEG,
        DINOV3_SCRIPT,
        (0.48452711, -0.58221471, 0.48063612, 0.59204036, 0.94516647),
        (-0.21136738, -0.49086356, -0.25713149, 0.10176393, 0.15451124),
    ),
    Figure(
        "clip",
        "openai/clip-vit-base-patch32",
        "3 features of 3 tokens, 180x180",
        CATS,
        "tokens before the norm",
        ((-0.1538, 0.0322, -0.3235), (0.2893, 0.1135, -0.5708), (0.0461, 0.1540, -0.6018)),
        f"{TRANSFORMERS}/01080c629600d4ff3121446bb4f4a2e240c2cf41/tests/models/clip/test_modeling_clip.py",
        index=CORNER,
        atol=1e-4,
        rtol=1e-4,
        size=180,
        preprocess={"crop": None},
    ),
    Figure(
        "clip",
        "openai/clip-vit-base-patch32",
        "similarities with 2 texts",
        CATS_JPEG,
        "similarities",
        (24.5701, 19.3049),
        f"{TRANSFORMERS}/v4.57.3/tests/models/clip/test_modeling_clip.py",
        atol=1e-3,
        rtol=1e-3,
        texts=("a photo of a cat", "a photo of a dog"),
    ),
    Figure(
        "siglip",
        "google/siglip-base-patch16-224",
        "similarities with 2 texts",
        CATS_JPEG,
        "similarities",
        (-0.7567, -10.3354),
        f"{TRANSFORMERS}/v4.57.3/tests/models/siglip/test_modeling_siglip.py",
        atol=1e-3,
        rtol=1e-3,
        texts=("a photo of 2 cats", "a photo of 2 dogs"),
    ),
    *(
        Figure(
            "catr",
            "catr_v1",
            f"caption of {name}.png",
            Release(name, f"{CATR_PICTURES}/{name}.png", "a picture", "Apache-2.0", sha256),
            "caption",
            caption,
            CATR,
        )
        for name, sha256, caption in CATR_CAPTIONS
    ),
)
