"""BERT's vocabulary: from a path, the cache, a download over loopback; offline use."""

from dataclasses import replace

import pytest

from caption.tokenizer import SPECIAL
from tests.server import Server
from vit_jax import InputError
from weights_convert.hub import vocabulary
from weights_convert.hub.vocabulary import VOCABULARY, find_tokenizer

CONTENT = "\n".join([*SPECIAL, "a", "man", "##s"]) + "\n"


@pytest.fixture
def served(tmp_path, monkeypatch):
    server = Server({"/vocab.txt": CONTENT.encode()})
    monkeypatch.setattr(vocabulary, "VOCABULARY", replace(VOCABULARY, url=f"{server.address}/vocab.txt", sha256=None))
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    yield server, tmp_path / "cache" / "bert-base-uncased"
    server.shutdown()
    server.server_close()


def test_fetched_once_then_from_the_cache(served):
    server, folder = served
    assert find_tokenizer(vocab_size=8).decode([2, 5, 6, 7, 3]) == "A mans"
    assert find_tokenizer().vocab_size == 8
    assert len(server.ranges) == 1
    assert {p.name for p in folder.iterdir()} == {"vocab.txt", "vocab.txt.sha256", "vocab.txt.lock"}
    with pytest.raises(InputError, match="has 8 WordPieces, but the model 30522"):
        find_tokenizer(vocab_size=30522)
    (folder / "vocab.txt").write_text(CONTENT.replace("man", "dog"))
    with pytest.raises(InputError, match=r"vocab.txt: its SHA-256 is not .*; delete the file"):
        find_tokenizer()


def test_a_given_path_comes_first(served, tmp_path):
    server, _ = served
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "vocab.txt").write_text(CONTENT + "dog\n")
    assert find_tokenizer(tmp_path / "own").vocab_size == find_tokenizer(tmp_path / "own" / "vocab.txt").vocab_size == 9
    assert not server.ranges


def test_messages_of_failed_downloads(served, tmp_path, monkeypatch):
    server, folder = served
    server.behaviour = [404]
    with pytest.raises(InputError, match=r"404 .*fetch it by hand into .*bert-base-uncased/vocab.txt"):
        find_tokenizer()
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    with pytest.raises(InputError, match=r"bert-base-uncased is not in the cache .*put http://127.* at .*/vocab.txt"):
        find_tokenizer()
    (folder / "vocab.txt").write_text(CONTENT)
    assert find_tokenizer().vocab_size == 8


def test_other_content_than_berts_is_refused(served, monkeypatch):
    monkeypatch.setattr(vocabulary, "VOCABULARY", replace(vocabulary.VOCABULARY, sha256=VOCABULARY.sha256))
    with pytest.raises(InputError, match="its SHA-256 is not 07eced37"):
        find_tokenizer()
