"""Shards: every picture has exactly one prediction, whatever fails and however many processes share the work."""

import csv
import json
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments import predict
from experiments.common.shards import Shards, check_settings
from tests.create import create
from vit_jax import InputError, VisionTransformer, ViTConfig, save
from vit_jax.files import atomic_write
from vit_jax.interruption import Interruption, interruptible

COUNT, PICTURES, WORKERS, LEASE = 1000, 5, 16, 3600.0


class Clock:
    def __init__(self):
        self.seconds = 1e9

    def __call__(self):
        return self.seconds


def work(folder, clock, seed, written, dead):
    """Run a process until no shard is left for it or it dies: then its generator stays as it is, and so does its claim."""
    draw = random.Random(seed)
    shards = Shards(folder, [f"{i:04}" for i in range(COUNT)], suffix=".csv", lease=LEASE, seed=seed, now=clock)
    claims = shards.claims()
    for name in claims:
        fate = draw.random()
        if fate < 0.005:  # it dies before it writes
            return dead.append(claims)
        if fate < 0.01:  # it dies while it writes
            (folder / f".{name}.csv.{seed}.partial").write_text(f"{name}/0.jpg")
            return dead.append(claims)
        with atomic_write(shards.result(name)) as temporary:
            temporary.write_text("".join(f"{name}/{i}.jpg\n" for i in range(PICTURES)))
        written.append(name)
        if fate < 0.015:  # it dies after the result, before its claim is removed
            return dead.append(claims)
    return None


def test_a_thousand_shards_under_random_failures(tmp_path):
    clock, written, dead, starts = Clock(), [], [], 0
    while len(list(tmp_path.glob("*.csv"))) < COUNT:
        with ThreadPoolExecutor(WORKERS) as pool:
            processes = [pool.submit(work, tmp_path, clock, starts + i, written, dead) for i in range(WORKERS)]
        for process in processes:
            process.result()
        starts += WORKERS
        assert starts < 100 * WORKERS
        clock.seconds += LEASE / 3  # all start again, while claims of the dead still hold
    rows = [row for path in tmp_path.glob("*.csv") for row in path.read_text().splitlines()]
    assert sorted(rows) == [f"{name:04}/{i}.jpg" for name in range(COUNT) for i in range(PICTURES)]
    assert len(dead) > 5
    assert len(written) < 1.02 * COUNT  # claims save nearly all double work


def test_a_live_process_keeps_its_shard_and_a_dead_one_loses_it(tmp_path):
    clock = Clock()
    first, second = (Shards(tmp_path, ["a"], suffix=".csv", lease=LEASE, now=clock) for _ in range(2))
    held = first.claims()
    assert next(held) == "a"
    clock.seconds += 0.9 * LEASE
    assert list(second.claims()) == []
    first._touch(first.claim_path("a"))
    clock.seconds += 0.9 * LEASE
    assert list(second.claims()) == []
    clock.seconds += 0.2 * LEASE
    assert next(second.claims()) == "a"
    held.close()


def test_a_claim_is_removed_with_its_shard_or_by_an_error(tmp_path):
    shards = Shards(tmp_path, ["a", "b"], suffix=".csv")
    for name in shards.claims():
        assert shards.claim_path(name).exists()
        shards.result(name).write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv"}
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    claims = shards.claims()
    next(claims)
    with pytest.raises(KeyboardInterrupt):
        claims.throw(KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


def test_predict_by_shards(shapes, tmp_path, capsys):
    """Every subfolder has a CSV, with paths below the folder; started again, nothing is done twice."""
    config = ViTConfig(
        image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=2
    )
    save(create(VisionTransformer, config), tmp_path / "model")
    whole, parts = tmp_path / "all.csv", tmp_path / "parts"
    assert predict.main([str(tmp_path / "model"), str(shapes), str(whole)]) == 0
    command = [str(tmp_path / "model"), str(shapes), str(parts), "--shards"]
    assert predict.main(command) == 0
    assert f"{parts}/: 2 of 2 shards are done\n" in capsys.readouterr().out
    rows = []
    for path in sorted(parts.glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            rows += list(csv.reader(file))[1:]
    with open(whole, newline="", encoding="utf-8") as file:
        assert rows == list(csv.reader(file))[1:]
    before = {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert predict.main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in parts.iterdir()}
    (parts / "val.csv").unlink()
    (parts / ".val.claim").touch()  # another process has it
    assert predict.main(command) == 0
    assert "1 of 2 shards are done; other processes have 1" in capsys.readouterr().out


def test_other_work_does_not_continue_a_folder(shapes, tmp_path, capsys):
    """A CSV that is skipped as done must be of this model, in this type, and of these images."""
    config = ViTConfig(
        image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=2
    )
    for seed in (0, 1):
        save(create(VisionTransformer, config, seed=seed), tmp_path / f"model{seed}")
    shutil.copytree(shapes, tmp_path / "copy")
    out = str(tmp_path / "out")
    assert predict.main([str(tmp_path / "model0"), str(shapes), out, "--shards"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    save(create(VisionTransformer, config), tmp_path / "named", class_names=("a", "b"))
    cases = [
        (["model1", shapes], "another weights;"),
        (["model0", shapes, "--dtype", "bfloat16"], "another weights;"),
        (["model0", tmp_path / "copy"], "another folder;"),
        (["named", shapes], "another class_names;"),
    ]
    for (model, folder, *more), message in cases:
        capsys.readouterr()
        assert predict.main([str(tmp_path / model), str(folder), out, "--shards", *more]) == 2
        assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "settings.json").unlink()
    assert predict.main([str(tmp_path / "model0"), str(shapes), out, "--shards"]) == 2
    assert "holds other files and no settings.json" in capsys.readouterr().err


def test_of_processes_that_start_at_once_the_first_decides(tmp_path):
    def start(number):
        try:
            check_settings(tmp_path, {"weights": number % 2})
        except InputError as error:
            return str(error)
        return number % 2

    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = set(pool.map(start, range(WORKERS)))
    stored = json.loads((tmp_path / "settings.json").read_text())["weights"]
    assert outcomes == {stored, f"{tmp_path}: its results are of another weights; give another folder"}
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path):
    """Processes of two hosts may have the same number."""
    path = tmp_path / "a.csv"
    with atomic_write(path) as first:
        first.write_text("first")
        with atomic_write(path) as second:
            second.write_text("sec")
        assert path.read_text() == "sec"
    assert path.read_text() == "first"


@pytest.fixture
def sigint_raises():
    """Python's own handler of SIGINT, which a shell's background job does not have."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("sigint_raises")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_leaves_no_claim(number, tmp_path):
    (tmp_path / "images" / "part").mkdir(parents=True)
    handler = signal.getsignal(signal.SIGTERM)
    shards = interruptible()(predict.predict_shards)
    with pytest.raises(Interruption):
        shards(lambda *_: signal.raise_signal(number), tmp_path / "images", tmp_path / "out", settings={})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_file_next_to_the_shards_is_refused(tmp_path, capsys):
    (tmp_path / "images" / "part").mkdir(parents=True)
    (tmp_path / "images" / "stray.png").touch()
    assert predict.main([str(tmp_path / "no"), str(tmp_path / "images"), str(tmp_path / "out"), "--shards"]) == 2
    assert "stray.png: a file next to the shards" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
