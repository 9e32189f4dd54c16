"""--config FILE: flags from TOML, which flags on the command line replace; every wrong key or value is named."""

import argparse

import pytest

from vit_jax import InputError
from vit_jax.cli import Parser, positive_int


def make_parser():
    parser = Parser(prog="program")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--learning-rate", "--lr", type=float, default=0.5)
    parser.add_argument("--epochs", type=positive_int)
    parser.add_argument("--crop-scale", type=float, nargs=2)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--method", action="append")
    parser.add_argument("--kind", choices=("cat", "dog"))
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--no-check", dest="check", action="store_false")
    parser.add_argument("--scan-layers", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--profile", nargs="?", const=10, type=positive_int)
    parser.add_argument("--out", required=True)
    return parser


def parse(tmp_path, text, *arguments):
    file = tmp_path / "flags.toml"
    file.write_text(text)
    return make_parser().parse_args(["--config", str(file), *arguments])


EVERY = """
out = "-o"  # a value may look like a flag
lr = 1e-4
epochs = 3
crop_scale = [0.25, 1]
models = ["B_16", "B_32"]
method = ["flow", "rise"]
kind = "dog"
fsdp = true
check = false
scan-layers = true
profile = 20
"""


def test_every_kind_of_flag_is_read(tmp_path):
    assert vars(parse(tmp_path, EVERY, "m")) == {
        "model": "m", "learning_rate": 1e-4, "epochs": 3, "crop_scale": [0.25, 1.0], "models": ["B_16", "B_32"],
        "method": ["flow", "rise"], "kind": "dog", "fsdp": True, "check": False, "scan_layers": True, "profile": 20,
        "out": "-o",
    }  # fmt: skip


def test_flags_on_the_command_line_win_wherever_the_file_stands(tmp_path):
    given = ["--learning-rate", "2", "--method", "cam", "--models", "X", "--no-scan-layers", "--out=p", "--profile"]
    args = parse(tmp_path, EVERY, *given)
    assert (args.learning_rate, args.method, args.models, args.scan_layers) == (2.0, ["cam"], ["X"], False)
    assert (args.out, args.profile, args.epochs, args.kind) == ("p", 10, 3, "dog")
    args = make_parser().parse_args(["--lr=2", "m", f"--config={tmp_path / 'flags.toml'}", "--epochs", "9"])
    assert (args.learning_rate, args.model, args.epochs, args.crop_scale) == (2.0, "m", 9, [0.25, 1.0])


def test_a_list_in_the_file_takes_no_positional(tmp_path):
    (tmp_path / "flags.toml").write_text('out = "o"\ncrop-scale = [0.25, 1.0]\nmodels = ["X", "Y"]')
    for arguments in (["m"], ["--", "m"]):
        args = make_parser().parse_args(["--config", str(tmp_path / "flags.toml"), *arguments])
        assert (args.model, args.models, args.crop_scale) == ("m", ["X", "Y"], [0.25, 1.0])


def test_false_is_the_default_or_the_flag_that_turns_off(tmp_path):
    args = parse(tmp_path, 'out="o"\nfsdp = false\ncheck = true\nscan_layers = false\nprofile = true')
    assert (args.fsdp, args.check, args.scan_layers, args.profile) == (False, True, False, 10)
    assert parse(tmp_path, 'out="o"\nno-check = true').check is False
    assert parse(tmp_path, 'out="o"\nno-check = false').check is True
    assert parse(tmp_path, 'out="o"\nno_scan_layers = false').scan_layers is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch': program has no flag of that name; did you mean epochs?"),
        ("config = 'x.toml'", "unknown key 'config'"),
        ("[recipe]\nepochs = 3", "recipe is a table; write flags at the top of the file, as KEY = VALUE"),
        ("epochs = {x = 3}", "epochs is a table; write flags at the top of the file"),
        ("recipe.epochs = 3", "recipe is a table; write flags at the top of the file"),
        ("models = [['a']]", "models: numbers or texts, not [['a']]"),
        ("lr = 1\nlr = 2", "not a TOML file: Cannot overwrite a value"),
        ("", "no flags in it; write them as KEY = VALUE, or leave out --config"),
        ("# epochs = 3", "no flags in it"),
        ("out = " + "[" * 3000, "not a TOML file: "),
        ("epochs = " + "9" * 5000, "not a TOML file: "),
        ("epochs = 0", "epochs: '0' is not a whole number above 0"),
        ("epochs = [1, 2]", "epochs: one value, not 2"),
        ("epochs = true", "epochs: a value, not true"),
        ("profile = false", "profile: a value, not false"),
        ("fsdp = 1", "fsdp: true or false, not 1"),
        ("check = 'no'", "check: true or false, not 'no'"),
        ("models = []", "models: numbers or texts, not []"),
        ("crop-scale = [1, 2, 3]", "crop-scale: 2 values, not 3"),
        ("crop-scale = [-1.5, -1e-9]", "crop-scale: a list cannot hold '-1e-09', which argparse takes for a flag"),
        ("crop-scale = [1]", "crop-scale: "),
        ("kind = 'cta'", "kind: 'cta' is not one of cat, dog; did you mean cat?"),
        ("lr = 1\nlearning_rate = 2", "lr and learning_rate are one flag; leave one out"),
        ("model = 'm'", "model has no flag; give it on the command line"),
        ("epochs = 1979-05-27", "epochs: numbers or texts, not"),
        ("epochs = ", "not a TOML file: "),
    ],
)
def test_a_wrong_key_or_value_names_the_file_and_the_key(text, message, tmp_path):
    with pytest.raises(InputError) as error:
        parse(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'flags.toml'}: {message}")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["out = 'café'".encode("latin-1"), "out = 'o'".encode("utf-16"), bytes(range(256))])
def test_other_encodings_are_named(content, tmp_path):
    (tmp_path / "flags.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"flags.toml: not UTF-8 \(invalid .* at byte \d+\); save it as UTF-8"):
        make_parser().parse_args(["--config", str(tmp_path / "flags.toml")])


def test_the_signature_of_windows_editors_is_no_key(tmp_path):
    (tmp_path / "flags.toml").write_bytes("out = 'o'\nepochs = 3\n".encode("utf-8-sig"))
    args = make_parser().parse_args(["--config", str(tmp_path / "flags.toml")])
    assert (args.out, args.epochs) == ("o", 3)


def test_what_is_no_file_of_flags_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="only the training programs read a run"):
        make_parser().parse_args(["--config", str(tmp_path / "config.json")])
    with pytest.raises(FileNotFoundError):
        make_parser().parse_args(["--config", str(tmp_path / "nowhere.toml")])


def test_one_file_is_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(tmp_path, "", "--config", "other.toml")
    assert "--config is given twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--out", "o", "--config"])
    assert "error: argument --config: expected one argument" in capsys.readouterr().err
