"""Stages in places of their own are one run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fakes.workplace import Workplace
from secure_pipeline.plan.model import the_plan

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("released")]


def test_stages_in_copies_end_verified(workplace: Workplace, tmp_path: Path) -> None:
    """Each stage in its own checkout, with only what it needs handed over: the image verifies."""
    packed: dict[str, tuple[Path, str]] = {}
    for stage in the_plan().stages:
        if stage.name == "promote":
            continue
        root = tmp_path / stage.name / "service"
        shutil.copytree(workplace.root, root)
        (root.parent / "bases").symlink_to((workplace.root.parent / "bases").resolve())
        place = Workplace(root, {**workplace.environment, "SECURE_PIPELINE_RUN": "apart-1"})
        for need in stage.needs:
            file, digest = packed[need]
            ended = place.run("state", "unpack", str(file), "--digest", digest)
            assert ended.code == 0, ended.text
        ended = place.run(*stage.command[1:])
        assert ended.code == 0, (stage.name, ended.text)
        file = tmp_path / f"{stage.name}.tar"
        ended = place.run("state", "pack", str(file), "--json")
        assert ended.code == 0, ended.text
        packed[stage.name] = file, ended.document["digest"]
    assert "apart-1" in ended.out
