"""The workflows of GitHub Actions, as the plan renders them and as the repository has them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from fakes.renderedplan import inside, of_github, of_plan, of_tekton
from fakes.workplace import ROOT
from secure_pipeline.errors import UsageError
from secure_pipeline.plan import tekton
from secure_pipeline.plan.files import differing
from secure_pipeline.plan.github import HAND_OVER, render
from secure_pipeline.plan.githubactions import handed
from secure_pipeline.plan.githubyaml import PINS, Pin, dump
from secure_pipeline.plan.model import Plan, the_plan

PLAN = the_plan()
FILES = render(PLAN)
CI, RELEASE, PIPELINE = (f".github/workflows/{n}.yml" for n in ("ci", "release", "pipeline"))
SCAN = ".github/actions/scan/action.yml"
WHOLE = (RELEASE, PIPELINE)
YAML = [path for path in FILES if path.endswith(".yml")]
TOOLKIT = f"owner/toolkit@{'a' * 40}"
SIGNING = ("sign", "promote")
SECRET = (*SIGNING, HAND_OVER)


def jobs(path: str) -> dict[str, dict]:  # type: ignore[type-arg]
    found = yaml.safe_load(FILES[path])["jobs"]
    assert isinstance(found, dict)
    return found


def triggers(path: str) -> dict[str, object]:
    document = yaml.safe_load(FILES[path])
    return dict(document[True])  # YAML 1.1 reads "on" as a truth value


# --- the plan and what is rendered ---------------------------------------------------------


def test_the_repository_has_what_the_plan_renders() -> None:
    """No file of .github is missing, changed or left over."""
    assert differing(FILES, ROOT) == []
    there = {p.relative_to(ROOT).as_posix() for p in (ROOT / ".github").rglob("*") if p.is_file()}
    assert there == set(FILES)


def test_rendering_twice_is_the_same() -> None:
    """The same plan gives the same bytes."""
    assert render(the_plan()) == FILES


@pytest.mark.parametrize("workflow", WHOLE)
def test_stages_needs_gates_and_commands_are_the_plans(workflow: str) -> None:
    """Read back from the text, the workflow is the plan: order, needs, gates, commands."""
    assert of_github(FILES, workflow) == of_plan(PLAN)


@pytest.mark.parametrize("workflow", WHOLE)
def test_github_and_tekton_run_the_same(workflow: str) -> None:
    """Both engines run the same stages after the same others, and stop where one fails."""
    ours = {r.name: (r.needs, r.stops) for r in of_github(FILES, workflow)}
    theirs = {r.name: (r.needs, r.stops) for r in of_tekton(tekton.render(PLAN))}
    assert ours == theirs


def test_what_a_pull_request_runs_is_a_part_of_the_plan() -> None:
    """Analyze and test are the same jobs there as in a release."""
    assert {n: j for n, j in jobs(CI).items() if n != "sarif"} == {
        n: jobs(RELEASE)[n] for n in ("analyze", "test")
    }


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (RELEASE, "      - scan\n", ""),
        (RELEASE, "    needs:\n      - sign\n", ""),
        (RELEASE, "uses: $/.github/actions/scan", "uses: $/.github/actions/test"),
        (RELEASE, "        id: stage\n", "        id: stage\n        continue-on-error: true\n"),
        (RELEASE, "    name: sign\n", "    name: sign\n    if: ${{ always() }}\n"),
        (SCAN, "run: secure-pipeline scan", "run: 'true'"),
        (SCAN, "      id: stage\n", "      id: stage\n      if: always()\n"),
    ],
)  # fmt: skip
def test_a_change_in_one_rendering_is_seen(path: str, old: str, new: str) -> None:
    """A need that is gone, a stage exchanged, a gate that lets through: no parity."""
    assert old in FILES[path]
    changed = {**FILES, path: FILES[path].replace(old, new, 1)}
    assert of_github(changed, RELEASE) != of_plan(PLAN)


def test_a_stage_changed_in_the_plan_is_changed_everywhere() -> None:
    """Renderings follow the plan; one that did not would differ."""
    stages = [replace(s, needs=("build", "test")) if s.name == "scan" else s for s in PLAN.stages]
    plan = Plan(tuple(stages))
    assert of_github(render(plan), RELEASE) == of_plan(plan) != of_plan(PLAN)


def test_each_stage_takes_over_what_it_needs() -> None:
    """What is handed over covers all needs, and nothing twice."""
    assert {s.name: handed(PLAN, s) for s in PLAN.stages} == {
        "analyze": (), "test": (), "build": (), "scan": ("build",),
        "sign": ("analyze", "test", "scan"), "verify": ("sign",), "promote": ("sign",),
    }  # fmt: skip


# --- rows of the attack cases --------------------------------------------------------------


@pytest.mark.parametrize("path", YAML)
def test_ci_01_no_expression_is_in_a_script(path: str) -> None:
    """Values reach scripts as variables only, and none is a word for the shell to split."""
    for mapping in inside(yaml.safe_load(FILES[path])):
        script = mapping.get("run")
        if isinstance(script, str) and "name" in mapping:
            assert "${{" not in script
            outside_quotes = re.sub(r'"[^"]*"', "", script)
            assert "$" not in outside_quotes, script
            assert "`" not in script


def test_ci_01_no_text_of_other_people_is_read() -> None:
    """No title, body, branch name or message of anybody is in a file at all."""
    allowed = {"github.event.pull_request.number", "github.event.pull_request.head.repo.fork"}
    for path in YAML:
        found = set(re.findall(r"github\.(?:event|head_ref|ref_name)[\w.]*", FILES[path]))
        assert found <= allowed, path


def test_ci_02_no_foreign_code_with_our_rights() -> None:
    """Only pull_request, push and workflow_call start a workflow; others cannot be rendered."""
    assert [sorted(triggers(path)) for path in (CI, RELEASE, PIPELINE)] == [
        ["pull_request", "push"], ["push"], ["workflow_call"],
    ]  # fmt: skip
    for trigger in ("pull_request_target", "workflow_run"):
        with pytest.raises(ValueError, match="foreign code"):
            dump({"on": {trigger: None}, "jobs": {}})


def test_ci_02_a_pull_request_meets_no_secret() -> None:
    """What runs for a pull request names no secret, no environment and asks for no token."""
    assert "secrets." not in FILES[CI]
    assert "github.token" not in FILES[CI]
    for job in jobs(CI).values():
        assert "environment" not in job
        assert "id-token" not in job["permissions"]


def test_ci_03_every_action_is_a_commit() -> None:
    """Each action of others is 40 hex digits with its version beside it."""
    for path in YAML:
        for line in FILES[path].splitlines():
            if "uses:" in line:
                assert re.search(
                    r"uses: (\$/\.github/actions/[\w-]+|\S+@[0-9a-f]{40} # v[\d.]+)$", line
                )
    with pytest.raises(ValueError, match="not pinned"):
        dump({"jobs": {"a": {"steps": [{"uses": "actions/checkout@v7"}]}}})
    with pytest.raises(ValueError, match="not 40 hex digits"):
        Pin("actions/checkout", "v7", "v7")


def test_ci_03_where_each_commit_is_from_is_written() -> None:
    """docs/reference/pins.md has every pin with its version."""
    page = (ROOT / "docs/reference/pins.md").read_text()
    for pin in PINS.values():
        assert f"`{pin.name}` | `{pin.commit}` | {pin.version} |" in page


def test_ci_04_no_cache_is_restored() -> None:
    """No job restores or keeps a cache, so none can be poisoned; sign has nothing else to read."""
    for path in YAML:
        assert "cache" not in FILES[path]
    for workflow in WHOLE:
        for name in SECRET:
            uses = [step["uses"].partition("@")[0] for step in jobs(workflow)[name]["steps"]]
            assert set(uses) == {
                "actions/checkout", "docker/login-action", f"$/.github/actions/{name}",
            }  # fmt: skip


@pytest.mark.parametrize("path", [CI, *WHOLE])
def test_ci_05_rights_are_given_one_by_one(path: str) -> None:
    """None at the top; each job has those of its stage; no checkout keeps a credential."""
    assert yaml.safe_load(FILES[path])["permissions"] == {}
    rights = {"sign": {"id-token": "write", "packages": "write"}}
    rights |= {"promote": rights["sign"], HAND_OVER: {"packages": "read"}}
    for name, job in jobs(path).items():
        if name == "sarif":
            assert job["permissions"] == {"security-events": "write", "actions": "read"}
        else:
            assert job["permissions"] == {"contents": "read", **rights.get(name, {})}, name
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WHOLE)
def test_ci_05_a_secret_goes_to_its_stage_alone(path: str) -> None:
    """Secrets are named in the jobs that people must approve, and nowhere else."""
    for name, job in jobs(path).items():
        text = yaml.safe_dump(job)
        assert ("secrets." in text) == (name in SECRET), name
        assert ("environment" in job) == (name in SECRET), name


@pytest.mark.parametrize("path", WHOLE)
def test_one_of_promote_and_hand_over_runs(path: str) -> None:
    """Both come after verify, with the same approval, and one listener decides which it is."""
    found = jobs(path)
    promote, hand_over = found["promote"], found[HAND_OVER]
    assert promote["needs"] == hand_over["needs"] == ["verify", "sign"]
    assert promote["environment"] == hand_over["environment"] == "production"
    (listener,) = re.findall(r"(\S+) != ''", hand_over["if"])
    assert f"{listener} == ''" in promote["if"]
    assert hand_over["if"] == f"${{{{ {listener} != '' }}}}"
    step = hand_over["steps"][-1]
    assert step["with"]["image"] == "${{ needs.sign.outputs.image }}"
    assert step["with"]["hand-over"] == f"${{{{ {listener} }}}}"


def test_the_shared_secret_is_in_the_environment_alone() -> None:
    """The action puts it into a variable of its one command, and no argument names it."""
    action = yaml.safe_load(FILES[".github/actions/hand-over/action.yml"])
    last = action["runs"]["steps"][-1]
    assert last["run"] == 'secure-pipeline hand-over "$IMAGE"'
    assert last["env"]["SECURE_PIPELINE_HAND_OVER_SECRET"] == "${{ inputs.hand-over-secret }}"
    assert all("secret" not in str(step).lower() for step in action["runs"]["steps"][:-1])


# --- other repositories --------------------------------------------------------------------


def test_another_repository_uses_the_toolkits_actions() -> None:
    """With a toolkit only the two workflows are rendered, with its actions at its commit."""
    files = render(PLAN, toolkit=TOOLKIT)
    assert set(files) == {CI, RELEASE}
    assert "$/" not in files[RELEASE]
    assert of_github({**FILES, **files}, RELEASE) == of_plan(PLAN)


@pytest.mark.parametrize(
    "toolkit", ["owner/toolkit", "owner/toolkit@v1", f"toolkit@{'a' * 40}", "", f"{TOOLKIT}\n"]
)
def test_a_toolkit_that_is_no_commit_is_refused(toolkit: str) -> None:
    """A tag, a name without owner, or nothing gives a usage error."""
    with pytest.raises(UsageError):
        render(PLAN, toolkit=toolkit)


@pytest.mark.parametrize("path", [p for p in YAML if "/actions/" in p])
def test_an_action_says_all_its_inputs(path: str) -> None:
    """Each input that a script or a step reads is declared, and each declared one is read."""
    document = yaml.safe_load(FILES[path])
    read = set(re.findall(r"inputs\.([\w-]+)", FILES[path]))
    assert read == set(document.get("inputs", {}))
    assert all(step.get("shell") == "bash" for step in document["runs"]["steps"] if "run" in step)
