"""predict: columns, features, models without a head, and work that stops, goes on, and is divided over processes."""

import csv
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import predict
from experiments.common import predictions
from experiments.common.parts import Parts
from experiments.common.team import Team, TeamStates, clear_states
from tests.create import create
from tests.experiments.test_processes import drop_gloo_lines, start_pair, wait_for_exit
from vit_jax import InputError, VisionTransformer, ViTConfig, forward_with_attention, load, load_card, save
from vit_jax.locks import lock_folder

NAMES = ("cat", "dog", "cow")
SMALL = dict(image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24)
COUNT = 11
PROCESSES = ["--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Save a model of three classes and one without a head."""
    folder = tmp_path_factory.mktemp("models")
    save(create(VisionTransformer, ViTConfig(**SMALL, num_classes=3)), folder / "model", class_names=NAMES)
    save(create(VisionTransformer, ViTConfig(**SMALL, num_classes=0)), folder / "bare")
    return folder


def write_pictures(folder, count=COUNT):
    rng = np.random.default_rng(0)
    (folder / "deep").mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("deep" if i % 3 == 0 else "") / f"{i:02}.png")
    return folder


def expected_outputs(model, folder, name):
    image = model.config.image_preprocess(Image.open(folder / name))[None]
    output = jax.jit(forward_with_attention)(model, image)
    return np.asarray(jax.nn.softmax(output.logits[0])), np.asarray(output.features[0, 0])


def read_rows(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_labels_with_probabilities_and_features(models, tmp_path):
    folder = write_pictures(tmp_path / "in")
    out, features = tmp_path / "out.csv", tmp_path / "features.npz"
    command = [str(models / "model"), str(folder), str(out), "--top-k", "2", "--features", str(features)]
    assert predict.main([*command, "--batch-size", "3"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.csv", "features.npz"}
    rows = read_rows(out)
    assert list(rows[0]) == ["filename", "label", "probability", "label_2", "probability_2"]
    assert len(rows) == COUNT
    with np.load(features) as stored:
        assert stored["paths"].tolist() == [row["filename"] for row in rows]
        assert stored["features"].shape == (COUNT, 16)
        vectors = stored["features"]
    model = load(models / "model")
    for row, vector in zip(rows[::4], vectors[::4], strict=True):
        probabilities, pooled = expected_outputs(model, folder, row["filename"])
        best = np.argsort(-probabilities)[:2]
        assert [row["label"], row["label_2"]] == [NAMES[i] for i in best]
        np.testing.assert_allclose(
            [float(row["probability"]), float(row["probability_2"])], probabilities[best], rtol=1e-4
        )
        np.testing.assert_allclose(vector, pooled, atol=1e-5)


def test_a_model_without_a_head_gives_features(models, tmp_path, capsys):
    folder, features = write_pictures(tmp_path / "in", 4), tmp_path / "f.npz"
    assert predict.main([str(models / "bare"), str(folder), "--features", str(features)]) == 0
    model = load(models / "bare")
    with np.load(features) as stored:
        for name, vector in zip(stored["paths"].tolist(), stored["features"], strict=True):
            np.testing.assert_allclose(vector, expected_outputs(model, folder, name)[1], atol=1e-5)
    capsys.readouterr()
    assert predict.main([str(models / "bare"), str(folder), str(tmp_path / "out.csv")]) == 2
    assert (
        "has no classification head, so it predicts no labels; leave out OUT and give --features"
        in capsys.readouterr().err
    )
    assert {path.name for path in tmp_path.iterdir()} == {"in", "f.npz"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no output; give OUT.csv"),
        (["--top-k", "2", "--features", "f.npz"], "--top-k needs OUT"),
        (["o.csv", "--top-k", "4"], "--top-k 4: the model has 3 classes"),
        (["o.csv", "--features", "f.npy"], "f.npy: features are written to a .npz"),
        (["f.npz", "--features", "f.npz"], "are one file"),
        (["out", "--shards", "--features", "f.npz"], "--shards and --features exclude each other"),
        (["o.csv", "--processes", "2"], "--coordinator, --processes and --process go together"),
        (["out", "--shards", *PROCESSES], "--shards and --processes exclude each other"),
        (["out", "--shards", "--processes", "2"], "--coordinator, --processes and --process go together"),
    ],
)
def test_wrong_flags(models, tmp_path, capsys, monkeypatch, flags, message):
    folder = write_pictures(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    assert predict.main([str(models / "model"), str(folder), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_killed_work_goes_on_and_changed_work_starts_again(models, tmp_path, monkeypatch, capsys):
    """Interrupted after two of four parts, it predicts the other images only, unless an image has changed."""
    folder, out = write_pictures(tmp_path / "in"), tmp_path / "out.csv"
    command = [str(models / "model"), str(folder), str(out), "--batch-size", "3"]
    assert predict.main(command) == 0
    expected = out.read_text()
    out.unlink()
    write, written = Parts._write, []

    def interrupt(self, number, rows):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, rows)

    def stop():
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Parts, "_write", interrupt)
            assert predict.main(command) == 130
        assert not out.exists()
        capsys.readouterr()

    stop()
    with lock_folder(tmp_path / ".out.csv.parts", "holds it"):
        assert predict.main([*command, "--top-k", "2"]) == 2
    assert f"another process writes {out}; wait for it" in capsys.readouterr().err
    assert predict.main(command) == 0
    assert "6 of 11 images are done already" in capsys.readouterr().err
    assert out.read_text() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out.csv"}
    out.unlink()
    stop()
    Image.new("RGB", (9, 9)).save(folder / "01.png")
    assert predict.main(command) == 0
    assert "done already" not in capsys.readouterr().err
    assert len(read_rows(out)) == COUNT


def predict_as(team, models, folder, out, *, lease=60.0):
    """Predict as one process of a team does after join_team; return the line that the first one prints."""
    files, model = sorted(folder.rglob("*.png")), load(models / "model")
    parts, outputs = Parts.of(out.with_name("parts"), len(files), 2), predictions.PredictionOutputs(out)
    states = TeamStates(parts.folder, team, lease=lease)
    with states.report({}):
        predictions.predict_parts(model, files, parts, parts.select_pending(team.share(parts.numbers)), outputs, 2)
    if not team.is_first:
        return ""
    states.wait_for_all()
    return predictions.merge_parts(parts, files, load_card(models / "model"), outputs, root=folder)


@pytest.mark.parametrize("count", [2, 9])
def test_every_image_once_whatever_the_number_of_processes(models, tmp_path, count):
    """Also of processes without any image, and where the images of one cannot be read."""
    folder = write_pictures(tmp_path / "in")
    for name in ("01.png", "02.png"):
        (folder / name).write_bytes(b"no picture")
    assert predict.main([str(models / "model"), str(folder), str(tmp_path / "alone.csv"), "--batch-size", "2"]) == 0
    out = tmp_path / "out.csv"
    Parts.of(tmp_path / "parts", COUNT, 2).prepare({})
    with ThreadPoolExecutor(count) as pool:
        lines = list(pool.map(lambda i: predict_as(Team(i, count), models, folder, out), range(count)))
    assert lines[0] == f"{out}: 9 predictions, 2 unreadable images skipped"
    assert out.read_text() == (tmp_path / "alone.csv").read_text()


def test_a_process_that_fails_or_dies_is_reported(tmp_path):
    states = [TeamStates(tmp_path, Team(i, 3), lease=0.5) for i in range(3)]
    with states[1].report({"images": 5}):
        pass
    with pytest.raises(ZeroDivisionError), states[2].report({}):
        1 / 0  # noqa: B018
    with pytest.raises(InputError, match="process 2 failed: division by zero; the rest is kept"):
        states[0].wait_for_all()
    with states[2].report({"images": 6}):
        pass
    assert [summary["images"] for summary in states[0].wait_for_all()] == [5, 6]
    clear_states(tmp_path)
    with pytest.raises(InputError, match="process 1 ended early"):  # it never started
        states[0].wait_for_all()
    states[1]._write("working", {})
    with pytest.raises(InputError, match="process 1 ended early"):  # it shows no sign of life
        states[0].wait_for_all()


def test_shares_are_disjoint_and_complete():
    items = list(range(10))
    shares = [Team(i, 4).share(items) for i in range(4)]
    assert sorted(item for share in shares for item in share) == items
    assert {len(share) for share in shares} == {2, 3}
    assert Team().share(items) == items


def test_a_file_name_that_is_not_utf8(models, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / name)
    out, features = tmp_path / "out.csv", tmp_path / "f.npz"
    assert predict.main([str(models / "model"), str(tmp_path / "in"), str(out), "--features", str(features)]) == 0
    assert out.read_bytes().splitlines()[1].startswith(b"caf\xe9.png,")
    with np.load(features) as stored:
        assert stored["paths"].tolist() == [name]


@pytest.mark.slow
def test_two_processes_share_a_folder(models, tmp_path):
    folder = write_pictures(tmp_path / "in", 40)
    command = [str(models / "model"), str(folder)]
    assert predict.main([*command, str(tmp_path / "alone.csv")]) == 0
    children = start_pair("predict", *command, tmp_path / "two.csv", "--batch-size", "4")
    (first, second), codes = zip(*wait_for_exit(children), strict=True)
    assert codes == (0, 0), (first, second)
    assert first[0] == f"{tmp_path / 'two.csv'}: 40 predictions\n"
    assert drop_gloo_lines(second[0]) == []
    assert (tmp_path / "two.csv").read_text() == (tmp_path / "alone.csv").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "alone.csv", "two.csv"}


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_work_goes_on(models, tmp_path):
    """The second process is killed once it has written a part; alone, one process does the rest, and no part twice."""
    folder, out = write_pictures(tmp_path / "in", 400), tmp_path / "out.csv"
    command = [str(models / "model"), str(folder), str(out), "--batch-size", "1"]
    children = start_pair("predict", *command)
    parts = tmp_path / ".out.csv.parts"
    while not (parts / "000001.npz").exists():
        assert children[1].poll() is None
        time.sleep(0.01)
    children[1].send_signal(signal.SIGKILL)
    start = time.monotonic()
    ((_, error), code), (_, killed) = wait_for_exit(children)
    assert (code, killed) == (2, -signal.SIGKILL)
    assert "process 1 ended early; the rest is kept" in error
    assert time.monotonic() - start < 100
    assert not out.exists()
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    done = subprocess.run([sys.executable, "-m", "experiments.predict", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "images are done already" in done.stderr
    assert len(before) > 1
    rows = read_rows(out)
    assert [row["filename"] for row in rows] == [
        str(Path(f).relative_to(folder)) for f in sorted(folder.rglob("*.png"))
    ]
