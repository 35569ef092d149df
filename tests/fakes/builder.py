"""A builder that makes a real image from COPY-less Dockerfiles without any tool.

It passes the contract of tests/contracts/builder.py: RUN is not executed, only recorded, and
``RUN false`` fails.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from secure_pipeline.dockerfile.images import Kind, image_uses, target_stage
from secure_pipeline.dockerfile.parser import load
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.oci.image import LAYER_TYPE, LayerWriter, choose, store_file, write_image
from secure_pipeline.oci.layout import Layout
from secure_pipeline.ports import (
    BaseImage,
    BuildFailed,
    BuildOutcome,
    BuildRequest,
    BuildStep,
    ToolIdentity,
)


class FakeBuilder:
    """Implements ports.Builder."""

    def __init__(self, work: Path) -> None:
        self.requests: list[BuildRequest] = []
        self._work = work
        self._seen: set[str] = set()

    def build(self, request: BuildRequest, on_event: OnEvent) -> BuildOutcome:
        self.requests.append(request)
        name = request.dockerfile_name or request.dockerfile.name
        dockerfile = load(request.dockerfile, name)
        stage = target_stage(dockerfile, request.target)
        steps: list[BuildStep] = []
        for item in stage.instructions:
            on_event(Progress("build", item.text))
            if item.text == "RUN false":
                raise BuildFailed(
                    f"step {item.text!r}: exit status 1",
                    where=f"{name}:{item.line}",
                    steps=tuple(steps),
                    log=b"STEP RUN false\nit failed\n",
                )
            steps.append(BuildStep(item.text, item.line, item.text in self._seen, 0.25))
        self._seen |= {step.text for step in steps}
        layout = Layout.create(request.output)
        bases = [
            BaseImage(
                use.reference, str(choose(Layout.open(path), "linux/amd64").descriptor.digest)
            )
            for use in image_uses(dockerfile, request.args, request.bases)
            if use.kind is Kind.BASE and (path := request.bases[use.reference])
        ]
        writer = LayerWriter(self._work)
        writer.write(_tar("\n".join(step.text for step in steps), request.source_date_epoch))
        diff_id = writer.close()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        }
        layer = store_file(layout, writer.path, LAYER_TYPE, None)
        descriptor = write_image(layout, json.dumps(config).encode(), [layer])
        layout.add_manifest(descriptor)
        return BuildOutcome(
            tool=ToolIdentity("fake", "1.0", "sha256:" + "f" * 64),
            digest=str(descriptor.digest),
            media_type=descriptor.media_type,
            size=descriptor.size + layer.size,
            bases=tuple(dict.fromkeys(bases)),
            steps=tuple(steps),
            log=b"built\n",
        )


def _tar(text: str, time: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("steps")
        info.size = len(text.encode())
        info.mtime = time
        archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
