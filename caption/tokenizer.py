"""Captions to tokens and back: the WordPiece of bert-base-uncased, or a smaller vocabulary of one's own.

Agrees with the BertTokenizer of the reference (CATR, by `transformers`) in lower case, accents, splitting and decoding,
but for one thing: text stays text. "[SEP]" written in a caption is cut into "[", "sep", "]" and does not end it, so an
encoded caption has one [CLS], one [SEP], and no other special token than [UNK].
A vocabulary is a file of one WordPiece a line, the id being the line's number from 0. "##" opens a piece that goes on
inside a word.
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

VOCABULARY_FILE = "vocab.txt"  # a vocabulary's name within a folder
PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
REQUIRED = (PAD, UNK, CLS, SEP)
ENDINGS = frozenset({"s", "t", "m", "d", "re", "ve", "ll"})  # what an apostrophe ties to the word before it

Tokens = Sequence[int] | Int[Array | np.ndarray, "t"]


class EncodedBatch(NamedTuple):
    """Captions of one length T. tokens: int32, [PAD] at the end; mask: True on content, [CLS] and [SEP] included."""

    tokens: Int[np.ndarray, "b t"]
    mask: Bool[np.ndarray, "b t"]


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary and what can be done with it. vocabulary: the WordPieces, in the order of their ids.

    name: what messages call it. Raises InputError when [UNK], [CLS] or [SEP] is missing, a piece comes twice, or
    [PAD] is not the first: the models here take 0 for padding.
    """

    vocabulary: tuple[str, ...]
    name: str = "the vocabulary"

    def __post_init__(self) -> None:
        if missing := [piece for piece in REQUIRED if piece not in self.ids]:
            raise InputError(f"{self.name}: has no {missing[0]}; take a BERT vocabulary or make one, build_vocabulary")
        if self.vocabulary[0] != PAD:
            raise InputError(f"{self.name}: {PAD} must be on the first line, not on line {self.ids[PAD] + 1}")
        if len(self.ids) != len(self.vocabulary):
            twice = next(piece for piece, count in Counter(self.vocabulary).items() if count > 1)
            raise InputError(f"{self.name}: {twice!r} is there twice; every WordPiece has one line")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each WordPiece's id."""
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
        """How many WordPieces there are: the width of a captioner's answer."""
        return len(self.vocabulary)

    @property
    def start(self) -> int:
        """The id of [CLS], which opens a caption: 101 in BERT's vocabulary."""
        return self.ids[CLS]

    @property
    def end(self) -> int:
        """The id of [SEP], which closes a caption: 102 in BERT's vocabulary."""
        return self.ids[SEP]

    def encode(self, text: str, max_length: int | None = None, *, truncate: bool = False) -> list[int]:
        """A caption's ids, from [CLS] to [SEP], both counted in max_length (tokens).

        truncate keeps the first pieces and [SEP], as the reference does. Raises InputError for a longer caption
        otherwise, and for max_length below 2.
        """
        if max_length is not None and max_length < 2:
            raise InputError(f"a caption takes {CLS} and {SEP}: at least 2 tokens, not {max_length}")
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        inner = self._pieces.encode(text, add_special_tokens=False).ids
        if max_length is not None and len(inner) > max_length - 2:
            if not truncate:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise InputError(
                    f"caption {shown!r} takes {len(inner) + 2} tokens, more than {max_length}; shorten or truncate it"
                )
            inner = inner[: max_length - 2]
        return [self.start, *inner, self.end]

    def encode_batch(self, texts: Sequence[str], length: int, *, truncate: bool = False) -> EncodedBatch:
        """Captions as one array of `length` tokens each, filled up with [PAD]; see encode."""
        tokens = np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            ids = self.encode(text, length, truncate=truncate)
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        return EncodedBatch(tokens, mask)

    def piece(self, token: int) -> str:
        """A token's WordPiece. Raises InputError for an id that the vocabulary does not have."""
        if not 0 <= token < self.vocab_size:
            raise InputError(
                f"{self.name}: has {self.vocab_size} WordPieces, and no id {token}; is it the model's own?"
            )
        return self.vocabulary[token]

    def decode(self, tokens: Tokens) -> str:
        """The sentence that tokens spell, as the reference prints it: no special tokens, first letter a capital.

        Ids after the end are not cut off, [PAD] is left out wherever it stands.
        """
        pieces = [self.piece(token) for token in _as_ints(tokens) if token not in self._special_ids]
        return _clean_up_spaces(" ".join(pieces).replace(" ##", "").strip()).capitalize()

    def words(self, tokens: Tokens) -> list[tuple[str, list[int]]]:
        """The words that tokens spell up to the end token, which comes last, each with its positions in `tokens`.

        WordPieces are joined, and so are hyphens and apostrophes within a word ("t-shirt", "man's"); other
        punctuation stands alone, since what the model saw for a full stop is not what it saw for the noun before it.
        [CLS] and [PAD] are no words, [UNK] is one.
        """
        words: list[tuple[str, list[int]]] = []
        open_word = False  # whether the next word goes on with the last one, after a hyphen or an apostrophe
        numbers = _as_ints(tokens)
        for position, token in enumerate(numbers):
            if token in (self.start, self.ids[PAD]):
                continue
            piece = self.piece(token)
            if token == self.end:
                words.append((piece, [position]))
                break
            follower = self._following(numbers, position)
            inside = bool(words) and words[-1][0][-1].isalnum()
            ties = inside and ((piece == "-" and follower[:1].isalnum()) or (piece == "'" and follower in ENDINGS))
            if words and (open_word or ties or piece.startswith("##")):
                word, positions = words[-1]
                words[-1] = (word + piece.removeprefix("##"), [*positions, position])
            else:
                words.append((piece, [position]))  # a "##" with nothing before it stays, as in decode
            open_word = ties
        return words

    def _following(self, numbers: list[int], position: int) -> str:
        token = numbers[position + 1] if position + 1 < len(numbers) else self.end
        return "" if token in self._special_ids else self.piece(token)

    def save(self, path: str | os.PathLike) -> None:
        """Write the vocabulary, one WordPiece a line, whole or not at all; load_tokenizer reads it."""
        with atomic_write(path) as beside:
            beside.write_text("".join(piece + "\n" for piece in self.vocabulary), encoding="utf-8", newline="\n")


def _as_ints(tokens: Tokens) -> list[int]:
    return [int(token) for token in (tokens if isinstance(tokens, Sequence) else np.asarray(tokens))]


def _clean_up_spaces(text: str) -> str:
    """transformers' clean_up_tokenization: blanks that English does not write, in this order."""
    for wide in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(wide, wide.strip())
    return text


def load_tokenizer(path: str | os.PathLike, *, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a vocabulary file, or of the vocab.txt in a folder. vocab_size: the model's, if known.

    Raises InputError for a file that is missing, no vocabulary, or not of the model's size.
    """
    path = Path(path)
    path = path / VOCABULARY_FILE if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would cut at characters that are WordPieces
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such vocabulary; it is a file of one WordPiece a line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a vocabulary: no UTF-8 text ({error.reason})") from error
    tokenizer = Tokenizer(tuple(lines[:-1] if lines[-1] == "" else lines), name=str(path))
    if vocab_size is not None and tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"{path}: has {tokenizer.vocab_size} WordPieces, and the model {vocab_size}; "
            "give the vocabulary that the model was trained with"
        )
    return tokenizer


def build_vocabulary(captions: Iterable[str], path: str | os.PathLike, *, min_count: int = 1) -> Tokenizer:
    """Write a vocabulary of the whole words of some captions, and the special tokens before them.

    For small captioners that do without BERT's file. Words that come less than min_count times are left out, and
    become [UNK]; the rest are in alphabetical order, so that the captions' order does not matter.
    Raises InputError when no word is left.
    """
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    words = sorted(word for word, count in counts.items() if count >= min_count)
    if not words:
        raise InputError(f"{path}: no word comes {min_count} times in the captions; nothing to make a vocabulary of")
    tokenizer = Tokenizer((*SPECIAL, *words), name=str(path))
    tokenizer.save(path)
    return tokenizer
