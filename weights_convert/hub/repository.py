"""Repositories of the Hugging Face hub, by huggingface_hub: hf:owner/name.

The library keeps them in a folder of this library's cache, resumes broken downloads and compares hashes itself.
Weights are fetched in one format only, with the config files that tell what arrays can't.
"""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from vit_jax import InputError
from weights_convert.formats.readers import WEIGHTS as WEIGHTS_FILES

PREFIX = "hf:"
CONFIG_FILES = ("config.json", "preprocessor_config.json", "open_clip_config.json")
# Best first; a repository has one file, or several with an index.
WEIGHTS = (
    r"model.*\.safetensors(\.index\.json)?",
    r"open_clip_model\.safetensors",
    r"pytorch_model.*\.bin(\.index\.json)?",
    r"open_clip_pytorch_model\.bin",
)


def fetch_repository(name: str, cache: Path, *, offline: bool = False) -> Path:
    """The folder of a repository in the cache: its config files and weights, downloaded if they are not there.

    name: "hf:owner/name", or "hf:owner/name@revision". $HF_ENDPOINT and $HF_TOKEN are huggingface_hub's own.
    Raises InputError when the name is none, huggingface_hub is missing, or the repository can't be had.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name.removeprefix(PREFIX))
    if found is None:
        raise InputError(f"{name}: not a repository; give hf:owner/name, or hf:owner/name@revision")
    hub = _library()
    options = dict(revision=found[2], cache_dir=cache / "hub")
    if offline:
        return _cached(hub, name, found[1], options)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        about = hub.HfApi(endpoint=endpoint).model_info(found[1], revision=found[2])
        wanted = _wanted([file.rfilename for file in about.siblings])
        return Path(hub.snapshot_download(found[1], endpoint=endpoint, allow_patterns=wanted, **options))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(f"{name}: {' '.join(str(error).split())[:200]}") from error


def _cached(hub: Any, name: str, repository: str, options: dict[str, Any]) -> Path:
    """The folder that an earlier download of the repository made."""
    for weights in WEIGHTS_FILES:
        for file in (f"{weights}.index.json", weights):
            path = hub.try_to_load_from_cache(repository, file, **options)
            if isinstance(path, str):
                return Path(path).parent
    raise InputError(f"{name} is not in the cache and the network is forbidden; fetch it once with the network")


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError("hf:owner/name needs huggingface_hub: pip install 'vit-jax[hub]'") from error


def _wanted(files: list[str]) -> list[str]:
    """The files to fetch of those that a repository has. Raises InputError when none are weights."""
    for pattern in WEIGHTS:
        weights = [file for file in files if re.fullmatch(pattern, file)]
        if weights:
            return [*weights, *(file for file in files if file in CONFIG_FILES)]
    raise InputError(f"a repository without weights that this library reads; it has {', '.join(sorted(files)[:8])}")
