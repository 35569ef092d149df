"""The listener as it is rendered: what an event may say, and what becomes of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from fakes.renderedplan import inside
from secure_pipeline.plan import tekton
from secure_pipeline.plan.model import the_plan
from secure_pipeline.plan.tekton_access import EXPIRES
from secure_pipeline.plan.tekton_triggers import SECRET, condition
from secure_pipeline.trigger import MAX_VALUE, PATTERNS, SIGNATURE

FILES = tekton.render(the_plan())
LISTENER = "tekton/triggers/listener.yaml"


def listener(kind: str) -> dict[str, Any]:
    (found,) = (d for d in yaml.safe_load_all(FILES[LISTENER]) if d["kind"] == kind)
    return dict(found["spec"])


def test_the_signature_is_checked_first() -> None:
    """One trigger; its interceptors are the signature, by a Secret, and then the filter."""
    (trigger,) = listener("EventListener")["triggers"]
    first, second = trigger["interceptors"]
    assert (first["ref"]["name"], second["ref"]["name"]) == ("github", "cel")
    assert first["params"] == [
        {"name": "secretRef", "value": {"secretName": SECRET, "secretKey": "secret"}}
    ]
    assert second["params"][0] == {"name": "filter", "value": condition()}


def test_every_member_is_held_against_its_form() -> None:
    """The filter names each member of an event with its pattern, its length, and no other one."""
    said = condition()
    for name, pattern in PATTERNS.items():
        assert f"body.{name}.matches(r'^{pattern}$')" in said
    assert f"['type', {', '.join(map(repr, PATTERNS))}] && size(body[k]) <= {MAX_VALUE}" in said
    assert "compareSecret('audience'" in said
    assert f"header.canonical('{SIGNATURE}').matches('^sha256=" in said


@pytest.mark.parametrize("pattern", PATTERNS.values())
def test_a_pattern_means_the_same_in_re2(pattern: str) -> None:
    """Nothing that Go's expressions do not have: no lookaround, no reference, no long repeat."""
    assert not re.search(r"\(\?|\\[1-9A-Zbdsw]|[*+?}]\+", pattern)
    assert all(int(number) <= 1000 for number in re.findall(r"\{(?:\d+,)?(\d+)\}", pattern))
    assert "'" not in pattern


def test_a_run_gets_what_was_checked_and_nothing_else() -> None:
    """Values are those that the filter has read, and only take the place of a parameter's."""
    given = {item["name"]: item["value"] for item in listener("TriggerBinding")["params"]}
    assert given == {name: f"$(extensions.{name})" for name in given}
    template = listener("TriggerTemplate")
    assert [item["name"] for item in template["params"]] == list(given)
    (run,) = template["resourcetemplates"]
    places = [value for part in inside(run) for value in part.values() if "$(" in str(value)]
    texts = [value for value in places if isinstance(value, str)]
    assert sorted(texts) == sorted(
        ["promote-$(tt.params.id)", *(f"$(tt.params.{n})" for n in given if n != "id")]
    )


def test_the_run_is_the_one_to_start_from() -> None:
    """But for its name, its end and the two parameters it is tekton/runs/promote.yaml."""
    (run,) = listener("TriggerTemplate")["resourcetemplates"]
    own = yaml.safe_load(FILES["tekton/runs/promote.yaml"])
    assert run["metadata"].pop("annotations") == {EXPIRES: "$(tt.params.expires)"}
    run["metadata"] = own["metadata"]
    for made, known in zip(run["spec"]["params"], own["spec"]["params"], strict=True):
        if made["name"] in ("image", "target"):
            made["value"] = known["value"]
    assert run == own


def test_no_secret_is_rendered() -> None:
    """The secret and the address are the cluster's: no file has either."""
    for path, text in FILES.items():
        assert "kind: Secret\n" not in text, path
    pod = listener("EventListener")["resources"]["kubernetesResource"]["spec"]["template"]["spec"]
    assert set(pod["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}
