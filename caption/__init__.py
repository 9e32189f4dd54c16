"""Image captions with a heat map for every word: caption transformers in Flax."""

from caption._generate import GeneratedCaptions, generate
from caption.attention import content_size, word_attention
from caption.checkpoint import load, load_card, save
from caption.config import CONFIGS, CaptionConfig, ResNetConfig
from caption.decoding import decode_step, empty_cache, prepare_decoder
from caption.model import CaptionTransformer, decode, encode_with_attention, forward_with_attention
from caption.outputs import CaptionOutput, Memory
from caption.relevance import word_relevance
from caption.train.optim import caption_loss, make_optimizer, parameter_groups, trainable

__all__ = [
    "CONFIGS",
    "CaptionConfig",
    "CaptionOutput",
    "CaptionTransformer",
    "GeneratedCaptions",
    "Memory",
    "ResNetConfig",
    "caption_loss",
    "content_size",
    "decode",
    "decode_step",
    "empty_cache",
    "encode_with_attention",
    "forward_with_attention",
    "generate",
    "load",
    "load_card",
    "make_optimizer",
    "parameter_groups",
    "prepare_decoder",
    "save",
    "trainable",
    "word_attention",
    "word_relevance",
]
