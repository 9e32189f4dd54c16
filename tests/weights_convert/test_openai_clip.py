"""OpenAI's and open_clip's names, compared with the same arrays under Hugging Face's, which transformers verifies."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import tests.reference as reference
from tests.weights_convert.test_huggingface import make_original
from weights_convert import convert, export
from weights_convert._convert import convert_with_plan

pytestmark = pytest.mark.parity

NAMES = [
    (r"^vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"^vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"^vision_model\.post_layernorm", "visual.ln_post"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"visual.transformer.resblocks.\1."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
]


def rename_as_openai(arrays):
    """Return Hugging Face's CLIP image tower as OpenAI names and packs it, with a text tower."""
    renamed = {}
    for name, array in arrays.items():
        for pattern, new in NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = array
    renamed["visual.proj"] = renamed.pop("visual_projection.weight").T
    for i in range(2):
        block = f"visual.transformer.resblocks.{i}.attn."
        for kind in ("weight", "bias"):
            renamed[f"{block}in_proj_{kind}"] = np.concatenate([renamed.pop(f"{block}{p}_proj.{kind}") for p in "qkv"])
    text = {"positional_embedding": np.ones((5, 8)), "transformer.resblocks.0.ln_1.weight": np.ones(8)}
    return renamed | text | {"logit_scale": np.ones(())}


def test_the_same_arrays_give_the_same_model(x64, tmp_path):
    original = reference.state_arrays(make_original("CLIPVisionModelWithProjection"))
    arrays = rename_as_openai({name: array for name, array in original.items() if "position_ids" not in name})
    model = convert(arrays, num_heads=3)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(model), jax.tree.leaves(convert(original, num_heads=3)))
    back = export(model, layout="openai_clip")
    assert all(np.array_equal(array, arrays[name]) for name, array in back.items())
    assert {name for name in arrays if name.startswith("visual.")} == set(back)


def test_open_clips_config_states_the_activation(tmp_path):
    original = reference.state_arrays(make_original("CLIPVisionModelWithProjection").float())
    arrays = rename_as_openai({name: array for name, array in original.items() if "position_ids" not in name})
    save_file(
        {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()}, tmp_path / "open_clip_model.safetensors"
    )
    assert convert(tmp_path, num_heads=3).config.activation == "quick_gelu"
    vision = {"image_size": 32, "layers": 2, "width": 48, "patch_size": 8, "head_width": 16}
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "interpolation": "bicubic"}
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision}, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model, plan = convert_with_plan(tmp_path)
    assert (model.config.activation, model.config.num_heads) == ("gelu", 3)
    assert model.config.preprocess.mean == (0.4, 0.5, 0.6)
    assert model.config.preprocess.kernel == "bicubic"
    assert plan.settings.sources["activation"] == plan.settings.sources["mean"] == "open_clip_config.json"
