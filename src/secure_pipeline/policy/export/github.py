"""Roles and gates as GitHub enforces them: rulesets, an environment, code owners.

The files are bodies of GitHub's REST API (version 2022-11-28): repository rulesets
(``POST /repos/OWNER/REPO/rulesets``) and environments (``PUT …/environments/NAME``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secure_pipeline.errors import UsageError

ACTIONS_APP = 15368
"""GitHub Actions' own app: a status of the same name from anybody else does not count."""
PATHS = ("/policies/", "/.github/", "/tekton/", "/secure-pipeline.yaml", "/CODEOWNERS")
"""What decides over releases in a repository; GitHub looks for CODEOWNERS in .github too."""
_MOST_REVIEWERS = 6
_TEAM = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})(?:/[A-Za-z0-9_.-]{1,100})?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CHECK = re.compile(r"[^\x00-\x1f]{1,100}")
_TAGS = re.compile(r"[A-Za-z0-9*?._/-]{1,100}")
_PATH = re.compile(r"/?[A-Za-z0-9*._/-]{1,200}")
_REVIEWER = re.compile(r"(user|team):([1-9][0-9]{0,17})")


@dataclass(frozen=True)
class GithubRules:
    """What the files are made for."""

    owners: tuple[str, ...]
    """Reviewers of what decides: ``@organisation/team`` or ``@person``."""
    reviewers: tuple[str, ...]
    """Who lets a release go: ``team:ID`` or ``user:ID``, at most six."""
    checks: tuple[str, ...]
    """Names of the checks that a pull request must have passed."""
    paths: tuple[str, ...]
    """Files that only owners may let change."""
    tags: str = "v*"
    environment: str = "release"
    approvals: int = 1

    def __post_init__(self) -> None:
        _all("--owner", self.owners, _TEAM, "@organisation/reviewers")
        _all("--reviewer", self.reviewers, _REVIEWER, "team:ID, which 'gh api' tells")
        _all("--check", self.checks, _CHECK, "analyze")
        _all("--path", self.paths, _PATH, "/policies/")
        _all("--tags", (self.tags,), _TAGS, "v*")
        _all("--environment", (self.environment,), _NAME, "release")
        if len(self.reviewers) > _MOST_REVIEWERS:
            raise UsageError("an environment has at most six reviewers", hint="name a team")
        if not 1 <= self.approvals <= 10:
            raise UsageError(f"{self.approvals} approvals", hint="--approvals from 1 to 10")


def files(rules: GithubRules) -> dict[str, str]:
    """Every file by its path."""
    return {
        "ruleset-branch.json": _json(_branch(rules)),
        "ruleset-tags.json": _json(_tags(rules)),
        "environment.json": _json(_environment(rules)),
        "environment-tags.json": _json({"name": rules.tags, "type": "tag"}),
        "CODEOWNERS": _codeowners(rules),
        "README.md": _README.format(environment=rules.environment, tags=rules.tags),
    }


def _branch(rules: GithubRules) -> dict[str, Any]:
    review = {
        "required_approving_review_count": rules.approvals,
        "require_code_owner_review": True,
        "require_last_push_approval": True,
        "dismiss_stale_reviews_on_push": True,
        "required_review_thread_resolution": True,
    }
    checks = {
        "strict_required_status_checks_policy": True,
        "required_status_checks": [
            {"context": name, "integration_id": ACTIONS_APP} for name in rules.checks
        ],
    }
    return _ruleset(
        "secure-pipeline: default branch",
        "branch",
        "~DEFAULT_BRANCH",
        [
            {"type": "deletion"},
            {"type": "non_fast_forward"},
            {"type": "pull_request", "parameters": review},
            {"type": "required_status_checks", "parameters": checks},
        ],
    )


def _tags(rules: GithubRules) -> dict[str, Any]:
    """A tag that was released from stays what it was."""
    return _ruleset(
        "secure-pipeline: release tags",
        "tag",
        f"refs/tags/{rules.tags}",
        [{"type": "deletion"}, {"type": "non_fast_forward"}, {"type": "update"}],
    )


def _ruleset(name: str, target: str, refs: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Nobody bypasses it, administrators included; they can change it, which is recorded."""
    return {
        "name": name,
        "target": target,
        "enforcement": "active",
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": [refs], "exclude": []}},
        "rules": rules,
    }


def _environment(rules: GithubRules) -> dict[str, Any]:
    return {
        "wait_timer": 0,
        "prevent_self_review": True,
        "reviewers": [_reviewer(text) for text in rules.reviewers],
        "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
    }


def _reviewer(text: str) -> dict[str, Any]:
    kind, _, number = text.partition(":")
    return {"type": kind.capitalize(), "id": int(number)}


def _codeowners(rules: GithubRules) -> str:
    """The last line that matches decides, so these belong at the end of the file."""
    owners = " ".join(rules.owners)
    lines = [f"{path} {owners}" for path in rules.paths]
    return "\n".join(("# What decides over releases; keep at the end of CODEOWNERS.", *lines, ""))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _all(option: str, values: Sequence[str], pattern: re.Pattern[str], example: str) -> None:
    if not values:
        raise UsageError(f"{option} is not given", hint=f"{option} {example}")
    for value in values:
        if not pattern.fullmatch(value):
            raise UsageError(f"{value[:80]!r} is not for {option}", hint=f"{option} {example}")


_README = """\
# Rules for GitHub

Written by `secure-pipeline policy export github`. Read them, then apply them in this directory as
an administrator of the repository:

```sh
gh api -X POST repos/OWNER/REPO/rulesets --input ruleset-branch.json
gh api -X POST repos/OWNER/REPO/rulesets --input ruleset-tags.json
gh api -X PUT repos/OWNER/REPO/environments/{environment} --input environment.json
gh api -X POST repos/OWNER/REPO/environments/{environment}/deployment-branch-policies \\
  --input environment-tags.json
```

`POST` makes a second ruleset each time: to change one, `PUT repos/OWNER/REPO/rulesets/ID`. Append
`CODEOWNERS` to the repository's own. The numbers of reviewers:

```sh
gh api orgs/ORGANISATION/teams/TEAM --jq .id
gh api users/NAME --jq .id
```

- Changes of the default branch come by pull request, reviewed by code owners and by somebody other
  than who pushed last, with every named check passed on the newest state, as reported by GitHub
  Actions itself.
- A tag {tags} is neither moved nor removed.
- Jobs of the environment `{environment}` wait for a reviewer other than who started them, and start
  from such a tag only. Put the secrets and the OIDC subject of signing there.

Not enforced here: administrators can change the rules (the audit log shows it) and may let a job of
the environment go unless "Allow administrators to bypass" is off, which the API does not set.
"""
