"""python -m weights_convert {convert,inspect,verify,export,list}: the command line."""

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
from vit_jax.files import atomic_write
from weights_convert._convert import ConversionPlan, convert_with_plan, export, layout_of, plan_conversion
from weights_convert.formats.readers import open_checkpoint
from weights_convert.formats.torch_writer import write_torch
from weights_convert.hub.pretrained import RELEASES, locate
from weights_convert.hub.repository import PREFIX
from weights_convert.kinds import KINDS, VIT, kind_of_saved
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.rules_file import read_rules
from weights_convert.sidecar import read_sidecar
from weights_convert.verify import BOUNDS, verify_checkpoint

FILE_HELP = ".pth/.pt/.bin, .safetensors, .npz, a folder of Hugging Face's, hf:owner/name, or a release: see list"
RULES_HELP = "a rule file for names of one's own, in place of --layout: see docs/families.md"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m weights_convert", description="Pretrained checkpoints of other libraries, in.")
    commands = parser.add_subparsers(dest="command", required=True)
    to = commands.add_parser("convert", help="make a model of this library")
    to.add_argument("file", help=FILE_HELP)
    to.add_argument("--out", required=True, help="folder to write, whole or not at all")
    to.add_argument("--force", action="store_true", help="replace the folder when it holds a model already")
    to.add_argument("--num-classes", type=positive_int, help="start a new head of zeros for this many classes")
    look = commands.add_parser("inspect", help="arrays, shapes, types, layout and architecture of a file")
    look.add_argument("file", help=FILE_HELP)
    check = commands.add_parser("verify", help="agreement with the PyTorch original, layer by layer (needs torch)")
    check.add_argument("file", help=FILE_HELP)
    check.add_argument("--against", required=True, choices=("lukemelas", "transformers"), help="the original")
    check.add_argument("--float32", action="store_true", help="compare in float32 (default: float64)")
    check.add_argument("--bound", type=float, help="relative error allowed (default: 1e-9, in float32 2e-5)")
    for command in (to, look, check):
        command.add_argument("--layout", default="auto", help="auto, " + ", ".join(LAYOUTS))
        command.add_argument("--rules", help=RULES_HELP)
        command.add_argument("--num-heads", type=positive_int, help="attention heads (default: width / 64)")
        command.add_argument("--cache", help="where downloads are kept (default: $VIT_JAX_CACHE or ~/.cache/vit_jax)")
    for command in (to, look):
        command.add_argument("--name", help="hold the file against this architecture: see list")
        command.add_argument("--image-size", type=image_size, help="N or HxW: resize the position table")
    back = commands.add_parser("export", help="a model of this library to another one's arrays")
    back.add_argument("model", help="a folder written by vit_jax.save or by convert")
    back.add_argument("--layout", help=", ".join(LAYOUTS))
    back.add_argument("--rules", help=RULES_HELP)
    back.add_argument("--out", required=True, help=".safetensors or .pth to write, whole or not at all")
    commands.add_parser("list", help="the layouts and the named architectures")
    return parser


def _layout(args: argparse.Namespace) -> str | Layout:
    if args.rules is None:
        if args.layout is None:
            raise InputError("which layout? give --layout or --rules")
        return args.layout
    if args.layout not in (None, "auto"):
        raise InputError("--layout and --rules both say the layout; give one of them")
    return read_rules(args.rules)


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
        layout=_layout(args),
        name=args.name,
        image_size=args.image_size,
        num_classes=args.num_classes,
        num_heads=args.num_heads,
        progress=progress,
    )
    kind = found.layout.kind
    kind.save(model, out, found.class_names, {"source": args.source, "layout": found.layout.name})
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
        found = plan_conversion(
            {name: array.shape for name, array in arrays.items()},
            layout=_layout(args),
            name=args.name,
            image_size=args.image_size,
            num_heads=args.num_heads,
            companion=read_sidecar(args.file),
        )
    except InputError as error:
        raise InputError(f"{args.file}: {error}") from error
    _describe(found)


def _describe(found: ConversionPlan) -> None:
    """What was found in a checkpoint, why, and what had to be assumed."""
    told, assumed = found.layout.kind.described(found.config)
    print(f"layout: {found.layout.name} ({found.layout.title}): {found.reason}")
    print(f"architecture: {found.architecture or 'no named one'}: {told}")
    print(f"not in the arrays: {assumed}")
    print(f"  told: {found.told or 'none, all by the custom of the family (no config.json beside the file)'}")
    if found.unused:
        shown = ", ".join(found.unused[:8]) + (", ..." if len(found.unused) > 8 else "")
        print(f"not used by the original model either: {shown}")


def _verify(args: argparse.Namespace) -> int:
    dtype = "float32" if args.float32 else "float64"
    bound = BOUNDS[dtype] if args.bound is None else args.bound
    report = verify_checkpoint(
        args.file, against=args.against, dtype=dtype, layout=_layout(args), num_heads=args.num_heads
    )
    print(f"{'place':12} {'maximum':>10} {'relative':>10}")
    for row in report.rows:
        print(f"{row.place:12} {row.maximum:10.2e} {row.relative:10.2e}")
    unused = f"unused: {', '.join(report.unused)}" if report.unused else "all used"
    print(
        f"{report.used} arrays, {unused}"
        + (f"; new in the original: {', '.join(report.missing)}" * bool(report.missing))
    )
    good = report.worst <= bound
    print(f"{args.file}: {'within' if good else 'NOT within'} {bound:g} of {args.against} in {dtype}")
    return 0 if good else 1


def _export(args: argparse.Namespace) -> None:
    out = Path(args.out)
    if out.suffix not in (".safetensors", ".pth", ".pt"):
        raise InputError(f"{out}: .safetensors and .pth are written; give a name that ends so")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out}: its folder does not exist")
    layout = layout_of(_layout(args))
    kind = kind_of_saved(args.model) or VIT  # whose load says what is wrong with a folder of no kind
    arrays = export(kind.load(args.model, None, None), layout=layout)
    with atomic_write(out) as beside:
        if out.suffix == ".safetensors":
            save_file(arrays, beside, metadata={"format": "pt"})
        else:
            write_torch(beside, arrays, wrapper=layout.wrapper)
    print(f"{out}: {len(arrays)} arrays in the layout {layout.name}")


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
    """Run the command; 0 when it is done, 1 where verify found more difference than its bound, 2 for a wrong input."""
    args = _parser().parse_args(argv)
    if "file" in args:
        args.source = args.file if args.file.startswith(PREFIX) else Path(args.file).name
        args.file = locate(args.file, cache=args.cache)
    if args.command == "convert":
        _convert(args)
    elif args.command == "inspect":
        _inspect(args)
    elif args.command == "verify":
        return _verify(args)
    elif args.command == "export":
        _export(args)
    else:
        _list()
    return 0


if __name__ == "__main__":
    sys.exit(main())
