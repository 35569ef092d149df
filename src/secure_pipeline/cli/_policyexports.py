"""``secure-pipeline policy export`` for what admits images and for who may do what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_pipeline.cli._options import JsonOption, PolicyOption
from secure_pipeline.errors import ExitCode

if TYPE_CHECKING:
    from secure_pipeline.policy.export.release import Release

ImageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--image", help="Images that it is for, in the platform's own pattern; may be repeated."
    ),
]
PrefixOption = Annotated[str, typer.Option("--prefix", help="What names of objects begin with.")]
PrintOption = Annotated[
    bool, typer.Option("--print", help="Print the files instead of writing them.")
]


def add_to(export: typer.Typer) -> None:
    """Put these commands beside the others of ``policy export``."""
    export.command("policy-controller")(policy_controller)
    export.command()(kyverno)
    export.command()(kubernetes)
    export.command()(github)


def policy_controller(
    image: ImageOption = None,
    prefix: PrefixOption = "secure-pipeline",
    output: Annotated[
        Path, typer.Option("--output", metavar="DIRECTORY", help="Where the file goes.")
    ] = Path("policy-controller"),
    show: PrintOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write ClusterImagePolicies for Sigstore's policy-controller."""
    from secure_pipeline.policy.export import policycontroller

    example = "registry.example/team/**"
    return _admission(
        "PolicyControllerPolicies", policycontroller.files, example,
        image, prefix, output, show=show, policy=policy, as_json=as_json,
    )  # fmt: skip


def kyverno(
    image: ImageOption = None,
    prefix: PrefixOption = "secure-pipeline",
    output: Annotated[
        Path, typer.Option("--output", metavar="DIRECTORY", help="Where the file goes.")
    ] = Path("kyverno"),
    show: PrintOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write a ClusterPolicy with verifyImages for Kyverno."""
    from secure_pipeline.policy.export import kyverno as kyverno_export

    example = "registry.example/team/*"
    return _admission(
        "KyvernoPolicies", kyverno_export.files, example,
        image, prefix, output, show=show, policy=policy, as_json=as_json,
    )  # fmt: skip


def kubernetes(
    namespace: Annotated[
        str, typer.Option("--namespace", help="Namespace that the application runs in.")
    ],
    runs_namespace: Annotated[
        str, typer.Option("--runs-namespace", help="Namespace of the pipeline's runs.")
    ] = "pipelines",
    route: Annotated[
        list[str] | None,
        typer.Option("--route", help="HTTPRoute that is promoted with; may be repeated."),
    ] = None,
    engineer: Annotated[
        list[str] | None,
        typer.Option(
            "--engineer",
            help="Who is one: group:NAME, user:NAME, serviceaccount:NAMESPACE:NAME; may be"
            " repeated; the group PREFIX-engineers by default.",
        ),
    ] = None,
    reviewer: Annotated[
        list[str] | None, typer.Option("--reviewer", help="Who is one; PREFIX-reviewers.")
    ] = None,
    operator: Annotated[
        list[str] | None, typer.Option("--operator", help="Who is one; PREFIX-operators.")
    ] = None,
    promoter: Annotated[
        list[str] | None,
        typer.Option(
            "--promoter",
            help="What promotes in a pod: serviceaccount:NAMESPACE:NAME; no one by default.",
        ),
    ] = None,
    prefix: PrefixOption = "secure-pipeline",
    output: Annotated[
        Path, typer.Option("--output", metavar="DIRECTORY", help="Where the file goes.")
    ] = Path("kubernetes-roles"),
    show: PrintOption = False,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write Roles and RoleBindings of engineers, reviewers, operators and of promotion pods."""
    from secure_pipeline.policy.export import kubernetes as roles

    subjects = {
        "engineer": engineer, "reviewer": reviewer, "operator": operator, "promoter": promoter,
    }  # fmt: skip
    wanted = roles.KubernetesRoles(
        namespace, runs_namespace, tuple(route or ()),
        {role: tuple(given or ()) for role, given in subjects.items()}, prefix,
    )  # fmt: skip
    return _write("KubernetesRoles", roles.files(wanted), output, show=show, as_json=as_json)


def github(
    owner: Annotated[
        list[str] | None,
        typer.Option(
            "--owner", help="Code owner of what decides: @ORGANISATION/TEAM; may be repeated."
        ),
    ] = None,
    reviewer: Annotated[
        list[str] | None,
        typer.Option(
            "--reviewer", help="Who lets a release go: team:ID or user:ID; may be repeated."
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            help="Check that pull requests must pass; may be repeated; analyze, test by default.",
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Files that need an owner's review; may be repeated."),
    ] = None,
    tags: Annotated[str, typer.Option("--tags", help="Tags that releases are made from.")] = "v*",
    environment: Annotated[
        str, typer.Option("--environment", help="Environment of the jobs that sign.")
    ] = "release",
    approvals: Annotated[int, typer.Option("--approvals", help="Reviews that a change needs.")] = 1,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIRECTORY", help="Where the files go.")
    ] = Path("github-rules"),
    show: PrintOption = False,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write rulesets, an environment and code owners for GitHub."""
    from secure_pipeline.policy.export import github as rules

    wanted = rules.GithubRules(
        tuple(owner or ()), tuple(reviewer or ()), tuple(check or ("analyze", "test")),
        tuple(path or rules.PATHS), tags, environment, approvals,
    )  # fmt: skip
    return _write("GithubRules", rules.files(wanted), output, show=show, as_json=as_json)


def _admission(
    kind: str,
    files: Callable[[Release], dict[str, str]],
    example: str,
    images: list[str] | None,
    prefix: str,
    output: Path,
    *,
    show: bool,
    policy: Path | None,
    as_json: bool,
) -> ExitCode:
    from secure_pipeline.errors import UsageError
    from secure_pipeline.policy.export.release import release
    from secure_pipeline.wiring.options import Options
    from secure_pipeline.wiring.verifying import load_policy

    if not images:
        raise UsageError("no images are named that it is for", hint=f"--image '{example}'")
    wanted = release(load_policy(Options(policy=policy)), images, prefix)
    return _write(kind, files(wanted), output, show=show, as_json=as_json, untold=wanted.untold)


def _write(
    kind: str,
    files: dict[str, str],
    output: Path,
    *,
    show: bool,
    as_json: bool,
    untold: tuple[str, ...] = (),
) -> ExitCode:
    from secure_pipeline.cli._output import Output
    from secure_pipeline.files import write_atomic

    out = Output(as_json=as_json)
    for name, text in files.items():
        if show:
            out.text(text.rstrip("\n"))
        else:
            write_atomic(output / name, text.encode())
            out.text(f"wrote {output / name}")
    if not show:
        out.text("read it, then apply it yourself: docs/how-to/enforce.md")
    where = {} if show else {"directory": str(output)}
    content = {"files": files if show else sorted(files)}
    out.document(kind, {**where, **content, **({"notEnforced": list(untold)} if untold else {})})
    return ExitCode.PASS
