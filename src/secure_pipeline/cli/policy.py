"""``secure-pipeline policy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli import _policyexports
from secure_pipeline.cli._options import JsonOption, PolicyOption
from secure_pipeline.errors import ExitCode

app = typer.Typer(help="The trusted policy, and what enforces it.", no_args_is_help=True)
export = typer.Typer(
    help="Write roles and the policy for what enforces them.", no_args_is_help=True
)
app.add_typer(export, name="export")
_policyexports.add_to(export)


@app.callback()
def group() -> None:
    """The trusted policy, and what enforces it."""


@export.callback()
def export_group() -> None:
    """Write roles and the policy for what enforces them."""


@export.command()
def vault(
    key: Annotated[
        str, typer.Option("--key", help="Release key, vault-transit://MOUNT/KEY.")
    ] = "vault-transit://transit/release",
    promotion_key: Annotated[
        str | None,
        typer.Option(
            "--promotion-key", help="Key of promotions; 'promotion' in the same mount by default."
        ),
    ] = None,
    cidr: Annotated[
        list[str] | None,
        typer.Option("--cidr", help="Network that the pipeline logs in from; may be repeated."),
    ] = None,
    token_uses: Annotated[
        int, typer.Option("--token-uses", help="Requests that a token is good for.")
    ] = 50,
    prefix: Annotated[
        str, typer.Option("--prefix", help="What names in Vault begin with.")
    ] = "secure-pipeline",
    approle: Annotated[
        str, typer.Option("--approle", help="Mount of the AppRole login.")
    ] = "approle",
    kubernetes: Annotated[
        str | None,
        typer.Option(
            "--kubernetes", help="Namespace of the runs, whose pods log in by service account."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIRECTORY", help="Where the files go.")
    ] = Path("vault-policies"),
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write Vault ACL policies and login roles, and the commands that apply them."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.files import write_atomic
    from secure_pipeline.policy import vaultroles
    from secure_pipeline.wiring.options import Options
    from secure_pipeline.wiring.verifying import load_policy

    out = Output(as_json=as_json)
    signing = load_policy(Options(policy=policy)).policy.signing
    roles = vaultroles.vault_roles(
        key, promotion_key, tuple(cidr or ()), token_ttl=signing.max_token_ttl,
        token_uses=token_uses, prefix=prefix, approle=approle, pods=kubernetes,
    )  # fmt: skip
    files = vaultroles.files(roles)
    for name, text in files.items():
        write_atomic(output / name, text.encode())
        out.text(f"wrote {output / name}")
    out.text(f"read them; {output / 'README.md'} has the commands that apply them")
    out.document("VaultPolicies", {"directory": str(output), "files": sorted(files)})
    return ExitCode.PASS
