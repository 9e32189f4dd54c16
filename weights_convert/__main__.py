"""python -m weights_convert {convert,inspect,export,list}: the command line."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from vit_jax import InputError, count_parameters
from vit_jax.checkpoint import CONFIG
from vit_jax.cli import Parser, image_size, positive_int
from vit_jax.errors import one_line_errors
from vit_jax.files import written_file
from weights_convert.companions import companion_of
from weights_convert.convert import Plan, convert_with_plan, export, plan
from weights_convert.kinds import KINDS, VIT, kind_of_saved
from weights_convert.layouts import LAYOUTS
from weights_convert.pretrained import RELEASES
from weights_convert.readers import open_checkpoint


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m weights_convert", description="Pretrained checkpoints of other libraries, in.")
    commands = parser.add_subparsers(dest="command", required=True)
    to = commands.add_parser("convert", help="make a model of this library")
    to.add_argument("file", help=".pth/.pt/.bin, .safetensors, or a folder of Hugging Face's")
    to.add_argument("--out", required=True, help="folder to write, whole or not at all")
    to.add_argument("--force", action="store_true", help="replace the folder when it holds a model already")
    to.add_argument("--num-classes", type=positive_int, help="start a new head of zeros for this many classes")
    look = commands.add_parser("inspect", help="arrays, shapes, types, layout and architecture of a file")
    look.add_argument("file", help=".pth/.pt/.bin, .safetensors, or a folder of Hugging Face's")
    for command in (to, look):
        command.add_argument("--layout", default="auto", help="auto, " + ", ".join(LAYOUTS))
        command.add_argument("--name", help="hold the file against this architecture: see list")
        command.add_argument("--image-size", type=image_size, help="N or HxW: resize the position table")
        command.add_argument("--num-heads", type=positive_int, help="attention heads (default: width / 64)")
    back = commands.add_parser("export", help="a model of this library to another one's arrays")
    back.add_argument("model", help="a folder written by vit_jax.save or by convert")
    back.add_argument("--layout", required=True, help=", ".join(LAYOUTS))
    back.add_argument("--out", required=True, help=".safetensors to write, whole or not at all")
    commands.add_parser("list", help="the layouts and the named architectures")
    return parser


def _refuse_to_replace(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not (out.is_dir() and ((out / CONFIG).is_file() or not any(out.iterdir()))):
        raise InputError(f"{out}: exists and is no saved model; choose another --out")
    if not force and any(out.iterdir()):
        raise InputError(f"{out}: holds a model already; give --force to replace it, or another --out")


def _convert(args: argparse.Namespace) -> None:
    out = Path(args.out)
    _refuse_to_replace(out, args.force)
    started = time.perf_counter()

    def progress(done: int, total: int) -> None:
        terminal = sys.stderr.isatty()
        if terminal or done % 50 == 0 or done == total:
            end = "\r" if terminal and done < total else "\n"
            print(f"converted {done}/{total} parameters", end=end, file=sys.stderr, flush=True)

    model, found = convert_with_plan(
        args.file,
        layout=args.layout,
        name=args.name,
        image_size=args.image_size,
        num_classes=args.num_classes,
        num_heads=args.num_heads,
        progress=progress,
    )
    kind = found.layout.kind
    kind.save(model, out, found.class_names, {"source": Path(args.file).name, "layout": found.layout.name})
    _describe(found)
    seconds = time.perf_counter() - started
    print(f"{out}: {count_parameters(model):,} parameters, {kind.described(model.config)[0]}, in {seconds:.1f} s")


def _inspect(args: argparse.Namespace) -> None:
    arrays = open_checkpoint(args.file)
    width = max(map(len, arrays))
    for name, array in arrays.items():
        print(f"{name:{width}}  {array.dtype.name:8}  {'x'.join(map(str, array.shape)) or 'scalar'}")
    count = sum(int(np.prod(array.shape, dtype=object)) for array in arrays.values())
    size = sum(array.nbytes for array in arrays.values())
    print(f"{len(arrays)} arrays, {count:,} values, {size / 1e6:.1f} MB")
    try:
        found = plan(
            {name: array.shape for name, array in arrays.items()},
            layout=args.layout,
            name=args.name,
            image_size=args.image_size,
            num_heads=args.num_heads,
            companion=companion_of(args.file),
        )
    except InputError as error:
        raise InputError(f"{args.file}: {error}") from error
    _describe(found)


def _describe(found: Plan) -> None:
    """What was found in a checkpoint, why, and what had to be assumed."""
    told, assumed = found.layout.kind.described(found.config)
    print(f"layout: {found.layout.name} ({found.layout.title}): {found.reason}")
    print(f"architecture: {found.architecture or 'no named one'}: {told}")
    print(f"not in the arrays: {assumed}")
    print(f"  told: {found.told or 'none, all by the custom of the family (no config.json beside the file)'}")
    if found.unused:
        shown = ", ".join(found.unused[:8]) + (", ..." if len(found.unused) > 8 else "")
        print(f"not used by the original model either: {shown}")


def _export(args: argparse.Namespace) -> None:
    out = Path(args.out)
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: only .safetensors is written; give a name that ends so")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: its folder does not exist")
    kind = kind_of_saved(args.model) or VIT  # whose load says what is wrong with a folder of no kind
    arrays = export(kind.load(args.model, None, None), layout=args.layout)
    with written_file(out) as beside:
        save_file(arrays, beside, metadata={"format": "pt"})
    print(f"{out}: {len(arrays)} arrays in the layout {args.layout}")


def _list() -> None:
    print("layouts:")
    for layout in LAYOUTS.values():
        print(f"  {layout.name:12} {layout.title}")
    print("released checkpoints, for load_pretrained and --weights:")
    for release in RELEASES.values():
        print(f"  {release.name:16} {release.address} ({release.licence})")
    print("architectures:")
    for kind in KINDS:
        for name, config in kind.configs.items():
            parameters = count_parameters(kind.abstract(config))
            print(f"  {name:16} {parameters:12,} parameters: {kind.described(config)[0]}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it is done, 2 for a wrong input, told in one line."""
    args = _parser().parse_args(argv)
    if args.command == "convert":
        _convert(args)
    elif args.command == "inspect":
        _inspect(args)
    elif args.command == "export":
        _export(args)
    else:
        _list()
    return 0


if __name__ == "__main__":
    sys.exit(main())
