"""The weights that a name of timm without a tag stands for.

timm names a checkpoint ARCHITECTURE.TAG and takes a default tag where none is given. This is that default, of timm
1.0.31, for the architectures of sidecar/timm_architectures.py whose weights are on the Hugging Face hub.
"""

# Default tag -> architectures.
_DEFAULTS = {
    "1200ep_in1k": "flexivit_base flexivit_large flexivit_small",
    "augreg2_in21k_ft_in1k": "vit_base_patch16_224 vit_base_patch8_224",
    "augreg_in21k_ft_in1k": (
        "vit_base_patch16_384 vit_base_patch32_224 vit_base_patch32_384 vit_large_patch16_224 "
        "vit_large_patch16_384 vit_small_patch16_224 vit_small_patch16_384 vit_small_patch32_224 "
        "vit_small_patch32_384 vit_tiny_patch16_224 vit_tiny_patch16_384"
    ),
    "c_radio": (
        "vit_base_patch16_radio_v3 vit_giant_patch16_radio_v3 vit_huge_patch16_radio_v3 vit_huge_patch16_radio_v4 "
        "vit_large_patch16_radio_v3 vit_so400m_patch16_radio_v4"
    ),
    "datacompxl": "vit_base_patch32_clip_256",
    "dfn2b": "vit_large_patch14_clip_quickgelu_224",
    "dfn5b": "vit_huge_patch14_clip_378 vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378",
    "dino": "vit_small_patch8_224",
    "fb_in1k": (
        "deit3_base_patch16_224 deit3_base_patch16_384 deit3_huge_patch14_224 deit3_large_patch16_224 "
        "deit3_large_patch16_384 deit3_medium_patch16_224 deit3_small_patch16_224 deit3_small_patch16_384 "
        "deit_base_distilled_patch16_224 deit_base_distilled_patch16_384 deit_base_patch16_224 "
        "deit_base_patch16_384 deit_small_distilled_patch16_224 deit_small_patch16_224 "
        "deit_tiny_distilled_patch16_224 deit_tiny_patch16_224"
    ),
    "in21k": "vit_base_patch16_224_miil",
    "in22k_ft_in22k_in1k": "eva_large_patch14_196 eva_large_patch14_336",
    "laion2b": "vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224",
    "laion2b_ft_in12k_in1k": (
        "vit_base_patch16_clip_224 vit_base_patch16_clip_384 vit_base_patch32_clip_224 vit_base_patch32_clip_384 "
        "vit_base_patch32_clip_448 vit_huge_patch14_clip_224 vit_huge_patch14_clip_336 vit_large_patch14_clip_224 "
        "vit_large_patch14_clip_336"
    ),
    "laion400m_e32": "vit_base_patch16_plus_clip_240 vit_base_patch32_clip_quickgelu_224",
    "lvd142m": (
        "vit_base_patch14_dinov2 vit_base_patch14_reg4_dinov2 vit_giant_patch14_dinov2 "
        "vit_giant_patch14_reg4_dinov2 vit_large_patch14_dinov2 vit_large_patch14_reg4_dinov2 "
        "vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2"
    ),
    "metaclip2_worldwide": "vit_gigantic_patch14_clip_378",
    "metaclip_2pt5b": "vit_base_patch16_clip_quickgelu_224 vit_gigantic_patch14_clip_quickgelu_224",
    "ogvl_dist": "vit_intern300m_patch14_448",
    "openai": "vit_large_patch14_clip_quickgelu_336",
    "orig_in21k": "vit_huge_patch14_224 vit_large_patch32_224",
    "orig_in21k_ft_in1k": "vit_large_patch32_384",
    "pali_mix": "vit_so400m_patch14_siglip_gap_448",
    "pali_pt": "vit_so400m_patch14_siglip_gap_896",
    "sbb2_e200_in12k_ft_in1k": (
        "vit_betwixt_patch16_reg4_gap_256 vit_betwixt_patch16_reg4_gap_384 vit_mediumd_patch16_reg4_gap_256 "
        "vit_mediumd_patch16_reg4_gap_384"
    ),
    "sbb_in12k_ft_in1k": "vit_little_patch16_reg1_gap_256 vit_medium_patch16_reg4_gap_256",
    "sbb_in1k": (
        "vit_betwixt_patch16_reg1_gap_256 vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg1_gap_256 "
        "vit_wee_patch16_reg1_gap_256"
    ),
    "sw_in12k": "vit_medium_patch16_gap_240",
    "sw_in12k_ft_in1k": "vit_medium_patch16_gap_256 vit_medium_patch16_gap_384",
    "tinyclip_laion400m": "vit_betwixt_patch32_clip_224 vit_medium_patch32_clip_224",
    "tinyclip_yfcc15m": "vit_medium_patch16_clip_224 vit_xsmall_patch16_clip_224",
    "v2_webli": (
        "vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384 "
        "vit_base_patch16_siglip_512 vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 "
        "vit_base_patch16_siglip_gap_384 vit_base_patch16_siglip_gap_512 vit_base_patch32_siglip_256 "
        "vit_base_patch32_siglip_gap_256 vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384 "
        "vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384 vit_large_patch16_siglip_256 "
        "vit_large_patch16_siglip_384 vit_large_patch16_siglip_512 vit_large_patch16_siglip_gap_256 "
        "vit_large_patch16_siglip_gap_384 vit_large_patch16_siglip_gap_512 vit_so400m_patch14_siglip_224 "
        "vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378 "
        "vit_so400m_patch16_siglip_256 vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512 "
        "vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384 vit_so400m_patch16_siglip_gap_512"
    ),
    "webli": (
        "vit_base_patch14_reg1_tipsv2 vit_giant_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2 "
        "vit_so400m_patch14_reg1_tipsv2 vit_so400m_patch14_siglip_384 vit_so400m_patch14_siglip_gap_384"
    ),
}
DEFAULT_TAGS = {name: tag for tag, names in _DEFAULTS.items() for name in names.split()}


def find_timm_repository(name: str) -> str | None:
    """Return the repository "timm/ARCHITECTURE.TAG" on the hub of a name of timm; None for another name."""
    architecture, _, tag = name.partition(".")
    if architecture not in DEFAULT_TAGS:
        return None
    # Both activations of a CLIP model have one repository, whose config.json states the activation.
    return f"timm/{architecture.replace('_clip_quickgelu_', '_clip_')}.{tag or DEFAULT_TAGS[architecture]}"
