"""Images of more than 8 bits per channel show what they hold: by the range of the file, else by their values."""

import atexit
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import CorruptImageError, open_picture, open_rgb
from vit_jax.data import decode as decoding
from vit_jax.data.guessed_ranges import GuessedRanges
from vit_jax.errors import InputError


@pytest.fixture(autouse=True)
def guesses(monkeypatch):
    """The report of this test alone."""
    fresh = GuessedRanges()
    monkeypatch.setattr(decoding, "guessed_ranges", fresh)
    yield fresh
    atexit.unregister(fresh._report)


def encode(array, format, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def ramp(largest, kind=np.uint16):
    """[8, 8] values from 0 to `largest`."""
    return np.linspace(0, largest, 64).astype(kind).reshape(8, 8)


def pixels(data):
    return np.asarray(open_picture(data)).astype(int)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(values, significant=None, transparent=None):
    """A 16-bit PNG of grey, grey and alpha, RGB or RGBA values [h, w, c], with an sBIT and a tRNS chunk if given."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    extra = chunk(b"sBIT", bytes([significant] * channels)) if significant else b""
    extra += chunk(b"tRNS", struct.pack(f">{channels}H", *[transparent] * channels)) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_any_depth_in_16_bits(bits, format, guesses):
    values = ramp(2**bits - 1)
    np.testing.assert_array_equal(pixels(encode(values, format)), values >> (bits - 8))
    open_picture(encode(ramp(2**bits - 2), format))
    expected = f"the range of 2 images was guessed: 2 as {bits} bits (first: image)" if bits < 16 else ""
    assert guesses.describe() == expected


@pytest.mark.parametrize("bits", [8, 12, 16, 24])
def test_grey_in_32_bits(bits):
    values = ramp(2**bits - 1, np.int32)
    np.testing.assert_array_equal(pixels(encode(values, "TIFF")), values >> (bits - 8))


def tiff(values, bits, sample_format):
    """An uncompressed grey TIFF, whose samples of these bits are `values` in bytes."""
    height, width = 2, 2
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 12 * 9 + 4),
            (277, 3, 1), (279, 4, len(values)), (339, 3, sample_format)]  # fmt: skip
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + values


def test_unsigned_32_bits_are_not_negative():
    data = tiff(np.array([0, 2**31, 2**32 - 1, 2**30], "<u4").tobytes(), 32, 1)
    assert pixels(data).tolist() == [[0, 128], [255, 64]]


def test_a_range_that_the_file_states_wins(guesses):
    dark = np.array([[0, 100], [200, 15]])
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in dark.tolist())  # 12 bits each
    assert pixels(tiff(packed, 12, 1)).tolist() == (dark >> 4).tolist()
    shifted = (dark[..., None] << 4).astype(np.uint16)  # as the PNG specification says
    assert pixels(png16(shifted, significant=12)).tolist() == (dark >> 4).tolist()
    unshifted = dark[..., None].astype(np.uint16)
    assert pixels(png16(unshifted, significant=12)).tolist() == (dark >> 4).tolist()
    pgm = b"P5 2 2 4095\n" + dark.astype(">u2").tobytes()
    assert np.abs(pixels(pgm) - dark * 255 / 4095).max() < 1
    assert (guesses.describe(), len(guesses._seen)) == ("", 0)


def test_jpeg2000_is_scaled_by_its_decoder():
    values = ramp(65535)
    assert np.abs(pixels(encode(values, "JPEG2000")) - (values >> 8)).max() <= 1


@pytest.mark.parametrize("limit", [1, 255, 4095, 65535])
def test_floats(limit, guesses):
    values = ramp(limit, np.float32)
    expected = np.round(values.astype(np.float64) * 255 / limit)
    np.testing.assert_array_equal(pixels(encode(values, "TIFF")), expected)
    open_picture(encode(values.T.copy(), "TIFF"))
    assert f"2 as 0..{limit} " in guesses.describe()


@pytest.mark.parametrize(
    ("values", "format", "max_value", "expected"),
    [
        (ramp(200), "PNG", 4095.0, ramp(200) >> 4),  # dark, and still of 12 bits
        (ramp(3), "TIFF", 3.0, np.round(ramp(3) * 85.0)),
        (ramp(10000), "PNG", 10000.0, np.round(ramp(10000) * 0.0255)),
        (ramp(0.5, np.float32), "TIFF", 1.0, np.round(ramp(0.5, np.float32).astype(float) * 255)),
        (ramp(1.5, np.float32), "TIFF", 2.5, np.round(ramp(1.5, np.float32).astype(float) * 102)),
        (np.full((2, 2), 70000, np.int32), "TIFF", 2.0**20 - 1, np.full((2, 2), 70000 >> 12)),
        (ramp(255, np.uint8), "PNG", 4095.0, ramp(255, np.uint8)),  # 8 bits have one range
    ],
)
def test_a_range_that_the_user_states_precedes_all(values, format, max_value, expected, guesses):
    np.testing.assert_array_equal(np.asarray(open_picture(encode(values, format), max_value=max_value)), expected)
    assert not guesses._seen


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_a_stated_range(channels, guesses):
    values = np.full((2, 2, channels), 400, np.uint16)
    image = np.asarray(open_picture(png16(values, significant=10), max_value=4095.0))
    assert (image[..., :3] == 400 >> 4).all()
    bright = np.full((2, 2, 3), 65535, np.uint16)
    assert (np.asarray(open_picture(png16(bright), max_value=65535.0)) == 255).all()
    assert not guesses._seen


@pytest.mark.parametrize("channels", [1, 3])
def test_a_value_outside_of_the_stated_range_ends_the_program(channels, tmp_path):
    (tmp_path / "a.png").write_bytes(png16(np.full((1, 2, channels), 4096, np.uint16)))
    message = r"a.png: has values from 4096 to 4096, outside of 0 to 4095 \(--max-value\)"
    with pytest.raises(InputError, match=message) as caught:
        open_picture(tmp_path / "a.png", max_value=4095.0)
    assert not isinstance(caught.value, CorruptImageError)  # which programs skip
    (tmp_path / "b.tif").write_bytes(encode(np.array([[-1, 1]], np.float32), "TIFF"))
    with pytest.raises(InputError, match=r"b.tif: has values from -1 to 1, outside of 0 to 1"):
        open_picture(tmp_path / "b.tif", max_value=1.0)


def test_few_significant_bits_of_a_png_are_stretched():
    assert pixels(png16(np.array([[[0], [5], [15]]], np.uint16), significant=4)).tolist() == [[0, 85, 255]]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.array([[0, np.nan]], np.float32), "has values that are no finite numbers"),
        (np.array([[0, np.inf]], np.float32), "has values that are no finite numbers"),
        (np.array([[-1, 1]], np.float32), "has values from -1 to 1, so its range is unknown"),
        (np.array([[0, 1.02]], np.float32), "has values from 0 to 1.02, so its range is unknown"),
        (np.array([[0, 70000]], np.float32), "has values from 0 to 70000, so its range is unknown"),
        (np.array([[-1000, 3000]], np.int32), "has values from -1000 to 3000, so its range is unknown"),
    ],
)
def test_images_without_a_known_range_are_named(values, problem, tmp_path):
    (tmp_path / "ct.tif").write_bytes(encode(values, "TIFF"))
    with pytest.raises(CorruptImageError, match=f"ct.tif: {problem}"):
        open_picture(tmp_path / "ct.tif")


def test_black_has_every_range(guesses):
    for values in (np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32)):
        assert pixels(encode(values, "TIFF")).max() == 0
    assert not guesses._seen


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colours_of_16_bits(bits, channels, guesses):
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 5, channels)).astype(np.uint16)
    values[0, 0, 0] = 2**bits - 1
    expected = values >> (bits - 8)
    expected = expected if channels > 2 else expected[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(pixels(png16(values)), expected)
    assert len(guesses._seen) == (bits < 16)


def test_opaque_alpha_of_16_bits_beside_colours_of_12():
    values = np.full((2, 2, 4), 4095, np.uint16)
    values[..., 3] = 65535
    assert (pixels(png16(values)) == 255).all()


def test_alpha_has_the_stated_range_of_the_colours():
    """4000 is opaque, on a background that would show else."""
    file = png16(np.full((2, 2, 4), 4000, np.uint16))
    assert (np.asarray(open_rgb(file, background="#000000", max_value=4000.0)) == 255).all()


def test_a_line_names_the_first_guess_and_the_last_line_counts_every_image_once(tmp_path, capsys, guesses):
    for name, largest in (("a", 4000), ("b", 200), ("c", 3000), ("d", 60000)):
        (tmp_path / f"{name}.png").write_bytes(encode(ramp(largest), "PNG"))
    for name in "abcda":
        open_rgb(tmp_path / f"{name}.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/a.png: the largest value is 4000, so its range is guessed as 12 bits")
    assert guesses.describe() == (
        f"the range of 3 images was guessed: 2 as 12 bits, 1 as 8 bits (first: {tmp_path}/a.png)"
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("key", [4000, 60000])
def test_a_transparent_value_of_16_bits(key, channels):
    values = np.full((2, 2, channels), key, np.uint16)
    values[0] = key - 1  # equal in the upper 8 bits
    image = open_picture(png16(values, transparent=key))
    assert image.mode == "RGBA"
    assert [image.getpixel((0, y))[3] for y in range(2)] == [255, 0]
    assert open_rgb(png16(values, transparent=key), background="red").getpixel((0, 1)) == (255, 0, 0)


def test_the_last_line_is_printed_when_the_process_ends(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(encode(ramp(4000), "PNG"))
    code = "import sys; from vit_jax.data import open_rgb; [open_rgb(file) for file in sys.argv[1:]]"
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    first, last = done.stderr.splitlines()
    assert first.startswith(f"{files[0]}: the largest value is 4000")
    assert last == f"the range of 2 images was guessed: 2 as 12 bits (first: {files[0]})"
