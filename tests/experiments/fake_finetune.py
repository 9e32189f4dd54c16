"""A stand-in for experiments.finetune in tests of the sweep: it takes the same arguments and finishes at once.

--warmup-epochs selects what it does: 0 trains; 1 is killed on the first attempt; 2 never ends, but saves on a signal;
3 never ends and dies from a signal; 4 fails on the first attempt; 5 waits until two runs have started.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

start = time.time()
arguments = sys.argv[1:]
resume = "--resume" in arguments
folder = Path(arguments[arguments.index("--resume" if resume else "--out") + 1])
if not resume:
    folder.mkdir(parents=True)
    kind = float(arguments[arguments.index("--warmup-epochs") + 1])
    (folder / "config.json").write_text(json.dumps({"recipe": {"epochs": 2}, "kind": kind}))
kind = json.loads((folder / "config.json").read_text())["kind"]
if kind == 2:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
if kind == 3:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
print("started", flush=True)
(folder / "started").write_text("")
if kind == 1 and not resume:
    os.kill(os.getpid(), signal.SIGKILL)
if kind == 4 and not resume:
    sys.exit("error: the dog ate it; feed the dog")
if kind in (2, 3) and not resume:
    time.sleep(60)
deadline = time.monotonic() + 20
while kind == 5 and len(list(folder.parent.glob("*/started"))) < 2:
    if time.monotonic() > deadline:
        sys.exit("error: alone")
    time.sleep(0.02)
time.sleep(0.1)
records = [{"epoch": e, "step": e, "val_accuracy": 0.25 * e, "seconds": 1.0} for e in (1, 2)]
(folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
attempt = {"device": os.environ.get("CUDA_VISIBLE_DEVICES"), "start": start, "end": time.time()}
(folder / "attempt.json").write_text(json.dumps(attempt))
