"""Released checkpoints by name, over loopback: cache, hashes, offline use, two processes at once."""

import multiprocessing
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

import caption
import tests.reference as reference
from tests.optional import torch
from tests.server import Server
from vit_jax import CONFIGS, InputError, Pipeline, save
from weights_convert import convert, load_pipeline, load_pretrained
from weights_convert.hub.releases import RELEASES, CaptionReleaseName, ImageReleaseName, fetch_release, find_release


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Release a small model as B_16 on a local server; return the server and the cache folder."""
    torch.save(reference.tiny_torch(dim=64, num_heads=1).float().state_dict(), tmp_path / "small.pth")
    server = Server({"/B_16.pth": (tmp_path / "small.pth").read_bytes()})
    small = convert(tmp_path / "small.pth", num_heads=1).config
    monkeypatch.setitem(CONFIGS, "B_16", small)
    monkeypatch.setitem(RELEASES, "B_16", replace(RELEASES["B_16"], url=f"{server.address}/B_16.pth"))
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    yield server, tmp_path / "cache"
    server.shutdown()
    server.server_close()


def test_every_release_is_a_named_architecture():
    for name, release in RELEASES.items():
        if name.startswith("catr"):
            assert release.architecture in caption.CONFIGS
            assert re.fullmatch(r"https://github\.com/saahiluppal/catr/.*/0\.[12]/weights?_?\d+\.pth", release.url)
        else:
            assert release.architecture == name
            assert name in CONFIGS
            assert re.fullmatch(rf"https://github\.com/lukemelas/.*/0\.0\.2/{name}\.pth", release.url)
    assert len({release.file_name for release in RELEASES.values()}) == len(RELEASES)  # they share one cache
    with pytest.raises(InputError, match="L_16 was never released; L_16_imagenet1k was"):
        load_pretrained("L_16")
    with pytest.raises(InputError, match="no released checkpoint 'B_17': one of B_16, B_32"):
        find_release("B_17")


def test_type_checkers_know_every_release():
    captioners = {name for name, release in RELEASES.items() if release.architecture in caption.CONFIGS}
    assert captioners == set(get_args(CaptionReleaseName))
    assert set(RELEASES) - captioners == set(get_args(ImageReleaseName))


def test_fetched_once_and_hashed(released, capsys):
    server, cache = released
    model = load_pretrained("B_16", num_classes=4, image_size=48)
    assert model.config.num_classes == 4
    assert model.config.image_size == (48, 48)
    assert "fetching" in capsys.readouterr().err
    assert {p.name for p in cache.iterdir()} == {"B_16.pth", "B_16.pth.sha256", "B_16.pth.lock"}
    load_pretrained("B_16")
    assert len(server.ranges) == 1
    content = bytearray((cache / "B_16.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (cache / "B_16.pth").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"its SHA-256 is not .*; delete the file"):
        load_pretrained("B_16")


def test_a_pipeline_of_a_release(released):
    pipeline = load_pipeline("B_16")
    picture = np.zeros((20, 30, 3), np.uint8)
    assert pipeline.predict(picture) == Pipeline(load_pretrained("B_16")).predict(picture)
    assert len(released[0].ranges) == 1


def test_a_captioner_by_name(released, monkeypatch, tmp_path):
    """It must have the architecture that its release names."""
    from tests.weights_convert.test_catr import small_arrays

    server, cache = released
    arrays = small_arrays()
    torch.save({"model": {name: torch.from_numpy(array) for name, array in arrays.items()}}, tmp_path / "catr.pth")
    server.files["/catr.pth"] = (tmp_path / "catr.pth").read_bytes()
    monkeypatch.setitem(RELEASES, "catr_v1", replace(RELEASES["catr_v1"], url=f"{server.address}/catr.pth"))
    with pytest.raises(InputError, match="another architecture than catr"):
        load_pretrained("catr_v1")
    monkeypatch.setitem(caption.CONFIGS, "catr", convert(arrays, num_heads=2).config)
    model = load_pretrained("catr_v1")
    assert isinstance(model, caption.CaptionTransformer)
    assert model.config.num_heads == 2
    assert (cache / "catr.pth.sha256").exists()


def test_a_known_hash_is_checked_on_the_first_download(released):
    _, cache = released
    with pytest.raises(InputError, match="its SHA-256 is not 00"):
        fetch_release(replace(RELEASES["B_16"], sha256="0" * 64))
    assert not (cache / "B_16.pth.sha256").exists()


def test_offline_the_message_says_where_to_put_the_file(released, monkeypatch):
    server, cache = released
    monkeypatch.setenv("VIT_JAX_OFFLINE", "1")
    with pytest.raises(InputError, match=r"put http://127.* at .*cache/B_16.pth"):
        load_pretrained("B_16")
    cache.mkdir()
    (cache / "B_16.pth").write_bytes(server.files["/B_16.pth"])
    assert load_pretrained("B_16").config.width == 64
    assert not server.ranges


def _fetch_in_a_process(release, cache, results):
    results.put(str(fetch_release(release, cache=cache)))


@pytest.mark.slow
def test_two_processes_at_once(released):
    server, cache = released
    server.behaviour = ["stall"]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=_fetch_in_a_process, args=(RELEASES["B_16"], cache, results)) for _ in range(2)]
    for process in both:
        process.start()
    assert [results.get(timeout=120), results.get(timeout=120)] == [str(cache / "B_16.pth")] * 2
    for process in both:
        process.join()
    assert (cache / "B_16.pth").read_bytes() == server.files["/B_16.pth"]
    assert len(server.ranges) == 2  # the stalled attempt and the one that resumed it


def test_files_and_saved_models(tmp_path):
    torch.save(reference.tiny_torch(dim=64, num_heads=1).float().state_dict(), tmp_path / "small.pth")
    model = load_pretrained(tmp_path / "small.pth", num_heads=1)
    save(model, tmp_path / "saved")
    x = reference.images(0, 1, 32, 32).astype(np.float32)
    np.testing.assert_array_equal(load_pretrained(tmp_path / "saved")(x), model(x))
    assert load_pretrained(str(tmp_path / "saved"), num_classes=2).config.num_classes == 2


def test_fine_tuning_accepts_a_release_by_name(released):
    from experiments.common.models import starting_model

    model = starting_model(name=None, weights="B_16", num_classes=3, image_size=None, seed=0)
    assert model.config.num_classes == 3
    with pytest.raises(InputError, match="catr_v1: a captioner, and this needs an image model"):
        starting_model(name=None, weights="catr_v1", num_classes=3, image_size=None, seed=0)
    with pytest.raises(InputError, match="L_16 was never released"):
        starting_model(name=None, weights="L_16", num_classes=3, image_size=None, seed=0)
