"""Upload a folder of a model to the Hugging Face hub, through the huggingface_hub library, in one commit."""

import os
import re
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.checkpoint import CONFIG, WEIGHTS
from vit_jax.json_files import read_json_object
from weights_convert.hub.repository import import_hub, list_network_errors

CARD = "README.md"
FEATURES = "image-feature-extraction"  # the hub's task of a model without a head
LIBRARIES = {"architectures": "transformers", "architecture": "timm", "format": "vit-jax"}  # by a field of config.json


def push_folder(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload the files of a saved model or of an exported folder; return the address of the commit.

    repository: "owner/name"; it is created if it does not exist. Its own model card, if it has one, stays.
    private:    whether a new repository is private.

    huggingface_hub reads $HF_ENDPOINT and $HF_TOKEN. Raises InputError for another folder, a malformed name, a missing
    token and an upload that fails.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is None:
        raise InputError(f"{repository}: not a repository; give owner/name")
    files = _list_files(folder)
    hub = import_hub("a push")
    if hub.get_token() is None:
        raise InputError("a push needs a token of the hub: set HF_TOKEN, or run `hf auth login`")
    try:
        return _upload(hub, files, repository, private)
    except list_network_errors(hub) as error:
        raise InputError(f"{repository}: not uploaded: {' '.join(str(error).split())[:200]}") from error


def write_card(config: dict[str, Any], repository: str) -> str:
    """Return a short model card, with the metadata that the hub reads.

    config: the contents of the folder's config.json.
    """
    library = next((name for field, name in LIBRARIES.items() if field in config), "vit-jax")
    is_captioner = str(config.get("format", "")).startswith("caption")
    task = "image-to-text" if is_captioner else "image-classification" if _has_classes(config) else FEATURES
    names = config.get("class_names") or config.get("label_names") or list((config.get("id2label") or {}).values())
    classes = f"\nClasses: {', '.join(map(str, names[:20]))}{', ...' if len(names) > 20 else ''}.\n" if names else ""
    head = f"---\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n- vit-jax\n---\n"
    title = f"# {repository.partition('/')[2]}"
    return f"{head}\n{title}\n\nA vision transformer, written by vit-jax for {library}.\n{classes}"


def _has_classes(config: dict[str, Any]) -> bool:
    """Return whether the model of a folder's config.json has a classification head."""
    architectures = config.get("architectures")
    if architectures:
        return any("Classification" in name for name in architectures)
    settings = config.get("config", config)  # this library's file nests what timm's has at the top
    return bool(settings.get("num_classes"))


def _list_files(folder: Path) -> list[Path]:
    """Return the files of a folder with a model. Raises InputError for another folder."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: no {missing[0]}; give a saved model, or a folder of export --format folder")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _upload(hub: Any, files: list[Path], repository: str, private: bool) -> str:
    config = read_json_object(next(path for path in files if path.name == CONFIG))  # before a repository is created
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    api.create_repo(repository, private=private, exist_ok=True)
    operations = [hub.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
    if not any(path.name == CARD for path in files) and not api.file_exists(repository, CARD):
        card = write_card(config, repository).encode()
        operations.append(hub.CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card))
    return str(api.create_commit(repository, operations, commit_message="Upload a model of vit-jax").commit_url)
