"""A decision allows only when there are rules and all of them allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.errors import ExitCode
from secure_pipeline.policy.decision import (
    Decision,
    Fault,
    Outcome,
    Rule,
    allow,
    forbid,
    unsure,
    wrong,
)

MAKERS = {"allow": allow, "forbid": forbid, "unsure": unsure, "wrong": wrong}


def test_no_rules_deny() -> None:
    """Nothing that was checked is nothing that was proven."""
    decision = Decision(())
    assert (decision.outcome, decision.code) == (Outcome.DENY, ExitCode.DENIED)


@given(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=6))
def test_denials_outweigh_doubts_and_doubts_outweigh_allowances(kinds: list[str]) -> None:
    """11 before 12 before 14 before 0, in whatever order the rules come."""
    decision = Decision(tuple(MAKERS[kind]("id", "why") for kind in kinds))
    expected = next(
        code
        for kind, code in (
            ("wrong", ExitCode.VERIFICATION),
            ("forbid", ExitCode.DENIED),
            ("unsure", ExitCode.INCONCLUSIVE),
            ("allow", ExitCode.PASS),
        )
        if kind in kinds
    )
    assert decision.code is expected
    assert len(decision.objections) == len(kinds) - kinds.count("allow")
    assert decision.to_json()["exitCode"] == int(expected)


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome.DENY, None),
        (Outcome.ALLOW, Fault.POLICY),
        (Outcome.UNDETERMINED, Fault.EVIDENCE),
    ],
)
def test_only_a_denial_has_a_fault(outcome: Outcome, fault: Fault | None) -> None:
    """A rule whose outcome and fault disagree cannot be made."""
    with pytest.raises(ValueError, match="a denial, and nothing else"):
        Rule("id", outcome, "why", fault=fault)
