"""Uploads to a server on loopback that responds as the hub does."""

import base64
import http.server
import json
import threading

import pytest

import vit_jax
from tests.weights_convert.folders.models import NAMES, make
from weights_convert.__main__ import main
from weights_convert.hub.push import write_card

hub = pytest.importorskip("huggingface_hub")


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Keep the files of a commit in server.files, and the repositories created in server.created."""

    def do_HEAD(self):
        found = self.path.rpartition("/")[2] in self.server.files
        self.send_response(200 if found else 404)
        if found:
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"1"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_test":
            self.send_error(401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.reply({"url": f"{self.server.address}/me/pets"})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.reply({"files": files})
        elif self.path == "/api/models/me/pets/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.reply({"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.server.address}/me/pets/commit/1"})
        else:  # the check of a card's metadata
            self.reply({"errors": [], "warnings": []})

    def reply(self, contents):
        text = json.dumps(contents).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.files, server.created = {}, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def saved(tmp_path):
    vit_jax.save(make(), tmp_path / "saved", class_names=NAMES)
    return tmp_path / "saved"


def test_a_saved_model_is_uploaded_with_a_card(saved, server, capsys):
    assert main(["push", str(saved), "me/pets", "--private"]) == 0
    assert capsys.readouterr().out == f"{server.address}/me/pets/commit/1\n"
    assert server.created[0]["name"] == "pets"
    created = server.created[0]
    assert created.get("private") is True or created.get("visibility") == "private"  # by version
    assert set(server.files) == {"model.safetensors", "config.json", "README.md"}
    for name in ("model.safetensors", "config.json"):
        assert server.files[name] == (saved / name).read_bytes()
    assert b"library_name: vit-jax" in server.files["README.md"]


def test_a_repositorys_own_card_stays(saved, server):
    server.files["README.md"] = b"mine"
    assert main(["push", str(saved), "me/pets"]) == 0
    assert server.files["README.md"] == b"mine"
    assert "model.safetensors" in server.files


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("hf_wrong", "me/pets", "me/pets: not uploaded: "),
        (None, "me/pets", "set HF_TOKEN"),
        ("hf_test", "pets", "give owner/name"),
    ],
)
def test_what_cannot_be_uploaded_is_one_line(token, repository, message, saved, server, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(saved), repository]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not server.files


def test_without_a_network_it_is_one_line(saved, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(saved), "me/pets"]) == 2
    error = capsys.readouterr().err
    assert "me/pets: not uploaded: " in error
    assert len(error.splitlines()) == 1


def test_another_folder_is_refused(saved, tmp_path, server, capsys):
    (saved / "config.json").write_text("{")
    assert main(["push", str(saved), "me/pets"]) == 2
    assert "config.json: not JSON" in capsys.readouterr().err
    assert not server.created
    assert main(["push", str(tmp_path), "me/pets"]) == 2
    assert "no config.json; give a saved model" in capsys.readouterr().err


def test_the_card_names_the_library_that_loads_the_folder():
    card = write_card({"architectures": ["ViTForImageClassification"], "id2label": {"0": "cat", "1": "dog"}}, "me/pets")
    assert "library_name: transformers" in card
    assert "Classes: cat, dog." in card
    timm = write_card({"architecture": "vit_base_patch16_224", "num_classes": 2}, "me/pets")
    assert "library_name: timm" in timm
    for classifier in (card, timm, write_card({"format": "vit_jax/1", "config": {"num_classes": 2}}, "me/pets")):
        assert "pipeline_tag: image-classification" in classifier
    for headless in ({"architectures": ["ViTModel"], "id2label": None}, {"architecture": "vit", "num_classes": 0}):
        assert "pipeline_tag: image-feature-extraction" in write_card(headless, "me/pets")
    assert "pipeline_tag: image-to-text" in write_card({"format": "caption/1"}, "me/captions")


def test_a_download_without_a_network_is_one_line_too(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["inspect", "hf:me/pets", "--cache", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: hf:me/pets: ")
    assert len(error.splitlines()) == 1
