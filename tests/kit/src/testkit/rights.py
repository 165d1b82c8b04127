"""Rights one by one: which ones the chart grants, and which ones the API server saw used, by its audit log.

A right that is granted and never used is one too many; what is used and not granted is refused. So the two
are the same, or the chart is wrong, or a behaviour is missing that shows what the right is for.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from workload_identity_operator import contract
from workload_identity_operator.check.cluster import Right

_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # A watch is written down when it begins, all else when it is answered.
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}
_CREATED: Final = 201
_OK: Final = 200
_FORBIDDEN: Final = 403
_PARAMETRISED: Final = frozenset({"mutatingadmissionpolicies", "mutatingadmissionpolicybindings"})


def rule_of(right: Right) -> dict[str, Any]:
    """Return a right as a rule of a role."""
    names = {"resourceNames": [right.name]} if right.name else {}
    return {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb], **names}


def rights_of(role: Mapping[str, Any]) -> list[Right]:
    """Return the rights of a Role or ClusterRole, one by one."""
    namespace = role["metadata"].get("namespace", "")
    return [
        Right(verb, group, resource, name, namespace)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    ]


def roles_of(objects: Iterable[Mapping[str, Any]], account: str) -> list[Mapping[str, Any]]:
    """Return the roles among rendered objects that a ServiceAccount has by the bindings among them."""
    found = list(objects)
    roles = {_key(one): one for one in found if one["kind"] in {"Role", "ClusterRole"}}
    return [
        roles[(one["roleRef"]["kind"], one["roleRef"]["name"], one["metadata"].get("namespace", ""))]
        for one in found
        if one["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        if account in {subject["name"] for subject in one["subjects"]}
    ]


def _key(role: Mapping[str, Any]) -> tuple[str, str, str]:
    return role["kind"], role["metadata"]["name"], role["metadata"].get("namespace", "")


class AuditLog:
    """What an API server writes down of ServiceAccounts' requests.

    Attributes:
        arguments: For kube-apiserver's command line.
    """

    def __init__(self, folder: Path) -> None:
        """Have it written in a folder."""
        self._log = folder / "audit.log"
        policy = folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(_POLICY), encoding="utf-8")
        self.arguments: Sequence[str] = (
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self._log}",
            "--audit-log-maxsize=0",
        )

    def end(self) -> int:
        """Return how much is written by now, for `uses`."""
        return self._log.stat().st_size if self._log.exists() else 0

    def uses(self, user: str, since: int = 0) -> Iterator[tuple[Right, int]]:
        """Yield what a user did since then, and the status of each answer.

        What needs another right too, which no verb tells, yields that as well: server-side apply of what was
        not there, to create it; to write a policy or its binding, to read the parameters.
        """
        for event in self._events(user, since):
            status = event.get("responseStatus", {}).get("code", 0)
            used = _right(event["verb"], event["objectRef"])
            yield used, status
            if used.verb == "patch" and status == _CREATED:
                yield _right("create", event["objectRef"]), status
            if used.resource in _PARAMETRISED and used.verb == "patch" and status in {_OK, _CREATED}:
                yield Right("get", contract.POD_WIRING_GROUP, contract.POD_WIRINGS), status

    def forbidden(self, user: str, since: int = 0) -> list[str]:
        """Return what was refused for want of a right; not what is refused to everybody."""
        refused = (event for event in self._events(user, since) if _wants_a_right(event))
        return sorted({str(_right(event["verb"], event["objectRef"])) for event in refused})

    def _events(self, user: str, since: int) -> Iterator[Mapping[str, Any]]:
        with self._log.open("rb") as lines:
            lines.seek(since)
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # it is being written
                event = json.loads(line)
                if event["user"]["username"] == user and "objectRef" in event:
                    yield event


def _wants_a_right(event: Mapping[str, Any]) -> bool:
    status = event.get("responseStatus", {})
    return status.get("code") == _FORBIDDEN and "being terminated" not in status.get("message", "")


def _right(verb: str, what: Mapping[str, str]) -> Right:
    parts = "/".join(filter(None, (what["resource"], what.get("subresource"))))
    return Right(verb, what.get("apiGroup", ""), parts, what.get("name", ""), what.get("namespace", ""))
