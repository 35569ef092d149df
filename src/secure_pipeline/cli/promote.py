"""``secure-pipeline promote``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    IdentityOption,
    IssuerOption,
    JsonOption,
    KeyOption,
    LayoutOption,
    LedgerOption,
    PlainHttpOption,
    PolicyOption,
    RealmOption,
    RegistryCaOption,
    StateOption,
    TrustRootOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.canary.story import Ending
    from secure_pipeline.canary.target import Target
    from secure_pipeline.wiring.promoting import Promoted


def promote(
    to: Annotated[
        str,
        typer.Option("--to", help="Target: a file, or a name in SECURE_PIPELINE_TARGETS."),
    ],
    image: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE]", help="[HOST/]NAME@sha256:DIGEST. Never a tag."),
    ] = None,
    key: KeyOption = None,
    trusted: Annotated[
        list[Path] | None,
        typer.Option("--trust-key", help="Public key (PEM) to trust besides the policy's keys."),
    ] = None,
    abort: Annotated[
        bool, typer.Option("--abort", help="Roll back what an ended program left unfinished.")
    ] = False,
    settle: Annotated[
        bool,
        typer.Option("--settle", help="The same as --abort, but 0 where nothing is unfinished."),
    ] = False,
    wait: Annotated[
        str | None,
        typer.Option("--wait", help="Wait so long for another promotion of the target, as 30m."),
    ] = None,
    accept_baseline: Annotated[
        bool,
        typer.Option("--accept-baseline", help="Take the baseline as it is for known to be good."),
    ] = False,
    render: Annotated[
        str | None,
        typer.Option(
            "--render", help="Print the rules for another controller: argo-rollouts or flagger."
        ),
    ] = None,
    engine_run: Annotated[
        str | None,
        typer.Option(
            "--engine-run",
            help="Run of an engine that this is part of; the verdict names it.",
            envvar="SECURE_PIPELINE_RUN",
        ),
    ] = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_root: TrustRootOption = None,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Move traffic to a verified image step by step, watched; roll back what is not shown good."""
    from secure_pipeline.cli._promotion import promotion_view
    from secure_pipeline.wiring import open_promoter, promotion_target
    from secure_pipeline.wiring.keyless import Trust, operator_identity
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.promoting import PromoteRequest

    target = promotion_target(to)
    output = Output(as_json=as_json)
    if render is not None:
        return _render(output, render, target.target)
    abort |= settle
    if (image is None) != abort:
        raise UsageError(
            "--abort and --settle take no image" if image else "no image is named",
            hint=f"secure-pipeline promote NAME@sha256:DIGEST --to {to}",
        )
    if key is None:
        raise UsageError(
            "no key is named to sign the verdict with", hint="--key file:promotion.key"
        )
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, policy=policy, state=state, ledger=ledger, registry=registry)
    request = PromoteRequest(
        image,
        target,
        layout,
        key,
        tuple(trusted or ()),
        Trust(operator_identity(identity, issuer), trust_root),
        accept_baseline,
        abort,
        _seconds(wait),
        engine_run,
    )
    promoter = open_promoter(request, options, output.warn, output.text)
    if settle and not promoter.unfinished:
        output.text(f"no promotion of {target.target.name} is unfinished")
        output.line("Promotion", {"unfinished": False, "exitCode": 0})
        return ExitCode.PASS
    with _stoppable() as stop, promotion_view(output, target, image) as view:
        ended = promoter.run(view, stop)
    return _show(output, ended)


def _seconds(wait: str | None) -> float:
    from secure_pipeline.stages.running_watch import parse_interval

    return parse_interval(wait).total_seconds() if wait else 0.0


class _Stop:
    """Remembers Ctrl-C and SIGTERM: they roll back, they do not break off."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def __call__(self) -> Ending | None:
        from secure_pipeline.canary.story import Ending

        return Ending("interrupted", f"stopped by {self.signal}") if self.signal else None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self.signal = signal.Signals(number).name


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop.note) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _show(output: Output, ended: Promoted) -> ExitCode:
    from secure_pipeline.cli._verified import show_one
    from secure_pipeline.report.promotion_json import record_document
    from secure_pipeline.report.promotion_text import summary_lines

    if ended.record is None:
        assert ended.refused is not None
        code = show_one(output, ended.image, ended.refused)
        output.text("nothing was moved: only what verifies is promoted")
        return code
    for line in summary_lines(ended.record):
        output.text(line)
    output.text(f"report {ended.folder}/report.html")
    if ended.unsigned:
        output.warn(f"the verdict is not signed and attached: {ended.unsigned}")
        output.warn("type the same again: that is all it will do")
    output.line("Promotion", {**record_document(ended.record), "exitCode": int(ended.code)})
    return ended.code


def _render(output: Output, what: str, target: Target) -> ExitCode:
    from secure_pipeline.canary.render import RENDERERS

    if what not in RENDERERS:
        raise UsageError(
            f"{what[:80]!r} is no controller", hint=f"--render {' or '.join(sorted(RENDERERS))}"
        )
    text = RENDERERS[what](target)
    output.text(text.rstrip("\n"))
    output.document("Rendered", {"controller": what, "manifest": text})
    return ExitCode.PASS
