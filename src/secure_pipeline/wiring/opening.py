"""Open a pipeline: read configuration, policy and source, and choose the run to work in."""

from __future__ import annotations

import fcntl
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from secure_pipeline import config as configuration
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import Unavailable, UsageError, VerificationFailed
from secure_pipeline.files import sha256_file, write_atomic
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.pipeline import Pipeline
from secure_pipeline.place import Place
from secure_pipeline.policy import document
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import SourceState
from secure_pipeline.report import dashboard
from secure_pipeline.run import GRAPH
from secure_pipeline.runs import Run, RunHeader, RunStore, parse_expected
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.binding import Binding
from secure_pipeline.wiring.engine import builder_id
from secure_pipeline.wiring.options import STATE, Options, World


@contextmanager
def opened(
    stages: tuple[str, ...], options: Options, world: World, warn: Callable[[str], None]
) -> Iterator[Pipeline]:
    """Open the pipeline for these stages; a whole run holds the state directory for itself.

    ``warn`` tells people what is left to do. Whatever was opened is ended with the pipeline.
    Raises: ConfigError, UsageError, Unavailable.
    """
    path = (options.config or configuration.find(world.directory)).absolute()
    config = configuration.load(path)
    place = Place(path.parent, (options.state or path.parent / STATE).absolute())
    policy = document.load(options.policy or data_path("policies") / "release.yaml")
    if options.image:
        ImageReference.parse(options.image)
    cancelled = threading.Event()
    binding = Binding(config, policy, place, options, world, Processes(cancelled), warn)
    if "sign" in stages:
        binding.require_key()
    with ExitStack() as stack:
        stack.callback(binding.close)
        _prepare(place.state)
        if len(stages) > 1:
            stack.enter_context(_alone(place.state / "lock"))
        source = binding.source()
        header = _header(config, path, policy, source, builder_id(world.environment))
        chosen = _choose(RunStore(place.runs), header, stages, options)
        run = Run(chosen.directory, parse_expected(options.expect))
        binding.run = run.id
        settings = binding.settings(policy, stages)
        yield Pipeline(config, policy, place, settings, source, run, binding.ports(), cancelled)


def _prepare(state: Path) -> None:
    """Make the state directory; git leaves it alone without being told."""
    ignored = state / ".gitignore"
    if not ignored.exists():
        write_atomic(ignored, b"*\n")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the state directory; a second run at the same time is refused, not queued."""
    try:
        stream: BinaryIO = path.open("ab")
    except OSError as error:
        raise Unavailable(f"cannot write: {error.strerror}", where=str(path)) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                "another run is using this state directory",
                where=str(path.parent),
                hint="wait for it, or use another --state",
            ) from None
        yield


def _header(
    config: Config, path: Path, policy: LoadedPolicy, source: SourceState, builder: str
) -> RunHeader:
    now = SystemClock().now()
    return RunHeader(
        id=f"r-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        started=now,
        name=config.name,
        commit=source.commit,
        tree=source.tree,
        uncommitted=source.uncommitted,
        config_digest=f"sha256:{sha256_file(path)}",
        policy_digest=policy.digest,
        builder_id=builder,
    )


def _choose(store: RunStore, header: RunHeader, stages: tuple[str, ...], options: Options) -> Run:
    """The run to work in: the one named, the one that was interrupted, or a new one.

    A stage alone continues the latest run of the same source, configuration and policy that
    has no result of that stage yet, so that stages typed one after another are one run.
    """
    if options.run:
        if store.exists(options.run):
            return _same(store.open(options.run), header)
        return store.create(_named(header, options.run))
    latest = (store.all() or (None,))[-1]
    if latest is None or not _alike(latest.header, header):
        return store.create(header)
    ended = dashboard.read(latest.directory) is not None
    if len(stages) > 1:
        return store.create(header) if ended or not options.cache else latest
    (stage,) = stages
    if GRAPH[stage] or (not ended and latest.load(stage) is None):
        return latest
    return store.create(header)


def _same(run: Run, header: RunHeader) -> Run:
    if run.header.builder_id != header.builder_id:
        raise VerificationFailed(
            f"run {run.id} is of builder {run.header.builder_id}, this is {header.builder_id}",
            hint="let one engine run all stages of a run, or start a new one",
        )
    if not _alike(run.header, header):
        raise UsageError(
            f"run {run.id} is of another source, configuration or policy",
            hint="leave --run out to start a new one",
        )
    return run


def _alike(one: RunHeader, other: RunHeader) -> bool:
    names = ("name", "commit", "tree", "uncommitted", "config_digest", "policy_digest")
    return all(getattr(one, n) == getattr(other, n) for n in (*names, "builder_id"))


def _named(header: RunHeader, run_id: str) -> RunHeader:
    return replace(header, id=run_id)
