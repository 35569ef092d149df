"""The builder that a run names, and what GitHub says about it."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import UsageError, VerificationFailed
from secure_pipeline.handover import pack, unpack
from secure_pipeline.place import Place
from secure_pipeline.runs import RunHeader, RunStore
from secure_pipeline.wiring import opening
from secure_pipeline.wiring.engine import VARIABLE, builder_id, engine_facts

GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "team/service",
    "GITHUB_RUN_ID": "42",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_WORKFLOW_REF": "team/service/.github/workflows/release.yml@refs/tags/v1",
}
LOCAL = "https://secure-pipeline.dev/builder/local/v1"


@pytest.mark.parametrize(
    ("said", "builder"),
    [
        ({}, LOCAL),
        ({VARIABLE: ""}, LOCAL),
        (GITHUB, LOCAL),
        ({VARIABLE: "github"}, "https://secure-pipeline.dev/builder/github/v1"),
        ({VARIABLE: "tekton"}, "https://secure-pipeline.dev/builder/tekton/v1"),
        ({VARIABLE: "https://ci.example:8443/b?kind=x"}, "https://ci.example:8443/b?kind=x"),
    ],
)
def test_each_engine_is_a_builder_of_its_own(said: dict[str, str], builder: str) -> None:
    """The definitions' word decides, and where nothing is said it is a machine of somebody's."""
    assert builder_id(said) == builder


@pytest.mark.parametrize(
    "said",
    [
        *("Github", "jenkins", "http://ci.example/b", "https://", "https:///b", "https://a b/c"),
        *("https://user:word@ci.example/b", "https://ci.example/b\n", f"https://c/{'b' * 300}"),
    ],
)  # fmt: skip
def test_another_word_is_no_builder(said: str) -> None:
    """A typing error gives no evidence under a name that nobody meant."""
    with pytest.raises(UsageError, match="is no builder"):
        builder_id({VARIABLE: said})


@given(st.text(max_size=80) | st.text(max_size=80).map("https://a/{}".format))
def test_a_builder_is_one_line_of_plain_text(said: str) -> None:
    """Whatever is said: an https URI without spaces, or refused."""
    with contextlib.suppress(UsageError):
        assert re.fullmatch(r"https://[!-~]+", builder_id({VARIABLE: said}))


def test_github_says_which_attempt_and_which_workflow() -> None:
    """The page of the attempt and the workflow's file at its ref."""
    assert engine_facts(GITHUB) == {
        "run": "https://github.com/team/service/actions/runs/42/attempts/2",
        "workflow": "team/service/.github/workflows/release.yml@refs/tags/v1",
    }
    assert engine_facts({**GITHUB, "GITHUB_ACTIONS": "false"}) == {}


@pytest.mark.parametrize("name", [name for name in GITHUB if name != "GITHUB_ACTIONS"])
@pytest.mark.parametrize("value", ["", "a b", "\x1b[2J", "x\n"])
def test_half_a_word_from_github_is_refused(name: str, value: str) -> None:
    """Provenance names a whole run or none."""
    with pytest.raises(UsageError, match=name):
        engine_facts({**GITHUB, name: value})


def header(builder: str) -> RunHeader:
    now = datetime(2027, 1, 1, tzinfo=UTC)
    return RunHeader("run-1", now, "n", None, "sha256:0", False, "c", "p", builder)


def test_a_run_is_not_continued_by_another_builder(tmp_path: Path) -> None:
    """The stage of another engine does not add its word to a run: exit 11."""
    run = RunStore(tmp_path).create(header(LOCAL))
    assert opening._same(run, header(LOCAL)) is run
    with pytest.raises(VerificationFailed, match="is of builder"):
        opening._same(run, header("https://secure-pipeline.dev/builder/github/v1"))


def test_a_packed_run_of_another_builder_is_not_taken_over(tmp_path: Path) -> None:
    """State from two engines under one run id does not mix: exit 11."""
    places = [Place(tmp_path / n, tmp_path / n / "state") for n in ("one", "other")]
    for place, builder in zip(places, (LOCAL, "https://ci.example/b"), strict=True):
        RunStore(place.runs).create(header(builder))
    digest = pack(places[0], "run-1", tmp_path / "one.tar")
    with pytest.raises(VerificationFailed, match="other content"):
        unpack(places[1], tmp_path / "one.tar", digest)
