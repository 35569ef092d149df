"""What stages need from the world, as small interfaces with typed requests and answers.

Real implementations live in tools/, keys/ and adapters/; wiring.py chooses them. Each port
has a contract suite (tests/contracts) that its fake and its real implementation both pass.
"""

from __future__ import annotations

from secure_pipeline.ports.canary import Alert, Metrics, Router, Routing, Series
from secure_pipeline.ports.keys import AnySigner, Certified, IdentityVerifier, KeylessSigner, Signer
from secure_pipeline.ports.ledger import Ledger, SecretUse
from secure_pipeline.ports.runtime import ChangedFile, ContainerKind, RunningContainer, Runtime
from secure_pipeline.ports.stages import (
    AnalysisReport,
    AnalysisRequest,
    Analyzer,
    BaseImage,
    Builder,
    BuildFailed,
    BuildOutcome,
    BuildRequest,
    BuildStep,
    Database,
    Scanner,
    ScanReport,
    ScanRequest,
    Source,
    SourceState,
    TestOutcome,
    TestRequest,
    TestRunner,
    ToolIdentity,
)
from secure_pipeline.ports.time import Clock

__all__ = [
    "Alert",
    "AnalysisReport",
    "AnalysisRequest",
    "Analyzer",
    "AnySigner",
    "BaseImage",
    "BuildFailed",
    "BuildOutcome",
    "BuildRequest",
    "BuildStep",
    "Builder",
    "Certified",
    "ChangedFile",
    "Clock",
    "ContainerKind",
    "Database",
    "IdentityVerifier",
    "KeylessSigner",
    "Ledger",
    "Metrics",
    "Router",
    "Routing",
    "RunningContainer",
    "Runtime",
    "ScanReport",
    "ScanRequest",
    "Scanner",
    "SecretUse",
    "Series",
    "Signer",
    "Source",
    "SourceState",
    "TestOutcome",
    "TestRequest",
    "TestRunner",
    "ToolIdentity",
]
