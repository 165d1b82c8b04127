"""Objects of a cluster as kubectl names them, over REST: a kubectl for each costs a hundred times as much.

What is not understood here is left to kubectl, as is telling what went wrong.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

from kubernetes.client import ApiClient

Json = dict[str, Any]

_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class NotUnderstood(Exception):  # noqa: N818 - it reads as what happened
    """Only kubectl knows what to do with it."""


class Refused(Exception):  # noqa: N818 - it reads as what happened
    """The API server refuses; the message is its own."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the objects of a kind are.

    Attributes:
        base: Path of its group and version, "/apis/apps/v1".
        plural: Its name in paths.
        kind: That of one object.
        namespaced: Whether its objects are in namespaces.
    """

    base: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """That of one object, "apps/v1"."""
        return self.base.removeprefix("/apis/").removeprefix("/api/")

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the path of one object, or of all of a namespace; None stands for all namespaces."""
        inside = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace is not None else ""
        return f"{self.base}{inside}/{self.plural}" + (f"/{quote(name)}" if name else "")


class Resources:
    """Gets and creates them as the administrator."""

    def __init__(self, client: ApiClient, server: str) -> None:
        self._client: Any = client  # its inside has no types
        self._server = server
        self._named: dict[str, Resource] = {}
        self._of_kind: dict[tuple[str, str], Resource] = {}

    def get(self, arguments: Sequence[str]) -> Json:
        """Return what `kubectl get` with these arguments returns as JSON.

        Raises:
            NotUnderstood: Let kubectl do it; also when there is no such object, which it says best.
        """
        asked = _understood(arguments)
        resource = self._resource(asked.kind)
        query = {"labelSelector": asked.selector, "fieldSelector": asked.field_selector}
        namespace = None if asked.all_namespaces else asked.namespace
        path = resource.path(namespace, asked.name)
        parameters = urlencode({key: value for key, value in query.items() if value})
        status, found = self._call("GET", f"{path}?{parameters}" if parameters else path)
        if status != 200:
            raise NotUnderstood
        if asked.name:
            return _shown(found, managed=asked.show_managed_fields)
        # A list does not say of each what it is.
        about = {"apiVersion": resource.api_version, "kind": resource.kind}
        items = [_shown(about | item, managed=asked.show_managed_fields) for item in found["items"]]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def create(self, manifest: Mapping[str, Any], namespace: str, arguments: Sequence[str]) -> Json:
        """Create an object, in this namespace if it names none, and return it as stored.

        Args:
            manifest: The object.
            namespace: For objects that are in one.
            arguments: At most `--dry-run=server`.

        Raises:
            NotUnderstood: Let kubectl do it.
            Refused: The API server does not want it.
        """
        if set(arguments) - {"--dry-run=server"} or "items" in manifest:
            raise NotUnderstood
        resource = self._by_kind(str(manifest.get("apiVersion")), str(manifest.get("kind")))
        metadata = manifest.get("metadata") or {}
        path = resource.path(metadata.get("namespace") or namespace)
        query = "fieldManager=kubectl-create&fieldValidation=Strict" + ("&dryRun=All" if arguments else "")
        status, answer = self._call("POST", f"{path}?{query}", body=manifest)
        if status != 201:
            raise Refused(answer.get("message", f"status {status}"))
        return _shown(answer, managed=False)

    def _resource(self, name: str) -> Resource:
        if name not in self._named:
            self._discover()
        if name not in self._named:
            raise NotUnderstood
        return self._named[name]

    def _by_kind(self, api_version: str, kind: str) -> Resource:
        if (api_version, kind) not in self._of_kind:
            self._discover()
        if (api_version, kind) not in self._of_kind:
            raise NotUnderstood
        return self._of_kind[api_version, kind]

    def _discover(self) -> None:
        """Ask for all kinds; a name that two groups have is the earlier one's."""
        self._named.clear()
        self._of_kind.clear()
        for root in ("/api", "/apis"):
            _, groups = self._call("GET", root, accept=_DISCOVERY)
            for group in groups.get("items", ()):
                name = group["metadata"].get("name", "")
                for version in group["versions"]:
                    base = f"{root}/{name}/{version['version']}" if name else f"{root}/{version['version']}"
                    for found in version.get("resources", ()):
                        self._take(base, name, found)

    def _take(self, base: str, group: str, found: Json) -> None:
        kind, plural = found["responseKind"]["kind"], found["resource"]
        resource = Resource(base, plural, kind, found["scope"] == "Namespaced")
        self._of_kind.setdefault((resource.api_version, kind), resource)
        names = {plural, found.get("singularResource"), *found.get("shortNames", ()), kind.lower()}
        for known in filter(None, names):
            self._named.setdefault(known, resource)
            if group:
                self._named.setdefault(f"{known}.{group}", resource)

    def _call(
        self, method: str, path: str, *, accept: str = "application/json", body: object = None
    ) -> tuple[int, Json]:
        headers = {**self._client.default_headers, "Accept": accept, "Content-Type": "application/json"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        answer = self._client.rest_client.request(method, self._server + path, headers=headers, body=body)
        text = answer.read()
        try:
            found: Json = json.loads(text)
        except ValueError:
            raise NotUnderstood from None
        return answer.status, found


def _shown(found: Json, *, managed: bool) -> Json:
    """Return an object as kubectl shows it."""
    if not managed:
        found.get("metadata", {}).pop("managedFields", None)
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise NotUnderstood(message)


def _understood(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("kind")
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("-l", "--selector", default="")
    parser.add_argument("--field-selector", default="")
    parser.add_argument("--show-managed-fields", action="store_true")
    asked = parser.parse_args(list(arguments))
    if "/" in asked.kind or "," in asked.kind:
        raise NotUnderstood
    return asked
