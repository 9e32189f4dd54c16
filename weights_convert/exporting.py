"""Saved models in the forms that `python -m weights_convert export` writes, by name in FORMATS."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.checkpoint import CONFIG, WEIGHTS, load_card
from vit_jax.outputs import check_apart
from vit_jax.saved_folder import find_saved_folder
from weights_convert._convert import export
from weights_convert.folders import write_folder
from weights_convert.folders.writing import check_new_folder
from weights_convert.formats import check_suffix, write_checkpoint
from weights_convert.layouts import Layout
from weights_convert.model_types import IMAGE_MODEL, ModelType, saved_model_type
from weights_convert.plan import find_layout
from weights_convert.programs import ONNX, STABLEHLO, ProgramFormat, check_program_path, write_program


@dataclass(frozen=True)
class SavedModel:
    """A folder that vit_jax.save or caption.save wrote."""

    folder: Path
    model_type: ModelType

    @property
    def files(self) -> tuple[Path, Path]:
        """The files that load() reads."""
        return self.folder / WEIGHTS, self.folder / CONFIG

    def load(self) -> Any:
        """Return the model. Raises InputError, naming the file, if it is damaged."""
        return self.model_type.load(self.folder)

    def load_image_model(self) -> tuple[Any, tuple[str, ...]]:
        """Return an image model and its class names. Raises InputError for a model of another type."""
        if self.model_type is not IMAGE_MODEL:
            raise InputError(f"{self.folder}: a {self.model_type.title}, which has a file export only")
        return self.load(), load_card(self.folder).class_names


@dataclass(frozen=True)
class ExportRequest:
    """What to write.

    out:    path of the file or folder to write.
    layout: of the arrays, for the formats "file" and "folder"; None for the others.
    centre: for a folder: how the margin of a crop is halved instead of the model's way, one of CENTRES.
    """

    out: Path
    layout: str | Layout | None = None
    centre: str | None = None


def find_saved_model(path: str) -> SavedModel:
    """Return the saved model of a folder, or of a run's best epoch. Loading it says why a folder is not one."""
    folder = find_saved_folder(path)
    return SavedModel(folder, saved_model_type(folder) or IMAGE_MODEL)


def export_file(saved: SavedModel, request: ExportRequest) -> list[str]:
    """Write the arrays under a layout's names as .safetensors or .pth."""
    out, layout = request.out, find_layout(_need_layout(request))
    check_suffix(out)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"{out}: {'a folder' if out.is_dir() else 'its folder does not exist'}; give a file's path")
    arrays = export(saved.load(), layout=layout)
    write_checkpoint(out, arrays, wrapper=layout.wrapper)
    return [f"{out}: {len(arrays)} arrays in the layout {layout.name}"]


def export_folder(saved: SavedModel, request: ExportRequest) -> list[str]:
    """Write a folder that another library loads."""
    layout = _need_layout(request)
    if isinstance(layout, Layout):
        raise InputError("a folder needs a library's own names: give --layout, not --rules")
    check_new_folder(request.out)
    model, class_names = saved.load_image_model()
    if request.centre is not None:
        model.config = replace(model.config, preprocess=replace(model.config.preprocess, centre=request.centre))
    notes = write_folder(model, request.out, layout=layout, class_names=class_names)
    return [*notes, f"{request.out}: a folder in the layout {layout}"]


def export_program(program: ProgramFormat, saved: SavedModel, request: ExportRequest) -> list[str]:
    """Write a program that runs without this library."""
    check_program_path(request.out, program)
    model, class_names = saved.load_image_model()
    error = write_program(model, request.out, program, class_names=class_names)
    checked = "not checked: onnxruntime is not installed" if error is None else f"differs from the model by {error:.1e}"
    return [f"{request.out}: a program for images {list(model.config.image_size)}, {checked}"]


def _need_layout(request: ExportRequest) -> str | Layout:
    if request.layout is None:
        raise InputError("no layout: give --layout or --rules")
    return request.layout


FORMATS: dict[str, Callable[[SavedModel, ExportRequest], list[str]]] = {
    "file": export_file,
    "folder": export_folder,
    "stablehlo": functools.partial(export_program, STABLEHLO),
    "onnx": functools.partial(export_program, ONNX),
}
WITH_LAYOUT = ("file", "folder")


def export_saved(path: str, export_format: str, request: ExportRequest, *, inputs: tuple[str, ...] = ()) -> list[str]:
    """Write a saved model, or a run's best one, in a format of FORMATS; return lines to print.

    inputs: other files that the command reads, which the output must not replace.

    Raises InputError if the model cannot be loaded or expressed in the format, or if the output would replace an input.
    """
    saved = find_saved_model(path)
    check_apart([request.out, Path(f"{request.out}.json")], [*saved.files, *inputs])
    if export_format not in WITH_LAYOUT and request.layout is not None:
        raise InputError(
            f"--format {export_format} is a program and has no array names; leave out --layout and --rules"
        )
    if export_format != "folder" and request.centre is not None:
        raise InputError("--centre is of image processors, which only --format folder writes")
    return FORMATS[export_format](saved, request)
