"""open_contents: every array of a file by name, the plain values next to them, and objects that stay inert."""

import argparse
import collections
import datetime
import enum
import json
import pathlib
import pickle

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests import optional
from tests.weights_convert.formats.crafted import FORMATS, write
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import open_contents


class Split(enum.Enum):
    TRAIN = 1
    VAL = 2


class AttributeDict(dict):
    """Like Lightning's and OmegaConf's."""


class Holder:
    def __init__(self, value):
        self.value = value


def read_all(path) -> dict[str, np.ndarray]:
    return {name: array.read() for name, array in open_contents(path).arrays.items()}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_array_has_a_dotted_name(kind, tmp_path):
    t = optional.torch.arange(6.0).reshape(2, 3)
    value = {
        "state_dict": {"blocks.0.w": t},
        "state_dict_ema": collections.OrderedDict({"blocks.0.w": t + 1}),
        "optimizer": {"state": {0: {"exp_avg": t + 2, "step": 3}}, "param_groups": [{"lr": 0.1}]},
        "epoch": optional.torch.tensor(3),
        "pair": (t + 3, [t + 4]),
        (224, 224): t + 5,
        Split.TRAIN: {"w": t + 6},
        Split.VAL: {"w": t + 7},
        frozenset("a"): t + 8,
    }
    contents = open_contents(write(value, tmp_path / "a.pth", kind))
    split = f"{__name__}.Split"
    expected = {
        "state_dict.blocks.0.w": 0,
        "state_dict_ema.blocks.0.w": 1,
        "optimizer.state.0.exp_avg": 2,
        "pair.0": 3,
        "pair.1.0": 4,
        "(224, 224)": 5,
        f"{split}(1).w": 6,
        f"{split}(2).w": 7,
        "list()": 8,
    }
    assert set(contents.arrays) == {*expected, "epoch"}
    assert contents.arrays["epoch"].read() == 3
    for name, offset in expected.items():
        np.testing.assert_array_equal(contents.arrays[name].read(), t.numpy() + offset)
    assert contents.keys["state_dict.blocks.0.w"] == ("state_dict", "blocks.0.w")
    assert contents.values["optimizer"] == {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", FORMATS)
def test_values_next_to_the_arrays_are_inert(kind, protocol, tmp_path):
    lists = collections.defaultdict(list, {"train": [0.5, 0.25]})
    value = {
        "model": {"w": optional.torch.ones(2)},
        "path": pathlib.PurePosixPath("/data/pets"),
        "args": argparse.Namespace(lr=1e-4, out=pathlib.PurePosixPath("out"), classes=("cat", "dog")),
        "hyper_parameters": AttributeDict(lr=1, nested=AttributeDict(heads=3)),
        "set": {5},
        "frozen": frozenset({"x"}),
        "split": Split.TRAIN,
        "when": datetime.datetime(2026, 1, 1),
        "slice": slice(1, 2),
        "version": optional.torch.__version__,
        "history": lists,
        "counts": collections.Counter("aab"),
        "best": np.float64(0.75),
        "name": np.str_("cat"),
        "classes": np.array(["cat", "dog"]),
        "class_to_idx": {"cat": 0, "dog": 1},
        "id2label": {0: "cat", 1: "dog"},
        "device": optional.torch.device("cpu"),
        "dtype": optional.torch.float32,
        "size": optional.torch.Size([1, 2]),
        "mixed": [1, slice(1), "a"],
        "flag": True,
        "nothing": None,
        "large": 2**100,
    }
    optional.torch.save(
        value, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=FORMATS[kind]
    )
    contents = open_contents(tmp_path / "a.pth")
    assert list(contents.arrays) == ["model.w"]
    expected = {
        "args": {"lr": 1e-4, "classes": ["cat", "dog"]},
        "hyper_parameters": {"lr": 1, "nested": {"heads": 3}},
        "set": [5],
        "frozen": ["x"],
        "history": {"train": [0.5, 0.25]},
        "counts": {"a": 2, "b": 1},
        "best": 0.75,
        "name": "cat",
        "classes": ["cat", "dog"],
        "class_to_idx": {"cat": 0, "dog": 1},
        "id2label": {0: "cat", 1: "dog"},
        "size": [1, 2],
        "mixed": [1, None, "a"],
        "flag": True,
        "nothing": None,
        "large": 2**100,
    }
    assert contents.values == expected
    assert set(read_checkpoint(tmp_path / "a.pth")) == {"w"}


@pytest.mark.parametrize("kind", FORMATS)
def test_whole_modules_are_read_as_their_state_dict(kind, tmp_path):
    optional.torch.manual_seed(0)
    module = optional.torch.nn.Sequential(
        optional.torch.nn.Conv2d(3, 8, 4, bias=False),
        optional.torch.nn.BatchNorm2d(8),
        optional.torch.nn.TransformerEncoderLayer(8, 2, 16),
    )
    module.register_buffer("scratch", optional.torch.ones(2), persistent=False)
    module.register_buffer("scale", optional.torch.ones(2))
    module.tied = module[0]
    module.class_names = ["cat", "dog"]
    expected = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    arrays = read_all(write(module, tmp_path / "a.pth", kind))
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    parallel = {"net": optional.torch.nn.DataParallel(module), "epoch": 3}
    contents = open_contents(write(parallel, tmp_path / "b.pth", kind))
    assert list(contents.arrays) == [f"net.module.{name}" for name in expected]
    assert contents.keys["net.module.0.weight"] == ("net", "module.0.weight")
    assert contents.values["net"]["_modules"]["module"]["class_names"] == ["cat", "dog"]
    assert set(read_checkpoint(tmp_path / "b.pth")) == {f"module.{name}" for name in expected}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_archives_are_read_as_their_state_dict(tmp_path):
    module = optional.torch.nn.Sequential(optional.torch.nn.Conv2d(3, 8, 4), optional.torch.nn.BatchNorm2d(8)).eval()
    optional.torch.jit.trace(module, optional.torch.ones(1, 3, 8, 8)).save(tmp_path / "a.pt")
    arrays = read_all(tmp_path / "a.pt")
    assert set(arrays) == set(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


@pytest.mark.parametrize("kind", FORMATS)
def test_wrappers_of_one_tensor_are_unwrapped(kind, tmp_path):
    class Subclass(optional.torch.Tensor):
        pass

    Subclass.__qualname__ = "Subclass"
    globals()["Subclass"] = Subclass
    parameter = optional.torch.nn.Parameter(optional.torch.arange(3.0))
    parameter.tag = "decay"
    value = {"parameter": parameter, "subclass": optional.torch.arange(4.0).as_subclass(Subclass)}
    arrays = read_all(write(value, tmp_path / "a.pth", kind))
    np.testing.assert_array_equal(arrays["parameter"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["subclass"], [0, 1, 2, 3])


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*CSR:UserWarning")
@pytest.mark.parametrize(
    ("make", "message", "shape"),
    [
        (
            lambda t: optional.torch.quantize_per_tensor(t, 0.1, 0, optional.torch.qint8),
            "_rebuild_qtensor.*save it dequantized",
            (2, 3),
        ),
        (lambda t: t.to_sparse(), "_rebuild_sparse_tensor.*to_dense", ()),
        (lambda t: t.to("meta"), "_rebuild_meta_tensor_no_storage.*no values", (2, 3)),
        (Holder, "test_contents.Holder, which is not supported; save model.state_dict", ()),
        (lambda t: argparse.Namespace(deep=[{"w": t}]), "argparse.Namespace", ()),
        (
            lambda t: t.to(optional.torch.float8_e4m3fn),
            "unsupported type float8_e4m3fn, and weights need float32",
            (2, 3),
        ),
        (lambda t: t.to(optional.torch.float8_e5m2), "unsupported type float8_e5m2", (2, 3)),
        (lambda t: t.to(optional.torch.complex64), "unsupported type complex64", (2, 3)),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_arrays_that_depend_on_a_class_are_named_when_read(kind, make, message, shape, tmp_path):
    t = optional.torch.arange(6.0).reshape(2, 3)
    path = write({"model": {"head.weight": make(t), "head.bias": t}}, tmp_path / "a.pth", kind)
    arrays = open_contents(path).arrays
    np.testing.assert_array_equal(arrays["model.head.bias"].read(), t.numpy())
    array = arrays["model.head.weight"]
    assert array.shape == shape
    with pytest.raises(InputError, match=rf"^model\.head\.weight.*{message}") as caught:
        array.read()
    assert str(caught.value) == array.problem
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


def test_a_type_of_torch_without_a_name_in_numpy_is_named(tmp_path):
    packed = optional.torch.zeros(2, dtype=optional.torch.uint8).view(optional.torch.float4_e2m1fn_x2)
    array = open_contents(write({"w": packed, "v": optional.torch.ones(1)}, tmp_path / "a.pth")).arrays["w"]
    assert "torch._utils._rebuild_tensor_v3 of type torch.float4_e2m1fn_x2" in array.problem


def test_integers_of_every_size_are_read(tmp_path):
    value = {
        str(d): optional.torch.arange(3).to(d)
        for d in (optional.torch.uint16, optional.torch.uint32, optional.torch.uint64, optional.torch.int8)
    }
    for name, array in read_all(write(value, tmp_path / "a.pth")).items():
        np.testing.assert_array_equal(array, np.arange(3, dtype=name.removeprefix("torch.")), strict=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_arrays(protocol, tmp_path):
    arrays = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "brain": np.arange(3).astype(ml_dtypes.bfloat16),
    }
    objects = {"objects": np.array([{}, 1], object), "text": np.array(["a"]), "epoch": 3}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"params": {**arrays, "jax": jnp.arange(4.0)}, **objects}, protocol))
    read = read_all(path)
    assert set(read) == {*(f"params.{name}" for name in arrays), "params.jax"}
    np.testing.assert_array_equal(read["params.jax"], np.arange(4, dtype=np.float32), strict=True)
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(read[f"params.{name}"], native, strict=True)
    assert open_contents(path).values == {"text": ["a"], "epoch": 3}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_tensors(protocol, tmp_path):
    t = optional.torch.arange(6.0)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": t, "part": t[2:4], "half": t.half()}, protocol))
    read = read_all(path)
    np.testing.assert_array_equal(read["w"], t.numpy(), strict=True)
    np.testing.assert_array_equal(read["part"], [2, 3])
    np.testing.assert_array_equal(read["half"], t.half().numpy(), strict=True)


def test_numpy_arrays_in_a_torch_file(tmp_path):
    value = {"w": np.arange(3.0), "rng": np.random.RandomState(0).get_state()}
    arrays = read_all(write(value, tmp_path / "a.pth"))
    np.testing.assert_array_equal(arrays["w"], np.arange(3.0), strict=True)
    np.testing.assert_array_equal(arrays["rng.1"], value["rng"][1], strict=True)


def test_lists_and_single_tensors(tmp_path):
    assert set(open_contents(write([{"w": optional.torch.ones(1)}, 3], tmp_path / "a.pth")).arrays) == {"0.w"}
    for value in (optional.torch.ones(2), optional.torch.ones(2).untyped_storage(), np.ones(2)):
        with pytest.raises(InputError, match="a single tensor"):
            open_contents(write(value, tmp_path / "b.pth"))


def test_two_arrays_of_one_name_are_not_read(tmp_path):
    path = write(
        {"a": {"b": optional.torch.ones(1)}, "a.b": optional.torch.zeros(1), "c": optional.torch.ones(1)},
        tmp_path / "a.pth",
    )
    assert "a.b: the file has two arrays" in open_contents(path).arrays["a.b"].problem


def write_safetensors(path, **tensors):
    """Write {name: (type, shape, bytes)} by hand: numpy has no name for some types."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, shape, values) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_safetensors_metadata_and_unsupported_types(tmp_path):
    path = write_safetensors(
        tmp_path / "a.safetensors",
        good=("F32", [2], np.ones(2, np.float32).tobytes()),
        small=("F8_E4M3", [2, 3], bytes(6)),
        wide=("F8_E5M2", [2], bytes(2)),
        whole=("U16", [2], bytes(4)),
    )
    contents = open_contents(path)
    assert contents.values == {"format": "pt"}
    assert contents.arrays["small"].shape == (2, 3)
    assert contents.arrays["small"].dtype == ml_dtypes.float8_e4m3fn
    assert contents.arrays["whole"].read().dtype == np.uint16
    np.testing.assert_array_equal(contents.arrays["good"].read(), [1, 1])
    with pytest.raises(InputError, match=r"^small has the unsupported type float8_e4m3fn, and weights need float32"):
        contents.arrays["small"].read()
    with pytest.raises(InputError, match="wide has the unsupported type float8_e5m2"):
        contents.arrays["wide"].read()


def test_npz_arrays_of_other_types_are_named_when_read(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(2), z=np.ones(2, complex), names=np.array(["cat"]))
    arrays = open_contents(tmp_path / "a.npz").arrays
    np.testing.assert_array_equal(arrays["w"].read(), [1, 1])
    assert "z has the unsupported type complex128" in arrays["z"].problem
    assert "names has the unsupported type <U3" in arrays["names"].problem
