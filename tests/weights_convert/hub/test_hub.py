"""hf:owner/name through huggingface_hub, over loopback."""

import http.server
import json
import threading
import zlib
from typing import ClassVar

import numpy as np
import pytest

from tests.weights_convert.test_huggingface import make_original
from vit_jax import InputError
from weights_convert import convert, load_pipeline, load_pretrained
from weights_convert.__main__ import main

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def etag_of(name):
    return f"{zlib.crc32(name.encode()):040x}"


class Hub(http.server.BaseHTTPRequestHandler):
    """A server with the part of the hub's API that a download uses."""

    files: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[list[str]] = []
    repository: ClassVar[str] = "owner/name"

    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, body):
        self.requests.append(self.path)
        content, etag = None, None
        if self.path.startswith(f"/api/models/{self.repository}/tree"):
            entries = [dict(type="file", path=n, size=len(c), oid=etag_of(n)) for n, c in self.files.items()]
            content = json.dumps(entries).encode()
        elif self.path.startswith(f"/api/models/{self.repository}"):
            siblings = [{"rfilename": name} for name in self.files]
            content = json.dumps(
                {"id": self.repository, "sha": COMMIT, "siblings": siblings, "private": False}
            ).encode()
        elif self.path.startswith(f"/{self.repository}/resolve/"):
            name = self.path.rpartition("/")[2]
            content, etag = self.files.get(name), f'"{etag_of(name)}"'
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_original("ViTForImageClassification").float().save_pretrained(folder)
    return folder


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    Hub.files = {path.name: path.read_bytes() for path in saved.iterdir()} | {"README.md": b"x", "tf_model.h5": b"y"}
    Hub.requests.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIT_JAX_OFFLINE", raising=False)
    yield tmp_path / "cache"
    server.shutdown()
    server.server_close()


def test_a_repository_is_fetched_once_and_works_offline(hub, saved, monkeypatch):
    model = load_pretrained("hf:owner/name")
    expected = convert(saved)
    assert model.config == expected.config
    np.testing.assert_array_equal(model.head.kernel[...], expected.head.kernel[...])
    assert not any("tf_model" in path or "README" in path for path in Hub.requests)
    Hub.requests.clear()
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    loaded = load_pretrained("hf:owner/name")
    np.testing.assert_array_equal(model.head.kernel[...], loaded.head.kernel[...])
    assert not Hub.requests


def test_by_command(hub, tmp_path, capsys):
    assert main(["convert", "hf:owner/name", "--cache", str(tmp_path / "other"), "--out", str(tmp_path / "m")]) == 0
    assert "layout: hf_vit" in capsys.readouterr().out
    assert (tmp_path / "other" / "hub").is_dir()
    assert not hub.exists()


@pytest.mark.parametrize("name", ["google/vit-base-patch16-224", "vit_base_patch16_224", "hf:owner/name"])
def test_without_a_connection_the_error_is_one_line(hub, monkeypatch, name, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["inspect", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hf:")
    assert error.count("\n") == 1


def test_names_of_timm_and_hugging_face_are_fetched_from_the_hub(hub, saved, monkeypatch):
    expected = convert(saved)
    for name, repository in (
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224"),
        ("vit_base_patch16_224", "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    ):
        monkeypatch.setattr(Hub, "repository", repository)
        model = load_pretrained(name)
        np.testing.assert_array_equal(model.head.kernel[...], expected.head.kernel[...])
        assert load_pipeline(name).class_names == tuple(f"LABEL_{label}" for label in range(7))


def test_failed_downloads_are_one_line(hub, monkeypatch, capsys):
    with pytest.raises(InputError, match="not a repository; give hf:owner/name"):
        load_pretrained("hf:name")
    for name in ("hf:nobody/none", "hf:owner/name@9.9"):
        Hub.files = {"README.md": b"x"}
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
