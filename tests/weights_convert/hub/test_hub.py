"""hf:owner/name through huggingface_hub, over loopback."""

import numpy as np
import pytest

from tests.weights_convert.hub.server import serve_hub
from tests.weights_convert.test_huggingface import make_original
from vit_jax import InputError
from weights_convert import convert, load_pipeline, load_pretrained
from weights_convert.__main__ import main

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_original("ViTForImageClassification").float().save_pretrained(folder)
    return folder


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in saved.iterdir()} | {"README.md": b"x", "tf_model.h5": b"y"}
    with serve_hub({"owner/name": files}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("VIT_JAX_OFFLINE", raising=False)
        yield server


def test_a_repository_is_fetched_once_and_works_offline(hub, saved, monkeypatch):
    model = load_pretrained("hf:owner/name")
    expected = convert(saved)
    assert model.config == expected.config
    np.testing.assert_array_equal(model.head.kernel[...], expected.head.kernel[...])
    assert not any("tf_model" in path or "README" in path for path in hub.requests)
    hub.requests.clear()
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    loaded = load_pretrained("hf:owner/name")
    np.testing.assert_array_equal(model.head.kernel[...], loaded.head.kernel[...])
    assert not hub.requests


def test_by_command(hub, tmp_path, capsys):
    assert main(["convert", "hf:owner/name", "--cache", str(tmp_path / "other"), "--out", str(tmp_path / "m")]) == 0
    assert "layout: hf_vit" in capsys.readouterr().out
    assert (tmp_path / "other" / "hub").is_dir()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "vit_base_patch16_224", "hf:owner/name"])
def test_without_a_connection_the_error_is_one_line(hub, monkeypatch, name, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["inspect", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hf:")
    assert error.endswith("; check the network and try again\n")
    assert error.count("\n") == 1


def test_names_of_timm_and_hugging_face_are_fetched_from_the_hub(hub, saved, monkeypatch):
    expected = convert(saved)
    for name, repository in (
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224"),
        ("vit_base_patch16_224", "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    ):
        hub.repositories = {repository: hub.repositories.popitem()[1]}
        model = load_pretrained(name)
        np.testing.assert_array_equal(model.head.kernel[...], expected.head.kernel[...])
        assert load_pipeline(name).class_names == tuple(f"LABEL_{label}" for label in range(7))


def test_a_gated_repository_names_the_token(hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub.gated.add("owner/name")
    assert main(["inspect", "hf:owner/name"]) == 2
    *_, error = capsys.readouterr().err.splitlines()  # the library's progress bar before it
    assert error.startswith(
        f"error: hf:owner/name: gated: accept its licence at {hub.address}/owner/name, then set HF_"
    )


def test_failed_downloads_are_one_line(hub, monkeypatch, capsys):
    with pytest.raises(InputError, match="not a repository; give hf:owner/name"):
        load_pretrained("hf:name")
    for name in ("hf:nobody/none", "hf:owner/name@9.9"):
        hub.repositories["owner/name"] = {"README.md": b"x"}
        assert main(["inspect", name]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: hf:")
        assert error.count("\n") == 1
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    with pytest.raises(InputError, match="not in the cache and VIT_JAX_OFFLINE is set"):
        load_pretrained("hf:owner/name")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="needs huggingface_hub: pip install"):
        load_pretrained("hf:owner/name")
