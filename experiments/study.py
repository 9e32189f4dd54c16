"""The published fine-tuning study on Oxford-IIIT Pet, and a small one that a laptop finishes in minutes."""

# Best validation accuracies that the study's authors report for PyTorch-Pretrained-ViT's files fine-tuned on
# Oxford-IIIT Pet (recipe "pets": 384 x 384, batch 16, AdamW 1e-5), by architecture.
PUBLISHED: dict[str, float] = {
    "B_16_imagenet1k": 0.9433,
    "L_32_imagenet1k": 0.9383,
    "B_32_imagenet1k": 0.9249,
    "B_16": 0.9155,
    "L_32": 0.9062,
    "B_32": 0.8823,
}
STUDY_DATA = "oxford_iiit_pet"

# The same question in small: two widths, three sizes of patch, from scratch.
QUICK_DIGITS = ("Nano_4", "Nano_6", "Nano_8", "Pico_4", "Pico_6", "Pico_8")
QUICK_PICTURES = ("Mini_16", "Mini_32")
QUICK_FLAGS = {
    "digits": ["--recipe", "digits", "--epochs", "14"],
    "pictures": ["--recipe", "scratch", "--epochs", "12", "--image-size", "96"],
}


def published(model: str | None, data: str, image_size: tuple[int, int] | None) -> float | None:
    """The study's figure for a run on its data at its size, or None where there is nothing to compare with."""
    same = data == STUDY_DATA and image_size == (384, 384)
    return PUBLISHED.get(model or "") if same else None
