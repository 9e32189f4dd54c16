"""How near captions come to what people wrote: BLEU-1..4, ROUGE-L and CIDEr-D; METEOR and SPICE where Java is.

Equal to pycocoevalcap 1.2 (the COCO server's code), whose conventions are not those of the papers everywhere:

- BLEU (Papineni et al. 2002): over the whole set, the reference nearest in length (the shorter of two) counts for
  brevity, 1e-15 is added to every count of matches and 1e-9 to every divisor, so that no match gives almost 0.
- ROUGE-L (Lin 2004): beta 1.2; the best precision and the best recall over the references, even of different ones.
- CIDEr-D (Vedantam et al. 2015): 10 times the mean over 1- to 4-grams of the clipped cosine of tf-idf vectors, with
  a Gaussian of the lengths' difference, sigma 6. What that library calls CIDEr is this. A word's weight is taken
  from the references of the images being scored ("corpus" mode): the fewer the images, the lower the weights, and
  one image alone scores 0. Figures of the COCO server or "coco-val-df" use other images' weights; don't compare.

Knowingly different: a caption without words scores 0 in ROUGE-L even where a reference has none either.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from caption.scoring import java_metrics
from caption.scoring.words import split_words
from vit_jax.errors import InputError

ImageId = Any  # a str or an int
Ngrams = Counter[tuple[str, ...]]

ORDERS = (1, 2, 3, 4)
TINY, SMALL = 1e-15, 1e-9  # BLEU's, see above
BETA = 1.2
SIGMA = 6.0


class CaptionScores(NamedTuple):
    """The set's scores, and each image's own; both by name: BLEU-1..4, ROUGE-L, CIDEr-D, maybe METEOR and SPICE.

    All lie in [0, 1], CIDEr-D in [0, 10].
    """

    overall: dict[str, float]
    by_image: dict[ImageId, dict[str, float]]


def score_captions(
    predictions: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]], *, java: bool = True
) -> dict[str, float]:
    """The scores of a set of captions: see `score_images`, of which this is `overall`."""
    return score_images(predictions, references, java=java).overall


def score_images(
    predictions: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]], *, java: bool = True
) -> CaptionScores:
    """Score one caption for each image against that image's references, as sentences; words are made here.

    METEOR and SPICE are added where `java_metrics.available()` has them, unless `java` is False: they take seconds.
    Raises InputError for an empty set, an image without references, and images that only one of the two has.
    """
    _check(predictions, references)
    hypotheses = {image: split_words(caption) for image, caption in predictions.items()}
    truths = {image: [split_words(caption) for caption in references[image]] for image in predictions}
    columns = _bleu(list(hypotheses.values()), list(truths.values()))
    columns["ROUGE-L"] = _with_mean([_rouge_l(hypotheses[image], truths[image]) for image in hypotheses])
    columns["CIDEr-D"] = _with_mean(_cider_d(list(hypotheses.values()), list(truths.values())))
    if java:
        columns |= java_metrics.score_with_java(list(hypotheses.values()), list(truths.values()))
    overall = {name: total for name, (total, _) in columns.items()}
    each = {image: {name: own[i] for name, (_, own) in columns.items()} for i, image in enumerate(predictions)}
    return CaptionScores(overall, each)


def _check(predictions: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]]) -> None:
    if not predictions:
        raise InputError("no captions to score; give at least one")
    for image in predictions:
        if image not in references:
            raise InputError(f"image {image}: has a caption but no references; give some or leave it out")
        if isinstance(references[image], str) or not references[image]:
            raise InputError(f"image {image}: its references are not a list of at least one caption")
    for image in references:
        if image not in predictions:
            raise InputError(f"image {image}: has references but no caption; caption it or leave it out")


def _with_mean(values: list[float]) -> tuple[float, list[float]]:
    return math.fsum(values) / len(values), values


def _ngrams(sentence: Sequence[str], order: int) -> Ngrams:
    return Counter(tuple(sentence[i : i + order]) for i in range(len(sentence) - order + 1))


class _Bleu(NamedTuple):
    """What BLEU adds up: matches and n-grams by order, the caption's length and its reference's."""

    matches: list[int]
    totals: list[int]
    length: int
    reference_length: int


def _bleu_counts(hypothesis: list[str], references: list[list[str]]) -> _Bleu:
    matches = []
    for order in ORDERS:
        most: Ngrams = Counter()
        for reference in references:
            most |= _ngrams(reference, order)
        matches.append((_ngrams(hypothesis, order) & most).total())
    length = len(hypothesis)
    nearest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return _Bleu(matches, [max(0, length - order + 1) for order in ORDERS], length, nearest)


def _bleu_scores(counts: _Bleu) -> list[float]:
    """BLEU-1 to BLEU-4: the geometric mean of the precisions so far, times exp(1 - r / c) where c < r."""
    ratio = (counts.length + TINY) / (counts.reference_length + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    found, product = [], 1.0
    for order, matches, total in zip(ORDERS, counts.matches, counts.totals, strict=True):
        product *= (matches + TINY) / (total + SMALL)
        found.append(product ** (1 / order) * brevity)
    return found


def _bleu(hypotheses: list[list[str]], truths: list[list[list[str]]]) -> dict[str, tuple[float, list[float]]]:
    counts = [_bleu_counts(*pair) for pair in zip(hypotheses, truths, strict=True)]
    matches = [sum(column) for column in zip(*(c.matches for c in counts), strict=True)]
    totals = [sum(column) for column in zip(*(c.totals for c in counts), strict=True)]
    whole = _bleu_scores(_Bleu(matches, totals, sum(c.length for c in counts), sum(c.reference_length for c in counts)))
    each = [_bleu_scores(c) for c in counts]
    return {f"BLEU-{n}": (whole[n - 1], [scores[n - 1] for scores in each]) for n in ORDERS}


def _common_length(one: list[str], other: list[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for i, candidate in enumerate(other):
            row.append(above[i] + 1 if word == candidate else max(above[i + 1], row[i]))
    return row[-1]


def _rouge_l(hypothesis: list[str], references: list[list[str]]) -> float:
    common = [_common_length(reference, hypothesis) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(n / len(reference) for n, reference in zip(common, references, strict=True) if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


class _Vector(NamedTuple):
    """A sentence's tf-idf weights for one order of n-grams, and their norm."""

    weights: dict[tuple[str, ...], float]
    norm: float


def _vectors(sentence: list[str], documents: Counter[tuple[str, ...]], images: int) -> list[_Vector]:
    found = []
    for order in ORDERS:
        counts = _ngrams(sentence, order)
        weights = {gram: n * (math.log(images) - math.log(max(1, documents[gram]))) for gram, n in counts.items()}
        found.append(_Vector(weights, math.sqrt(sum(weight**2 for weight in weights.values()))))
    return found


def _clipped_cosine(hypothesis: _Vector, reference: _Vector) -> float:
    norms = hypothesis.norm * reference.norm
    if norms == 0:
        return 0.0
    shared = hypothesis.weights.keys() & reference.weights.keys()
    return sum(min(hypothesis.weights[g], reference.weights[g]) * reference.weights[g] for g in shared) / norms


def _cider_d(hypotheses: list[list[str]], truths: list[list[list[str]]]) -> list[float]:
    """Every image's CIDEr-D. An n-gram's document frequency is the number of images whose references have it."""
    documents: Counter[tuple[str, ...]] = Counter()
    for references in truths:
        documents.update({gram for reference in references for order in ORDERS for gram in _ngrams(reference, order)})
    scores = []
    for hypothesis, references in zip(hypotheses, truths, strict=True):
        own = _vectors(hypothesis, documents, len(truths))
        total = 0.0
        for reference in references:
            theirs = _vectors(reference, documents, len(truths))
            # Lengths are counted in pairs of words there: 0 and 1 word are one length.
            apart = max(1, len(hypothesis)) - max(1, len(reference))
            near = math.exp(-(apart**2) / (2 * SIGMA**2))
            total += near * sum(_clipped_cosine(*pair) for pair in zip(own, theirs, strict=True)) / len(ORDERS)
        scores.append(10 * total / len(references))
    return scores
