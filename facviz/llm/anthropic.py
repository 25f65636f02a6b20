"""Claude through the Anthropic SDK 2.x: one request, one attempt, one typed result.

No sampling parameters and no prefill, which its models refuse; `messages.create` and never `parse`, which loses a paid
reply that does not validate. Thinking counts as output, so every call gets room for it. The key stays inside the SDK.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import anthropic
import httpx2

from facviz.errors import LLMError
from facviz.llm.adapter import Answer, Failure, FailureKind, Usage, hide, quote, read_retry_after
from facviz.llm.batch_state import BatchState
from facviz.records import LLMRequest, Outcome

PROVIDER = "anthropic"
DEFAULT_MODEL = "claude-haiku-5-5"
KEY_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")

_THINKING_ROOM = 4096
_MOST_OUTPUT = 21_000  # above this the API wants a stream
_SPEND_LIMITS = (
    anthropic.EnforcedSpendLimitReachedError,
    anthropic.ContractSpendLimitReachedError,
    anthropic.LinkedOrganizationSpendLimitReachedError,
)
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_UNREADABLE = (httpx2.HTTPError, ValueError, TypeError, AttributeError, RecursionError)
_OUTCOMES = {
    "end_turn": Outcome.OK,
    "stop_sequence": Outcome.OK,
    "refusal": Outcome.REFUSED,
    "max_tokens": Outcome.TRUNCATED,
    "model_context_window_exceeded": Outcome.TRUNCATED,
}


T = TypeVar("T")


class AnthropicAdapter:
    """One Claude model; the key comes from the environment, the address from `base_url` or `ANTHROPIC_BASE_URL`."""

    provider = PROVIDER
    is_sampling = False

    def __init__(
        self, model: str = DEFAULT_MODEL, *, base_url: str | None = None, timeout_seconds: float = 600.0
    ) -> None:
        self._secrets = tuple(value for name in KEY_VARIABLES if (value := os.environ.get(name)))
        if not self._secrets:
            raise LLMError("There is no key for Claude; set ANTHROPIC_API_KEY in the environment.")
        self.model = model
        self._timeout = httpx2.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds))
        self._client = anthropic.Anthropic(base_url=base_url, max_retries=0)
        self._has_effort, self._is_proven = True, False  # whether effort is sent; whether any request worked that way

    def output_limit(self, request: LLMRequest) -> int:
        """The request's limit and room for thinking, which is billed as output."""
        return min(request.max_tokens + _THINKING_ROOM, _MOST_OUTPUT)

    def attempt(self, request: LLMRequest) -> Answer | Failure:
        """One `messages.create`; every SDK error becomes a kind of failure."""
        with_effort = self._has_effort
        parameters = self._parameters(request, with_effort)
        try:
            answer = self._answer(self._client.messages.create(**parameters, timeout=self._timeout))
            self._is_proven = True
            return answer
        except anthropic.BadRequestError as error:
            return self._misunderstood(error, with_effort)
        except anthropic.APIConnectionError as error:
            return self._lost(error)
        except anthropic.APIStatusError as error:
            return self._refused(error)
        except (anthropic.APIError, *_UNREADABLE):  # HTTP 200 with a body that is no message: it may have been billed
            return Failure(FailureKind.UNKNOWN, "the server answered with something that is no message")

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    # Batches ----------------------------------------------------------------------------------------------------------

    def create_batch(self, requests: Sequence[tuple[str, LLMRequest]]) -> BatchState | Failure:
        """Hand in requests by id; sent once, never repeated here."""
        items = [{"custom_id": key, "params": self._parameters(r, self._has_effort)} for key, r in requests]
        made = self._guarded(lambda: self._client.messages.batches.create(requests=items, timeout=self._timeout))  # type: ignore[arg-type]
        return made if isinstance(made, Failure) else _batch_state(made)

    def batch_state(self, batch_id: str) -> BatchState | Failure:
        """How far a batch is; asking costs nothing, so a lost answer is only asked for again."""
        found = self._guarded(lambda: self._client.messages.batches.retrieve(batch_id, timeout=self._timeout))
        if isinstance(found, Failure):
            is_lost = found.kind in (FailureKind.UNKNOWN, FailureKind.UNREACHABLE)
            return Failure(FailureKind.RETRY, found.sentence) if is_lost else found
        return _batch_state(found)

    def recent_batches(self) -> list[BatchState] | Failure:
        """The newest hundred of the account."""
        found = self._guarded(lambda: self._client.messages.batches.list(limit=100, timeout=self._timeout).data)
        return found if isinstance(found, Failure) else [_batch_state(batch) for batch in found]

    def batch_results(self, batch_id: str) -> Iterator[tuple[str, Answer | Failure]]:
        """Request id and what came of it; only of a batch that ended.

        Raises:
            LLMError: the results cannot be read now; they stay with the provider for weeks.
        """
        try:
            for row in self._client.messages.batches.results(batch_id, timeout=self._timeout):
                yield row.custom_id, self._batch_answer(row.result)
        except (anthropic.APIError, *_UNREADABLE) as error:
            said = self._said(error) if isinstance(error, anthropic.APIError) else "an unreadable answer"
            raise LLMError(f"The results of batch {batch_id} cannot be read ({said}); run again.") from error

    def _batch_answer(self, result: Any) -> Answer | Failure:
        if result.type == "succeeded":
            return self._answer(result.message)
        if result.type == "errored":
            said = quote(getattr(result.error.error, "message", "an error"), self._secrets).rstrip(".")
            is_ours = getattr(result.error.error, "type", "") == "invalid_request_error"
            kind = FailureKind.REJECTED if is_ours else FailureKind.RETRY
            return Failure(kind, f"Claude cannot take this request: {said}." if is_ours else said)
        return Failure(FailureKind.RETRY, f"the batch ended before this request was answered ({quote(result.type)})")

    def _guarded(self, call: Callable[[], T]) -> T | Failure:
        """One HTTP request, every SDK error as a kind of failure."""
        try:
            return call()
        except anthropic.APIConnectionError as error:
            return self._lost(error)
        except anthropic.APIStatusError as error:
            return self._refused(error)
        except (anthropic.APIError, *_UNREADABLE):
            return Failure(FailureKind.UNKNOWN, "the server answered with something that is no batch")

    def _parameters(self, request: LLMRequest, with_effort: bool) -> dict[str, Any]:
        config: dict[str, Any] = {"effort": "low"} if with_effort else {}
        if request.schema is not None:
            schema = anthropic.transform_schema(dict(request.schema))
            config["format"] = {"type": "json_schema", "schema": schema}
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        turns = [m for m in request.messages if m.role != "system"]
        return {
            "model": self.model,
            "max_tokens": self.output_limit(request),
            "messages": [
                {"role": "assistant" if m.role == "assistant" else "user", "content": m.content} for m in turns
            ],
            **({"system": system} if system else {}),
            **({"output_config": config} if config else {}),
        }

    def _answer(self, message: Any) -> Answer:
        """Raises one of `_UNREADABLE` on an odd body, which the SDK passes on unchecked."""
        text = "".join(block.text or "" for block in message.content or [] if block.type == "text")
        reason = message.stop_reason
        detail = "" if _OUTCOMES.get(reason) is Outcome.OK else str(reason)
        if reason == "refusal" and message.stop_details is not None:
            detail = f"refusal: {message.stop_details.category or 'no category'}"
        used = message.usage
        usage = None
        if used is not None and isinstance(used.input_tokens, int) and isinstance(used.output_tokens, int):
            read, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
            usage = Usage(used.input_tokens, used.output_tokens, read, written)
        outcome = _OUTCOMES.get(reason, Outcome.INVALID)
        return Answer(hide(text, self._secrets), outcome, usage, str(message.model or self.model), quote(detail))

    def _misunderstood(self, error: anthropic.BadRequestError, with_effort: bool) -> Failure:
        """Older models know no effort: until one request worked, a 400 is asked once more without it."""
        if with_effort and (not self._is_proven or not self._has_effort):
            self._has_effort = False
            return Failure(FailureKind.RETRY, self._said(error), 0.0)
        if not self._is_proven:
            self._has_effort = True  # it was not the effort
        return Failure(FailureKind.REJECTED, f"Claude cannot take this request: {self._said(error)}.")

    def _lost(self, error: anthropic.APIConnectionError) -> Failure:
        if isinstance(error.__cause__, _NOT_SENT):
            host = self._client.base_url.host
            return Failure(FailureKind.UNREACHABLE, f"Cannot reach {host}; check the network or ANTHROPIC_BASE_URL.")
        return Failure(FailureKind.UNKNOWN, "no answer came after the request was sent")

    def _refused(self, error: anthropic.APIStatusError) -> Failure:
        """By what a person must do; spend limits first, because they arrive as rate limits."""
        said, status = self._said(error), error.status_code
        if isinstance(error, _SPEND_LIMITS) or status == 402:
            sentence = f"Claude's spend limit is reached ({said}); raise it, then run again."
            return Failure(FailureKind.FATAL, sentence, is_spend_limit=True)
        if status in (401, 403):
            return Failure(
                FailureKind.FATAL, f"Claude does not accept the key ({said}); set a valid ANTHROPIC_API_KEY."
            )
        if status == 404:
            return Failure(FailureKind.FATAL, f"Claude has no model {quote(self.model)}; choose another with --model.")
        if status in (408, 499, 504):
            return Failure(FailureKind.UNKNOWN, f"no answer came in time ({said})")
        headers = error.response.headers
        wait = read_retry_after(headers.get("retry-after-ms"), headers.get("retry-after"))
        if status in (429, 529):
            return Failure(FailureKind.THROTTLED, said, wait)
        if status == 409 or status >= 500:
            return Failure(FailureKind.RETRY, said, wait)
        return Failure(FailureKind.REJECTED, f"Claude cannot take this request: {said}.")

    def _said(self, error: anthropic.APIError) -> str:
        words = getattr(error, "api_message", None) or error.message
        status = getattr(error, "status_code", None)
        return quote(f"HTTP {status}: {words}" if status else words, self._secrets).rstrip(".")


def _batch_state(batch: Any) -> BatchState:
    counts = batch.request_counts
    n = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
    return BatchState(str(batch.id), batch.processing_status == "ended", n, batch.created_at.timestamp())
