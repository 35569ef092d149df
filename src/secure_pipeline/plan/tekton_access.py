"""Who the stages are in a cluster, and what differs between clusters.

No stage talks to Kubernetes, except that ``promote`` may move traffic of a Gateway: the Role for
that is in the namespace of the route (``policy export kubernetes``). Whoever starts runs from
outside may do that and nothing else: RBAC says what kind of object, and an admission policy says
which. Source: Kubernetes 1.30, "Validating Admission Policy".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secure_pipeline.plan.model import PROGRAM
from secure_pipeline.plan.tekton_around import GIT, REF, ROLL_BACK
from secure_pipeline.plan.tekton_pipelines import BUILD, MEMORIES, PROMOTE, WORK
from secure_pipeline.plan.tekton_runs import CLAIM, KEY_FILE, POLICY_FILE, TARGETS_PLACE
from secure_pipeline.plan.tekton_text import labelled, text
from secure_pipeline.trigger import MAX_LIFETIME, PATTERNS

STARTER = f"{PROGRAM}-start"
_RBAC = "rbac.authorization.k8s.io"
_KUSTOMIZE = "kustomize.config.k8s.io/v1beta1"
_NAMESPACE = PROGRAM
_FREE = ("config", "commit", "push", "image", "target")
"""Parameters that whoever starts a run chooses: none of them says what is trusted."""
_FIXED = {"policy": POLICY_FILE, "key": KEY_FILE, "targets": TARGETS_PLACE}
"""What the ConfigMap of the rules starts with."""
EXPIRES = f"{PROGRAM}.dev/expires"
"""Annotation of a run that an event starts: until when it may be created, RFC 3339."""
_EVENT = f"{PROMOTE}-{PATTERNS['id']}"
_UNTIL = f"timestamp(object.metadata.annotations['{EXPIRES}'])"
_RULES = {
    "the name is PIPELINE-RUN-ATTEMPT, of what it is started for, or that of an event": (
        "!has(object.metadata.generateName) && object.metadata.name.matches("
        f"'^(({BUILD}|{PROMOTE})-[0-9]{{1,20}}-[0-9]{{1,5}}|{_EVENT})$')"
    ),
    "what an event starts is created before its end, which is near": (
        f"!object.metadata.name.matches('^{_EVENT}$') || (has(object.metadata.annotations) && "
        f"'{EXPIRES}' in object.metadata.annotations && "
        f"{_UNTIL} > timestamp(object.metadata.creationTimestamp) && {_UNTIL} <= "
        "timestamp(object.metadata.creationTimestamp) + "
        f"duration('{MAX_LIFETIME.total_seconds():.0f}s'))"
    ),
    "the pipeline is the one of the name, as it is in this namespace": (
        "has(object.spec.pipelineRef) && has(object.spec.pipelineRef.name) && "
        f"object.spec.pipelineRef.name in ['{BUILD}', '{PROMOTE}'] && "
        "object.metadata.name.startsWith(object.spec.pipelineRef.name + '-') && "
        "!has(object.spec.pipelineRef.resolver) && !has(object.spec.pipelineSpec)"
    ),
    "accounts and pods are those of the stages": (
        f"object.spec.taskRunTemplate.serviceAccountName == '{PROGRAM}' && "
        "(!has(object.spec.taskRunTemplate.podTemplate) || object.spec.taskRunTemplate.podTemplate"
        ".all(k, k in ['enableServiceLinks', 'securityContext'])) && "
        "(!has(object.spec.taskRunSpecs) || object.spec.taskRunSpecs.all(t, "
        f"t.pipelineTaskName in ['sign', 'promote', '{ROLL_BACK}'] && has(t.serviceAccountName) && "
        f"t.serviceAccountName == '{PROGRAM}-' + (t.pipelineTaskName == '{ROLL_BACK}' ? 'promote' "
        ": t.pipelineTaskName) && !has(t.podTemplate) && "
        "!has(t.stepSpecs) && !has(t.sidecarSpecs)))"
    ),
    f"every parameter but {', '.join(_FREE)} has a value that the ConfigMap {STARTER} lists, and a"
    " build is of a branch": (
        f"has(object.spec.params) && object.spec.params.all(p, p.name in {list(_FREE)} || "
        "(p.name in params.data && p.value != '' && "
        "p.value in params.data[p.name].split('\\n'))) && "
        "object.spec.params.exists(p, p.name == 'policy') && "
        # A server gives out commits of forks too, which are nobody's release.
        f"(object.spec.pipelineRef.name != '{BUILD}' || "
        f"object.spec.params.exists(p, p.name == '{REF}'))"
    ),
    "places are the run's own new volume, and what the cluster has under their names": (
        "has(object.spec.workspaces) && "
        "object.spec.workspaces.exists(w, w.name == 'policy') && object.spec.workspaces.all(w, "
        "!has(w.subPath) && ("
        f"(w.name == '{WORK}' && has(w.volumeClaimTemplate) && "
        "w.volumeClaimTemplate.spec.all(k, k in ['accessModes', 'resources'])) || "
        f"(w.name == '{MEMORIES}' && has(w.persistentVolumeClaim) && "
        f"w.persistentVolumeClaim.claimName == '{CLAIM}') || "
        "(w.name in ['policy', 'targets'] && has(w.configMap) && !has(w.configMap.items) && "
        f"w.configMap.name == '{PROGRAM}-' + w.name) || "
        f"(w.name == 'keys' && has(w.secret) && w.secret.secretName == '{PROGRAM}-key') || "
        f"(w.name in ['registry', '{GIT}'] && has(w.secret) && "
        f"w.secret.secretName == '{PROGRAM}-' + w.name)))"
    ),
}
"""Message to the condition that a run must meet (CEL); ``params`` is the ConfigMap of the rules."""


def files(resources: Sequence[str]) -> Mapping[str, str]:
    """Accounts, Roles and overlays; ``resources`` are the other files of the base."""
    rbac = {
        "tekton/rbac/accounts.yaml": text(
            ("An identity each for what signs and what promotes: Vault tells them apart.",),
            _account(PROGRAM),
            _account(f"{PROGRAM}-sign"),
            # Its token is what the Gateway's API is asked with.
            _account(f"{PROGRAM}-promote", token=True),
            _account(STARTER, token=True),
        ),
        "tekton/rbac/start.yaml": text(
            (
                "Who hands over from another engine: the account, or whom the API server's"
                " authentication puts into the group. It may start the Pipelines and read how it"
                " goes. Each run has the name of what it was started for, so a second one of that"
                " name, a replay, is refused as AlreadyExists.",
            ),
            *_start(),
        ),
        "tekton/rbac/admission.yaml": text(
            (
                "What it starts: the Pipelines as they are here, with the accounts, the policy, the"
                " key and the image of the steps that the cluster has chosen. The ConfigMap lists,"
                " a line each, which values a parameter may have; without a source-url in it"
                " nobody hands over a build.",
            ),
            *_admission(),
            {**labelled("v1", "ConfigMap", STARTER, None), "data": dict(_FIXED)},
        ),
    }
    # Each directory by itself: kustomize takes no base that has the overlay in it.
    parts: dict[str, list[str]] = {}
    for name in sorted((*resources, *(name.removeprefix("tekton/") for name in rbac))):
        part, _, file = name.partition("/")
        parts.setdefault(part, []).append(file)
    base = [f"../../{part}" for part in parts]
    return {
        **rbac,
        **{
            f"tekton/{part}/kustomization.yaml": text((), _kustomization(names))
            for part, names in parts.items()
        },
        "tekton/kustomization.yaml": text((), _kustomization(list(parts))),
        "tekton/overlays/dev/kustomization.yaml": text(
            (
                "For a cluster to try it on: the builder's container is privileged, though its user"
                " is not root, because elsewhere its /proc is masked and no container can be made"
                " in it. Not for a cluster that others use.",
            ),
            {**_kustomization(base), "patches": [_privileged()]},
        ),
        "tekton/overlays/production/kustomization.yaml": text(
            ("A namespace of its own, because whoever starts runs chooses their service account.",),
            {**_kustomization([*base, "network.yaml"]), "namespace": _NAMESPACE},
        ),
        "tekton/overlays/production/network.yaml": text(
            ("Nobody has to reach a stage.",),
            labelled(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                PROGRAM,
                {"podSelector": {}, "policyTypes": ["Ingress"]},
            ),
        ),
    }


def _account(name: str, *, token: bool = False) -> dict[str, Any]:
    return {
        **labelled("v1", "ServiceAccount", name, None),
        "automountServiceAccountToken": token,
    }


def _start() -> tuple[dict[str, Any], dict[str, Any]]:
    rules = [
        {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["create", "get"]}
    ]
    role = {**labelled(f"{_RBAC}/v1", "Role", STARTER, None), "rules": rules}
    binding = {
        **labelled(f"{_RBAC}/v1", "RoleBinding", STARTER, None),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": STARTER},
        "subjects": [
            {"kind": "ServiceAccount", "name": STARTER},
            {"kind": "Group", "apiGroup": _RBAC, "name": STARTER},
        ],
    }
    return role, binding


def _admission() -> tuple[dict[str, Any], dict[str, Any]]:
    rules = {
        "apiGroups": ["tekton.dev"],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": ["pipelineruns"],
    }
    who = (
        f"'{STARTER}' in request.userInfo.groups || "
        f"(request.userInfo.username.startsWith('system:serviceaccount:') && "
        f"request.userInfo.username.endsWith(':{STARTER}'))"
    )
    spec = {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [rules]},
        "matchConditions": [{"name": "handed-over", "expression": who}],
        "validations": [
            {"expression": expression, "message": message} for message, expression in _RULES.items()
        ],
    }
    version = "admissionregistration.k8s.io/v1"
    binding = {
        "policyName": STARTER,
        # The one in the namespace of the run.
        "paramRef": {"name": STARTER, "parameterNotFoundAction": "Deny"},
        "validationActions": ["Deny"],
    }
    return (
        labelled(version, "ValidatingAdmissionPolicy", STARTER, spec),
        labelled(version, "ValidatingAdmissionPolicyBinding", STARTER, binding),
    )


def _kustomization(resources: Sequence[str]) -> dict[str, Any]:
    return {"apiVersion": _KUSTOMIZE, "kind": "Kustomization", "resources": list(resources)}


def _privileged() -> dict[str, Any]:
    path = "/spec/steps/0/securityContext"
    operations = (
        {"op": "add", "path": f"{path}/privileged", "value": True},
        {"op": "remove", "path": f"{path}/capabilities"},
    )
    patch = "".join(
        f"- {{op: {o['op']}, path: {o['path']}"
        + (f", value: {str(o['value']).lower()}" if "value" in o else "")
        + "}\n"
        for o in operations
    )
    return {"target": {"kind": "Task", "name": "build"}, "patch": patch}
