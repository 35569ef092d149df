"""The import directions and rules 2 and 3 of the design, read from the source by ast.

Each rule is shown twice: it holds for the program, and it sees a small tree that breaks it.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "secure_pipeline"


def _names(text: str) -> list[str]:
    return text.split()


ABOVE = ("cli", "wiring", "run")
BELOW_STAGES = _names(
    "policy attestations oci interop dockerfile audit canary findings config documents events ports"
    " shape strictjson globs result"
)
NEVER_REACHES = {
    "wiring": ("cli",),
    "report": ("cli", "wiring", "adapters", "tools"),
    "run": ("cli", "wiring", "adapters", "tools"),
    "stages": (*ABOVE, "adapters", "tools"),
    **{layer: (*ABOVE, "adapters", "tools", "stages") for layer in BELOW_STAGES},
    **{layer: (*ABOVE, "stages") for layer in ("adapters", "tools", "keys")},
}
"""Layer to the layers that none of its modules may import, not even through others."""
FOUNDATION = ("errors", "files")
"""Import nothing of ours but each other."""

SPAWNS = _names(
    "subprocess multiprocessing pty concurrent.futures.ProcessPoolExecutor os.fork os.forkpty"
    " os.system os.popen os.posix_spawn os.posix_spawnp asyncio.create_subprocess_exec"
    " asyncio.create_subprocess_shell"
) + [
    f"os.{verb}{suffix}"
    for verb in ("spawn", "exec")
    for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
]
SOCKETS = _names(
    "socket socketserver ssl http requests httpx urllib3 urllib.request ftplib smtplib imaplib"
    " poplib telnetlib xmlrpc websockets docker hvac asyncio.open_connection asyncio.start_server"
)
ENVIRONMENT = _names(
    "os.environ os.environb os.getenv os.getenvb os.path.expandvars os.path.expanduser"
    " pathlib.Path.home"
)
TIME = _names(
    "time.time time.time_ns datetime.datetime.now datetime.datetime.utcnow"
    " datetime.datetime.today datetime.date.today"
)
DYNAMIC = _names("importlib.import_module __import__ builtins.__import__")
PRINTS = _names("print builtins.print sys.stdout sys.stderr sys.__stdout__ sys.__stderr__")


@dataclass
class Module:
    """What one file imports and uses; names are complete, as in ``os.path.join``."""

    name: str
    path: Path
    imports: dict[str, int] = field(default_factory=dict)
    """Module or member to the line of its first import."""
    uses: list[tuple[str, int]] = field(default_factory=list)
    """Every name that is read, resolved through the imports."""
    inner_imports: list[int] = field(default_factory=list)
    """Lines of imports inside functions."""

    @property
    def layer(self) -> str:
        """The part of the program: the first name below the package.

        stages.result holds the types that stages give back, and is below what uses them; the
        package's own __init__ runs before it, so it is there too.
        """
        own = self.name.removeprefix(f"{PACKAGE}.")
        return "result" if own in ("stages", "stages.result") else own.split(".")[0]


class _Reader(ast.NodeVisitor):
    def __init__(self, module: Module) -> None:
        self.module = module
        self.names: dict[str, str] = {}
        self.depth = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            self._imported(alias.name, bound, alias.name if alias.asname else bound, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            package = self.module.name.split(".")
            if self.module.path.name != "__init__.py":
                package.pop()
            package = package[: len(package) - node.level + 1]
            base = ".".join([*package, *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            self._imported(full, alias.asname or alias.name, full, node)

    def _imported(self, target: str, bound: str, means: str, node: ast.stmt) -> None:
        self.module.imports.setdefault(target, node.lineno)
        self.module.uses.append((target, node.lineno))
        self.names[bound] = means
        if self.depth:
            self.module.inner_imports.append(node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        full = self._full(node)
        if full:
            self.module.uses.append((full, node.lineno))
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        # a field or an argument that is called ``socket`` opens none
        known = node.id in self.names or hasattr(builtins, node.id)
        if isinstance(node.ctx, ast.Load) and known:
            self.module.uses.append((self.names.get(node.id, node.id), node.lineno))

    def _full(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (base := self._full(node.value)):
            return f"{base}.{node.attr}"
        return None


def read(source: Path) -> dict[str, Module]:
    """Read all modules of the package below ``source``."""
    modules = {}
    for path in sorted((source / PACKAGE).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
        _Reader(modules[name]).visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return modules


def edges(modules: dict[str, Module], name: str) -> dict[str, int]:
    """The modules of ours that an import of this one runs, with the line.

    Importing a.b.c runs the __init__ of a and of a.b too.
    """
    found: dict[str, int] = {}
    for target, line in modules[name].imports.items():
        candidate = target if target in modules else target.rpartition(".")[0]
        while candidate in modules and candidate != PACKAGE:
            if not f"{name}.".startswith(f"{candidate}."):
                found.setdefault(candidate, line)
            candidate = candidate.rpartition(".")[0]
    return found


def chain(modules: dict[str, Module], start: str, forbidden: tuple[str, ...]) -> str | None:
    """The shortest way from a module to a forbidden layer, one import a line; None if none."""
    ways: dict[str, list[str]] = {start: []}
    queue = [start]
    for name in queue:
        for target, line in edges(modules, name).items():
            if target in ways:
                continue
            ways[target] = [*ways[name], f"{modules[name].path}:{line}: {name} imports {target}"]
            if modules[target].layer in forbidden:
                return "\n".join(ways[target])
            queue.append(target)
    return None


def wrong_directions(modules: dict[str, Module]) -> Iterator[str]:
    """Every chain of imports that leads where its first module may not go."""
    for name, module in modules.items():
        forbidden = NEVER_REACHES.get(module.layer, ())
        if module.layer in FOUNDATION:
            others = {other.layer for other in modules.values()}
            forbidden = tuple(others - {*FOUNDATION, PACKAGE})
        found = chain(modules, name, forbidden)
        if found:
            yield found


def outside(
    modules: dict[str, Module], names: list[str], allowed: tuple[str, ...]
) -> Iterator[str]:
    """Every use of one of ``names`` (or of what is in it) outside the allowed modules."""
    for module in modules.values():
        own = module.name.removeprefix(f"{PACKAGE}.")
        if any(own == place or own.startswith(f"{place}.") for place in allowed):
            continue
        for used, line in module.uses:
            if any(used == name or used.startswith(f"{name}.") for name in names):
                yield f"{module.path}:{line}: {module.name} uses {used}"


def inner_imports(modules: dict[str, Module]) -> Iterator[str]:
    """Imports inside functions, outside cli and wiring."""
    for module in modules.values():
        if module.layer not in ("cli", "wiring"):
            for line in module.inner_imports:
                yield f"{module.path}:{line}: {module.name} imports inside a function"


def rule_imports(modules: dict[str, Module]) -> list[str]:
    return list(wrong_directions(modules))


def rule_processes(modules: dict[str, Module]) -> list[str]:
    return list(outside(modules, SPAWNS, ("tools.process",)))


def rule_sockets(modules: dict[str, Module]) -> list[str]:
    return list(outside(modules, SOCKETS, ("adapters",)))


def rule_environment(modules: dict[str, Module]) -> list[str]:
    return [
        found
        for found in outside(modules, ENVIRONMENT, ("wiring",))
        if not _reads_no_color(found, modules)
    ]


def _reads_no_color(found: str, modules: dict[str, Module]) -> bool:
    """The one variable that cli/_output may read by itself."""
    module = modules.get(f"{PACKAGE}.cli._output")
    if module is None or not found.startswith(f"{module.path}:"):
        return False
    line = int(found.removeprefix(f"{module.path}:").split(":")[0])
    text = module.path.read_text(encoding="utf-8").splitlines()[line - 1]
    return text.count("environ") == text.count('os.environ.get("NO_COLOR")') == 1


def rule_time(modules: dict[str, Module]) -> list[str]:
    return list(outside(modules, TIME, ("adapters.clock",)))


def rule_printing(modules: dict[str, Module]) -> list[str]:
    return list(outside(modules, PRINTS, ("cli",)))


def rule_function_level_imports(modules: dict[str, Module]) -> list[str]:
    return [*inner_imports(modules), *outside(modules, DYNAMIC, ("cli", "wiring"))]


RULES = [
    rule_imports,
    rule_processes,
    rule_sockets,
    rule_environment,
    rule_time,
    rule_printing,
    rule_function_level_imports,
]


@pytest.fixture(scope="module")
def program() -> dict[str, Module]:
    return read(ROOT / "src")


@pytest.mark.parametrize("rule", RULES)
def test_the_program_keeps_the_rule(program, rule):
    """No module of the program breaks the rule; what does is shown with its chain."""
    broken = rule(program)
    assert not broken, "\n\n".join(["", *broken])


def test_every_module_was_read(program):
    """The rules look at the whole program: every layer they name that exists has modules."""
    files = sorted((ROOT / "src").rglob("*.py"))
    assert sorted(module.path for module in program.values()) == files
    layers = {module.layer for module in program.values()}
    assert {"cli", "wiring", "run", "stages", "adapters", "tools", "policy", "result"} <= layers


BAD = [
    (rule_imports, "stages/scan.py", "from secure_pipeline.tools import trivy"),
    (rule_imports, "stages/scan.py", "import secure_pipeline.adapters.clock as c"),
    (rule_imports, "stages/scan.py", "from ..wiring import anything"),
    (rule_imports, "stages/scan.py", "from secure_pipeline import wiring"),
    (rule_imports, "stages/scan.py", "def f():\n    from secure_pipeline.tools import trivy"),
    (rule_imports, "policy/gates.py", "from secure_pipeline.stages.scan import scan"),
    (rule_imports, "stages/result.py", "from secure_pipeline.stages import scan"),
    (rule_imports, "adapters/clock.py", "from secure_pipeline.cli import main"),
    (rule_imports, "tools/trivy.py", "from secure_pipeline.run import run"),
    (rule_imports, "wiring/__init__.py", "from secure_pipeline.cli.main import app"),
    (rule_imports, "files.py", "from secure_pipeline import config"),
    (rule_processes, "tools/trivy.py", "import subprocess"),
    (rule_processes, "stages/scan.py", "import os as system\nsystem.fork()"),
    (rule_processes, "adapters/clock.py", "from os import posix_spawn"),
    (rule_processes, "cli/main.py", "import os\nos.execv('/bin/true', [])"),
    (rule_sockets, "tools/trivy.py", "import socket"),
    (rule_sockets, "stages/scan.py", "from urllib import request"),
    (rule_sockets, "wiring/__init__.py", "import urllib.request"),
    (rule_sockets, "cli/main.py", "def f():\n    import requests.adapters"),
    (rule_environment, "stages/scan.py", "import os\nx = os.environ['HOME']"),
    (rule_environment, "tools/trivy.py", "from os import getenv as g\ng('X')"),
    (rule_environment, "tools/trivy.py", "from pathlib import Path\nPath.home()"),
    (rule_environment, "cli/_output.py", "import os\nos.environ.get('TERM')"),
    (rule_time, "stages/scan.py", "from datetime import datetime, UTC\ndatetime.now(UTC)"),
    (rule_time, "tools/trivy.py", "import datetime as d\nd.datetime.utcnow()"),
    (rule_time, "run.py", "import time\nf = time.time"),
    (rule_printing, "stages/scan.py", "print('x')"),
    (rule_printing, "tools/trivy.py", "import sys\nsys.stderr.write('x')"),
    (rule_function_level_imports, "stages/scan.py", "def f():\n    import json"),
    (rule_function_level_imports, "tools/trivy.py", "class A:\n  async def f(s):\n    import json"),
    (rule_function_level_imports, "run.py", "import importlib\nimportlib.import_module('json')"),
]
GOOD = {
    "errors.py": "from secure_pipeline.files import x",
    "files.py": "import os\nos.path.join('a')",
    "config.py": "from urllib.parse import urlsplit\nimport time\ntime.monotonic()",
    "run.py": "from secure_pipeline.stages import scan",
    "stages/result.py": "from secure_pipeline.errors import E",
    "stages/scan.py": "from secure_pipeline.policy import gates\nnow = 1\nnow",
    "policy/gates.py": "from secure_pipeline.stages.result import StageResult",
    "tools/process.py": "import subprocess, time\ntime.sleep(1)",
    "tools/trivy.py": "from secure_pipeline.tools.process import Processes",
    "adapters/clock.py": "import time, socket\ntime.time()",
    "wiring/__init__.py": "def f():\n  from os import environ\n  import secure_pipeline.tools",
    "cli/main.py": "from secure_pipeline import wiring, run\nprint(1)",
    "cli/_output.py": 'import os, sys\nx = os.environ.get("NO_COLOR")\nsys.stdout',
}


def tree(source: Path, files: dict[str, str]) -> dict[str, Module]:
    """Write a program of these files and read it; packages get an empty __init__."""
    for name, text in files.items():
        path = source / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    for directory in {path.parent for path in (source / PACKAGE).rglob("*.py")}:
        (directory / "__init__.py").touch()
    return read(source)


def test_a_good_tree_is_accepted(tmp_path):
    """No rule forbids what the design allows."""
    modules = tree(tmp_path, GOOD)
    assert [found for rule in RULES for found in rule(modules)] == []


@pytest.mark.parametrize(("rule", "file", "text"), BAD)
def test_a_bad_tree_is_refused(tmp_path, rule, file, text):
    """One wrong line in a good tree is found, with its file and line."""
    broken = rule(tree(tmp_path, {**GOOD, file: text}))
    last = len(text.splitlines())
    assert any(f"{PACKAGE}/{file}:{last}: " in found for found in broken), broken


def test_the_whole_chain_is_shown(tmp_path):
    """A stage that reaches a tool through two others is shown with every step."""
    modules = tree(
        tmp_path,
        {
            **GOOD,
            "stages/scan.py": "import secure_pipeline.shape",
            "shape.py": "\nfrom secure_pipeline import globs",
            "globs.py": "\n\nfrom secure_pipeline.tools.trivy import Trivy",
        },
    )
    start = f"{modules[f'{PACKAGE}.stages.scan'].path}:"
    (found,) = [text for text in rule_imports(modules) if text.startswith(start)]
    assert [line.split(": ", 1)[1] for line in found.splitlines()] == [
        "secure_pipeline.stages.scan imports secure_pipeline.shape",
        "secure_pipeline.shape imports secure_pipeline.globs",
        "secure_pipeline.globs imports secure_pipeline.tools.trivy",
    ]
    assert "globs.py:3: " in found.splitlines()[2]


def test_importing_a_module_runs_its_packages(tmp_path):
    """What a package's __init__ imports counts for everyone who imports below it."""
    modules = tree(
        tmp_path,
        {**GOOD, "oci/__init__.py": "import secure_pipeline.adapters.clock", "oci/digest.py": "",
         "stages/scan.py": "from secure_pipeline.oci.digest import D"},
    )  # fmt: skip
    assert any(text.count("\n") == 1 and "stages.scan" in text for text in rule_imports(modules))
