"""A ValidatingAdmissionPolicy: what the CRD's own rules cannot see of a change.

CEL in a CRD has no schema for free values, and of two mappings of them compares only the names that
both have, so that a renamed parameter escapes it. A policy reads the objects without a schema.
"""

from typing import Any

from fedoperator.api import GROUP, VERSION
from fedoperator.api.changes import IS_FIXED
from fedoperator.api.training import PLURAL

NAME = f"{PLURAL}.{GROUP}"

_API = "admissionregistration.k8s.io/v1"
_STARTED = "has(oldObject.status) && has(oldObject.status.round)"

FREE = ("parameters", "personalization.fineTune.parameters")
"""Fields of the spec with values of any kind, which are fixed once the training has started."""


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """The policy and its binding, for the whole cluster, like the CRDs."""
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [GROUP],
                    "apiVersions": [VERSION],
                    "operations": ["UPDATE"],
                    "resources": [PLURAL],
                }
            ]
        },
        "matchConditions": [{"name": "started", "expression": _STARTED}],
        "validations": [
            {
                "expression": f"{_optional('object', field)} == {_optional('oldObject', field)}",
                "message": f"spec.{field}: {IS_FIXED}",
                "reason": "Invalid",
            }
            for field in FREE
        ],
    }
    binding = {"policyName": NAME, "validationActions": ["Deny"]}
    return _document("ValidatingAdmissionPolicy", spec), _document(
        "ValidatingAdmissionPolicyBinding", binding
    )


def _optional(root: str, field: str) -> str:
    """CEL: the field below spec, or that there is none."""
    return f"{root}.spec.?" + ".?".join(field.split("."))


def _document(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": NAME}, "spec": spec}
