"""Repositories of the Hugging Face hub, hf:owner/name, through the huggingface_hub library.

The library keeps them in a folder of this library's cache, resumes broken downloads and checks hashes itself. Weights
are downloaded in one format only, with the sidecar configs.
"""

import importlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vit_jax import InputError
from weights_convert.formats.folders import WEIGHTS as WEIGHTS_FILES

PREFIX = "hf:"
CONFIG_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip
# Best first; a repository has one file, or shards with an index.
WEIGHTS = (
    r"model.*\.safetensors(\.index\.json)?",
    r"open_clip_model\.safetensors",
    r"pytorch_model.*\.bin(\.index\.json)?",
    r"open_clip_pytorch_model\.bin",
)


def fetch_repository(name: str, cache: Path, *, offline: bool = False, files: Collection[str] = CONFIG_FILES) -> Path:
    """Return the folder of a repository in the cache, after downloading its weights and small files if necessary.

    name:  "hf:owner/name", or "hf:owner/name@revision". huggingface_hub reads $HF_ENDPOINT and $HF_TOKEN.
    files: the files next to the weights to download, as far as the repository has them.

    Raises InputError if the name is malformed, huggingface_hub is missing or the download fails.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name.removeprefix(PREFIX))
    if match is None:
        raise InputError(f"{name}: not a repository; give hf:owner/name, or hf:owner/name@revision")
    repository, revision = match.groups()
    hub = import_hub("hf:owner/name")
    options = dict(revision=revision, cache_dir=cache / "hub")
    if offline:
        return _find_cached(hub, name, repository, options)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info = hub.HfApi(endpoint=endpoint).model_info(repository, revision=revision)
        selected = _select_files([file.rfilename for file in info.siblings], files)
        return Path(hub.snapshot_download(repository, endpoint=endpoint, allow_patterns=selected, **options))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except hub.errors.GatedRepoError as error:
        page = f"{endpoint or 'https://huggingface.co'}/{repository}"
        raise InputError(
            f"{name}: gated: accept its licence at {page}, then set HF_TOKEN to a token of that account"
        ) from error
    except list_network_errors(hub) as error:
        problem = " ".join(str(error).split())[:200]
        is_unknown = isinstance(error, (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError))
        raise InputError(f"{name}: {problem}{'' if is_unknown else '; check the network and try again'}") from error


def _find_cached(hub: Any, name: str, repository: str, options: dict[str, Any]) -> Path:
    """Return the folder of an earlier download. Raises InputError if there is none."""
    for weights in WEIGHTS_FILES:
        for file in (f"{weights}.index.json", weights):
            path = hub.try_to_load_from_cache(repository, file, **options)
            if isinstance(path, str):
                return Path(path).parent
    raise InputError(f"{name} is not in the cache and VIT_JAX_OFFLINE is set; fetch it once with the network")


def import_hub(purpose: str) -> Any:
    """Return the module huggingface_hub. Raises InputError, naming the purpose, if it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(f"{purpose} needs huggingface_hub: pip install 'vit-jax[hub]'") from error


def list_network_errors(hub: Any) -> tuple[type[Exception], ...]:
    """Return the errors of requests: huggingface_hub's own and its HTTP client's, whose name differs by version.

    HfHubHTTPError derives from the client's HTTPError, which the client also raises for a refused connection.
    """
    return (*hub.errors.HfHubHTTPError.__bases__, OSError, ValueError)


def _select_files(files: list[str], others: Collection[str]) -> list[str]:
    """Return the files of a repository to download: weights and `others`. Raises InputError if it has no weights."""
    for pattern in WEIGHTS:
        weights = [file for file in files if re.fullmatch(pattern, file)]
        if weights:
            return [*weights, *(file for file in files if file in others)]
    raise InputError(f"a repository without supported weights; it has {', '.join(sorted(files)[:8])}")
