"""``secure-pipeline plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import JsonOption
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError


def plan(
    render: Annotated[
        str | None, typer.Option("--render", help="Write an engine's definitions: github, tekton.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", help="Directory of the repository to write them in.")
    ] = Path("."),
    check: Annotated[
        bool, typer.Option("--check", help="Compare instead; exit 10 if a file differs.")
    ] = False,
    toolkit: Annotated[
        str | None,
        typer.Option(
            "--toolkit",
            help="OWNER/NAME@COMMIT whose actions are used, for a repository without its own.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", help="HOST/NAME@sha256:DIGEST that Tekton runs the steps in."),
    ] = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Show the stages with what they read, write, may do and need; or write an engine's files."""
    from secure_pipeline.plan.files import differing, write
    from secure_pipeline.plan.model import the_plan
    from secure_pipeline.report import plan_text
    from secure_pipeline.wiring import rendering

    out = Output(as_json=as_json)
    the = the_plan()
    if render is None:
        if check or toolkit or image:
            raise UsageError("nothing is rendered", hint="secure-pipeline plan --render github")
        for line in plan_text.lines(the):
            out.text(line)
        out.document("Plan", plan_text.document(the))
        return ExitCode.PASS
    files = rendering.render(render, the, toolkit, image)
    if not check:
        written = write(files, output)
        for name in written:
            out.text(f"wrote {name}")
        if not written:
            out.text(f"{len(files)} files were what the plan renders")
        out.document("Rendered", {"engine": render, "files": sorted(files)})
        return ExitCode.PASS
    differ = differing(files, output)
    for name in differ:
        out.text(f"{name} is not what the plan renders")
    if not differ:
        out.text(f"{len(files)} files are what the plan renders")
    out.document("Compared", {"engine": render, "files": sorted(files), "differ": differ})
    return ExitCode.FINDINGS if differ else ExitCode.PASS
