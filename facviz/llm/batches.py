"""Many requests handed in at once and fetched when they are done, at half the price: Anthropic's message batches.

The rules of the ledger hold. Every request is reserved at its worst (half) cost, then the batch is written down, then
it is handed in, and its id is on disk before anybody waits for it. A killed job finds its batches by their ids; one
whose id a kill kept from being written is looked for at the provider by the requests in it. So none is sent twice.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from facviz.errors import BudgetError, LLMError
from facviz.files import write_text_atomically
from facviz.llm.adapter import Answer, Failure, FailureKind
from facviz.llm.batch_state import BatchState
from facviz.llm.calls import PaidLLM, _Job
from facviz.llm.estimate import Estimate
from facviz.llm.ledger import Quote
from facviz.llm.prices import Price
from facviz.records import LLMReply, LLMRequest, Outcome

PRICE_FACTOR = 0.5
MAX_REQUESTS = 10_000
"""In one batch; the provider takes ten times as many, but then a lost one costs more to look for."""
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 2.0, 60.0
TYPICAL_SECONDS = 3600.0
"""Within which the provider says that most batches end; a day at most."""
MAX_SENDINGS = 3
"""Batches a request may be part of that ended without an answer to it."""
_CLOCK_SECONDS = 600.0  # by how much the provider's clock may run behind ours


class BatchAdapter(Protocol):
    """What a provider of batches offers; failures are returned, as by `Adapter.attempt`."""

    def create_batch(self, requests: Sequence[tuple[str, LLMRequest]]) -> BatchState | Failure:
        """Hand in requests by id."""

    def batch_state(self, batch_id: str) -> BatchState | Failure:
        """How far a batch is."""

    def recent_batches(self) -> list[BatchState] | Failure:
        """The newest batches of the account."""

    def batch_results(self, batch_id: str) -> Iterator[tuple[str, Answer | Failure]]:
        """Request id and what came of it, in any order."""


@dataclass(slots=True)
class _Batch:
    """One file under `llm/batches/`: which calls it holds, and its id once the provider gave one."""

    path: Path
    calls: dict[str, str]  # request hash → call id
    handed_in_at: float
    batch_id: str | None = None
    is_ended: bool = False

    def write(self) -> None:
        """On disk before this returns."""
        told = {"calls": self.calls, "handed_in_at": self.handed_in_at, "batch_id": self.batch_id}
        write_text_atomically(self.path, json.dumps(told | {"is_ended": self.is_ended}))


class BatchedLLM(PaidLLM):
    """A `PaidLLM` that hands all requests of a call in as batches; only for adapters that have them."""

    pause: Callable[[float], None] = staticmethod(time.sleep)

    @property
    def price(self) -> Price | None:
        """Half of what a single call costs."""
        whole = super().price
        if whole is None:
            return None
        parts = ("input", "output", "cache_read", "cache_write")
        halved = {name: value * PRICE_FACTOR for name in parts if (value := getattr(whole, name)) is not None}
        return dataclasses.replace(whole, origin=f"{whole.origin} batch", **halved)

    def as_completed(self, requests: Sequence[LLMRequest]) -> Generator[tuple[int, int, LLMReply]]:
        """(request, reply number, reply); recorded ones first, then each batch's as it ends."""
        pending: dict[str, _Job] = {}
        for job in self._jobs(requests):
            reply = self._recorded(job.key)
            if reply is None:
                pending[job.key] = job
            else:
                yield from ((i, k, reply) for i, k in job.places)
        if pending:
            self.refuse_unpriced()
        n_sendings = dict.fromkeys(pending, 0)
        while pending:
            batches = self._open_batches(pending.keys())
            if not batches:
                batches = [self._hand_in(list(pending.values())[:MAX_REQUESTS])]
            for batch in batches:
                for key, reply in self._fetch(batch, pending, n_sendings):
                    job = pending.pop(key)
                    yield from ((i, k, reply) for i, k in job.places)

    def estimate(self, requests: Sequence[LLMRequest]) -> Estimate:
        """As for single calls, at half the price; how long a batch takes is the provider's affair."""
        found = super().estimate(requests)
        is_sending = found.n_calls > found.n_cached
        return dataclasses.replace(found, seconds=TYPICAL_SECONDS if is_sending else 0.0)

    def _open_batches(self, keys: Any) -> list[_Batch]:
        """Batches an earlier run handed in that hold some of these requests."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            batch = _Batch(path, **json.loads(path.read_text(encoding="utf-8")))
            waited_for = [call_id for key, call_id in batch.calls.items() if key in keys]
            if batch.is_ended or all(self.ledger.is_ended(call_id) for call_id in waited_for):
                continue
            if batch.batch_id is None and not self._adopt(batch):
                self._give_up(batch)  # it never arrived
                continue
            found.append(batch)
        return found

    @property
    def _folder(self) -> Path:
        return self.ledger.folder / "batches"

    def _hand_in(self, jobs: Sequence[_Job]) -> _Batch:
        """Reserve, write down, send, write down the id; in this order."""
        version = self.price.version if self.price else None
        calls, taken = {}, []
        for job in jobs:
            quote = Quote(
                job.key,
                self.adapter.provider,
                self.adapter.model,
                job.request.prompt,
                job.worst_usd,
                version,
                self.scope,
            )
            reserved = self.ledger.reserve(quote, self.budget_usd)
            if reserved is None:
                break
            calls[job.key] = reserved[0]
            taken.append(job)
        if not taken:
            raise self._out_of_budget(jobs)
        batch = _Batch(self._folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json", calls, time.time())
        batch.write()
        created = self._patiently(lambda: self._api.create_batch([(job.key, job.request) for job in taken]))
        if isinstance(created, Failure):
            if created.kind is not FailureKind.UNKNOWN:
                self._give_up(batch)
            raise LLMError(f"The batch could not be handed in: {created.sentence.rstrip('.')}; run again.")
        batch.batch_id = created.batch_id
        batch.write()
        return batch

    def _adopt(self, batch: _Batch) -> bool:
        """Find a batch whose id a kill kept from being written, by the requests in it."""
        states = self._api.recent_batches()
        if isinstance(states, Failure):
            raise LLMError(f"It is not known whether a batch was handed in: {states.sentence.rstrip('.')}; run again.")
        known = {json.loads(path.read_text(encoding="utf-8"))["batch_id"] for path in self._folder.glob("*.json")}
        for state in states:
            is_like_it = state.n_requests == len(batch.calls) and state.created_at > batch.handed_in_at - _CLOCK_SECONDS
            if state.batch_id in known or not is_like_it:
                continue
            self._wait(state.batch_id)
            if {key for key, _ in self._api.batch_results(state.batch_id)} == batch.calls.keys():
                batch.batch_id = state.batch_id
                batch.write()
                return True
        return False

    def _give_up(self, batch: _Batch) -> None:
        """Nothing of it was sent."""
        for call_id in batch.calls.values():
            self.ledger.end(call_id, "failed", 0.0)
        batch.is_ended = True
        batch.write()

    def _fetch(
        self, batch: _Batch, pending: dict[str, _Job], n_sendings: dict[str, int]
    ) -> Iterator[tuple[str, LLMReply]]:
        """Replies of a batch once it ended; requests without one stay pending, up to a number of times."""
        assert batch.batch_id is not None
        self._wait(batch.batch_id)
        seen: set[str] = set()
        for key, result in self._api.batch_results(batch.batch_id):
            call_id = batch.calls.get(key)
            if call_id is None or key in seen:
                continue
            seen.add(key)
            if self.ledger.is_ended(call_id):
                continue
            if isinstance(result, Failure):
                self.ledger.end(call_id, "failed", 0.0)
                if key in pending:
                    n_sendings[key] += 1
                    if result.kind is FailureKind.REJECTED or n_sendings[key] >= MAX_SENDINGS:
                        yield key, LLMReply("", Outcome.INVALID, 0, result.sentence)
            elif key in pending:
                attempt = int(call_id.rpartition("-")[2])
                yield key, self._keep(pending[key], result, call_id, attempt, None)
        for key in batch.calls.keys() - seen:
            was_open = not self.ledger.is_ended(batch.calls[key])
            self.ledger.end(batch.calls[key], "failed", 0.0)
            if key in pending and was_open:
                n_sendings[key] += 1
                if n_sendings[key] >= MAX_SENDINGS:
                    yield key, LLMReply("", Outcome.INVALID, 0, "no batch brought an answer")
        if all(self.ledger.is_ended(call_id) for call_id in batch.calls.values()):
            batch.is_ended = True
            batch.write()

    def _wait(self, batch_id: str) -> None:
        seconds = FIRST_POLL_SECONDS
        while True:
            state = self._patiently(lambda: self._api.batch_state(batch_id))
            if isinstance(state, Failure):
                raise LLMError(f"The batch {batch_id} cannot be asked for: {state.sentence.rstrip('.')}; run again.")
            if state.is_ended:
                return
            self.pause(seconds)
            seconds = min(seconds * 1.5, MAX_POLL_SECONDS)

    def _patiently(self, ask: Callable[[], BatchState | Failure]) -> BatchState | Failure:
        """Ask again while the provider says that it is busy; never after a request whose end nobody knows."""
        for attempt in range(1, self.max_attempts + 1):
            found = ask()
            is_busy = isinstance(found, Failure) and found.kind in (FailureKind.RETRY, FailureKind.THROTTLED)
            if not is_busy or attempt == self.max_attempts:
                return found
            wait = found.retry_after_seconds if isinstance(found, Failure) else None
            self.pause(min(MAX_POLL_SECONDS, self.backoff_seconds * 2.0 ** (attempt - 1) if wait is None else wait))
        raise AssertionError("unreachable")

    def _out_of_budget(self, jobs: Sequence[_Job]) -> BudgetError:
        spent = self.ledger.committed_usd(self.scope)
        needed = spent + sum(job.worst_usd or 0.0 for job in jobs)
        return BudgetError(
            f"The budget of ${self.budget_usd or 0.0:.4f} is reached: ${spent:.4f} is spent or reserved; allow "
            f"${needed:.4f} to finish all {len(jobs)} calls left at their worst cost, finished work is kept.",
            spent_usd=spent,
            needed_usd=needed,
        )

    @property
    def _api(self) -> BatchAdapter:
        return self.adapter  # type: ignore[return-value]
