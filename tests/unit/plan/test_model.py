"""The plan says of the graph what an engine has to know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secure_pipeline.plan.model import PROGRAM, Permission, Plan, the_plan
from secure_pipeline.run import GRAPH


def test_the_plan_is_the_graph() -> None:
    """Stages, their order and needs are those of ``run``; promote comes after verify."""
    plan = the_plan()
    assert {s.name: s.needs for s in plan.stages} == {**GRAPH, "promote": ("verify",)}
    assert [s.name for s in plan.stages] == [*GRAPH, "promote"]


def test_what_runs_foreign_code_sees_no_secret() -> None:
    """Analyze, test and build have no secret, no token and no right to write anywhere."""
    for name in ("analyze", "test", "build", "scan", "verify"):
        stage = the_plan().stage(name)
        assert (stage.secrets, stage.permissions) == ((), (Permission.SOURCE,)), name


def test_rights_are_where_they_are_needed() -> None:
    """Only sign and promote push and ask who they are; only promote moves traffic."""
    holders = {p: {s.name for s in the_plan().stages if p in s.permissions} for p in Permission}
    assert holders[Permission.REGISTRY] == {"sign", "promote"}
    assert holders[Permission.ROUTER] == {"promote"}
    assert holders[Permission.IDENTITY] == {"sign", "promote"}


def test_commands_are_the_programs_own() -> None:
    """Each command is ``secure-pipeline STAGE`` and nothing of a shell."""
    for stage in the_plan().stages:
        assert stage.command[:2] == (PROGRAM, stage.name)


def test_what_is_read_was_written_before() -> None:
    """Each path that a stage reads is written by a stage that ended before it started."""
    plan = the_plan()
    written: dict[str, set[str]] = {}
    for stage in plan.stages:
        before = {path for need in stage.needs for path in written[need]}
        assert before.issuperset(stage.reads), stage.name
        written[stage.name] = before | set(stage.writes)


def test_a_plan_that_cannot_run_is_none() -> None:
    """Twice the same stage, a need that comes later or is not there, no stage: all refused."""
    first, *rest = the_plan().stages
    for stages in ((), (first, first), (rest[2],), (replace(first, needs=("verify",)), *rest)):
        with pytest.raises(ValueError, match=r"plan has stages|is there twice"):
            Plan(tuple(stages))
