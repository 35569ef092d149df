"""Tekton's definitions, as the plan renders them and as the repository has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fakes.workplace import ROOT
from secure_pipeline.plan.files import differing
from secure_pipeline.plan.model import PROGRAM, Plan, Stage, the_plan
from secure_pipeline.plan.tekton import render

FILES = render(the_plan())
STAGES = {stage.name: stage for stage in the_plan().stages}
DIGEST = re.compile(r"[a-z0-9./-]+@sha256:[0-9a-f]{64}\Z")


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects of all files in the repository's tekton/, rendered or not."""
    for path in sorted((ROOT / "tekton").rglob("*.yaml")):
        for value in yaml.safe_load_all(path.read_text()):
            yield str(path.relative_to(ROOT)), value


DOCUMENTS = list(documents())


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {
        value["metadata"].get("name") or value["spec"]["pipelineRef"]["name"]: value
        for path, value in DOCUMENTS
        if value["kind"] == kind
    }


TASKS = of_kind("Task")
PIPELINE = of_kind("Pipeline")["build"]["spec"]
PROMOTE = of_kind("Pipeline")["promote"]["spec"]
ENDING = {item["name"]: item for item in PIPELINE["tasks"]}


def inside(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a document with its path."""
    yield path, value
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    for key, inner in pairs:
        yield from inside(inner, f"{path}/{key}")


def step(task: str) -> dict[str, Any]:
    (found,) = TASKS[task]["spec"]["steps"]
    return dict(found)


def test_the_repository_has_what_the_plan_renders() -> None:
    """No file of tekton/ is missing, changed or left over."""
    assert differing(FILES, ROOT) == []
    assert {path for path, _ in DOCUMENTS} == set(FILES)


def test_ci_07_no_parameter_is_in_a_script() -> None:
    """Nothing in any file is a script, and no shell is a command: there is nothing to inject."""
    for path, value in DOCUMENTS:
        for place, inner in inside(value):
            assert not place.endswith("/script"), (path, place)
            if place.endswith("/command"):
                assert inner == [PROGRAM], (path, place)
    for text in FILES.values():
        assert not re.search(r"\b(ba)?sh -c\b|script:", text)


def test_ci_07_a_parameter_is_one_argument_or_one_value() -> None:
    """Each $(params…) stands alone in its argument, or in the value of a variable."""
    for name in TASKS:
        for argument in step(name)["args"]:
            assert "$(" not in argument or re.fullmatch(r"\$\(params\.[a-z-]+(\[\*\])?\)", argument)
        for place, inner in inside(step(name)):
            if isinstance(inner, str) and "$(params" in inner:
                assert re.search(r"/(args/\d+|env/\d+/value|image)\Z", place), (name, place)


def test_stages_run_in_the_order_of_the_plan() -> None:
    """Each stage is a task of its name that starts after exactly what it needs."""
    assert list(ENDING) == ["fetch", *STAGES]
    for name, stage in STAGES.items():
        assert tuple(ENDING[name]["runAfter"]) == (stage.needs or ("fetch",))
        assert ENDING[name]["taskRef"] == {"name": name}
        words = [word for word in stage.command if "{" not in word]
        used = [*step(name)["command"], *step(name)["args"]]
        assert [word for word in used if "$(" not in word and word != "--"] == words


def test_nothing_goes_on_after_a_failure() -> None:
    """No task and no step continues on an error, is retried, or is ignored."""
    for path, value in DOCUMENTS:
        for place, _ in inside(value):
            assert not place.endswith(("/onError", "/retries")), (path, place)


def test_no_gate_depends_on_a_parameter() -> None:
    """Without an address nothing is fetched, without a target nothing promoted; that is all."""
    assert {name for name, item in ENDING.items() if "when" in item} == {"fetch", "promote"}
    assert not any("when" in item for item in PROMOTE["tasks"])


def test_a_run_has_a_volume_of_its_own() -> None:
    """Source and state are parts of one new volume, where each run finds nothing of another."""
    for name, item in ENDING.items():
        parts = {w["name"]: w for w in item["workspaces"] if w["name"] in ("source", "state")}
        for part, binding in parts.items():
            own = {"name": part, "workspace": "work", "subPath": part}
            assert binding == own or name == "promote"
    (work,) = (
        w for w in of_kind("PipelineRun")["build"]["spec"]["workspaces"] if w["name"] == "work"
    )
    assert set(work) == {"name", "volumeClaimTemplate"}


def test_promotions_are_remembered() -> None:
    """Promote's state outlives runs, is the same for both Pipelines, and cannot be left out."""
    for item in (ENDING["promote"], {t["name"]: t for t in PROMOTE["tasks"]}["promote"]):
        assert item["workspaces"][0] == {"name": "state", "workspace": "promotions"}
    (state,) = (e["value"] for e in step("promote")["env"] if e["name"] == "SECURE_PIPELINE_STATE")
    assert state == "$(workspaces.state.path)/state", "without one: /state, which is read-only"
    assert step("promote")["securityContext"]["readOnlyRootFilesystem"] is True
    claim = of_kind("PersistentVolumeClaim")["secure-pipeline-promotions"]["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]


def test_an_image_is_promoted_without_a_source() -> None:
    """The Pipeline promote verifies, then promotes, the same image; neither task has a source."""
    verify, promote = PROMOTE["tasks"]
    assert (verify["name"], promote["name"]) == ("verify", "promote")
    assert promote["runAfter"] == ["verify"]
    for item in (verify, promote):
        values = {p["name"]: p["value"] for p in item["params"]}
        assert values["image"] == "$(params.image)"
        assert ("run" in values) == (item is promote), "verify takes the evidence of any run"
        spec = TASKS[item["name"]]["spec"]
        assert "source" not in {w["name"] for w in spec["workspaces"]}
        assert "SECURE_PIPELINE_CONFIG" not in {e["name"] for e in step(item["name"])["env"]}


def test_the_report_is_written_at_any_end() -> None:
    """``finally`` needs no result of any stage, whose absence would keep it from running."""
    final = next(item for item in PIPELINE["finally"] if item["name"] == "report")
    for _, value in inside(final):
        if isinstance(value, str):
            assert ".results." not in value
    assert "when" not in final
    stated = final["params"][-1]["value"]
    assert [word.split("=")[0] for word in stated] == [s for s in STAGES if s != "promote"]


def test_traffic_goes_back_when_a_promotion_fails() -> None:
    """Whatever ended it, both Pipelines settle it, with promote's identity and its target."""
    for pipeline in (PIPELINE, PROMOTE):
        final = next(item for item in pipeline["finally"] if item["name"] == "roll-back")
        status = {"input": "$(tasks.promote.status)", "operator": "in", "values": ["Failed"]}
        assert final["when"] == [status]
        promote = next(item for item in pipeline["tasks"] if item["name"] == "promote")
        assert final["workspaces"] == promote["workspaces"]
        kept = [p for p in promote["params"] if p["name"] != "image"]
        assert final["params"] == kept
    for run in of_kind("PipelineRun").values():
        accounts = {
            t["pipelineTaskName"]: t["serviceAccountName"] for t in run["spec"]["taskRunSpecs"]
        }
        assert accounts["roll-back"] == accounts["promote"]
    assert step("roll-back")["args"] == ["promote", "--settle", "--to", "$(params.target)"]


def test_a_result_is_held_against_what_its_stage_said() -> None:
    """Who builds on results is told their digests by Tekton, and the image by its builder."""
    for name in ("scan", "sign"):
        values = {item["name"]: item["value"] for item in ENDING[name]["params"]}
        needed = [f"{n}=$(tasks.{n}.results.RESULT_DIGEST)" for n in STAGES[name].needs]
        assert values["expect"] == " ".join(needed)
        assert values["image"] == "$(tasks.build.results.IMAGE)"
    for name in ("verify", "promote"):
        values = {item["name"]: item["value"] for item in ENDING[name]["params"]}
        assert values["image"] == "$(tasks.sign.results.IMAGE)"


@pytest.mark.parametrize("name", TASKS)
def test_steps_are_plain_users(name: str) -> None:
    """Never root, never writing to the image; more only where the stage makes namespaces."""
    security = step(name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    builds = name in STAGES and STAGES[name].user_namespaces
    assert security["allowPrivilegeEscalation"] == builds
    assert ("add" in security["capabilities"]) == builds
    cut_off = name in ("analyze", "build", "scan")
    assert security["seccompProfile"]["type"] == ("Unconfined" if cut_off else "RuntimeDefault")
    assert "privileged" not in security


@pytest.mark.parametrize("name", STAGES)
def test_a_secret_goes_to_its_stage_alone(name: str) -> None:
    """Secrets and the token for Vault are where the plan says, and optional."""
    stage = STAGES[name]
    references = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in step(name)["env"]
        if "valueFrom" in item
    }
    assert tuple(references) == stage.secrets
    assert all(reference["optional"] is True for reference in references.values())
    volumes = TASKS[name]["spec"]["volumes"]
    assert any("projected" in volume for volume in volumes) == ("id-token" in stage.permissions)
    assert not any("hostPath" in volume for volume in volumes)


@pytest.mark.parametrize("name", TASKS)
def test_every_step_has_limits(name: str) -> None:
    """Time, memory and processors are bounded, and the image is named by digest."""
    limits = step(name)["computeResources"]["limits"]
    assert set(limits) == {"cpu", "memory"}
    assert re.fullmatch(r"(\d+h\d+m\d+s|5m)", step(name)["timeout"])
    assert step(name)["image"] == "$(params.cli-image)"
    (image,) = (p["default"] for p in TASKS[name]["spec"]["params"] if p["name"] == "cli-image")
    assert DIGEST.match(image)


def test_the_image_of_the_steps_is_said_once() -> None:
    """Rendered with an image, every Task and Pipeline has it, and no other is left anywhere."""
    image = f"registry.test/cli@sha256:{'a' * 64}"
    files = render(the_plan(), image)
    assert not any("registry.example/secure-pipeline" in text for text in files.values())
    defaults = {
        parameter["name"]: parameter["default"]
        for text in files.values()
        for value in yaml.safe_load_all(text)
        for parameter in value.get("spec", {}).get("params", ())
        if parameter["name"].endswith("-image")
    }
    assert defaults == {"cli-image": image, "test-image": image}


def test_only_tests_have_an_image_of_their_own() -> None:
    """What a project's tests need is in the image of that one step."""
    values = {
        name: next(p["value"] for p in item["params"] if p["name"] == "cli-image")
        for name, item in ENDING.items()
    }
    assert values.pop("test") == "$(params.test-image)"
    assert set(values.values()) == {"$(params.cli-image)"}


def test_results_fit() -> None:
    """A task of one step with five short results: far from the 4096 bytes that they share."""
    for name, task in TASKS.items():
        assert len(task["spec"]["steps"]) == 1
        assert len(task["spec"].get("results", ())) <= 5, name


def test_chains_finds_the_image() -> None:
    """The pipeline's results are named as Tekton Chains looks for them."""
    values = {item["name"]: item["value"] for item in PIPELINE["results"]}
    assert values == {
        "IMAGE_URL": "$(tasks.sign.results.IMAGE_URL)",
        "IMAGE_DIGEST": "$(tasks.sign.results.IMAGE_DIGEST)",
    }


def test_no_stage_may_do_anything_in_the_cluster() -> None:
    """No account of a stage is bound to a Role; whoever starts runs may only start them.

    Where a listener does it, it may read what makes it a listener, and no Secret.
    """
    bindings = [*of_kind("RoleBinding").values(), *of_kind("ClusterRoleBinding").values()]
    assert {item["name"] for b in bindings for item in b["subjects"]} == {f"{PROGRAM}-start"}
    roles = of_kind("Role")
    assert roles.pop(f"{PROGRAM}-start")["rules"] == [
        {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["create", "get"]}
    ]
    for role in (*roles.values(), *of_kind("ClusterRole").values()):
        (rule,) = role["rules"]
        assert rule["apiGroups"] == ["triggers.tekton.dev"]
        assert set(rule["verbs"]) == {"get", "list", "watch"}
    tokens = {n: a["automountServiceAccountToken"] for n, a in of_kind("ServiceAccount").items()}
    assert {name for name, given in tokens.items() if given} == {
        f"{PROGRAM}-promote", f"{PROGRAM}-start"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["build", "promote"])
def test_accounts_of_a_run_exist(name: str) -> None:
    """The run to start from names accounts, a pipeline and places that are there."""
    value = of_kind("PipelineRun")[name]
    pipeline = of_kind("Pipeline")[name]["spec"]
    spec = value["spec"]
    assert spec["pipelineRef"] == {"name": name}
    tasks = {t["name"] for t in (*pipeline["tasks"], *pipeline["finally"])}
    assert {t["pipelineTaskName"] for t in spec["taskRunSpecs"]} <= tasks
    named = {item["serviceAccountName"] for item in spec["taskRunSpecs"]}
    assert named | {spec["taskRunTemplate"]["serviceAccountName"]} <= set(of_kind("ServiceAccount"))
    declared = {item["name"]: item.get("optional", False) for item in pipeline["workspaces"]}
    given = {item["name"] for item in spec["workspaces"]}
    assert {name for name, optional in declared.items() if not optional} <= given <= set(declared)
    assert {item["name"] for item in spec["params"]} <= {p["name"] for p in pipeline["params"]}


def test_a_stage_that_is_added_to_the_plan_is_rendered() -> None:
    """What is changed in the plan alone makes the repository differ from it."""
    plan = the_plan()
    last = plan.stages[-1]
    more = Stage(**{**vars(last), "name": "audit", "needs": (last.name,)})
    assert "tekton/tasks/audit.yaml" in differing(render(Plan((*plan.stages, more))), ROOT)
