"""`kill -9` at any moment loses at most the unfinished step: the run started again ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from facviz import open_workspace
from facviz.cli import main
from facviz.config import load_run_config
from facviz.errors import SaeError
from facviz.files import read_lines
from facviz.pipeline.run import run_loop
from facviz.pipeline.session import Session
from facviz.sae.checkpoint import load_state
from facviz.store.workspace import Workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.workspaces import make_planted_run

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120
N_RANDOM_KILLS = 5
TRAINED_SAE = """\
d_sae = 64
k = 4
batch_tokens = 32
epochs = 20
"""


@dataclass
class Life:
    """One process of the run: how it ended, and the steps its checkpoint had at first and at least."""

    exitcode: int
    resumed_at: int
    fewest_steps: int


@dataclass
class Outcome:
    """Workspace and result of a run, with the killed processes it took."""

    workspace: Workspace
    result: dict
    lives: list[Life] = field(default_factory=list)


class Killer:
    """Starts `facviz run` again and again in one workspace, and kills it when a condition holds.

    The processes come from a server that has imported everything once; only the last one starts from nothing.
    """

    def __init__(self, config: Path, workspace: Path) -> None:
        self.workspace = workspace
        self.arguments = ["run", str(config), "--workspace", str(workspace), "--json"]
        self.lives: list[Life] = []
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["facviz.testing.workspaces", "facviz.activations", "facviz.llm.local"])

    def n_lines(self) -> int:
        """Durable entries so far: finished shards and stages, and batches of candidates."""
        logs = [self.workspace / "tables" / "manifest.jsonl", *self.workspace.glob("synthesis/*.jsonl")]
        logs += self.workspace.glob("activations/*/shards.jsonl")
        return sum(log.read_bytes().count(b"\n") for log in logs if log.exists())

    def trained_steps(self) -> int:
        """Steps in the checkpoint; 0 before the first and after the last."""
        for path in self.workspace.glob("sae/*/checkpoint.safetensors"):
            with contextlib.suppress(SaeError, RuntimeError):  # gone since it was listed: training has ended
                return load_state(path).step
        return 0

    def kill_when(self, holds, delay: float = 0.0) -> None:
        """One life that ends by SIGKILL, `delay` seconds after `holds()` first does."""
        seen = [self.trained_steps()]
        process = self._server.Process(target=main, args=([*self.arguments, "--quiet"],))
        process.start()
        give_up = time.monotonic() + DEADLINE_SECONDS
        while not holds() and process.is_alive() and time.monotonic() < give_up:
            seen.append(self.trained_steps())
            time.sleep(0.002)
        time.sleep(delay)
        process.kill()
        process.join()
        self.lives.append(Life(process.exitcode, seen[0], min(seen)))

    def finish(self) -> dict:
        """The last life, a whole new interpreter; the JSON object it prints."""
        command = [sys.executable, "-m", "facviz", *self.arguments]
        ended = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The planted run with an SAE trained on the spot, in small shards and steps."""
    path = make_planted_run(tmp_path_factory.mktemp("kill"))
    text = path.read_text(encoding="utf-8").replace('path = "models/sae"\n', TRAINED_SAE)
    text = text.replace("[capture]\n", "[capture]\nshard_docs = 16\n").replace(
        "[synthesis]\n", "[synthesis]\nmax_features = 8\n"
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(config):
    """The run without interruption."""
    loaded = load_run_config(config)
    workspace = Workspace.create(config.parent / "whole")
    with workspace.lock():
        return Outcome(workspace, run_loop(Session(workspace, loaded.backbone, SilentProgress()), loaded))


@pytest.fixture(scope="module")
def killed(config):
    """The run killed at fixed places and at random ones, then left to end."""
    killer, rng = Killer(config, config.parent / "killed"), random.Random(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        killer.kill_when(lambda: killer.n_lines() >= 1)
        killer.kill_when(lambda: killer.trained_steps() >= 100)
        killer.kill_when(lambda: killer.trained_steps() >= 250, delay=rng.uniform(0, 0.05))
        for _ in range(N_RANDOM_KILLS):
            enough = killer.n_lines() + rng.randint(1, 6)  # counted, for a fast machine may be done in any time
            killer.kill_when(lambda enough=enough: killer.n_lines() >= enough, delay=rng.uniform(0, 0.02))
        known = killer.n_lines()
        killer.kill_when(lambda: killer.n_lines() >= known + 3)
        return Outcome(open_workspace(killer.workspace), killer.finish(), killer.lives)


def candidates_of(outcome):
    with outcome.workspace.reader() as reader:
        return reader.rows("candidates", synth_id=outcome.result["synthesis"]["synth_id"])


def weights_of(outcome) -> bytes:
    folder = outcome.workspace.sae_folder(outcome.result["sae"]["sae_id"]) / "weights"
    return (folder / "sae_weights.safetensors").read_bytes()


def test_the_run_was_really_killed_every_time(killed):
    assert [life.exitcode for life in killed.lives] == [-signal.SIGKILL] * (4 + N_RANDOM_KILLS)


def test_a_killed_run_ends_with_the_result_of_an_uninterrupted_one(whole, killed):
    for told in (whole.result, killed.result):
        told.pop("seconds", None)
        told.pop("workspace", None)
    assert killed.result == json.loads(json.dumps(whole.result))


def test_training_goes_on_from_its_checkpoint_to_the_same_bytes(whole, killed):
    again, after = killed.lives[2], killed.lives[3]
    assert again.fewest_steps == again.resumed_at >= 100
    assert after.resumed_at >= 250
    assert weights_of(killed) == weights_of(whole)
    assert list(killed.workspace.root.glob("sae/*/checkpoint*")) == []


def test_features_spans_and_samples_are_the_same_rows(whole, killed):
    for table in ("features", "explanations", "coverage", "samples"):
        rows = [repr(getattr(outcome.workspace, table)().to_pylist()) for outcome in (whole, killed)]
        assert rows[0] == rows[1], table
    missing = [r["feature_id"] for r in candidates_of(whole)]
    for feature in set(missing):
        assert killed.workspace.spans(feature).equals(whole.workspace.spans(feature))


def test_every_candidate_is_there_once_with_the_same_id_text_and_verdict(whole, killed):
    expected, found = candidates_of(whole), candidates_of(killed)
    assert found == expected
    assert len({c["candidate_id"] for c in found}) == len(found) == killed.result["synthesis"]["n_candidates"]
    [ledger] = (killed.workspace.root / "synthesis").glob("*.jsonl")
    batches = [(entry["feature_id"], entry["step"], entry["round"]) for entry in read_lines(ledger)]
    assert len(batches) == len(set(batches))
    assert sum(len(entry["candidates"]) for entry in read_lines(ledger)) == len(found)


def test_no_shard_is_torn_and_none_is_counted_twice(whole, killed):
    for path in (killed.workspace.root / "tables").rglob("*.parquet"):
        assert pq.read_table(path).num_rows >= 0
    counts = []
    for outcome in (whole, killed):
        shards = outcome.workspace.manifest.live_shards()
        counts.append({table: sum(pq.read_metadata(p).num_rows for p in paths) for table, paths in shards.items()})
    assert counts[0] == counts[1]
