"""From a backbone's name to a local folder of model files, and that folder's identity. Loads no weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from facviz.backbone.packaged import MARKER, cache_root, converted_folder, packaged_folder
from facviz.backbone.quiet import one_line, quiet
from facviz.errors import BackboneError
from facviz.files import user_path

_TEXT_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16


def locate(name: str, *, with_weights: bool = True) -> Path:
    """Folder holding config, tokenizer and (if wanted) safetensors of `default`, a folder, a GGUF file or a hub id."""
    if name == "default":
        return packaged_folder()
    path = user_path(name) if name.startswith("~") else Path(name)
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == ".gguf":
        return converted_folder(path)
    if path.exists():
        raise BackboneError(f"{name} is neither a folder nor a .gguf file; give the folder that holds config.json.")
    if _looks_like_path(name):
        raise BackboneError(
            f"There is no folder or GGUF file {name}; check the path, or give a hub id such as owner/model."
        )
    return _hub_folder(name, with_weights)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") > 1 or "\\" in name


def _hub_folder(name: str, with_weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = [*_TEXT_FILES, *(["*.safetensors"] if with_weights else [])]
    try:
        with quiet():  # sub-folders hold the same weights again in other formats
            return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError as error:
        raise BackboneError(f"{name} is gated: accept its licence on the hub, then run `hf auth login`.") from error
    except LocalEntryNotFoundError as error:
        raise BackboneError(
            f"The hub cannot be reached and {name} is not in its local cache; go online once, or give a local folder."
        ) from error
    except RepositoryNotFoundError as error:
        raise BackboneError(f"The hub has no model {name}; check the name, or give a local folder.") from error
    except Exception as error:  # the hub client passes on its HTTP library's errors
        raise BackboneError(
            f"{name} cannot be had from the hub ({one_line(error)}); check name and network, or give a local folder."
        ) from error


def identity_of(folder: Path) -> str:
    """16 hex characters naming config, tokenizer and weights: other weights under the same name differ.

    Of each safetensors file the size and 64 evenly spaced blocks of 64 KiB (first and last included) are read: cheap,
    and any training run changes them. A converted GGUF is named by its source file: one identity on every machine.
    """
    marker = folder / MARKER
    if marker.is_file() and folder.is_relative_to(cache_root()):  # a copy elsewhere may hold other weights
        parts = ["gguf", json.loads(marker.read_text(encoding="utf-8"))["source_sha256"]]
    else:
        parts = [_config_text(folder), *(_sampled(path) for path in sorted(folder.glob("*.safetensors")))]
        tokenizer = folder / "tokenizer.json"
        parts.append(hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else "")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _config_text(folder: Path) -> str:
    """The config without what only says where and by which version it was saved."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return json.dumps(
        {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}, sort_keys=True
    )


def _sampled(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(f"{path.name}:{size}".encode())
    last = max(size - _SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(last * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
