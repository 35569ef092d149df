"""``secure-pipeline state``: a run as one file, to go on in another place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._engine import OutputsOption, add_outputs
from secure_pipeline.cli._options import ConfigOption, JsonOption, RunOption, StateOption
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError

app = typer.Typer(help="A run as one file, to go on in another place.", no_args_is_help=True)


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write.")],
    config: ConfigOption = None,
    state: StateOption = None,
    run: RunOption = None,
    outputs: OutputsOption = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results", help="What a stage wrote with --results: where the image is now."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Write results, reports and image of a run to a file; print the file's digest."""
    from secure_pipeline import handover
    from secure_pipeline.wiring import open_state
    from secure_pipeline.wiring.options import Options

    opened = open_state(Options(config=config, state=state, run=run))
    image = _image(results) if results else opened.image or ""
    digest = str(handover.pack(opened.place, opened.run.id, file))
    output = Output(as_json=as_json)
    output.text(f"{file}: {digest}")
    if outputs:
        add_outputs(outputs, {"state": digest, "image": image})
    output.document("State", {"run": opened.run.id, "digest": digest, "image": image or None})
    return ExitCode.PASS


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive of 'state pack'.")],
    digest: Annotated[
        str, typer.Option("--digest", help="sha256:… that 'state pack' printed for it.")
    ],
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Add a packed run to the state directory; refuse one that is not the one packed."""
    from secure_pipeline import handover
    from secure_pipeline.oci.digest import Digest
    from secure_pipeline.wiring import open_place
    from secure_pipeline.wiring.options import Options

    if not digest:
        raise UsageError("no digest is given", hint="--digest sha256:…, as 'state pack' printed it")
    place = open_place(Options(config=config, state=state))
    number = handover.unpack(place, file, Digest.parse(digest))
    output = Output(as_json=as_json)
    output.text(f"{file}: {number} files")
    output.document("State", {"files": number, "digest": digest})
    return ExitCode.PASS


def _image(results: Path) -> str:
    from secure_pipeline.files import read_bounded
    from secure_pipeline.oci.reference import ImageReference

    parts = [read_bounded(results / name, 1024) for name in ("IMAGE_URL", "IMAGE_DIGEST")]
    return str(ImageReference.parse(b"@".join(parts).decode(errors="replace")))
