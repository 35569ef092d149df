"""Answers that Prometheus should not give are no samples, and errors hold no secrets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.adapters import prometheus as module
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.prometheus import Prometheus
from secure_pipeline.canary.target import ServiceAccess
from secure_pipeline.errors import ConfigError, Inconclusive, PipelineError, Unavailable

TOKEN = "s3cret-token"


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with fault_proxy() as running:
        yield running


def access(proxy: FaultProxy, **more: Any) -> ServiceAccess:
    return ServiceAccess(f"http://{proxy.host}/prom/", timeout=timedelta(seconds=1), **more)


def ask(proxy: FaultProxy, **more: Any) -> Prometheus:
    return Prometheus(access(proxy, **more), SystemClock())


def success(kind: str, result: Any, **more: Any) -> bytes:
    data = {"resultType": kind, "result": result}
    return json.dumps({"status": "success", "data": data, **more}).encode()


def says(proxy: FaultProxy, body: bytes, status: int = 200) -> None:
    proxy.on("GET", "/api/v1/query", fault.answer(status, body))


def raised(action: Callable[[], object]) -> PipelineError:
    with pytest.raises((Unavailable, Inconclusive)) as caught:
        action()
    return caught.value


def test_raw_samples_are_as_they_were_scraped(proxy: FaultProxy) -> None:
    """Exact times and values, special numbers included, of the range that was asked for."""
    values = [[1.5, "1"], [2, "NaN"], [3.25, "+Inf"]]
    says(proxy, success("matrix", [{"metric": {"__name__": "x"}, "values": values}]))
    (series,) = ask(proxy).samples('x{a="b"}', 2.0004)
    assert series.labels == {"__name__": "x"}
    assert [time for time, _ in series.samples] == [1.5, 2.0, 3.25]
    assert str(series.samples[1:]) == "((2.0, nan), (3.25, inf))"
    assert proxy.seen[0].path == "/prom/api/v1/query?query=x%7Ba%3D%22b%22%7D%5B2001ms%5D"


MATRIX = {"metric": {}, "values": [[1, "1"]]}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>login</html>",
        b"",
        b'{"status":"success"',
        b"[]",
        b'{"status":"error","data":{}}',
        b'{"status":"success"}',
        b'{"status":"success","status":"success"}',
        success("vector", []),
        success("matrix", {}),
        success("matrix", ["x"]),
        success("matrix", [MATRIX], warnings=["partial answer"]),
        success("matrix", [MATRIX, MATRIX]),
        success("matrix", [{"metric": {"a": 1}, "values": [[1, "1"]]}]),
        success("matrix", [{"values": [[1, "1"]]}, {"metric": {}, "values": [[1, "1"]]}]),
        *(
            success("matrix", [{"metric": {}, "values": values}])
            for values in (
                None,
                [],
                "x",
                [[1]],
                [[1, 1]],
                [["1", "1"]],
                [[True, "1"]],
                [[10**400, "1"]],
            )
        ),
        *(
            success("matrix", [{"metric": {}, "values": values}])
            for values in ([[1, "1_0"]], [[1, "x"]], [[2, "1"], [1, "1"]], [[1, "1"], [1, "2"]])
        ),
        success("matrix", [{"metric": {}, "histograms": [[1, {}]]}]),
    ],
)
def test_can_01_what_is_no_matrix_is_inconclusive(proxy: FaultProxy, body: bytes) -> None:
    """HTML, broken JSON, wrong types, warnings, disorder and doubles give no samples."""
    says(proxy, body)
    with pytest.raises(Inconclusive):
        ask(proxy).samples("x", 5)


def test_too_much_is_inconclusive(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer over the limit, or with too many series, is not read on."""
    items = [{"metric": {"n": str(n)}, "values": [[1, "1"]]} for n in range(9)]
    says(proxy, success("matrix", items))
    monkeypatch.setattr(module, "MAX_SERIES", 8)
    assert "limit 8" in str(raised(lambda: ask(proxy).samples("x", 5)))
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 100)
    assert "limit 100" in str(raised(lambda: ask(proxy).samples("x", 5)))


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (success("scalar", [1, "NaN"]), "nan"),
        (success("vector", [{"metric": {}, "value": [1, "+Inf"]}]), "inf"),
        (success("vector", [{"metric": {}, "value": [1, "1"]}] * 2), "2 samples"),
        (success("vector", [{"metric": {}}]), "no sample"),
        (success("string", [1, "x"]), "not one number"),
        (success("vector", [], warnings=["x"]), "warnings"),
    ],
)
def test_a_value_is_one_finite_number(proxy: FaultProxy, result: bytes, why: str) -> None:
    """NaN, infinity, several samples and warnings are no value."""
    says(proxy, result)
    error = raised(lambda: ask(proxy).value("x"))
    assert isinstance(error, Inconclusive)
    assert why in str(error)


def test_an_empty_value_is_none(proxy: FaultProxy) -> None:
    """No result is told apart from 0, and from trouble."""
    says(proxy, success("vector", []))
    assert ask(proxy).value("x") is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Inconclusive), (404, Inconclusive), (422, Inconclusive), (302, Unavailable)]
    + [(status, Unavailable) for status in (401, 403, 429, 500, 502, 503, 504)],
)
def test_can_01_statuses(proxy: FaultProxy, status: int, kind: type[PipelineError]) -> None:
    """Refused expressions are inconclusive, a service that fails or refuses is unavailable."""
    body = json.dumps({"status": "error", "error": f"bad {TOKEN} \x1b[2J" + "y" * 999}).encode()
    proxy.on("GET", "/", fault.answer(status, body, Location=f"http://{proxy.host}/other"))
    error = raised(lambda: ask(proxy).value("x"))
    assert type(error) is kind
    assert len(str(error)) < 500
    assert "\x1b" not in str(error)
    assert len(proxy.seen) <= 2, "a redirect is not followed, and there is one retry at most"


@pytest.mark.parametrize("bad", [fault.drip, fault.drip_headers, fault.silent, fault.cut])
def test_can_01_no_answer_in_time(proxy: FaultProxy, bad: fault.Fault) -> None:
    """A service that hangs, drips or hangs up is unavailable within the call's deadline."""
    proxy.on("GET", "/", bad)
    began = time.monotonic()
    assert isinstance(raised(lambda: ask(proxy).clock()), Unavailable)
    assert time.monotonic() - began < 30


def test_credentials_are_sent_as_they_are_now_and_never_told(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    """A rotated token is used at the next call; what a server echoes of it is left out."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    service = ask(proxy, token_file=str(file))
    proxy.on("GET", "/", fault.answer(400, json.dumps({"error": f"no {TOKEN}!"}).encode()))
    assert str(raised(service.clock)).endswith("answers 400: no …!")
    file.write_text("another")
    raised(service.clock)
    sent = [seen.headers["authorization"] for seen in proxy.seen]
    assert sent == [f"Bearer {TOKEN}", "Bearer another"]
    for text in ("", "two\nlines", "\x00", "spaced out"):
        file.write_text(text)
        assert "credentials" in str(raised(service.clock))
    file.unlink()
    assert isinstance(raised(service.clock), Unavailable)
    assert len(proxy.seen) == 2


def test_basic_authentication(proxy: FaultProxy, tmp_path: Path) -> None:
    """A name and the password of a file."""
    (tmp_path / "password").write_text("pass word\n")
    says(proxy, success("scalar", [1, "5"]))
    service = ask(proxy, username="me", password_file=str(tmp_path / "password"))
    assert service.clock() == 5
    assert proxy.seen[0].headers["authorization"] == "Basic bWU6cGFzcyB3b3Jk"


@pytest.mark.parametrize("url", ["http://192.0.2.1:9090", "https://a/?x=1", "https://a/#b"])
def test_addresses_that_are_refused(url: str) -> None:
    """Plain http to another machine, and more than an address and a path."""
    with pytest.raises(ConfigError):
        Prometheus(ServiceAccess(url), SystemClock())


def rule(**changes: Any) -> dict[str, Any]:
    return {
        "type": "alerting",
        "name": "Slow",
        "health": "ok",
        "lastEvaluation": datetime.now(UTC).isoformat(),
        "alerts": [
            {"labels": {"a": "1"}, "state": "firing"},
            {"labels": {"a": "2"}, "state": "pending"},
        ],
        **changes,
    }


def with_rules(proxy: FaultProxy, *rules: object, interval: object = 1) -> None:
    data = {"groups": [{"name": "g", "interval": interval, "rules": list(rules)}]}
    body = json.dumps({"status": "success", "data": data}).encode()
    proxy.on("GET", "/api/v1/rules", fault.answer(200, body))
    says(proxy, success("scalar", [time.time(), str(time.time())]))


def test_alerts_that_fire(proxy: FaultProxy) -> None:
    """Firing ones with their labels; pending ones and other rules are left out."""
    with_rules(proxy, rule(), rule(name="Other"), rule(type="recording"))
    (alert,) = ask(proxy).alerts(["Slow"])
    assert (alert.name, alert.labels) == ("Slow", {"a": "1"})
    assert ask(proxy).alerts([]) == ()


OLD = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Other"},
        {"type": "recording"},
        {"health": "err", "lastError": "many-to-many"},
        {"health": "unknown"},
        {"health": None},
        {"lastEvaluation": OLD},
        {"lastEvaluation": "0001-01-01T00:00:00Z"},
        {"lastEvaluation": "yesterday"},
        {"lastEvaluation": None},
        {"alerts": "none"},
        {"alerts": [{"labels": {"a": 1}, "state": "firing"}]},
        {"alerts": [{"labels": {}}]},
    ],
)
def test_silence_of_a_rule_that_is_not_at_work_is_inconclusive(
    proxy: FaultProxy, changes: dict[str, Any]
) -> None:
    """Unknown, failing, late and malformed rules tell nothing by not firing."""
    with_rules(proxy, rule(**changes))
    assert isinstance(raised(lambda: ask(proxy).alerts(["Slow"])), Inconclusive)


def test_one_failing_rule_of_a_name_is_enough(proxy: FaultProxy) -> None:
    """Every rule with the name has to be at work, in groups that say how often."""
    with_rules(proxy, rule(), rule(health="err"))
    assert isinstance(raised(lambda: ask(proxy).alerts(["Slow"])), Inconclusive)
    proxy.rules.clear()
    with_rules(proxy, rule(), interval=None)
    assert isinstance(raised(lambda: ask(proxy).alerts(["Slow"])), Inconclusive)


def test_alertmanager_adds_what_it_holds_as_active(proxy: FaultProxy) -> None:
    """Silenced and inhibited ones are left out; a silence hides nothing that the rule says."""

    def held(state: str, **muted: list[str]) -> dict[str, Any]:
        labels = {"alertname": "Slow", "from": state + "".join(muted)}
        return {"labels": labels, "status": {"state": state, **muted}}

    items = [held("active"), held("suppressed"), held("active", silencedBy=["x"])]
    items += [held("active", inhibitedBy=["x"]), held("unprocessed")]
    with_rules(proxy, rule())
    proxy.on("GET", "/api/v2/alerts", fault.answer(200, json.dumps(items).encode()))
    service = Prometheus(access(proxy), SystemClock(), alertmanager=access(proxy))
    assert [alert.labels for alert in service.alerts(["Slow"])] == [
        {"a": "1"},
        {"alertname": "Slow", "from": "active"},
    ]
    proxy.rules.pop()
    proxy.on("GET", "/api/v2/alerts", fault.answer(200, b'{"data": []}'))
    assert isinstance(raised(lambda: service.alerts(["Slow"])), Inconclusive)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metric", "value", "values", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["matrix", "vector", "scalar", "string"]), JSON)
def test_any_result_is_an_answer_or_inconclusive(kind: str, result: object) -> None:
    """No result, however odd, is more than the error of the port."""
    service = Prometheus(ServiceAccess("http://127.0.0.1:1"), SystemClock())
    service._query = lambda query: (kind, result)  # type: ignore[method-assign]
    for call in (service.clock, lambda: service.value("x"), lambda: service.samples("x", 1)):
        with suppress(Inconclusive):
            call()
