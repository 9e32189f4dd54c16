"""Open the model that a program is given: a saved folder, a run's folder, or a foreign checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import nnx

from vit_jax import CONFIGS, InputError, ModelCard, VisionTransformer, ViTConfig, load, load_card, with_in_channels
from vit_jax.checkpoint import CONFIG, from_arrays, to_arrays
from vit_jax.train.run_folder import BEST
from weights_convert import convert
from weights_convert.hub.pretrained import locate
from weights_convert.hub.releases import RELEASES

ARCHITECTURE = ("patch_size", "width", "depth", "num_heads", "mlp_dim")


def model_folder(path: str | Path) -> Path:
    """Return the folder of a saved model: `path` itself, or best/ of a run. Raises InputError if it is neither."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such model; give a folder written by vit_jax.save, or a run's folder")
    if (path / BEST / CONFIG).is_file():
        return path / BEST
    if not path.is_dir():
        raise InputError(f"{path}: a file; convert it first: python -m weights_convert convert {path} --out FOLDER")
    if (path / "metrics.jsonl").is_file():
        raise InputError(f"{path}: a run that has no {BEST}/ yet; let it finish an epoch")
    return path


def open_model(path: str | Path, *, image_size: Any = None) -> tuple[VisionTransformer, ModelCard]:
    """Return a saved model, or the best one of a run, and its card. Raises InputError naming the folder."""
    folder = model_folder(path)
    return load(folder, image_size=image_size), load_card(folder)


def starting_model(
    *,
    name: str | None,
    weights: str | None,
    num_classes: int,
    image_size: tuple[int, int] | None,
    in_channels: int | None = None,
    dropout: float | None,
    drop_path: float | None = None,
    seed: int,
) -> VisionTransformer:
    """Return the model that training starts from: weights (a folder or a foreign file), or the named one from scratch.

    image_size: None for that of the weights, or of the named model. in_channels: see vit_jax.with_in_channels.
    Raises InputError if weights and name are of different architectures, and as load and convert do.
    """
    if name is not None and name not in CONFIGS:
        raise InputError(f"unknown model {name!r}: one of {', '.join(CONFIGS)}")
    if weights is not None:
        model = _load_weights(name, weights, num_classes, image_size)
        if in_channels is not None:
            model = with_in_channels(model, in_channels)
    else:
        assert name is not None
        config = replace(CONFIGS[name], num_classes=num_classes, in_channels=in_channels or CONFIGS[name].in_channels)
        model = VisionTransformer(config.resized(image_size or config.image_size), rngs=nnx.Rngs(seed))
    changed: dict[str, Any] = {} if dropout is None else dict(dropout=dropout, attention_dropout=dropout)
    changed |= {} if drop_path is None else dict(drop_path=drop_path)
    return from_arrays(replace(model.config, **changed), to_arrays(model)) if changed else model


def _load_weights(name: str | None, weights: str, num_classes: int, image_size: Any) -> VisionTransformer:
    if not Path(weights).exists() and weights in RELEASES:
        if RELEASES[weights].architecture not in CONFIGS:
            raise InputError(f"{weights}: no image model, so it can't be trained on classes; give another --weights")
        name = name or RELEASES[weights].architecture
    path = locate(weights)
    if path.is_file() or weights.startswith("hf:"):
        return convert(path, name=name, image_size=image_size, num_classes=num_classes)
    folder = model_folder(path)
    if name is not None:
        _check_architecture(CONFIGS[name], load_card(folder).config, f"{folder}: not {name}")
    return load(folder, image_size=image_size, num_classes=num_classes)


def _check_architecture(expected: ViTConfig, actual: ViTConfig, message: str) -> None:
    for field in ARCHITECTURE:
        if getattr(expected, field) != getattr(actual, field):
            raise InputError(f"{message}: its {field} is {getattr(actual, field)}, not {getattr(expected, field)}")
