"""A Task a stage.

A parameter only ever is one argument of its own or the value of a variable.
"""

from __future__ import annotations

from typing import Any

from secure_pipeline.plan.model import (
    ENGINE,
    KEY,
    POLICY,
    RUN,
    STATE,
    Network,
    Permission,
    Stage,
)
from secure_pipeline.plan.tekton_text import duration, labelled

USER = 65532
RESULTS = "/tekton/results"
TEMPORARY = "/tmp"  # noqa: S108 - an empty volume of the pod
IDENTITY = "/var/run/secrets/secure-pipeline"
BUILDER = "/var/lib/secure-pipeline"
"""The builder's layers, in the pod of the stage alone: tests run beside it (BLD-07)."""
DATABASES = "/opt/secure-pipeline/databases"
"""Beside the tools of the image, where the program keeps vulnerability databases."""
VERSION = "tekton.dev/v1"
_REQUESTS = {"cpu": "250m", "memory": "256Mi"}
_RESULTS = {
    "VERDICT": "PASS, FAIL, INCONCLUSIVE or ERROR.",
    "RESULT_DIGEST": "sha256:… of the stage's result; the next stages accept no other.",
}
_IMAGE = {"IMAGE": "NAME@sha256:… of the image."}
HINTS = {
    "IMAGE_URL": "Where the image is, as Tekton Chains reads it.",
    "IMAGE_DIGEST": "sha256:… of the image, as Tekton Chains reads it.",
}
_TARGETS = "SECURE_PIPELINE_TARGETS"
_FILES = {
    POLICY: ("policy", "The trusted policy with its public keys: a ConfigMap."),
    KEY: ("keys", "The signing key, where no Vault has it: a Secret."),
    _TARGETS: ("targets", "The promotion targets: a ConfigMap."),
}
"""Variables that may name a file, and the workspace that such files come from."""
_REGISTRIES = ("registry", "config.json with the logins of registries: a Secret.")
SOURCE, STATE_PLACE = "source", "state"
PLACES = {
    SOURCE: "The repository, checked out at the commit of the run.",
    STATE_PLACE: "What the stages of a run leave for each other.",
}
"""Workspaces of the stages, with what is in them."""
MEMORY = "What is known of earlier promotions; without it nothing is promoted."


def task(stage: Stage, image: str) -> dict[str, Any]:
    """The Task of a stage."""
    parameters = [image_parameter(image)]
    run = {"name": "run", "description": "Id of the run, the same for all its stages."}
    if reads_source(stage):
        parameters += [config_parameter(), run]
    else:
        parameters.append({**run, "default": ""})
    parameters += [
        *(optional_parameter(parameter(name), f"Value of {name}.") for name in stage.variables),
    ]
    if takes_image(stage):
        parameters.append({"name": "image", "description": "NAME@sha256:… of the image."})
    if expected_results(stage):
        about = "STAGE=sha256:… of each result that is read, in one line."
        parameters.append({"name": "expect", "description": about})
    if "{target}" in stage.command:
        parameters.append({"name": "target", "description": "Name of the promotion target."})
    spec: dict[str, Any] = {
        "description": f"Stage {stage.name}. Fails unless it passed.",
        "params": parameters,
        "workspaces": _workspaces(stage),
    }
    if results := _results(stage):
        spec["results"] = [{"name": n, "description": d} for n, d in results.items()]
    spec["steps"] = [_step(stage)]
    spec["volumes"] = _volumes(stage)
    return labelled(VERSION, "Task", stage.name, spec)


def reads_source(stage: Stage) -> bool:
    """What leaves no result of its own looks at the image alone: it needs no repository."""
    return _own_result(stage.name) in stage.writes


def remembers(stage: Stage) -> bool:
    """What it leaves is for later runs, not for the other stages of its own."""
    return "promotions/" in stage.writes


def _is_cut_off(stage: Stage) -> bool:
    """Its tool is started in a network namespace of its own, with nothing in it."""
    return bool({"semgrep", "trivy"} & set(stage.tools))


def about(stage: Stage) -> tuple[str, ...]:
    """What a file says at its top: why a step is allowed what others are not."""
    if _is_cut_off(stage):
        return (
            "The tool gets no network: the program starts it in namespaces of its own, which"
            " RuntimeDefault forbids a plain user to make. So this step has no seccomp profile;"
            " everything else is forbidden as in the other steps.",
        )
    if stage.user_namespaces:
        return (
            "The builder makes containers inside its own. It stays a plain user and becomes root"
            " only in a user namespace of its own, for which it needs: newuidmap and newgidmap,"
            " which are setuid (allowPrivilegeEscalation, SETUID, SETGID), and system calls that"
            " RuntimeDefault forbids (unshare, mount).",
            "It also mounts a /proc of its own, which a container with a masked /proc cannot: see"
            " overlays/dev and docs/how-to/tekton.md.",
        )
    return ()


def image_parameter(image: str) -> dict[str, Any]:
    """The parameter of every task: what its step runs in."""
    return {"name": "cli-image", "description": "Image of the steps, by digest.", "default": image}


def config_parameter() -> dict[str, Any]:
    """The parameter of every task that reads the source."""
    about = "Configuration, below the source."
    return {"name": "config", "description": about, "default": "secure-pipeline.yaml"}


def optional_parameter(name: str, meaning: str) -> dict[str, Any]:
    """A parameter that counts as not given when it is empty."""
    return {"name": name, "description": meaning, "default": ""}


def parameter(variable: str) -> str:
    """SECURE_PIPELINE_KEY is the parameter key, VAULT_ADDR is vault-addr."""
    return variable.removeprefix("SECURE_PIPELINE_").lower().replace("_", "-")


def takes_image(stage: Stage) -> bool:
    """Told by the one that built it which image it is, instead of reading it from the state."""
    return "{image}" in stage.command or bool({"build", "sign"} & set(stage.needs))


def _own_result(name: str) -> str:
    return f"runs/{{run}}/stages/{name}.json"


def expected_results(stage: Stage) -> tuple[str, ...]:
    """Stages whose results it builds its own result on."""
    if not reads_source(stage):
        return ()
    return tuple(need for need in stage.needs if _own_result(need) in stage.reads)


def _results(stage: Stage) -> dict[str, str]:
    if not reads_source(stage):
        return {}
    named = _IMAGE if "image/" in stage.writes else {}
    pushes = Permission.REGISTRY in stage.permissions
    return {**_RESULTS, **named, **(HINTS if pushes else {})}


def _workspaces(stage: Stage) -> list[dict[str, Any]]:
    """Only tests write beside the source: their reports."""
    found: list[dict[str, Any]] = []
    state: dict[str, Any] = {"name": STATE_PLACE, "description": PLACES[STATE_PLACE]}
    if reads_source(stage):
        source: dict[str, Any] = {"name": SOURCE, "description": PLACES[SOURCE]}
        found.append(source if stage.name == "test" else {**source, "readOnly": True})
    else:
        about = MEMORY if remembers(stage) else state["description"]
        state |= {"description": about, "optional": True}
    optional = {"optional": True, "readOnly": True}
    given = optional_workspaces(stage).items()
    return [*found, state, *({"name": n, "description": d, **optional} for n, d in given)]


def optional_workspaces(stage: Stage) -> dict[str, str]:
    """Workspaces that a run may give a stage, with what is in them."""
    found = dict(_FILES[name] for name in stage.variables if name in _FILES)
    if _talks_to_registries(stage):
        found[_REGISTRIES[0]] = _REGISTRIES[1]
    return found


def _talks_to_registries(stage: Stage) -> bool:
    """Who comes after ``sign`` reads the image where it was pushed to."""
    places = {Network.REGISTRY, Network.BASES, Network.DATABASE}
    return bool(places & set(stage.network)) or "sign" in stage.needs


def _step(stage: Stage) -> dict[str, Any]:
    words = [_word(word) for word in stage.command[1:]]
    if takes_image(stage) and "{image}" not in stage.command:
        words += ["--", "$(params.image)"]
    return {
        "name": stage.name,
        "image": "$(params.cli-image)",
        "command": [stage.command[0]],
        "args": words,
        "env": _environment(stage),
        "timeout": duration(stage.timeout),
        "computeResources": resources(stage.resources.cpu, stage.resources.memory),
        "securityContext": security(
            user_namespaces=stage.user_namespaces, cut_off=_is_cut_off(stage)
        ),
        "volumeMounts": _mounts(stage),
    }


def _word(word: str) -> str:
    return {"{image}": "$(params.image)", "{target}": "$(params.target)"}.get(word, word)


def _environment(stage: Stage) -> list[dict[str, Any]]:
    """Variables without a value count as not set."""
    values = {"HOME": TEMPORARY}
    if reads_source(stage):
        values["SECURE_PIPELINE_CONFIG"] = f"$(workspaces.{SOURCE}.path)/$(params.config)"
    values |= {
        RUN: "$(params.run)",
        ENGINE: "tekton",
        # Without a workspace it is a place that nobody can write: what the next promotion would
        # know nothing of does not begin.
        STATE: f"$(workspaces.{STATE_PLACE}.path){'/state' if remembers(stage) else ''}",
        **{name: f"$(params.{parameter(name)})" for name in stage.variables},
    }
    if _results(stage):
        values["SECURE_PIPELINE_RESULTS"] = RESULTS
    if expected_results(stage):
        values["SECURE_PIPELINE_EXPECT"] = "$(params.expect)"
    if stage.user_namespaces:
        values["SECURE_PIPELINE_BUILD_STORAGE"] = f"{BUILDER}/storage"
    if _talks_to_registries(stage):
        values["DOCKER_CONFIG"] = "$(workspaces.registry.path)"
    if Permission.IDENTITY in stage.permissions:
        values["SECURE_PIPELINE_VAULT_JWT_FILE"] = f"{IDENTITY}/token"
        values["SECURE_PIPELINE_IDENTITY_TOKEN_FILE"] = f"{IDENTITY}/sigstore"
    found: list[dict[str, Any]] = [{"name": n, "value": v} for n, v in values.items()]
    for secret in stage.secrets:
        key = parameter(secret)
        reference = {"name": "secure-pipeline-secrets", "key": key, "optional": True}
        found.append({"name": secret, "valueFrom": {"secretKeyRef": reference}})
    return found


def security(*, user_namespaces: bool = False, cut_off: bool = False) -> dict[str, Any]:
    """What a step may do: nothing but run as a plain user.

    ``user_namespaces``: it makes containers. ``cut_off``: it starts its tool without a network.
    """
    own = user_namespaces or cut_off
    allowed = {"drop": ["ALL"], **({"add": ["SETUID", "SETGID"]} if user_namespaces else {})}
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "allowPrivilegeEscalation": user_namespaces,
        "readOnlyRootFilesystem": True,
        "capabilities": allowed,
        "seccompProfile": {"type": "Unconfined" if own else "RuntimeDefault"},
    }


def resources(cpu: int, memory: int) -> dict[str, Any]:
    """What a step asks for, and what it gets at most."""
    return {"requests": dict(_REQUESTS), "limits": {"cpu": str(cpu), "memory": f"{memory}Mi"}}


def _mounts(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "tmp", "mountPath": TEMPORARY}]
    if stage.user_namespaces:
        found.append({"name": "tmp", "mountPath": "/var/tmp"})  # noqa: S108 - buildah's own
        found.append({"name": "builder", "mountPath": BUILDER})
    if Network.DATABASE in stage.network:
        found.append({"name": "databases", "mountPath": DATABASES})
    if Permission.IDENTITY in stage.permissions:
        found.append({"name": "identity", "mountPath": IDENTITY, "readOnly": True})
    return found


def _volumes(stage: Stage) -> list[dict[str, Any]]:
    size = f"{stage.resources.disk}Gi"
    found: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": size}}]
    if stage.user_namespaces:
        found.append({"name": "builder", "emptyDir": {"sizeLimit": size}})
    if Network.DATABASE in stage.network:
        found.append({"name": "databases", "emptyDir": {"sizeLimit": size}})
    if Permission.IDENTITY in stage.permissions:
        sources = [
            {"serviceAccountToken": {"path": name, "audience": who, "expirationSeconds": 3600}}
            for name, who in (("token", "vault"), ("sigstore", "sigstore"))
        ]
        found.append({"name": "identity", "projected": {"sources": sources}})
    return found
