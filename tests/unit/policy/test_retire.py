"""A last day for one key of a policy: the smallest edit, read again before it is believed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.evidence import public_key
from secure_pipeline.errors import ConfigError
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.retire import Proposal, last_trusted_day, propose

SINCE = datetime(2027, 3, 2, 15, 30, tzinfo=UTC)
POLICY = """\
# Ours; ask the release team.
version: 1

keys:
  - id: old          # since the beginning
    public-key: |
      {pem}
    algorithm: ecdsa-p256-sha256{more}
  - algorithm: ecdsa-p256-sha256
    id: new
    public-key: new.pub

builders: [ "https://builder.example/1" ]  # one
"""


def written(directory: Path, text: str = POLICY, more: str = "") -> LoadedPolicy:
    path = directory / "policy.yaml"
    pem = public_key().pem.decode().rstrip().replace("\n", "\n      ")
    path.write_text(text.replace("{pem}", pem).replace("{more}", more))
    return load(path)


def proposed(loaded: LoadedPolicy, key: str, since: datetime = SINCE) -> Proposal:
    entry = next(item for item in loaded.policy.keys if item.id == key)
    return propose(loaded, entry, since)


def test_one_line_is_added(tmp_path: Path) -> None:
    """Comments, order and everything else stay; the key has its last day."""
    loaded = written(tmp_path)
    found = proposed(loaded, "old")
    assert [line for line in found.diff.splitlines() if line[:1] in "+-"][2:] == [
        "+    not-after: 2027-03-01"
    ]
    assert found.last_day == date(2027, 3, 1)
    loaded.source.write_bytes(found.text)
    keys = {key.id: key.not_after for key in load(loaded.source).policy.keys}
    assert keys == {"old": date(2027, 3, 1), "new": None}


def test_the_id_need_not_stand_first(tmp_path: Path) -> None:
    """The line is added to the right entry wherever its id stands."""
    found = proposed(written(tmp_path), "new")
    assert "    id: new\n    not-after: 2027-03-01\n" in found.text.decode()


def test_a_later_last_day_is_replaced_and_an_earlier_one_stays(tmp_path: Path) -> None:
    """Nothing makes a key trusted for longer."""
    loaded = written(tmp_path, more="\n    not-after: 2027-12-31 # at the latest")
    found = proposed(loaded, "old")
    assert "    not-after: 2027-03-01 # at the latest\n" in found.text.decode()
    loaded = written(tmp_path, more="\n    not-after: 2026-12-31")
    found = proposed(loaded, "old")
    assert (found.diff, found.last_day) == ("", date(2026, 12, 31))
    assert found.text == loaded.source.read_bytes()


def test_a_key_that_begins_later_has_to_be_removed(tmp_path: Path) -> None:
    """A window that would hold no day cannot be written."""
    with pytest.raises(ConfigError, match="trusted from 2027-03-02 on") as caught:
        proposed(written(tmp_path, more="\n    not-before: 2027-03-02"), "old")
    assert caught.value.hint == "remove the whole entry from 'keys'"


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nkeys: [{id: old, public-key: a.pub, algorithm: ed25519}]\n",
        "version: 1\nkeys:\n  - {id: old, public-key: a.pub, algorithm: ed25519}\n",
        "version: 1\nkeys:\n  - id:\n      old\n    public-key: a.pub\n    algorithm: ed25519\n",
        'version: 1\nkeys:\n  - "id": old\n    public-key: a.pub\n    algorithm: ed25519\n',
        "version: 1\nkeys:\n  - id: old\n    public-key: a.pub\n    algorithm: ed25519\n"
        "    not-after:\n      2030-01-01\n",
    ],
)
def test_what_cannot_be_edited_safely_is_left_to_people(tmp_path: Path, text: str) -> None:
    """Other ways of writing the same are refused, with what to write."""
    with pytest.raises(ConfigError) as caught:
        proposed(written(tmp_path, text), "old")
    assert "not-after: 2027-03-01" in str(caught.value.hint)


@given(st.datetimes(min_value=datetime(2001, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_no_moment_from_then_on_is_trusted(moment: datetime, minutes: int) -> None:
    """The last trusted day ends at or before the moment, whatever its offset."""
    since = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    last = last_trusted_day(since)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    assert timedelta(0) <= since - end < timedelta(days=1)
