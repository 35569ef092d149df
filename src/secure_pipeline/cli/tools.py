"""``secure-pipeline tools``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._options import JsonOption
from secure_pipeline.cli._output import Output, print_error
from secure_pipeline.errors import ExitCode, PipelineError, UsageError

if TYPE_CHECKING:
    from secure_pipeline.tools.locate import LocatedTool
    from secure_pipeline.tools.pins import Pin

app = typer.Typer(help="Pinned third-party programs: list, install, verify.", no_args_is_help=True)
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of tools.")]


@app.command("list")
def list_tools(as_json: JsonOption = False) -> ExitCode:
    """Show every pinned tool, where it was found, or what to type."""
    from secure_pipeline.tools.pins import load_pins
    from secure_pipeline.wiring import locate_tool

    output = Output(as_json=as_json)
    entries = []
    for pin in load_pins().tools.values():
        try:
            entry = _entry(pin, locate_tool(pin.name))
            output.text(f"{pin.name:11} {entry['found']:10} {entry['path']}")
        except PipelineError as error:
            entry = _entry(pin, error=error)
            output.text(f"{pin.name:11} {'-':10} {error}; {error.hint}")
        entries.append(entry)
    output.document("ToolList", {"tools": entries})
    return ExitCode.PASS


@app.command()
def install(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="All that can be installed.")] = False,
    source: Annotated[
        str | None, typer.Option("--from", help="Only from: release, go or python.")
    ] = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Install pinned tools into the tool store; nothing is changed elsewhere."""
    from secure_pipeline.events import Event, Progress
    from secure_pipeline.wiring import tool_installer

    output = Output(as_json=as_json)

    def show(event: Event) -> None:
        if isinstance(event, Progress) and not event.detail:
            output.text(f"{event.stage}: {event.message}")

    installer = tool_installer(show)
    pins = installer.pins.tools
    if every == bool(names):
        raise UsageError("name the tools to install, or give --all", hint=f"one of: {_all(pins)}")
    chosen = names or [name for name, pin in pins.items() if not pin.system]
    entries = []
    for pin in [installer.pins[name] for name in chosen]:
        tool = installer.install(pin.name, source)
        output.text(f"{tool.name} {tool.version} {tool.digest} {tool.path}")
        entries.append(_entry(pin, tool))
    output.document("ToolInstall", {"tools": entries})
    return ExitCode.PASS


@app.command()
def verify(names: Names = None, as_json: JsonOption = False) -> ExitCode:
    """Check version and digest of tools; without names, of all that a run needs."""
    from secure_pipeline.tools.locate import check_version, read_version
    from secure_pipeline.tools.pins import load_pins
    from secure_pipeline.wiring import locate_tool, processes

    output = Output(as_json=as_json)
    pins = load_pins()
    chosen = names or [name for name, pin in pins.tools.items() if not pin.optional]
    entries = []
    for pin in [pins[name] for name in chosen]:
        try:
            tool = locate_tool(pin.name)
            check_version(pin, read_version(pin, tool.path, processes()), tool.path)
            output.text(f"ok       {tool.name} {tool.version} {tool.digest} {tool.path}")
            entries.append(_entry(pin, tool))
        except PipelineError as error:
            output.text(f"refused  {pin.name}")
            print_error(error)
            entries.append(_entry(pin, error=error))
    failed = any(entry["error"] for entry in entries)
    output.document("ToolVerify", {"verified": not failed, "tools": entries})
    return ExitCode.UNAVAILABLE if failed else ExitCode.PASS


def _entry(
    pin: Pin, tool: LocatedTool | None = None, error: PipelineError | None = None
) -> dict[str, Any]:
    return {
        "name": pin.name,
        "purpose": pin.purpose,
        "pinned": f">= {pin.version}" if pin.system else pin.version,
        "optional": pin.optional,
        "found": tool.version if tool else None,
        "digest": tool.digest if tool else None,
        "path": str(tool.path) if tool else None,
        "error": str(error) if error else None,
        "hint": error.hint if error else None,
    }


def _all(pins: Any) -> str:
    return ", ".join(name for name, pin in pins.items() if not pin.system)
