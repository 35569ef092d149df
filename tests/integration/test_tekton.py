"""The repository's own tekton/ on a real Kubernetes with a real Tekton, from source to image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from cluster.api import until
from cluster.pipelines import (
    NAMESPACE,
    OVERLAY,
    REGISTRY,
    SHELL,
    PipelinePlace,
    overlay,
)
from cluster.tekton import TEKTON, Ended
from fakes.cosign import Cosign
from fakes.workplace import ROOT, Workplace
from secure_pipeline.attestations.predicates import COSIGN_VULN, PROVENANCE
from secure_pipeline.oci.manifest import MANIFEST_TYPE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]
STAGES = ("analyze", "test", "build", "scan", "sign", "verify")
OLD = "gunicorn-21.0.0.dist-info/METADATA"
PLAIN = {"SECURE_PIPELINE_PLAIN_HTTP": "1"}


@pytest.fixture(scope="module")
def place(pipelines: PipelinePlace) -> Iterator[PipelinePlace]:
    """tekton/overlays/dev in a cluster; each test of this module talks in its network."""
    with pipelines.tekton.cluster.network():
        yield pipelines


@pytest.fixture(autouse=True)
def _inside(place: PipelinePlace) -> None:
    """Tests start programs in the network too."""


def finished(place: PipelinePlace, name: str, **parameters: str) -> Ended:
    return place.finish(place.start(name, **parameters))


@pytest.fixture(scope="module")
def passed(sound: tuple[Workplace, Ended]) -> tuple[Workplace, Ended]:
    """A run of the sample that passed."""
    return sound


def vulnerable(workplace: Workplace) -> None:
    """The image gets an old gunicorn."""
    path = workplace.root / "src/old" / OLD
    path.parent.mkdir(parents=True)
    path.write_text("Metadata-Version: 2.1\nName: gunicorn\nVersion: 21.0.0\n")
    dockerfile = workplace.root / "Dockerfile"
    to = "COPY src/old /usr/local/lib/python3.11/dist-packages\n"
    dockerfile.write_text(dockerfile.read_text().replace("WORKDIR /\n", f"{to}WORKDIR /\n"))


@pytest.fixture(scope="module")
def stopped(place: PipelinePlace) -> tuple[Workplace, Ended]:
    """A run of a sample with a vulnerability over the gate."""
    return place.source("vulnerable", vulnerable), finished(place, "vulnerable")


def dashboard(place: PipelinePlace, name: str) -> dict[str, Any]:
    (path,) = (place.directory / name / "state/runs").glob("*/dashboard.json")
    document = json.loads(path.read_bytes())
    assert isinstance(document, dict)
    return document


def messages(ended: Ended) -> dict[str, str]:
    """Task to the termination message of its step, in which Tekton keeps the results."""
    return {
        name: status["steps"][0].get("terminated", {}).get("message", "")
        for name, status in ended.tasks.items()
        if status.get("steps")
    }


# --- what is written is accepted ------------------------------------------------------------


@pytest.mark.parametrize("directory", ["", "overlays/dev", "overlays/production"])
def test_admission_accepts_every_file(place: PipelinePlace, directory: str) -> None:
    """The API server and Tekton's own admission take everything as it is in the repository."""
    kinds = []
    for document in overlay(ROOT / "tekton" / directory):
        document["metadata"].pop("namespace", None)
        document["metadata"]["name"] += "-dry"
        place.apply(document, "?dryRun=All&fieldValidation=Strict")
        kinds.append(document["kind"])
    assert kinds.count("Task") == len((*STAGES, "promote", "fetch", "report", "roll-back"))
    assert {"Pipeline", "ServiceAccount", "Role", "RoleBinding"} <= set(kinds)


def test_admission_refuses_what_is_wrong(place: PipelinePlace) -> None:
    """It is asked indeed: a field that is unknown, and a result that no task has."""
    (task,) = (t for t in overlay(OVERLAY) if t["metadata"]["name"] == "test")
    task["spec"]["steps"][0]["shell"] = "sh"
    path = f"{TEKTON}/namespaces/{NAMESPACE}/tasks?dryRun=All&fieldValidation=Strict"
    assert place.tekton.api.call("POST", path, task).status_code == 400
    pipeline = next(t for t in overlay(OVERLAY) if t["kind"] == "Pipeline")
    pipeline["spec"]["tasks"][0]["runAfter"] = ["nothing"]
    path = f"{TEKTON}/namespaces/{NAMESPACE}/pipelines?dryRun=All"
    assert place.tekton.api.call("POST", path, pipeline).status_code == 400


# --- a run that passes ---------------------------------------------------------------------


def test_the_sample_becomes_a_verified_image(
    place: PipelinePlace, passed: tuple[Workplace, Ended]
) -> None:
    """All stages ran in pods, nothing was promoted, and the image is where the results say."""
    _, ended = passed
    assert set(ended.tasks) == {*STAGES, "fetch", "report"}
    assert not ended.failed_tasks
    assert ended.results["IMAGE_URL"] == f"{REGISTRY}/sound"
    digest = ended.results["IMAGE_DIGEST"]
    assert digest == digest.strip()
    where = f"http://{REGISTRY}/v2/sound/manifests/{digest}"
    found = requests.head(where, headers={"Accept": MANIFEST_TYPE}, timeout=10)
    assert found.ok


def test_the_image_verifies_outside(
    place: PipelinePlace, passed: tuple[Workplace, Ended], tmp_path: Path
) -> None:
    """Our own command verifies it in the registry with every layer, and so does cosign."""
    workplace, ended = passed
    image = f"{REGISTRY}/sound@{ended.results['IMAGE_DIGEST']}"
    verified = workplace.run("verify", image, "--layers", **PLAIN)
    assert verified.code == 0, verified.text
    cosign = Cosign.located("cosign", tmp_path / "home")
    for kind in (COSIGN_VULN, PROVENANCE):
        said = cosign.verify_attestation(
            place.shared / "release.pub", kind, image, "--allow-http-registry"
        )
        assert said.returncode == 0, said.stderr


def test_the_dashboard_is_written(place: PipelinePlace, passed: tuple[Workplace, Ended]) -> None:
    """All six stages passed, and the image is the one of the results."""
    document = dashboard(place, "sound")
    assert document["verdict"] == "PASS"
    assert [stage["verdict"] for stage in document["stages"]] == ["PASS"] * len(STAGES)
    assert document["image"] == passed[1].results["IMAGE_DIGEST"]


def test_results_are_far_from_their_limit(passed: tuple[Workplace, Ended]) -> None:
    """What a task has for all its results is 4096 bytes; none uses a quarter of it."""
    sizes = {name: len(message) for name, message in messages(passed[1]).items()}
    assert max(sizes.values()) < 1024, sizes


def test_ci_07_a_parameter_full_of_shell_is_a_value(
    place: PipelinePlace, passed: tuple[Workplace, Ended]
) -> None:
    """A parameter as a title of a pull request may be ran through Tekton and did nothing."""
    state = place.directory / "sound/state"
    assert (state / "runs").is_dir()
    assert not list(state.glob("**/pwned"))
    spec = passed[1].tasks["sign"]["taskSpec"]
    values = {item["name"]: item.get("value") for item in spec["steps"][0]["env"]}
    assert values["SECURE_PIPELINE_VAULT_ROLE"] == SHELL


def test_steps_ran_as_a_plain_user(place: PipelinePlace, passed: tuple[Workplace, Ended]) -> None:
    """What stages left belongs to the user of the steps, also what the builder made."""
    state = place.directory / "sound/state"
    owners = {path.stat().st_uid for path in (*state.glob("runs/*/*"), *state.glob("image/*"))}
    assert owners == {65532}


def test_bld_07_no_stage_can_touch_the_layers_of_the_builder(
    place: PipelinePlace, passed: tuple[Workplace, Ended]
) -> None:
    """Tests run beside the build and write to the same state: the builder keeps nothing there."""
    assert (place.directory / "sound/state/image").is_dir()
    assert not (place.directory / "sound/state/builder").exists()


def sign_again(place: PipelinePlace, ended: Ended, name: str) -> tuple[str, int]:
    """Run the Task ``sign`` once more with what Tekton told it; its log and exit code."""
    status = place.tekton.again(NAMESPACE, ended.tasks["sign"], name)
    code = status["steps"][0]["terminated"]["exitCode"]
    return place.tekton.log(NAMESPACE, status, "sign"), code


def test_a_forged_result_is_refused(place: PipelinePlace, passed: tuple[Workplace, Ended]) -> None:
    """A stage's result that another wrote into the workspace is not signed: exit 11 in the pod."""
    _, ended = passed
    (path,) = (place.directory / "sound/state/runs").glob("*/stages/test.json")
    genuine = path.read_bytes()
    forged = json.loads(genuine)
    forged["result"]["summary"] = "all 9999 tests passed"
    path.write_text(json.dumps(forged, ensure_ascii=False))
    try:
        said, code = sign_again(place, ended, "sign-forged")
    finally:
        path.write_bytes(genuine)
    assert code == 11, said
    assert "not the result that test ended with" in said
    said, code = sign_again(place, ended, "sign-genuine")
    assert code == 0, said


# --- runs that do not pass -----------------------------------------------------------------


def test_a_vulnerable_sample_stops_at_the_gate(
    place: PipelinePlace, stopped: tuple[Workplace, Ended]
) -> None:
    """The run fails at scan with exit 10, nothing is signed or pushed, and the report is there."""
    _, ended = stopped
    assert not ended.passed
    assert ended.failed_tasks == {"scan"}, place.logs(ended)
    assert ended.tasks["scan"]["steps"][0]["terminated"]["exitCode"] == 10
    assert not {"sign", "verify", "promote"} & set(ended.tasks)
    assert "CVE-2024-1135" in place.logs(ended)
    assert requests.get(f"http://{REGISTRY}/v2/vulnerable/tags/list", timeout=10).status_code == 404
    document = dashboard(place, "vulnerable")
    assert document["verdict"] == "FINDINGS"
    assert {s["stage"]: s["verdict"] for s in document["stages"]}["scan"] == "FAIL"
    assert document["notRun"] == ["sign", "verify"]


@pytest.mark.usefixtures("passed")
def test_without_its_source_a_run_ends_before_any_stage(place: PipelinePlace) -> None:
    """A commit that the server does not have: exit 4, no stage runs, and the report says so."""
    (place.directory / "absent").mkdir()
    (place.directory / "absent").chmod(0o777)
    with place.served() as server:
        given = {"source-url": server.url("sound/.git"), "commit": "1" * 40}
        ended = finished(place, "absent", **given)
    assert not ended.passed
    assert ended.failed_tasks == {"fetch"}, place.logs(ended)
    assert set(ended.tasks) == {"fetch", "report"}
    assert ended.tasks["fetch"]["steps"][0]["terminated"]["exitCode"] == 4
    assert "no stage began the run" in place.logs(ended)


def test_ci_09_an_annotation_is_no_signature(
    place: PipelinePlace, stopped: tuple[Workplace, Ended]
) -> None:
    """A run that says chains.tekton.dev/signed=true of an image that nobody signed: exit 11."""
    workplace, _ = stopped
    runs = place.tekton.api.get(f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns")["items"]
    (run,) = (item for item in runs if item["metadata"]["name"].startswith("vulnerable-"))
    path = f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns/{run['metadata']['name']}"
    signed = {"metadata": {"annotations": {"chains.tekton.dev/signed": "true"}}}
    kind = "application/merge-patch+json"
    assert place.tekton.api.call("PATCH", path, signed, kind=kind).ok
    layout = place.directory / "vulnerable/state/image"
    copied = workplace.run("copy", f"layout:{layout}", f"{REGISTRY}/unsigned", **PLAIN)
    assert copied.code == 0, copied.text
    digest = dashboard(place, "vulnerable")["image"]
    verified = workplace.run("verify", f"{REGISTRY}/unsigned@{digest}", **PLAIN)
    assert verified.code == 11, verified.text


def test_a_killed_step_fails_the_run(place: PipelinePlace) -> None:
    """SIGKILL to a step while it runs: no pass, nothing goes on after it, and it is reported.

    (A pod that is deleted is no end of its task: Tekton starts the whole step anew.)
    """
    place.source("killed")
    run = place.start("killed")
    status = until("the tests' step", lambda: _running(place, run, "test"), 120)
    place.tekton.kill(NAMESPACE, status)
    ended = place.finish(run)
    assert not ended.passed
    assert ended.failed_tasks == {"test"}
    assert not {"sign", "verify"} & set(ended.tasks)
    document = dashboard(place, "killed")
    verdicts = {stage["stage"]: stage["verdict"] for stage in document["stages"]}
    assert verdicts["test"] == "ERROR"
    assert document["verdict"] != "PASS"
    assert document["notRun"][-2:] == ["sign", "verify"]


def _running(place: PipelinePlace, run: str, task: str) -> Mapping[str, Any] | None:
    """The status of a task, while its step's own program runs."""
    status = place.tekton.tasks(NAMESPACE, run).get(task, {})
    if "running" not in next(iter(status.get("steps", ())), {}):
        return None
    return status if "started" in place.tekton.log(NAMESPACE, status, task) else None
