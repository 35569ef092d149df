"""The record of secrets used and of steps that cannot be undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class SecretUse:
    """A secret that is about to be used, or a step that cannot be undone; never a secret's value.

    Recorded before it happens (AUD-05).
    """

    action: str
    """'login', 'fetch', 'sign', 'push', 'promote', 'revoke' or 'rotate'."""
    stage: str
    """The stage or command that asks."""
    subject: str
    """What it is about: ``NAME@sha256:…``, or a key's URI."""
    run: str | None = None
    details: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    """Such as ``path``, ``version``, ``requestHash`` (``sha256:…``); keys are stable."""


class Ledger(Protocol):
    """The record of what was done with secrets: who, when, what, with which outcome."""

    def intend(self, use: SecretUse) -> str:
        """Record what is about to happen and return the entry's id once it is on the disk.

        Raises: Unavailable if it cannot be recorded; then it must not happen.
        """

    def conclude(
        self, intent: str, outcome: str, details: Mapping[str, str | int | bool | None]
    ) -> None:
        """Record how it ended: 'done', 'failed' or 'refused'. Raises: Unavailable."""
