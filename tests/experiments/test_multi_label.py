"""Sets of labels end to end: training, resuming, evaluation, predictions, explanations and the report."""

import csv
import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from experiments import finetune, predict
from experiments.common.training import parse_config
from experiments.evaluate import __main__ as evaluate
from experiments.explain import __main__ as explain
from experiments.report import __main__ as report
from experiments.report.best_run import predict_validation
from experiments.report.runs import find_runs
from tests.create import create
from vit_jax import CONFIGS, InputError, VisionTransformer, load_card, save
from vit_jax.data.table import open_table
from vit_jax.train import loop
from vit_jax.train._fit import report_label_sets
from vit_jax.train.adapt import task_of
from vit_jax.train.bootstrap import precision_interval
from vit_jax.train.logging import read_metrics
from vit_jax.train.objective import check_task, mean_average_precision
from vit_jax.train.run_data import open_data

NAMES = ("blue", "red")
FLAGS = ["--model", "Pico_6", "--recipe", "digits", "--no-augment", "--batch-size", "24", "--epochs", "6",
         "--learning-rate", "3e-3", "--warmup-epochs", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Write a table of 120 pictures, each with a red square or not, and with a blue one or not."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    lines = ["file,labels,split"]
    for i in range(120):
        labels = [name for name in NAMES if rng.random() < 0.5]
        pixels = rng.integers(0, 90, (24, 24, 3))
        for name in labels:
            row, column = rng.integers(0, 16, 2)
            pixels[row : row + 8, column : column + 8, 0 if name == "red" else 2] = 250
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{i}.png")
        lines.append(f"{i}.png,{'|'.join(labels)},{'val' if i % 4 == 0 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    """Return the folder of a finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert finetune.main(["--data", str(table), *FLAGS, "--out", str(out)]) == 0
    return out


def test_a_run_learns_both_labels(run):
    records = [record for record in read_metrics(run / "metrics.jsonl") if "val_map" in record]
    assert len(records) == 6
    best = max(records, key=lambda record: record["val_map"])
    assert best["val_map"] > 0.9  # a random order of the images: 0.5
    card = load_card(run / "best")
    assert (card.config.task, card.class_names) == ("multi_label", NAMES)
    assert card.provenance["record"] == best
    assert json.loads((run / "config.json").read_text())["multi_label"] is False  # the data decided


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_end(table, run, tmp_path, monkeypatch):
    read_signal = loop._Loop._agreed_signal

    def stop_at_step_six(self):
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return read_signal(self)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_agreed_signal", stop_at_step_six)
        assert finetune.main(["--data", str(table), *FLAGS, "--out", str(out)]) == 128 + signal.SIGTERM
    assert finetune.main(["--resume", str(out)]) == 0
    assert (out / "best/model.safetensors").read_bytes() == (run / "best/model.safetensors").read_bytes()


def truth(table):
    with open(table, newline="") as file:
        return {row["file"]: row["labels"] for row in csv.DictReader(file)}


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_sets_of_labels(table, run, tmp_path, capsys):
    assert predict.main([str(run), str(table.parent), str(tmp_path / "out.csv")]) == 0
    assert "120 predictions; every label has a probability of its own; an image has all labels above 0.5" in (
        capsys.readouterr().out
    )
    rows = read_csv(tmp_path / "out.csv")
    right = sum(set(row["label"].split("|")) == set(truth(table)[row["filename"]].split("|")) for row in rows)
    assert len(rows) == 120
    assert right > 100
    assert any("|" in row["label"] for row in rows)
    assert any(row["label"] == "" for row in rows)
    again = tmp_path / "again.csv"  # a table to train on
    again.write_text(
        (tmp_path / "out.csv").read_text().replace("\n", f"\n{table.parent}/").removesuffix(f"{table.parent}/")
    )
    assert open_table(again).train.is_multi_label


def test_probabilities_are_independent(table, run, tmp_path, capsys):
    assert predict.main([str(run), str(table.parent), str(tmp_path / "out.csv"), "--top-k", "2"]) == 0
    assert "120 predictions; every label has a probability of its own\n" in capsys.readouterr().out
    sums = []
    for row in read_csv(tmp_path / "out.csv"):
        values = {row[f"label{end}"]: float(row[f"probability{end}"]) for end in ("", "_2")}
        assert set(values) == set(NAMES)
        sums.append(sum(values.values()))
    assert min(sums) < 0.9  # of a picture without squares
    assert max(sums) > 1.1  # of one with both


def test_evaluate_prints_average_precisions(table, run, tmp_path, capsys):
    assert evaluate.main([str(run), "--out", str(tmp_path / "own")]) == 0
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "own" / "evaluation.json").read_text())
    best = load_card(run / "best").provenance["record"]
    assert stored["map"] == pytest.approx(best["val_map"], abs=1e-6)
    assert stored["map"] == pytest.approx(np.mean(stored["average_precision"]))
    assert f"mAP {stored['map']:.4f} (30 images, 2 of 2 classes)" in out
    assert not (tmp_path / "own" / "confusion.png").exists()
    assert evaluate.main([str(run), "--data", str(table), "--split", "train"]) == 0
    assert "(90 images, 2 of 2 classes)" in capsys.readouterr().out


def test_explain_shows_both_labels(table, run, tmp_path, capsys):
    both = next(name for name, labels in truth(table).items() if labels == "blue|red")
    flags = ["--method", "gradcam,rise", "--rise-masks", "8", "--target", "red,blue", "--out", str(tmp_path)]
    assert explain.main([str(run), str(table.parent / both), *flags]) == 0
    with np.load(tmp_path / both.replace(".png", ".npz")) as stored:
        values = stored["probabilities"]
        assert stored["targets"].tolist() == [1, 0]
    assert values.min() > 0.5
    title = ", ".join(f"{NAMES[i]} {values[i]:.3f}" for i in np.argsort(-values))
    assert f"{both.removesuffix('.png')}: {title}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_report_has_average_precisions(run, tmp_path):
    assert report.main([str(run), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Average precision" in text
    table = [line for line in text.partition("## Results")[2].partition("##")[0].splitlines() if line.startswith("|")]
    header, _, row = (line.strip("| ").split(" | ") for line in table)
    column = header.index("best validation mAP")
    assert header[column + 1] == "95 % interval"
    predictions = predict_validation(find_runs([str(run)]).runs[0])
    labels, logits = predictions.images.split.labels, predictions.logits
    assert float(row[column]) == pytest.approx(mean_average_precision(labels, logits), abs=1e-4)
    assert row[column + 1] == "{:.3f} to {:.3f}".format(*precision_interval(labels, logits))
    assert "of 1,000 bootstrap draws of images" in text
    assert "true blue, red, predicted" in text
    assert "onfusion" not in text


def test_one_label_and_several_are_not_mixed(table, run, tmp_path, capsys):
    single = tmp_path / "single"
    shutil.copytree(run, single)
    records = [{k: v for k, v in record.items() if k != "val_map"} for record in read_metrics(run / "metrics.jsonl")]
    (single / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert report.main([str(run), str(single), "--out", str(tmp_path / "report")]) == 2
    assert "has the validation accuracy, and" in capsys.readouterr().err
    model = create(VisionTransformer, replace(CONFIGS["Pico_6"], num_classes=2))
    save(model, tmp_path / "model", class_names=NAMES)
    assert evaluate.main([str(tmp_path / "model"), "--data", str(table)]) == 2
    assert "has images with several labels, and" in capsys.readouterr().err
    assert evaluate.main([str(run), "--data", str(table.parent)]) == 2
    assert "has one label for each image; sets of labels are in a table" in capsys.readouterr().err
    assert finetune.main(["--data", "digits", "--multi-label", "--out", str(tmp_path / "no")]) == 2
    assert "digits: has one label for each image" in capsys.readouterr().err


def test_the_flag_makes_sets_of_single_labels(table, tmp_path, capsys):
    single = table.parent / "single.csv"
    lines = table.read_text().splitlines()
    single.write_text("\n".join([lines[0], *(line for line in lines if line.split(",")[1] in NAMES)]))
    config = parse_config(finetune.PROGRAM, ["--data", str(single), "--multi-label"])
    data = open_data(config)
    assert task_of(data.train) == "multi_label"
    report_label_sets(data)
    assert "task: multi_label, 0 of 56 images have several labels, 0 have none" in capsys.readouterr().out
    assert task_of(open_data(replace(config, multi_label=False)).train) == "single_label"


def test_missing_labels_are_asked_about(table, tmp_path, capsys):
    unclear = table.parent / "unclear.csv"
    unclear.write_text("file,labels\n0.png,red\n1.png,\n2.png,blue\n3.png,red\n4.png,blue\n5.png,\n")
    assert finetune.main(["--data", str(unclear), *FLAGS, "--out", str(tmp_path / "run")]) == 2
    assert "line 3: no label for 1.png; give it one, or give --multi-label if" in capsys.readouterr().err
    assert open_table(unclear, multi_label=True).train.labels.shape[1] == 2


def test_the_model_and_the_labels_must_agree(table):
    split = open_table(table).train
    with pytest.raises(InputError, match="task is single_label, and the images' labels need multi_label"):
        check_task(CONFIGS["Pico_6"], split)
    check_task(replace(CONFIGS["Pico_6"], task="multi_label"), split)
