"""Open a captioner from a saved folder, a run's folder, a foreign checkpoint or the name of a release."""

import caption
from caption.tokenizer import VOCABULARY_FILE, Tokenizer, load_tokenizer
from vit_jax import InputError
from weights_convert.hub.vocabulary import find_tokenizer
from weights_convert.model_types import CAPTION_MODEL
from weights_convert.resolve import ModelSource, find_source, open_source

BERT_SIZE = caption.CONFIGS["catr"].vocab_size


def open_captioner(
    weights: str | ModelSource, *, vocabulary: str | None = None, cache: str | None = None
) -> tuple[caption.CaptionTransformer, Tokenizer]:
    """Load a caption model and its vocabulary.

    weights:    a source, or what find_source takes: a saved folder, a run, a foreign checkpoint or a name.
    vocabulary: a file. By default the folder's vocab.txt, else BERT's, from the cache or downloaded.

    Raises InputError for anything but a captioner, and for a vocabulary that is not of the model's size.
    """
    source = find_source(weights, cache=cache, wanted=CAPTION_MODEL)
    model = open_source(source, wanted=CAPTION_MODEL).model
    size = model.config.vocab_size
    if vocabulary is not None:
        return model, load_tokenizer(vocabulary, vocab_size=size)
    if (source.path / VOCABULARY_FILE).is_file():
        return model, load_tokenizer(source.path, vocab_size=size)
    if size != BERT_SIZE:
        raise InputError(
            f"{weights}: its {size} words are not BERT's, and it has no {VOCABULARY_FILE}; give --vocabulary"
        )
    return model, find_tokenizer(vocab_size=size, cache=cache)
