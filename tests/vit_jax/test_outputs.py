"""Outputs never replace inputs, by whatever path or link they are named."""

import os

import pytest

from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.outputs import check_apart, check_out_folder, check_outside, find_replaced


def test_an_existing_input_is_found_by_any_path(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    picture = tmp_path / "in" / "a.png"
    picture.touch()
    monkeypatch.chdir(tmp_path)
    for output in (picture, "in/a.png", "link/a.png", "in/../in/a.png"):
        assert find_replaced([tmp_path / "in" / "b.png", output], [picture]) is not None, output
    assert find_replaced(["in/b.png", "a.png"], [picture]) is None  # nothing exists there
    (tmp_path / "a.png").touch()
    assert find_replaced(["a.png"], [picture]) is None


def test_the_file_behind_a_linked_input_is_an_input(tmp_path):
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.touch()
    link.symlink_to(real)
    assert find_replaced([real], [link]) == real
    assert find_replaced([link], [link]) == link
    assert find_replaced([link], [real]) is None  # a rename replaces the link alone


def test_a_folder_that_contains_an_input_is_not_replaced(tmp_path):
    (tmp_path / "model" / "sub").mkdir(parents=True)
    file = tmp_path / "model" / "sub" / "weights.npz"
    file.touch()
    with pytest.raises(InputError, match="model: this command reads it, and its output would replace it"):
        check_apart([tmp_path / "model"], [file])
    check_apart([tmp_path / "other"], [file])


def test_results_do_not_go_among_the_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for out in ("images", "images/new/deep", "link/new", "images/../images"):
        with pytest.raises(InputError, match="among the images; choose another --out"):
            check_outside(tmp_path / out, [tmp_path / "images"])
    check_outside(tmp_path / "images2", [tmp_path / "images"])
    check_outside(tmp_path, [tmp_path / "images"])


def test_an_output_folder_is_no_file_and_not_below_one(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in ("file", "file/new", "dangling"):
        with pytest.raises(InputError, match="exists and is not a folder"):
            check_out_folder(tmp_path / out)
    check_out_folder(tmp_path)
    check_out_folder(tmp_path / "new" / "deep")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_or_device_is_not_replaced(tmp_path):
    """The rename of an atomic write would put a file in place of root's /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"{name}: not a regular file"), atomic_write(tmp_path / name):
            pass
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
