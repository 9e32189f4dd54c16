"""python -m weights_convert {convert,inspect,verify,export,push,list}: the command line."""

if __name__ == "__main__":  # before the slow imports
    from weights_convert.startup import exit_on_signals, exit_with_version

    exit_on_signals()
    exit_with_version()

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vit_jax import InputError, count_parameters
from vit_jax.checkpoint import CONFIG
from vit_jax.cli import Parser, image_size, non_negative, positive_int, program_name
from vit_jax.errors import one_line_errors
from vit_jax.notes import is_quiet, note
from vit_jax.outputs import check_apart
from vit_jax.preprocess import CENTRES
from vit_jax.progress import open_progress
from weights_convert._convert import convert_with_plan, open_plan
from weights_convert.class_names import read_class_names
from weights_convert.exporting import FORMATS, ExportRequest, export_saved, find_saved_model
from weights_convert.flags import add_settings_flags, read_settings_flags
from weights_convert.formats import open_contents
from weights_convert.hub.push import push_folder
from weights_convert.hub.releases import RELEASES
from weights_convert.hub.repository import PREFIX
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.model_types import MODEL_TYPES, ModelType
from weights_convert.originals import ORIGINALS
from weights_convert.plan import ConversionPlan, Request
from weights_convert.released import ALL, FigureResult, check_figures, select_figures
from weights_convert.released_figures import FIGURES
from weights_convert.resolve import locate
from weights_convert.rules_file import read_rules
from weights_convert.verify import BOUNDS, ParityReport, verify_checkpoint

FILE_HELP = ".pth/.pt/.bin, .safetensors, .npz, a Hugging Face folder, hf:owner/name, or a release's name: see list"
LAYOUT_HELP = "auto, " + ", ".join(LAYOUTS)
RULES_HELP = "a rules file for your own array names, instead of --layout: see docs/families.md"
FAMILIES = tuple(dict.fromkeys(figure.family for figure in FIGURES))
FIGURE_COLUMNS = "{:44} {:33} {:>10} {:>9} {:11} {}"
MAX_UNUSED_SHOWN = 8
MAX_CLASSES_SHOWN = 5


def _make_parser() -> argparse.ArgumentParser:
    description = "Convert checkpoints from and to other libraries."
    parser = Parser(prog=program_name("weights_convert"), has_commands=True, description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="convert a checkpoint to a model of this library")
    convert.set_defaults(run=run_convert)
    convert.add_argument("file", help=FILE_HELP)
    convert.add_argument("--out", required=True, help="folder to write, completely or not at all")
    convert.add_argument("--force", action="store_true", help="replace a model that the folder already holds")
    convert.add_argument("--num-classes", type=positive_int, help="start a new head of zeros for this many classes")
    inspect = commands.add_parser("inspect", help="show a file's arrays, shapes, types, layout and architecture")
    inspect.set_defaults(run=run_inspect)
    inspect.add_argument("file", help=FILE_HELP)
    verify = commands.add_parser("verify", help="compare with the PyTorch original, layer by layer (needs torch)")
    verify.set_defaults(run=run_verify)
    verify.add_argument("file", nargs="?", help=FILE_HELP)
    verify.add_argument(
        "--against", help=f"{', '.join(ORIGINALS)}, or FILE.py:FUNCTION that returns your own torch model"
    )
    verify.add_argument(
        "--released",
        metavar="NAME",
        help=f"instead of a file: fetch a released checkpoint, a family ({', '.join(FAMILIES)}) or {ALL}, "
        "and compare with published figures",
    )
    verify.add_argument("--float32", action="store_true", help="compare in float32 (default: float64)")
    verify.add_argument(
        "--bound", type=non_negative, help="largest relative error allowed (default: 1e-9, in float32 2e-5)"
    )
    for command in (convert, inspect, verify):
        command.add_argument("--layout", default="auto", help=LAYOUT_HELP)
        command.add_argument("--rules", help=RULES_HELP)
        command.add_argument(
            "--weights-key", help="prefix of the model in a file that holds several, as state_dict_ema"
        )
        command.add_argument("--cache", help="folder for downloads (default: $VIT_JAX_CACHE or ~/.cache/vit_jax)")
        add_settings_flags(command)
    for command in (convert, inspect):
        command.add_argument("--base", help="the base model of a LoRA adapter: its weights are merged")
        command.add_argument("--name", help="require this architecture: see list")
        command.add_argument("--image-size", type=image_size, help="N or HxW: resize the position table")
        command.add_argument("--class-names", help="text file of class names, one in each line")
        command.add_argument("--in-channels", type=positive_int, help="of the pictures; a model of RGB is adapted")
    export = commands.add_parser("export", help="export a model of this library to another library's layout")
    export.set_defaults(run=run_export)
    export.add_argument("model", help="a saved model (of vit_jax.save, or of convert), or a run's folder")
    export.add_argument("--layout", help=", ".join(LAYOUTS))
    export.add_argument("--rules", help=RULES_HELP)
    export.add_argument("--format", choices=tuple(FORMATS), default="file", help="what to write: see docs/export.md")
    export.add_argument(
        "--centre",
        choices=tuple(CENTRES),
        help="of a folder: how to round an odd crop margin; may shift the crop by a pixel",
    )
    export.add_argument("--out", required=True, help="file or folder to write, completely or not at all")
    push = commands.add_parser("push", help="upload a saved model, or an exported folder, to the Hugging Face hub")
    push.set_defaults(run=run_push)
    push.add_argument("model", help="a saved model, a run's folder, or a folder of export --format folder")
    push.add_argument("repository", help="owner/name; created if it does not exist")
    push.add_argument("--private", action="store_true", help="of a new repository")
    commands.add_parser("list", help="list layouts, releases and named architectures").set_defaults(run=run_list)
    return parser


def run_convert(args: argparse.Namespace) -> int:
    """Convert a checkpoint to a saved model."""
    out = Path(args.out)
    check_apart([out], [file for file in (args.file, args.base, args.class_names, args.rules) if file])
    _check_out_folder(out, args.force)
    start = time.perf_counter()
    names = read_class_names(args.class_names) if args.class_names else ()
    with _show_progress() as progress:
        model, plan = convert_with_plan(
            args.file,
            layout=_read_layout(args),
            image_size=args.image_size,
            num_classes=args.num_classes,
            class_names=names,
            name=args.name,
            in_channels=args.in_channels,
            weights_key=args.weights_key,
            base=args.base,
            progress=progress,
            **read_settings_flags(args),
        )
    model_type = plan.layout.model_type
    model_type.save(model, out, plan.class_names, {"source": args.source, "layout": plan.layout.name})
    if is_quiet():
        for line in plan.warnings:
            print(f"{args.file}: {line}", file=sys.stderr)
    else:
        _print_plan(plan)
    seconds = time.perf_counter() - start
    print(f"{out}: {count_parameters(model):,} parameters, {model.config.describe()}, in {seconds:.1f} s")
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Print a checkpoint's arrays, layout and architecture."""
    arrays = open_contents(args.file).arrays
    width = max(map(len, arrays))
    for name, array in arrays.items():
        print(f"{name:{width}}  {array.dtype.name:8}  {'x'.join(map(str, array.shape)) or 'scalar'}")
    count = sum(int(np.prod(array.shape, dtype=object)) for array in arrays.values())
    size = sum(array.nbytes for array in arrays.values())
    print(f"{len(arrays)} arrays, {count:,} values, {size / 1e6:.1f} MB")
    names = read_class_names(args.class_names) if args.class_names else ()
    statements = read_settings_flags(args)
    request = Request(
        _read_layout(args), args.name, args.image_size, args.in_channels, weights_key=args.weights_key, **statements
    )
    try:
        plan = open_plan(args.file, request, base=args.base, class_names=names)
    except InputError as error:
        raise InputError(f"{args.file}: {str(error).removeprefix(f'{args.file}: ')}") from error
    _print_plan(plan)
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Compare a checkpoint with the original library; return 1 if the error exceeds the bound."""
    if args.released is not None:
        return _verify_released(args)
    if args.file is None or args.against is None:
        raise InputError("verify compares FILE --against an original, or --released NAME with published figures")
    dtype = "float32" if args.float32 else "float64"
    bound = BOUNDS[dtype] if args.bound is None else args.bound
    report = verify_checkpoint(
        args.file,
        against=args.against,
        dtype=dtype,
        layout=_read_layout(args),
        weights_key=args.weights_key,
        **read_settings_flags(args),
    )
    _print_report(report)
    is_within = report.max_relative_error <= bound
    print(f"{args.file}: {'within' if is_within else 'NOT within'} {bound:g} of {args.against} in {dtype}")
    return 0 if is_within else 1


def _verify_released(args: argparse.Namespace) -> int:
    """Compare released checkpoints with published figures; return 1 if one disagrees, else 2 if one has no result."""
    allowed = {"command", "run", "released", "cache", "layout", "file"}
    others = [name for name, value in vars(args).items() if name not in allowed and value not in (None, False)]
    if args.file is not None or args.layout != "auto" or others:
        raise InputError("--released compares released checkpoints as they are; leave out FILE and all but --cache")
    figures = select_figures(args.released)
    wrong, unchecked, problems = [], [], set()
    print(FIGURE_COLUMNS.format("checkpoint", "figure", "difference", "tolerance", "result", "source"))
    for result in check_figures(figures, cache=args.cache):
        if result.problem and result.problem not in problems:
            print(f"error: {result.problem}", file=sys.stderr, flush=True)
            problems.add(result.problem)
        _print_result(result)
        if result.comparison is None:
            unchecked.append(result.figure.model)
        elif not result.comparison.is_equal:
            wrong.append(result.figure.model)
    print(f"{len(figures) - len(wrong) - len(unchecked)} of {len(figures)} figures agree")
    for problem, models in (("WRONG", wrong), ("not checked", unchecked)):
        if models:
            print(f"{problem}: {', '.join(dict.fromkeys(models))}")
    return 1 if wrong else 2 if unchecked else 0


def _print_result(result: FigureResult) -> None:
    """Print a row: difference and tolerance are those of the worst number. Values follow if they disagree."""
    figure, comparison = result.figure, result.comparison
    if comparison is None:
        numbers, verdict = ("-", "-"), "not checked"
    else:
        is_number = comparison.difference is not None
        numbers = (f"{comparison.difference:.1e}", f"{comparison.tolerance:.1e}") if is_number else ("-", "-")
        verdict = "ok" if comparison.is_equal else "WRONG"
    print(FIGURE_COLUMNS.format(figure.model, figure.what, *numbers, verdict, figure.source), flush=True)
    if verdict == "WRONG" and comparison is not None:
        actual = comparison.actual if isinstance(comparison.actual, str) else comparison.actual.round(6).tolist()
        print(f"  here: {actual}\n  published: {figure.expected}", flush=True)


def run_export(args: argparse.Namespace) -> int:
    """Export a saved model to another library's file or folder."""
    has_layout = args.layout is not None or args.rules is not None
    layout = _read_layout(args) if has_layout else None
    inputs = (args.rules,) if args.rules else ()
    request = ExportRequest(Path(args.out), layout, args.centre)
    for line in export_saved(args.model, args.format, request, inputs=inputs):
        print(line)
    return 0


def run_push(args: argparse.Namespace) -> int:
    """Upload a folder to the Hugging Face hub, in one commit."""
    print(push_folder(find_saved_model(args.model).folder, args.repository, private=args.private))
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print the layouts, releases and named architectures."""
    print("layouts:")
    for layout in LAYOUTS.values():
        print(f"  {layout.name:12} {layout.title}")
    print("released checkpoints, for load_pretrained and --weights:")
    for release in RELEASES.values():
        print(f"  {release.name:16} {release.url} ({release.licence})")
    print("architectures:")
    for model_type in MODEL_TYPES:
        _print_configs(model_type, [name for name in model_type.named_configs if name not in model_type.toy_names])
    print("toy architectures, to train from scratch on a CPU:")
    for model_type in MODEL_TYPES:
        _print_configs(model_type, [name for name in model_type.named_configs if name in model_type.toy_names])
    return 0


def _print_configs(model_type: ModelType, names: list[str]) -> None:
    for name in names:
        config = model_type.named_configs[name]
        parameters = count_parameters(model_type.abstract_model(config))
        print(f"  {name:16} {parameters:12,} parameters: {config.describe()}")


def _read_layout(args: argparse.Namespace) -> str | Layout:
    """Return the layout that --layout names or --rules describes."""
    if args.rules is None:
        return args.layout
    if args.layout not in (None, "auto"):
        raise InputError("--layout and --rules exclude each other; give one of them")
    return read_rules(args.rules)


def _check_out_folder(out: Path, force: bool) -> None:
    """Raise InputError if the folder holds something else than a model, or a model without --force."""
    if not out.exists():
        return
    if not (out.is_dir() and ((out / CONFIG).is_file() or not any(out.iterdir()))):
        raise InputError(f"{out}: exists and is not a saved model; choose another --out")
    if not force and any(out.iterdir()):
        raise InputError(f"{out}: already holds a model; give --force to replace it, or another --out")


@contextmanager
def _show_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a progress callback that displays the parameters done on stderr."""
    bar: tqdm | None = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = open_progress(total, unit="parameters", description="converting")
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            note(f"converted {done}/{total} parameters", file=sys.stderr)

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()


def _print_plan(plan: ConversionPlan) -> None:
    """Print the layout and architecture, why they were chosen, and the source of what arrays cannot hold."""
    print(f"layout: {plan.layout.name} ({plan.layout.title}): {plan.selection.reason}")
    for line in plan.notes:
        print(f"  {line}")
    print(f"architecture: {plan.architecture or 'unnamed'}: {plan.config.describe()}")
    print("not in the arrays:")
    for line in plan.settings.describe():
        print(f"  {line}")
    if plan.class_names:
        shown = ", ".join(plan.class_names[:MAX_CLASSES_SHOWN])
        print(f"classes: {shown}{', ...' if len(plan.class_names) > MAX_CLASSES_SHOWN else ''}")
    if plan.unused:
        more = ", ..." if len(plan.unused) > MAX_UNUSED_SHOWN else ""
        print(f"not used by the original model either: {', '.join(plan.unused[:MAX_UNUSED_SHOWN])}{more}")


def _print_report(report: ParityReport) -> None:
    print(f"{'layer':12} {'max abs':>10} {'relative':>10}")
    for error in report.errors:
        print(f"{error.layer:12} {error.max_abs_error:10.2e} {error.relative_error:10.2e}")
    unused = f"unused: {', '.join(report.unused)}" if report.unused else "all used"
    missing = f"; missing from the file: {', '.join(report.missing)}" if report.missing else ""
    print(f"{report.num_arrays} arrays, {unused}{missing}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 if it is done, 1 if verify finds a difference, 2 for wrong input."""
    args = _make_parser().parse_args(argv)
    if getattr(args, "file", None) is not None:
        args.source = args.file if args.file.startswith(PREFIX) else Path(args.file).name
        args.file = locate(args.file, cache=args.cache)
    if getattr(args, "base", None):
        args.base = locate(args.base, cache=args.cache)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
