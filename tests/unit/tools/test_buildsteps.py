"""Reading builders' output: steps, lines, cache, failures, and no secrets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.dockerfile.parser import parse
from secure_pipeline.events import Event, Progress, ignore
from secure_pipeline.tools.buildkitsteps import BuildKitLog
from secure_pipeline.tools.buildsteps import Redactor, StepLog

DOCKERFILE = parse(
    b"FROM base AS one\n\nRUN a \\\n  && b\nENV X=1\nFROM base\nCOPY --from=one /a /a\nRUN b\n"
)


def seconds() -> Iterator[float]:
    value = 0.0
    while True:
        yield value
        value += 0.5


def buildah(lines: list[str]) -> StepLog:
    clock = seconds()
    log = StepLog(DOCKERFILE, lambda: next(clock), Redactor(["s3cret"]), ignore)
    for line in lines:
        log.line(line)
    return log


def test_buildahs_steps_have_lines_times_and_cache() -> None:
    """Stage and step number lead to the line; a cached step is told from an executed one."""
    log = buildah(
        ["[1/2] STEP 1/3: FROM base AS one", "[1/2] STEP 2/3: RUN a   && b", "output",
         "--> 0123456789a", "[1/2] STEP 3/3: ENV X=1", f"--> Using cache {'a' * 64}",
         "[2/2] STEP 1/3: FROM base", "[2/2] STEP 2/3: COPY --from=one /a /a"]
    )  # fmt: skip
    assert [(s.line, s.cached) for s in log.steps] == [(1, True), (3, False), (5, True), (6, True)]
    assert log.current == ("COPY --from=one /a /a", 7)
    assert log.steps[1].seconds == 0.5


def test_a_step_that_is_not_of_the_dockerfile_has_no_line() -> None:
    """A trigger of the base shifts the numbers; a wrong line is never named."""
    log = buildah(["[2/2] STEP 2/4: RUN trigger", "[2/2] STEP 4/4: RUN b", "STEP 9/9: RUN x"])
    assert [step.line for step in log.steps] == [None, 8]
    assert log.current == ("RUN x", None)


def test_secrets_are_hidden_in_log_and_events() -> None:
    """A value never reaches the log, an event or a step's text."""
    events: list[Event] = []
    log = StepLog(DOCKERFILE, lambda: 0.0, Redactor(["s3cret\nsecond line", "x"]), events.append)
    for line in ("STEP 2/3: RUN echo s3cret", "it is s3cret", "and second line", "x stays"):
        log.line(line)
    assert "s3cret" not in log.log.decode() + repr(events) + repr(log.current)
    assert log.tail(2) == ("and ***", "x stays")
    assert [e.detail for e in events if isinstance(e, Progress)] == [False, True, True, True]


def buildkit(lines: list[str]) -> BuildKitLog:
    log = BuildKitLog(DOCKERFILE, Redactor(["s3cret"]), ignore)
    for line in lines:
        log.line(line)
    return log


def test_buildkits_steps_are_told_apart_side_by_side() -> None:
    """Lines of several steps may be mixed; order and lines are those of the Dockerfile."""
    log = buildkit(
        ["#1 [internal] load build definition", "#1 DONE 0.1s", "#4 [one 1/2] FROM base",
         "#9 [stage-1 2/3] COPY --from=one /a /a", "#5 [one 2/2] RUN a   && b",
         "#5 0.067 DONE 5.0s is what a program wrote", "#9 CACHED", "#4 DONE 0.0s", "#5 DONE 0.3s",
         "#10 [stage-1 3/3] RUN b", "#10 ERROR: executor failed running: exit code: 1"]
    )  # fmt: skip
    assert [(s.line, s.cached, s.seconds) for s in log.steps()] == [
        (1, True, 0.0),
        (3, False, 0.3),
        (7, True, 0.0),
    ]
    assert log.failed is not None
    assert (log.failed.line, log.failed.text) == (8, "RUN b")


@pytest.mark.parametrize("name", ["nope", "stage-7"])
def test_a_stage_that_is_not_known_gives_no_line(name: str) -> None:
    """What is not in the Dockerfile has no line."""
    log = buildkit([f"#1 [{name} 1/1] RUN x", "#1 DONE 0.1s"])
    assert [step.line for step in log.steps()] == [None]


@given(st.lists(st.one_of(st.text(max_size=60), st.from_regex(r"#[0-9] \[.{0,20}/2\] .{0,20}"))))
def test_any_output_is_taken(lines: list[str]) -> None:
    """No output of a program within a step breaks the reading."""
    for log in (buildkit(lines), buildah(lines)):
        assert isinstance(log.steps, list) or isinstance(log.steps(), tuple)
