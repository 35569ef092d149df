"""What every Builder does: run by the fake's unit tests and by the real builders' tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from secure_pipeline.config import Network
from secure_pipeline.errors import ConfigError
from secure_pipeline.events import ignore
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE
from secure_pipeline.oci.walk import check_image
from secure_pipeline.ports import Builder, BuildFailed, BuildRequest

EPOCH = 1_700_000_000


def request(
    directory: Path,
    dockerfile: str,
    bases: Mapping[str, Path] | None = None,
    output: Path | None = None,
    **more: Any,
) -> BuildRequest:
    """A request for a Dockerfile in ``directory``/context."""
    context = directory / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    values: dict[str, Any] = {
        "context": context,
        "dockerfile": context / "Dockerfile",
        "target": None,
        "platforms": (),
        "args": {},
        "secrets": (),
        "secret_values": {},
        "bases": bases or {},
        "network": Network.NONE,
        "source_date_epoch": EPOCH,
        "timeout": timedelta(minutes=5),
        "output": output or directory / "output",
        "name": "test/app",
    }
    return BuildRequest(**{**values, **more})


class BuilderContract:
    """Subclasses give the fixtures ``builder`` and ``bases`` (with 'debian-base')."""

    def test_the_image_is_in_the_layout_by_its_digest(
        self, builder: Builder, bases: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """The digest that is returned names a whole image in the output layout."""
        asked = request(tmp_path, "FROM debian-base\nRUN echo one\n", bases)
        outcome = builder.build(asked, ignore)
        checked = check_image(Layout.open(asked.output), Digest.parse(outcome.digest))
        assert checked.descriptor.media_type == outcome.media_type == MANIFEST_TYPE
        assert 0 < outcome.size <= checked.total
        assert [base.name for base in outcome.bases] == ["debian-base"]
        assert Digest.parse(outcome.bases[0].digest) in {
            item.digest for item in Layout.open(bases["debian-base"]).manifests()
        }

    def test_a_second_build_gives_the_same_digest_from_the_cache(
        self, builder: Builder, bases: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """Unchanged inputs give the same digest, with every step cached."""
        asked = request(tmp_path, "FROM debian-base\nRUN echo two\nUSER 1000\n", bases)
        first, second = builder.build(asked, ignore), builder.build(asked, ignore)
        assert first.digest == second.digest
        assert not all(step.cached for step in first.steps)
        assert all(step.cached for step in second.steps)
        assert [step.line for step in second.steps][:2] == [1, 2]

    def test_what_the_layout_held_before_stays(
        self, builder: Builder, bases: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """Another image in the output layout is neither lost nor altered."""
        first = builder.build(request(tmp_path, "FROM debian-base\nRUN echo a\n", bases), ignore)
        asked = request(tmp_path, "FROM debian-base\nRUN echo b > /b\n", bases)
        second = builder.build(asked, ignore)
        layout = Layout.open(asked.output)
        assert first.digest != second.digest
        for outcome in (first, second):
            check_image(layout, Digest.parse(outcome.digest))

    def test_a_failing_step_names_its_line(
        self, builder: Builder, bases: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """The error has the Dockerfile's name and line, the steps before it, and the log."""
        text = "FROM debian-base AS x\n\n# a comment\nRUN echo fine\n\nRUN false\n"
        asked = request(tmp_path, text, bases, dockerfile_name="docker/Dockerfile")
        with pytest.raises(BuildFailed) as caught:
            builder.build(asked, ignore)
        assert caught.value.where == "docker/Dockerfile:6"
        assert caught.value.exit_code == 10
        assert [step.line for step in caught.value.steps] == [1, 4]
        assert b"RUN false" in caught.value.log
        index = asked.output / "index.json"
        assert not index.exists() or not Layout.open(asked.output).manifests()

    def test_an_unknown_target_is_refused(
        self, builder: Builder, bases: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """A target that no stage has is a configuration error."""
        with pytest.raises(ConfigError, match="no stage is called"):
            builder.build(request(tmp_path, "FROM debian-base\n", bases, target="nope"), ignore)
