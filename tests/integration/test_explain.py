"""``secure-pipeline explain`` on what a real run left, as people start it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.htmlpage import read_page
from fakes.workplace import Workplace

pytestmark = pytest.mark.integration


def test_a_released_image_is_explained(released: Workplace, tmp_path: Path) -> None:
    """Text, page and document of a real run say allowed, and tell what each tool found."""
    page = tmp_path / "why.html"
    ended = released.run("explain", "--html", str(page), "--json")
    assert ended.code == 0, ended.text
    assert ended.err.startswith("ALLOWED by policy release.yaml (sha256:")
    assert "\x1b" not in ended.err
    assert f"wrote {page}" in ended.err
    document = ended.document
    assert (document["kind"], document["outcome"], document["exitCode"]) == (
        "Explanation",
        "allow",
        0,
    )
    nodes = {node["id"]: node for node in document["nodes"]}
    after = {"summary", "approvals", "canary"}
    assert {name: node["state"] for name, node in nodes.items()} == {
        name: "not yet" if name in after else "holds" for name in nodes
    }
    assert "passed, 0 failed" in nodes["test"]["summary"]
    assert "buildah" in nodes["build"]["summary"]
    assert "components (CycloneDX)" in nodes["sbom"]["summary"]
    facts = {fact["label"]: fact["value"] for fact in nodes["build"]["facts"]}
    assert facts["base image"].startswith("debian-base@sha256:")
    edges = [edge for edge in document["edges"] if edge["to"] not in after]
    assert len(edges) == 14
    assert all(edge["holds"] for edge in edges)
    read = read_page(page.read_bytes())
    assert "Allowed" in read.text
    assert released.image() in read.text


def test_verify_and_explain_end_alike(copy_of_released: Workplace) -> None:
    """Same rules and code as verify, on the image, on its layout, and after tampering."""
    layout = copy_of_released.state / "image"
    for words in ((), ("layout", str(layout))):
        _alike(copy_of_released, words, 0)
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    _alike(copy_of_released, (), 11)
    ended = copy_of_released.run("explain")
    assert ended.out.startswith("DENIED by policy release.yaml")
    assert "✗ Image" in ended.out


def test_no_key_no_fact(copy_of_released: Workplace) -> None:
    """Under the built-in policy, which trusts nobody, all evidence of the run is only claims."""
    ended = copy_of_released.run("explain", "--json", SECURE_PIPELINE_POLICY="")
    assert ended.code == 12, ended.text
    document = ended.document
    assert document["claimsNotProven"]["total"] == 9
    assert document["statements"]["total"] == 0
    assert "passed" not in json.dumps(document["nodes"])


def test_words_that_make_no_sense(copy_of_released: Workplace, tmp_path: Path) -> None:
    """Two images, a tag and a page that cannot be written are refused with what to type."""
    image = f"inference-service@{copy_of_released.image()}"
    two = copy_of_released.run("explain", image, image)
    assert (two.code, two.out) == (2, "")
    assert "hint: secure-pipeline explain IMAGE" in two.err
    tag = copy_of_released.run("explain", "inference-service:latest")
    assert tag.code == 2
    assert "tag" in tag.err
    unwritable = copy_of_released.run("explain", "--html", str(tmp_path))
    assert unwritable.code == 4
    assert "cannot write" in unwritable.err


def _alike(workplace: Workplace, words: tuple[str, ...], code: int) -> None:
    verified = workplace.run("verify", *words, "--json")
    explained = workplace.run("explain", *words, "--json")
    assert verified.code == explained.code == code, explained.text
    rules = explained.document["rules"]
    assert rules["total"] == len(verified.document["decision"])
    # the rule "time" says when it was checked
    ours = sorted(rule["why"] for rule in rules["items"] if rule["rule"] != "time")
    theirs = sorted(rule["why"] for rule in verified.document["decision"] if rule["rule"] != "time")
    assert ours == theirs
