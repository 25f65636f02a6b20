"""Fingerprints name results: same fingerprint, same answer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

FINGERPRINT_VERSION = 1


def fingerprint(*parts: object) -> str:
    """16 hex characters naming a result by everything it follows from: configs, upstream fingerprints, versions."""
    canonical = json.dumps([FINGERPRINT_VERSION, [_canonical(p) for p in parts]], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _canonical(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if _counts(f, getattr(value, f.name))]
        return {f.name: _canonical(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    return value


def _counts(f: dataclasses.Field[object], value: object) -> bool:
    if value == f.default and not f.metadata.get("fingerprint_default", True):
        return False
    return bool(f.metadata.get("fingerprint", True))
