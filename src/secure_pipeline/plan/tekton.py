"""The plan as Tekton runs it: a Task a stage, Pipelines, and runs to start from.

Steps have a command and no script, and a parameter only ever is one argument of its own or the
value of a variable: no shell reads any of them (CI-07). What a stage found goes to the next one
by results, which Tekton takes from the pod itself and nobody else can write; the files in the
workspace are held against them. Source: Tekton Pipelines 1.0, docs/tasks.md and pipelines.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_pipeline.plan import tekton_access, tekton_triggers
from secure_pipeline.plan.model import PROGRAM, Plan
from secure_pipeline.plan.tekton_around import (
    FETCH,
    REPORT,
    ROLL_BACK,
    fetch_task,
    report_task,
    roll_back_task,
)
from secure_pipeline.plan.tekton_pipelines import (
    BUILD,
    PROMOTE,
    build_pipeline,
    promote_pipeline,
)
from secure_pipeline.plan.tekton_runs import build_run, memory_claim, promote_run
from secure_pipeline.plan.tekton_tasks import about, task
from secure_pipeline.plan.tekton_text import text

IMAGE = f"registry.example/{PROGRAM}@sha256:{'0' * 64}"
"""Of the steps where a run names no other. Nothing is there: an overlay or a run says which."""
_START = "A run to start from: kubectl create -f, with names of your own."


def render(plan: Plan, image: str = IMAGE) -> Mapping[str, str]:
    """Return texts by path below the repository; ``image`` is that of the steps."""
    objects = {
        **{f"tasks/{stage.name}": text(about(stage), task(stage, image)) for stage in plan.stages},
        f"tasks/{FETCH}": text(
            ("The source, before the stages; it is no stage itself.",), fetch_task(image)
        ),
        f"tasks/{REPORT}": text(("What happened in a run, whatever it was.",), report_task(image)),
        f"tasks/{ROLL_BACK}": text(
            (
                "After a promotion whose step failed, was killed or took too long: traffic does not"
                " stay where it happened to be.",
            ),
            roll_back_task(plan.stage("promote"), image),
        ),
        f"pipelines/{BUILD}": text(
            ("All stages; what a stage needs ended well, or it does not start.",),
            build_pipeline(plan, image),
        ),
        f"pipelines/{PROMOTE}": text(
            ("An image that is signed and in a registry, wherever it was built: to its traffic.",),
            promote_pipeline(plan, image),
        ),
        "volumes/promotions": text(
            (
                "What promotions leave for later ones of the same target: what is known to be good"
                " or bad, what is unfinished, and the lock that keeps two apart. A claim of its"
                " own, because it outlives runs; of one node at a time, because of the lock.",
            ),
            memory_claim(),
        ),
    }
    runs = {BUILD: build_run(plan), PROMOTE: promote_run(plan)}
    return {
        **{f"tekton/{name}.yaml": content for name, content in objects.items()},
        **{f"tekton/runs/{name}.yaml": text((_START,), run) for name, run in runs.items()},
        **tekton_access.files([f"{name}.yaml" for name in objects]),
        **tekton_triggers.files(runs[PROMOTE]),
    }
