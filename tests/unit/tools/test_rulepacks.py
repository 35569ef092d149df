"""Names of rule packs, and the rules in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from secure_pipeline.documents import parse_yaml
from secure_pipeline.errors import ConfigError
from secure_pipeline.tools.rulepacks import BUILTIN, load_rules, resolve_packs

RULE = "rules:\n  - {id: %s, languages: [python], severity: LOW, message: m, pattern: x}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("pack", BUILTIN)
def test_rules_of_this_program_say_what_to_do_and_why(pack: str, tmp_path: Path) -> None:
    """Each rule has a severity, a message of a sentence, a CWE and a page to read."""
    for path in resolve_packs([f"builtin:{pack}"], tmp_path):
        rules = parse_yaml(path.read_bytes(), str(path)).value["rules"].value
        assert 8 <= len(rules) <= 20
        for rule in (r.value for r in rules):
            name = rule["id"].value
            assert name.startswith(pack), name
            assert rule["severity"].value in ("LOW", "MEDIUM", "HIGH", "CRITICAL"), name
            assert 30 <= len(rule["message"].value) <= 300, name
            metadata = rule["metadata"].value
            assert metadata["cwe"].value.startswith("CWE-"), name
            assert metadata["references"].value[0].value.startswith("https://"), name


def test_all_is_every_pack_once(tmp_path: Path) -> None:
    """Naming a pack twice runs it once."""
    every = resolve_packs(["builtin:all", "builtin:python"], tmp_path)
    assert [path.stem for path in every] == list(BUILTIN)


def test_a_path_of_the_repository_is_a_file_or_its_directory(tmp_path: Path) -> None:
    """Rule files below a directory are found, in a stable order."""
    b, a = (write(tmp_path / "rules" / f"{n}.yaml", RULE % n) for n in "ba")
    write(tmp_path / "rules" / "README.md", "no rules")
    assert resolve_packs(["rules"], tmp_path) == (a, b)
    assert resolve_packs(["rules/b.yaml"], tmp_path) == (b,)


@pytest.mark.parametrize(
    "name",
    ["builtin:pyhton", "p/python", "auto", "https://semgrep.dev/p/x", "../rules", "/etc", "empty"],
)
def test_packs_from_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    """A registry, an address, a path outside and an unknown pack are errors with a hint."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        resolve_packs([name], tmp_path)


def test_a_linked_rule_file_that_leaves_is_refused(tmp_path: Path) -> None:
    """A link in a directory of rules does not reach files outside the repository."""
    outside = write(tmp_path / "outside.yaml", RULE % "x")
    root = tmp_path / "repository"
    (root / "rules").mkdir(parents=True)
    (root / "rules" / "x.yaml").symlink_to(outside)
    with pytest.raises(ConfigError, match="leaves"):
        resolve_packs(["rules"], root)


def test_the_digest_is_of_the_contents(tmp_path: Path) -> None:
    """Names and order do not matter; a changed byte does."""
    a, b = write(tmp_path / "a.yaml", RULE % "a"), write(tmp_path / "b.yaml", RULE % "b")
    c = write(tmp_path / "c.yaml", RULE % "a")
    assert load_rules([a, b]).digest == load_rules([b, c]).digest
    c.write_text(RULE % "a" + "\n")
    assert load_rules([a, b]).digest != load_rules([b, c]).digest
    assert load_rules([a, b]).ids == ("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rules: []\n",
        "rules: x\n",
        "- a\n",
        "rules: [x]\n",
        "rules: [{languages: [python]}]\n",
        "rules: [{id: a}]\n",
        "rules: [{id: &a x, languages: [python]}]\n",
        RULE % "a" + "  - {id: a, languages: [python]}\n",
        "rules: [{id: a, languages: [python]}]\nrules: []\n",
    ],
)
def test_broken_rules_are_refused(text: str, tmp_path: Path) -> None:
    """Empty, doubled and shapeless rule files are configuration errors."""
    with pytest.raises(ConfigError):
        load_rules([write(tmp_path / "r.yaml", text)])
