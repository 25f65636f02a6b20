"""Every way a provider can answer, through the real SDK and the real HTTP client, against servers on 127.0.0.1."""

from __future__ import annotations

import json
import logging
import socket
import warnings

import pytest

from facviz.errors import BudgetError, InputError, LLMError
from facviz.llm.ledger import call_rows
from facviz.llm.providers import choose_provider, open_client
from facviz.records import LLMRequest, Message, Outcome
from facviz.testing.llm_server import COMPLETIONS, MESSAGES, Fault, StubServer

KEY = "sk-test-0123456789abcdefghij-SECRET"
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 80}},
    "required": ["text"],
    "additionalProperties": False,
}
GOOD = '{"text": "words about rain"}'
MESSAGES_SENT = (Message("system", "You explain features."), Message("user", "item 0"))
PRICES = """
[[price]]
provider = "openai"
model = "stub-model"
effective_from = 2026-01-01
input = 1
output = 10
"""
PROVIDERS = ("anthropic", "openai")
VARIABLES = (
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL",
    "FACVIZ_PRICES",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of the SDK


@pytest.fixture
def root(tmp_path):
    return tmp_path / "workspace"


@pytest.fixture
def open_on(monkeypatch, tmp_path, root):
    """A client of one provider that talks to a stub server."""
    clients = []
    (tmp_path / "prices.toml").write_text(PRICES)

    def open_(provider, server, **options):
        monkeypatch.setenv("FACVIZ_PRICES", str(tmp_path / "prices.toml"))
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", KEY)
        model = {"anthropic": "claude-haiku-5-5", "openai": "stub-model"}[provider]
        url = server.url if provider == "anthropic" else f"{server.url}/v1"
        options = {"concurrency": 1, "base_url": url} | options
        clients.append(client := open_client(provider, model, root, **options))
        client.backoff_seconds = 0.001
        return client

    yield open_
    for client in clients:
        client.close()


def ask(i: int = 0, **changes) -> LLMRequest:
    options = {"messages": MESSAGES_SENT, "max_tokens": 200, "schema": SCHEMA, "prompt": "explain.v1", "rng_seed": i}
    return LLMRequest(**options | changes)


def reply_of(client, request=None):
    return client.complete([request or ask()])[0][0]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_good_reply_comes_with_its_outcome_and_its_cost(provider, open_on, root):
    with StubServer([GOOD], input_tokens=1000, output_tokens=100) as server:
        client = open_on(provider, server)
        reply = reply_of(client)
    assert (reply.text, reply.outcome, reply.n_tokens, reply.detail) == (GOOD, Outcome.OK, 100, "")
    (row,) = call_rows(root)
    assert (row["call_id"], row["outcome"], row["input_tokens"], row["output_tokens"]) == (
        reply.call_id,
        "ok",
        1000,
        100,
    )
    assert row["usd"] == pytest.approx({"anthropic": 0.00015, "openai": 0.002}[provider])
    assert (row["provider"], row["prompt"]) == (provider, "explain.v1")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.REFUSAL, Outcome.REFUSED),
        (Fault.TRUNCATION, Outcome.TRUNCATED),
        (Fault.INVALID_JSON, Outcome.INVALID),
    ],
)
def test_a_reply_that_cannot_be_used_is_a_typed_outcome_that_is_paid_for_once(provider, fault, outcome, open_on, root):
    with StubServer([fault]) as server:
        reply = reply_of(open_on(provider, server))
        assert reply.outcome is outcome
        assert reply.detail
        assert reply_of(open_on(provider, server)) == reply
        assert len(server.requests) == 1
    assert [(row["outcome"], row["output_tokens"]) for row in call_rows(root)] == [(outcome.value, 50)]


def test_a_refusal_names_its_category(open_on):
    with StubServer([Fault.REFUSAL]) as server:
        assert reply_of(open_on("anthropic", server)).detail == "refusal: frontier_llm"
        assert "cannot help" in reply_of(open_on("openai", server)).detail


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [Fault.RATE_LIMIT, Fault.OVERLOADED, Fault.SERVER_ERROR])
def test_a_busy_provider_is_asked_again_by_us_and_never_by_the_sdk(provider, fault, open_on, root):
    with StubServer([fault, fault, GOOD]) as server:
        assert reply_of(open_on(provider, server)).text == GOOD
        assert len(server.requests) == 3
    assert [row["outcome"] for row in call_rows(root)] == ["failed", "failed", "ok"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_wait_a_provider_asks_for_is_kept(provider, open_on):
    with StubServer([Fault.RATE_LIMIT, GOOD], retry_after="0.3") as server:
        client = open_on(provider, server)
        waits = []
        original = client.adapter.attempt

        def attempt(request):
            result = original(request)
            waits.append(getattr(result, "retry_after_seconds", None))
            return result

        client.adapter.attempt = attempt
        assert reply_of(client).text == GOOD
    assert waits == [0.3, None]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault.SPEND_LIMIT, "spend limit is reached .*raise it"),
        (Fault.DEAD_KEY, "does not accept the key .*set a valid"),
        (Fault.UNKNOWN_MODEL, "has no model .*choose another"),
    ],
)
def test_what_only_a_person_can_mend_stops_the_job_with_one_sentence(provider, fault, sentence, open_on, root):
    with StubServer([GOOD, fault]) as server:
        with pytest.raises(LLMError, match=sentence) as caught:
            open_on(provider, server).complete([ask(i) for i in range(20)])
        assert len(server.requests) == 2
        assert KEY not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [row["outcome"] for row in call_rows(root)] == ["ok", "failed"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DROP])
def test_no_answer_after_sending_is_unknown_counted_as_spent_and_sent_once_more(provider, fault, open_on, root):
    with StubServer([fault]) as server:
        reply = reply_of(open_on(provider, server, timeout_seconds=0.2))
        assert reply.outcome is Outcome.INVALID
        assert len(server.requests) == 2
    rows = call_rows(root)
    assert [row["outcome"] for row in rows] == ["unknown", "unknown"]
    assert all(row["usd"] > 0 for row in rows)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_after_one_lost_answer_the_second_counts(provider, open_on):
    with StubServer([Fault.HANG, GOOD]) as server:
        assert reply_of(open_on(provider, server, timeout_seconds=0.3)).outcome is Outcome.OK


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_server_that_is_not_there_is_said_at_once_and_costs_nothing(provider, open_on, root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with StubServer([GOOD]) as server, pytest.raises(LLMError, match=r"Cannot reach 127\.0\.0\.1"):
            reply_of(open_on(provider, server, base_url=url))
    assert [(row["outcome"], row["usd"]) for row in call_rows(root)] == [("failed", 0.0)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_request_the_server_does_not_take_is_invalid_and_free(provider, open_on, root):
    with StubServer(lambda n, body: Fault.BAD_REQUEST if n else GOOD) as server:
        client = open_on(provider, server)
        replies = [group[0] for group in client.complete([ask(0), ask(1)])]
        assert len(server.requests) == 2  # what worked once is not given up for one request
    assert [r.outcome for r in replies] == [Outcome.OK, Outcome.INVALID]
    assert "does not understand" in replies[1].detail
    assert {row["usd"] for row in call_rows(root) if row["outcome"] == "failed"} == {0.0}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_fault_at_once_leaves_every_request_in_a_typed_state(provider, open_on, root):
    faults = [
        Fault.REFUSAL, Fault.RATE_LIMIT, Fault.TRUNCATION, Fault.OVERLOADED, Fault.INVALID_JSON, Fault.HANG, Fault.DROP,
        Fault.SERVER_ERROR,
    ]  # fmt: skip
    with StubServer(lambda n, body: faults[n // 3] if n % 3 == 0 and n < 24 else GOOD) as server:
        client = open_on(provider, server, concurrency=4, timeout_seconds=0.5, budget_usd=1.0)
        replies = [group[0] for group in client.complete([ask(i) for i in range(40)])]
    counts = {outcome: sum(r.outcome is outcome for r in replies) for outcome in Outcome}
    assert counts == {Outcome.OK: 37, Outcome.REFUSED: 1, Outcome.TRUNCATED: 1, Outcome.INVALID: 1}
    assert len(call_rows(root)) == len(server.requests) == 45


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_first_request_that_cannot_work_takes_nothing_from_the_next(provider, open_on):
    with StubServer(lambda n, body: Fault.BAD_REQUEST if "long" in body["messages"][-1]["content"] else GOOD) as server:
        client = open_on(provider, server)
        replies = client.complete([ask(messages=(Message("user", "too long"),)), ask(1)])
        body = server.requests[-1].body
    assert [group[0].outcome for group in replies] == [Outcome.INVALID, Outcome.OK]
    if provider == "anthropic":
        assert body["output_config"]["effort"] == "low"
    else:
        assert body["response_format"]["type"] == "json_schema"


def test_claude_gets_a_schema_and_room_to_think_and_no_sampling(open_on):
    with StubServer([GOOD]) as server:
        reply_of(open_on("anthropic", server))
        (received,) = server.requests
    assert received.path == MESSAGES
    assert received.headers["anthropic-version"] >= "2026-10-21"
    body = received.body
    assert set(body) == {"model", "max_tokens", "messages", "system", "output_config"}
    assert body["system"] == "You explain features."
    assert body["messages"] == [{"role": "user", "content": "item 0"}]
    assert body["max_tokens"] == 200 + 4096
    assert body["output_config"]["format"]["type"] == "json_schema"
    schema = body["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False
    assert "maxLength" not in schema["properties"]["text"]


def test_a_claude_model_without_effort_is_asked_again_without_it(open_on, root):
    with StubServer(lambda n, body: GOOD if "effort" not in body["output_config"] else Fault.BAD_REQUEST) as server:
        client = open_on("anthropic", server)
        assert len(client.complete([ask(0), ask(1)])) == 2
        assert len(server.requests) == 3
    assert [row["outcome"] for row in call_rows(root)] == ["failed", "ok", "ok"]


def test_another_temperature_is_the_same_request_to_claude_and_another_to_a_model_that_samples(open_on):
    for provider, n_sent in (("anthropic", 1), ("openai", 2)):
        with StubServer([GOOD]) as server:
            open_on(provider, server).complete([ask(), ask(temperature=0.1)])
            assert len(server.requests) == n_sent


def test_an_openai_server_gets_a_schema_and_sampling(open_on):
    with StubServer([GOOD]) as server:
        reply_of(open_on("openai", server), ask(temperature=0.3, top_p=0.7))
        (received,) = server.requests
    assert received.path == COMPLETIONS
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert (received.body["temperature"], received.body["top_p"], received.body["max_tokens"]) == (0.3, 0.7, 200)
    assert received.body["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(
    ("understood", "n_refused"), [("json_schema", 0), ("json_object", 1), ("text", 2)], ids=lambda value: str(value)
)
def test_a_server_that_understands_less_is_asked_for_less_and_that_is_remembered(understood, n_refused, open_on):
    def script(number, body):
        mode = body.get("response_format", {"type": "text"})["type"]
        return GOOD if mode == understood else Fault.BAD_REQUEST

    with StubServer(script) as server:
        client = open_on("openai", server)
        assert all(group[0].text == GOOD for group in client.complete([ask(i) for i in range(4)]))
        assert len(server.requests) == 4 + n_refused
        last = server.requests[-1]
    assert ("follows this schema" in last.prompt) == (understood != "json_schema")


def test_the_sampling_and_limit_a_server_names_are_given_up():
    from facviz.llm.openai import OpenAIAdapter

    adapter = OpenAIAdapter("stub-model", base_url="http://127.0.0.1:9/v1")
    for param in ("temperature", "max_tokens"):
        assert adapter._degrade({"param": param}, adapter._body(ask(schema=None)), "json_schema")
        assert not adapter._degrade({"param": param}, adapter._body(ask(schema=None)), "json_schema")
    body = adapter._body(ask(schema=None))
    assert set(body) == {"model", "messages", "top_p", "max_completion_tokens"}
    adapter.close()


@pytest.mark.parametrize(
    "body",
    [b"<html>proxy</html>", b"{}", b'{"choices": []}', b'{"choices": 3}', b"[1]", b'{"choices":[{"message":3}]}'],
)
def test_a_server_that_speaks_something_else_is_an_unknown_outcome(body, open_on, root, monkeypatch):
    import httpx2

    with StubServer([GOOD]) as server:
        client = open_on("openai", server)
        monkeypatch.setattr(client.adapter._client, "post", lambda *a, **k: httpx2.Response(200, content=body))
        assert reply_of(client).outcome is Outcome.INVALID
    assert [row["outcome"] for row in call_rows(root)] == ["unknown", "unknown"]


def test_a_claude_body_that_is_no_message_never_raises(open_on, root):
    import httpx2

    for i, body in enumerate((b"<html>proxy</html>", b"{}", b"[1]", b'{"content": 3, "usage": {}}')):
        with StubServer([GOOD]) as server:
            client = open_on("anthropic", server)
            transport = httpx2.MockTransport(
                lambda request, body=body: httpx2.Response(
                    200, content=body, headers={"content-type": "application/json"}
                )
            )
            client.adapter._client._client._transport = transport
            client.adapter._client._client._mounts = {}
            assert reply_of(client, ask(i)).outcome is Outcome.INVALID, body


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_budget_stops_a_job_before_it_is_exceeded(provider, open_on, root):
    with StubServer([GOOD], input_tokens=1000, output_tokens=200) as server:
        client = open_on(provider, server, concurrency=4, budget_usd=0.02)
        with pytest.raises(BudgetError, match="allow \\$"):
            client.complete([ask(i) for i in range(300)])
        price = client.price
        spent = len(server.requests) * (1000 * price.input + 200 * price.output) / 1e6
    assert 0.008 < spent <= 0.02
    assert sum(row["usd"] for row in call_rows(root)) == pytest.approx(spent)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_key_is_in_no_file_no_log_no_error_and_no_repr(provider, open_on, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    script = [Fault.RATE_LIMIT, Fault.SERVER_ERROR, json.dumps({"text": f"you sent {KEY}"}), Fault.DEAD_KEY]
    with StubServer(script) as server:
        client = open_on(provider, server)
        with pytest.raises(LLMError) as caught:
            client.complete([ask(0), ask(1)])
        assert all(KEY in received.headers["authorization"] for received in server.requests)
        reply = reply_of(client)
    assert json.loads(reply.text) == {"text": "you sent [key]"}
    written = [path for path in (tmp_path / "workspace").rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert all(KEY.encode() not in path.read_bytes() for path in written)
    for text in (str(caught.value), repr(client), repr(client.adapter), repr(vars(client)), caplog.text, repr(reply)):
        assert KEY not in text


def test_auto_prefers_claude_then_any_openai_server_then_nothing(monkeypatch, root):
    assert choose_provider() is None
    with pytest.raises(InputError, match="No language model is set up; set ANTHROPIC_API_KEY"):
        open_client("auto", None, root)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert choose_provider() == "openai"
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert choose_provider() == "anthropic"
    with open_client("auto", None, root) as client:
        assert client.name == "anthropic/claude-haiku-5-5"
    assert not root.exists()


def test_a_provider_without_a_key_or_a_name_is_refused(root):
    with pytest.raises(LLMError, match="no key for Claude; set ANTHROPIC_API_KEY"):
        open_client("anthropic", None, root)
    with pytest.raises(InputError, match="no paid provider 'mystery'"):
        open_client("mystery", None, root)


def test_a_server_with_one_model_needs_no_name_for_it(root):
    with StubServer([GOOD], models=("only-one",)) as server:
        with open_client("openai", None, root, base_url=f"{server.url}/v1") as client:
            assert client.name == "openai/only-one"
            assert reply_of(client).text == GOOD  # and no key is needed
        assert "authorization" not in {name.lower() for name in server.requests[0].headers}
    with (
        StubServer([GOOD], models=("a", "b")) as server,
        pytest.raises(InputError, match="offers 2 models; name one"),
    ):
        open_client("openai", None, root, base_url=f"{server.url}/v1")
    with pytest.raises(LLMError, match="does not list its models"):
        open_client("openai", None, root, base_url=f"{server.url}/v1")


def test_importing_the_package_loads_no_provider(run_python):
    program = """
import sys
import facviz.llm, facviz.llm.providers, facviz.llm.calls, facviz.llm.prices
print(sorted({"anthropic", "httpx2", "torch", "pydantic"} & set(sys.modules)))
"""
    assert run_python(program) == "[]"


def test_a_model_about_to_retire_is_still_asked(open_on):
    with StubServer([GOOD]) as server, warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        client = open_on("anthropic", server)
        client.adapter.model = "claude-sonnet-4-5"
        assert reply_of(client).text == GOOD


@pytest.mark.parametrize("raw", ["soon", "0", "-1", "inf", "nan"])
def test_a_time_limit_that_is_none_is_refused_in_one_sentence(tmp_path, monkeypatch, raw):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("FACVIZ_LLM_TIMEOUT", raw)
    with pytest.raises(InputError, match=r"FACVIZ_LLM_TIMEOUT is .* seconds above 0"):
        open_client("anthropic", None, tmp_path)


def test_the_time_limit_of_the_environment_ends_a_call(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("FACVIZ_LLM_TIMEOUT", "0.3")
    with StubServer([Fault.HANG, GOOD]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        with open_client("anthropic", None, tmp_path, concurrency=1) as client:
            client.backoff_seconds = 0.01
            (reply,) = client.complete([LLMRequest(MESSAGES_SENT, schema=SCHEMA)])[0]
    assert reply.outcome is Outcome.OK
    assert [row["outcome"] for row in call_rows(tmp_path)] == ["unknown", "ok"]
