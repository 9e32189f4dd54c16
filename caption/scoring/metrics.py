"""Metrics of captions against human references: BLEU-1..4, ROUGE-L and CIDEr-D; METEOR and SPICE with Java.

Equal to pycocoevalcap 1.2 (the COCO server's code), whose conventions differ from the papers in places:

- BLEU (Papineni et al. 2002): counts are summed over the set. Brevity uses the reference closest in length (the shorter
  of two). 1e-15 is added to every match count and 1e-9 to every divisor, so that no match gives almost 0.
- ROUGE-L (Lin 2004): beta 1.2; the best precision and the best recall over the references, even of different ones.
- CIDEr-D (Vedantam et al. 2015): 10 times the mean over 1- to 4-grams of the clipped cosine of tf-idf vectors, times a
  Gaussian of the difference in length, sigma 6. pycocoevalcap calls it CIDEr. Document frequencies come from the
  references of the scored images ("corpus" mode): fewer images give lower weights, and a single image scores 0. The
  COCO server and "coco-val-df" use other images' frequencies; such numbers are not comparable.

Differs on purpose: a caption without words scores 0 in ROUGE-L even if a reference has none either.
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
    """Scores of the set and of each image, by name: BLEU-1..4, ROUGE-L, CIDEr-D; METEOR and SPICE if available.

    All are in [0, 1], CIDEr-D in [0, 10].
    """

    overall: dict[str, float]
    by_image: dict[ImageId, dict[str, float]]


def score_captions(
    predictions: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]], *, java: bool = True
) -> dict[str, float]:
    """Return the scores of a set of captions: the `overall` of score_images."""
    return score_images(predictions, references, java=java).overall


def score_images(
    predictions: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]], *, java: bool = True
) -> CaptionScores:
    """Score one caption per image against that image's references, all given as sentences.

    java: add METEOR and SPICE where available; they take seconds.

    Raises InputError for an empty set, an image without references, and images that are in only one of the two.
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
    by_image = {image: {name: own[i] for name, (_, own) in columns.items()} for i, image in enumerate(predictions)}
    return CaptionScores(overall, by_image)


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


class _BleuCounts(NamedTuple):
    """The counts of BLEU: matches and n-grams by order, the lengths of the caption and its reference."""

    matches: list[int]
    totals: list[int]
    length: int
    reference_length: int


def _count_bleu(hypothesis: list[str], references: list[list[str]]) -> _BleuCounts:
    matches = []
    for order in ORDERS:
        most: Ngrams = Counter()
        for reference in references:
            most |= _ngrams(reference, order)
        matches.append((_ngrams(hypothesis, order) & most).total())
    length = len(hypothesis)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return _BleuCounts(matches, [max(0, length - order + 1) for order in ORDERS], length, closest)


def _bleu_scores(counts: _BleuCounts) -> list[float]:
    """Return BLEU-1 to BLEU-4: the geometric mean of the precisions up to n, times exp(1 - r / c) if c < r."""
    ratio = (counts.length + TINY) / (counts.reference_length + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order, matches, total in zip(ORDERS, counts.matches, counts.totals, strict=True):
        product *= (matches + TINY) / (total + SMALL)
        scores.append(product ** (1 / order) * brevity)
    return scores


def _bleu(hypotheses: list[list[str]], truths: list[list[list[str]]]) -> dict[str, tuple[float, list[float]]]:
    counts = [_count_bleu(*pair) for pair in zip(hypotheses, truths, strict=True)]
    matches = [sum(column) for column in zip(*(c.matches for c in counts), strict=True)]
    totals = [sum(column) for column in zip(*(c.totals for c in counts), strict=True)]
    lengths = sum(c.length for c in counts), sum(c.reference_length for c in counts)
    overall = _bleu_scores(_BleuCounts(matches, totals, *lengths))
    by_image = [_bleu_scores(c) for c in counts]
    return {f"BLEU-{n}": (overall[n - 1], [scores[n - 1] for scores in by_image]) for n in ORDERS}


def _lcs_length(one: list[str], other: list[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for i, candidate in enumerate(other):
            row.append(above[i] + 1 if word == candidate else max(above[i + 1], row[i]))
    return row[-1]


def _rouge_l(hypothesis: list[str], references: list[list[str]]) -> float:
    common = [_lcs_length(reference, hypothesis) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(hypothesis)
    recall = max(n / len(reference) for n, reference in zip(common, references, strict=True) if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


class _TfIdf(NamedTuple):
    """A sentence's tf-idf weights for n-grams of one order, and their norm."""

    weights: dict[tuple[str, ...], float]
    norm: float


def _tf_idf(sentence: list[str], documents: Counter[tuple[str, ...]], images: int) -> list[_TfIdf]:
    vectors = []
    for order in ORDERS:
        counts = _ngrams(sentence, order)
        weights = {gram: n * (math.log(images) - math.log(max(1, documents[gram]))) for gram, n in counts.items()}
        vectors.append(_TfIdf(weights, math.sqrt(sum(weight**2 for weight in weights.values()))))
    return vectors


def _clipped_cosine(hypothesis: _TfIdf, reference: _TfIdf) -> float:
    norms = hypothesis.norm * reference.norm
    if norms == 0:
        return 0.0
    shared = hypothesis.weights.keys() & reference.weights.keys()
    return sum(min(hypothesis.weights[g], reference.weights[g]) * reference.weights[g] for g in shared) / norms


def _cider_d(hypotheses: list[list[str]], truths: list[list[list[str]]]) -> list[float]:
    """Return each image's CIDEr-D. The document frequency of an n-gram counts the images whose references have it."""
    documents: Counter[tuple[str, ...]] = Counter()
    for references in truths:
        documents.update({gram for reference in references for order in ORDERS for gram in _ngrams(reference, order)})
    scores = []
    for hypothesis, references in zip(hypotheses, truths, strict=True):
        own = _tf_idf(hypothesis, documents, len(truths))
        total = 0.0
        for reference in references:
            other = _tf_idf(reference, documents, len(truths))
            # pycocoevalcap counts lengths in pairs of words, so that 0 and 1 word have the same length.
            difference = max(1, len(hypothesis)) - max(1, len(reference))
            similarity = math.exp(-(difference**2) / (2 * SIGMA**2))
            total += similarity * sum(_clipped_cosine(*pair) for pair in zip(own, other, strict=True)) / len(ORDERS)
        scores.append(10 * total / len(references))
    return scores
