"""The command tree, and the one handler that turns every end into an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from secure_pipeline import __version__
from secure_pipeline.cli import (
    analyze,
    audit,
    base,
    build,
    copy,
    doctor,
    explain,
    fetch,
    hand_over,
    init,
    interop,
    keys,
    plan,
    policy,
    promote,
    quarantine,
    report,
    resign,
    run,
    scan,
    sign,
    state,
    summary,
    test,
    tools,
    vault,
    verify,
)
from secure_pipeline.cli._output import print_error
from secure_pipeline.errors import ExitCode, PipelineError

app = typer.Typer(
    name="secure-pipeline",
    help="From a repository to a verified image, with proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def _version(value: bool) -> None:
    if value:
        print(f"secure-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of the program itself."""


for command in (
    init.init,
    doctor.doctor,
    plan.plan,
    fetch.fetch,
    run.run,
    analyze.analyze,
    test.test,
    build.build,
    scan.scan,
    sign.sign,
    resign.resign,
    verify.verify,
    explain.explain,
    interop.interop,
    copy.copy,
    promote.promote,
    hand_over.hand_over,
    report.report,
    summary.summary,
):
    app.command()(command)
app.add_typer(tools.app, name="tools")
app.add_typer(base.app, name="base")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(state.app, name="state")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(vault.app, name="vault")
app.add_typer(policy.app, name="policy")


def main() -> None:
    """Run the program and exit; whatever goes wrong is never exit code 0 (SIG-26)."""
    debug = "--debug" in sys.argv[1:]
    _show_any_text()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()
        code = _exit_code(result)
        if code is ExitCode.INTERRUPTED:
            print("interrupted", file=sys.stderr)
    except PipelineError as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        code = error.exit_code
    except typer.TyperException as error:
        code = _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.UNAVAILABLE
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: this is a bug: {type(error).__name__}: {error}", file=sys.stderr)
        print("hint: run again with --debug and report the traceback", file=sys.stderr)
        code = ExitCode.BUG
    sys.exit(int(code))


def _show_any_text() -> None:
    """Escape what the locale cannot show instead of failing on it (CLI-01)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _exit_code(result: object) -> ExitCode:
    """A command returns its ExitCode; one that forgets is a bug, not a success."""
    if isinstance(result, int) and not isinstance(result, bool):
        return ExitCode(result)
    print("error: this is a bug: the command gave no exit code", file=sys.stderr)
    return ExitCode.BUG


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _usage(error: typer.TyperException) -> ExitCode:
    print(f"error: {error.format_message()}", file=sys.stderr)
    print("hint: see 'secure-pipeline --help'", file=sys.stderr)
    return ExitCode.USAGE
