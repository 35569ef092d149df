"""Something that cannot be undone, between its intent and its conclusion (AUD-05)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from secure_pipeline.audit.entry import Outcome, Value
from secure_pipeline.errors import PipelineError, PolicyDenied
from secure_pipeline.ports import Ledger, SecretUse


@contextmanager
def recorded(ledger: Ledger, use: SecretUse) -> Iterator[dict[str, Value]]:
    """Record the intent, let it happen, record how it ended.

    What is put into the yielded mapping becomes the conclusion's details; ``outcome`` there is
    the outcome ('done' by default). An exception is 'failed' (a refusal by policy 'refused').
    Raises: Unavailable if either cannot be recorded.
    """
    intent = ledger.intend(use)
    details: dict[str, Value] = {}
    try:
        yield details
    except BaseException as error:
        outcome = Outcome.REFUSED if isinstance(error, PolicyDenied) else Outcome.FAILED
        reason = str(error) if isinstance(error, PipelineError) else type(error).__name__
        with suppress(PipelineError):  # the first error is the one to show
            ledger.conclude(intent, outcome.value, {**details, "reason": reason})
        raise
    ended = details.pop("outcome", Outcome.DONE.value)
    ledger.conclude(intent, str(ended), details)
