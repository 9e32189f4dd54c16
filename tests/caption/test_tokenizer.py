"""The tokenizer against transformers' on a test vocabulary, its properties on random text, and wrong files."""

import pickle

import numpy as np
import pytest
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from caption.tokenizer import SPECIAL, build_vocabulary, load_tokenizer
from vit_jax import InputError

CAPTIONS = [
    "A man's T-shirt, with a 'stop' sign on it.",
    "Two dogs (one black-and-white) playing in the snow .",
    "It isn't  clear what they're\tdoing!  Is it?",
    "A café in São Paulo: naïve décor & 3 chairs; $5.50 each",
    "SKATEBOARDERS skateboarding on a skateboard\n",
    "a  bowl of 中文 soup\u200b and\u00a0rice…",
    "I've seen we'll do not don't",
    "x" * 101 + " and a zebra",
    "",
]
WORDS = (
    "a man s t shirt with ' - stop sign on it . , two dogs ( ) one black and white play ##ing in the snow is ##n "
    "clear what they re do ! ? cafe sao paulo : naive decor & 3 chair ##s ; $ 5 50 each skate ##board ##er board "
    "bowl of 中 soup rice i ve ve seen we ll not don x z ##e ##bra ##a ##b ##c [ ] sep"
)
VOCABULARY = list(dict.fromkeys([*SPECIAL[:1], "[unused0]", *SPECIAL[1:], *WORDS.split()]))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "test_vocabulary.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def ours(file):
    return load_tokenizer(file)


@pytest.fixture
def theirs(file):
    return BertTokenizerLegacy(str(file))  # the pure Python one, which the reference uses


def random_texts(count):
    rng = np.random.default_rng(0)
    parts = [*VOCABULARY[6:], "Ski", "ÉCLAIR", "'", "-", "##", "\u0301", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "漢", "\x00", "…"]  # fmt: skip
    glue = ["", " ", " ", "  ", "\n"]
    for _ in range(count):
        indices = rng.choice(len(parts), rng.integers(0, 25))
        yield "".join(parts[index] + glue[rng.integers(len(glue))] for index in indices)


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("length", [4, 9, 129])
def test_encodes_and_truncates_as_transformers(ours, theirs, caption, length):
    expected = theirs(caption, max_length=length, truncation=True, padding="max_length")
    ids = ours.encode(caption, length, truncate=True)
    assert ids == [token for token, mask in zip(expected["input_ids"], expected["attention_mask"], strict=True) if mask]
    batch = ours.encode_batch([caption, "a"], length, truncate=True)
    np.testing.assert_array_equal(batch.tokens[0], expected["input_ids"])
    np.testing.assert_array_equal(batch.mask[0], np.array(expected["attention_mask"], bool))
    assert (batch.tokens.dtype, batch.mask[1].sum()) == (np.int32, 3)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_decodes_as_the_reference(ours, theirs, caption):
    ids = [*ours.encode(caption), 0, 0]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True).capitalize()
    assert ours.decode(np.array(ids)) == ours.decode(ids)


def test_random_text_is_tokenized_as_by_both_of_transformers(ours, theirs):
    fast = BertTokenizer(vocab=ours.ids)
    rng = np.random.default_rng(1)
    for text in random_texts(300):
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"] == fast(text)["input_ids"], text
        some = rng.integers(0, ours.vocab_size, 12).tolist()
        for tokens in (ids, some):
            assert ours.decode(tokens) == theirs.decode(tokens, skip_special_tokens=True).capitalize()


def test_words_hold_every_token_once_and_spell_the_sentence(ours):
    for text in [*CAPTIONS, *random_texts(300)]:
        ids = ours.encode(text)
        words = ours.words([*ids, 0, 0, 7])
        assert [p for _, positions in words for p in positions] == list(range(1, len(ids)))
        assert words[-1] == ("[SEP]", [len(ids) - 1])
        spelt = "".join(word for word, _ in words[:-1] if word != "[UNK]")
        if "##" not in text and "[UNK]##" not in "".join(ours.piece(i) for i in ids):
            assert spelt == ours.decode(ids).lower().replace(" ", "")


def test_words_of_a_caption(ours):
    ids = ours.encode("A man's T-shirt, skateboarding - on 'stop'.")
    assert [(w, p) for w, p in ours.words(ids)] == [
        ("a", [1]),
        ("man's", [2, 3, 4]),
        ("t-shirt", [5, 6, 7]),
        (",", [8]),
        ("skateboarding-on", [9, 10, 11, 12, 13]),
        ("'", [14]),
        ("stop", [15]),
        ("'", [16]),
        (".", [17]),
        ("[SEP]", [18]),
    ]
    assert ours.words([ours.start, 1]) == [("[unused0]", [1])]  # without an end token, all tokens


def test_special_tokens_written_out_are_text(ours):
    ids = ours.encode("a [SEP] [CLS] man")
    assert [ours.piece(i) for i in ids] == ["[CLS]", "a", "[", "sep", "]", "[", "[UNK]", "]", "man", "[SEP]"]
    assert ours.encode("a \ud800 man") == ours.encode("a ? man")


def test_a_caption_that_is_too_long_is_refused(ours):
    assert len(ours.encode("a man", 4)) == 4
    with pytest.raises(InputError, match=r"caption 'a man on a' has 6 tokens, more than 4; shorten or truncate"):
        ours.encode("a man on a", 4)
    with pytest.raises(InputError, match="at least 2 tokens, not 1"):
        ours.encode("a", 1, truncate=True)
    for token in (-1, len(VOCABULARY)):
        with pytest.raises(InputError, match=rf"has {len(VOCABULARY)} WordPieces, no id {token}"):
            ours.decode([token])


def test_files_that_are_not_a_vocabulary_are_refused(tmp_path):
    path = tmp_path / "v.txt"
    with pytest.raises(InputError, match=r"v.txt: no such vocabulary"):
        load_tokenizer(path)
    for gone in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
        path.write_text("\n".join(piece for piece in VOCABULARY if piece != gone))
        with pytest.raises(InputError, match=rf"v.txt: has no \{gone}; use a BERT vocabulary"):
            load_tokenizer(path)
    path.write_text("a\n" + "\n".join(VOCABULARY[:7]))
    with pytest.raises(InputError, match=r"\[PAD\] must be on the first line, not on line 2"):
        load_tokenizer(path)
    path.write_text("\n".join([*VOCABULARY, "man"]))
    with pytest.raises(InputError, match=r"v.txt: 'man' occurs twice"):
        load_tokenizer(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"v.txt: not a vocabulary: not UTF-8"):
        load_tokenizer(path)
    path.write_text("\n".join(VOCABULARY))
    with pytest.raises(InputError, match=rf"v.txt: has {len(VOCABULARY)} WordPieces, but the model 30522; give the"):
        load_tokenizer(path, vocab_size=30522)


def test_saved_and_pickled(ours, tmp_path):
    ours.save(tmp_path / "vocab.txt")
    for same in (load_tokenizer(tmp_path, vocab_size=ours.vocab_size), pickle.loads(pickle.dumps(ours))):
        assert same.vocabulary == ours.vocabulary
        assert same.encode(CAPTIONS[0]) == ours.encode(CAPTIONS[0])
    assert (ours.start, ours.end) == (VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]"))


def test_a_vocabulary_built_from_captions(tmp_path):
    captions = ["A red circle above a blue Square.", "A café."]
    tokenizer = build_vocabulary(captions, tmp_path / "own.txt")
    assert tokenizer.vocabulary == (*SPECIAL, ".", "a", "above", "blue", "cafe", "circle", "red", "square")
    assert build_vocabulary(captions[::-1], tmp_path / "again.txt").vocabulary == tokenizer.vocabulary
    assert (
        load_tokenizer(tmp_path / "own.txt").decode(tokenizer.encode(captions[0]))
        == "A red circle above a blue square."
    )
    assert tokenizer.piece(1) == "[UNK]"
    assert 1 not in tokenizer.encode(captions[0])
    assert tokenizer.encode("a green circle").count(1) == 1
    assert build_vocabulary(captions, tmp_path / "own.txt", min_count=2).vocabulary == (*SPECIAL, ".", "a")
    with pytest.raises(InputError, match=r"none.txt: no word occurs 9 times"):
        build_vocabulary(captions, tmp_path / "none.txt", min_count=9)
    assert not (tmp_path / "none.txt").exists()
