"""As many images as ImageNet has: opened within seconds and two gigabytes."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

CLASSES, IMAGES = 1000, 1300  # per class
SECONDS, GIGABYTES = 30, 2
PROGRAM = """
import re, sys, time
from pathlib import Path
import vit_jax.data
start = time.monotonic()
data = vit_jax.data.open_dataset(sys.argv[1])
seconds = time.monotonic() - start
size = data.train.open(len(data.train) - 1).size
print(len(data.train), len(data.val), len(data.class_names), size[0])
# Not getrusage's ru_maxrss: it starts at the size of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(seconds, int(peak[1]) * 1024)
"""


def link_images(root: Path) -> None:
    """Write hard links to a small JPEG, CLASSES x IMAGES of them; a new copy where a file has all links it can have."""
    source = root / "source.jpg"
    Image.new("RGB", (8, 8), (200, 30, 20)).save(source)
    content, source_path = source.read_bytes(), str(source)
    for label in range(CLASSES):
        folder = root / "data" / f"n{label:08}"
        folder.mkdir(parents=True)
        for i in range(IMAGES):
            path = f"{folder}/n{label:08}_{i:05}.JPEG"
            try:
                os.link(source_path, path)
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                Path(path).write_bytes(content)
                source_path = path


@pytest.fixture
def root():
    """A folder that is removed at once, in memory where the system has that: links on a disk take minutes."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_folder_of_1_3_million_images_opens_in_30_seconds_and_2_gb(root):
    link_images(root)
    command = [sys.executable, "-c", PROGRAM, str(root / "data")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    counts, measured = result.stdout.splitlines()
    assert counts == f"{CLASSES * IMAGES * 4 // 5} {CLASSES * IMAGES // 5} {CLASSES} 8"
    seconds, peak = map(float, measured.split())
    print(f"{seconds:.1f} s, {peak / 1e9:.2f} GB")
    assert seconds < SECONDS
    assert peak < GIGABYTES * 1e9
