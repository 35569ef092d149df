"""Look at what runs: the runtimes, the stores and the keys behind ``verify running``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.attestations import dsse
from secure_pipeline.audit.recording import recorded
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.events import OnEvent
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.store import Source
from secure_pipeline.ports import Runtime, SecretUse, Signer
from secure_pipeline.stages import running, running_candidates, running_vsa
from secure_pipeline.stages.running import RunningReport
from secure_pipeline.stages.running_target import DockerTarget, KubernetesTarget, RunningTarget
from secure_pipeline.stages.running_vsa import Summary
from secure_pipeline.stages.running_watch import Watch
from secure_pipeline.wiring.auditing import ledger_path, open_ledger
from secure_pipeline.wiring.keyless import Trust
from secure_pipeline.wiring.options import Options, World
from secure_pipeline.wiring.signing import publish_statements
from secure_pipeline.wiring.stores import Stores
from secure_pipeline.wiring.verifying import VerifyTarget, load_policy, operator_keys

if TYPE_CHECKING:
    from secure_pipeline.adapters.kubernetes import KubernetesConfig

DOCKER_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class RunningRequest:
    """What ``verify running`` was asked for."""

    targets: tuple[RunningTarget, ...]
    images: tuple[ImageReference, ...]
    """The builds that containers may be; what they were pulled as if empty."""
    layout: Path | None
    keys: tuple[Path, ...]
    drift: bool = True
    vsa_key: str | None = None
    trust: Trust = Trust()


class RunningSession:
    """Looks, as often as it is asked; opened once."""

    def __init__(
        self,
        request: RunningRequest,
        options: Options,
        world: World,
        stores: Stores,
        on_event: OnEvent,
    ) -> None:
        """Open everything but the network. Raises: UsageError, ConfigError."""
        self._request = request
        self._stores = stores
        self._on_event = on_event
        self._run_id = options.run
        self._policy = load_policy(options)
        self._keys = operator_keys(VerifyTarget(None, None, None, request.keys), world)
        self._verifier = request.trust.verifier(self._policy)
        self._ledger = open_ledger(ledger_path(options, world))
        self._signer = self._opened(request.vsa_key, world) if request.vsa_key else None
        for image in request.images:
            stores.source(image.name, request.layout)
        self._candidates()
        self._runtimes = _runtimes(request.targets, world.environment)

    def look(self) -> RunningReport:
        """Check every container once. Raises: like ``stages.running.verify_running``."""
        inputs = running.RunningInputs(
            policy=self._policy,
            candidates=self._candidates(),
            operator_keys=self._keys,
            operator_identity=self._request.trust.identity,
            identity_verifier=self._verifier,
            drift=self._request.drift,
            run_id=self._run_id,
        )
        return running.verify_running(inputs, self._runtimes, SystemClock(), self._on_event)

    def watch(self, interval: timedelta) -> Watch:
        """What looks again every interval."""
        return Watch(self.look, SystemClock(), sleep, interval)

    def summarise(self, report: RunningReport) -> tuple[Summary, ...]:
        """Sign summaries of the report's builds and attach each to its build.

        Nothing without a key. Raises: Unavailable, VerificationFailed, Inconclusive.
        """
        if self._signer is None:
            return ()
        key = self._request.vsa_key or ""
        with recorded(self._ledger, self._use("sign", key)) as details:
            made = running_vsa.summaries(report, self._signer)
            details["statements"] = len(made)
        for summary in made:
            with recorded(self._ledger, self._use("push", str(summary.image))):
                envelope = dsse.parse_envelope(summary.envelope)
                publish_statements(
                    summary.source, summary.image, [envelope], self._signer, SystemClock()
                )
        return made

    def _opened(self, key: str, world: World) -> Signer:
        with recorded(self._ledger, self._use("fetch", key)):
            return _signer(key, world)

    def _use(self, action: str, subject: str) -> SecretUse:
        return SecretUse(action, "verify", subject, self._run_id)

    def _candidates(self) -> running_candidates.Candidates:
        """Read anew for each look: a layout may have got another build meanwhile."""
        if self._request.layout is not None:
            layout = Layout.open(self._request.layout)
            return running_candidates.listed(layout, self._request.images)
        if self._request.images:
            return running_candidates.named(self._request.images, self._source)
        return running_candidates.pulled(self._source)

    def _source(self, name: str) -> Source:
        return self._stores.source(name, None)


def _signer(uri: str, world: World) -> Signer:
    password = local.password_from(world.environment)
    if password is None:
        raise UsageError("the key's password is not set", hint=f"set {local.PASSWORD_VARIABLES[0]}")
    return local.load(world.directory / KeyRef.parse(uri).path, password)


def _runtimes(
    targets: Sequence[RunningTarget], environment: Mapping[str, str]
) -> tuple[Runtime, ...]:
    return tuple(open_runtime(target, environment) for target in dict.fromkeys(targets))


def open_runtime(target: RunningTarget, environment: Mapping[str, str]) -> Runtime:
    """The engine or the cluster that the environment names. Raises: ConfigError."""
    if isinstance(target, DockerTarget):
        return _docker(target, environment)
    return _kubernetes(target, environment)


def _docker(target: DockerTarget, environment: Mapping[str, str]) -> Runtime:
    from secure_pipeline.adapters.docker import DockerRuntime
    from secure_pipeline.adapters.dockerengine import EngineAddress

    url = environment.get("DOCKER_HOST") or DOCKER_SOCKET
    home = environment.get("HOME") or "/"
    tls = None
    if environment.get("DOCKER_TLS_VERIFY") and not url.startswith("unix:"):
        tls = Path(environment.get("DOCKER_CERT_PATH") or f"{home}/.docker")
    return DockerRuntime(target.name, address=EngineAddress(url, tls), clock=SystemClock())


def _kubernetes(target: KubernetesTarget, environment: Mapping[str, str]) -> Runtime:
    from secure_pipeline.adapters.kubernetes import KubernetesRuntime

    return KubernetesRuntime(
        target.namespace,
        target.kind,
        target.name,
        config=cluster_config(environment),
        clock=SystemClock(),
    )


def cluster_config(environment: Mapping[str, str]) -> KubernetesConfig:
    """The cluster of KUBECONFIG, the one that this runs in, or the user's own."""
    from secure_pipeline.adapters.kubernetes import KubernetesConfig

    named = environment.get("KUBECONFIG", "")
    if ":" in named:
        raise ConfigError("KUBECONFIG names several files", hint="name the one to use")
    host, port = (environment.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if not named and host and port:
        return KubernetesConfig.from_service_account(host, port)
    path = Path(named or f"{environment.get('HOME') or '/'}/.kube/config")
    if not path.exists():
        raise ConfigError(
            "no such kubeconfig", where=str(path), hint="set KUBECONFIG to the file to use"
        )
    return KubernetesConfig.from_kubeconfig(path)
