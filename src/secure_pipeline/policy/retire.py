"""A trusted policy with a last day for one key: a proposal that an operator reviews.

Only the key's own lines change, so that comments and order stay; what was written is read again,
and anything but this one date that would differ refuses the edit.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from secure_pipeline.documents import MAX_BYTES, Node, decode, parse_yaml
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import read_bounded
from secure_pipeline.policy.document import LoadedPolicy, Policy, TrustedKey

_ID = re.compile(r"(?P<indent>[ ]*(?:-[ ]+)?)id:[ ]+[^\s{},\[\]]+[ ]*(?:#.*)?")
_NOT_AFTER = re.compile(r"(?P<before>[ ]*(?:-[ ]+)?not-after:[ ]+)(?P<day>[^\s{},#]+)(?P<rest>.*)")


@dataclass(frozen=True)
class Proposal:
    """A policy to be reviewed."""

    key: str
    """Id of the key."""
    last_day: date
    text: bytes
    """The whole policy."""
    diff: str
    """Unified; empty if the key was out of trust by then already."""


def last_trusted_day(since: datetime) -> date:
    """The day before the one, in UTC, that a moment lies in: a policy counts whole days."""
    return since.astimezone(UTC).date() - timedelta(days=1)


def propose(loaded: LoadedPolicy, entry: TrustedKey, since: datetime) -> Proposal:
    """Give a key its last day; an earlier one that it has already stays.

    Raises: ConfigError where the entry cannot be edited (written in one line, or begins later).
    """
    day = last_trusted_day(since)
    data = read_bounded(loaded.source, MAX_BYTES)
    where = str(loaded.source)
    if entry.not_after is not None and entry.not_after <= day:
        return Proposal(entry.id, entry.not_after, data, "")
    if entry.not_before is not None and entry.not_before > day:
        raise ConfigError(
            f"key '{entry.id}' is trusted from {entry.not_before} on, after {day} already",
            where=where,
            hint="remove the whole entry from 'keys'",
        )
    try:
        wanted = tuple(
            replace(key, not_after=day) if key.id == entry.id else key for key in loaded.policy.keys
        )
        expected = replace(loaded.policy, keys=wanted)
    except ValueError as error:
        raise ConfigError(f"key '{entry.id}': {error}", where=where) from None
    before = data.decode().splitlines(keepends=True)
    after = _edited(before, _entry(parse_yaml(data, where), entry.id), entry.id, day, where)
    text = "".join(after).encode()
    if decode(Policy, parse_yaml(text, where)) != expected:
        raise _by_hand(entry.id, day, where)
    names = (loaded.source.name, f"{loaded.source.name} (proposed)")
    diff = "".join(difflib.unified_diff(before, after, *names))
    return Proposal(entry.id, day, text, diff)


def _entry(root: Node, key_id: str) -> dict[str, Node]:
    """The members of a key's entry; the policy was decoded already."""
    entries = root.value["keys"].value
    found: dict[str, Node] = next(
        item.value for item in entries if item.value["id"].value == key_id
    )
    return found


def _edited(
    lines: list[str], entry: dict[str, Node], key_id: str, day: date, where: str
) -> list[str]:
    if "not-after" in entry:
        number = entry["not-after"].line - 1
        match = _NOT_AFTER.fullmatch(lines[number].rstrip("\r\n"))
        if match is None:
            raise _by_hand(key_id, day, where)
        new = f"{match['before']}{day}{match['rest']}\n"
        return [*lines[:number], new, *lines[number + 1 :]]
    number = entry["id"].line - 1
    match = _ID.fullmatch(lines[number].rstrip("\r\n"))
    if match is None:
        raise _by_hand(key_id, day, where)
    new = f"{' ' * len(match['indent'])}not-after: {day}\n"
    return [*lines[: number + 1], new, *lines[number + 1 :]]


def _by_hand(key_id: str, day: date, where: str) -> ConfigError:
    return ConfigError(
        f"the entry of key '{key_id}' is not written so that it can be edited safely",
        where=where,
        hint=f"add 'not-after: {day}' to it by hand, or write one member a line",
    )
