"""Shared by all tests: no network, one thread, fresh processes, and the planted model whose answers are known."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

REPOSITORY = Path(__file__).resolve().parents[1]
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}


def refuse_outside(host: object) -> None:
    if host not in LOOPBACK:
        raise RuntimeError(f"A test reached for {host} on the network; tests run offline.")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Anything but loopback and Unix sockets fails loudly."""
    real_connect, real_connect_ex, real_getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded(real):
        def connect(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse_outside(address[0])
            return real(self, address)

        return connect

    def getaddrinfo(host, *args, **kwargs):
        refuse_outside(host)
        return real_getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(real_connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(real_connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def only_packaged_tasks():
    """Tasks of a workspace that one test opened are no other test's."""
    from facviz.prompts import use_tasks

    yield
    use_tasks(None)


@pytest.fixture
def start_python():
    """Start a fresh interpreter on a program text; whatever still runs when the test ends is stopped."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object, cwd: Path = REPOSITORY) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_python(start_python):
    """Run a program text to its end in a fresh interpreter; its standard output."""

    def run(program: str, *arguments: object, cwd: Path = REPOSITORY, timeout: float = 120) -> str:
        process = start_python(program, *arguments, cwd=cwd)
        output, errors = process.communicate(timeout=timeout)
        assert process.returncode == 0, errors
        return output.strip()

    return run


@pytest.fixture(scope="session")
def planted_folder(tmp_path_factory):
    """Folders of the planted backbone and SAE as a user would have them on disk."""
    from facviz.backbone.quiet import quiet
    from facviz.testing.planted import save_planted

    with quiet():
        return save_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted_backbone(planted_folder):
    """Loaded from its folder."""
    from facviz.backbone import load_backbone
    from facviz.testing.planted import LAYER

    return load_backbone(str(planted_folder[0]), LAYER)


@pytest.fixture(scope="session")
def planted_sae(planted_folder):
    """Loaded from its folder."""
    from facviz.sae.formats import load_sae

    return load_sae(planted_folder[1])


@pytest.fixture
def planted_encoder(planted_backbone, planted_sae):
    """Both, joined; batches of at most 64 padded tokens."""
    from facviz.activations import SaeEncoder
    from facviz.config import BackboneConfig

    return SaeEncoder(planted_backbone, planted_sae, config=BackboneConfig(batch_tokens=64))


@pytest.fixture(scope="session")
def planted_loop(tmp_path_factory):
    """Folder of a finished planted loop: models, corpus, `planted.toml` and `workspace`; shared, so read only."""
    from facviz.testing.workspaces import make_workspace

    folder = tmp_path_factory.mktemp("loop")
    make_workspace(folder)
    return folder


@pytest.fixture
def loop_copy(planted_loop, tmp_path):
    """A copy of that folder that a test may change; its models are the shared ones."""
    import shutil

    for name in ("anchor.jsonl", "planted.toml"):
        shutil.copy(planted_loop / name, tmp_path)
    shutil.copytree(planted_loop / "workspace", tmp_path / "workspace")
    (tmp_path / "models").symlink_to(planted_loop / "models")
    return tmp_path


@pytest.fixture
def evaluation_summary():
    """An evaluation as its stage reports it, with numbers that a person can check in the words made of them."""

    def arm(name, auprc, gain=None, probe=None, **more):
        n = 0 if name == "seed" else 31
        base = {"arm": name, "n_available": 40, "n_train": 186, "n_positive": n, "n_distinct_positive": n}
        base |= {"n_negative": 155, "n_added": n, "auprc": auprc, "low": auprc - 0.02, "high": auprc + 0.02}
        base |= {"by_seed": [auprc], "gain": gain, "strengths": [0.1], "is_trained": name != "seed", "probe": probe}
        return base | {"mixed": None, "fac": 0.84, "missing_coverage": 0.0} | more

    def gain(value):
        return {"value": value, "low": value - 0.02, "high": value + 0.02, "share_above": 1.0}

    def probe(auroc):
        return {
            "auroc": auroc,
            "lowest": auroc - 0.05,
            "highest": auroc + 0.05,
            "n_each": 31,
            "against": "real texts of the positive class",
        }

    def point(name, n, auprc, fac, missing):
        bounds = {"low": auprc - 0.02, "high": auprc + 0.02}
        return {"arm": name, "n_added": n, "auprc": auprc, "fac": fac, "missing_coverage": missing} | bounds

    return {
        "eval_id": "e" * 12,
        "task": "topic",
        "coverage_id": "c" * 12,
        "sae_id": "s" * 12,
        "anchor": "messages",
        "seed": "workday",
        "gold": "messages",
        "test": "messages",
        "is_split": True,
        "positive": ["trips", "recipes"],
        "backbone": "default",
        "layer": 15,
        "n_test": 632,
        "n_test_positive": 332,
        "prevalence": 0.5253,
        "n_exact_duplicates": 141,
        "n_near_duplicates": 22,
        "n_other_themes": 0,
        "n_added": 31,
        "n_positive": 31,
        "n_negative": 155,
        "n_generated_negative": 0,
        "n_seed_positive": 0,
        "n_seeds": 5,
        "rng_seed": 0,
        "n_bootstrap": 1000,
        "arms": [
            arm("seed", 0.5253),
            arm("paper", 0.9485, gain(0.4231), probe(0.73), fac=0.9952, missing_coverage=0.97),
            arm("unverified", 0.9205, gain(0.3952), probe(0.93), fac=0.9527, missing_coverage=0.703),
            arm("gold", 0.9727, gain(0.4474), probe(0.51), fac=0.9778, missing_coverage=0.86),
        ],
        "ceiling": {"n_train": 922, "auprc": 0.9833, "low": 0.9754, "high": 0.9903},
        "frontier": [
            point("paper", 15, 0.945, 0.971, 0.8182),
            point("paper", 31, 0.9485, 0.9952, 0.97),
            point("gold", 15, 0.9601, 0.9517, 0.697),
            point("gold", 31, 0.9727, 0.9778, 0.8606),
        ],
        "correlation": [
            {"over": "arms", "without": [], "n": 4, "r": 0.979, "low": 0.298, "high": 0.9996},
            {"over": "arms", "without": ["gold"], "n": 3, "r": 0.978, "low": None, "high": None},
            {"over": "sizes", "without": ["gold", "seed"], "n": 1, "r": None, "low": None, "high": None},
        ],
        "versions": {"facviz": "0.1.0", "scikit-learn": "1.9.1", "evaluation": 1},
        "seconds": 29.4,
        "left_out": [],
    }
