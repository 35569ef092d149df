"""Windows from a real Prometheus that scrapes two real versions of the sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fakes import faultproxy as fault
from fakes.alertmanager import alertmanager
from fakes.authority import make_authority
from fakes.faultproxy import fault_proxy
from fakes.inference import RunningService, inference
from fakes.load import load
from fakes.prometheus import RealPrometheus, prometheus
from fakes.promotions import target as a_target
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.prometheus import Prometheus
from secure_pipeline.canary.model import NoData, Sample, Window
from secure_pipeline.canary.sampling import Sampler
from secure_pipeline.canary.target import (
    AlertRule,
    LatencyRule,
    QueryRule,
    Rules,
    ServiceAccess,
    Slot,
    Target,
)
from secure_pipeline.errors import Inconclusive, Unavailable

pytestmark = pytest.mark.integration

HASHED = "$2b$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q"
"""Of ``pw``."""
ANSWERS = 'inference_token_latency_seconds_count{slot="green"} >= 0'
FIRING = 'ALERTS{alertname="Answers",alertstate="firing"}'
QUERY = QueryRule("ratio", "count(up{$canary}) / count(up{$baseline})", maximum=2)


@dataclass
class Bed:
    """Two versions and the Prometheus that scrapes them; tests leave it as it was."""

    blue: RunningService
    green: RunningService
    prometheus: RealPrometheus

    def target(self, stale: float = 60, **rules: Any) -> Target:
        slots = {
            name: Slot({"slot": name}, runtime=f"docker://{name}") for name in ("blue", "green")
        }
        base = a_target()
        analysis = replace(
            base.analysis,
            interval=timedelta(seconds=min(stale, 5)),
            stale_after=timedelta(seconds=stale),
        )
        return replace(base, slots=slots, rules=replace(Rules(), **rules), analysis=analysis)

    def metrics(self, url: str = "", seconds: float = 5) -> Prometheus:
        access = ServiceAccess(url or self.prometheus.url, timeout=timedelta(seconds=seconds))
        return Prometheus(access, SystemClock())

    def sampler(self, url: str = "", seconds: float = 5, **more: Any) -> Sampler:
        return Sampler(self.target(**more), "green", self.metrics(url, seconds))


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    directory = tmp_path_factory.mktemp("bed")
    rules = {"Answers": ANSWERS, "Never": "vector(1) > 2"}
    with (
        inference(directory / "blue", "v1") as blue,
        inference(directory / "green", "v2", latency_ms=160, error_rate=0.3) as green,
        prometheus(
            directory / "prometheus",
            [(blue.host, {"slot": "blue"}), (green.host, {"slot": "green"})],
            rules=rules,
            interval="250ms",
        ) as running,
    ):
        made = Bed(blue, green, running)
        running.wait("count(process_start_time_seconds)", 2)
        running.wait(FIRING)
        yield made


@contextmanager
def traffic(bed: Bed) -> Iterator[None]:
    with load(bed.blue.url, rate=20, tokens=4), load(bed.green.url, rate=12, tokens=4):
        yield


def until(
    sampler: Sampler, right: Callable[[Sample], bool], seconds: float = 30
) -> tuple[list[Sample], Sample]:
    """Look until something is seen; all looks, and the last one."""
    deadline = time.monotonic() + seconds
    seen: list[Sample] = []
    while True:
        seen.append(sampler.sample())
        if right(seen[-1]):
            return seen, seen[-1]
        assert time.monotonic() < deadline, [str(item.window)[:200] for item in seen[-3:]]
        time.sleep(0.1)


def is_window(sample: Sample) -> bool:
    return isinstance(sample.window, Window)


def restarted(sample: Sample) -> bool:
    return isinstance(sample.window, Window) and sample.window.canary.restarts > 0


def why(sample: Sample) -> str:
    return sample.window.why if isinstance(sample.window, NoData) else ""


def test_windows_show_both_versions_as_they_are(bed: Bed) -> None:
    """The slow version's tokens are all over the limit, the other's are not; errors are seen."""
    sampler = bed.sampler(queries=(QUERY,), alerts=(AlertRule("Answers"), AlertRule("Never")))
    assert sampler.check() == ()
    assert "exactly" in sampler.notes()[0]
    with traffic(bed):
        sampler.mark()
        windows: list[Window] = []
        while sum(window.canary.requests for window in windows) < 30:
            _, sample = until(sampler, is_window)
            assert isinstance(sample.window, Window)
            windows.append(sample.window)
    for earlier, later in pairwise(windows):
        assert earlier.ended == later.begun
    assert all(window.canary.slow.value == window.canary.tokens for window in windows)
    assert all(window.canary.slow.exact for window in windows)
    assert sum(window.canary.errors for window in windows) > 0
    assert sum(window.baseline.errors for window in windows) == 0
    slow = sum(window.baseline.slow.value for window in windows)
    assert slow < sum(window.baseline.tokens for window in windows) / 4
    assert sum(window.canary.restarts for window in windows) == 0
    assert sample.queries[0].value == 1.0
    assert [alert.firing for alert in sample.alerts] == [True, False]


def test_a_limit_between_two_edges_is_interpolated(bed: Bed) -> None:
    """Tokens of some 0.16 s lie between 0.15 and 0.2: the bounds say how little is known."""
    limit = LatencyRule(limit=timedelta(milliseconds=180))
    sampler = bed.sampler(latency=limit)
    assert "edges next to it are 0.15 s and 0.2 s" in sampler.notes()[0]
    with traffic(bed):
        sampler.mark()
        _, sample = until(sampler, is_window)
    assert isinstance(sample.window, Window)
    slow = sample.window.canary.slow
    assert slow.low <= slow.value <= slow.high == sample.window.canary.tokens
    assert not slow.exact


def test_samples_before_the_switch_are_in_no_window(bed: Bed) -> None:
    """What was served before traffic moved never counts."""
    before = bed.prometheus.wait('sum(inference_requests_total{slot="green"})', 0)
    with load(bed.green.url, rate=20, tokens=4) as running:
        running.wait(20)
    bed.prometheus.wait('sum(inference_requests_total{slot="green"})', before + 20)
    sampler = bed.sampler()
    sampler.mark()
    for _ in range(4):
        seen, _ = until(sampler, lambda found: "0 of 20 tokens" in why(found))
        assert not any(is_window(item) for item in seen)


def test_can_04_no_or_little_traffic_is_no_data(bed: Bed) -> None:
    """Nothing, then five tokens, are too few; with more the window grows to enough."""
    sampler = bed.sampler()
    sampler.mark()
    until(sampler, lambda found: "0 of 20 tokens" in why(found))
    with load(bed.green.url, rate=2, tokens=4, threads=1):
        seen, last = until(sampler, is_window)
    assert any(0 < int(why(item).split()[0]) < 20 for item in seen if "of 20 tokens" in why(item))
    assert isinstance(last.window, Window)
    assert last.window.canary.tokens >= 20


def test_can_02_an_empty_answer_is_no_data(bed: Bed) -> None:
    """Series that are not there, and expressions without a result, are no data."""
    target = bed.target(queries=(replace(QUERY, query="absent_metric{$canary}"),))
    nothing = Slot({"slot": "x"}, runtime="docker://a")
    wrong = replace(target, slots={**target.slots, "green": nothing})
    sampler = Sampler(wrong, "green", bed.metrics())
    sampler.mark()
    sample = sampler.sample()
    assert why(sample) == "no series of green"
    assert sample.queries[0].value == NoData("the result is empty")
    assert any(problem.startswith("green: no series") for problem in sampler.check())


def test_can_07_a_restart_is_seen_and_counts_from_0(bed: Bed) -> None:
    """After a crash the counters begin anew; the window has the restart and no negative number."""
    sampler = bed.sampler()
    with traffic(bed):
        sampler.mark()
        until(sampler, is_window)
        time.sleep(1.1)
        bed.green.restart()
        seen, _ = until(sampler, restarted)
        after, _ = until(sampler, is_window)
    windows = [item.window for item in seen + after if isinstance(item.window, Window)]
    assert sum(window.canary.restarts for window in windows) == 1
    assert sum(window.baseline.restarts for window in windows) == 0


def test_can_01_down_hanging_and_back(bed: Bed) -> None:
    """Killed or stopped, Prometheus gives no data; afterwards windows go on by themselves."""
    sampler = bed.sampler(seconds=1, alerts=(AlertRule("Never"),))
    with traffic(bed):
        sampler.mark()
        until(sampler, is_window)
        bed.prometheus.stop()
        stopped = sampler.sample()
        bed.prometheus.go_on()
        assert "within the deadline" in why(stopped)
        assert isinstance(stopped.alerts[0].firing, NoData)
        until(sampler, is_window)
        bed.prometheus.kill()
        down = sampler.sample()
        bed.prometheus.start()
        bed.prometheus.wait_ready()
        assert "no answer" in why(down)
        until(sampler, is_window)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (fault.answer(503, b"busy"), "503"),
        (fault.answer(500, b""), "500"),
        (fault.answer(200, b"<html>Sign in</html>"), "no JSON"),
        (fault.answer(200, b'{"status":"success","data":{"resultType"'), "no JSON"),
        (fault.cut_body(40), "broke off"),
        (fault.answer(302, b"", Location="https://127.0.0.1/login"), "redirects"),
    ],
)
def test_can_01_wrong_answers(bed: Bed, bad: fault.Fault, said: str) -> None:
    """5xx, HTML, cut JSON and login redirects before a real Prometheus are no data."""
    with fault_proxy(f"127.0.0.1:{bed.prometheus.port}") as proxy:
        sampler = bed.sampler(f"http://{proxy.host}")
        assert sampler.check() == ()
        sampler.mark()
        proxy.on("GET", "/api/v1/query", bad)
        assert said in why(sampler.sample())
        assert said in sampler.check()[0]


def test_stale_after_the_service_is_gone(bed: Bed) -> None:
    """Once the canary cannot be scraped, its last sample grows old and is no data."""
    sampler = bed.sampler(stale=2)
    with load(bed.blue.url, rate=10):
        sampler.mark()
        until(sampler, lambda found: "0 of 20 tokens" in why(found))
        bed.green.kill()
        try:
            until(sampler, lambda found: why(found).startswith(("stale", "no series of green")))
        finally:
            bed.green.start()
    bed.prometheus.wait('sum(up{slot="green"})', 1)


def test_alerts_of_real_rules(bed: Bed) -> None:
    """A rule that fires tells its labels; an unknown name is inconclusive."""
    metrics = bed.metrics()
    bed.prometheus.wait(FIRING)
    firing = metrics.alerts(["Answers", "Never"])
    assert {(alert.name, alert.labels["slot"]) for alert in firing} == {("Answers", "green")}
    with pytest.raises(Inconclusive, match="no alerting rule"):
        metrics.alerts(["Unheard"])
    sample = bed.sampler(alerts=(AlertRule("Answers", {"slot": "blue"}),)).sample()
    assert sample.alerts[0].firing is False


def test_what_alertmanager_has_silenced_is_not_counted(bed: Bed, tmp_path: Path) -> None:
    """An alert of another Prometheus fires through Alertmanager, until it is silenced there."""
    with alertmanager(tmp_path) as running:
        metrics = Prometheus(bed.prometheus.access, SystemClock(), alertmanager=running.access)
        assert metrics.alerts(["Never"]) == ()
        running.post({"alertname": "Never", "slot": "green"})
        running.wait("Never", "active")
        (alert,) = metrics.alerts(["Never"])
        assert alert.labels["slot"] == "green"
        running.silence({"alertname": "Never"})
        running.wait("Never", "suppressed")
        assert metrics.alerts(["Never"]) == ()
        running.kill()
        with pytest.raises(Unavailable):
            metrics.alerts(["Never"])


def test_a_silence_hides_nothing_that_the_rule_says(tmp_path: Path) -> None:
    """A rule that fires here counts although Alertmanager has it silenced."""
    with (
        alertmanager(tmp_path / "a") as held,
        prometheus(
            tmp_path / "p",
            [],
            rules={"Always": "vector(1)"},
            interval="250ms",
            alertmanager=held.url,
        ) as running,
    ):
        held.wait("Always", "active")
        held.silence({"alertname": "Always"})
        held.wait("Always", "suppressed")
        metrics = Prometheus(running.access, SystemClock(), alertmanager=held.access)
        assert [alert.name for alert in metrics.alerts(["Always"])] == ["Always"]


def test_tls_and_basic_authentication(tmp_path: Path) -> None:
    """The real server's own TLS and users: the right password, a wrong one, another authority."""
    authority, other = make_authority(tmp_path / "tls"), make_authority(tmp_path / "other")
    password = tmp_path / "password"
    with prometheus(tmp_path / "p", [], authority=authority, users={"me": HASHED}) as running:
        access = ServiceAccess(
            running.url,
            ca=str(authority.ca),
            username="me",
            password_file=str(password),
            timeout=timedelta(seconds=10),
        )
        metrics = Prometheus(access, SystemClock())
        password.write_text("wrong")
        with pytest.raises(Unavailable, match="refuses") as caught:
            metrics.clock()
        assert "wrong" not in str(caught.value)
        assert caught.value.hint
        password.write_text("pw\n")
        assert abs(metrics.clock() - time.time()) < 60
        with pytest.raises(Unavailable, match="not trusted"):
            Prometheus(replace(access, ca=str(other.ca)), SystemClock()).clock()
        bare = ServiceAccess(running.url, ca=str(authority.ca), token_file=str(password))
        with pytest.raises(Unavailable, match="refuses"):
            Prometheus(bare, SystemClock()).clock()
