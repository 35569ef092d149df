"""The one place that reads the environment and chooses implementations for the ports."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from secure_pipeline.events import OnEvent, ignore
from secure_pipeline.tools.locate import SYSTEM_PATH, LocatedTool, ToolStore, default_store, locate
from secure_pipeline.tools.process import Processes

if TYPE_CHECKING:
    from secure_pipeline.adapters.vaultpending import PendingToken
    from secure_pipeline.canary.target import LoadedTarget
    from secure_pipeline.doctor import Doctor, Places
    from secure_pipeline.interop.readers import InteropReport
    from secure_pipeline.keys.verify import PublicKey
    from secure_pipeline.oci.reference import ImageReference
    from secure_pipeline.pipeline import Pipeline
    from secure_pipeline.place import Place
    from secure_pipeline.ports import Database, SourceState
    from secure_pipeline.stages.explain import Explanation
    from secure_pipeline.stages.quarantine import Found
    from secure_pipeline.stages.result import StageResult
    from secure_pipeline.tools.install import Installer
    from secure_pipeline.tools.remote import Remote
    from secure_pipeline.wiring.auditing import Audit
    from secure_pipeline.wiring.destinations import ShipOptions
    from secure_pipeline.wiring.handing import HandOverRequest, HandOvers
    from secure_pipeline.wiring.handover import OpenedState
    from secure_pipeline.wiring.interop import InteropRequest
    from secure_pipeline.wiring.keyhistory import BlastRadius, Revoked, RevokeRequest
    from secure_pipeline.wiring.keys import KeyStatus, Rotated
    from secure_pipeline.wiring.options import Options, RegistryOptions, World
    from secure_pipeline.wiring.promoting import Promoter, PromoteRequest
    from secure_pipeline.wiring.quarantining import QuarantineDone, QuarantineRequest
    from secure_pipeline.wiring.reporting import Reported
    from secure_pipeline.wiring.resigning import ResignOutcome, ResignRequest
    from secure_pipeline.wiring.running import RunningRequest, RunningSession
    from secure_pipeline.wiring.shipping import Shipper
    from secure_pipeline.wiring.stores import Stores
    from secure_pipeline.wiring.verifying import VerifyTarget


def tool_store() -> ToolStore:
    """Where tools are installed, as the environment says."""
    return ToolStore(default_store(os.environ))


def search_path() -> str:
    """The directories to find programs in, as the environment says."""
    return os.environ.get("PATH") or SYSTEM_PATH


def processes() -> Processes:
    """The runner of other programs for this process; nothing cancels it but an exception."""
    return Processes(threading.Event())


def locate_tool(name: str) -> LocatedTool:
    """Find a pinned program. Raises: UsageError, Unavailable with what to type."""
    return locate(name, store=tool_store(), path=search_path(), processes=processes())


def tool_installer(on_event: OnEvent) -> Installer:
    """What installs pinned programs into the store."""
    from secure_pipeline.adapters.clock import SystemClock
    from secure_pipeline.adapters.download import HttpsDownload
    from secure_pipeline.tools.install import Installer
    from secure_pipeline.tools.pins import load_pins
    from secure_pipeline.tools.steps import Steps, build_environment

    steps = Steps(
        root=tool_store().root,
        processes=processes(),
        environment=build_environment(os.environ),
        path=search_path(),
        on_event=on_event,
    )
    return Installer(pins=load_pins(), steps=steps, download=HttpsDownload(SystemClock()))


def doctor(places: Places) -> Doctor:
    """What examines this machine for ``secure-pipeline doctor``."""
    from secure_pipeline.adapters.clock import SystemClock
    from secure_pipeline.doctor import Doctor
    from secure_pipeline.keys.local import password_from

    return Doctor(
        places=places,
        locate=locate_tool,
        database=_prepared_database,
        password_is_set=password_from(os.environ) is not None,
        clock=SystemClock(),
    )


def key_password() -> str | None:
    """The signing key's password, or None if no variable has it."""
    from secure_pipeline.keys.local import password_from

    return password_from(os.environ)


def _prepared_database(named: str | None) -> Database:
    from secure_pipeline.adapters.clock import SystemClock
    from secure_pipeline.tools.trivydb import DatabaseStore
    from secure_pipeline.wiring.binding import database_source

    source = database_source(
        named,
        store=DatabaseStore(tool_store().root.parent / "databases"),
        tool=locate_tool,
        processes=processes(),
        clock=SystemClock(),
        directory=Path.cwd(),
    )
    return source.prepare(ignore).record


def fetch_source(
    remote: Remote, directory: Path, access: Path | None, seconds: float
) -> SourceState:
    """Bring a source into a directory, through the proxies of the environment.

    Raises: UsageError, ConfigError, VerificationFailed, Inconclusive, Unavailable.
    """
    from secure_pipeline.tools.gitfetch import GitFetch
    from secure_pipeline.wiring.options import proxies

    fetcher = GitFetch(locate_tool("git"), processes(), seconds, proxies(os.environ))
    return fetcher.fetch(remote, directory, access)


@contextmanager
def open_pipeline(
    stages: tuple[str, ...], options: Options, warn: Callable[[str], None]
) -> Iterator[Pipeline]:
    """Open the pipeline for these stages. Raises: ConfigError, UsageError, Unavailable."""
    from secure_pipeline.wiring.opening import opened

    with opened(stages, options, _world(), warn) as pipeline:
        yield pipeline


def report_run(words: Sequence[str], options: Options) -> Reported:
    """Write the dashboard of a run. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring import reporting

    return reporting.report_run(words, options, _world())


def open_place(options: Options) -> Place:
    """Where repository and state are. Raises: ConfigError."""
    from secure_pipeline.wiring import handover

    return handover.open_place(options, _world())


def open_state(options: Options) -> OpenedState:
    """The run that was named, or the latest, and where it is. Raises: UsageError, ConfigError."""
    from secure_pipeline.wiring import handover

    return handover.open_state(options, _world())


def open_stores(registry: RegistryOptions) -> Stores:
    """What opens layouts and registries, with the logins of this user."""
    from secure_pipeline.wiring.stores import Stores

    return Stores(os.environ, registry, processes())


def verify_image(target: VerifyTarget, options: Options) -> tuple[ImageReference, StageResult]:
    """Verify one image. Raises: UsageError, ConfigError, VerificationFailed, Unavailable."""
    from secure_pipeline.wiring import verifying

    stores = open_stores(options.registry)
    return verifying.verify_image(target, options, _world(), stores, ignore)


def verify_file(
    path: Path, bundle: Path | None, target: VerifyTarget, options: Options
) -> StageResult:
    """Verify one file by the bundle beside it. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring import verifying

    return verifying.verify_file(path, bundle, target, options, _world(), ignore)


def verify_images(
    images: Sequence[str], target: VerifyTarget, options: Options
) -> Iterator[tuple[ImageReference, StageResult]]:
    """Verify several images, each as ``verify_image`` does; results in their order."""
    from secure_pipeline.wiring import verifying

    stores = open_stores(options.registry)
    yield from verifying.verify_images(images, target, options, _world(), stores, ignore)


def explain_image(target: VerifyTarget, options: Options) -> Explanation:
    """Explain one image, as ``verify_image`` would decide about it. Raises: like that."""
    from secure_pipeline.wiring import explain

    stores = open_stores(options.registry)
    return explain.explain_image(target, options, _world(), stores, ignore)


def interop_image(request: InteropRequest, options: Options) -> InteropReport:
    """Which other programs would read an image's evidence. Raises: like ``verify_image``."""
    from secure_pipeline.wiring import interop

    return interop.interop_image(request, options, _world(), open_stores(options.registry))


def open_running(request: RunningRequest, options: Options) -> RunningSession:
    """What looks at containers that run. Raises: UsageError, ConfigError."""
    from secure_pipeline.wiring.running import RunningSession

    return RunningSession(request, options, _world(), open_stores(options.registry), ignore)


def vault_public_key(key: str, options: Options, warn: Callable[[str], None]) -> PublicKey:
    """The public key of a key in Vault. Raises: UsageError, ConfigError, Unavailable, Refused."""
    from secure_pipeline.wiring import vault

    return vault.public_key(key, options, _world(), warn)


def pending_tokens(options: Options) -> tuple[PendingToken, ...]:
    """The tokens that earlier runs left in Vault, as noted here. Raises: ConfigError."""
    from secure_pipeline.wiring import vault

    return vault.pending_tokens(options, _world())


def revoke_pending(options: Options, warn: Callable[[str], None]) -> Sequence[tuple[str, str]]:
    """Revoke the tokens that earlier runs left in Vault: accessors with what became of them.

    Raises: UsageError, ConfigError, Unavailable, Refused.
    """
    from secure_pipeline.wiring import vault

    return vault.revoke_pending(options, _world(), warn)


def key_status(key: str | None, options: Options, warn: Callable[[str], None]) -> KeyStatus:
    """How old a key in Vault is, the configured one by default.

    Raises: UsageError, ConfigError, Unavailable, Refused.
    """
    from secure_pipeline.wiring import keys

    return keys.status(key, options, _world(), warn)


def rotate_key(key: str, options: Options, warn: Callable[[str], None]) -> Rotated:
    """Add a version to a transit key. Raises: UsageError, ConfigError, Unavailable, Refused."""
    from secure_pipeline.wiring import keys

    return keys.rotate(key, options, _world(), warn)


def blast_radius(
    key: str,
    places: tuple[str, ...],
    public_key: Path | None,
    options: Options,
    warn: Callable[[str], None],
) -> BlastRadius:
    """What one version of a key has signed. Raises: UsageError, Inconclusive, Unavailable."""
    from secure_pipeline.wiring import keyhistory

    stores = open_stores(options.registry)
    return keyhistory.blast_radius(key, places, public_key, options, _world(), stores, warn)


def revoke_key(request: RevokeRequest, options: Options, warn: Callable[[str], None]) -> Revoked:
    """Take one version of a key out of trust. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring import keyhistory

    return keyhistory.revoke(request, options, _world(), warn)


def resign_image(
    request: ResignRequest, options: Options, warn: Callable[[str], None]
) -> ResignOutcome:
    """Sign the evidence of an image again. Raises: like ``verify_image``, and PolicyDenied."""
    from secure_pipeline.wiring import resigning

    stores = open_stores(options.registry)
    return resigning.resign_image(request, options, _world(), stores, warn, ignore)


def promotion_target(name: str) -> LoadedTarget:
    """The target that ``--to`` names. Raises: UsageError, ConfigError."""
    from secure_pipeline.wiring.promotiontargets import find_target

    return find_target(name, _world())


def open_promoter(
    request: PromoteRequest,
    options: Options,
    warn: Callable[[str], None],
    tell: Callable[[str], None],
) -> Promoter:
    """What promotes to one target. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring.promoting import Promoter

    stores = open_stores(options.registry)
    return Promoter(request, options, _world(), stores, processes(), warn, tell)


def open_hand_over(request: HandOverRequest, options: Options) -> HandOvers:
    """What hands an image over to a cluster. Raises: UsageError, ConfigError."""
    from secure_pipeline.wiring.handing import HandOvers

    return HandOvers(request, options, _world(), open_stores(options.registry))


def list_quarantine(
    images: Sequence[str], target: VerifyTarget, options: Options
) -> Iterator[tuple[ImageReference, Found]]:
    """What is said about images' quarantine. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring import quarantining

    stores = open_stores(options.registry)
    yield from quarantining.list_quarantine(images, target, options, _world(), stores)


def add_quarantine(
    request: QuarantineRequest, options: Options, warn: Callable[[str], None]
) -> QuarantineDone:
    """Sign that an image must not serve. Raises: like ``verify_image``, and PolicyDenied."""
    from secure_pipeline.wiring import quarantining

    stores = open_stores(options.registry)
    return quarantining.add_quarantine(request, options, _world(), stores, warn)


def release_quarantine(
    request: QuarantineRequest, options: Options, warn: Callable[[str], None]
) -> QuarantineDone:
    """Sign that an image may serve again. Raises: like ``add_quarantine``."""
    from secure_pipeline.wiring import quarantining

    stores = open_stores(options.registry)
    return quarantining.release_quarantine(request, options, _world(), stores, warn)


def open_audit(options: Options) -> Audit:
    """The ledger that a command line means. Raises: nothing before it is used."""
    from secure_pipeline.wiring.auditing import Audit

    return Audit(options, _world(), open_stores(options.registry))


def open_shipper(options: Options, ship: ShipOptions) -> Shipper:
    """What delivers the ledger elsewhere. Raises: UsageError, ConfigError, Unavailable."""
    from secure_pipeline.wiring import shipping

    return shipping.open_shipper(options, ship, _world())


@contextmanager
def shipping_behind(options: Options, warn: Callable[[str], None]) -> Iterator[None]:
    """Deliver the ledger in the background, if the environment says where. Raises: nothing."""
    from secure_pipeline.wiring import shipping

    with shipping.shipping(options, _world(), warn):
        yield


def _world() -> World:
    from secure_pipeline.wiring.options import World

    return World(os.environ, search_path(), tool_store(), Path.cwd())
