"""The router of the Gateway API against routes and answers that are hard to have on a cluster.

The good ones, and those that a real server refuses, are in tests/integration/test_gateway_api.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.kubernetesapi import FakeApi, fake_api
from secure_pipeline.adapters import gateway_api
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.gateway_api import ACCEPTED_POLLS, ATTEMPTS, GatewayApiRouter
from secure_pipeline.canary.target import GatewayRouter
from secure_pipeline.errors import Unavailable

PATH = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web"
TARGET = GatewayRouter("shop", "web", {"blue": "web-blue", "green": "web-green"})
GREEN = Fraction(1, 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeApi]:
    with fake_api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def api(server: FakeApi) -> FakeApi:
    """The server with one route, of one rule with all requests to blue, accepted."""
    for kept in (server.objects, server.replies, server.seen, server.patches):
        kept.clear()
    server.objects[PATH] = route(rule(blue=1, green=0))
    return server


def ref(name: str, weight: int | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": 80, **({} if weight is None else {"weight": weight}), **more}


def rule(blue: int | None, green: int | None, *others: Any, **more: Any) -> dict[str, Any]:
    return {"backendRefs": [ref("web-blue", blue), ref("web-green", green), *others], **more}


def parent(generation: int, *more: dict[str, Any], name: str = "main", **status: str) -> Any:
    """What a controller says of one Gateway; ``status`` by type of condition."""
    states = {"Accepted": "True", "ResolvedRefs": "True", **status}
    conditions = [
        {"type": kind, "status": state, "observedGeneration": generation, "reason": "Why"}
        for kind, state in states.items()
    ]
    return {"parentRef": {"name": name}, "controllerName": "c", "conditions": [*conditions, *more]}


def route(*rules: dict[str, Any], parents: list[Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "generation": 3, "resourceVersion": "7"},
        "spec": {"parentRefs": [{"name": "main"}], "rules": list(rules)},
        "status": {"parents": [parent(3)] if parents is None else parents},
    }


def accept(api: FakeApi, _: float = 0) -> None:
    """What a controller does after each change."""
    made = api.objects[PATH]
    made["status"] = {"parents": [parent(made["metadata"]["generation"])]}


def router(api: FakeApi, sleep: Callable[[float], object] | None = None) -> GatewayApiRouter:
    """While it sleeps, a controller accepts the route."""
    slept = sleep or (lambda seconds: accept(api, seconds))
    return GatewayApiRouter(TARGET, api.config, SystemClock(), slept)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Unavailable) as caught:
        call()
    text = f"{caught.value} {caught.value.hint or ''}"
    assert "\n" not in text
    assert "s3cret" not in text
    return text


def weights(api: FakeApi) -> list[list[int | None]]:
    return [
        [reference.get("weight") for reference in each.get("backendRefs", [])]
        for each in api.objects[PATH]["spec"]["rules"]
    ]


def test_every_rule_gets_the_share_and_nothing_else_changes(api: FakeApi) -> None:
    """Rules with matches, filters and another order are split alike, in one write."""
    redirect = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "x"}}]}
    swapped = {"backendRefs": [ref("web-green"), ref("web-blue", filters=[{"type": "X"}])]}
    elsewhere = {"backendRefs": [ref("docs", 3), ref("help", 4)]}
    first = rule(blue=1, green=0, matches=[{"path": {"value": "/a"}}], filters=[{"type": "X"}])
    api.objects[PATH] = route(first, redirect, swapped, elsewhere)
    before = copy.deepcopy(api.objects[PATH])
    router(api).set("green", GREEN)
    assert weights(api) == [[95, 5], [], [5, 95], [3, 4]]
    assert len(api.patches) == 1
    assert router(api).read().shares == {"blue": Fraction(19, 20), "green": GREEN}
    assert without_weights(api.objects[PATH]) == without_weights(before)


def without_weights(made: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(made["spec"])
    for each in spec["rules"]:
        for reference in each.get("backendRefs", []):
            reference.pop("weight", None)
    return spec


def test_the_same_again_writes_nothing(api: FakeApi) -> None:
    """Weights that are right already are left alone, so no new generation has to be accepted."""
    api.objects[PATH] = route(rule(blue=95, green=5))
    router(api).set("green", GREEN)
    assert api.patches == []
    api.objects[PATH] = route(rule(blue=19, green=1))
    assert router(api).read().shares["green"] == GREEN


def test_the_greatest_share_of_all_rules_counts(api: FakeApi) -> None:
    """Another rule with more, one that names a slot alone, and weights left out are all seen."""
    cases = [
        ([rule(95, 5), rule(1, 3)], Fraction(19, 20), Fraction(3, 4)),
        ([rule(95, 5), {"backendRefs": [ref("web-green")]}], Fraction(19, 20), Fraction(1)),
        ([rule(None, None)], Fraction(1, 2), Fraction(1, 2)),
        ([rule(1, 1, ref("other", 2))], Fraction(1, 4), Fraction(1, 4)),
        ([rule(0, 0)], Fraction(0), Fraction(0)),
        ([rule(1, 1, ref("web-green", 2))], Fraction(1, 4), Fraction(3, 4)),
        ([rule(1, 0, ref("web-green", 1, namespace="else"))], Fraction(1, 2), Fraction(0)),
        ([rule(1, 0, ref("web-green", 1, kind="ServiceImport"))], Fraction(1, 2), Fraction(0)),
    ]
    for rules, blue, green in cases:
        api.objects[PATH] = route(*rules)
        assert router(api).read().shares == {"blue": blue, "green": green}


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=5))
def test_shares_are_never_told_too_small(server: FakeApi, pairs: list[tuple[int, int]]) -> None:
    """For any weights, no rule gives a slot more than is told."""
    server.replies.clear()
    server.objects[PATH] = route(*(rule(blue, green) for blue, green in pairs))
    shares = router(server).read().shares
    for blue, green in pairs:
        assert green <= shares["green"] * (blue + green)
        assert blue <= shares["blue"] * (blue + green)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=4),
    st.fractions(0, 1),
    st.sampled_from(["blue", "green"]),
)
def test_no_share_is_ever_exceeded(
    server: FakeApi, pairs: list[tuple[int, int]], share: Fraction, canary: str
) -> None:
    """From any weights, what is read after a share was set is it, or a little less."""
    server.replies.clear()
    server.objects[PATH] = route(*(rule(blue, green) for blue, green in pairs))
    router(server).set(canary, share)
    shares = router(server).read().shares
    assert share - Fraction(1, 5000) < shares[canary] <= share
    assert sum(shares.values()) == 1
    if share in (0, 1):
        assert shares[canary] == share


OBSTACLES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a third backend": ([rule(1, 0, ref("other", 1))], "rule 1 cannot be split: it has a backend"),
    "another namespace": ([rule(1, 0, ref("web-blue", 1, namespace="x"))], "it has a backend"),
    "no Service": ([rule(1, 0, ref("web-blue", 1, group="x.io", kind="Y"))], "it has a backend"),
    "one alone": ([rule(1, 0), {"backendRefs": [ref("web-blue")]}], "rule 2 cannot be split: it"),
    "one twice": ([rule(1, 0, ref("web-blue", 1))], "does not name each of web-blue and web-green"),
    "a mirror": (
        [rule(1, 0, filters=[{"requestMirror": {"backendRef": {"name": "web-green"}}}])],
        "it mirrors requests",
    ),
    "a mirror elsewhere": (
        [
            rule(1, 0),
            {
                "backendRefs": [
                    ref("x", filters=[{"requestMirror": {"backendRef": {"name": "web-green"}}}])
                ]
            },
        ],
        "rule 2 cannot be split: it mirrors requests",
    ),
    "sessions": ([rule(1, 0, sessionPersistence={"sessionName": "s"})], "its sessions stay"),
}


@pytest.mark.parametrize(("rules", "says"), OBSTACLES.values(), ids=OBSTACLES)
def test_a_rule_that_weights_do_not_rule_is_refused(
    api: FakeApi, rules: list[dict[str, Any]], says: str
) -> None:
    """Before anything is written, with what to do."""
    api.objects[PATH] = route(*rules)
    text = refused(lambda: router(api).set("green", GREEN))
    assert says in text
    assert "give the rule web-blue and web-green as its only backendRefs" in text
    assert api.patches == []


def test_nothing_is_given_wherever_it_can_be(api: FakeApi) -> None:
    """Taking all traffic away is done in the other rules before one is refused."""
    api.objects[PATH] = route(
        rule(95, 5),
        rule(95, 5, ref("other", 1)),
        rule(95, 5, sessionPersistence={"sessionName": "s"}),
    )
    text = refused(lambda: router(api).set("green", Fraction(0)))
    assert "rule 2 cannot be split" in text
    assert weights(api) == [[100, 0], [95, 5, 1], [100, 0]]


def test_weights_that_decide_nothing_are_not_read(api: FakeApi) -> None:
    """Sessions and mirrors give a slot requests at weight 0, so there is no answer."""
    for name in ("sessions", "a mirror", "a mirror elsewhere"):
        rules, says = OBSTACLES[name]
        api.objects[PATH] = route(*rules)
        assert says in refused(router(api).read)
    api.objects[PATH] = route(
        rule(1, 0), {"backendRefs": [ref("x")], "sessionPersistence": {"sessionName": "s"}}
    )
    assert router(api).read().shares["green"] == 0


UNACCEPTED: dict[str, tuple[list[Any], str]] = {
    "nobody": ([], "no controller has taken it up for Gateway main"),
    "another Gateway": ([parent(3, name="x")], "no controller has taken it up for Gateway main"),
    "an old generation": ([parent(2)], "Accepted is about generation 2, the route has 3"),
    "refused": ([parent(3, Accepted="False")], "Accepted is not True (Why)"),
    "unknown": ([parent(3, Accepted="Unknown")], "Accepted is not True"),
    "no Service": ([parent(3, ResolvedRefs="False")], "ResolvedRefs is not True (Why)"),
    "in part": ([parent(3, PartiallyInvalid="True")], "a part of it is not in force (Why)"),
    "one of two controllers": ([parent(3), parent(2)], "about generation 2"),
    "no condition": ([{**parent(3), "conditions": []}], "says nothing of Accepted"),
    "no generation": (
        [
            {
                **parent(3),
                "conditions": [
                    {"type": "Accepted", "status": "True"},
                    {"type": "ResolvedRefs", "status": "True"},
                ],
            }
        ],
        "Accepted is about generation None",
    ),
}


@pytest.mark.parametrize(("parents", "says"), UNACCEPTED.values(), ids=UNACCEPTED)
def test_what_is_not_accepted_cannot_be_told(api: FakeApi, parents: list[Any], says: str) -> None:
    """Until a controller has this generation the old weights may be in force: no answer."""
    api.objects[PATH] = route(rule(95, 5), parents=parents)
    slept: list[float] = []
    text = refused(router(api, slept.append).read)
    assert "not accepted yet: " in text
    assert says in text
    assert "Gateway main" in text
    assert "kubectl describe httproute web -n shop" in text
    assert len(slept) == ACCEPTED_POLLS


def test_every_gateway_must_have_accepted_it(api: FakeApi) -> None:
    """A route of two Gateways, or of two listeners, is in force when both have it."""
    both = [{"name": "main", "sectionName": "http"}, {"name": "main", "namespace": "other"}]
    first, second = ({**parent(3), "parentRef": each} for each in both)
    first["parentRef"] = {**both[0], "namespace": "shop", "kind": "Gateway"}
    for parents, told in (([first], False), ([second], False), ([second, first], True)):
        api.objects[PATH] = route(rule(95, 5), parents=parents)
        api.objects[PATH]["spec"]["parentRefs"] = both
        if told:
            assert router(api, lambda _: None).read().shares["green"] == GREEN
        else:
            refused(router(api, lambda _: None).read)
    api.objects[PATH]["spec"]["parentRefs"] = []
    assert "it belongs to no Gateway" in refused(router(api, lambda _: None).read)


def test_read_waits_a_little_for_what_was_just_written(api: FakeApi) -> None:
    """A generation that is accepted within the wait is told, its weights with it."""
    router(api).set("green", GREEN)
    found = router(api).read()
    assert found.shares["green"] == GREEN
    assert found.detail == (
        "HTTPRoute shop/web generation 4 accepted: rule 1 web-blue=95 web-green=5"
    )


def test_a_change_by_others_is_never_overwritten(api: FakeApi) -> None:
    """A write for an older state of the route is refused, and made anew from the newer one."""
    elsewhere = route(rule(1, 0, filters=[{"type": "New"}]))
    elsewhere["metadata"]["resourceVersion"] = "8"

    def stale(handler: BaseHTTPRequestHandler) -> None:
        answer(handler, api.objects[PATH])
        api.replies.clear()
        api.objects[PATH] = elsewhere

    api.replies[PATH] = stale
    router(api, lambda _: None).set("green", GREEN)
    assert [patch[0]["value"] for patch in api.patches] == ["7", "8"]
    assert api.objects[PATH]["spec"]["rules"][0]["filters"] == [{"type": "New"}]
    assert weights(api) == [[95, 5]]


def answer(handler: BaseHTTPRequestHandler, value: Any, code: int = 200) -> None:
    body = json.dumps(value).encode()
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_endless_changes_by_others_end(api: FakeApi) -> None:
    """After some attempts it gives up and says how to find who writes too."""

    def restless(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PATCH":
            answer(handler, {}, 409)
        else:
            answer(handler, api.objects[PATH])

    api.replies[PATH] = restless
    text = refused(lambda: router(api, lambda _: None).set("green", GREEN))
    assert f"others changed it {ATTEMPTS} times" in text
    assert "--show-managed-fields" in text
    assert len(api.patches) == ATTEMPTS


def test_no_such_route(api: FakeApi) -> None:
    """Neither read nor written, with what to type."""
    api.objects.clear()
    for call in (router(api).read, lambda: router(api).set("green", GREEN)):
        assert "there is no such route kubectl get httproutes -n shop" in refused(call)


def test_a_route_of_other_services(api: FakeApi) -> None:
    """A route that names neither Service tells nothing and gets nothing."""
    api.objects[PATH] = route({"backendRefs": [ref("other")]}, {})
    for call in (router(api).read, lambda: router(api).set("green", Fraction(0))):
        assert "none of its rules names web-blue or web-green" in refused(call)
    assert api.patches == []


def test_a_refusal_names_what_to_allow(api: FakeApi) -> None:
    """Both verbs at once, whichever is missing."""
    api.replies[PATH] = (403, b'{"message": "User \\"system:serviceaccount:shop:ci\\" cannot"}')
    text = refused(router(api).read)
    assert "system:serviceaccount:shop:ci may not get httproutes in namespace shop" in text
    assert "--verb=get,patch --resource=httproutes.gateway.networking.k8s.io -n shop" in text


def test_the_server_s_own_words(api: FakeApi) -> None:
    """What an admission webhook objects is shown on one line, cut off, and nothing unprintable."""

    def objects(words: str) -> str:
        def reply(handler: BaseHTTPRequestHandler) -> None:
            if handler.command == "GET":
                answer(handler, api.objects[PATH])
            else:
                answer(handler, {"message": words}, 400)

        api.replies[PATH] = reply
        return refused(lambda: router(api).set("green", GREEN))

    assert "it answered 400 to patch httproutes: no\ttouching".replace("\t", " ") in objects(
        "no\n touching"
    )
    assert len(objects("x" * 10_000)) < 500
    assert "it answered 400 to patch httproutes " in f"{objects(chr(27) + '[2J')} "


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no spec": lambda r: r.pop("spec"),
    "no metadata": lambda r: r.pop("metadata"),
    "rules no list": lambda r: r["spec"].update(rules={}),
    "a rule no object": lambda r: r["spec"].update(rules=[1]),
    "a weight as text": lambda r: r["spec"]["rules"][0]["backendRefs"][1].update(weight="0"),
    "a weight under 0": lambda r: r["spec"]["rules"][0]["backendRefs"][1].update(weight=-1),
    "a weight as truth": lambda r: r["spec"]["rules"][0]["backendRefs"][1].update(weight=True),
    "no name": lambda r: r["spec"]["rules"][0]["backendRefs"][1].pop("name"),
    "too many rules": lambda r: r["spec"].update(rules=[rule(1, 0)] * 100),
    "a generation as text": lambda r: r["metadata"].update(generation="3"),
    "a parent without a name": lambda r: r["status"]["parents"][0].update(parentRef={}),
    "a condition without a type": lambda r: r["status"]["parents"][0]["conditions"][0].pop("type"),
    "a status as truth": lambda r: r["status"]["parents"][0]["conditions"][0].update(status=True),
}


@pytest.mark.parametrize("breaking", BROKEN.values(), ids=BROKEN)
def test_what_is_no_route_tells_nothing(
    api: FakeApi, breaking: Callable[[dict[str, Any]], object]
) -> None:
    """An answer of another shape is never read as a share, and never written to."""
    breaking(api.objects[PATH])
    assert "cannot understand" in refused(router(api, lambda _: None).read)


def test_a_server_that_is_gone_or_silent(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer within the deadline, or none at all, is Unavailable for both calls."""
    monkeypatch.setattr(gateway_api, "TOTAL_SECONDS", 0.3)
    api.replies[PATH] = lambda handler: handler.rfile.read(1)
    silent = router(api)
    config = dataclasses.replace(api.config, server="https://127.0.0.1:1")
    gone = GatewayApiRouter(TARGET, config, SystemClock())
    for each, says in ((silent, "no whole answer within"), (gone, "no answer: ConnectionError")):
        assert says in refused(each.read)
        assert says in refused(lambda each=each: each.set("green", Fraction(0)))  # type: ignore[misc]


def test_only_a_slot_can_be_the_canary(api: FakeApi) -> None:
    """Another name is a bug, and nothing is asked."""
    with pytest.raises(ValueError, match="values to unpack"):
        router(api).set("red", GREEN)
    assert api.seen == []
