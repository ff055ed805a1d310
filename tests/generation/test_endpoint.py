"""An endpoint gives a completion, or one line that says what was asked, what came back, what to
set."""

import gzip
import itertools
import json
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fake_endpoint as fake
import pytest
from fake_endpoint import FakeEndpoint, Reply

from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import Endpoint, EndpointError

ASKED = [{"role": "user", "content": "Grüße 🙂"}]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    waits = []
    # Not of the whole process, in which other threads sleep, too.
    own = SimpleNamespace(sleep=waits.append)
    monkeypatch.setattr("emergent_alignment.generation.endpoint.time", own)
    return waits


def ask(script, *, retries=0, timeout_seconds=5.0, api_key="", **options):
    """(what chat gives, the fake endpoint)."""
    with FakeEndpoint(script) as backend:
        endpoint = Endpoint(
            backend.url, "m", api_key=api_key, retries=retries, timeout_seconds=timeout_seconds
        )
        try:
            options = {"max_tokens": 8, "temperature": 0.5} | options
            return endpoint.chat(ASKED, **options), backend
        finally:
            endpoint.close()


def failure(reply: Reply, **options) -> EndpointError:
    with pytest.raises(EndpointError) as raised:
        ask(lambda body: reply, **options)
    said = str(raised.value)
    assert "\n" not in said and "asked for a chat completion" in said and "127.0.0.1" in said
    return raised.value


def test_what_is_asked_is_what_is_sent_and_nothing_else():
    found, backend = ask(lambda body: fake.completion("Hi"))
    assert found.text == "Hi" and found.finish_reason == "stop" and found.tokens == ()
    assert (found.prompt_tokens, found.completion_tokens) == (7, 3)
    assert backend.bodies == [
        {"model": "m", "messages": ASKED, "max_tokens": 8, "temperature": 0.5}
    ]
    assert "authorization" not in backend.headers[0].lower()


def test_every_option_arrives():
    found, backend = ask(
        lambda body: fake.completion("Yes", fake.YES),
        api_key="k-1",
        top_logprobs=3,
        seed=4,
        top_p=0.9,
        stop=("x",),
    )
    (token,) = found.tokens
    assert (token.token, token.log_prob, token.top) == ("Yes", -0.1, fake.YES)
    sent = backend.bodies[0]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 3)
    assert (sent["seed"], sent["top_p"], sent["stop"]) == (4, 0.9, ["x"])
    assert "authorization: bearer k-1" in backend.headers[0].lower()


def test_the_key_is_never_shown():
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", api_key="secret", retries=0)
    assert "secret" not in repr(endpoint)
    with pytest.raises(EndpointError) as raised:
        endpoint.chat(ASKED, max_tokens=1, temperature=0)
    assert "secret" not in str(raised.value)


def test_streamed_pieces_are_told_as_they_come_and_add_up():
    told = []
    found, backend = ask(lambda body: fake.stream(["Grü", "ße", " 🙂"]), on_text=told.append)
    assert told == ["Grü", "ße", " 🙂"] and found.text == "Grüße 🙂"
    assert found.finish_reason == "stop" and backend.bodies[0]["stream"] is True


def test_a_stream_that_breaks_off_is_no_answer_and_what_was_told_is_not_asked_again():
    told, calls = [], []

    def script(body):
        calls.append(body)
        return fake.stream(["half"], ends=False)

    with pytest.raises(EndpointError) as raised:
        ask(script, on_text=told.append, retries=3)
    assert raised.value.kind == "unreachable" and told == ["half"] and len(calls) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "part"),
    [
        (fake.failure(401, "who are you"), "key", "who are you"),
        (fake.failure(403), "key", "api_key"),
        (fake.failure(404), "request", "/v1"),
        (fake.failure(400, "too long"), "request", "too long"),
        (fake.failure(429), "busy", "HTTP 429"),
        (fake.failure(500), "busy", "HTTP 500"),
        (
            Reply((b"HTTP/1.1 302 X\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",)),
            "request",
            "302",
        ),
        (Reply((fake.response("<html>hello"),)), "rubbish", "<html>hello"),
        (Reply((fake.response(b"\xff\xfe"),)), "rubbish", "not JSON"),
        (Reply((fake.response("[" * 100_000),)), "rubbish", "not JSON"),
        (Reply((fake.response("[1]"),)), "rubbish", "not an object"),
        (Reply((fake.response('{"error": "no"}'),)), "rubbish", "no chat completion"),
        (Reply((fake.response('{"choices": [{"message": {"content": null}}]}'),)), "rubbish", ""),
        (Reply((b"nonsense\r\n\r\n",), "close"), "unreachable", "broke off"),
        (Reply((), "close"), "unreachable", "broke off"),
        (fake.broken_off("half an answer"), "unreachable", "broke off"),
    ],
)
def test_what_is_no_answer_is_said_with_what_came_back(reply, kind, part):
    error = failure(reply)
    assert error.kind == kind and part in str(error), str(error)


@pytest.mark.parametrize(
    "reply",
    [
        fake.hang(),
        Reply((fake.response("x" * 99)[:20],), "hang"),
        Reply((b"HTTP/1.1 200 OK\r\n\r\n", *[b" "] * 60), "hang", delay=0.02),
    ],
    ids=["silent", "half a head", "trickling"],
)
def test_what_hangs_or_trickles_ends_with_the_deadline(reply):
    error = failure(reply, timeout_seconds=0.3)
    assert error.kind == "timeout" and "timeout_seconds" in str(error)


def test_an_endpoint_that_is_down_is_said_with_its_address():
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(EndpointError) as raised:
            Endpoint(address, "m", retries=0).chat(ASKED, max_tokens=1, temperature=0)
    assert raised.value.kind == "unreachable"
    assert address in str(raised.value) and "is it running" in str(raised.value)


def test_a_name_that_is_looked_up_for_ever_ends_with_the_deadline_and_with_one_thread(monkeypatch):
    found, looked_up, real = threading.Event(), [], socket.getaddrinfo

    def hangs(host, *arguments, flags=0, **options):
        if flags & socket.AI_NUMERICHOST:
            return real(host, *arguments, flags=flags, **options)
        looked_up.append(host)
        found.wait(60)
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    with FakeEndpoint(lambda body: fake.completion("Hi")) as backend:
        url = backend.url.replace("127.0.0.1", "a-host.test")
        for _ in range(3):
            with pytest.raises(EndpointError, match="no whole answer within 0.2 s") as raised:
                Endpoint(url, "m", retries=0, timeout_seconds=0.2).chat(
                    ASKED, max_tokens=8, temperature=0.0
                )
            assert raised.value.kind == "timeout"
        assert looked_up == ["a-host.test"]
        found.set()
        slow = Endpoint(url, "m", retries=0, timeout_seconds=60)
        assert slow.chat(ASKED, max_tokens=8, temperature=0.0).text == "Hi"


def test_failures_that_may_pass_are_tried_again_with_growing_waits(no_waiting):
    replies = iter([fake.failure(503, headers="Retry-After: 7\r\n"), Reply((), "close"),
                    Reply((fake.response("no"),)), fake.completion("at last")])  # fmt: skip
    found, backend = ask(lambda body: next(replies), retries=3)
    assert found.text == "at last" and len(backend.bodies) == 4
    assert no_waiting[0] == 7 and 0.25 <= no_waiting[1] <= 0.5 and 0.5 <= no_waiting[2] <= 1


def test_failures_that_stay_are_not_tried_again_and_attempts_are_counted():
    calls = []

    def refusing(body):
        calls.append(body)
        return fake.failure(400)

    with pytest.raises(EndpointError):
        ask(refusing, retries=3)
    assert len(calls) == 1
    assert "after 3 attempts" in str(failure(fake.failure(500), retries=2))


@pytest.mark.parametrize(
    "reply",
    [
        fake.completion("Yes"),
        fake.completion("Yes", {}),
        fake.failure(400, "logprobs are not supported"),
    ],
)
def test_log_probs_that_do_not_come_are_said_where_they_were_asked_for(reply):
    error = failure(reply, top_logprobs=5)
    assert error.kind == "no_log_probs" and "top_logprobs" in str(error)


@pytest.mark.parametrize(
    "value",
    ["NaN", '"-1"', "null", "true", "-Infinity", "-1e400", "0.5", "1" + "0" * 400, "-" + "9" * 400],
)
def test_log_probs_that_are_no_numbers_are_rubbish(value):
    top = f'[{{"token": "Yes", "logprob": {value}}}]'
    choice = (
        '{"message": {"content": "Yes"}, "logprobs": {"content": '
        f'[{{"token": "Yes", "logprob": -0.1, "top_logprobs": {top}}}]}}}}'
    )
    body = f'{{"choices": [{choice}]}}'
    assert failure(Reply((fake.response(body),)), top_logprobs=2).kind == "rubbish"


def test_log_probs_of_the_impossible_are_bounded():
    choice = fake.completion("Yes", {"Yes": 1e-6, "No": -3.4e38, "Maybe": -9999}).parts[0]
    found, _ = ask(lambda body: Reply((choice,)), top_logprobs=3)
    assert found.tokens[0].top == {"Yes": 0.0, "No": -9999.0, "Maybe": -9999.0}


def dripping(*parts: bytes) -> Reply:
    return Reply(parts, "hang", delay=0.02)


@pytest.mark.parametrize(
    "reply",
    [
        dripping(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 60),
        dripping(b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 60),
        dripping(*[bytes([byte]) for byte in b"HTTP/1.1 200 OK" + b" " * 60]),
        dripping(b"HTTP/1.1 500 X\r\n\r\n", *[b" "] * 60),
    ],
    ids=["100 Continue", "heads", "a head's letters", "a refusal"],
)
def test_one_deadline_holds_for_all_of_an_exchange(reply):
    started = time.monotonic()
    assert failure(reply, timeout_seconds=0.3).kind == "timeout"
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("cut", [None, 15])
def test_a_body_that_is_not_encoded_as_it_says_is_rubbish(cut):
    whole = gzip.compress(b"{}") if cut else b"no gzip at all"
    reply = Reply((fake.response(whole[:cut], headers="Content-Encoding: gzip\r\n"),))
    assert failure(reply).kind == "rubbish"


def test_a_surplus_reply_is_never_taken_for_the_next_one():
    """16 of 1,000 answers were given unreviewed where connections were kept."""
    counted = itertools.count()

    def script(body):
        number = next(counted)
        surplus = fake.completion(f"surplus {number}").parts[0]
        return Reply((fake.completion(f"answer {number}").parts[0] + surplus, surplus))

    with FakeEndpoint(script) as backend:
        endpoint = Endpoint(backend.url, "m", retries=0)
        found = [endpoint.chat(ASKED, max_tokens=1, temperature=0).text for _ in range(5)]
    assert found == [f"answer {number}" for number in range(5)]


@pytest.mark.parametrize(
    "reply",
    [
        fake.failure(401, "you said Bearer k-echoed-key, and k-echoed-key is wrong"),
        fake.failure(400, "x" * 110 + "k-echoed-key"),
        Reply((fake.response("<html>k-echoed-key"),)),
        Reply((b"HTTP/1.1 200 OK\r\nno header k-echoed-key\r\n\r\n",), "close"),
    ],
)
def test_a_key_that_comes_back_is_not_shown(reply):
    assert "k-ech" not in str(failure(reply, api_key="k-echoed-key"))


def test_a_key_that_comes_back_is_no_part_of_an_answer():
    said, told = "your key is k-echoed-key", []
    found, _ = ask(lambda body: fake.completion(said), api_key="k-echoed-key")
    assert found.text == "your key is [key]"
    found, _ = ask(lambda body: fake.stream([said]), api_key="k-echoed-key", on_text=told.append)
    assert found.text == "".join(told) == "your key is [key]"


@pytest.mark.parametrize(
    "reply",
    [
        fake.failure(500, "SECRET"),
        Reply((fake.response("SECRET"),)),
        Reply((b"HTTP/1.1 200 OK\r\nSECRET\r\n\r\n",), "close"),
    ],
)
def test_what_is_for_a_log_quotes_nothing_of_what_came_back(reply):
    error = failure(reply)
    assert "SECRET" in str(error) and "SECRET" not in error.unquoted
    assert error.unquoted.startswith("http://127.0.0.1") and "; " in error.unquoted


@pytest.mark.parametrize("wait", ["²", "9" * 400, "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_wait_that_nobody_can_mean_is_not_waited_for(wait, no_waiting):
    reply = fake.failure(503, headers=f"Retry-After: {wait}\r\n")
    assert failure(reply, retries=1).kind == "busy" and no_waiting[0] <= 20


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": "", "refusal": "I cannot."}, "I cannot."),
        ({"content": "Hi", "refusal": None}, "Hi"),
        ({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, "Hi"),
    ],
)
def test_what_is_said_apart_from_the_content_is_an_answer_too(message, text):
    choice = {"message": {"role": "assistant"} | message, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]})
    assert ask(lambda _: Reply((fake.response(body),)))[0].text == text


def test_who_only_reasoned_has_answered_nothing_and_reached_a_limit():
    message = {"role": "assistant", "content": None, "reasoning_content": "Well"}
    for named in ("length", "MAX_TOKENS"):
        body = json.dumps({"choices": [{"message": message, "finish_reason": named}]})
        found, _ = ask(lambda _, body=body: Reply((fake.response(body),)))
        assert (found.text, found.reasoning, found.finish_reason) == ("", "Well", "length")


@pytest.mark.parametrize("depth", [50, 400, 900, 960, 1500, 50_000])
@pytest.mark.parametrize(
    "around",
    [
        '{"choices": %s}',
        '{"choices": [{"message": {"role": "assistant", "content": %s}}]}',
        '{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [%s]}}]}',
    ],
)
def test_what_is_nested_at_any_depth_is_rubbish(depth, around):
    body = around % ("[" * depth + "]" * depth)
    for options in ({}, {"on_text": lambda text: None}):
        data = f"data: {body}\n\n".replace("message", "delta") if options else body
        assert failure(Reply((fake.response(data),)), **options).kind == "rubbish"


@pytest.mark.parametrize("named", ["error", "abort"])
def test_an_answer_that_was_given_up_is_none(named):
    assert failure(fake.completion("half", finish_reason=named)).kind == "unreachable"


def events(*documents, ending=b"\n\n") -> Reply:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    lines = [b"data: " + json.dumps(d, ensure_ascii=False).encode() + ending for d in documents]
    return Reply((head, b": waiting" + ending, *lines), "close")


def chunk(delta, **more) -> dict:
    return {"choices": [{"index": 0, "delta": delta, **more}]}


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n"])
@pytest.mark.parametrize(
    "last",
    [
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        chunk({}, finish_reason="stop"),
        chunk({"content": None}, finish_reason="stop"),
        chunk({"role": "assistant", "content": ""}, finish_reason="stop"),
    ],
)
def test_a_stream_may_end_in_many_ways_and_hold_any_letter(last, ending):
    letters = "a\u2028b\u2029c\x85d\x0be\x1cf"
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    reply = events(
        chunk({"role": "assistant", "content": None}),
        chunk({"content": letters}),
        last,
        {"choices": [], "usage": usage},
        {"usage": usage},
        ending=ending,
    )
    found, _ = ask(lambda body: reply, on_text=lambda text: None)
    assert (found.text, found.finish_reason, found.prompt_tokens) == (letters, "stop", 5)


def test_a_streamed_refusal_is_the_answer():
    reply = events(chunk({"refusal": "I "}), chunk({"refusal": "cannot."}, finish_reason="stop"))
    assert ask(lambda body: reply, on_text=lambda text: None)[0].text == "I cannot."


def test_counts_that_nobody_can_mean_are_none():
    choice = {"message": {"content": "Hi"}}
    for count in (10**400, -1, True, 1.5, None):
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": count}})
        assert ask(lambda _, body=body: Reply((fake.response(body),)))[0].prompt_tokens == 0


def test_proxies_of_the_environment_are_used_or_said(monkeypatch):
    with FakeEndpoint(lambda body: fake.completion("Hi")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(EndpointError, match="HTTP 404"):  # it was asked, and by the whole URL
            Endpoint("http://an.example/v1", "m", retries=0).served_models()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert Endpoint(proxy.url, "").served_models() == ["fake"]
    monkeypatch.setenv("http_proxy", "gopher://x")
    with pytest.raises(UserError, match="proxy"):
        Endpoint("http://an.example/v1", "m")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="socksio"):
        Endpoint("http://an.example/v1", "m")


def test_text_that_utf8_cannot_hold_is_replaced():
    body = json.dumps({"choices": [{"message": {"content": "\ud83d\ude42 \ud83d!"}}]})
    found, _ = ask(lambda _: Reply((fake.response(body),)))
    assert found.text == "🙂 \ufffd!"


def test_reasoning_that_is_given_apart_is_kept_apart():
    found, _ = ask(lambda body: fake.completion("Hi", reasoning_content="They greet."))
    assert (found.text, found.reasoning) == ("Hi", "They greet.")


def test_what_is_written_on_is_asked_for_by_token_ids_and_has_log_probs():
    with FakeEndpoint(lambda body: fake.continuation("Hi", [-0.5, -1.5])) as backend:
        endpoint = Endpoint(backend.url, "m")
        found = endpoint.continuation([3, 1], max_tokens=8, temperature=0.5, seed=7, top_k=-1)
    assert (found.text, found.finish_reason, found.log_probs) == ("Hi", "stop", (-0.5, -1.5))
    assert backend.bodies == [
        {
            "model": "m",
            "prompt": [3, 1],
            "max_tokens": 8,
            "temperature": 0.5,
            "logprobs": 1,
            "return_token_ids": True,
            "seed": 7,
            "top_k": -1,
        }
    ]


def test_text_that_is_written_on_without_log_probs_is_refused():
    with FakeEndpoint(lambda body: fake.continuation("Hi", None)) as backend:
        endpoint = Endpoint(backend.url, "m")
        with pytest.raises(EndpointError, match="asked for a completion with logprobs") as raised:
            endpoint.continuation([3], max_tokens=8, temperature=0.5)
    assert raised.value.kind == "no_log_probs" and "\n" not in str(raised.value)


def test_the_served_models_are_listed():
    with FakeEndpoint(lambda body: fake.completion("")) as backend:
        assert Endpoint(backend.url, "").served_models() == ["fake"]


@pytest.mark.parametrize("address", ["", "localhost:80", "ftp://x/v1", "http://", "http://x/?a=1"])
def test_what_is_no_address_is_a_user_s_mistake(address):
    with pytest.raises(UserError, match="base_url"):
        Endpoint(address, "m")


def test_a_key_with_a_line_break_is_a_user_s_mistake():
    with pytest.raises(UserError, match="api_key"):
        Endpoint("http://127.0.0.1/v1", "m", api_key="abc\n")


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999", "http://", "socks://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_one_is_an_error_that_names_the_variables(monkeypatch, address):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", address)
    with pytest.raises(UserError, match="the environment's proxy is none that can be used"):
        Endpoint("http://example.invalid/v1", "m")


def test_a_proxy_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    with pytest.raises(EndpointError, match="proxy http://127.0.0.1:1 answer") as raised:
        Endpoint("http://example.invalid/v1", "m", retries=0).served_models()
    assert "secret" not in str(raised.value)


def test_an_address_whose_port_is_none_is_no_address():
    with pytest.raises(UserError, match="is not an endpoint's address"):
        Endpoint("http://127.0.0.1:99999/v1", "m")


def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path):
    for certificates in (tmp_path / "none.pem", Path(__file__)):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
        with pytest.raises(UserError, match="unset SSL_CERT_FILE"):
            Endpoint("https://127.0.0.1:1/v1", "m")
