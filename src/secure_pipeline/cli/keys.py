"""``secure-pipeline keys``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_pipeline.cli import keyhistory, keysvault
from secure_pipeline.cli._options import JsonOption, PolicyOption, StateOption
from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.cli._output import Output
    from secure_pipeline.keys.verify import PublicKey

app = typer.Typer(help="Signing keys: in files, and in Vault.", no_args_is_help=True)


@app.command()
def generate(
    output: Annotated[
        Path, typer.Option("--output", metavar="PREFIX", help="Writes PREFIX.key and PREFIX.pub.")
    ] = Path("release"),
    as_json: JsonOption = False,
) -> ExitCode:
    """Make a key pair; the password comes from the environment or a prompt, never from here."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.keys import local
    from secure_pipeline.wiring import key_password

    out = Output(as_json=as_json)
    path = output.with_name(f"{output.name}.key")
    local.require_absent(path)
    password = key_password()
    public = local.generate(path, _prompt(confirm=True) if password is None else password)
    out.text(f"private key: {path} (encrypted; keep it and its password apart)")
    out.text(f"public key:  {local.public_path_of(path)}")
    _show(out, public, {"privateKey": str(path), "publicKey": str(local.public_path_of(path))})
    return ExitCode.PASS


@app.command()
def show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="file:PATH of a private key, a public PEM file, or vault-transit://MOUNT/KEY.",
        ),
    ],
    policy: PolicyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Show a key's algorithm, its id as cosign writes it, and the public key."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.keys import local
    from secure_pipeline.keys.uri import KeyRef
    from secure_pipeline.wiring import key_password, vault_public_key
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    if key.startswith(("vault-", "hashivault:")):
        _show_whole(out, vault_public_key(key, Options(policy=policy, state=state), out.warn))
        return ExitCode.PASS
    path = KeyRef.parse(key).path if key.startswith("file:") else Path(key)
    public = local.read_public(path)
    if public is None:
        password = key_password()
        signer = local.load(path, _prompt(confirm=False) if password is None else password)
        public = signer.public_key(path.name)
    _show_whole(out, public)
    return ExitCode.PASS


app.command()(keysvault.status)
app.command()(keysvault.rotate)
app.command()(keyhistory.blast_radius)
app.command()(keyhistory.revoke)


def _prompt(*, confirm: bool) -> str:
    """Ask on a terminal. Raises: UsageError where there is none."""
    if not sys.stdin.isatty():
        raise UsageError("the key's password is not set", hint="set SECURE_PIPELINE_KEY_PASSWORD")
    password: str = typer.prompt(
        "Password of the key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return password


def _show_whole(out: Output, public: PublicKey) -> None:
    _show(out, public, {})
    out.text(public.pem.decode().rstrip())


def _show(out: Output, public: PublicKey, more: dict[str, str]) -> None:
    out.text(f"algorithm:   {public.algorithm.value}")
    out.text(f"id:          {public.hint}")
    out.document(
        "Key",
        more | {"algorithm": public.algorithm.value, "id": public.hint, "pem": public.pem.decode()},
    )
