"""python -m experiments.explain MODEL IMAGE...: what a model looks at, as pictures and as raw maps."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from experiments.common import runtime
from experiments.common.models import open_model
from experiments.common.pictures import ImagePath, list_images
from experiments.explain.evaluate import evaluate_faithfulness
from experiments.explain.flags import make_parser, parse_method_options, parse_methods, parse_targets
from vit_jax import InputError, ModelCard, VisionTransformer, position_similarity, to_grid
from vit_jax.data.batches import pad_batch_to
from vit_jax.data.decode import CorruptImageError, open_rgb
from vit_jax.data.reading import handle_corrupt
from vit_jax.errors import one_line_errors
from vit_jax.explain import METHODS, check_method_options, compile_method, head_attention
from vit_jax.files import atomic_write
from vit_jax.plot import (
    Panel,
    arrange_in_rows,
    plot_heads,
    plot_layers,
    plot_panels,
    plot_position_similarity,
    save_figure,
)

SHORTEST, LONGEST = 240, 480  # pixels of a picture's longer side in a figure, where a panel has about 300


class OpenedImage(NamedTuple):
    """A picture ready for the model. shown: what the model sees of it, RGB in [0, 1] at the picture's own shape."""

    result: Path
    pixels: np.ndarray
    shown: np.ndarray


def _opened(files: list[ImagePath], model: VisionTransformer) -> Iterator[OpenedImage]:
    """The pictures that can be read; of those from a folder an unreadable one is told and passed over."""
    preprocess = model.config.image_preprocess
    for file, result, named in files:
        try:
            picture = open_rgb(file)
        except CorruptImageError as error:
            handle_corrupt(error, "raise" if named else "skip")
            continue
        view = preprocess.view(picture)
        longer = max(view.size)
        scale = min(max(longer, SHORTEST), LONGEST) / longer
        view = view.resize(
            (max(1, round(view.width * scale)), max(1, round(view.height * scale))), Image.Resampling.LANCZOS
        )
        yield OpenedImage(result, preprocess.resize(picture), np.asarray(view, np.float32) / 255)


class Explainer:
    """A model with the compiled functions that a call asked for."""

    def __init__(self, model: VisionTransformer, card: ModelCard, args: argparse.Namespace):
        self.model, self.card = model, card
        self.all_heads, self.all_layers = args.head == "all", args.layer == "all"
        self.options = check_method_options(model, parse_method_options(args, allow_all=True))
        self.methods = parse_methods(args.method)
        if (args.head is not None or self.all_layers) and "attention" not in self.methods:
            raise InputError("--head and --layer all are of the method attention; add it to --method")
        self.targets = parse_targets(args.target, card)
        normalize = model.config.image_preprocess.normalize
        self._normalize = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
        self._probabilities = jax.jit(lambda m, x: jax.nn.softmax(m(x)))
        self._maps = {name: compile_method(name, self.options) for name in self.methods}
        self._heads = jax.jit(head_attention, static_argnames="layer")

    def name_of(self, label: int) -> str:
        """A class's name, or its number."""
        return self.card.class_names[label] if self.card.class_names else f"class {label}"

    def maps(self, pixels: np.ndarray) -> dict[str, Any]:
        """For pictures uint8 [B, h, w, 3]: probabilities [B, C], targets [B, K], and every method's maps."""
        images = self._normalize(pixels)
        probabilities = np.asarray(self._probabilities(self.model, images))
        best = probabilities.argmax(axis=1)[:, None]
        targets = best if self.targets is None else np.tile(self.targets, (len(pixels), 1))
        answer: dict[str, Any] = {"probabilities": probabilities, "targets": targets.astype(np.int32)}
        for name, function in self._maps.items():
            answer[name] = np.asarray(function(self.model, images, targets))
        grid = self.model.config.grid_for(images.shape[1:3])
        if self.all_heads:
            rows = self._heads(self.model, images, layer=self.options.layer)
            answer["attention_heads"] = np.asarray(to_grid(rows, grid))
        if self.all_layers:
            layers = [self._heads(self.model, images, layer=layer) for layer in range(len(self.model.blocks))]
            chosen = [rows.mean(axis=1) if self.options.head is None else rows[:, self.options.head] for rows in layers]
            answer["attention_layers"] = np.stack([np.asarray(to_grid(rows, grid)) for rows in chosen], axis=1)
        return answer


def methods_figure(explainer: Explainer, shown: np.ndarray, answer: dict[str, Any], title: str) -> Any:
    """The image and all methods' maps: methods of no class once, the others once for each class."""
    free = [name for name in explainer.methods if not METHODS[name].is_class_specific]
    by_class = [name for name in explainer.methods if METHODS[name].is_class_specific]
    panels = [Panel("image", None), *(Panel(name, answer[name][0]) for name in free)]
    targets = answer["targets"]
    if len(targets) == 1 or not by_class:
        panels += [Panel(name, answer[name][0]) for name in by_class]
        return plot_panels(shown, arrange_in_rows(panels), title=title)
    rows = arrange_in_rows(panels)
    names = [f"{explainer.name_of(target)} {answer['probabilities'][target]:.2f}" for target in targets.tolist()]
    for name in by_class:
        rows += arrange_in_rows(
            [Panel(f"{name}\n{label}", heat) for label, heat in zip(names, answer[name], strict=True)]
        )
    return plot_panels(shown, rows, title=title)


def write_results(explainer: Explainer, opened: OpenedImage, answer: dict[str, Any], out: Path) -> str:
    """One picture's .png and .npz (and its heads' and layers' .png); answers its title."""
    best = int(answer["probabilities"].argmax())
    title = f"{opened.result.name}: {explainer.name_of(best)} {answer['probabilities'][best]:.3f}"
    base = out / opened.result
    base.parent.mkdir(parents=True, exist_ok=True)
    figures = {"": methods_figure(explainer, opened.shown, answer, title)}
    layer, head = explainer.options.layer, explainer.options.head
    if explainer.all_heads:
        which = f"layer {layer % len(explainer.model.blocks)}"
        figures["_heads"] = plot_heads(opened.shown, answer["attention_heads"], title=f"{title}\nattention, {which}")
    if explainer.all_layers:
        which = "mean over heads" if head is None else f"head {head}"
        figures["_layers"] = plot_layers(opened.shown, answer["attention_layers"], title=f"{title}\nattention, {which}")
    for suffix, figure in figures.items():
        save_figure(figure, Path(f"{base}{suffix}.png"))
    names = np.array([explainer.name_of(label) for label in range(len(answer["probabilities"]))])
    with atomic_write(Path(f"{base}.npz")) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, predicted=best, class_names=names, **answer)
    return title


def write_explanations(explainer: Explainer, files: list[ImagePath], out: Path, batch_size: int) -> int:
    """Explain pictures a batch at a time; answers how many there were. Raises InputError when none can be read."""
    done = 0
    waiting: list[OpenedImage] = []

    def flush() -> None:
        nonlocal done
        pixels = [opened.pixels for opened in waiting]
        padded, _ = pad_batch_to(min(batch_size, len(files)), pixels, np.zeros_like(pixels[0]))
        answers = explainer.maps(np.stack(padded))
        for i, opened in enumerate(waiting):
            title = write_results(explainer, opened, {name: value[i] for name, value in answers.items()}, out)
            done += 1
            print(f"{done}/{len(files)} {title}", flush=True)
        waiting.clear()

    for opened in _opened(files, explainer.model):
        waiting.append(opened)
        if len(waiting) == batch_size:
            flush()
    if waiting:
        flush()
    if not done:
        raise InputError("none of the images can be read")
    return done


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done (unreadable pictures of a folder are reported), 2 a wrong input."""
    args = make_parser().parse_args(argv)
    runtime.configure()
    if not args.images and not args.position:
        raise InputError("no image given; give pictures or a folder, or --position")
    if args.out is None and not args.evaluate:
        raise InputError("no --out: give a folder to write to")
    if args.evaluate and args.masks is None:
        raise InputError("--evaluate needs --masks, a folder of masks named like the pictures")
    files = list_images(args.images)
    model, card = open_model(args.model, image_size=args.image_size)
    if args.evaluate:
        return evaluate_faithfulness(model, [file for file, _, _ in files], args)
    out = Path(args.out)
    explainer = Explainer(model, card, args) if files else None
    out.mkdir(parents=True, exist_ok=True)
    if args.position:
        rows, columns = model.config.grid
        figure = plot_position_similarity(
            position_similarity(model), title=f"position embeddings, {rows}x{columns} patches"
        )
        save_figure(figure, out / "position_similarity.png")
        print(f"{out}/position_similarity.png")
    if explainer is not None:
        done = write_explanations(explainer, files, out, args.batch_size)
        print(f"written to {out}/: a .png and a .npz for each of {done} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
