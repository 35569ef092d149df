"""``hand-over`` and the job of a release, on a real EventListener and a registry."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cluster.api import until
from cluster.kubernetes import Cluster
from cluster.pipelines import NAMESPACE, PipelinePlace
from cluster.triggers import Listener, listening
from fakes.actionsrunner import JobRun, Place, Runner
from fakes.evidence import NAME, signer
from fakes.release import REQUIRE, Release, policy
from fakes.workplace import ROOT, Workplace
from secure_pipeline.attestations.predicates import PROMOTION
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.shape import rfc3339

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]


@pytest.fixture(scope="module")
def listener(pipelines: PipelinePlace) -> Iterator[Listener]:
    """tekton/triggers beside the rest of tekton/; each test talks in its network."""
    with listening(pipelines.tekton.cluster, NAMESPACE) as made:
        yield made


@dataclass(frozen=True)
class Handed:
    """A small signed image in the cluster's registry, and who hands it over."""

    listener: Listener
    release: Release
    workplace: Workplace
    image: str

    def variables(self) -> dict[str, str]:
        return {
            "SECURE_PIPELINE_HAND_OVER_WAIT": "60s",
            "SECURE_PIPELINE_HAND_OVER": self.listener.url,
            "SECURE_PIPELINE_HAND_OVER_SECRET": self.listener.secret.decode(),
            "SECURE_PIPELINE_HAND_OVER_CA": str(self.listener.ca),
            "SECURE_PIPELINE_TARGET": "production",
        }

    def publish(self) -> None:
        name = self.image.partition("@")[0]
        copied = self.workplace.run("copy", f"layout:{self.release.path}", name)
        assert copied.code == 0, copied.text

    def promoted(self, run: str, result: str) -> None:
        """Sign the verdict of a run, as the cluster does."""
        verdict = {
            "engineRun": run, "result": result, "why": "made up for this test",
            "target": {"name": "production"}, "finishedOn": rfc3339(datetime.now(UTC)),
        }  # fmt: skip
        digest = self.release.image.digest
        self.release.attach([make_statement(NAME, digest, PROMOTION, verdict)], signer())
        self.publish()


@pytest.fixture
def handed(listener: Listener, cluster: Cluster, shared: Path, tmp_path: Path) -> Handed:
    release = Release(tmp_path / "image", secrets.token_bytes(8))
    release.run(time=datetime.now(UTC).replace(microsecond=0))
    trusted = policy(tmp_path / "policy", require=REQUIRE.replace(", max-age: 7d", ""))
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    variables |= {"SECURE_PIPELINE_POLICY": str(trusted.source)}
    image = f"{cluster.registry}/handed-{secrets.token_hex(4)}@{release.image.digest}"
    made = Handed(listener, release, Workplace(tmp_path, variables), image)
    made.publish()
    verified = made.workplace.run("verify", image)
    assert verified.code == 0, verified.text
    return made


@pytest.mark.parametrize(("result", "code"), [("PROMOTED", 0), ("ROLLED_BACK", 13)])
def test_a_hand_over_ends_with_the_clusters_verdict(handed: Handed, result: str, code: int) -> None:
    """The command waits until the verdict of its own run lies signed in the registry."""
    before = handed.listener.runs()
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(
            handed.workplace.run, "hand-over", handed.image, "--json", **handed.variables()
        )
        (run,) = until("a run", lambda: handed.listener.runs() - before, 60)
        handed.promoted("promote-" + "0" * 32, "PROMOTED")
        handed.promoted(run, result)
        said = ended.result(60)
    assert said.code == code, said.text
    assert said.document["run"] == run
    assert said.document["verdict"]["result"] == result
    assert handed.listener.secret.decode() not in said.text


def test_a_refused_hand_over_is_no_success(handed: Handed) -> None:
    """With a wrong secret the answer is the same 202: waiting ends with 14, and nothing runs."""
    before = handed.listener.runs()
    wrong = {**handed.variables(), "SECURE_PIPELINE_HAND_OVER_SECRET": secrets.token_hex(32)}
    said = handed.workplace.run("hand-over", handed.image, "--wait", "3s", **wrong)
    assert said.code == 14, said.text
    assert "no signed verdict of promote-" in said.err
    unknown = handed.workplace.run("hand-over", handed.image, "--no-wait", **wrong)
    assert unknown.code == 0, unknown.text
    assert "only the cluster knows" in unknown.out
    assert handed.listener.runs() == before


def test_a_listener_that_is_not_trusted_gets_no_event(handed: Handed) -> None:
    """Without its authority, or where nobody listens: 4, before anything is signed away."""
    variables = handed.variables()
    other = {name: v for name, v in variables.items() if name != "SECURE_PIPELINE_HAND_OVER_CA"}
    said = handed.workplace.run("hand-over", handed.image, "--no-wait", **other)
    assert said.code == 4, said.text
    assert "not trusted" in said.err
    nobody = {**variables, "SECURE_PIPELINE_HAND_OVER": "https://127.0.0.1:1/"}
    assert handed.workplace.run("hand-over", handed.image, "--no-wait", **nobody).code == 4


def test_the_job_of_a_release_hands_over(handed: Handed, tmp_path: Path) -> None:
    """release.yml's job on the real listener: one run there, its verdict, and the job is green."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "README").write_text("source\n")
    Workplace(source).git("init", "-q")
    Workplace(source).commit()
    variables = handed.variables()
    secret = {"SECURE_PIPELINE_HAND_OVER_SECRET": variables.pop("SECURE_PIPELINE_HAND_OVER_SECRET")}
    variables["SECURE_PIPELINE_POLICY"] = handed.workplace.environment["SECURE_PIPELINE_POLICY"]
    program = Path(sys.executable).parent / "secure-pipeline"
    place = Place(
        source=source, actions=ROOT, environment=handed.workplace.environment, program=program,
        variables=variables, secrets={"production": secret},
    )  # fmt: skip
    runner = Runner(place, tmp_path / "runner")
    done = {"verify": JobRun("success"), "sign": JobRun("success", {"image": handed.image})}
    job = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["hand-over"]
    before = handed.listener.runs()
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(runner._job, "hand-over", job, done, {}, fork=False)
        (run,) = until("a run", lambda: handed.listener.runs() - before, 60)
        handed.promoted(run, "PROMOTED")
        made = ended.result(60)
    assert made.result == "success", made.log
    assert "PROMOTED: made up for this test" in made.log
    assert handed.listener.secret.decode() not in made.log
