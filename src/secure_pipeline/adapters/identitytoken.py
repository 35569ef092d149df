"""Tokens that say who runs: read strictly, and asked for where GitHub Actions gives them out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlencode

from secure_pipeline.adapters.http import Grant, HttpLimits, Origin, Transport
from secure_pipeline.errors import ConfigError, Unavailable
from secure_pipeline.ports import Clock
from secure_pipeline.shape import member, parse_object

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_MAX_ANSWER = 64 << 10


@dataclass(frozen=True)
class GithubJob:
    """Where a job of GitHub Actions asks for its token."""

    url: str = field(repr=False)
    bearer: str = field(repr=False)


def check_text(text: str, what: str, where: str) -> str:
    """Return one token without the line's end. Raises: ConfigError, never quoting it."""
    stripped = text.strip()
    if not _TOKEN.fullmatch(stripped):
        raise ConfigError(f"holds no {what}", where=where)
    return stripped


def github_token(job: GithubJob, audience: str, clock: Clock, seconds: float) -> str:
    """Ask GitHub Actions for this job's token, within ``seconds``; an empty audience is its own.

    Raises: Unavailable, ConfigError (the answer holds no token).
    """
    origin = Origin.of(job.url)
    where = f"{origin.scheme}://{origin.host}"
    transport = Transport(clock, limits=HttpLimits(total=seconds, redirects=0))
    separator = "&" if "?" in job.url else "?"
    query = urlencode({"audience": audience}) if audience else ""
    url = f"{job.url}{separator}{query}" if query else job.url
    grant = Grant(origin, f"bearer {job.bearer}")
    with transport.request("GET", url, grant=grant) as answer:
        if answer.status != 200:
            raise Unavailable(
                f"no identity token: answer {answer.status}",
                where=where,
                hint="the job needs 'permissions: id-token: write'",
            )
        data = answer.read(_MAX_ANSWER)
    value = member(parse_object(data, where, limit=_MAX_ANSWER), "value", str, where)
    return check_text(value, "identity token", where)
