"""The list of a repository's tags: whole or not at all, within limits, from its own registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import NoCredentials
from secure_pipeline.adapters.http import HttpLimits
from secure_pipeline.adapters.registry import RegistryLimits, Repository, open_repository
from secure_pipeline.adapters.registrylist import ListLimits
from secure_pipeline.errors import Inconclusive, PipelineError, Unavailable

LIMITS = RegistryLimits(http=HttpLimits(connect=2, silence=2, attempts=1))


@pytest.fixture
def server() -> Iterator[FaultProxy]:
    """A registry that answers what the test says."""
    with fault_proxy() as made:
        yield made


def at(server: FaultProxy, limits: ListLimits | None = None) -> Repository:
    chosen = replace(LIMITS, lists=limits or ListLimits())
    return open_repository(
        f"{server.host}/team/app", credentials=NoCredentials(), clock=SystemClock(), limits=chosen
    )


def page(*tags: object, following: str = "") -> fault.Fault:
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    body = json.dumps({"name": "team/app", "tags": list(tags)}).encode()
    return fault.answer(200, body, **headers)


def test_all_pages_are_read(server: FaultProxy) -> None:
    """Pages are followed; a tag that two pages name is one tag."""
    server.on("GET", "last=b", page("b", "c"))
    server.on("GET", "/tags/list", page("a", "b", following="/v2/team/app/tags/list?last=b"))
    assert at(server).tags() == ("a", "b", "c")


def test_no_tags_are_an_empty_list(server: FaultProxy) -> None:
    """Registries write null for a repository whose tags are gone."""
    server.on("GET", "/tags/list", fault.answer(200, b'{"name":"team/app","tags":null}'))
    assert at(server).tags() == ()


@pytest.mark.parametrize(
    "bad",
    [
        fault.answer(404), fault.answer(400, b"no"), fault.answer(200, b"<html>"),
        fault.answer(200, b'{"tags":"a"}'), fault.answer(200, b'{"tags":[1]}'),
    ],
)  # fmt: skip
def test_a_part_of_the_list_is_not_the_list(server: FaultProxy, bad: fault.Fault) -> None:
    """A later page that is missing or broken fails the whole."""
    server.on("GET", "last=b", bad)
    server.on("GET", "/tags/list", page("a", "b", following="/v2/team/app/tags/list?last=b"))
    with pytest.raises(PipelineError):
        at(server).tags()


def test_the_list_ends(server: FaultProxy) -> None:
    """Circles, too many pages and too many tags are no answer."""
    server.on("GET", "/tags/list", page("a", following="/v2/team/app/tags/list?last=a"))
    with pytest.raises(Inconclusive, match="do not end"):
        at(server).tags()
    assert len(server.requests("GET", "/tags/list")) == 2
    server.rules.clear()
    server.on("GET", "/tags/list", page(*(f"t{n}" for n in range(11))))
    with pytest.raises(Inconclusive, match="more than 10 tags"):
        at(server, ListLimits(entries=10)).tags()


def test_reg_10_the_list_does_not_lead_elsewhere(server: FaultProxy) -> None:
    """A next page at another host is not asked for."""
    with fault_proxy() as other:
        server.on("GET", "/tags/list", page("a", following=f"http://{other.host}/v2/x/tags/list"))
        with pytest.raises(Unavailable, match="goes on at another host"):
            at(server).tags()
        assert other.seen == []
