"""A stand-in for paid-for models on 127.0.0.1: speaks both protocols, replies from a script, remembers every request.

Tests point the real SDK and the real HTTP client at it, so what is tested is what will run.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MESSAGES, COMPLETIONS, MODELS = "/v1/messages", "/v1/chat/completions", "/v1/models"
BATCHES = "/v1/messages/batches"


class Fault(StrEnum):
    """What may happen instead of a good reply."""

    REFUSAL = "refusal"
    TRUNCATION = "truncation"
    INVALID_JSON = "invalid json"
    RATE_LIMIT = "429"
    OVERLOADED = "529"
    SERVER_ERROR = "500"
    SPEND_LIMIT = "spend limit"
    DEAD_KEY = "dead key"
    UNKNOWN_MODEL = "unknown model"
    BAD_REQUEST = "400"
    HANG = "hang"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in (header names in lower case), and the line of the script that answered it."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    line: str

    @property
    def prompt(self) -> str:
        """Content of the last message."""
        return str(self.body["messages"][-1]["content"])


Script = Sequence[str | Fault] | Callable[[int, dict[str, Any]], str | Fault]


@dataclass
class StubServer:
    """Start it with `with`; `script` is a list (the last line repeats) or a function of (number, request body).

    `input_tokens` and `output_tokens` are what every reply is billed for; 429 and 529 carry `retry_after` seconds.
    """

    script: Script
    retry_after: str = "0"
    delay_seconds: float = 0.0
    input_tokens: int = 100
    output_tokens: int = 50
    models: tuple[str, ...] = ("stub-model",)
    n_polls: int = 2
    """How often a batch must be asked for before it has ended."""
    batch_fault: Fault | None = None
    """What meets a batch that is handed in; DROP takes it and never says so."""
    batches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Results of every batch taken, by its id."""
    requests: list[Received] = field(default_factory=list)
    n_most_at_once: int = 0

    def __enter__(self) -> Self:
        self._lock, self._closing, self._n_now = threading.Lock(), threading.Event(), 0
        self._polls: dict[str, int] = {}
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Base address for the Anthropic SDK; OpenAI clients add /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def receive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> str | Fault:
        """Remember a request and choose its answer."""
        with self._lock:
            number = len(self.requests)
            script = self.script
            line = script(number, body) if callable(script) else script[min(number, len(script) - 1)]
            self.requests.append(Received(number, path, headers, body, line))
            self._n_now += 1
            self.n_most_at_once = max(self.n_most_at_once, self._n_now)
        self._closing.wait(self.delay_seconds)
        return line

    def take_batch(self, body: dict[str, Any]) -> str:
        """Answer every request of a batch from the script; the batch's id."""
        results = []
        for item in body["requests"]:
            line = self.receive(BATCHES, {"custom-id": item["custom_id"]}, item["params"])
            self.leave()
            results.append({"custom_id": item["custom_id"], "result": _batch_result(self, line, item["params"])})
        batch_id = f"msgbatch_{len(self.batches)}"
        self.batches[batch_id] = results[::-1]  # in any order but that of the requests
        self._polls[batch_id] = 0
        return batch_id

    def batch(self, batch_id: str, *, is_poll: bool = False) -> dict[str, Any]:
        """A batch as the API shows it."""
        self._polls[batch_id] += is_poll
        n, is_ended = len(self.batches[batch_id]), self._polls[batch_id] >= self.n_polls
        counts = {"processing": 0 if is_ended else n, "succeeded": n if is_ended else 0}
        return {
            "id": batch_id, "type": "message_batch", "processing_status": "ended" if is_ended else "in_progress",
            "request_counts": counts | {"errored": 0, "canceled": 0, "expired": 0}, "archived_at": None,
            "cancel_initiated_at": None, "ended_at": None, "created_at": datetime.now(UTC).isoformat(),
            "expires_at": datetime.now(UTC).isoformat(),
            "results_url": f"{self.url}{BATCHES}/{batch_id}/results" if is_ended else None,
        }  # fmt: skip

    def leave(self) -> None:
        """The request was answered, or never will be."""
        with self._lock:
            self._n_now -= 1

    def hang(self) -> None:
        """Say nothing until the server closes."""
        self._closing.wait()


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer

    def do_GET(self) -> None:
        """The list of models, batches, one of them, or its results."""
        if self.path.startswith(BATCHES):
            self._show_batches(self.path.removeprefix(BATCHES).partition("?")[0].strip("/"))
            return
        self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.stub.models]})

    def do_POST(self) -> None:
        """One line of the script."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path == BATCHES:
            self._take_batch(body)
            return
        line = self.stub.receive(self.path, headers, body)
        try:
            self._play(line, str(body.get("model", "")))
        finally:
            self.stub.leave()

    def _show_batches(self, path: str) -> None:
        if not path:
            every = [self.stub.batch(batch_id) for batch_id in reversed(self.stub.batches)]
            self._send(200, {"data": every, "has_more": False, "first_id": None, "last_id": None})
        elif path.endswith("/results"):
            lines = [json.dumps(row) for row in self.stub.batches[path.removesuffix("/results")]]
            self._send_raw(200, "\n".join(lines).encode() + b"\n", "application/binary")
        else:
            self._send(200, self.stub.batch(path, is_poll=True))

    def _take_batch(self, body: dict[str, Any]) -> None:
        fault = self.stub.batch_fault
        if fault is not None and fault in _ERRORS:
            self._fail(fault)
            return
        taken = self.stub.take_batch(body)
        if fault is Fault.DROP:
            self.close_connection = True
        elif fault is Fault.HANG:
            self.stub.hang()
        else:
            self._send(200, self.stub.batch(taken))

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def _play(self, line: str | Fault, model: str) -> None:
        if line is Fault.HANG:
            self.stub.hang()
        elif line is Fault.DROP:
            self.close_connection = True
        elif isinstance(line, Fault) and line in _ERRORS:
            self._fail(line)
        else:
            self._reply(line, model)

    def _reply(self, line: str | Fault, model: str) -> None:
        fault = line if isinstance(line, Fault) else None
        text = str(line) if fault is None else _TEXTS.get(fault, "")
        is_message = self.path == MESSAGES
        self._send(200, _message(self.stub, fault, text, model) if is_message else self._completion(fault, text, model))

    def _completion(self, fault: Fault | None, text: str, model: str) -> dict[str, Any]:
        refusal = "I cannot help with that." if fault is Fault.REFUSAL else None
        said = {"role": "assistant", "content": text or None, "refusal": refusal}
        reason = "length" if fault is Fault.TRUNCATION else "stop"
        usage = {"prompt_tokens": self.stub.input_tokens, "completion_tokens": self.stub.output_tokens}
        choice = {"index": 0, "finish_reason": reason, "message": said}
        return {"object": "chat.completion", "model": model, "choices": [choice], "usage": usage}

    def _fail(self, fault: Fault) -> None:
        status, kind, words = _ERRORS[fault]
        key = self.headers.get("authorization", "")
        error: dict[str, Any] = {"type": kind, "message": f"{words} (you sent {key})"}
        if fault is Fault.SPEND_LIMIT:
            error |= {"code": "insufficient_quota", "details": {"error_code": "enforced_spend_limit_reached"}}
        waits = fault in (Fault.RATE_LIMIT, Fault.OVERLOADED)
        self._send(status, {"type": "error", "error": error}, {"retry-after": self.stub.retry_after} if waits else {})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send_raw(status, json.dumps(body).encode(), "application/json", headers)

    def _send_raw(self, status: int, raw: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"content-type": kind, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:  # the client went away, which kills do
            self.close_connection = True


def _message(stub: StubServer, fault: Fault | None, text: str, model: str) -> dict[str, Any]:
    """A reply of the Messages API."""
    details = {"type": "refusal", "category": "frontier_llm", "explanation": None}
    reasons = {Fault.REFUSAL: "refusal", Fault.TRUNCATION: "max_tokens"}
    return {
        "id": "msg_stub", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}] if text else [],
        "usage": {"input_tokens": stub.input_tokens, "output_tokens": stub.output_tokens},
        "stop_reason": reasons.get(fault, "end_turn") if fault else "end_turn",
        "stop_details": details if fault is Fault.REFUSAL else None,
    }  # fmt: skip


def _batch_result(stub: StubServer, line: str | Fault, params: dict[str, Any]) -> dict[str, Any]:
    """What became of one request: a message, an error, or that it expired (HANG)."""
    if line is Fault.HANG:
        return {"type": "expired"}
    if isinstance(line, Fault) and line in _ERRORS:
        _, kind, words = _ERRORS[line]
        return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": words}}}
    fault = line if isinstance(line, Fault) else None
    text = str(line) if fault is None else _TEXTS.get(fault, "")
    return {"type": "succeeded", "message": _message(stub, fault, text, str(params.get("model", "")))}


_TEXTS = {Fault.INVALID_JSON: '{"text": "cut', Fault.TRUNCATION: "half a "}
_ERRORS = {
    Fault.RATE_LIMIT: (429, "rate_limit_error", "Too many requests."),
    Fault.OVERLOADED: (529, "overloaded_error", "Overloaded."),
    Fault.SERVER_ERROR: (500, "api_error", "Internal error."),
    Fault.SPEND_LIMIT: (429, "rate_limit_error", "The monthly limit is reached."),
    Fault.DEAD_KEY: (401, "authentication_error", "Invalid key."),
    Fault.UNKNOWN_MODEL: (404, "not_found_error", "No such model."),
    Fault.BAD_REQUEST: (400, "invalid_request_error", "This server does not understand that."),
}


def wait_for_requests(server: StubServer, n: int, *, timeout_seconds: float = 60.0) -> None:
    """Return once so many requests came in.

    Raises:
        TimeoutError: they did not come in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while len(server.requests) < n:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(server.requests)} of {n} requests came in {timeout_seconds} s.")
        time.sleep(0.005)
