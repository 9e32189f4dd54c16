"""METEOR and SPICE by pycocoevalcap's Java programs, where that package and `java` are installed.

METEOR (Denkowski and Lavie 2014) needs those two only. SPICE (Anderson et al. 2016) also needs Stanford CoreNLP's
models, which pycocoevalcap downloads on its first use (400 MB); nothing is downloaded from here, so SPICE is told
only once they lie there: `python -c "from pycocoevalcap.spice.spice import Spice; Spice()"`.
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
    """The names of the scores that this machine can work out: METEOR and SPICE, METEOR, or none."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations or shutil.which("java") is None:
        return ()
    folder = Path(next(iter(found.submodule_search_locations)))
    return ("METEOR", "SPICE") if (folder / "spice" / "lib" / SPICE_MODELS).is_file() else ("METEOR",)


def score_with_java(hypotheses: list[list[str]], truths: list[list[list[str]]]) -> dict[str, tuple[float, list[float]]]:
    """Each available score of the set and of each image, in [0, 1].

    Takes words, one caption and at least one reference for each image. Raises InputError when Java fails.
    """
    captions = {i: [" ".join(sentence)] for i, sentence in enumerate(hypotheses)}
    references = {i: [" ".join(sentence) for sentence in sentences] for i, sentences in enumerate(truths)}
    found = {}
    for name in available_metrics():
        try:
            found[name] = _meteor(references, captions) if name == "METEOR" else _spice(references, captions)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise InputError(f"{name}: its Java program failed ({error}); {REMEDY}") from error
    return found


def _meteor(references: dict[int, list[str]], captions: dict[int, list[str]]) -> tuple[float, list[float]]:
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    try:
        total, each = meteor.compute_score(references, captions)
    finally:
        for pipe in (meteor.meteor_p.stdout, meteor.meteor_p.stderr):  # it closes the third itself
            pipe.close()
    return float(total), [float(value) for value in each]


def _spice(references: dict[int, list[str]], captions: dict[int, list[str]]) -> tuple[float, list[float]]:
    from pycocoevalcap.spice.spice import Spice

    values = [float(item["All"]["f"]) for item in Spice().compute_score(references, captions)[1]]
    values = [0.0 if math.isnan(value) else value for value in values]  # nothing was found in either caption
    return sum(values) / len(values), values
