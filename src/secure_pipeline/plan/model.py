"""The plan: the graph of ``run`` with what each stage needs from the engine that runs it.

Order and needs come from ``secure_pipeline.run.GRAPH``; only ``promote``, which no run on one
machine does by itself, is added after ``verify``. Nothing here knows an engine. A renderer is a
function ``render(plan: Plan) -> Mapping[str, str]`` from a plan to texts by their path below the
repository; it takes

* ``plan.stages`` (in an order that can be run) or ``plan.stage(name)``;
* ``stage.needs``: a stage starts when all of these ended with exit code 0, and only then. What
  ends otherwise stops what needs it, whether or not it is a ``gate``;
* ``stage.command``: the words of the program, where ``{image}`` and ``{target}`` stand for
  ``NAME@sha256:DIGEST`` and the promotion target. Everything else is said by variables:
  ``stage.variables`` (not secret) and ``stage.secrets``, which no other stage may see;
* ``ENGINE``: each stage is told which engine runs it, by the definition and by nobody else;
* ``RUN`` and ``STATE``: the variables by which stages in different places are one run. The same
  id goes to every stage, and each finds below the state directory what ``stage.reads`` names
  (``{run}`` is that id) and leaves there what ``stage.writes`` names. A directory ends with ``/``.
  Stages side by side may each have a copy; what they wrote never overlaps except for
  ``runs/{run}/run.json``, of which any copy serves;
* ``stage.permissions``, ``network``, ``tools``, ``image``, ``resources``, ``timeout``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from secure_pipeline.run import GRAPH

PROGRAM = "secure-pipeline"
RUN = "SECURE_PIPELINE_RUN"
"""Variable with the id of the run."""
STATE = "SECURE_PIPELINE_STATE"
"""Variable with the path of the state directory."""
POLICY = "SECURE_PIPELINE_POLICY"
"""Variable with the path of the trusted policy; the built-in one without it."""
DATABASE = "SECURE_PIPELINE_DATABASE"
KEY = "SECURE_PIPELINE_KEY"
PASSWORD = "SECURE_PIPELINE_KEY_PASSWORD"
PUSH = "SECURE_PIPELINE_PUSH"
ENGINE = "SECURE_PIPELINE_BUILDER"
"""Variable with the engine that runs the stage: the evidence names its builder by it."""


class Permission(StrEnum):
    """What a stage may do outside its own directory."""

    SOURCE = "source:read"
    """Read the repository at the commit of the run."""
    IDENTITY = "id-token"
    """Ask the engine for a token that says who runs: to log in to Vault, or to sign as that."""
    REGISTRY = "registry:write"
    """Push the image and its evidence, and the verdict of a promotion."""
    ROUTER = "router:write"
    """Move traffic, and start and end slots."""


class Network(StrEnum):
    """Whom a stage talks to."""

    BASES = "base images"
    DATABASE = "vulnerability database"
    VAULT = "vault"
    SIGSTORE = "sigstore"
    REGISTRY = "registry"
    ROUTER = "router"
    METRICS = "metrics"


@dataclass(frozen=True)
class Resources:
    """What a stage is given at most."""

    cpu: int
    """Processors."""
    memory: int
    """MiB."""
    disk: int
    """GiB of scratch space."""

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        if min(self.cpu, self.memory, self.disk) < 1:
            raise ValueError("resources are positive")


@dataclass(frozen=True)
class Stage:
    """One stage as an engine sees it."""

    name: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    gate: bool
    """Its answer is a judgement by the policy, not only work that was done."""
    reads: tuple[str, ...]
    """Paths below the state directory."""
    writes: tuple[str, ...]
    permissions: tuple[Permission, ...]
    network: tuple[Network, ...]
    """Empty: the stage itself needs none."""
    variables: tuple[str, ...]
    """Names of variables that may be set for it besides RUN and STATE; none is secret."""
    secrets: tuple[str, ...]
    """Names of variables that hold secrets."""
    tools: tuple[str, ...]
    """Names in tools/pins.toml. git is needed where the source is read."""
    image: str
    """Name of the container image that has the program and these tools."""
    user_namespaces: bool
    """It makes containers, so it needs user namespaces or a root of its own."""
    resources: Resources
    timeout: timedelta
    """Of the whole stage: the engine ends it then, which is no pass."""


@dataclass(frozen=True)
class Plan:
    """The stages, each after what it needs."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        """Raises: ValueError for a name that comes twice or a need that does not come before."""
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen or not seen.issuperset(stage.needs):
                raise ValueError(f"{stage.name} is there twice, or before what it needs")
            seen.add(stage.name)
        if not seen:
            raise ValueError("a plan has stages")

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises: KeyError."""
        return {stage.name: stage for stage in self.stages}[name]


@dataclass(frozen=True)
class _Facts:
    """What is not in the graph."""

    gate: bool = True
    words: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    evidence: bool = True
    """It leaves a result and reports in the run."""
    permissions: tuple[Permission, ...] = (Permission.SOURCE,)
    network: tuple[Network, ...] = ()
    variables: tuple[str, ...] = (POLICY,)
    secrets: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    user_namespaces: bool = False
    resources: Resources = Resources(1, 1024, 2)
    minutes: int = 15


IMAGE_LAYOUT = "image/"
FILES = "files/"
"""Files of the image that were signed on their own, each with its bundle."""
LEDGER = "ledger.jsonl"
_VAULT = (
    *("VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT"),
    *("SECURE_PIPELINE_VAULT_LOGIN", "SECURE_PIPELINE_VAULT_ROLE"),
    "SECURE_PIPELINE_VAULT_AUDIENCE",
)
_SIGNING = (*_VAULT, "SECURE_PIPELINE_SIGSTORE_CA")
_FACTS: Mapping[str, _Facts] = {
    "analyze": _Facts(tools=("semgrep",), resources=Resources(2, 3072, 2)),
    "test": _Facts(resources=Resources(2, 2048, 4), minutes=30),
    "build": _Facts(
        writes=(IMAGE_LAYOUT,),
        network=(Network.BASES,),
        tools=("buildah",),
        user_namespaces=True,
        resources=Resources(2, 4096, 10),
        minutes=60,
    ),
    "scan": _Facts(
        reads=(IMAGE_LAYOUT,),
        network=(Network.DATABASE,),
        variables=(POLICY, DATABASE),
        tools=("trivy",),
        resources=Resources(2, 2048, 6),
        minutes=20,
    ),
    "sign": _Facts(
        gate=False,
        reads=(IMAGE_LAYOUT,),
        writes=(IMAGE_LAYOUT, FILES, LEDGER),
        permissions=(Permission.SOURCE, Permission.IDENTITY, Permission.REGISTRY),
        network=(Network.VAULT, Network.SIGSTORE, Network.REGISTRY),
        variables=(POLICY, KEY, PUSH, *_SIGNING),
        secrets=(PASSWORD,),
    ),
    "verify": _Facts(reads=(IMAGE_LAYOUT,), evidence=False),
}
_PROMOTE = _Facts(
    words=("{image}", "--to", "{target}"),
    reads=(IMAGE_LAYOUT,),
    writes=("promotions/", LEDGER),
    evidence=False,
    permissions=(
        *(Permission.SOURCE, Permission.IDENTITY),
        *(Permission.REGISTRY, Permission.ROUTER),
    ),
    network=(
        *(Network.VAULT, Network.SIGSTORE, Network.REGISTRY),
        *(Network.ROUTER, Network.METRICS),
    ),
    variables=(POLICY, KEY, "SECURE_PIPELINE_TARGETS", *_SIGNING),
    secrets=(PASSWORD,),
    minutes=360,
)


def the_plan() -> Plan:
    """The plan of this program."""
    stages = [_stage(name, needs, _FACTS[name]) for name, needs in GRAPH.items()]
    return Plan((*stages, _stage("promote", ("verify",), _PROMOTE)))


def _stage(name: str, needs: tuple[str, ...], facts: _Facts) -> Stage:
    own = (f"runs/{{run}}/stages/{name}.json", f"runs/{{run}}/reports/{name}/")
    # The result of build says which image it is; verify is told by it too.
    known = needs if facts.evidence else ("build",)
    earlier = ["runs/{run}/run.json"] if needs else []
    for need in known:
        earlier += [f"runs/{{run}}/stages/{need}.json", f"runs/{{run}}/reports/{need}/"]
    return Stage(
        name=name,
        needs=needs,
        command=(PROGRAM, name, *facts.words),
        gate=facts.gate,
        reads=(*earlier, *facts.reads),
        writes=("runs/{run}/run.json", *own, *facts.writes) if facts.evidence else facts.writes,
        permissions=facts.permissions,
        network=facts.network,
        variables=facts.variables,
        secrets=facts.secrets,
        tools=facts.tools,
        image=PROGRAM,
        user_namespaces=facts.user_namespaces,
        resources=facts.resources,
        timeout=timedelta(minutes=facts.minutes),
    )
