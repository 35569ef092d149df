"""Every error a user can meet, and the exit code it stands for.

The codes are an API (docs/reference/exit-codes.md): whatever is not positive
proof of success is not 0. Each class names who has to act.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the program."""

    PASS = 0
    BUG = 1
    USAGE = 2
    CONFIG = 3
    UNAVAILABLE = 4
    FINDINGS = 10
    VERIFICATION = 11
    DENIED = 12
    ROLLED_BACK = 13
    INCONCLUSIVE = 14
    INTERRUPTED = 130


class PipelineError(Exception):
    """Base of all errors that are shown to people as text, never as a traceback.

    ``message`` is one line saying what is wrong, ``where`` the place it was found
    (``file:line`` where there is one), ``hint`` one line saying what to type.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(PipelineError):
    """An argument or flag is wrong."""

    exit_code = ExitCode.USAGE


class ConfigError(PipelineError):
    """A configuration, policy or Dockerfile is wrong."""

    exit_code = ExitCode.CONFIG


class Unavailable(PipelineError):
    """A tool or service is missing, failed or refused; a retry may help."""

    exit_code = ExitCode.UNAVAILABLE


class FindingsOverGate(PipelineError):
    """A gate was not met."""

    exit_code = ExitCode.FINDINGS


class VerificationFailed(PipelineError):
    """Evidence or content is proven wrong."""

    exit_code = ExitCode.VERIFICATION


class PolicyDenied(PipelineError):
    """The trusted policy forbids what was asked."""

    exit_code = ExitCode.DENIED


class Inconclusive(PipelineError):
    """Neither success nor failure could be shown."""

    exit_code = ExitCode.INCONCLUSIVE


class Interrupted(PipelineError):
    """The user or the system asked the program to stop."""

    exit_code = ExitCode.INTERRUPTED
