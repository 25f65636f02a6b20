"""SAEs from the Hugging Face hub: one folder or file of a repository, and of that only what can be an SAE's."""

from __future__ import annotations

import re
from pathlib import Path

from facviz.errors import SaeError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+")
_ENDINGS = (".json", ".safetensors", ".npz", ".pt", ".pth")


def is_hub_name(name: str) -> bool:
    """Whether `name` reads as `owner/repo`, perhaps with a path inside it."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def fetch(name: str) -> Path:
    """Local path of `owner/repo`, `owner/repo/folder` or `owner/repo/folder/file.npz`, fetched unless it is cached.

    Of a repository only the files at its top come, of a folder those in it and one level below, of a file it and the
    JSON beside it.

    Raises:
        SaeError: the hub cannot be reached, has no such thing, or wants a licence accepted first.
    """
    if not is_hub_name(name):
        raise SaeError(f"{name!r} is no hub name; write owner/repo or owner/repo/folder.")
    owner, repo, *inside = name.split("/")
    allowed, ignored = _patterns("/".join(inside))
    found = _snapshot(f"{owner}/{repo}", name, allowed, ignored).joinpath(*inside)
    if not found.exists():
        raise SaeError(f"There is no SAE at {name}: the hub's {owner}/{repo} has no such file or folder; check it.")
    return found


def _patterns(inside: str) -> tuple[list[str], list[str]]:
    """What to fetch and, as `*` matches across folders, what not."""
    if inside.endswith(_ENDINGS):
        folder = inside.rpartition("/")[0]
        prefix = f"{folder}/" if folder else ""
        return [inside, f"{prefix}*.json"], [f"{prefix}*/*"]
    prefix, below = (f"{inside}/", "*/*/*") if inside else ("", "*/*")
    return [f"{prefix}*{ending}" for ending in _ENDINGS], [f"{prefix}{below}"]


def _snapshot(repo: str, name: str, allowed: list[str], ignored: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repo, allow_patterns=allowed, ignore_patterns=ignored))
    except GatedRepoError as error:
        raise SaeError(f"{repo} is gated: accept its licence on the hub, then run `hf auth login`.") from error
    except LocalEntryNotFoundError as error:
        raise SaeError(
            f"There is no SAE at {name}, and the hub cannot be reached for {repo}; check the path or go online."
        ) from error
    except RepositoryNotFoundError as error:
        raise SaeError(f"There is no SAE at {name}, neither here nor on the hub; check the name.") from error
    except Exception as error:  # the hub client passes on its HTTP library's errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise SaeError(f"{name} cannot be had from the hub ({reason}); check name and network.") from error
