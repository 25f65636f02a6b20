"""Replies by what was asked: a recorded reply is never requested, or paid for, again.

A request's identity is everything a reply follows from: provider, model, messages, schema, token limit, sampling, the
request's seed, and which of its replies it is. The seed is part of it even where a provider has no seeds, because that
is how a stage asks for another reply to the same words.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from facviz.errors import WorkspaceError
from facviz.files import write_text_atomically
from facviz.llm.adapter import Adapter
from facviz.records import LLMRequest

_HASH_VERSION = 1
_HASH = re.compile(r"[0-9a-f]{32}")


def request_hash(adapter: Adapter, request: LLMRequest, index: int) -> str:
    """32 hex characters naming reply `index` of a request to one model."""
    sampling = [request.temperature, request.top_p] if adapter.is_sampling else None
    parts = [
        [_HASH_VERSION, adapter.provider, adapter.model],
        [[m.role, m.content] for m in request.messages],
        request.schema,
        [request.max_tokens, sampling, request.rng_seed, index],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=dict).encode()).hexdigest()[:32]


class ReplyStore:
    """One small file a reply, `<root>/<hash[:2]>/<hash>.json`, written whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str) -> dict[str, Any] | None:
        """The recorded reply, or None."""
        path = self._path(key)
        try:
            reply = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"The reply {path} cannot be read ({error}); delete it to pay for it again."
            ) from error
        return reply if isinstance(reply, dict) else None

    def has(self, key: str) -> bool:
        """Whether the reply is recorded, without reading it."""
        return self._path(key).exists()

    def write(self, key: str, reply: dict[str, Any]) -> None:
        """Record a reply durably; text is ASCII-escaped, so that even half a surrogate pair survives."""
        write_text_atomically(self._path(key), json.dumps(reply))

    def _path(self, key: str) -> Path:
        if not _HASH.fullmatch(key):
            raise ValueError(f"{key!r} is no request hash.")
        return self._root / key[:2] / f"{key}.json"
