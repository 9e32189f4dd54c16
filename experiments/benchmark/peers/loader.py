"""PyTorch's way from images on disk to batches: its DataLoader, with torchvision's transforms of PIL images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from vit_jax import ImagePreprocess
from vit_jax.preprocess import KERNELS


class ImageFiles(torch.utils.data.Dataset):
    """Images resized by Pillow and normalised, as torchvision's Resize, ToTensor and Normalize do."""

    def __init__(self, files: Sequence[str], preprocess: ImagePreprocess):
        settings = preprocess.preprocess
        self.files, self.size, self.kernel = files, preprocess.size, KERNELS[settings.kernel]
        self.mean, self.std = (torch.tensor(value).reshape(-1, 1, 1) for value in (settings.mean, settings.std))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        height, width = self.size
        with open(self.files[index], "rb") as file:
            image = Image.open(file).convert("RGB").resize((width, height), self.kernel)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.to(torch.float32).div(255) - self.mean) / self.std


def build_epoch(
    files: Sequence[str], preprocess: ImagePreprocess, batch_size: int, workers: int
) -> Callable[[], float]:
    """Build a program that loads all files, with persistent workers, and returns the mean of all values, to compare."""
    loader = torch.utils.data.DataLoader(
        ImageFiles(files, preprocess), batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0
    )

    def run_epoch() -> float:
        return sum(float(batch.double().mean()) * len(batch) for batch in loader) / len(files)

    return run_epoch
