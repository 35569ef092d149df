"""The overlays of tekton/, built by the real kustomize."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.pipelines import overlay
from fakes.workplace import ROOT

pytestmark = pytest.mark.integration
TEKTON = ROOT / "tekton"


def objects(path: Path) -> list[tuple[str, str]]:
    """Kind and name of what stands in a file."""
    return [(o["kind"], o["metadata"]["name"]) for o in yaml.safe_load_all(path.read_text())]


@pytest.fixture(scope="module")
def built() -> dict[str, list[tuple[str, str]]]:
    """Directory with a kustomization of its own kind to the objects that come of it."""
    found = {}
    for path in sorted(TEKTON.rglob("kustomization.yaml")):
        if yaml.safe_load(path.read_text())["kind"] == "Kustomization":
            made = overlay(path.parent)
            name = path.parent.relative_to(TEKTON).as_posix()
            found[name] = [(o["kind"], o["metadata"]["name"]) for o in made]
    return found


def test_kustomize_builds_every_overlay(built: dict[str, list[tuple[str, str]]]) -> None:
    """Each builds without a warning, has something in it, and nothing twice."""
    assert {".", "overlays/dev", "overlays/production"} <= set(built)
    for name, made in built.items():
        assert made, name
        assert len(set(made)) == len(made), name


def test_no_file_is_left_out(built: dict[str, list[tuple[str, str]]]) -> None:
    """Whatever is rendered is in some overlay, but the runs, which somebody starts."""
    for path in sorted(TEKTON.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and path.parent.name != "runs":
            made = set(objects(path))
            assert any(made <= set(overlay) for overlay in built.values()), path


def test_an_overlay_has_all_of_the_base(built: dict[str, list[tuple[str, str]]]) -> None:
    """Production and dev change the base and leave nothing out."""
    base = set(built["."])
    for name in ("overlays/dev", "overlays/production"):
        assert base <= set(built[name]), name


def test_production_is_in_one_namespace_and_dev_builds() -> None:
    """What the overlays are for: the namespace everywhere, and the one patch of the builder."""
    made = list(overlay(TEKTON / "overlays/production"))
    assert {o["metadata"]["namespace"] for o in made} == {"secure-pipeline"}
    (binding,) = (o for o in made if o["kind"] == "RoleBinding")
    assert binding["subjects"][0]["namespace"] == "secure-pipeline"
    privileged = {
        o["metadata"]["name"]
        for o in overlay(TEKTON / "overlays/dev")
        if o["kind"] == "Task"
        and o["spec"]["steps"][0]["securityContext"].get("privileged") is True
    }
    assert privileged == {"build"}
