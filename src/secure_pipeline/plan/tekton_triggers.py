"""The listener that takes a hand-over from another engine: Tekton Triggers' EventListener.

For clusters that have Tekton Triggers: a component that an overlay adds. What arrives has to carry
the signature of those who know the secret, be the one kind of event, have fields of the one shape
each and be meant for this address; then a run of ``promote`` is made of it, named after its id.
Whether it is still fresh is decided where a clock is: CEL in Triggers knows no present time, so the
API server's admission compares the run's ``EXPIRES`` with the time at which it creates the run
(``tekton_access``). Values reach the run as CEL has read them, so what was checked is what is used.

The answer is always 202: the listener answers before it looks at a signature.
Source: Tekton Triggers 0.32, docs/eventlisteners.md and cel_expressions.md, pkg/sink/sink.go.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from secure_pipeline.plan.model import PROGRAM
from secure_pipeline.plan.tekton_access import EXPIRES, STARTER
from secure_pipeline.plan.tekton_text import labelled, text
from secure_pipeline.trigger import MAX_LIFETIME, MAX_VALUE, PATTERNS, SIGNATURE, TYPE

SECRET = f"{PROGRAM}-hand-over"
"""Name of the Secret with ``secret``, what both sides know, and ``audience``, the address."""
LISTENER = PROGRAM
NAME = "hand-over"
_PORT = 8080
_GROUP = "triggers.tekton.dev"
_RBAC = "rbac.authorization.k8s.io"
_GIVEN = ("id", "image", "target", "expires")
"""What a run is told of the event."""
_READ = ["get", "list", "watch"]
_NAMESPACE = PROGRAM
"""Of a ClusterRoleBinding's subject, which needs one; kustomize puts in another."""


def files(run: Mapping[str, Any]) -> Mapping[str, str]:
    """Texts by path below the repository; ``run`` is a run of ``promote`` to start from."""
    made = {
        "listener.yaml": text(
            (
                "Takes an image over from another engine, to promote it. What it needs besides, a"
                " Secret with the shared secret and the address: docs/how-to/tekton.md.",
            ),
            _listener(),
            _binding(),
            _template(run),
        ),
        "access.yaml": text(
            (
                f"What the listener's pod reads. It starts runs as {STARTER}, whose admission"
                " policy holds for it too, and it never reads a Secret: Triggers' own interceptors"
                " do that.",
            ),
            *_access(),
        ),
        "network.yaml": text(("The one pod that others have to reach.",), _network()),
    }
    return {
        **{f"tekton/triggers/{name}": content for name, content in made.items()},
        "tekton/triggers/kustomization.yaml": text(
            ("For an overlay of a cluster that has Tekton Triggers.",),
            {
                "apiVersion": "kustomize.config.k8s.io/v1alpha1",
                "kind": "Component",
                "resources": sorted(made),
            },
        ),
        "tekton/overlays/listener/kustomization.yaml": text(
            ("Production, with the listener.",),
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["../production"],
                "components": ["../../triggers"],
                "namespace": _NAMESPACE,
            },
        ),
    }


def _listener() -> dict[str, Any]:
    secret = {"secretName": SECRET, "secretKey": "secret"}
    interceptors = [
        {
            "name": "signature",
            "ref": {"name": "github", "kind": "ClusterInterceptor"},
            "params": [{"name": "secretRef", "value": secret}],
        },
        {
            "name": "event",
            "ref": {"name": "cel", "kind": "ClusterInterceptor"},
            "params": [
                {"name": "filter", "value": condition()},
                {
                    "name": "overlays",
                    "value": [{"key": name, "expression": f"body.{name}"} for name in _GIVEN],
                },
            ],
        },
    ]
    limits = {
        "requests": {"cpu": "50m", "memory": "64Mi"},
        # It reads a body whole before it knows whose it is.
        "limits": {"cpu": "1", "memory": "256Mi"},
    }
    pod = {"spec": {"containers": [{"resources": limits}]}}
    spec = {
        "serviceAccountName": STARTER,
        "triggers": [
            {
                "name": NAME,
                "interceptors": interceptors,
                "bindings": [{"ref": NAME}],
                "template": {"ref": NAME},
            }
        ],
        "resources": {"kubernetesResource": {"spec": {"template": pod}}},
    }
    return labelled(f"{_GROUP}/v1beta1", "EventListener", LISTENER, spec)


def condition() -> str:
    """What has to be true of an event whose signature was checked (CEL)."""
    lifetime = "timestamp(body.expires) - timestamp(body.issued)"
    parts = (
        # The interceptor before would take a signature of SHA-1, too.
        f"header.canonical('{SIGNATURE}').matches('^sha256=[0-9a-f]{{64}}$')",
        f"body.type == '{TYPE}'",
        f"body.all(k, k in {['type', *PATTERNS]} && size(body[k]) <= {MAX_VALUE})",
        *(f"body.{name}.matches(r'^{pattern}$')" for name, pattern in PATTERNS.items()),
        f"body.audience.compareSecret('audience', '{SECRET}')",
        f"{lifetime} > duration('0s')",
        f"{lifetime} <= duration('{MAX_LIFETIME.total_seconds():.0f}s')",
    )
    return " &&\n".join(parts)


def _binding() -> dict[str, Any]:
    values = [{"name": name, "value": f"$(extensions.{name})"} for name in _GIVEN]
    return labelled(f"{_GROUP}/v1beta1", "TriggerBinding", NAME, {"params": values})


def _template(run: Mapping[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(dict(run))
    made["metadata"] = {
        "name": f"promote-{_given('id')}",
        "labels": made["metadata"]["labels"],
        "annotations": {EXPIRES: _given("expires")},
    }
    for parameter in made["spec"]["params"]:
        if parameter["name"] in _GIVEN:
            parameter["value"] = _given(parameter["name"])
    spec = {"params": [{"name": name} for name in _GIVEN], "resourcetemplates": [made]}
    return labelled(f"{_GROUP}/v1beta1", "TriggerTemplate", NAME, spec)


def _given(name: str) -> str:
    return f"$(tt.params.{name})"


def _access() -> tuple[dict[str, Any], ...]:
    """Its informers watch these kinds, and two of them are the whole cluster's."""
    name = f"{PROGRAM}-listener"
    kinds = ["eventlisteners", "triggers", "triggerbindings", "triggertemplates", "interceptors"]
    shared = ["clusterinterceptors", "clustertriggerbindings"]
    subject = {"kind": "ServiceAccount", "name": STARTER}
    made = []
    for prefix, resources, where in (
        ("", kinds, {}),
        ("Cluster", shared, {"namespace": _NAMESPACE}),
    ):
        rules = [{"apiGroups": [_GROUP], "resources": resources, "verbs": _READ}]
        role = labelled(f"{_RBAC}/v1", f"{prefix}Role", name, None)
        binding = labelled(f"{_RBAC}/v1", f"{prefix}RoleBinding", name, None)
        made.append({**role, "rules": rules})
        made.append(
            {
                **binding,
                "roleRef": {"apiGroup": _RBAC, "kind": f"{prefix}Role", "name": name},
                "subjects": [{**subject, **where}],
            }
        )
    return tuple(made)


def _network() -> dict[str, Any]:
    spec = {
        "podSelector": {"matchLabels": {"eventlistener": LISTENER}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": _PORT, "protocol": "TCP"}]}],
    }
    return labelled("networking.k8s.io/v1", "NetworkPolicy", f"{PROGRAM}-listener", spec)
