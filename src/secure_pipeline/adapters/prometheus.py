"""Metrics over the HTTP API of Prometheus (prometheus.io/docs/prometheus/latest/querying/api).

Raw samples come from an instant query of a range selector: exact scrape times and values, where
``rate`` and ``increase`` extrapolate. Answers are data of strangers: whatever is not exactly what
the API promises is Inconclusive, and so is an answer with warnings, which Prometheus gives where
it could not ask all that it should have.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from secure_pipeline import strictjson
from secure_pipeline.adapters.http import Answer, Grant, HttpLimits, Origin, Transport, shown
from secure_pipeline.canary.target import ServiceAccess
from secure_pipeline.errors import (
    ConfigError,
    Inconclusive,
    PipelineError,
    Unavailable,
    VerificationFailed,
)
from secure_pipeline.files import read_bounded
from secure_pipeline.ports import Alert, Clock, Series
from secure_pipeline.shape import member, objects, texts, timestamp

MAX_ANSWER_BYTES = 16 << 20
MAX_SERIES = 5000
MAX_ALERTS = 5000
_MAX_SECRET_BYTES = 16 << 10
_QUOTED = 300
"""Characters of a service's own words that an error repeats."""
_LATE_EVALUATIONS = 3
_SLACK = timedelta(seconds=5)
"""A rule is evaluated in time within so many of its intervals, and this."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?|Inf)|NaN", re.ASCII)
_AUTH_HINT = "check token-file, or username and password-file"


class Prometheus:
    """The metrics service of a target (``ports.Metrics``)."""

    def __init__(
        self, access: ServiceAccess, clock: Clock, *, alertmanager: ServiceAccess | None = None
    ) -> None:
        """Raises: ConfigError for an address that is none, or a missing ``ca``."""
        self._service = _Service(access, clock)
        self._alertmanager = _Service(alertmanager, clock) if alertmanager else None
        self.where = self._service.where

    def clock(self) -> float:
        """The service's present time, seconds since 1970. Raises: Unavailable, Inconclusive."""
        kind, result = self._query("time()")
        if kind != "scalar":
            raise self._wrong(f"time() gave a {kind}")
        value = _sample(result, self.where)[1]
        if not (math.isfinite(value) and value > 0):
            raise self._wrong(f"time() gave {value}")
        return value

    def samples(self, selector: str, seconds: float) -> tuple[Series, ...]:
        """Return the raw samples of the last ``seconds``, rounded up to whole milliseconds.

        Raises: Unavailable, Inconclusive.
        """
        kind, result = self._query(f"{selector}[{max(1, math.ceil(seconds * 1000))}ms]")
        if kind != "matrix":
            raise self._wrong(f"a selector gave a {kind}")
        found = tuple(self._series(item) for item in _listed(result, MAX_SERIES, self.where))
        if len({frozenset(series.labels.items()) for series in found}) != len(found):
            raise self._wrong("one series came twice")
        return found

    def value(self, query: str) -> float | None:
        """Evaluate an expression now; None if it is empty. Raises: Unavailable, Inconclusive."""
        kind, result = self._query(query)
        if kind == "vector":
            found = _listed(result, MAX_SERIES, self.where)
            if not found:
                return None
            if len(found) > 1:
                raise self._wrong(f"gave {len(found)} samples, not one", query)
            result = found[0].get("value")
        elif kind != "scalar":
            raise self._wrong(f"gave a {kind}, not one number", query)
        value = _sample(result, self.where)[1]
        if not math.isfinite(value):
            raise self._wrong(f"gave {value}", query)
        return value

    def alerts(self, names: Sequence[str]) -> tuple[Alert, ...]:
        """Return those of the named alerts that fire here or are active in Alertmanager.

        A silence in Alertmanager hides nothing that the rule here says: alerts are often
        silenced just for the time of a deployment. Raises: Unavailable, Inconclusive.
        """
        if not names:
            return ()
        asked = [("type", "alert"), *(("rule_name[]", name) for name in names)]
        now = self.clock()
        data = _checked(self._service.api("/api/v1/rules", asked), "groups", list, self.where)
        firing: list[Alert] = []
        seen: set[str] = set()
        for group in _listed(data, MAX_ALERTS, self.where):
            for rule in _members(group, "rules", self.where):
                if rule.get("type") == "alerting" and rule.get("name") in names:
                    seen.add(rule["name"])
                    firing += self._firing(rule, _interval(group, self.where), now)
        for name in names:
            if name not in seen:
                raise Inconclusive(
                    f"has no alerting rule {name[:100]!r}: its silence would mean nothing",
                    where=self.where,
                    hint="check the alert's name in the target",
                )
        return (*firing, *self._active(names))

    def _firing(self, rule: Mapping[str, Any], interval: float, now: float) -> list[Alert]:
        name, where = rule["name"], self.where
        health = rule.get("health")
        if health != "ok":
            said = _words(str(rule.get("lastError") or "not evaluated yet"))
            raise Inconclusive(f"alerting rule {name!r} is not evaluated: {said}", where=where)
        last = _evaluated(rule, where)
        age = now - last
        if age > _LATE_EVALUATIONS * interval + _SLACK.total_seconds():
            raise Inconclusive(
                f"alerting rule {name!r} was last evaluated {age:.0f} s ago", where=where
            )
        return [
            Alert(name, _labels(alert, "labels", where))
            for alert in _members(rule, "alerts", where)
            if _checked(alert, "state", str, where) == "firing"
        ]

    def _active(self, names: Sequence[str]) -> list[Alert]:
        """What Alertmanager holds as active: neither silenced nor inhibited."""
        if self._alertmanager is None:
            return []
        where = self._alertmanager.where
        asked = [("active", "true"), ("silenced", "false"), ("inhibited", "false")]
        found: list[Alert] = []
        for item in _listed(self._alertmanager.get("/api/v2/alerts", asked), MAX_ALERTS, where):
            labels = _labels(item, "labels", where)
            status = _checked(item, "status", dict, where)
            muted = status.get("silencedBy") or status.get("inhibitedBy")
            name = labels.get("alertname", "")
            if name in names and status.get("state") == "active" and not muted:
                found.append(Alert(name, labels))
        return found

    def _query(self, query: str) -> tuple[str, Any]:
        data = self._service.api("/api/v1/query", [("query", query)])
        return _checked(data, "resultType", str, self.where), data.get("result")

    def _series(self, item: Mapping[str, Any]) -> Series:
        labels = _labels(item, "metric", self.where)
        values = item.get("values")
        if not isinstance(values, list) or not values:
            raise self._wrong("a series has no plain samples")
        samples = tuple(_sample(pair, self.where) for pair in values)
        if any(later[0] <= earlier[0] for earlier, later in pairwise(samples)):
            raise self._wrong("the samples of a series are not in order")
        return Series(labels, samples)

    def _wrong(self, what: str, query: str = "") -> Inconclusive:
        asked = f"{_words(query, 100)!r} " if query else ""
        return Inconclusive(f"{asked}{what}", where=self.where)


class _Service:
    """GET requests to one service: bounded, with its credentials, nothing followed."""

    def __init__(self, access: ServiceAccess, clock: Clock) -> None:
        seconds = access.timeout.total_seconds()
        limits = HttpLimits(
            connect=min(10.0, seconds), silence=seconds, total=seconds, attempts=2, redirects=0
        )
        self._access = access
        self._base = access.url.rstrip("/")
        self.where = shown(self._base)
        if urlsplit(self._base).query or urlsplit(self._base).fragment or "@" in self._base:
            raise ConfigError("is more than an address and a path", where=self.where)
        self._transport = Transport(clock, ca=Path(access.ca) if access.ca else None, limits=limits)
        try:
            self._transport.check(self._base)
            self._origin = Origin.of(self._base)
        except Unavailable as error:
            raise ConfigError(error.message, where=error.where, hint="use https") from None

    def api(self, path: str, asked: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The ``data`` of an answer of Prometheus. Raises: Unavailable, Inconclusive."""
        document = self.get(path, asked)
        if not isinstance(document, dict) or document.get("status") != "success":
            raise Inconclusive("answers without success", where=self.where)
        if document.get("warnings"):
            said = _words(str(document["warnings"]))
            raise Inconclusive(f"answers with warnings: {said}", where=self.where)
        return dict(_checked(document, "data", dict, self.where))

    def get(self, path: str, asked: Sequence[tuple[str, str]]) -> Any:
        """The JSON of an answer. Raises: Unavailable, Inconclusive."""
        secrets, grant = self._grant()
        url = f"{self._base}{path}?{urlencode(asked)}"
        with self._transport.request("GET", url, grant=grant, follow=False) as answer:
            if answer.status != 200:
                raise self._refusal(answer, secrets)
            data = answer.read(MAX_ANSWER_BYTES)
        try:
            return strictjson.loads(data, limit=MAX_ANSWER_BYTES)
        except strictjson.InvalidJson as error:
            raise Inconclusive(
                f"answers something that is no JSON: {_words(str(error))}",
                where=self.where,
                hint="look at the address: another service, or a login page, may be there",
            ) from None

    def _grant(self) -> tuple[tuple[str, ...], Grant | None]:
        """Read the credentials as they are now; they may be rotated under a long promotion."""
        access = self._access
        if access.token_file is not None:
            token = _secret(access.token_file, r"[!-~]+")
            return (token,), Grant(self._origin, f"Bearer {token}")
        if access.username is not None and access.password_file is not None:
            password = _secret(access.password_file)
            pair = b64encode(f"{access.username}:{password}".encode()).decode()
            return (password, pair), Grant(self._origin, f"Basic {pair}")
        return (), None

    def _refusal(self, answer: Answer, secrets: tuple[str, ...]) -> PipelineError:
        said = self._said(answer, secrets)
        status = answer.status
        if status in (401, 403):
            return Unavailable(f"refuses ({status})", where=self.where, hint=_AUTH_HINT)
        if 300 <= status < 400:
            return Unavailable(
                f"redirects ({status}), which is not followed",
                where=self.where,
                hint="name the address that it leads to",
            )
        if 400 <= status < 500 and status not in (408, 429):
            return Inconclusive(f"answers {status}: {said}", where=self.where)
        return Unavailable(f"answers {status}: {said}", where=self.where)

    def _said(self, answer: Answer, secrets: tuple[str, ...]) -> str:
        """What an error says, without what we sent to prove who we are."""
        text = answer.quote(4 * _QUOTED)
        try:
            document = strictjson.loads(text.encode())
        except strictjson.InvalidJson:
            document = None
        if isinstance(document, dict) and isinstance(document.get("error"), str):
            text = document["error"]
        for secret in secrets:
            text = text.replace(secret, "…")
        return _words(text) or "nothing"


def _secret(path: str, form: str = r".+") -> str:
    """The one line of a file. Raises: Unavailable, without a word of what is in it."""
    try:
        text = read_bounded(Path(path), _MAX_SECRET_BYTES).decode("utf-8").rstrip("\r\n")
    except (UnicodeDecodeError, ConfigError):
        text = ""
    if not (text.isprintable() and re.fullmatch(form, text)):
        raise Unavailable("is no file with one line of credentials", where=path)
    return text


def _words(text: str, limit: int = _QUOTED) -> str:
    """Strangers' words as one printable line."""
    line = " ".join(text.split())
    return "".join(mark if mark.isprintable() else "?" for mark in line)[:limit]


def _sample(pair: Any, where: str) -> tuple[float, float]:
    """``[time, "value"]`` as numbers. Raises: Inconclusive."""
    if isinstance(pair, list) and len(pair) == 2:
        time, text = pair
        known = isinstance(time, int | float) and not isinstance(time, bool) and 0 <= time < 1e12
        if known and isinstance(text, str) and len(text) <= 40 and _NUMBER.fullmatch(text):
            return float(time), float(text)
    raise Inconclusive("gave something that is no sample", where=where)


def _listed(value: Any, limit: int, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or any(not isinstance(item, dict) for item in value):
        raise Inconclusive("gave no list of objects", where=where)
    if len(value) > limit:
        raise Inconclusive(f"gave {len(value)} items; limit {limit}", where=where)
    return value


def _members(parent: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    try:
        return objects(parent, name, where, limit=MAX_ALERTS)
    except VerificationFailed as error:
        raise Inconclusive(error.message, where=where) from None


def _checked(parent: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    try:
        return member(parent, name, kind, where)
    except VerificationFailed as error:
        raise Inconclusive(error.message, where=where) from None


def _labels(parent: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    try:
        return texts(parent, name, where)
    except VerificationFailed as error:
        raise Inconclusive(_words(error.message), where=where) from None


def _interval(group: Mapping[str, Any], where: str) -> float:
    seconds = group.get("interval")
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not known or not 0 < seconds <= timedelta(days=1).total_seconds():  # type: ignore[operator]
        raise Inconclusive("a group of rules has no interval", where=where)
    return float(seconds)  # type: ignore[arg-type]


def _evaluated(rule: Mapping[str, Any], where: str) -> float:
    text = _checked(rule, "lastEvaluation", str, where)
    try:
        return timestamp(text, where).timestamp()
    except (VerificationFailed, OverflowError) as error:
        raise Inconclusive(f"lastEvaluation: {_words(str(error))}", where=where) from None
