"""Caption metrics: computed by hand, equal to pycocoevalcap's; the words they count, equal to PTBTokenizer's."""

import math
import random
import shutil

import pytest

from caption.scoring import java_metrics
from caption.scoring.metrics import score_captions, score_images
from caption.scoring.words import split_words
from vit_jax import InputError

REFERENCES = {
    1: ["a cat sits on the mat", "the cat sat"],
    2: ["two dogs run through wet grass", "dogs running"],
}

# Output of CoreNLP 3.4.1's PTBTokenizer -lowerCase, without the punctuation that the COCO server drops.
WORDS = {
    "A man's dog can't stop, won't stop; don't!": "a man 's dog ca n't stop wo n't stop do n't",
    "They've cannot gonna 'tis 'twas it\u2019s": "they 've can not gon na 't is 't was it 's",
    "the dogs' bowls and the '90s car, a '57 chevy": "the dogs bowls and the '90s car a '57 chevy",
    "O'Neil at five o'clock, ma'am, rock 'n' roll": "o'neil at five o'clock ma'am rock 'n' roll",
    "A \"quoted\" word and 'single quoted' one \u201ccurly\u201d": "a quoted word and single quoted one curly",
    "(parens) [brackets] stairs.] :)": "-lrb- parens -rrb- -lsb- brackets -rsb- stairs -rsb- :-rrb-",
    "U.S. flag by Mr. Smith at St. John's at 3 p.m. No. 5 etc.": "u.s. flag by mr. smith at st. john 's at 3 p.m. no. 5 etc.",
    "plan a. and no. of cats. The cat.A dog": "plan a. and no of cats the cat.a dog",
    "1,000 people, 3.5 miles, 1/2 mile, 8:25, $5.00, 50% off, #1": "1,000 people 3.5 miles 1/2 mile 8:25 $ 5.00 50 % off # 1",
    "ice skating/skiing w/ a well-known T-shirt -- fast - end-": "ice skating/skiing w / a well-known t-shirt fast end",
    "wait... what?! no!! one, ready?": "wait what ?! no !! one ready",
    "AT&T & a café &amp; ½ cup, 80's 1980s 2nd 12:30pm": "at&t & a café & 1/2 cup 80 's 1980s 2nd 12:30 pm",
    "  .  ": "",
    "": "",
}


@pytest.mark.parametrize("caption", WORDS)
def test_words_are_the_treebanks(caption):
    assert split_words(caption) == WORDS[caption].split()


def test_bleu_by_hand():
    """Clipped counts, the closest length, brevity: 'the the cat' against a reference of 4 and one of 6 words."""
    scores = score_captions({1: "the the cat"}, {1: ["the cat sat down", "on the mat there lay one"]}, java=False)
    brevity = math.exp(1 - 4 / 3)
    assert scores["BLEU-1"] == pytest.approx(brevity * 2 / 3, abs=1e-8)
    assert scores["BLEU-2"] == pytest.approx(brevity * math.sqrt(2 / 3 * 1 / 2), abs=1e-8)
    assert scores["BLEU-3"] < 1e-4  # no match: almost 0


def test_bleu_adds_counts_over_the_set():
    scores = score_images({1: "a cat", 2: "a dog ran off"}, {1: ["a cat"], 2: ["one dog ran away"]}, java=False)
    assert scores.overall["BLEU-1"] == pytest.approx(4 / 6, abs=1e-8)
    assert scores.by_image[1]["BLEU-1"] == pytest.approx(1, abs=1e-8)
    assert scores.by_image[2]["BLEU-1"] == pytest.approx(2 / 4, abs=1e-8)


def test_rouge_by_hand():
    """'the cat sat' is common to 5 and 4 words: precision 3/5, recall 3/4."""
    scores = score_captions({1: "the big cat sat there"}, {1: ["yet the cat sat"]}, java=False)
    assert scores["ROUGE-L"] == pytest.approx((1 + 1.44) * 0.6 * 0.75 / (0.75 + 1.44 * 0.6))


def test_cider_by_hand():
    """A word in one image only weighs log 2; one common word of two has cosine 1/2."""
    scores = score_images({1: "cat bird", 2: "dog"}, {1: ["cat mouse"], 2: ["dog"]}, java=False)
    assert scores.by_image[1]["CIDEr-D"] == pytest.approx(10 * (1 / 2) / 4)
    assert scores.by_image[2]["CIDEr-D"] == pytest.approx(10 / 4)  # no word pairs, so only one order of four


def test_identical_captions_score_the_most():
    same = {image: [captions[0]] * 2 for image, captions in REFERENCES.items()}
    longer = {1: [same[1][0]], 2: [same[2][0]]}
    scores = score_captions({image: captions[0] for image, captions in longer.items()}, longer, java=False)
    assert scores["CIDEr-D"] == pytest.approx(10)
    assert scores["ROUGE-L"] == pytest.approx(1)
    assert scores["BLEU-4"] == pytest.approx(1, abs=1e-8)
    assert score_captions({1: "a cat"}, {1: ["a cat"]}, java=False)["CIDEr-D"] == 0  # one image has no rare words


def test_a_caption_without_words_scores_nothing():
    scores = score_captions({1: "...", 2: ""}, REFERENCES | {2: [".", "a dog"]}, java=False)
    assert all(value < 1e-6 for value in scores.values())
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]


def generate_captions(images: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return captions of few words of different frequency, so that n-grams recur; some are very short or long."""
    rng = random.Random(seed)
    vocabulary = ["a"] * 4 + ["the"] * 2 + ["man", "dog", "cat", "on", "in", "red", "bus", "people's", "isn't", "U.S."]

    def sentence() -> str:
        return " ".join(rng.choices(vocabulary, k=rng.choice([0, 1, 2, 5, 8, 8, 9, 10, 12, 30])) + ["end."])

    predictions = {f"{i}.jpg": sentence() for i in range(images)}
    return predictions, {image: [sentence() for _ in range(rng.randint(1, 6))] for image in predictions}


@pytest.mark.parametrize("images", [1, 2, 40])
def test_equal_to_the_library(images):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = generate_captions(images, seed=images)
    ours = score_images(predictions, references, java=False)
    theirs = {image: [" ".join(split_words(caption)) for caption in captions] for image, captions in references.items()}
    captions = {image: [" ".join(split_words(caption))] for image, caption in predictions.items()}
    bleu = Bleu(4).compute_score(theirs, captions, verbose=0)
    expected = {f"BLEU-{n}": (bleu[0][n - 1], bleu[1][n - 1]) for n in (1, 2, 3, 4)}
    expected["ROUGE-L"] = Rouge().compute_score(theirs, captions)
    expected["CIDEr-D"] = Cider().compute_score(theirs, captions)
    assert list(ours.overall) == list(expected)
    for name, (total, each) in expected.items():
        assert ours.overall[name] == pytest.approx(total, abs=1e-9)
        assert [ours.by_image[image][name] for image in predictions] == pytest.approx(list(each), abs=1e-9)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({}, {}, "no captions to score"),
        ({1: "a"}, {}, "image 1: has a caption but no references"),
        ({1: "a"}, {1: []}, "image 1: its references are not a list"),
        ({1: "a"}, {1: "a cat"}, "image 1: its references are not a list"),
        ({"a.jpg": "a"}, {"a.jpg": ["a"], "b.jpg": ["b"]}, "image b.jpg: has references but no caption"),
    ],
)
def test_wrong_sets_are_refused(predictions, references, message):
    with pytest.raises(InputError, match=message):
        score_captions(predictions, references, java=False)


def test_without_java_there_is_no_meteor(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert java_metrics.available_metrics() == ()
    assert "METEOR" not in score_captions({1: "a", 2: "b"}, REFERENCES)


def test_a_failing_java_is_reported_in_one_line(monkeypatch):
    def fail(*arguments):
        raise ValueError("could not convert string to float: b''")

    monkeypatch.setattr(java_metrics, "available_metrics", lambda: ("METEOR",))
    monkeypatch.setattr(java_metrics, "_meteor", fail)
    with pytest.raises(InputError, match="METEOR: its Java program failed"):
        score_captions({1: "a", 2: "b"}, REFERENCES)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program, and java is not installed")
def test_meteor_by_the_library():
    best = {image: captions[0] for image, captions in REFERENCES.items()}
    scores = score_images(best, REFERENCES)
    assert scores.overall["METEOR"] == pytest.approx(1)
    assert 0 < score_captions(best | {1: "a kitten"}, REFERENCES)["METEOR"] < 1
