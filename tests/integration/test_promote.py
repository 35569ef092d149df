"""``promote`` as people type it, on a real HAProxy, Prometheus and two real services under load."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.livepromotion import LivePlace, behind_nginx, live_place

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("promote")]

HALF = {"steps": [{"share": "50%", "minimum": "1s", "deadline": "60s"}]}
"""One step: what is asked is not what the first 5 % do."""
QUICK = {"errors": {"share": "10%"}, "latency": {"share": "20%"}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LivePlace]:
    """Two healthy versions."""
    with live_place(tmp_path) as made:
        made.settings["rules"] = QUICK
        yield made


def documents(out: str) -> list[dict[str, object]]:
    """The lines of ``--json``."""
    return [json.loads(line) for line in out.splitlines()]


def test_a_healthy_version_reaches_100_percent_with_a_signed_verdict(place: LivePlace) -> None:
    """5, 25, 50, 100 %: exit 0, the image still verifies, and a second promotion has to wait."""
    process = place.promote("--json")
    place.until(lambda: place.share() > 0, process, "traffic at the canary")
    second = place.ended(place.promote())
    assert second.code == 4, second.text
    assert "another promotion" in second.err
    ended = place.ended(process)
    assert ended.code == 0, ended.text
    assert place.share() == 1
    lines = documents(ended.out)
    assert lines[-1]["kind"] == "Promotion"
    assert place.load.counts["none"] == 0
    report = next((place.directory / "state/promotions/production").glob("*/report.html"))
    assert b"<svg" in report.read_bytes()
    assert place.run("verify", place.image).code == 0
    again = place.ended(place.promote())
    assert again.code == 2, again.text
    assert "already" in again.err


def test_400_ms_a_token_abort_and_the_digest_is_in_quarantine(tmp_path: Path) -> None:
    """Exit 13, no traffic, verify and promote refuse (12), until a signed release."""
    with live_place(tmp_path, latency_ms=400) as place:
        ended = place.ended(place.promote())
        assert ended.code == 13, ended.text
        assert "latency" in ended.out
        assert place.share() == 0
        assert place.run("verify", place.image).code == 12
        refused = place.ended(place.promote())
        assert refused.code == 12, refused.text
        released = place.run(
            "quarantine", "release", place.image, "--reason", "the model was cold",
            "--key", "file:promotion.key",
        )  # fmt: skip
        assert released.code == 0, released.text
        assert place.run("verify", place.image).code == 0
        assert not place.state()


def test_3_percent_errors_abort(tmp_path: Path) -> None:
    """One request in 33 fails, the limit is 1 %: exit 13 and no traffic."""
    with live_place(tmp_path, error_rate=0.03, rate=150) as place:
        place.settings |= {**HALF, "rules": {"errors": {"share": "1%"}}}
        ended = place.ended(place.promote())
        assert ended.code == 13, ended.text
        assert "errors" in ended.out
        assert place.share() == 0


def test_can_04_without_traffic_nothing_advances(place: LivePlace) -> None:
    """Nobody asks: the share stays at 5 % until the deadline, then 0, exit 13."""
    place.load.stop()
    place.settings["steps"] = [{"share": "5%", "minimum": "0s", "deadline": "4s"}]
    ended = place.ended(place.promote())
    assert ended.code == 13, ended.text
    assert "no-data" in ended.out
    assert place.share() == 0


def test_can_01_prometheus_killed_on_the_way_holds_and_then_aborts(place: LivePlace) -> None:
    """What was healthy before is no reason to go on."""
    place.settings["steps"] = [{"share": "5%", "minimum": "3s", "deadline": "8s"}]
    process = place.promote()
    place.until(lambda: place.share() > 0, process, "traffic at the canary")
    place.prometheus.kill()
    ended = place.ended(process)
    assert ended.code == 13, ended.text
    assert place.share() == 0


def test_can_07_a_canary_that_restarts_aborts(place: LivePlace) -> None:
    """A restart hides what was before it, so it counts against the canary by itself."""
    place.settings["steps"] = [{"share": "50%", "minimum": "50s", "deadline": "60s"}]
    process = place.promote()
    place.until(lambda: place.state().get("looks", 0) > 4, process, "looks")
    place.services["green"].restart()
    ended = place.ended(process)
    assert ended.code == 13, ended.text
    assert "restart" in ended.out
    assert place.share() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cli_03_ctrl_c_and_sigterm_roll_back(place: LivePlace, number: signal.Signals) -> None:
    """Exit 130, and the canary has no traffic."""
    process = place.promote()
    place.until(lambda: place.share() > 0, process, "traffic at the canary")
    process.send_signal(number)
    ended = place.ended(process)
    assert ended.code == 130, ended.text
    assert place.share() == 0


def test_can_09_killed_in_each_phase_it_ends_safely(place: LivePlace) -> None:
    """Kill -9 in the first step, the second, the move to 100 %: the next program goes on from disk.

    Between them the share is never more than what was intended, and it ends at 100 %.
    """
    place.settings["steps"] = [
        {"share": "25%", "minimum": "1s", "deadline": "60s"},
        {"share": "50%", "minimum": "1s", "deadline": "60s"},
    ]
    for phase, step in (("watching", 0), ("watching", 1), ("promoting", 1)):

        def there(phase: str = phase, step: int = step) -> bool:
            state = place.state().get("state", {})
            return (state.get("phase"), state.get("step")) == (phase, step)

        process = place.promote()
        place.until(there, process, f"{phase} {step}")
        process.kill()
        process.communicate()
        assert place.share() <= {("watching", 0): 0.25, ("watching", 1): 0.5}.get((phase, step), 1)
    ended = place.ended(place.promote())
    assert ended.code == 0, ended.text
    assert place.share() == 1
    record = next((place.directory / "state/promotions/production").glob("*/promotion.json"))
    assert json.loads(record.read_bytes())["resumed"] == 3


def test_can_09_killed_while_aborting_abort_ends_it(tmp_path: Path) -> None:
    """The router hangs, the program is killed; --settle needs no image and no metrics.

    Then nothing is left: --abort says so with 2, --settle with 0.
    """
    with live_place(tmp_path, latency_ms=400) as place:
        process = place.promote()
        place.until(lambda: place.share() > 0, process, "traffic at the canary")
        place.prometheus.kill()
        process.send_signal(signal.SIGTERM)
        place.until(
            lambda: place.state().get("state", {}).get("phase") == "aborting", process, "abort"
        )
        process.kill()
        process.communicate()
        ended = place.ended(place.promote("--settle", image=None))
        assert ended.code in (13, 130), ended.text
        assert place.share() == 0
        assert place.run("verify", place.image).code == 12
        nothing = place.ended(place.promote("--abort", image=None))
        assert nothing.code == 2, nothing.text
        nothing = place.ended(place.promote("--settle", image=None))
        assert nothing.code == 0, nothing.text


def test_an_alert_that_fires_aborts(tmp_path: Path) -> None:
    """By the name of its rule in Prometheus; one that is no rule refuses before anything moves."""
    rules = {"TooMuchOfIt": 'sum(inference_requests_total{slot="green"}) > 20'}
    with live_place(tmp_path, alerts=rules) as place:
        place.settings |= {**HALF, "rules": {**QUICK, "alerts": [{"name": "NoSuchRule"}]}}
        ended = place.ended(place.promote())
        assert ended.code == 14, ended.text
        assert place.share() == 0
        place.settings["rules"] = {**QUICK, "alerts": [{"name": "TooMuchOfIt"}]}
        place.settings["steps"] = [{"share": "50%", "minimum": "50s", "deadline": "60s"}]
        ended = place.ended(place.promote())
        assert ended.code == 13, ended.text
        assert "TooMuchOfIt" in ended.out
        assert place.share() == 0


@pytest.mark.parametrize(("latency_ms", "code", "share"), [(0, 0, 1), (400, 13, 0)])
def test_behind_nginx_it_ends_the_same(
    tmp_path: Path, latency_ms: float, code: int, share: int
) -> None:
    """A healthy version reaches 100 %, a slow one 0 %, by checked reloads that lose nothing."""
    with live_place(tmp_path, front=behind_nginx, latency_ms=latency_ms) as place:
        place.settings |= {**HALF, "rules": QUICK}
        ended = place.ended(place.promote())
        assert ended.code == code, ended.text
        assert place.share() == share
        assert place.load.counts["none"] == 0


def test_can_13_another_digest_never_inherits_what_was_learnt(place: LivePlace) -> None:
    """Asked for while one is unfinished: that one is rolled back, and nothing else moves."""
    process = place.promote()
    place.until(lambda: place.share() > 0, process, "traffic at the canary")
    process.kill()
    process.communicate()
    ended = place.ended(place.promote(image="inference-service@sha256:" + "b" * 64))
    assert ended.code == 13, ended.text
    assert "unfinished" in ended.out
    assert place.share() == 0
    assert place.run("verify", place.image).code == 12
