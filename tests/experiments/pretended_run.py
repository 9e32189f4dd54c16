"""In place of experiments.finetune, where a test is about the sweep alone: arguments as there, done in no time.

--warmup-epochs tells it what to do: 0 trains, 1 is killed the first time, 2 never ends but saves when it is told to
stop, 3 never ends and has no time to take a signal, 4 fails the first time,
5 waits until two runs have begun.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

began = time.time()
words = sys.argv[1:]
resume = "--resume" in words
folder = Path(words[words.index("--resume" if resume else "--out") + 1])
if not resume:
    folder.mkdir(parents=True)
    kind = float(words[words.index("--warmup-epochs") + 1])
    (folder / "config.json").write_text(json.dumps({"recipe": {"epochs": 2}, "kind": kind}))
kind = json.loads((folder / "config.json").read_text())["kind"]
if kind == 2:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
if kind == 3:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
print("begun", flush=True)
(folder / "begun").write_text("")
if kind == 1 and not resume:
    os.kill(os.getpid(), signal.SIGKILL)
if kind == 4 and not resume:
    sys.exit("error: the dog ate it; feed the dog")
if kind in (2, 3) and not resume:
    time.sleep(60)
deadline = time.monotonic() + 20
while kind == 5 and len(list(folder.parent.glob("*/begun"))) < 2:
    if time.monotonic() > deadline:
        sys.exit("error: alone")
    time.sleep(0.02)
time.sleep(0.1)
records = [{"epoch": e, "step": e, "val_accuracy": 0.25 * e, "seconds": 1.0} for e in (1, 2)]
(folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
told = {"device": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began, "ended": time.time()}
(folder / "told.json").write_text(json.dumps(told))
