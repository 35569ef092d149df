"""The service over HTTP: answers, refusals, limits, metrics and shutdown."""

import http.client
import json
import socket
import threading
import time

import pytest

from inference_service.conversations import StoreUnavailable


def until(condition, seconds=20.0):
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def in_thread(action):
    """Run in a thread; the returned function waits and gives the result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()

    def result():
        thread.join(20)
        return results[0]

    return result


def test_generate(client):
    """A request gives the tokens asked for and says which version made them."""
    status, answer = client.generate(max_tokens=5)
    assert status == 200
    assert len(answer["text"].split()) == 5
    assert {k: answer[k] for k in ("tokens", "turns", "finish_reason", "version")} == {
        "tokens": 5,
        "turns": 1,
        "finish_reason": "length",
        "version": "v1",
    }


def test_the_conversation_is_part_of_the_input(serve):
    """Two servers given the same conversation answer the same, and a second turn differs."""
    first, second = serve()[1], serve()[1]
    answers = [[c.generate(max_tokens=20)[1]["text"] for _ in range(3)] for c in (first, second)]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 3


def test_stream(client):
    """A stream gives each token as a line and the whole answer as the last one."""
    body = json.dumps({"context_id": "s", "prompt": "x", "max_tokens": 3, "stream": True})
    status, headers, content = client.request(
        "POST", "/v1/generate", body.encode(), Content_Type="application/json; charset=utf-8"
    )
    *tokens, last = map(json.loads, content.splitlines())
    assert (status, headers["Content-Type"]) == (200, "application/x-ndjson")
    assert [*tokens[0]] == ["token"]
    assert last["done"] is True
    assert last["text"] == " ".join(token["token"] for token in tokens)


def test_one_connection_serves_many_requests(client):
    """Connections are kept open, also after a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    for stream in (False, True, False):
        body = json.dumps({"context_id": "k", "prompt": "x", "stream": stream})
        connection.request("POST", "/v1/generate", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert (response.status, response.headers["Connection"]) == (200, None)
    connection.close()


def test_twelve_turns_are_kept(client):
    """The buffer grows to twelve turns and stays there."""
    turns = [client.generate(max_tokens=1)[1]["turns"] for _ in range(14)]
    assert turns == [*range(1, 13), 12, 12]


def test_turns_are_shared_through_redis(serve, shared_redis):
    """Two replicas with one Redis continue each other's conversation."""
    replicas = [serve(redis_url=shared_redis.url)[1] for _ in range(2)]
    turns = [c.generate(context_id="replicas")[1]["turns"] for c in replicas * 2]
    assert turns == [1, 2, 3, 4]


def test_probes(client):
    """A server that works is alive and ready."""
    assert client.request("GET", "/healthz")[0] == 200
    assert client.request("GET", "/readyz?verbose")[0] == 200


def test_without_redis_it_is_alive_but_not_ready(serve, own_redis):
    """An outage of Redis is 503 with Retry-After, and ends with the outage."""
    client = serve(redis_url=own_redis.url)[1]
    assert client.generate()[0] == 200
    own_redis.stop()
    status, headers, _ = client.request("GET", "/readyz")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert client.generate()[0] == 503
    assert client.request("GET", "/healthz")[0] == 200
    own_redis.start()
    assert client.request("GET", "/readyz")[0] == 200
    assert client.generate()[0] == 200


def test_a_stream_that_cannot_be_kept_has_no_end(serve, monkeypatch):
    """When the store fails after the first token, the client sees an incomplete answer."""
    server, client = serve()
    monkeypatch.setattr(
        server.service._store, "append", lambda *_: (_ for _ in ()).throw(StoreUnavailable("x"))
    )
    body = b'{"context_id":"c","prompt":"p","stream":true}'
    with pytest.raises(http.client.IncompleteRead):
        client.request("POST", "/v1/generate", body, Content_Type="application/json")
    until(lambda: client.metric('inference_requests_total{code="503",version="v1"}') == 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/generate/", 404),
        ("GET", "/v1/generate", 405),
        ("POST", "/healthz", 405),
        ("DELETE", "/metrics", 405),
        ("TRACE", "/", 501),
    ],
)
def test_unknown_paths_and_methods(client, method, path, status):
    """Errors are JSON with a reason, and 405 names the method to use."""
    answer, headers, body = client.request(method, path)
    assert (answer, headers["Content-Type"], headers["Connection"]) == (
        status, "application/json", "close",
    )  # fmt: skip
    assert json.loads(body)["error"]
    assert ("Allow" in headers) == (status == 405)


def test_head_has_no_body(client):
    """An answer to HEAD ends with its headers."""
    assert client.raw(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (b"Content-Length: 2\r\nContent-Type: application/json\r\n", b"{}", 400),
        (b"Content-Length: 2\r\nContent-Type: text/plain\r\n", b"{}", 415),
        (b"Content-Length: 2\r\n", b"{}", 415),
        (b"", b"", 411),
        (b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}", 400),
        (b"Content-Length: +2\r\n", b"{}", 400),
        (b"Content-Length: -2\r\n", b"{}", 400),
        (b"Content-Length: 65537\r\n", b"x" * 65537, 413),
        (b"Content-Length: 99999999999\r\n", b"", 413),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 501),
        (b"X: " + b"x" * 70_000 + b"\r\n", b"", 431),
    ],
)
def test_requests_that_are_framed_wrongly(client, headers, body, status):
    """Every way of not saying clearly where the body ends is refused, and the line is closed."""
    answer = client.raw(b"POST /v1/generate HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + body)
    assert int(answer.split()[1]) == status
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize(
    "line", [b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\r\n"]
)
def test_what_is_not_http_is_answered_in_json(client, line):
    """A request line that cannot be read is an error in the usual form."""
    assert b'{"error": ' in client.raw(line)


def test_a_slow_request_is_cut_off(serve):
    """Bytes that trickle in do not extend the deadline of the whole request."""
    client = serve(receive_timeout=0.3)[1]
    head = b"POST /v1/generate HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        connection.sendall(head)
        sent = 0
        while sent < 1000:
            time.sleep(0.05)
            try:
                connection.sendall(b"x")
            except ConnectionError:
                break
            sent += 1
        assert sent < 1000
    until(lambda: client.metric('inference_requests_total{code="408",version="v1"}') == 1)


def test_an_idle_connection_is_closed(serve):
    """A connection that sends nothing is closed without an answer."""
    assert serve(receive_timeout=0.1)[1].raw(b"") == b""


def test_a_body_that_ends_early_is_a_client_that_went_away(client):
    """Half a body is never answered as if it were whole."""
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/generate HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    until(lambda: client.metric('inference_requests_total{code="499",version="v1"}') == 1)


def test_a_client_that_leaves_a_stream_frees_its_place(serve):
    """Generation ends when nobody reads it, and is counted as 499."""
    client = serve(token_delay=0.01, max_generations=1)[1]
    body = b'{"context_id":"c","prompt":"p","max_tokens":512,"stream":true}'
    head = b"POST /v1/generate HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        connection.sendall(head + b"%d\r\n\r\n" % len(body) + body)
        assert connection.recv(20).startswith(b"HTTP/1.1 200")
    until(lambda: client.metric('inference_requests_total{code="499",version="v1"}') == 1)
    assert client.generate()[0] == 200


def test_more_generations_than_allowed_are_refused(serve):
    """With one place, a second request gets 503 and Retry-After, and probes still answer."""
    client = serve(token_delay=0.05, max_generations=1)[1]
    first = in_thread(lambda: client.generate(max_tokens=40))
    until(lambda: client.metric('inference_requests_running{version="v1"}') == 1)
    body = b'{"context_id":"c","prompt":"p"}'
    status, headers, _ = client.request(
        "POST", "/v1/generate", body, Content_Type="application/json"
    )
    assert (status, headers["Retry-After"]) == (503, "1")
    assert client.request("GET", "/healthz")[0] == 200
    assert first()[0] == 200
    until(lambda: client.metric('inference_requests_running{version="v1"}') == 0)


def test_more_connections_than_allowed_are_refused(serve):
    """Connections over the bound get 503 at once, and the place comes back."""
    client = serve(max_connections=1)[1]
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        refused = client.raw(b"")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in refused
    until(lambda: client.request("GET", "/healthz")[0] == 200)


def test_a_thread_that_cannot_start_gives_its_place_back(serve, monkeypatch):
    """Failing to start a thread does not use up the connections."""
    client = serve(max_connections=1)[1]

    def fail(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
            assert connection.recv(100) == b""
    assert client.request("GET", "/healthz")[0] == 200


def test_an_unexpected_error_closes_the_connection(serve, monkeypatch, capsys):
    """A bug is one line in the log without the request's content, and no answer."""
    server, client = serve()
    monkeypatch.setattr(server.service, "generate", lambda *_: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected):
        client.generate(prompt="private")
    logged = []
    until(lambda: logged.append(capsys.readouterr().err) or "\n" in "".join(logged))
    assert "".join(logged) == "error: ZeroDivisionError while answering\n"


def test_a_client_that_resets_is_not_an_error(serve, capsys):
    """A connection reset by the client is not logged."""
    server, client = serve(receive_timeout=5)
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=20)
    connection.sendall(b"GET /he")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    assert client.request("GET", "/healthz")[0] == 200
    until(lambda: server._connections._value == server.service.settings.max_connections)
    assert capsys.readouterr().err == ""


def test_a_client_that_leaves_before_a_refusal(serve, monkeypatch):
    """A refusal that cannot be sent counts as a client that went away."""
    client = serve()[1]

    def reset(*_):
        raise ConnectionResetError

    monkeypatch.setattr("inference_service.http_api.Handler.send_response", reset)
    assert client.raw(b"POST /v1/generate HTTP/1.1\r\n\r\n") == b""
    monkeypatch.undo()
    until(lambda: client.metric('inference_requests_total{code="499",version="v1"}') == 1)


def test_injected_errors(serve):
    """FAULT_ERROR_RATE 1 fails every generation and nothing else."""
    client = serve(fault_error_rate=1.0)[1]
    assert client.generate() == (500, {"error": "injected fault"})
    assert client.request("GET", "/readyz")[0] == 200
    until(lambda: client.metric('inference_requests_total{code="500",version="v1"}') == 1)


def test_the_error_rate_is_a_share(serve):
    """A rate of 0.3 fails about three in ten."""
    server, client = serve(fault_error_rate=0.3)
    values = iter([n / 10 for n in range(10)])
    server.service._chance = lambda: next(values)
    statuses = [client.generate(max_tokens=1)[0] for _ in range(10)]
    assert statuses == [500] * 3 + [200] * 7


def test_injected_latency_is_seen_in_the_histogram(serve):
    """Tokens slower than 0.15 s are told apart exactly from the others."""
    slow, fast = serve(fault_latency=0.16, version="slow")[1], serve(version="fast")[1]
    slow.generate(max_tokens=2)
    fast.generate(max_tokens=50)

    def bucket(edge, version):
        return f'inference_token_latency_seconds_bucket{{le="{edge}",version="{version}"}}'

    assert slow.metric(bucket("0.15", "slow")) == 0
    assert slow.metric(bucket("+Inf", "slow")) == 2
    # Nearly all: a busy machine may hold a thread back for that long.
    assert fast.metric(bucket("0.15", "fast")) >= 45
    assert slow.metric('inference_token_latency_seconds_sum{version="slow"}') >= 0.32


def test_series_exist_before_the_first_request(client):
    """A version without traffic shows zeros, not nothing."""
    assert client.metric('inference_requests_total{code="500",version="v1"}') == 0
    assert client.metric('inference_requests_total{code="200",version="v1"}') == 0
    assert client.metric('inference_tokens_total{version="v1"}') == 0
    assert client.metric('inference_token_latency_seconds_count{version="v1"}') == 0
    assert client.metric("process_start_time_seconds") > 1_000_000_000


def test_only_generations_are_counted(client):
    """Probes and unknown paths do not dilute the error rate."""
    client.request("GET", "/healthz")
    client.request("GET", "/nothing")
    client.raw(b"nonsense\r\n\r\n")
    client.generate(max_tokens=7)
    client.generate(max_tokens=0)

    def counted() -> float:
        _, _, body = client.request("GET", "/metrics")
        lines = body.decode().splitlines()
        counts = [line for line in lines if line.startswith("inference_requests_total")]
        return sum(float(line.split()[-1]) for line in counts)

    until(lambda: counted() == 2)
    until(lambda: client.metric('inference_requests_total{code="400",version="v1"}') == 1)
    assert client.metric('inference_tokens_total{version="v1"}') == 7


def test_an_answer_that_takes_too_long_is_cut(serve):
    """The answer ends at the time limit and says so."""
    client = serve(token_delay=0.03, generation_timeout=0.1)[1]
    status, answer = client.generate(max_tokens=100)
    assert (status, answer["finish_reason"]) == (200, "timeout")
    assert 1 <= answer["tokens"] < 10


def test_draining_lets_running_requests_end(serve):
    """After drain() a running request gets its whole answer, and no new connection is taken."""
    server, client = serve(token_delay=0.02, drain_timeout=20.0)
    first = in_thread(lambda: client.generate(max_tokens=20))
    until(lambda: client.metric('inference_requests_running{version="v1"}') == 1)
    assert server.drain() is True
    status, answer = first()
    assert (status, answer["tokens"]) == (200, 20)
    with pytest.raises(ConnectionRefusedError):
        client.request("GET", "/healthz")


def test_draining_refuses_new_requests_on_old_connections(serve):
    """While draining, open connections hear 503 and are closed."""
    server, client = serve()
    connections = [http.client.HTTPConnection("127.0.0.1", client.port) for _ in range(3)]
    for connection in connections:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    server.drain()
    headers = {"Content-Type": "application/json"}
    answers = []
    for connection, method, path in zip(
        connections, ("GET", "POST", "GET"), ("/readyz", "/v1/generate", "/healthz"), strict=True
    ):
        connection.request(method, path, b'{"context_id":"c","prompt":"p"}', headers)
        response = connection.getresponse()
        answers.append((response.status, response.headers["Connection"]))
        connection.close()
    assert answers == [(503, "close"), (503, "close"), (200, "close")]


def test_draining_ends_at_its_deadline(serve):
    """A request that goes on too long is given up, and drain() says so."""
    server, client = serve(token_delay=0.05, drain_timeout=0.1)
    in_thread(lambda: client.generate(max_tokens=100))
    until(lambda: client.metric('inference_requests_running{version="v1"}') == 1)
    assert server.drain() is False


def test_ipv6(serve):
    """An address with colons is an IPv6 address."""
    server, _ = serve(host="::1")
    connection = http.client.HTTPConnection("::1", server.port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
