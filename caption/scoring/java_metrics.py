"""METEOR and SPICE by pycocoevalcap's Java programs, when that package and `java` are installed.

METEOR (Denkowski and Lavie 2014) needs only those two. SPICE (Anderson et al. 2016) also needs Stanford CoreNLP's
models, which pycocoevalcap downloads on first use (400 MB). This module downloads nothing, so SPICE is reported only
after `python -c "from pycocoevalcap.spice.spice import Spice; Spice()"`.
"""

import importlib.util
import math
import shutil
import subprocess
from pathlib import Path

from vit_jax.errors import InputError

SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"
REMEDY = "check that java runs, or leave METEOR and SPICE out (--no-java)"


def available_metrics() -> tuple[str, ...]:
    """Return the metrics that this machine can compute: METEOR and SPICE, METEOR, or none."""
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or shutil.which("java") is None:
        return ()
    folder = Path(next(iter(package.submodule_search_locations)))
    return ("METEOR", "SPICE") if (folder / "spice" / "lib" / SPICE_MODELS).is_file() else ("METEOR",)


def score_with_java(
    hypotheses: list[list[str]], references: list[list[list[str]]]
) -> dict[str, tuple[float, list[float]]]:
    """Return each available metric of the set and of each image, in [0, 1].

    hypotheses: the words of one caption per image.
    references: the words of at least one reference per image.

    Raises InputError when Java fails.
    """
    captions = {i: [" ".join(sentence)] for i, sentence in enumerate(hypotheses)}
    truths = {i: [" ".join(sentence) for sentence in sentences] for i, sentences in enumerate(references)}
    scores = {}
    for name in available_metrics():
        try:
            scores[name] = _meteor(truths, captions) if name == "METEOR" else _spice(truths, captions)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise InputError(f"{name}: its Java program failed ({error}); {REMEDY}") from error
    return scores


def _meteor(references: dict[int, list[str]], captions: dict[int, list[str]]) -> tuple[float, list[float]]:
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    try:
        total, each = meteor.compute_score(references, captions)
    finally:
        for pipe in (meteor.meteor_p.stdout, meteor.meteor_p.stderr):  # it closes stdin itself
            pipe.close()
    return float(total), [float(value) for value in each]


def _spice(references: dict[int, list[str]], captions: dict[int, list[str]]) -> tuple[float, list[float]]:
    from pycocoevalcap.spice.spice import Spice

    values = [float(item["All"]["f"]) for item in Spice().compute_score(references, captions)[1]]
    values = [0.0 if math.isnan(value) else value for value in values]  # neither caption has a proposition
    return sum(values) / len(values), values
