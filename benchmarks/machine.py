"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

_FLAGS = {"avx2": "avx2", "avx512f": "avx512_f", "avx512_bf16": "avx512_bf16", "amx_bf16": "amx_bf16"}


def describe_machine() -> dict[str, Any]:
    """Processor, the instruction sets that decide speed here, cores and threads, torch, and the recent load."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": _processor_name(),
        "flags": {name: bool(capabilities.get(key, False)) for name, key in _FLAGS.items()},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def machine_line(machine: dict[str, Any]) -> str:
    """What `describe_machine` found, for people."""
    flags = " ".join(name for name, present in machine["flags"].items() if present) or "none of the wide ones"
    return (
        f"{machine['processor']}, {machine['threads']} threads of {machine['cores']} cores, flags: {flags}\n"
        f"torch {machine['torch']}, load {machine['load_average']} at the start"
    )


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
