"""Rule packs of static analysis: which files a name means, and exactly what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline.data import data_path
from secure_pipeline.documents import MAX_BYTES, Node, parse_yaml
from secure_pipeline.errors import ConfigError
from secure_pipeline.files import digest_of, read_bounded, sha256_bytes

BUILTIN = ("python", "dockerfile", "github-actions", "tekton")
MAX_FILES = 500
MAX_RULES = 5_000


@dataclass(frozen=True)
class RuleFile:
    """One file of rules, as the bytes that will be used."""

    source: Path
    content: bytes


@dataclass(frozen=True)
class RuleSet:
    """All rules of one analysis."""

    files: tuple[RuleFile, ...]
    ids: tuple[str, ...]
    """Rule ids, each once."""
    everywhere: frozenset[str]
    """Languages with a rule that is not restricted to certain paths."""
    languages: frozenset[str]

    @property
    def digest(self) -> str:
        """``sha256:…`` over the contents of all files, whatever their names and order."""
        contents = sorted(sha256_bytes(file.content) for file in self.files)
        return f"sha256:{digest_of({'files': contents})}"


def resolve_packs(names: Iterable[str], root: Path) -> tuple[Path, ...]:
    """Return the rule files that ``builtin:NAME`` and paths below ``root`` stand for.

    ``root`` is the repository, or the directory of the policy that names the packs.
    Raises: ConfigError for an unknown pack, a path that is missing or leaves ``root``, and
    anything that would be fetched from a network.
    """
    files: dict[Path, None] = {}
    for name in names:
        prefix, _, pack = name.partition("builtin:")
        found = _builtin(pack) if not prefix and pack else _in_tree(name, root)
        files.update(dict.fromkeys(found))
    return tuple(files)


def load_rules(paths: Iterable[Path]) -> RuleSet:
    """Read and check rule files.

    Raises: ConfigError (file:line) for no rule at all, a file that is not strict YAML with a
    list ``rules``, a rule without an id, or an id that occurs twice.
    """
    files: list[RuleFile] = []
    nodes: dict[str, Node] = {}
    for path in paths:
        content = read_bounded(path, MAX_BYTES)
        files.append(RuleFile(path, content))
        for rule in _rules(parse_yaml(content, str(path))):
            name = _text(rule, "id")
            if name in nodes:
                rule.fail(f"rule {name!r} is defined twice; first at {nodes[name].where}")
            nodes[name] = rule
    if not nodes or len(nodes) > MAX_RULES:
        raise ConfigError(
            f"{len(nodes)} rules; from 1 to {MAX_RULES} are needed",
            hint="name a pack under 'analyze.rules', such as builtin:all",
        )
    free = [rule for rule in nodes.values() if "paths" not in rule.value]
    return RuleSet(
        files=tuple(files),
        ids=tuple(nodes),
        everywhere=frozenset(word for rule in free for word in _languages(rule)),
        languages=frozenset(word for rule in nodes.values() for word in _languages(rule)),
    )


def _builtin(pack: str) -> list[Path]:
    if pack != "all" and pack not in BUILTIN:
        raise ConfigError(
            f"no rule pack 'builtin:{pack}'",
            hint=f"there are builtin:all, {', '.join(f'builtin:{name}' for name in BUILTIN)}",
        )
    directory = data_path("policies") / "semgrep"
    return [directory / f"{name}.yaml" for name in BUILTIN if pack in ("all", name)]


def _in_tree(name: str, root: Path) -> list[Path]:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.exists():
        raise ConfigError(
            f"no rules at {name!r} in {root}",
            hint="give builtin:NAME or a path below that directory; nothing is fetched",
        )
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())
    if not files or len(files) > MAX_FILES:
        raise ConfigError(f"{len(files)} rule files; from 1 to {MAX_FILES} are needed", where=name)
    return [_contained(file, root) for file in files]


def _contained(file: Path, root: Path) -> Path:
    if not file.resolve().is_relative_to(root.resolve()):
        raise ConfigError("a link that leaves the directory", where=str(file))
    return file


def _rules(document: Node) -> Iterator[Node]:
    rules = document.value.get("rules") if isinstance(document.value, dict) else None
    if rules is None or not isinstance(rules.value, list):
        document.fail("a list 'rules' is needed here")
    for rule in rules.value:
        if not isinstance(rule.value, dict):
            rule.fail("a rule is a mapping")
        yield rule


def _text(rule: Node, key: str) -> str:
    node = rule.value.get(key)
    if node is None or not isinstance(node.value, str) or not node.value:
        rule.fail(f"a rule needs '{key}'")
    return str(node.value)


def _languages(rule: Node) -> list[str]:
    node = rule.value.get("languages")
    if node is None or not isinstance(node.value, list):
        rule.fail("a rule needs 'languages'")
    return [str(item.value).lower() for item in node.value]
