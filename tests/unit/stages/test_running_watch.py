"""Watching: changes only, bounded sleeps, and nothing forgotten in the exit code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import NOON
from fakes.release import FixedClock
from fakes.runtime import container
from secure_pipeline.data import data_path
from secure_pipeline.errors import ExitCode, Inconclusive, PipelineError, Unavailable, UsageError
from secure_pipeline.policy.decision import Decision, Rule, allow, forbid, unsure, wrong
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.report import running as report_running
from secure_pipeline.stages.running import ContainerCheck, RunningReport
from secure_pipeline.stages.running_watch import StandingChange, Watch, parse_interval

OK, BAD = allow("image", "it is"), wrong("image", "it is not")
LOST, DENIED = unsure("image", "cannot tell"), forbid("builder", "not that one")
Look = dict[str, Rule] | PipelineError


@pytest.fixture
def loaded() -> LoadedPolicy:
    return load(data_path("policies") / "release.yaml")


@pytest.fixture
def watched(loaded: LoadedPolicy) -> Callable[..., tuple[list[StandingChange], ExitCode]]:
    """Look as often as there are looks; return the changes and the code at the end."""

    def run(*looks: Look) -> tuple[list[StandingChange], ExitCode]:
        waiting = list(looks)
        slept: list[float] = []

        def look() -> RunningReport:
            found = waiting.pop(0)
            if isinstance(found, PipelineError):
                raise found
            checks = (
                ContainerCheck(container("", name), Decision((rule,)))
                for name, rule in found.items()
            )
            return RunningReport(NOON, loaded, tuple(checks))

        watch = Watch(look, FixedClock(), slept.append, timedelta(seconds=30))
        changes = list(watch.changes(len(looks)))
        assert slept == [30.0] * (len(looks) - 1)
        assert not waiting
        return changes, watch.code

    return run


Watched = Callable[..., tuple[list[StandingChange], ExitCode]]


def said(changes: list[StandingChange]) -> list[tuple[str, str | None, str]]:
    return [(change.place.rpartition("/")[2], change.before, change.now) for change in changes]


def test_one_line_a_change(watched: Watched) -> None:
    """The first look says everything, later ones only what is different."""
    changes, code = watched({"a": OK, "b": OK}, {"a": OK, "b": OK}, {"a": OK, "b": BAD}, {"a": OK})
    assert said(changes) == [
        ("a", None, "MATCH"),
        ("b", None, "MATCH"),
        ("b", "MATCH", "MISMATCH"),
        ("b", "MISMATCH", "GONE"),
    ]
    assert code is ExitCode.VERIFICATION


@pytest.mark.parametrize(
    ("looks", "code"),
    [
        ([{"a": OK}], ExitCode.PASS),
        ([{"a": OK}, {"a": LOST}, {"a": OK}], ExitCode.INCONCLUSIVE),
        ([{"a": DENIED}, {"a": OK}], ExitCode.DENIED),
        ([{"a": BAD}, {"a": DENIED}, {"a": LOST}], ExitCode.VERIFICATION),
        ([{"a": OK}, UsageError("none")], ExitCode.INCONCLUSIVE),
        ([{"a": OK}, Unavailable("away"), {"a": OK}], ExitCode.INCONCLUSIVE),
        ([{"a": OK}, Inconclusive("odd")], ExitCode.INCONCLUSIVE),
    ],
)
def test_the_worst_that_was_seen_is_the_code(
    watched: Watched, looks: list[Look], code: ExitCode
) -> None:
    """A pass at the end does not wash off what was between."""
    assert watched(*looks)[1] is code


def test_an_engine_that_goes_and_comes_back(watched: Watched) -> None:
    """Everything is unreachable once, and matches again."""
    away = Unavailable("no answer")
    changes, _ = watched({"a": OK, "b": BAD}, away, away, {"a": OK, "b": BAD})
    assert said(changes)[2:] == [
        ("a", "MATCH", "UNREACHABLE"),
        ("b", "MISMATCH", "UNREACHABLE"),
        ("a", "UNREACHABLE", "MATCH"),
        ("b", "UNREACHABLE", "MISMATCH"),
    ]
    assert changes[2].why == "no answer"


def test_nothing_left_is_gone_and_new_ones_are_seen(watched: Watched) -> None:
    """Watching goes on without containers."""
    changes, _ = watched({"a": OK}, UsageError("none"), UsageError("none"), {"b": OK})
    assert said(changes) == [("a", None, "MATCH"), ("a", "MATCH", "GONE"), ("b", None, "MATCH")]


@pytest.mark.parametrize("error", [UsageError("none"), Unavailable("away")])
def test_the_first_look_has_to_work(watched: Watched, error: PipelineError) -> None:
    """What is wrong from the start ends the command with its own code."""
    with pytest.raises(type(error)):
        watched(error)


def test_lines_for_people(watched: Watched) -> None:
    """Time, before and after, place, and the first reason; control characters are shown."""
    changes, _ = watched({"a": OK}, {"a": wrong("drift", "/bin/\x1b[2J was changed")})
    first, second = [report_running.change_line(change) for change in changes]
    assert first == "2026-03-01T12:00:00Z MATCH docker://a"
    assert second.startswith("2026-03-01T12:00:00Z MATCH -> MISMATCH docker://a: drift: /bin/\\x1b")
    assert "\x1b" not in second
    assert report_running.change_document(changes[1])["outcome"] == "MISMATCH"


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("30s", 30), ("5m", 300), ("24h", 86400)])
def test_intervals(text: str, seconds: int) -> None:
    """Seconds, minutes and hours."""
    assert parse_interval(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "0s", "25h", "-1s", "1d", "1.5s", "30 s", "99999h"])
def test_what_is_no_interval(text: str) -> None:
    """Refused with what to type."""
    with pytest.raises(UsageError) as caught:
        parse_interval(text)
    assert "30s" in str(caught.value.hint)


@given(st.text())
def test_any_text_is_an_interval_in_bounds_or_refused(text: str) -> None:
    """Never no time and never for ever."""
    try:
        assert 1 <= parse_interval(text).total_seconds() <= 86400
    except UsageError:
        return
