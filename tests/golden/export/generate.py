"""Writes the exports of a policy that has something of everything, to compare with.

Run with the project's Python from the top of the repository:

    python tests/golden/export/generate.py
"""

from __future__ import annotations

from pathlib import Path

from secure_pipeline.policy.document import load
from secure_pipeline.policy.export import github, kubernetes, kyverno, policycontroller
from secure_pipeline.policy.export.release import release

HERE = Path(__file__).parent


def exports() -> dict[str, str]:
    """Path below this directory to text."""
    loaded = load(HERE / "policy.yaml")
    roles = kubernetes.KubernetesRoles(
        namespace="shop",
        runs="pipelines",
        routes=("web",),
        subjects={
            "operator": ("user:kim@example.com", "serviceaccount:pipelines:promote"),
            "reviewer": ("group:oidc:reviewers",),
        },
    )
    rules = github.GithubRules(
        owners=("@team/reviewers",),
        reviewers=("team:17", "user:42"),
        checks=("analyze", "test"),
        paths=github.PATHS,
    )
    glob, pattern = ("registry.example/team/**",), ("registry.example/team/*",)
    made = {
        "policy-controller": policycontroller.files(release(loaded, glob, "release")),
        "kyverno": kyverno.files(release(loaded, pattern, "release")),
        "kubernetes": kubernetes.files(roles),
        "github": github.files(rules),
    }
    return {f"{platform}/{name}": text for platform, f in made.items() for name, text in f.items()}


def main() -> None:
    """Write them all."""
    for name, text in exports().items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
