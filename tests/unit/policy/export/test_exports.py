"""Exports as texts: what was reviewed, what the platforms' schemas say, what is refused."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.jsonschema import fits
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.interop.admission import kyverno_cosign, policy_controller
from secure_pipeline.interop.model import Answer
from secure_pipeline.interop.sight import Sight
from secure_pipeline.keys.verify import load_any_public_key
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import MANIFEST_TYPE, Descriptor
from secure_pipeline.policy.document import load
from secure_pipeline.policy.export import github, kubernetes, kyverno, policycontroller
from secure_pipeline.policy.export.release import release

GOLDEN = Path(__file__).resolve().parents[3] / "golden/export"
SCHEMAS = Path(__file__).resolve().parents[3] / "assets/export"
EXPORTS: dict[str, str] = runpy.run_path(str(GOLDEN / "generate.py"))["exports"]()


def schema(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return value


def exported(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(EXPORTS[name]))


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_exports_are_the_reviewed_ones(name: str) -> None:
    """The same policy gives the same bytes as tests/golden/export/generate.py wrote."""
    assert EXPORTS[name] == (GOLDEN / name).read_text()


def test_no_export_is_left_over() -> None:
    """Every file beside the generator is one of its own."""
    found = {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()}
    assert {name for name in found if "/" in name and "__pycache__" not in name} == set(EXPORTS)


def test_kyverno_fits_its_schema() -> None:
    """Members and types are those of kyverno.io/v1 in Kyverno 1.15."""
    (policy,) = exported("kyverno/cluster-policy.yaml")
    (verify,) = policy["spec"]["rules"][0]["verifyImages"]
    for attestation in verify["attestations"]:
        for condition in attestation.get("conditions", [{"all": []}])[0]["all"]:
            if isinstance(condition["value"], list):  # any JSON may stand here
                condition["value"] = condition["value"][0]
    fits(schema("kyverno"), policy)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("ruleset-branch.json", "github-ruleset"), ("ruleset-tags.json", "github-ruleset"),
        ("environment.json", "github-environment"), ("environment-tags.json", "github-tags"),
    ],
)  # fmt: skip
def test_github_fits_its_schema(file: str, name: str) -> None:
    """Members and types are those of the REST API."""
    document = json.loads(EXPORTS[f"github/{file}"])
    fits(schema(name), document)
    for rule in document.get("rules", ()):
        known = schema(name)["$defs"].get(rule["type"])
        assert (known is None) == ("parameters" not in rule)
        if known:
            fits(known, rule["parameters"])


def test_kyverno_is_told_what_interop_says_that_it_needs() -> None:
    """Without these settings it would refuse every one of our attestations."""
    (policy,) = exported("kyverno/cluster-policy.yaml")
    (verify,) = policy["spec"]["rules"][0]["verifyImages"]
    assert verify["type"] == "Cosign"
    keys = [
        entry["keys"]
        for attestation in verify["attestations"]
        for attestors in attestation["attestors"]
        for entry in attestors["entries"]
        if "keys" in entry
    ]
    assert keys
    for entry in keys:
        key = load_any_public_key("one", entry["publicKeys"].encode())
        needs = kyverno_cosign(nothing(), key).needs
        told = {
            f"rekor.ignoreTlog: {str(entry['rekor']['ignoreTlog']).lower()}",
            f"ctlog.ignoreSCT: {str(entry['ctlog']['ignoreSCT']).lower()}",
            f"signatureAlgorithm: {entry['signatureAlgorithm']}",
        }
        assert set(needs) <= told


def test_policy_controller_is_told_what_interop_says_that_it_needs() -> None:
    """No log is asked about keys' signatures, and the digest fits the curve."""
    for policy in exported("policy-controller/cluster-image-policies.yaml"):
        for authority in policy["spec"]["authorities"]:
            if "key" not in authority:
                continue
            key = load_any_public_key("one", authority["key"]["data"].encode())
            needs = policy_controller(nothing(), key).needs
            assert "ctlog" not in authority
            algorithm = authority["key"].get("hashAlgorithm", "sha256")
            assert set(needs) <= {"no ctlog in the authority", f"key.hashAlgorithm: {algorithm}"}


def nothing() -> Sight:
    """An image with nothing beside it."""
    image = Descriptor(MANIFEST_TYPE, Digest.of(b""), 1)
    return Sight(image, (), Answer.NO, None, signed=False)


def test_what_is_not_enforced_stands_in_the_file() -> None:
    """Nobody takes an admission policy for the whole."""
    for name in ("kyverno/cluster-policy.yaml", "policy-controller/cluster-image-policies.yaml"):
        head = [line for line in EXPORTS[name].splitlines() if line.startswith("# - ")]
        for what in ("one run", "seal", "quarantine", "key release-2027", "max-age", "gates"):
            assert any(line.startswith(f"# - {what}") for line in head), what


@pytest.mark.parametrize("image", ["", "a b", "a\nb", "x/{{ y }}", "x/[a]"])
def test_image_patterns_are_the_platforms_own(image: str) -> None:
    """No pattern brings YAML, a variable or another language along."""
    wanted = release(load(GOLDEN / "policy.yaml"), [image], "release")
    for files in (policycontroller.files, kyverno.files):
        with pytest.raises(UsageError):
            files(wanted)


def test_kyverno_trusts_no_other_root_than_the_policy(tmp_path: Path) -> None:
    """Identities by a trust root of the policy's own cannot be said: refused, not widened."""
    path = tmp_path / "policy.yaml"
    path.write_text((GOLDEN / "policy.yaml").read_text() + "trust-root: root.json\n")
    wanted = release(load(path), ["x/*"], "release")
    with pytest.raises(ConfigError, match="trust-root"):
        kyverno.files(wanted)
    (text,) = policycontroller.files(wanted).values()
    keyless = [
        authority
        for policy in yaml.safe_load_all(text)
        for authority in policy["spec"]["authorities"]
        if "keyless" in authority
    ]
    assert keyless
    for authority in keyless:
        assert authority["keyless"]["trustRootRef"] == authority["ctlog"]["trustRootRef"]
        assert "url" not in authority["ctlog"]


def test_kubernetes_gives_no_role_what_makes_others() -> None:
    """No wildcard, no secret, no rights over roles but to read them, in any role."""
    assert not [d for d in exported("kubernetes/roles.yaml") if "promoter" in d["metadata"]["name"]]
    pods = {"promoter": ("serviceaccount:runs:promote",)}
    more = kubernetes.files(kubernetes.KubernetesRoles("shop", "runs", ("web",), pods))
    promoter = [d for d in yaml.safe_load_all(more[kubernetes.FILE])
                if d["metadata"]["name"].endswith("promoter")]  # fmt: skip
    assert [(d["kind"], d["metadata"]["namespace"]) for d in promoter] == [
        ("Role", "shop"), ("RoleBinding", "shop")
    ]  # fmt: skip
    for document in (*exported("kubernetes/roles.yaml"), *promoter):
        for rule in document.get("rules", ()):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"secrets", "serviceaccounts", "pods/exec"} & set(rule["resources"])
            if "roles" in rule["resources"]:
                assert set(rule["verbs"]) <= {"get", "list"}
            if "patch" in rule["verbs"]:
                assert rule["resourceNames"]


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": "shop"}, {"namespace": "Shop"}, {"runs": ""}, {"routes": ("a/b",)},
        {"prefix": "a b"}, {"subjects": {"engineer": ("somebody",)}},
        {"subjects": {"engineer": ("group:",)}}, {"subjects": {"operator": ("serviceaccount:a",)}},
        {"subjects": {"operator": ("root:x",)}}, {"subjects": {"operator": ("user:a b",)}},
        {"subjects": {"promoter": ("user:x",)}},
    ],
)  # fmt: skip
def test_kubernetes_refuses_what_is_no_name(changes: dict[str, Any]) -> None:
    """Wrong names, an unknown kind of person, and one namespace for both."""
    values = {"namespace": "shop", "runs": "runs", "routes": (), "subjects": {}, **changes}
    with pytest.raises(UsageError):
        kubernetes.files(kubernetes.KubernetesRoles(**values))


@pytest.mark.parametrize(
    "changes",
    [
        {"owners": ()}, {"owners": ("someone",)}, {"owners": ("@a b",)}, {"owners": ("@a\n* @b",)},
        {"reviewers": ()}, {"reviewers": ("team:0",)}, {"reviewers": ("kim",)},
        {"reviewers": tuple(f"user:{n}" for n in range(1, 8))}, {"checks": ("a\n",)},
        {"checks": ()}, {"paths": ("/a b",)}, {"paths": ("# x",)}, {"paths": ()},
        {"tags": "v 1"}, {"environment": "../x"}, {"approvals": 0}, {"approvals": 11},
    ],
)  # fmt: skip
def test_github_refuses_what_it_would_read_otherwise(changes: dict[str, Any]) -> None:
    """Nobody, nothing, and text that would become another line or rule."""
    values = {
        "owners": ("@team/reviewers",), "reviewers": ("team:1",), "checks": ("test",),
        "paths": ("/policies/",), **changes,
    }  # fmt: skip
    with pytest.raises(UsageError):
        github.GithubRules(**values)
