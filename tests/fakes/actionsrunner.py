"""Jobs of workflow files, run here in the order of their needs.

Scripts are run as they are, by bash, each job in a workspace of its own. Of the actions of others
only what the jobs rely on is imitated: a checkout is a clone, artifacts are copied, logging in and
showing findings are remembered. Anything that is not known is an error, not a pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fakes.actionsexpressions import Contexts, evaluate, substitute

REPOSITORY = "team/service"
REF = "refs/heads/main"


@dataclass(frozen=True)
class Place:
    """What a repository on GitHub has."""

    source: Path
    """Repository that the workflow runs for: what ``actions/checkout`` gives."""
    actions: Path
    """Directory that ``$/`` stands for."""
    environment: Mapping[str, str]
    """What the runner's machine has: PATH, HOME."""
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Links in each workspace."""
    program: Path | None = None
    """An installed program, so that it is not installed again."""
    repositories: Mapping[str, Path] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By environment; "" for those of the repository."""
    event: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    """Variables of a job that may ask for a token of its own."""


@dataclass
class JobRun:
    """How a job ended."""

    result: str
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    shown: list[str] = field(default_factory=list)
    """Names of steps that ran."""
    logins: list[dict[str, str]] = field(default_factory=list)
    findings: list[Path] = field(default_factory=list)


@dataclass
class _Job:
    """A job that runs."""

    place: Place
    workspace: Path
    temporary: Path
    contexts: Contexts
    run: JobRun
    environment: Mapping[str, str]
    path: list[str] = field(default_factory=list)
    failed: bool = False


class Runner:
    """Runs the jobs of one workflow."""

    def __init__(self, place: Place, directory: Path, run_id: int = 7) -> None:
        self.place = place
        self.directory = directory
        self.artifacts = directory / "artifacts"
        self.run_id = run_id
        self.workflow = ""

    def run(
        self, workflow: Path, inputs: Mapping[str, str] | None = None, *, fork: bool = False
    ) -> dict[str, JobRun]:
        """Run all jobs; on a pull request of a fork without variables and secrets."""
        document = yaml.safe_load(workflow.read_text())
        self.workflow = workflow.name
        done: dict[str, JobRun] = {}
        waiting = dict(document["jobs"])
        while waiting:
            ready = [n for n, job in waiting.items() if set(job.get("needs", [])) <= set(done)]
            assert ready, f"needs that are never there: {sorted(waiting)}"
            for name in ready:
                job = waiting.pop(name)
                done[name] = self._job(name, job, done, dict(inputs or {}), fork)
        return done

    def _job(
        self,
        name: str,
        job: dict[str, Any],
        done: Mapping[str, JobRun],
        inputs: dict[str, str],
        fork: bool,
    ) -> JobRun:
        needs = {n: done[n] for n in job.get("needs", [])}
        contexts: Contexts = {
            "github": {
                "run_id": self.run_id, "actor": "someone", "ref": REF,
                "token": "" if fork else "job-token", "event": self.place.event,
            },
            "inputs": inputs,
            "vars": {} if fork else dict(self.place.variables),
            "secrets": {} if fork else self._secrets(job.get("environment", "")),
            "needs": {n: {"result": r.result, "outputs": r.outputs} for n, r in needs.items()},
            "steps": {},
            "runner": {"temp": str(self.directory / name / "temp")},
        }  # fmt: skip
        good = all(need.result == "success" for need in needs.values())
        if not _wanted(job.get("if"), contexts, good):
            return JobRun("skipped")
        work = _Job(
            self.place,
            self.directory / name / "workspace",
            self.directory / name / "temp",
            contexts,
            JobRun("success"),
            {
                **self.place.environment,
                **(self.place.identity if job["permissions"].get("id-token") == "write" else {}),
            },
        )
        self._prepare(work)
        self._steps(work, job["steps"], contexts, self.place.actions, {})
        work.run.result = "failure" if work.failed else "success"
        work.run.outputs = {
            key: substitute(value, contexts) for key, value in job.get("outputs", {}).items()
        }
        return work.run

    def _secrets(self, environment: str) -> dict[str, str]:
        found = dict(self.place.secrets.get("", {}))
        return {**found, **(self.place.secrets.get(environment, {}) if environment else {})}

    def _prepare(self, job: _Job) -> None:
        job.workspace.mkdir(parents=True)
        job.temporary.mkdir(parents=True)
        for name, target in self.place.beside.items():
            (job.workspace / name).symlink_to(target)
        if self.place.program:
            program = job.temporary / "secure-pipeline-program/bin/secure-pipeline"
            program.parent.mkdir(parents=True)
            program.symlink_to(self.place.program)

    def _steps(
        self,
        job: _Job,
        steps: list[dict[str, Any]],
        contexts: Contexts,
        action: Path,
        environment: Mapping[str, str],
    ) -> None:
        """The steps of a job or of a composite action; the first that fails ends it."""
        failed = False
        for step in steps:
            outcome = "skipped"
            outputs: dict[str, str] = {}
            if _wanted(step.get("if"), contexts, not failed):
                job.run.shown.append(step["name"])
                variables = {
                    **environment,
                    **{k: substitute(str(v), contexts) for k, v in step.get("env", {}).items()},
                }
                ok, outputs = self._step(job, step, contexts, action, variables)
                outcome = "success" if ok else "failure"
                failed = failed or not ok
            if "id" in step:
                contexts["steps"][step["id"]] = {"outputs": outputs, "outcome": outcome}
        job.failed = job.failed or failed

    def _step(
        self,
        job: _Job,
        step: dict[str, Any],
        contexts: Contexts,
        action: Path,
        environment: Mapping[str, str],
    ) -> tuple[bool, dict[str, str]]:
        if "run" in step:
            return self._script(job, step, contexts, action, environment)
        values = {k: substitute(str(v), contexts) for k, v in step.get("with", {}).items()}
        uses = step["uses"]
        if uses.startswith("$/"):
            return self._composite(job, self.place.actions / uses[2:], values, contexts)
        return _ACTIONS[uses.partition("@")[0]](self, job, values), {}

    def _composite(
        self, job: _Job, directory: Path, values: dict[str, str], outer: Contexts
    ) -> tuple[bool, dict[str, str]]:
        document = yaml.safe_load((directory / "action.yml").read_text())
        inputs = {}
        for name, spec in document.get("inputs", {}).items():
            assert name in values or not spec.get("required"), f"{name} is not given"
            inputs[name] = values.pop(name, spec.get("default", ""))
        assert not values, f"no input: {sorted(values)}"
        contexts: Contexts = {
            "github": outer["github"], "inputs": inputs, "runner": outer["runner"], "steps": {},
        }  # fmt: skip
        before, job.failed = job.failed, False
        self._steps(job, document["runs"]["steps"], contexts, directory, {})
        ok, job.failed = not job.failed, before
        outputs = {
            name: substitute(spec["value"], contexts)
            for name, spec in document.get("outputs", {}).items()
        }
        return ok, outputs

    def _script(
        self,
        job: _Job,
        step: dict[str, Any],
        contexts: Contexts,
        action: Path,
        environment: Mapping[str, str],
    ) -> tuple[bool, dict[str, str]]:
        assert "${{" not in step["run"]
        files = {n: job.temporary / n for n in ("OUTPUT", "STEP_SUMMARY", "PATH")}
        for file in files.values():
            file.write_text("")
        given = dict(job.environment)
        given["PATH"] = os.pathsep.join([*reversed(job.path), given["PATH"]])
        folder = substitute(step.get("working-directory", "."), contexts)
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=job.workspace / folder,
            env={
                **given,
                **environment,
                **{f"GITHUB_{name}": str(file) for name, file in files.items()},
                "RUNNER_TEMP": str(job.temporary),
                "GITHUB_ACTION_PATH": str(action),
                "CI": "true",
                "GITHUB_ACTIONS": "true",
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": REPOSITORY,
                "GITHUB_RUN_ID": str(self.run_id),
                "GITHUB_RUN_ATTEMPT": "1",
                "GITHUB_WORKFLOW_REF": f"{REPOSITORY}/.github/workflows/{self.workflow}@{REF}",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=540,
        )
        job.run.log += f"$ {step['run']}\n{ended.stdout}"
        job.run.summary += files["STEP_SUMMARY"].read_text()
        job.path += files["PATH"].read_text().splitlines()
        pairs = (line.partition("=") for line in files["OUTPUT"].read_text().splitlines())
        return ended.returncode == 0, {name: value for name, _, value in pairs}


def _wanted(condition: Any, contexts: Contexts, good: bool) -> bool:
    """Without a word about the state, a condition counts only while all went well."""
    text = "" if condition is None else str(condition).removeprefix("${{").removesuffix("}}")
    if not any(word in text for word in ("always()", "cancelled()", "failure()")) and not good:
        return False
    return bool(evaluate(text, contexts)) if text.strip() else good


def _checkout(runner: Runner, job: _Job, values: dict[str, str]) -> bool:
    assert values["persist-credentials"] == "False"
    source = runner.place.source
    if "repository" in values:
        source = runner.place.repositories[values["repository"]]
    target = job.workspace / values["path"]
    commands = [["git", "clone", "-q", f"file://{source}", str(target)]]
    if values.get("ref"):
        commands.append(["git", "-C", str(target), "checkout", "-q", "--detach", values["ref"]])
    return all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in commands
    )


def _upload(runner: Runner, job: _Job, values: dict[str, str]) -> bool:
    path = job.workspace / values["path"]
    target = runner.artifacts / values["name"]
    if not path.is_file():
        return values["if-no-files-found"] == "ignore"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(path, target / path.name)
    return True


def _download(runner: Runner, job: _Job, values: dict[str, str]) -> bool:
    source = runner.artifacts / values["name"]
    if not source.is_dir():
        return False
    shutil.copytree(source, job.workspace / values["path"], dirs_exist_ok=True)
    return True


def _login(runner: Runner, job: _Job, values: dict[str, str]) -> bool:
    job.run.logins.append(values)
    return True


def _show(runner: Runner, job: _Job, values: dict[str, str]) -> bool:
    job.run.findings.append(job.workspace / values["sarif_file"])
    return (job.workspace / values["sarif_file"]).is_file()


_ACTIONS: Mapping[str, Callable[[Runner, _Job, dict[str, str]], bool]] = {
    "actions/checkout": _checkout,
    "actions/setup-python": lambda runner, job, values: True,
    "actions/upload-artifact": _upload,
    "actions/download-artifact": _download,
    "docker/login-action": _login,
    "github/codeql-action/upload-sarif": _show,
}
