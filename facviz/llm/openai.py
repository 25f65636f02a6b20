"""Any server that speaks /v1/chat/completions (OpenAI, vLLM, llama.cpp, Ollama): one request, one attempt.

Servers differ in what they understand. A 400 takes away the newest thing that was asked for (a JSON schema, then any
JSON mode; sampling or the name of the token limit where the server names them), and what worked is remembered.
"""

from __future__ import annotations

import json
import os
from typing import Any

import httpx2

from facviz.errors import LLMError
from facviz.llm.adapter import Answer, Failure, FailureKind, Usage, hide, quote, read_retry_after
from facviz.records import LLMRequest, Outcome

PROVIDER = "openai"
DEFAULT_URL = "https://api.openai.com/v1"
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_OUTCOMES = {"stop": Outcome.OK, "length": Outcome.TRUNCATED, "content_filter": Outcome.REFUSED}
_JSON_MODES = ("json_schema", "json_object", "text")
_LIMIT_NAMES = ("max_tokens", "max_completion_tokens")


class OpenAIAdapter:
    """One model of one server; the key, if there is one, comes from `OPENAI_API_KEY`."""

    provider = PROVIDER
    is_sampling = True

    def __init__(self, model: str, *, base_url: str | None = None, timeout_seconds: float = 600.0) -> None:
        key = os.environ.get(KEY_VARIABLE, "")
        self._secrets = (key,) if key else ()
        self.model = model
        self._client = _connect(base_url, key, timeout_seconds)
        self._json_mode, self._is_proven = _JSON_MODES[0], False  # how JSON is asked for; whether that ever worked
        self._limit_name = _LIMIT_NAMES[0]
        self._dropped: frozenset[str] = frozenset()

    def output_limit(self, request: LLMRequest) -> int:
        """The request's own limit."""
        return request.max_tokens

    def attempt(self, request: LLMRequest) -> Answer | Failure:
        """One POST; a server that cannot be understood is an unknown outcome, because it may have charged."""
        body, mode = self._body(request), self._json_mode
        try:
            response = self._client.post("chat/completions", json=body)
        except _NOT_SENT:
            return Failure(FailureKind.UNREACHABLE, f"Cannot reach {self._client.base_url.host}; start the server.")
        except httpx2.HTTPError as error:
            return Failure(FailureKind.UNKNOWN, f"no answer came after the request was sent ({type(error).__name__})")
        if response.status_code != 200:
            return self._refused(response, body, mode)
        try:
            answer = self._answer(response.json())
            self._is_proven |= request.schema is not None
            return answer
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return Failure(FailureKind.UNKNOWN, "the server answered with something that is no chat completion")

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _body(self, request: LLMRequest) -> dict[str, Any]:
        messages = [{"role": "user" if m.role == "text" else m.role, "content": m.content} for m in request.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, self._limit_name: request.max_tokens}
        sampling = {"temperature": request.temperature, "top_p": request.top_p}
        body |= {name: value for name, value in sampling.items() if name not in self._dropped}
        if request.schema is None:
            return body
        if self._json_mode == "json_schema":
            schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
            return body | {"response_format": {"type": "json_schema", "json_schema": schema}}
        wish = f"Reply with one JSON object that follows this schema: {json.dumps(request.schema, default=dict)}"
        messages[-1]["content"] += f"\n\n{wish}"
        return body | ({"response_format": {"type": "json_object"}} if self._json_mode == "json_object" else {})

    def _answer(self, body: dict[str, Any]) -> Answer:
        choice, used = body["choices"][0], body.get("usage") or {}
        message = choice["message"]
        text, reason = message.get("content") or "", choice.get("finish_reason") or "stop"
        outcome, detail = _OUTCOMES.get(reason, Outcome.INVALID), "" if reason == "stop" else str(reason)
        if message.get("refusal"):
            outcome, detail = Outcome.REFUSED, f"refusal: {message['refusal']}"
        usage = None
        if "prompt_tokens" in used and "completion_tokens" in used:
            cached = int((used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
            usage = Usage(int(used["prompt_tokens"]) - cached, int(used["completion_tokens"]), cached)
        model = quote(body.get("model") or self.model)
        return Answer(hide(str(text), self._secrets), outcome, usage, model, quote(detail, self._secrets))

    def _refused(self, response: httpx2.Response, body: dict[str, Any], mode: str) -> Failure:
        error, status = _error_of(response), response.status_code
        said = quote(f"HTTP {status}: {error.get('message') or response.reason_phrase}", self._secrets).rstrip(".")
        if status in (400, 422):
            if self._degrade(error, body, mode):
                return Failure(FailureKind.RETRY, said, 0.0)
            return Failure(FailureKind.REJECTED, f"The server cannot take this request: {said}.")
        if status == 402 or {error.get("code"), error.get("type")} & _NO_MONEY:
            sentence = f"The spend limit is reached ({said}); raise it, then run again."
            return Failure(FailureKind.FATAL, sentence, is_spend_limit=True)
        if status in (401, 403):
            return Failure(
                FailureKind.FATAL, f"The server does not accept the key ({said}); set a valid {KEY_VARIABLE}."
            )
        if status == 404:
            return Failure(
                FailureKind.FATAL, f"The server has no model {quote(self.model)} ({said}); choose another with --model."
            )
        if status in (408, 499, 504):
            return Failure(FailureKind.UNKNOWN, f"no answer came in time ({said})")
        wait = read_retry_after(response.headers.get("retry-after-ms"), response.headers.get("retry-after"))
        if status in (429, 503, 529):
            return Failure(FailureKind.THROTTLED, said, wait)
        if status == 409 or status >= 500:
            return Failure(FailureKind.RETRY, said, wait)
        return Failure(FailureKind.REJECTED, f"The server cannot take this request: {said}.")

    def _degrade(self, error: dict[str, Any], body: dict[str, Any], mode: str) -> bool:
        """Whether something newer was given up, so that the request is worth another try."""
        param = error.get("param")
        if param in ("temperature", "top_p") and param in body:
            self._dropped |= {param}
            return True
        if param == _LIMIT_NAMES[0] and param in body:
            self._limit_name = _LIMIT_NAMES[1]
            return True
        if mode != self._json_mode:  # another thread gave it up already
            return "response_format" in body
        if self._is_proven:
            return False
        if "response_format" not in body:
            self._json_mode = _JSON_MODES[0]  # it was not the JSON
            return False
        self._json_mode = _JSON_MODES[_JSON_MODES.index(mode) + 1]
        return True


def list_models(base_url: str | None = None, *, timeout_seconds: float = 5.0) -> list[str]:
    """Names of the models a server offers.

    Raises:
        LLMError: it cannot be reached or does not list them.
    """
    with _connect(base_url, os.environ.get(KEY_VARIABLE, ""), timeout_seconds) as client:
        try:
            response = client.get("models")
            return [str(entry["id"]) for entry in response.raise_for_status().json()["data"]]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise LLMError(
                f"{client.base_url.host} does not list its models ({type(error).__name__}); name one with --model."
            ) from None


def _connect(base_url: str | None, key: str, timeout_seconds: float) -> httpx2.Client:
    url = base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx2.Timeout(timeout_seconds, connect=min(5.0, timeout_seconds))
    try:
        return httpx2.Client(base_url=url.rstrip("/") + "/", headers=headers, timeout=timeout)
    except (httpx2.InvalidURL, UnicodeEncodeError, TypeError) as error:
        raise LLMError(
            f"The server address or the key cannot be used; correct {URL_VARIABLE} and {KEY_VARIABLE}."
        ) from error


def _error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error object of OpenAI's form, or whatever words the server sent."""
    try:
        error = response.json().get("error")
    except (ValueError, AttributeError, RecursionError):
        return {"message": response.text}
    return error if isinstance(error, dict) else {"message": error or response.text}
