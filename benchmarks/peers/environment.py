"""One virtual environment per peer, with pinned versions and our own version of torch; a failure becomes a reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MARKER = "facviz-peer.txt"
_REASON_CHARACTERS = 300
_ERROR = re.compile(r"[\w.]*(Error|Exception)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A library to train with; `module` is imported to see whether it works, `child` is run by its interpreter."""

    name: str
    requirement: str
    module: str
    child: str
    without: tuple[str, ...] = ()
    """Packages it pulls in, does not use here, and that break it."""


PEERS = {
    peer.name: peer
    for peer in (
        Peer("sae-lens", "sae-lens==6.54.12", "sae_lens", "benchmarks.peers.saelens_peer"),
        Peer(
            "dictionary-learning",
            "dictionary-learning==0.1.0",
            "dictionary_learning.training",
            "benchmarks.peers.dictionary_learning_peer",
            without=("torchvision",),  # built for another torch, and transformers fails on it
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Environment:
    """The interpreter of a peer, or why there is none."""

    python: Path | None
    reason: str = ""


def python_of(folder: Path) -> Path:
    """The interpreter of the virtual environment in `folder`."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def commands(peer: Peer, folder: Path, torch_version: str) -> list[list[str]]:
    """What builds the environment, in order; a torch build like `+cpu` comes from the index of such builds."""
    pip = [str(python_of(folder)), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet"]
    build = torch_version.partition("+")[2]
    index = ["--extra-index-url", f"https://download.pytorch.org/whl/{build}"] if build else []
    torch = f"torch=={torch_version}"
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [*install, *index, torch],
        [*install, torch, peer.requirement],
    ]
    if peer.without:
        steps.append([*pip, "uninstall", "--quiet", "--yes", *peer.without])
    return steps


def prepare(peer: Peer, root: Path, torch_version: str) -> Environment:
    """The environment under `root`, built if it is not there in these versions; never raises for what a peer does."""
    folder = root / peer.name
    marker, built = folder / _MARKER, f"{peer.requirement} torch=={torch_version}\n"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != built:
        for command in commands(peer, folder, torch_version):
            if reason := failure(command):
                return Environment(None, f"could not be installed: {reason}")
        marker.write_text(built, encoding="utf-8")
    if reason := failure([str(python_of(folder)), "-c", f"import {peer.module}"]):
        return Environment(None, f"could not be imported: {reason}")
    return Environment(python_of(folder))


def failure(command: Sequence[str]) -> str:
    """Run a command of a peer from the repository's root: empty, or the last thing it said before it failed."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=quiet(os.environ), capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return str(error)[:_REASON_CHARACTERS]
    return "" if done.returncode == 0 else last_words(done.stderr or done.stdout, done.returncode)


def last_words(output: str, status: int) -> str:
    """The last line that names an error, else the last at all, bounded; the exit status where nothing was said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]  # torch goes on for a page after it
    return (named or lines)[-1][:_REASON_CHARACTERS] if lines else f"exit status {status}"


def quiet(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment without our packages, and with everything that would go online switched off."""
    kept = {key: value for key, value in environment.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PYTHONDONTWRITEBYTECODE": "1"}
