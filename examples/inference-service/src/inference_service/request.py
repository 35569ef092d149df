"""What a client may ask for, checked before anything is done with it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_BODY_BYTES = 64 << 10
MAX_PROMPT_CHARACTERS = 8000
MAX_TOKENS = 512
DEFAULT_TOKENS = 32
_CONTEXT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_FIELDS = frozenset({"context_id", "prompt", "max_tokens", "stream"})


class BadRequest(Exception):
    """The body is not a request; the message says why."""


@dataclass(frozen=True)
class GenerateRequest:
    """A valid request."""

    context_id: str
    prompt: str
    max_tokens: int
    stream: bool


def parse(body: bytes) -> GenerateRequest:
    """Read a request from JSON. Raises: BadRequest."""
    document = _object(body)
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise BadRequest(f"unknown field {unknown[0][:64]!r}")
    return GenerateRequest(
        context_id=_context_id(document.get("context_id")),
        prompt=_prompt(document.get("prompt")),
        max_tokens=_max_tokens(document.get("max_tokens", DEFAULT_TOKENS)),
        stream=_stream(document.get("stream", False)),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8 with unique keys") from None
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    return document


def _context_id(value: Any) -> str:
    if not isinstance(value, str) or not _CONTEXT_ID.match(value):
        raise BadRequest("context_id must be 1 to 64 letters, digits, _ and -")
    return value


def _prompt(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PROMPT_CHARACTERS:
        raise BadRequest(f"prompt must be a string of 1 to {MAX_PROMPT_CHARACTERS} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRequest("prompt has half of a surrogate pair")
    return value


def _max_tokens(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_TOKENS:  # True is an int too
        raise BadRequest(f"max_tokens must be a whole number from 1 to {MAX_TOKENS}")
    return value


def _stream(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest("stream must be true or false")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
