"""Scenes: reproducible, one correct caption each, complete shapes where the caption says, disjoint splits."""

import numpy as np
import pytest

from caption.data.scenes import COLOURS, RELATIONS, SHAPES, SPLITS, contents, coverage, make_scene, scene_captions
from caption.tokenizer import build_vocabulary
from vit_jax import InputError

SOME = [make_scene(0, index, split=split) for split in SPLITS for index in range(150)]


def test_a_scene_is_a_function_of_seed_index_and_split():
    first, again = make_scene(3, 7), make_scene(3, 7)
    np.testing.assert_array_equal(first.image, again.image)
    assert first.caption == again.caption
    for other in (make_scene(4, 7), make_scene(3, 8), make_scene(3, 7, split="val")):
        assert (other.image != first.image).any()
    assert (make_scene(0, 5).image.shape, make_scene(0, 5, size=96).image.shape) == ((64, 64, 3), (96, 96, 3))


def test_scenes_stay_the_same_from_version_to_version():
    shown = ["A yellow circle above a purple cross.", "An orange cross right of a blue circle.", "A green square."]
    assert [make_scene(0, index).caption for index in range(3)] == shown


def test_no_caption_is_in_both_splits_and_every_word_is_in_training():
    train, val = scene_captions("train"), scene_captions("val")
    assert not set(train) & set(val)
    assert len(train) + len(val) == len(set(train + val)) == 24 + 24 * 23 * 4
    assert 0.15 < len(val) / (len(train) + len(val)) < 0.25
    pairs = contents("train")[1]
    assert {c.first for c in pairs} == {c.second for c in pairs}
    assert len({c.first for c in pairs}) == len(COLOURS) * len(SHAPES)
    assert {(c.first, c.relation) for c in pairs} == {(c.first, r) for c in pairs for r in RELATIONS}
    assert {s.caption for s in SOME[:150]} <= set(train)
    assert {s.caption for s in SOME[150:]} <= set(val)


def test_the_regions_are_the_shapes_that_the_caption_names(tmp_path):
    tokenizer = build_vocabulary(scene_captions("train"), tmp_path / "v.txt")
    assert tokenizer.vocab_size == 5 + len(COLOURS) + len(SHAPES) + 8  # a an . above below left right of
    for scene in SOME:
        ids = tokenizer.encode(scene.caption)
        assert tokenizer.decode(ids) == scene.caption
        split, words = scene.caption.rstrip(".").split(), [word for word, _ in tokenizer.words(ids)]
        assert [position for position, word in enumerate(split) if word in SHAPES] == list(scene.regions)
        seen = np.zeros(scene.image.shape[:2], bool)
        for position, region in scene.regions.items():
            assert words[position] == split[position]
            colour = scene.image[region].astype(int).mean(axis=0)
            nearest = min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - colour).sum())
            assert nearest == split[position - 1]
            edge = np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]])
            assert not edge.any()
            assert region.sum() > 70
            assert not (seen & region).any()
            seen |= region
        assert np.ptp(scene.image[~seen].astype(int), axis=-1).max() < 190  # the background is grey, but for edges


def test_the_larger_shape_comes_first_and_is_where_the_caption_says():
    for scene in SOME:
        if len(scene.regions) == 1:
            continue
        (first, second) = scene.regions.values()
        assert first.sum() > 1.5 * second.sum(), scene.caption
        (y, x), (v, u) = (np.argwhere(region).mean(axis=0) for region in (first, second))
        right, down = RELATIONS[next(name for name in RELATIONS if f" {name} " in scene.caption)]
        distance = (x - u) * right + (y - v) * down
        shift = abs((x - u) * down) + abs((y - v) * right)
        assert distance > 1.5 * shift, scene.caption


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_smooth_edges_and_like_areas(shape):
    cover = coverage(shape, 30.3, 31.7, 20.0, 64)
    assert 0 <= cover.min() <= cover.max() == 1
    assert ((cover > 0) & (cover < 1)).sum() > 20
    assert 1.6 < cover.sum() / 20**2 < 2.5
    rows, columns = np.nonzero(cover > 0.5)
    np.testing.assert_allclose((rows.mean(), columns.mean()), (31.7, 30.3), atol=4)


def test_wrong_requests():
    with pytest.raises(InputError, match="no split 'test': one of train, val"):
        make_scene(0, 0, split="test")
    with pytest.raises(InputError, match="0 or more, not 0 and -1"):
        make_scene(0, -1)
    with pytest.raises(InputError, match="32 pixels per side or more, not 16"):
        make_scene(0, 0, size=16)
