"""Opens the exports of `interop.py` with SAELens and writes how far it differs: run by SAELens' interpreter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from sae_lens import SAE


@torch.no_grad()
def differences(case: Path, x: torch.Tensor) -> dict[str, float]:
    """Largest absolute differences between SAELens' features and reconstructions and those stored, and its L0."""
    sae = SAE.load_from_disk(str(case), device="cpu")
    features = sae.encode(x)
    return {
        "features": _largest(features, case / "features.npy"),
        "reconstruction": _largest(sae.decode(features), case / "reconstruction.npy"),
        "l0": float((features > 0).sum()) / len(x),
    }


def _largest(found: torch.Tensor, stored: Path) -> float:
    return float((found - torch.from_numpy(np.load(stored))).abs().max())


def main() -> None:
    folder, n_cases = Path(sys.argv[1]), int(sys.argv[2])
    x = torch.from_numpy(np.load(folder / "x.npy"))
    opened = [differences(folder / str(number), x) for number in range(n_cases)]
    (folder / "opened.json").write_text(json.dumps(opened), encoding="utf-8")


if __name__ == "__main__":
    main()
