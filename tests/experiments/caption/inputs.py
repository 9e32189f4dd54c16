"""What the tests of the caption program share besides fixtures."""

import json

SIZES = [(64, 64), (40, 64), (64, 33), (64, 64), (50, 64)]
LENGTH = 9


def records_in(out):
    return json.loads((out / "captions.json").read_text())
