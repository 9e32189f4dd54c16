"""Captions to tokens and back: the WordPieces of bert-base-uncased, or a smaller vocabulary of your own.

Agrees with the reference's BertTokenizer (CATR, by `transformers`) in lower-casing, accents, splitting and decoding,
with one exception: text stays text. "[SEP]" written in a caption is split into "[", "sep", "]" and does not end it, so
an encoded caption has one [CLS], one [SEP], and no other special token than [UNK].

A vocabulary is a file with one WordPiece per line; the id is the line number from 0. "##" marks a piece that continues
a word.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int

from vit_jax.errors import InputError
from vit_jax.files import atomic_write

VOCABULARY_FILE = "vocab.txt"  # its name in a saved model's folder
PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
REQUIRED = (PAD, UNK, CLS, SEP)
ENDINGS = frozenset({"s", "t", "m", "d", "re", "ve", "ll"})  # joined to the previous word by an apostrophe

Tokens = Sequence[int] | Int[Array | np.ndarray, "t"]


class EncodedBatch(NamedTuple):
    """Captions padded to one length T.

    tokens: int32, [PAD] after the end
    mask:   True on content, [CLS] and [SEP] included
    """

    tokens: Int[np.ndarray, "b t"]
    mask: Bool[np.ndarray, "b t"]


@dataclass(frozen=True)
class Tokenizer:
    """A WordPiece tokenizer.

    vocabulary: the WordPieces in the order of their ids.
    name:       how messages refer to it.

    Raises InputError when [UNK], [CLS] or [SEP] is missing, a piece occurs twice, or [PAD] is not the first: the
    models use id 0 for padding.
    """

    vocabulary: tuple[str, ...]
    name: str = "the vocabulary"

    def __post_init__(self) -> None:
        if missing := [piece for piece in REQUIRED if piece not in self.ids]:
            raise InputError(
                f"{self.name}: has no {missing[0]}; use a BERT vocabulary or build one with build_vocabulary"
            )
        if self.vocabulary[0] != PAD:
            raise InputError(f"{self.name}: {PAD} must be on the first line, not on line {self.ids[PAD] + 1}")
        if len(self.ids) != len(self.vocabulary):
            repeated = next(piece for piece, count in Counter(self.vocabulary).items() if count > 1)
            raise InputError(f"{self.name}: {repeated!r} occurs twice; every WordPiece has one line")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Return each WordPiece's id."""
        return {piece: number for number, piece in enumerate(self.vocabulary)}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.ids[piece] for piece in SPECIAL if piece in self.ids)

    @cached_property
    def _pieces(self) -> Any:
        from tokenizers import Tokenizer as Pieces  # only needed to encode
        from tokenizers import models, normalizers, pre_tokenizers

        pieces = Pieces(models.WordPiece(self.ids, unk_token=UNK))
        pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
        pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return pieces

    @property
    def vocab_size(self) -> int:
        """Return the number of WordPieces."""
        return len(self.vocabulary)

    @property
    def start(self) -> int:
        """Return the id of [CLS], which starts a caption: 101 in BERT's vocabulary."""
        return self.ids[CLS]

    @property
    def end(self) -> int:
        """Return the id of [SEP], which ends a caption: 102 in BERT's vocabulary."""
        return self.ids[SEP]

    def encode(self, text: str, max_length: int | None = None, *, truncate: bool = False) -> list[int]:
        """Return a caption's ids, from [CLS] to [SEP]; both count towards max_length (tokens).

        truncate: shorten longer captions to the first pieces and [SEP], as the reference does.

        Raises InputError for a longer caption without truncate, and for max_length below 2.
        """
        if max_length is not None and max_length < 2:
            raise InputError(f"a caption needs {CLS} and {SEP}: at least 2 tokens, not {max_length}")
        text = text.encode("utf-8", "replace").decode()  # replaces lone surrogates
        inner = self._pieces.encode(text, add_special_tokens=False).ids
        if max_length is not None and len(inner) > max_length - 2:
            if not truncate:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise InputError(
                    f"caption {shown!r} has {len(inner) + 2} tokens, more than {max_length}; shorten or truncate it"
                )
            inner = inner[: max_length - 2]
        return [self.start, *inner, self.end]

    def encode_batch(self, texts: Sequence[str], length: int, *, truncate: bool = False) -> EncodedBatch:
        """Encode captions into one array, each padded with [PAD] to `length` tokens; see encode."""
        tokens = np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            ids = self.encode(text, length, truncate=truncate)
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        return EncodedBatch(tokens, mask)

    def piece(self, token: int) -> str:
        """Return a token's WordPiece. Raises InputError for an unknown id."""
        if not 0 <= token < self.vocab_size:
            raise InputError(
                f"{self.name}: has {self.vocab_size} WordPieces, no id {token}; use the model's own vocabulary"
            )
        return self.vocabulary[token]

    def decode(self, tokens: Tokens) -> str:
        """Return the tokens as a sentence like the reference's: without special tokens, first letter a capital.

        Tokens after the end token are included.
        """
        pieces = [self.piece(token) for token in _as_ints(tokens) if token not in self._special_ids]
        return _clean_up_spaces(" ".join(pieces).replace(" ##", "").strip()).capitalize()

    def words(self, tokens: Tokens) -> list[tuple[str, list[int]]]:
        """Return the words up to the end token, which comes last, each with its positions in `tokens`.

        WordPieces are joined, and so are hyphens and apostrophes within a word ("t-shirt", "man's"). Other punctuation
        is a word of its own: its attention is not that of the noun before it. [CLS] and [PAD] are no words, [UNK] is.
        """
        words: list[tuple[str, list[int]]] = []
        joins_next = False  # whether the next word continues the last one, after a hyphen or an apostrophe
        ids = _as_ints(tokens)
        for position, token in enumerate(ids):
            if token in (self.start, self.ids[PAD]):
                continue
            piece = self.piece(token)
            if token == self.end:
                words.append((piece, [position]))
                break
            next_piece = self._next_piece(ids, position)
            follows_word = bool(words) and words[-1][0][-1].isalnum()
            is_hyphen = piece == "-" and next_piece[:1].isalnum()
            is_apostrophe = piece == "'" and next_piece in ENDINGS
            joins = follows_word and (is_hyphen or is_apostrophe)
            if words and (joins_next or joins or piece.startswith("##")):
                word, positions = words[-1]
                words[-1] = (word + piece.removeprefix("##"), [*positions, position])
            else:
                words.append((piece, [position]))  # a leading "##" stays, as in decode
            joins_next = joins
        return words

    def _next_piece(self, ids: list[int], position: int) -> str:
        """Return the next WordPiece, "" for a special token and at the end."""
        token = ids[position + 1] if position + 1 < len(ids) else self.end
        return "" if token in self._special_ids else self.piece(token)

    def save(self, path: str | os.PathLike) -> None:
        """Write the vocabulary atomically, one WordPiece per line; load_tokenizer reads it."""
        with atomic_write(path) as temporary:
            temporary.write_text("".join(piece + "\n" for piece in self.vocabulary), encoding="utf-8", newline="\n")


def _as_ints(tokens: Tokens) -> list[int]:
    return [int(token) for token in (tokens if isinstance(tokens, Sequence) else np.asarray(tokens))]


def _clean_up_spaces(text: str) -> str:
    """Remove the spaces that transformers' clean_up_tokenization removes, in its order."""
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text


def load_tokenizer(path: str | os.PathLike, *, vocab_size: int | None = None) -> Tokenizer:
    """Load the tokenizer of a vocabulary file, or of a folder's vocab.txt. vocab_size: the model's, if known.

    Raises InputError for a file that is missing, not a vocabulary, or not of the model's size.
    """
    path = Path(path)
    path = path / VOCABULARY_FILE if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would split at characters that are WordPieces
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such vocabulary; it is a file with one WordPiece per line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a vocabulary: not UTF-8 text ({error.reason})") from error
    tokenizer = Tokenizer(tuple(lines[:-1] if lines[-1] == "" else lines), name=str(path))
    if vocab_size is not None and tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"{path}: has {tokenizer.vocab_size} WordPieces, but the model {vocab_size}; "
            "give the vocabulary that the model was trained with"
        )
    return tokenizer


def build_vocabulary(captions: Iterable[str], path: str | os.PathLike, *, min_count: int = 1) -> Tokenizer:
    """Write the vocabulary of build_tokenizer to a file. Raises InputError as it does."""
    tokenizer = build_tokenizer(captions, name=str(path), min_count=min_count)
    tokenizer.save(path)
    return tokenizer


def build_tokenizer(captions: Iterable[str], *, name: str = "vocabulary", min_count: int = 1) -> Tokenizer:
    """Return a tokenizer of the special tokens and the words of some captions, for small captioners.

    Words that occur less than min_count times become [UNK]. Words are sorted, so that the order of the captions does
    not matter. name: for messages. Raises InputError when no word is left.
    """
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    words = sorted(word for word, count in counts.items() if count >= min_count)
    if not words:
        raise InputError(f"{name}: no word occurs {min_count} times in the captions; lower min_count")
    return Tokenizer((*SPECIAL, *words), name=name)
