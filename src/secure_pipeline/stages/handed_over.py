"""What became of an image that was handed over: the signed verdict beside it, and nothing else.

The listener answers 202 whatever it thinks of an event, and a run that failed leaves no verdict. So
only a promotion's statement is proof, signed by who the policy trusts, of the very run that the
event names: an older one, or one of another run, says nothing about this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secure_pipeline.attestations.predicates import PROMOTION
from secure_pipeline.errors import ExitCode, Inconclusive, Unavailable
from secure_pipeline.events import ignore
from secure_pipeline.policy.evidence import Item
from secure_pipeline.ports import Clock
from secure_pipeline.stages.result import StageResult
from secure_pipeline.stages.verify import VerifyInputs, examine
from secure_pipeline.trigger import HandOver

STAGE = "hand-over"
INTERVAL = 10.0
"""Seconds between two looks at the registry."""
_ROLLED_BACK = "ROLLED_BACK"
_ENDS = ("PROMOTED", _ROLLED_BACK)


@dataclass(frozen=True)
class HandedOver:
    """How it ended, and how the image stands since."""

    result: str
    """PROMOTED or ROLLED_BACK."""
    why: str
    statement: str
    """``sha256:…`` of the signed verdict."""
    signers: tuple[str, ...]
    """Ids of the trusted keys and identities that signed it."""
    verification: StageResult

    @property
    def code(self) -> ExitCode:
        """PASS only for an image that was promoted and verifies now."""
        if self.result == _ROLLED_BACK:
            return ExitCode.ROLLED_BACK
        return self.verification.code


def look(inputs: VerifyInputs, event: HandOver, clock: Clock) -> HandedOver | None:
    """Look once; None if there is no verdict of this run yet.

    Raises: ConfigError (a key of the policy), Unavailable.
    """
    verification, answer = examine(inputs, clock, ignore)
    found = [item for item in answer.used if _is_about(item, event)]
    # Whoever may sign can sign both: the worse one counts.
    found.sort(key=lambda item: item.statement.predicate["result"] != _ROLLED_BACK)
    if not found:
        return None
    predicate = found[0].statement.predicate
    return HandedOver(
        predicate["result"],
        str(predicate.get("why", ""))[:500],
        found[0].digest,
        tuple(sorted(found[0].signers)),
        verification,
    )


def wait(
    inputs: VerifyInputs,
    event: HandOver,
    clock: Clock,
    seconds: float,
    sleep: Callable[[float], None],
) -> HandedOver:
    """Look until there is a verdict. Raises: ConfigError; at the end Inconclusive, Unavailable."""
    until = clock.monotonic() + seconds
    while True:
        problem: Unavailable | None = None
        try:
            if found := look(inputs, event, clock):
                return found
        except Unavailable as error:  # a registry may be away for a while
            problem = error
        left = until - clock.monotonic()
        if left <= 0:
            raise problem or Inconclusive(
                f"no signed verdict of {event.run} within {seconds:.0f} s: it goes on, it failed, "
                "or the listener did not take the event",
                where=str(event.image),
                hint=f"kubectl get pipelinerun {event.run}",
            )
        sleep(min(INTERVAL, left))


def _is_about(item: Item, event: HandOver) -> bool:
    """Of this run and target; a lapsed key lets nothing in."""
    predicate = item.statement.predicate
    target = predicate.get("target")
    return (
        item.type == PROMOTION
        and not item.lapsed
        and predicate.get("engineRun") == event.run
        and isinstance(target, dict)
        and target.get("name") == event.target
        and predicate.get("result") in _ENDS
    )
