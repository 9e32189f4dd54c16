"""The parser of all programs: any order, no abbreviations, one line for a wrong flag or choice with similar names."""

import pytest

from vit_jax.cli import Parser, positive_int


def make_parser():
    parser = Parser(prog="program")
    parser.add_argument("model")
    parser.add_argument("images", nargs="*")
    parser.add_argument("--out")
    parser.add_argument("--top-k", type=positive_int)
    parser.add_argument("--method", choices=("attention", "relevance"))
    return parser


def make_parser_of_commands():
    parser = Parser(prog="program")
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert")
    convert.add_argument("file")
    convert.add_argument("more", nargs="*")
    convert.add_argument("--out", required=True)
    commands.add_parser("inspect")
    return parser


@pytest.mark.parametrize(
    "arguments",
    [
        ["m", "a", "b", "--out", "o", "--top-k", "3"],
        ["--out", "o", "--top-k", "3", "m", "a", "b"],
        ["m", "--out", "o", "a", "--top-k", "3", "b"],
        ["--top-k=3", "m", "a", "--out=o", "b"],
        ["--out", "o", "--top-k", "3", "--", "m", "a", "b"],
    ],
)
def test_flags_and_positionals_have_any_order(arguments):
    expected = {"model": "m", "images": ["a", "b"], "out": "o", "top_k": 3, "method": None}
    assert vars(make_parser().parse_args(arguments)) == expected


def test_flags_of_a_subcommand_have_any_order():
    for arguments in (["f", "g", "h", "--out", "o"], ["f", "--out", "o", "g", "h"], ["--out", "o", "f", "g", "h"]):
        parsed = make_parser_of_commands().parse_args(["convert", *arguments])
        assert vars(parsed) == {"command": "convert", "file": "f", "more": ["g", "h"], "out": "o"}


def test_what_looks_like_a_flag_may_be_a_value_or_follow_two_dashes():
    assert make_parser().parse_args(["m", "--out=--top"]).out == "--top"
    assert make_parser().parse_args(["m", "--", "--top", "-x"]).images == ["--top", "-x"]
    assert make_parser().parse_args(["m", "-5", "-"]).images == ["-5", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m", "--outt", "o"], "unknown flag --outt; did you mean --out? (see program --help)"),
        (["--top_k", "3"], "unknown flag --top_k; did you mean --top-k? (see program --help)"),
        (["m", "--topk=3"], "unknown flag --topk; did you mean --top-k? (see program --help)"),
        (["m", "--to", "3"], "unknown flag --to"),  # an abbreviation is not accepted
        (["m", "-o", "x"], "unknown flag -o"),
        (["m", "--zzz"], "unknown flag --zzz (see program --help)"),
        (["m", "--method", "relevanc"],
         "argument --method: 'relevanc' is not one of attention, relevance; did you mean relevance?"),
    ],
)  # fmt: skip
def test_a_wrong_flag_or_choice_is_one_line_with_similar_names(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith(f"error: {message}")
    assert len(error.splitlines()) == 1


def test_an_error_names_a_flag_by_its_first_name(capsys):
    parser = Parser(prog="program")
    parser.add_argument("--batch-size", "--batch", "--bs", type=positive_int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--bs", "0"])
    assert capsys.readouterr().err.startswith("error: argument --batch-size: '0' is not a whole number above 0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convrt", "f"], "'convrt' is not one of convert, inspect; did you mean convert?"),
        (["convert", "f", "--oot", "o"], "unknown flag --oot; did you mean --out? (see program convert --help)"),
        (["--out", "o", "convert", "f"], "unknown flag --out (see program --help)"),
    ],
)
def test_subcommands_and_their_flags_are_suggested_too(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        make_parser_of_commands().parse_args(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[""], ["m", "--out", ""], ["m", "--out="], ["m", "a", ""]])
def test_an_empty_value_is_no_path(arguments, capsys):
    """An unset variable of a shell: as a path it would be the current folder."""
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: argument ")
    assert ": the value is empty (see program --help)" in error
