"""The peer is the original: its names, its figures in float64, its greedy loop."""

import functools

import numpy as np
import pytest

from tests import reference
from tests.optional import load, torch

catr = load("experiments.benchmark.peers.catr")
GOLDEN = reference.golden_arrays("catr")


@functools.cache
def golden_model() -> catr.Caption:
    arrays = reference.golden_parameters("catr")
    with torch.device("meta"):
        model = catr.Caption()
    assert {key: tuple(t.shape) for key, t in model.state_dict().items()} == {k: a.shape for k, a in arrays.items()}
    # assign: takes the float64 arrays as they are, strict as a released file must load
    model.load_state_dict({k: torch.from_numpy(a) for k, a in arrays.items()}, strict=True, assign=True)
    return model.eval()


def padded_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return case b: two images in the corner of 299x299, as the original's training collates them."""
    random = np.random.RandomState(2)
    images, mask = torch.zeros(2, 3, 299, 299, dtype=torch.float64), torch.ones(2, 299, 299, dtype=torch.bool)
    for row, (height, width) in enumerate([(224, 299), (299, 199)]):
        images[row, :, :height, :width] = torch.from_numpy(random.uniform(-1, 1, (3, height, width)))
        mask[row, :height, :width] = False
    return images, mask


def one_image() -> tuple[torch.Tensor, torch.Tensor]:
    """Return case a: one image without padding."""
    image = np.random.RandomState(1).uniform(-1, 1, (1, 3, 160, 224))
    return torch.from_numpy(image), torch.zeros(1, 160, 224, dtype=torch.bool)


@torch.no_grad()
def golden_logits(images, mask) -> np.ndarray:
    tokens, caption_mask = (torch.from_numpy(GOLDEN[key][: len(images)]) for key in ("tokens", "caption_mask"))
    return golden_model()(images, mask, tokens, caption_mask).numpy()


@pytest.mark.slow
def test_logits_without_padding():
    logits = golden_logits(*one_image())
    assert reference.relative_error(logits[0, :12, :64], GOLDEN["a_logits"]) < 1e-9
    assert logits[0, :9].argmax(-1).tolist() == GOLDEN["a_argmax"].tolist()


@pytest.mark.slow
def test_logits_with_padding():
    images, mask = padded_images()
    logits = golden_logits(images, mask)
    assert reference.relative_error(logits[:, :14, :64], GOLDEN["b_logits"]) < 1e-9
    assert logits[:, :14].argmax(-1).tolist() == GOLDEN["b_argmax"].tolist()


@pytest.mark.slow
def test_greedy():
    model, (image, mask) = golden_model(), one_image()
    tokens = catr.greedy(model, image, mask, max_length=13)
    assert tokens.shape == (1, 128)
    assert tokens[0, :13].tolist() == GOLDEN["a_greedy"].tolist()
    assert not tokens[0, 13:].any()
    with torch.no_grad():
        log_probs = model(image, mask, tokens, tokens == 0)[0, :12].log_softmax(-1)
    token_log_probs = log_probs.gather(-1, tokens[0, 1:13, None])[:, 0].numpy()
    assert reference.relative_error(token_log_probs, GOLDEN["a_greedy_logprob"]) < 1e-9


@pytest.fixture
def tiny() -> catr.Caption:
    torch.manual_seed(0)
    small = dict(depths=(1, 1, 1, 2), backbone_width=4, width=16, heads=2, layers=2, hidden=24, head_hidden=24)
    return catr.Caption(**small, vocabulary=30, positions=9).eval()


def test_the_end_token_stops_and_is_not_written(tiny):
    image, mask = torch.rand(1, 3, 32, 48), torch.zeros(1, 32, 48, dtype=torch.bool)
    with torch.no_grad():
        tiny.mlp.layers[2].bias[7] = 100.0
    without_end = catr.greedy(tiny, image, mask, max_length=5, start=1, end=None)
    assert without_end.tolist() == [[1, 7, 7, 7, 7, 0, 0, 0, 0]]
    assert catr.greedy(tiny, image, mask, max_length=5, start=1, end=7).tolist() == [[1] + [0] * 8]


def test_a_shorter_caption_gives_the_same_logits(tiny):
    image, mask = torch.rand(1, 3, 32, 48), torch.zeros(1, 32, 48, dtype=torch.bool)
    tokens = torch.tensor([[1, 5, 3, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        full = tiny(image, mask, tokens, tokens == 0)[:, :3]
        short = tiny(image, mask, tokens[:, :3], tokens[:, :3] == 0)
    torch.testing.assert_close(short, full)
