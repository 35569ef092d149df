"""Ages of keys and credentials: too old refuses, unknown is no answer."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.errors import ConfigError, ExitCode, Inconclusive, PolicyDenied
from secure_pipeline.policy.document import Policy
from secure_pipeline.policy.rotation import (
    Issued,
    RotationRule,
    age_of,
    check_ages,
    days,
    read_moment,
)

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
SKEW = timedelta(minutes=5)
RULE = RotationRule()
DAY = timedelta(days=1)


def key(created: datetime | None) -> Issued:
    return Issued("key", "version 9 of vault-transit://transit/release", created)


def test_the_limit_itself_still_counts() -> None:
    """A key that is exactly as old as allowed signs; one second more does not (exit 12)."""
    (age,) = check_ages([key(NOW - 30 * DAY)], RULE, NOW, SKEW)
    assert (age.over, age.due) == (False, NOW)
    with pytest.raises(PolicyDenied, match="is 30 days old; the policy allows 30 days") as caught:
        check_ages([key(NOW - 30 * DAY - timedelta(seconds=1))], RULE, NOW, SKEW)
    assert caught.value.exit_code is ExitCode.DENIED
    assert caught.value.hint == "secure-pipeline keys rotate KEY"


@pytest.mark.parametrize("kind", ["key", "secret-id", "token"])
def test_each_kind_has_its_own_limit(kind: str) -> None:
    """The message names the policy's key that refused."""
    rule = RotationRule(key=9 * DAY, secret_id=8 * DAY, token=7 * DAY)
    assert check_ages([Issued(kind, "it", NOW - 7 * DAY)], rule, NOW, SKEW)
    with pytest.raises(PolicyDenied, match=rf"\(rotation\.{kind}\)"):
        check_ages([Issued(kind, "it", NOW - 10 * DAY)], rule, NOW, SKEW)


def test_an_unknown_age_is_no_age() -> None:
    """Without a creation time nothing is decided (exit 14), however old other things are."""
    with pytest.raises(Inconclusive, match="not known when version 9"):
        check_ages([key(NOW), key(None)], RULE, NOW, SKEW)


def test_a_key_of_the_future_is_no_answer() -> None:
    """A little skew of clocks counts as new; more of it refuses."""
    assert age_of(key(NOW + SKEW), RULE, NOW, SKEW).age == timedelta(0)
    with pytest.raises(Inconclusive, match="in the future"):
        age_of(key(NOW + SKEW + timedelta(seconds=1)), RULE, NOW, SKEW)


@pytest.mark.parametrize(
    "value",
    [None, "", "yesterday", "2027-03-01", "2027-03-01T12:00:00", "0001-01-01T00:00:00Z", 0, -1,
     True, 1e9, 10**30, [], {}, "2027-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(value: object) -> None:
    """Missing, loose, zero and impossible times are not guessed at."""
    assert read_moment(value) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary()))
def test_no_time_is_a_crash(value: object) -> None:
    """Whatever an answer holds gives a time of ours or None."""
    found = read_moment(value)
    assert found is None or found.tzinfo is UTC


def test_times_as_vault_writes_them() -> None:
    """Nanoseconds, offsets and seconds since 1970 are read."""
    assert read_moment("2027-03-01T12:00:00.000000789Z") == NOW
    assert read_moment("2027-03-01T13:00:00+01:00") == NOW
    assert read_moment(int(NOW.timestamp())) == NOW


@pytest.mark.parametrize(
    ("span", "text"),
    [(31 * DAY, "31 days"), (DAY, "24 hours"), (timedelta(seconds=1), "1 second"),
     (timedelta(0), "0 seconds"), (timedelta(minutes=3), "3 minutes")],
)  # fmt: skip
def test_spans_in_words(span: timedelta, text: str) -> None:
    """Spans are told in the largest unit that fits at least twice."""
    assert days(span) == text


def test_the_section_of_the_policy() -> None:
    """Limits are durations; one of nothing would refuse everything and is a mistake."""
    node = parse_yaml(b"version: 1\nrotation:\n  key: 90d\n  secret-id: 1h\n", "p.yaml")
    rule = decode(Policy, node).rotation
    assert (rule.limit("key"), rule.limit("secret-id")) == (90 * DAY, timedelta(hours=1))
    assert rule.limit("token") == 30 * DAY
    with pytest.raises(ConfigError, match=r"p\.yaml:2: rotation: token must be more than nothing"):
        decode(Policy, parse_yaml(b"version: 1\nrotation:\n  token: 0s\n", "p.yaml"))
