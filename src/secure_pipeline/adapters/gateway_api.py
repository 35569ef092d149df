"""Splits traffic by the weights of an HTTPRoute of the Kubernetes Gateway API.

A rule's weights say how many of its requests each backend gets:
https://gateway-api.sigs.k8s.io/reference/spec/#httpbackendref. They are in force once the
Gateway's controller has accepted the generation of the route that has them; its proxies follow a
moment later, which the API does not tell. A Service without ready endpoints keeps its share, and
that share of requests is answered with an error: nothing moves to the other slot by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from secure_pipeline import shape
from secure_pipeline.adapters.kubeapi import Changed, KubernetesApi, Resource
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.adapters.weights import split
from secure_pipeline.canary.target import GatewayRouter
from secure_pipeline.errors import Unavailable, VerificationFailed
from secure_pipeline.ports import Clock, Routing

TOTAL_SECONDS = 10.0
"""For one ``set`` or ``read``."""
ATTEMPTS = 5
"""To write a route that others write too."""
ACCEPTED_POLLS = 15
POLL_SECONDS = 0.2
"""``read`` waits so often and so long for the controller to accept what was just written."""
MOST = 10_000
"""Greatest weight that is written; the API allows 1 000 000."""
_MAX_ITEMS = 64
"""The API allows 16 rules, 16 backends, 16 filters, 32 parents and 8 conditions."""
_WORDS = 200
_GROUP = "gateway.networking.k8s.io"
_ROUTES = Resource("httproutes", _GROUP, verbs=("get", "patch"))


@dataclass(frozen=True)
class _Rule:
    """A rule of the route that has to do with one of the slots."""

    number: int
    """From 0."""
    weights: tuple[tuple[str | None, int], ...]
    """Slot, or None for any other backend, and weight of each backend in the route's order."""
    bypass: str | None
    """What gives a slot requests whatever the weights are, if anything does."""

    def share(self, slot: str) -> Fraction:
        """Of this rule's requests; without any weight they all get an error."""
        total = sum(weight for _, weight in self.weights)
        mine = sum(weight for name, weight in self.weights if name == slot)
        return Fraction(mine, total) if total else Fraction(0)

    def obstacle(self, services: Mapping[str, str]) -> str | None:
        """Why its weights cannot be set, if they cannot."""
        names = [name for name, _ in self.weights]
        if None in names:
            return "it has a backend besides the two Services"
        if len(names) != 2 or len(set(names)) != 2:
            both = " and ".join(services.values())
            return f"it does not name each of {both} once"
        return None


class GatewayApiRouter:
    """The weights of one HTTPRoute, in every rule that names a slot. Implements ports.Router."""

    def __init__(
        self,
        target: GatewayRouter,
        config: KubernetesConfig,
        clock: Clock,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._target = target
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._place = f"HTTPRoute {target.namespace}/{target.route}"

    def set(self, canary: str, share: Fraction) -> None:
        """Write the weights, and nothing but them, into every rule that names both Services.

        A rule that names only one of them, or other backends besides, is refused: no weights of
        it could keep the share. Then nothing is written, unless the share is 0, which the other
        rules get before the refusal. Raises: Unavailable; ValueError for what is no share.
        """
        mine, others = split(share, MOST)
        (baseline,) = self._target.services.keys() - {canary}
        wanted = {canary: mine, baseline: others}
        with self._asking() as api:
            for _ in range(ATTEMPTS):
                try:
                    return self._write(api, wanted, share == 0)
                except Changed:
                    self._sleep(POLL_SECONDS / 2)
        raise Unavailable(
            f"others changed it {ATTEMPTS} times while its weights were written",
            where=self._place,
            hint=f"see who does: kubectl get httproute {self._target.route}"
            f" -n {self._target.namespace} -o yaml --show-managed-fields",
        )

    def read(self) -> Routing:
        """Read the weights of a generation that every Gateway of the route has accepted.

        Waits up to ACCEPTED_POLLS * POLL_SECONDS seconds for that. Until then the old weights or
        the new ones may be in force, or both, so there is no answer. Raises: Unavailable.
        """
        with self._asking() as api:
            route = self._accepted(api)
            rules = self._rules(route)
            for rule in rules:
                if rule.bypass:
                    raise self._refusal(rule, rule.bypass)
            return Routing(
                {slot: max(rule.share(slot) for rule in rules) for slot in self._target.services},
                self._detail(route, rules),
            )

    @contextmanager
    def _asking(self) -> Iterator[KubernetesApi]:
        """An API whose objects have the shape of the Gateway API, or tell nothing."""
        try:
            with KubernetesApi.connected(self._config, self._clock, TOTAL_SECONDS) as api:
                yield api
        except VerificationFailed as error:
            raise Unavailable(f"cannot understand {error}", where=self._config.server) from None

    def _route(self, api: KubernetesApi) -> dict[str, Any]:
        route = api.get(_ROUTES, self._target.namespace, self._target.route)
        if route is None:
            raise Unavailable(
                "there is no such route",
                where=self._place,
                hint=f"kubectl get httproutes -n {self._target.namespace} shows what there is",
            )
        return route

    def _write(self, api: KubernetesApi, wanted: Mapping[str, int], nothing: bool) -> None:
        route = self._route(api)
        rules = self._rules(route)
        obstacles = [rule.obstacle(self._target.services) for rule in rules]
        refusals = [
            self._refusal(rule, why)
            for rule, obstacle in zip(rules, obstacles, strict=True)
            if (why := rule.bypass or obstacle)
        ]
        if nothing or not refusals:
            settable = [rule for rule, why in zip(rules, obstacles, strict=True) if not why]
            self._patch(api, route, settable, wanted)
        for refusal in refusals:
            raise refusal

    def _patch(
        self,
        api: KubernetesApi,
        route: Mapping[str, Any],
        rules: list[_Rule],
        wanted: Mapping[str, int],
    ) -> None:
        operations = [
            {
                "op": "add",  # replaces what is there
                "path": f"/spec/rules/{rule.number}/backendRefs/{position}/weight",
                "value": wanted[slot],
            }
            for rule in rules
            for position, (slot, weight) in enumerate(rule.weights)
            if slot and wanted[slot] != weight
        ]
        if operations:
            metadata = shape.member(route, "metadata", dict, self._place)
            version = shape.member(metadata, "resourceVersion", str, self._place)
            api.patch(_ROUTES, self._target.namespace, self._target.route, version, operations)

    def _accepted(self, api: KubernetesApi) -> dict[str, Any]:
        for poll in range(ACCEPTED_POLLS + 1):
            if poll:
                self._sleep(POLL_SECONDS)
            route = self._route(api)
            why = _not_accepted(route, self._target.namespace, self._place)
            if why is None:
                return route
        raise Unavailable(
            f"not accepted yet: {why}",
            where=self._place,
            hint=f"kubectl describe httproute {self._target.route} -n {self._target.namespace}",
        )

    def _rules(self, route: Mapping[str, Any]) -> list[_Rule]:
        """The rules that have to do with a slot, at least one."""
        spec = shape.member(route, "spec", dict, self._place)
        items = shape.objects(spec, "rules", self._place, limit=_MAX_ITEMS)
        rules = [self._rule(number, item) for number, item in enumerate(items)]
        found = [rule for rule in rules if rule.bypass or any(slot for slot, _ in rule.weights)]
        if not found:
            services = " or ".join(self._target.services.values())
            raise Unavailable(
                f"none of its rules names {services}",
                where=self._place,
                hint="name both Services under backendRefs: docs/how-to/routers.md",
            )
        return found

    def _rule(self, number: int, item: Mapping[str, Any]) -> _Rule:
        where = f"{self._place} rule {number + 1}"
        references = shape.objects(item, "backendRefs", where, limit=_MAX_ITEMS)
        weights = tuple((self._slot(ref, where), _weight(ref, where)) for ref in references)
        return _Rule(number, weights, self._bypass(item, references, where))

    def _bypass(self, item: Mapping[str, Any], references: list[Any], where: str) -> str | None:
        for holder in (item, *references):
            for entry in shape.objects(holder, "filters", where, limit=_MAX_ITEMS):
                mirror = shape.optional(entry, "requestMirror", dict, where)
                if mirror and self._slot(shape.member(mirror, "backendRef", dict, where), where):
                    return "it mirrors requests to one of the two Services"
        if shape.optional(item, "sessionPersistence", dict, where) is None:
            return None
        # A session stays with its backend even at weight 0: GEP-1619, "Traffic Splitting".
        named = any(self._slot(reference, where) for reference in references)
        return "its sessions stay where they are, whatever the weights are" if named else None

    def _slot(self, reference: Mapping[str, Any], where: str) -> str | None:
        """Whose Service a backend is; None for any other backend."""
        group = shape.optional(reference, "group", str, where) or ""
        kind = shape.optional(reference, "kind", str, where) or "Service"
        namespace = shape.optional(reference, "namespace", str, where) or self._target.namespace
        name = shape.member(reference, "name", str, where)
        if (group, kind, namespace) != ("", "Service", self._target.namespace):
            return None
        return next((s for s, service in self._target.services.items() if service == name), None)

    def _detail(self, route: Mapping[str, Any], rules: list[_Rule]) -> str:
        parts = []
        for rule in rules:
            split = " ".join(
                f"{self._target.services[slot] if slot else '(other)'}={weight}"
                for slot, weight in rule.weights
            )
            parts.append(f"rule {rule.number + 1} {split}")
        generation = route["metadata"]["generation"]
        return f"{self._place} generation {generation} accepted: {', '.join(parts)}"

    def _refusal(self, rule: _Rule, why: str) -> Unavailable:
        services = " and ".join(self._target.services.values())
        return Unavailable(
            f"rule {rule.number + 1} cannot be split: {why}",
            where=self._place,
            hint=f"give the rule {services} as its only backendRefs, or a route of its own",
        )


def _weight(reference: Mapping[str, Any], where: str) -> int:
    weight = shape.optional(reference, "weight", int, where)
    if weight is not None and weight < 0:
        raise VerificationFailed(f"weight is {weight}", where=where)
    return 1 if weight is None else int(weight)


def _not_accepted(route: Mapping[str, Any], namespace: str, where: str) -> str | None:
    """Why a Gateway may have another state of the route in force; None if none may."""
    metadata = shape.member(route, "metadata", dict, where)
    generation = shape.member(metadata, "generation", int, where)
    wanted = shape.objects(
        shape.member(route, "spec", dict, where), "parentRefs", where, limit=_MAX_ITEMS
    )
    status = shape.optional(route, "status", dict, where) or {}
    known = [
        (_parent(shape.member(entry, "parentRef", dict, where), namespace, where), entry)
        for entry in shape.objects(status, "parents", where, limit=_MAX_ITEMS)
    ]
    if not wanted:
        return "it belongs to no Gateway"
    for reference in wanted:
        parent = _parent(reference, namespace, where)
        entries = [entry for other, entry in known if other == parent]
        if not entries:
            return f"no controller has taken it up for {parent[1]} {parent[3]}"
        for entry in entries:
            why = _not_observed(entry, generation, where)
            if why:
                return f"{parent[1]} {parent[3]}: {why}"
    return None


def _parent(reference: Mapping[str, Any], namespace: str, where: str) -> tuple[Any, ...]:
    """What a reference points at, with what it leaves out."""
    group = shape.optional(reference, "group", str, where)
    return (
        _GROUP if group is None else group,
        shape.optional(reference, "kind", str, where) or "Gateway",
        shape.optional(reference, "namespace", str, where) or namespace,
        shape.member(reference, "name", str, where),
        shape.optional(reference, "sectionName", str, where),
        shape.optional(reference, "port", int, where),
    )


def _not_observed(entry: Mapping[str, Any], generation: int, where: str) -> str | None:
    """Why a controller's conditions do not say that this generation is in force, whole."""
    items = shape.objects(entry, "conditions", where, limit=_MAX_ITEMS)
    conditions = {shape.member(item, "type", str, where): item for item in items}
    for kind in ("Accepted", "ResolvedRefs"):
        if kind not in conditions:
            return f"its controller says nothing of {kind}"
        condition = conditions[kind]
        seen = shape.optional(condition, "observedGeneration", int, where)
        if seen != generation:
            return f"{kind} is about generation {seen}, the route has {generation}"
        if shape.member(condition, "status", str, where) != "True":
            return f"{kind} is not True{_reason(condition, where)}"
    partly = conditions.get("PartiallyInvalid")
    if partly and shape.member(partly, "status", str, where) != "False":
        return f"a part of it is not in force{_reason(partly, where)}"
    return None


def _reason(condition: Mapping[str, Any], where: str) -> str:
    """The controller's own words."""
    parts = (shape.optional(condition, name, str, where) for name in ("reason", "message"))
    words = " ".join(" ".join(filter(None, parts)).split())[:_WORDS]
    return f" ({words})" if words and words.isprintable() else ""
