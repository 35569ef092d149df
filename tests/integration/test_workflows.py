"""The rendered workflows, judged by others' programs and run, job by job, on the sample."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fakes.actionsrunner import JobRun, Place, Runner
from fakes.faultproxy import answer, fault_proxy
from fakes.issuer import ISSUER, Issuer
from fakes.keylessplace import identities_in
from fakes.privatesigstore import IDENTITY, private_sigstore
from fakes.vaultserver import SIGNING_POLICY, RealVault, real_vault
from fakes.workplace import PASSWORD, ROOT, Workplace
from secure_pipeline.plan.github import HAND_OVER, render
from secure_pipeline.plan.model import the_plan
from secure_pipeline.run import GRAPH
from secure_pipeline.wiring import locate_tool

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("released")]
WORKFLOWS = ROOT / ".github/workflows"
BIN = Path(sys.executable).parent
LAST = ("promote", HAND_OVER)
"""What comes after verify, where the operator has named a target or a listener."""
TITLE = '"; touch /tmp/w-injected; $(touch injected) `touch injected` ${{ secrets.X }}'


@pytest.fixture
def policy(tmp_path: Path, shared: Path) -> Path:
    """The operator's repository: policy, public key, and the encrypted key beside them."""
    root = tmp_path / "policy"
    root.mkdir()
    for file in (shared / "policy/github.yaml", shared / "release.pub", shared / "release.key"):
        shutil.copy(file, root)
    place = Workplace(root)
    place.git("-c", "init.defaultBranch=main", "init", "-q")
    place.commit()
    return root


@pytest.fixture
def place(workplace: Workplace, policy: Path) -> Place:
    """The sample as a repository on GitHub, with the operator's variables and secret."""
    return Place(
        source=workplace.root,
        actions=ROOT,
        environment={
            name: workplace.environment[name]
            for name in ("HOME", "PATH", "SECURE_PIPELINE_TOOLS", "XDG_CACHE_HOME", "TMPDIR")
            if name in workplace.environment
        },
        beside={"bases": (workplace.root.parent / "bases").resolve()},
        program=BIN / "secure-pipeline",
        repositories={"operator/policy": policy},
        variables={
            "SECURE_PIPELINE_POLICY_REPOSITORY": "operator/policy",
            "SECURE_PIPELINE_POLICY_COMMIT": head(policy),
            "SECURE_PIPELINE_POLICY": "../policy/github.yaml",
            "SECURE_PIPELINE_DATABASE": "demonstration",
            "SECURE_PIPELINE_KEY": "file:../policy/release.key",
        },
        secrets={"release": {"SECURE_PIPELINE_KEY_PASSWORD": PASSWORD}},
        event={"pull_request": {"number": 1, "title": TITLE, "head": {"ref": TITLE}}},
    )


def head(repository: Path) -> str:
    command = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def results(jobs: dict[str, JobRun]) -> dict[str, str]:
    return {name: job.result for name, job in jobs.items()}


def logs(jobs: dict[str, JobRun]) -> str:
    return "\n".join(f"== {name}: {job.result}\n{job.log}" for name, job in jobs.items())


# --- what other programs say ---------------------------------------------------------------


def test_zizmor_has_nothing_to_say() -> None:
    """The auditor's persona, offline, with no exception in any file: 0 findings."""
    ended = subprocess.run(
        [BIN / "zizmor", "--offline", "--persona=auditor", "--no-progress", "--no-ignores",
         "--strict-collection", "--format=json", str(ROOT / ".github")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert json.loads(ended.stdout) == []
    assert ended.returncode == 0, ended.stderr
    for path in (*WORKFLOWS.glob("*.yml"), *ROOT.glob(".github/actions/*/action.yml")):
        assert f"completed {path}" in ended.stderr


def test_our_own_rules_have_nothing_to_say() -> None:
    """The built-in Semgrep rules, which judge this repository too, find nothing in .github."""
    ended = subprocess.run(
        [str(locate_tool("semgrep").path), "scan", "--metrics=off", "--disable-version-check",
         "--quiet", "--json", "--no-git-ignore", "--config",
         str(ROOT / "policies/semgrep/github-actions.yaml"), ".github"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = json.loads(ended.stdout)
    assert (found["results"], found["errors"]) == ([], [])
    assert {Path(path).name for path in found["paths"]["scanned"]} >= {"ci.yml", "action.yml"}


def test_zizmor_sees_what_is_wrong(tmp_path: Path) -> None:
    """The same call finds a title in a script, so its silence means something."""
    path = tmp_path / ".github/workflows/ci.yml"
    path.parent.mkdir(parents=True)
    text = (WORKFLOWS / "ci.yml").read_text()
    step = "      - run: echo ${{ github.event.pull_request.title }}\n  sarif:\n"
    path.write_text(text.replace("  sarif:\n", step))
    ended = subprocess.run(
        [BIN / "zizmor", "--offline", "--persona=auditor", "--format=json", str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "template-injection" in {finding["ident"] for finding in json.loads(ended.stdout)}


def actionlint(tmp_path: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Judge a copy in which ``$/`` is ``./``: this version knows only the older spelling.

    With it, inputs and outputs of the actions are compared with what the jobs use.
    """
    (tmp_path / ".git").mkdir()
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("uses: $/", "uses: ./"))
    return subprocess.run(
        [locate_tool("actionlint").path, "-no-color", "-shellcheck=", "-pyflakes="],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_actionlint_has_nothing_to_say(tmp_path: Path) -> None:
    """Syntax, expressions, needs, inputs and outputs of all workflows: no finding."""
    ended = actionlint(tmp_path, dict(render(the_plan())))
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [("build-state:", "built-state:"), ("needs.build.outputs.state", "needs.built.outputs.state")],
)
def test_actionlint_sees_what_is_wrong(tmp_path: Path, old: str, new: str) -> None:
    """An input that no action has, a job that is not needed: found in the same way."""
    files = dict(render(the_plan()))
    release = ".github/workflows/release.yml"
    assert old in files[release]
    ended = actionlint(tmp_path, {**files, release: files[release].replace(old, new)})
    assert ended.returncode == 1
    assert "release.yml" in ended.stdout


# --- the jobs ------------------------------------------------------------------------------


def test_a_release_ends_with_a_verified_image(place: Place, tmp_path: Path) -> None:
    """All jobs of release.yml, each in its own checkout: signed, verified, and the same run."""
    runner = Runner(place, tmp_path / "runner")
    jobs = runner.run(WORKFLOWS / "release.yml")
    expected = {**dict.fromkeys(GRAPH, "success"), **dict.fromkeys(LAST, "skipped")}
    assert results(jobs) == expected, logs(jobs)
    assert re.fullmatch(r"inference-service@sha256:[0-9a-f]{64}", jobs["sign"].outputs["image"])
    assert "| sign | PASS |" in jobs["sign"].summary.replace("\\", "")
    assert PASSWORD not in logs(jobs)
    assert "https://secure-pipeline.dev/builder/github/v1" in jobs["verify"].log
    (made,) = (tmp_path / "runner/build").rglob("build/provenance.json")
    said = json.loads(made.read_bytes())["buildDefinition"]["internalParameters"]["engine"]
    assert said == {
        "run": "https://github.com/team/service/actions/runs/7/attempts/1",
        "workflow": "team/service/.github/workflows/release.yml@refs/heads/main",
    }
    artifacts = {path.name for path in runner.artifacts.iterdir()}
    assert artifacts == {"gh-7-sarif", *(f"gh-7-{s}" for s in GRAPH if s != "verify")}


def test_ci_01_a_title_full_of_shell_does_nothing(place: Place, tmp_path: Path) -> None:
    """A pull request is analysed and tested; its title and branch are read by nothing at all."""
    jobs = Runner(place, tmp_path / "runner").run(WORKFLOWS / "ci.yml")
    assert set(results(jobs)) == {"analyze", "test", "sarif"}
    assert set(results(jobs).values()) == {"success"}, logs(jobs)
    (findings,) = jobs["sarif"].findings
    assert json.loads(findings.read_bytes())["version"] == "2.1.0"
    assert "injected" not in logs(jobs)
    assert not list((tmp_path / "runner").rglob("*injected*"))


def test_ci_02_a_fork_gets_no_secret_and_shows_no_finding(place: Place, tmp_path: Path) -> None:
    """A fork's pull request has neither variables nor secrets; the built-in policy judges it."""
    event = {"pull_request": {"number": 1, "head": {"repo": {"fork": True}}}}
    runner = Runner(replace(place, event=event), tmp_path / "runner")
    jobs = runner.run(WORKFLOWS / "ci.yml", fork=True)
    assert results(jobs) == {"analyze": "success", "test": "success", "sarif": "skipped"}, logs(
        jobs
    )
    assert not (tmp_path / "runner/analyze/workspace/policy").exists()


def test_a_failing_test_stops_the_release(
    place: Place, workplace: Workplace, tmp_path: Path
) -> None:
    """The test gate: scan still runs, nothing is signed, verified or promoted."""
    (workplace.root / "tests/test_wrong.py").write_text("def test_wrong() -> None:\n    assert 0\n")
    workplace.commit()
    jobs = Runner(place, tmp_path / "runner").run(WORKFLOWS / "release.yml")
    assert results(jobs) == {
        "analyze": "success", "test": "failure", "build": "success", "scan": "success",
        "sign": "skipped", "verify": "skipped", **dict.fromkeys(LAST, "skipped"),
    }, logs(jobs)  # fmt: skip
    assert "| test | FAIL |" in jobs["test"].summary.replace("\\", "")
    assert "Hand over" not in jobs["test"].shown


def test_a_vulnerable_sample_stops_at_its_gate(place: Place, policy: Path, tmp_path: Path) -> None:
    """With known vulnerabilities over the gate, scan fails and no later job runs."""
    path = policy / "github.yaml"
    text = path.read_text()
    path.write_text(text.replace("  scan:\n    severity: high", "  scan:\n    severity: low"))
    assert path.read_text() != text
    Workplace(policy).commit()
    changed = {**place.variables, "SECURE_PIPELINE_POLICY_COMMIT": head(policy)}
    runner = Runner(replace(place, variables=changed), tmp_path / "runner")
    jobs = runner.run(WORKFLOWS / "release.yml")
    assert results(jobs)["scan"] == "failure", logs(jobs)
    assert {results(jobs)[name] for name in ("sign", "verify", *LAST)} == {"skipped"}
    assert "CVE" in jobs["scan"].summary


def test_an_exchanged_artifact_is_refused(place: Place, tmp_path: Path) -> None:
    """What a job hands over is held against the digest that the job said; nothing is signed."""

    class Exchanging(Runner):
        def _job(self, name, *rest):  # type: ignore[no-untyped-def]
            if name == "sign":
                file = self.artifacts / "gh-7-scan/scan.tar"
                data = bytearray(file.read_bytes())
                data[len(data) // 2] ^= 1
                file.write_bytes(data)
            return super()._job(name, *rest)

    jobs = Exchanging(place, tmp_path / "runner").run(WORKFLOWS / "release.yml")
    assert results(jobs)["sign"] == "failure", logs(jobs)
    assert "the digest is sha256:" in jobs["sign"].log
    assert "$ secure-pipeline sign" not in jobs["sign"].log
    assert results(jobs)["verify"] == "skipped"


def test_promote_gets_the_signed_image_and_the_target(
    place: Place, released: Workplace, tmp_path: Path
) -> None:
    """With a target the job takes over what sign left, and asks for exactly that image."""
    runner = Runner(
        replace(
            place,
            source=released.root,
            variables={
                "SECURE_PIPELINE_TARGET": "$(touch injected)",
                "SECURE_PIPELINE_KEY": "file:k",
            },
        ),
        tmp_path / "runner",
    )
    file = runner.artifacts / "gh-7-sign/sign.tar"
    packed = released.run("state", "pack", str(file), "--json").document
    done = {
        "verify": JobRun("success"),
        "sign": JobRun("success", {"state": packed["digest"], "image": packed["image"]}),
    }
    job = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]["promote"]
    promoted = runner._job("promote", job, done, {}, fork=False)
    assert promoted.result == "failure", promoted.log
    assert '$ secure-pipeline promote "$IMAGE" --to "$TARGET"' in promoted.log
    assert "'$(touch injected)' is no file" in promoted.log
    assert not list((tmp_path / "runner").rglob("injected"))


def test_a_listener_takes_the_place_of_promote(place: Place, tmp_path: Path) -> None:
    """With its address the one job is skipped and the other one asks it, as it is told to."""
    variables = {
        "SECURE_PIPELINE_TARGET": "production",
        "SECURE_PIPELINE_HAND_OVER": "https://$(touch injected).example/",
    }
    secrets = {"production": {"SECURE_PIPELINE_HAND_OVER_SECRET": "s3cret" * 8}}
    runner = Runner(replace(place, variables=variables, secrets=secrets), tmp_path / "runner")
    image = f"127.0.0.1:1/service@sha256:{'a' * 64}"
    done = {"verify": JobRun("success"), "sign": JobRun("success", {"image": image})}
    found = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]
    assert runner._job("promote", found["promote"], done, {}, fork=False).result == "skipped"
    asked = runner._job(HAND_OVER, found[HAND_OVER], done, {}, fork=False)
    assert asked.result == "failure"
    assert '$ secure-pipeline hand-over "$IMAGE"' in asked.log
    assert "cannot be handed over as audience" in asked.log
    assert "s3cret" not in asked.log
    assert not list((tmp_path / "runner").rglob("injected"))


def test_a_key_in_vault_signs_for_the_job_that_may(
    place: Place, policy: Path, tmp_path: Path
) -> None:
    """pipeline.yml as others call it, without any secret: Vault lets the job itself sign, once."""
    issuer = Issuer()
    subject = "repo:team/service:environment:release"
    with real_vault(tmp_path / "vault") as vault, fault_proxy() as github:
        public = signing_role(vault, issuer, subject)
        before = vault.accessors()
        path = policy / "github.yaml"
        text = path.read_text().replace("public-key: release.pub", f"public-key: {public}")
        path.write_text(text)
        shutil.copy(vault.authority.ca, policy / "vault-ca.pem")
        (policy / "release.key").unlink()
        Workplace(policy).commit()
        github.on("GET", "/token", lambda exchange: answer(
            200, json.dumps({"value": issuer.token(sub=subject)}).encode()
        )(exchange))  # fmt: skip
        theirs = replace(
            place,
            variables={},
            secrets={},
            identity={
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://{github.host}/token?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
            },
        )
        inputs = {
            "policy-repository": "operator/policy",
            "policy-commit": head(policy),
            "policy": "../policy/github.yaml",
            "database": "demonstration",
            "key": "vault-transit://transit/release",
            "vault-login": "github",
            "vault-role": "signer",
            "vault-audience": "vault",
            "vault-addr": vault.address,
            "vault-cacert": "../policy/vault-ca.pem",
        }
        jobs = Runner(theirs, tmp_path / "runner").run(WORKFLOWS / "pipeline.yml", inputs)
        assert results(jobs)["verify"] == "success", logs(jobs)
        assert len(github.seen) == 1
        assert vault.accessors() == before


def test_a_job_signs_as_its_workflow_without_any_key(
    place: Place, policy: Path, tmp_path: Path
) -> None:
    """release.yml with one variable more: its sign job's own identity signs, and is verified."""
    with private_sigstore(tmp_path / "sigstore") as sigstore, fault_proxy() as github:
        path = policy / "github.yaml"
        named = {"release": (IDENTITY, sigstore.issuer.url)}
        path.write_text(identities_in(path.read_text(), named, "root.json"))
        (policy / "root.json").write_text(json.dumps(sigstore.trusted_root()))
        (policy / "trust.json").write_text(json.dumps(sigstore.trust_config()))
        (policy / "release.key").unlink()
        Workplace(policy).commit()
        token = sigstore.token()
        github.on("GET", "/token", answer(200, json.dumps({"value": token}).encode()))
        theirs = replace(
            place,
            variables={
                **place.variables,
                "SECURE_PIPELINE_POLICY_COMMIT": head(policy),
                "SECURE_PIPELINE_KEY": "keyless:../policy/trust.json",
            },
            secrets={},
            identity={
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://{github.host}/token?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
            },
        )
        jobs = Runner(theirs, tmp_path / "runner").run(WORKFLOWS / "release.yml")
        assert results(jobs)["verify"] == "success", logs(jobs)
        assert IDENTITY in jobs["sign"].log
        assert token not in logs(jobs)
        assert [seen.path for seen in github.seen] == ["/token?api-version=2.0&audience=sigstore"]


def signing_role(vault: RealVault, issuer: Issuer, subject: str) -> str:
    """Let tokens of this subject sign; return the public key as one JSON string."""
    vault.transit_key("release")
    rules = SIGNING_POLICY.format(key="release")
    vault.api("PUT", "sys/policies/acl/signer", {"policy": rules})
    vault.api("POST", "sys/auth/jwt", {"type": "jwt"})
    keys = {"jwt_validation_pubkeys": [issuer.public], "bound_issuer": ISSUER}
    vault.api("POST", "auth/jwt/config", keys)
    role = {
        "role_type": "jwt", "user_claim": "sub", "bound_subject": subject,
        "bound_audiences": ["vault"], "token_policies": ["signer"],
        "token_ttl": "5m", "token_max_ttl": "5m",
    }  # fmt: skip
    vault.api("POST", "auth/jwt/role/signer", role)
    return json.dumps(vault.api("GET", "transit/keys/release")["data"]["keys"]["1"]["public_key"])


def test_the_program_is_installed_as_the_actions_install_it(tmp_path: Path) -> None:
    """install.sh makes a program from hash-pinned requirements, and leaves python3 alone."""
    added = tmp_path / "path"
    ended = subprocess.run(
        ["sh", str(ROOT / ".github/actions/setup/install.sh")],
        env={**os.environ, "RUNNER_TEMP": str(tmp_path), "GITHUB_PATH": str(added)},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (directory,) = added.read_text().splitlines()
    assert os.listdir(directory) == ["secure-pipeline"]
    version = subprocess.run(
        [f"{directory}/secure-pipeline", "--version"], capture_output=True, text=True, timeout=60
    )
    assert version.stdout.startswith("secure-pipeline ")
