"""``secure-pipeline vault``."""

from __future__ import annotations

import typer

from secure_pipeline.cli._options import JsonOption, PolicyOption, StateOption
from secure_pipeline.errors import ExitCode

app = typer.Typer(help="What is left in Vault.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """What is left in Vault."""


@app.command()
def pending(state: StateOption = None, as_json: JsonOption = False) -> ExitCode:
    """List the tokens that this state directory has made and not revoked yet; asks nobody."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import pending_tokens
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    tokens = pending_tokens(Options(state=state))
    for token in tokens:
        out.text(
            f"token {token.accessor}: {token.address}, made {token.made} for {token.seconds} s"
        )
    out.text("end them: secure-pipeline vault revoke-pending" if tokens else "no token is left")
    out.document(
        "PendingTokens",
        {
            "tokens": [
                {
                    "accessor": token.accessor,
                    "address": token.address,
                    "namespace": token.namespace,
                    "made": token.made,
                    "seconds": token.seconds,
                }
                for token in tokens
            ]
        },
    )
    return ExitCode.PASS


@app.command("revoke-pending")
def revoke_pending(
    policy: PolicyOption = None, state: StateOption = None, as_json: JsonOption = False
) -> ExitCode:
    """Revoke the tokens that runs which were killed have left in Vault."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.wiring import revoke_pending
    from secure_pipeline.wiring.options import Options

    out = Output(as_json=as_json)
    ended = revoke_pending(Options(policy=policy, state=state), out.warn)
    for accessor, what in ended:
        out.text(f"token {accessor}: {what}")
    if not ended:
        out.text("no token is left")
    left = [accessor for accessor, what in ended if what.startswith("not revoked")]
    out.document("PendingTokens", {"tokens": [{"accessor": a, "ended": w} for a, w in ended]})
    return ExitCode.UNAVAILABLE if left else ExitCode.PASS
