"""The one caller of paid-for models: cache, ledger, budget, retries and concurrency for every provider.

A request is written to the ledger with its worst cost before it is sent, its reply is on disk before the ledger says it
ended, and a recorded reply is never requested again. What a kill or a time-out left unknown is sent once more at most.
"""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any, Self

from facviz.errors import BudgetError, LLMError, SpendLimitError
from facviz.llm.adapter import Adapter, Answer, Failure, FailureKind, Usage
from facviz.llm.cache import ReplyStore, request_hash
from facviz.llm.estimate import DEFAULT_SECONDS, Estimate, approximate_tokens, expected_usd, worst_usd
from facviz.llm.ledger import UNKNOWN, Ledger, Quote
from facviz.llm.prices import Price, PriceTable
from facviz.llm.throttle import Throttle
from facviz.records import LLMReply, LLMRequest, Outcome

OnReply = Callable[[int, int, LLMReply], None]

_MAX_UNKNOWN = 2  # the first sending and one more
_MAX_WAIT_SECONDS = 300.0
_MAX_BACKOFF_SECONDS = 60.0
_MAX_REPLY_CHARACTERS = 200_000
_HOPELESS = 3  # so many requests rejected before any was answered: it is not the requests


@dataclass(frozen=True, slots=True)
class _Job:
    """One reply to ask for, and every place that waits for it."""

    key: str
    request: LLMRequest
    worst_usd: float | None
    places: list[tuple[int, int]] = field(default_factory=list)


class PaidLLM:
    """An `LLMClient` that pays at most `budget_usd` for all calls of its scope, over every run of the workspace.

    `scope` names the job that the budget belongs to; the empty scope counts everything the workspace ever paid.
    """

    def __init__(
        self,
        adapter: Adapter,
        ledger: Ledger,
        replies: ReplyStore,
        prices: PriceTable,
        *,
        budget_usd: float | None = None,
        scope: str = "",
        concurrency: int = 4,
        max_attempts: int = 8,
        backoff_seconds: float = 1.0,
    ) -> None:
        self.adapter, self.ledger, self.replies = adapter, ledger, replies
        self.budget_usd, self.scope = budget_usd, scope
        self.concurrency, self.max_attempts, self.backoff_seconds = max(1, concurrency), max_attempts, backoff_seconds
        self.throttle = Throttle(concurrency)  # kept over runs: what a provider could not bear it will not bear soon
        self._prices = prices

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"{self.adapter.provider}/{self.adapter.model}"

    @property
    def price(self) -> Price | None:
        """What counts today, or None for a model nobody priced."""
        return self._prices.find(self.adapter.provider, self.adapter.model)

    def complete(self, requests: Sequence[LLMRequest], on_reply: OnReply | None = None) -> list[list[LLMReply]]:
        """All replies in order; `on_reply(request, reply number, reply)` sees each as it arrives.

        Raises:
            BudgetError: the next call might exceed the budget.
            LLMError: no further call can work, in one sentence; every reply that arrived is kept.
        """
        found: list[dict[int, LLMReply]] = [{} for _ in requests]
        with closing(self.as_completed(requests)) as arriving:
            for i, k, reply in arriving:
                found[i][k] = reply
                if on_reply is not None:
                    on_reply(i, k, reply)
        return [[replies[k] for k in sorted(replies)] for replies in found]

    def as_completed(self, requests: Sequence[LLMRequest]) -> Generator[tuple[int, int, LLMReply]]:
        """(request, reply number, reply) as they arrive, recorded ones first; raises like `complete`, at the end.

        Closing the iterator early lets the calls in flight finish and be recorded, and sends no more.
        """
        pending = []
        for job in self._jobs(requests):
            reply = self._recorded(job.key)
            if reply is None:
                pending.append(job)
            else:
                yield from ((i, k, reply) for i, k in job.places)
        if not pending:
            return
        self.refuse_unpriced()
        run = _Run(self, pending)
        try:
            for job, reply in run.results():
                yield from ((i, k, reply) for i, k in job.places)
        finally:
            run.finish()
        if run.error is not None:
            raise run.error

    def estimate(self, requests: Sequence[LLMRequest]) -> Estimate:
        """What the requests would cost now; sends nothing."""
        jobs = self._jobs(requests)
        pending = [job for job in jobs if not self.replies.has(job.key)]
        costs = [expected_usd(self.adapter, job.request, self.price) for job in pending]
        known = [cost for cost in costs if cost is not None]
        n_rounds = ceil(len(pending) / self.concurrency)
        return Estimate(
            n_calls=len(jobs),
            n_cached=len(jobs) - len(pending),
            n_input_tokens=sum(approximate_tokens(job.request) for job in pending),
            n_output_tokens=sum(self.adapter.output_limit(job.request) for job in pending),
            usd=sum(known) if len(known) == len(costs) else None,
            seconds=n_rounds * (self.ledger.typical_seconds() or DEFAULT_SECONDS),
        )

    def close(self) -> None:
        """Give the connections back."""
        self.adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _jobs(self, requests: Sequence[LLMRequest]) -> list[_Job]:
        """One job a distinct reply: equal requests share it."""
        if any(request.steering is not None for request in requests):
            raise LLMError(f"{self.name} runs elsewhere and cannot be steered; let the local model write instead.")
        price, jobs = self.price, dict[str, _Job]()
        for i, request in enumerate(requests):
            for k in range(request.n):
                key = request_hash(self.adapter, request, k)
                worst = worst_usd(self.adapter, request, price)
                jobs.setdefault(key, _Job(key, request, worst)).places.append((i, k))
        return list(jobs.values())

    def _recorded(self, key: str) -> LLMReply | None:
        """The reply on disk; where a kill came between it and the ledger's line, the line is written now."""
        record = self.replies.read(key)
        if record is None:
            return None
        if not self.ledger.is_ended(record["call_id"]):
            usage = Usage(**record["usage"]) if record["usage"] else None
            self.ledger.end(record["call_id"], record["outcome"], record["usd"], usage)
        return _reply(record)

    def _keep(self, job: _Job, raw: Answer, call_id: str, attempt: int, seconds: float | None) -> LLMReply:
        """Reply first, ledger second: a kill between them costs nothing twice."""
        answer = _checked(raw, job.request)
        usd = job.worst_usd  # where the server does not say what it used
        if answer.usage is not None:
            usd = self.price.cost_usd(answer.usage) if self.price else None
        record: dict[str, Any] = {
            "call_id": call_id, "request_hash": job.key, "provider": self.adapter.provider,
            "model": self.adapter.model, "answered_by": answer.model, "prompt": job.request.prompt,
            "outcome": answer.outcome.value, "text": answer.text, "detail": answer.detail,
            "usage": asdict(answer.usage) if answer.usage else None, "usd": usd, "attempt": attempt,
        }  # fmt: skip
        self.replies.write(job.key, record)
        self.ledger.end(call_id, answer.outcome.value, usd, answer.usage, seconds=seconds)
        return _reply(record)

    def refuse_unpriced(self) -> None:
        """Raises BudgetError where a budget is set that nobody could keep."""
        if self.budget_usd is not None and self.price is None:
            raise BudgetError(
                f"Nobody has priced {self.name}, so a budget cannot be kept: name its price in the file that "
                "FACVIZ_PRICES points to, or leave the budget out."
            )


class _Run:
    """The threads of one `as_completed`: they share the jobs left, the throttle, the budget and the first error."""

    def __init__(self, caller: PaidLLM, jobs: list[_Job]) -> None:
        self._caller, self._ledger, self._adapter = caller, caller.ledger, caller.adapter
        self._price = caller.price
        self._jobs, self._unanswered = deque(jobs), {job.key: job.worst_usd or 0.0 for job in jobs}
        self._arrived: queue.SimpleQueue[tuple[_Job, LLMReply] | None] = queue.SimpleQueue()
        self._throttle = caller.throttle
        self._stopped = threading.Event()
        self._settled = threading.Condition()
        self._n_in_flight = self._n_answered = self._n_rejected = 0
        self.error: BaseException | None = None
        n = min(caller.concurrency, len(jobs))
        self._threads = [threading.Thread(target=self._work, name=f"llm-{i}", daemon=True) for i in range(n)]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[tuple[_Job, LLMReply]]:
        """Replies until every thread is done, also those that arrived after an error."""
        n_working = len(self._threads)
        while n_working:
            item = self._arrived.get()
            if item is None:
                n_working -= 1
            else:
                yield item

    def finish(self) -> None:
        """Send nothing more; wait for what is in flight, because it is paid for."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    return
                reply = self._ask(job)
                if reply is not None:
                    with self._settled:
                        self._unanswered.pop(job.key, None)
                    self._arrived.put((job, reply))
        except BaseException as error:  # raised again by the thread that asked
            self.error = self.error or error
            self._stopped.set()
        finally:
            self._arrived.put(None)

    def _ask(self, job: _Job) -> LLMReply | None:
        """The reply after as many attempts as it takes, or None when stopped meanwhile."""
        sentence = ""
        for attempt in range(1, self._caller.max_attempts + 1):
            if self._ledger.n_unknown(job.key) >= _MAX_UNKNOWN:
                return LLMReply("", Outcome.INVALID, 0, "sent twice without an answer; it is not sent a third time")
            result = self._attempt(job)
            if result is None or isinstance(result, LLMReply):
                return result
            if result.kind is FailureKind.REJECTED:
                return self._reject(result)
            if result.kind is FailureKind.FATAL or (result.kind is FailureKind.UNREACHABLE and not self._n_answered):
                raise SpendLimitError(result.sentence) if result.is_spend_limit else LLMError(result.sentence)
            sentence = result.sentence
            if self._stopped.wait(self._wait_seconds(attempt, result)):
                return None
        if self._ledger.n_unknown(job.key) >= _MAX_UNKNOWN:
            return LLMReply("", Outcome.INVALID, 0, sentence)
        raise LLMError(
            f"{self._caller.name} still gives no answer after {self._caller.max_attempts} tries ({sentence}); "
            "run again later, finished work is kept."
        )

    def _wait_seconds(self, attempt: int, failure: Failure) -> float:
        """Exponential with jitter, never less than the provider asked for."""
        asked = failure.retry_after_seconds
        if asked is None:
            longest = min(_MAX_BACKOFF_SECONDS, self._caller.backoff_seconds * 2.0 ** (attempt - 1))
            return longest * random.uniform(0.5, 1.0)
        if asked > _MAX_WAIT_SECONDS:
            raise LLMError(f"{self._caller.name} asks to wait {asked:.0f} s; run again then, finished work is kept.")
        return asked

    def _attempt(self, job: _Job) -> LLMReply | Failure | None:
        """One call from a place in the throttle to its line in the ledger; None when stopped while waiting."""
        entered = self._throttle.enter(self._stopped)
        if entered is None:
            return None
        try:
            reserved = self._reserve(job)
            if reserved is None:
                return None
            try:
                return self._send(job, *reserved, entered)
            finally:
                with self._settled:
                    self._n_in_flight -= 1
                    self._settled.notify_all()
        finally:
            self._throttle.leave()

    def _reserve(self, job: _Job) -> tuple[str, int] | None:
        """Call id and attempt; waits while calls in flight may leave money over."""
        caller = self._caller
        version = self._price.version if self._price else None
        quote = Quote(
            job.key,
            self._adapter.provider,
            self._adapter.model,
            job.request.prompt,
            job.worst_usd,
            version,
            caller.scope,
        )
        with self._settled:
            while not self._stopped.is_set():
                reserved = self._ledger.reserve(quote, caller.budget_usd)
                if reserved is not None:
                    self._n_in_flight += 1
                    return reserved
                if not self._n_in_flight:
                    raise self._over_budget(job)
                self._settled.wait(1.0)
        return None

    def _over_budget(self, job: _Job) -> BudgetError:
        spent = self._ledger.committed_usd(self._caller.scope)
        needed = spent + sum(self._unanswered.values())
        return BudgetError(
            f"The budget of ${self._caller.budget_usd:.4f} is reached: ${spent:.4f} is spent or reserved and the next "
            f"call may cost ${job.worst_usd or 0.0:.4f}; allow ${needed:.4f} to finish all {len(self._unanswered)} "
            "calls left at their worst cost, finished work is kept.",
            spent_usd=spent,
            needed_usd=needed,
        )

    def _send(self, job: _Job, call_id: str, attempt: int, entered: float) -> LLMReply | Failure:
        sent = time.monotonic()
        result = self._adapter.attempt(job.request)
        seconds = round(time.monotonic() - sent, 3)
        if isinstance(result, Answer):
            self._throttle.speed_up()
            self._n_answered += 1
            return self._caller._keep(job, result, call_id, attempt, seconds)
        if result.kind is FailureKind.THROTTLED:
            self._throttle.slow_down(entered, min(result.retry_after_seconds or 0.0, _MAX_WAIT_SECONDS))
        is_unknown = result.kind is FailureKind.UNKNOWN
        self._ledger.end(call_id, UNKNOWN if is_unknown else "failed", job.worst_usd if is_unknown else 0.0)
        return result

    def _reject(self, failure: Failure) -> LLMReply:
        """A request the provider cannot take ends as invalid; when it takes none at all, the job stops."""
        self._n_rejected += 1
        if self._n_rejected >= _HOPELESS and not self._n_answered:
            raise LLMError(failure.sentence)
        return LLMReply("", Outcome.INVALID, 0, failure.sentence)


def _checked(answer: Answer, request: LLMRequest) -> Answer:
    """Bounded, and INVALID where JSON was asked for and none is there; words around the object are dropped."""
    if len(answer.text) > _MAX_REPLY_CHARACTERS:
        cut = answer.text[:_MAX_REPLY_CHARACTERS]
        return replace(
            answer, text=cut, outcome=Outcome.INVALID, detail="the reply is longer than any model should write"
        )
    if request.schema is None or answer.outcome is not Outcome.OK:
        return answer
    text = answer.text[answer.text.find("{") : answer.text.rfind("}") + 1]
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return replace(answer, outcome=Outcome.INVALID, detail="the reply holds no JSON object")
    return replace(answer, text=text)


def _reply(record: dict[str, Any]) -> LLMReply:
    n_tokens = record["usage"]["output_tokens"] if record["usage"] else 0
    return LLMReply(record["text"], Outcome(record["outcome"]), n_tokens, record["detail"], record["call_id"])
