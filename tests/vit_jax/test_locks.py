"""Locks of output folders: one holder at a time, released at the end, and no folder left behind."""

import pytest

from vit_jax import InputError
from vit_jax.locks import lock_folder


def test_one_holder_at_a_time(tmp_path):
    folder = tmp_path / "a" / "b"
    with lock_folder(folder, "trains here"):
        (folder / "result").write_text("x")
        with pytest.raises(InputError, match="b: another process trains here; wait for it, or stop it first"):  # noqa: SIM117
            with lock_folder(folder, "trains here"):
                pass
    with lock_folder(folder, "trains here"):
        pass
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_new_folder_without_results_is_removed(tmp_path):
    with lock_folder(tmp_path / "new", "trains here"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with lock_folder(tmp_path / "old", "trains here"):
        pass
    assert (tmp_path / "old").is_dir()


def test_new_parents_without_results_are_removed(tmp_path):
    (tmp_path / "old").mkdir()
    with lock_folder(tmp_path / "old" / "a" / "b", "trains here"):
        pass
    assert not list((tmp_path / "old").iterdir())


def test_the_holder_may_remove_the_folder(tmp_path):
    with lock_folder(tmp_path / "new", "trains here"):
        (tmp_path / "new" / ".lock").unlink(missing_ok=True)
        (tmp_path / "new").rmdir()
    assert not (tmp_path / "new").exists()
