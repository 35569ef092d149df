"""Names by which a policy trusts somebody: ids of its own, and identities of certificates."""

from __future__ import annotations

import re
import warnings

OPERATOR = "operator"
"""Id of a key or identity that the operator gives on the command line."""
MAX_PATTERN = 500
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_ANYBODY = (
    "",
    "x",
    "someone@unrelated.invalid",
    "https://unrelated.invalid/path",
    "https://github.com/unrelated/repository/.github/workflows/x.yml@refs/heads/main",
    "https://gitlab.com/unrelated/project//.gitlab-ci.yml@refs/heads/main",
)
"""Identities that nobody means; a pattern that matches one of them matches strangers."""


def check_id(name: str) -> None:
    """Raises: ValueError for an id that is not short and plain, or is the operator's."""
    if not _ID.match(name):
        raise ValueError(f"id {name!r} is not a short name such as release-2027")
    if name.startswith(OPERATOR):
        raise ValueError(f"ids like {OPERATOR!r} are kept for keys given on the command line")


def check_identity(identity: str) -> None:
    """Raises: ValueError for what is not one identity."""
    if not identity or re.search(r"[\s*]", identity):
        raise ValueError(
            f"identity {identity!r} is not one identity: it is matched exactly, without wildcards"
        )


def check_pattern(pattern: str) -> None:
    """Raises: ValueError for a pattern that strangers match, or that means what it does not say.

    ``[[:alpha:]]`` is one: elsewhere a class of letters, in Python a set of other characters.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"identity-pattern is longer than {MAX_PATTERN} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
    except Warning as warning:
        raise ValueError(
            f"identity-pattern {pattern!r} can be read in two ways: {warning}; write [a-z], or a "
            "backslash before the bracket that is meant"
        ) from None
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"identity-pattern is no regular expression: {error}") from None
    stranger = next((name for name in _ANYBODY if compiled.fullmatch(name)), None)
    if stranger is not None:
        raise ValueError(
            f"identity-pattern {pattern!r} matches strangers, such as {stranger!r}: name the owner"
        )
