"""Edge: the few calls to the API server that kopf does not make for us."""

import json
import os
import re
import secrets
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import kopf
import orjson
import yaml

from workload_identity_operator import __version__, contract
from workload_identity_operator.errors import SettingsInvalid, quoted
from workload_identity_operator.shapes import Json

SERVICE_ACCOUNTS: Final = "/api/v1/serviceaccounts"
PAGE: Final = 2_000
"""Objects a listing asks for at a time. Each page costs the API server time in proportion to all there are:
for 100,000 it takes 12 s of CPU with pages of 250, 2 s with these. All at once would cost memory here."""
PODS_AT_ONCE: Final = 100
"""Whole ones: many are a moment in which no review is answered, and megabytes."""
MOST_PODS_AT_ONCE: Final = 500
"""Where there are so many that pages of those cost the API server too much; see `PAGE`."""
_PAGE_OF_OBJECTS: Final = 20
"""Whole ones, which can be large."""
FIELD_MANAGER: Final = "workload-identity-operator"
HAND_OFF_MANAGER: Final = f"{FIELD_MANAGER}-hand-off"
"""Field manager of what a policy's binding says of the peer."""

_IN_CLUSTER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Names and annotations are all we read: half the bytes, a tenth of the memory.
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLY: Final = "application/apply-patch+yaml"
_ESCAPED: Final = re.compile("[\x7f-\uffff]")
_POD_WIRING: Final = {"apiVersion": contract.POD_WIRING_API, "kind": "PodWiring"}
_WATCH: Final = 5 * 60
"""Seconds that a watch lasts; then all is listed anew."""
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_WEBHOOKS: Final = f"/apis/{_ADMISSION}/mutatingwebhookconfigurations"
_BINDINGS: Final = f"/apis/{_ADMISSION}/mutatingadmissionpolicybindings"


class ApiError(Exception):
    """The API server refused, or could not be reached.

    Attributes:
        status: HTTP status; 0 when there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which API server, and how to open a session with it.

    Attributes:
        server: Base URL.
        open: Returns a new session that carries our credentials, whose answers are of the class given;
            the caller closes it.
    """

    server: str
    open: Callable[[type[aiohttp.ClientResponse]], aiohttp.ClientSession]


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret, whose data no `repr` shows.

    Attributes:
        data: As they are.
        version: Its resourceVersion; "" for one that is not stored yet.
        annotations: All of them.
        labels: All of them.
    """

    data: Mapping[str, bytes] = field(repr=False)
    version: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]


def find_cluster(kubeconfig: Path | None) -> Cluster:
    """Return the cluster to work in: the file named, `KUBECONFIG`, our own pod's, `~/.kube/config`.

    Raises:
        SettingsInvalid: There is none, or its kubeconfig cannot be used.
    """
    token = _IN_CLUSTER / "token"
    if kubeconfig is None and not os.environ.get("KUBECONFIG") and token.is_file():
        host, port = (
            os.environ.get("KUBERNETES_SERVICE_HOST", ""),
            os.environ.get("KUBERNETES_SERVICE_PORT", ""),
        )
        trust = ssl.create_default_context(cafile=_IN_CLUSTER / "ca.crt")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        return Cluster(server, lambda answers: _session(trust, answers, middleware=_bearer_from(token)))
    if kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(kubeconfig)  # where kopf's reader looks
    info = _from_kubeconfig()
    trust = info.as_ssl_context()
    return Cluster(info.server, lambda answers: _session(trust, answers, headers=info.as_http_headers()))


def _from_kubeconfig() -> kopf.ConnectionInfo:
    """Return what the kubeconfig says of its current context."""
    info = None
    try:
        info = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
        fault = _fault_of(info)
    except yaml.MarkedYAMLError as error:
        # Its own message quotes the file, in which there are tokens and keys.
        fault = (
            f"kubeconfig: is no YAML, see its line {error.problem_mark.line + 1 if error.problem_mark else 1}"
        )
    except (OSError, LookupError, TypeError, AttributeError, ValueError, kopf.LoginError) as error:
        fault = f"kubeconfig: cannot be used: {_why_unusable(error)}"
    if fault or info is None:
        raise SettingsInvalid([fault or "kubeconfig: has no cluster"])
    return info


def _why_unusable(error: Exception) -> str:
    """Return why a kubeconfig, as kopf reads one, has no cluster; nothing of what is in it but names."""
    match error:
        case OSError(filename=str(name)):
            return f"{quoted(name)}: {error.strerror}"
        case KeyError():
            return f"has no {quoted(str(error.args[0]))}, a context, cluster, user or field that it needs"
        case UnicodeDecodeError():
            return "is no text in UTF-8"
        case kopf.LoginError():
            return "no current-context: set one by kubectl config use-context"
    return "wanted a mapping with contexts, clusters and users, as kubectl writes it"


def _fault_of(info: kopf.ConnectionInfo | None) -> str | None:
    """Return why one cannot work with what was found; None when one can."""
    if info is None or not info.server:
        return "no cluster: name one by --kubeconfig or KUBECONFIG, or run in a pod with a ServiceAccount"
    if not str(info.server).startswith(("https://", "http://")):
        return f"kubeconfig: its server is {quoted(str(info.server))}: wanted https://HOST:PORT"
    if not (info.token or info.username or info.certificate_path or info.certificate_data):
        return (
            "kubeconfig: its user has no token, certificate or password: programs that fetch one (exec) "
            "are not run; use a kubeconfig with a ServiceAccount's token"
        )
    for name in ("ca_data", "certificate_data", "private_key_data"):
        try:
            # A lenient decoder makes nothing of what is no base64, and nothing as authority trusts anyone.
            b64decode(getattr(info, name) or "", validate=True)
        except ValueError:
            return f"kubeconfig: {name.replace('_', '-')} is no base64"
    try:
        info.as_ssl_context()
    except OSError as error:
        return f"kubeconfig: a certificate or key of it cannot be read: {error.strerror or error}"
    return None


def _session(
    trust: ssl.SSLContext,
    answers: type[aiohttp.ClientResponse],
    headers: Mapping[str, str] | None = None,
    middleware: aiohttp.ClientMiddlewareType | None = None,
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trust),
        headers={"User-Agent": f"workload-identity-operator/{__version__}", **(headers or {})},
        middlewares=(middleware,) if middleware else (),
        response_class=answers,
    )


def _bearer_from(path: Path) -> aiohttp.ClientMiddlewareType:
    """Return what puts the token of a file on each request: the kubelet renews it under us."""

    async def bearer(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        token = path.read_text(encoding="ascii")  # noqa: ASYNC240 - a small file in memory
        request.headers["Authorization"] = f"Bearer {token.strip()}"
        return await handler(request)

    return bearer


class KubeApi:
    """The calls: what the operator reads and follows, and the few objects that it writes."""

    def __init__(
        self,
        server: str,
        session: aiohttp.ClientSession,
        on_answer: Callable[[str, str, int], None] = lambda *_: None,
    ) -> None:
        """Start without a call.

        Args:
            server: Base URL.
            session: Carries our credentials.
            on_answer: Told host and port, HTTP method and HTTP status of each request; 0 when there was
                no answer.
        """
        self._server = server.rstrip("/")
        self._session = session
        self._on_answer = partial(on_answer, urlsplit(server).netloc)
        self._told_time: tuple[str, float] | None = None

    def now(self) -> datetime:
        """Return the time by the API server's clock, time zone UTC; by ours until it has told.

        It is what certificates are judged by when it calls us; ours may be wrong, and may jump.
        """
        if self._told_time is not None:
            told, at = self._told_time
            try:
                return parsedate_to_datetime(told).astimezone(UTC) + timedelta(seconds=monotonic() - at)
            except ValueError:
                pass  # somebody between us writes dates of his own
        return datetime.now(UTC)

    async def version(self) -> str:
        """Return the API server's `gitVersion`; "" when it tells none.

        Raises:
            ApiError: It could not be asked.
        """
        return str((await self._call("GET", "/version")).get("gitVersion", ""))

    async def service_account(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return a ServiceAccount's annotations; None when there is no such one.

        Raises:
            ApiError: It could not be asked.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        found = await self.get(path, accept=_METADATA)
        return None if found is None else found["metadata"].get("annotations") or {}

    async def service_accounts(self) -> AsyncIterator[tuple[str, str, Mapping[str, str]]]:
        """Yield namespace, name and annotations of all ServiceAccounts of the cluster.

        Raises:
            ApiError: They could not be listed to the end.
        """
        following = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": following} if following else {})
            page = await self._call("GET", SERVICE_ACCOUNTS, query=query, accept=_METADATA_LIST)
            for item in page["items"] or ():
                meta = item["metadata"]
                yield meta["namespace"], meta["name"], meta.get("annotations") or {}
            following = page["metadata"].get("continue", "")
            if not following:
                return

    async def webhook_configuration(self, name: str) -> Json | None:
        """Return a MutatingWebhookConfiguration; None when there is no such one."""
        return await self.get(f"{_WEBHOOKS}/{name}")

    def webhook_configurations(self) -> AsyncIterator[tuple[str, Json]]:
        """Yield all MutatingWebhookConfigurations, then every change; see `changes`."""
        return self.changes(_WEBHOOKS)

    async def webhook_configurations_now(self) -> list[Json]:
        """Return all MutatingWebhookConfigurations that there are.

        Raises:
            ApiError: They could not be listed.
        """
        found: list[Json] = (await self._call("GET", _WEBHOOKS))["items"] or []
        return found

    def policy_binding(self, name: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield the MutatingAdmissionPolicyBinding of a name, then every change; see `changes`."""
        return self.changes(_BINDINGS, name)

    async def apply_hand_off(self, binding: Json, annotations: Json, spec: Json) -> Json | None:
        """Make these annotations and this part of its spec the hand-off that a binding says.

        Under a field manager of its own: in one apply with what is declared each would take the other away.

        Args:
            binding: As it was read.
            annotations: Those of the hand-off; others of it go.
            spec: What the hand-off sets; what else of it was there goes.

        Returns:
            It as stored; None when it is no longer what was read.
        """
        meta = {key: binding["metadata"][key] for key in ("name", "resourceVersion")}
        body = {
            "apiVersion": _ADMISSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": meta | {"annotations": annotations},
            "spec": spec,
        }
        try:
            return await self.apply(f"{_BINDINGS}/{meta['name']}", body, HAND_OFF_MANAGER)
        except ApiError as error:
            if error.status in {404, 409}:
                return None
            raise

    async def apply_ca_bundle(self, configuration: Json, webhooks: Iterable[str], bundle: bytes) -> bool:
        """Set the caBundle of the named webhooks of a configuration, and own nothing else of it.

        Server-side apply under a field manager of our own: what the chart or a GitOps tool applies stays
        theirs. False when the configuration is no longer what was read, which then is to be looked at anew.
        """
        ca_bundle = b64encode(bundle).decode("ascii")
        meta = {key: configuration["metadata"][key] for key in ("name", "resourceVersion")}
        body = {
            "apiVersion": _ADMISSION,
            "kind": "MutatingWebhookConfiguration",
            "metadata": meta,
            "webhooks": [{"name": webhook, "clientConfig": {"caBundle": ca_bundle}} for webhook in webhooks],
        }
        try:
            await self.apply(f"{_WEBHOOKS}/{meta['name']}", body)
        except ApiError as error:
            if error.status in {404, 409}:
                return False
            raise
        return True

    async def apply_webhook(self, name: str, webhook: Json) -> Json:
        """Make a configuration have this webhook, by whose name it is known; return it as stored.

        Under a field manager of its own: in one apply with caBundle each would take the other away.
        """
        body = {
            "apiVersion": _ADMISSION,
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [webhook],
        }
        return await self.apply(f"{_WEBHOOKS}/{name}", body, f"{FIELD_MANAGER}-unlabelled")

    async def remove_webhook(self, configuration: Json, webhook: str) -> Json | None:
        """Take a webhook out of a configuration, whoever wrote what of it.

        Args:
            configuration: As it was read.
            webhook: Its name.

        Returns:
            The configuration as stored; None when it is no longer what was read.
        """
        names = [found["name"] for found in configuration["webhooks"]]
        path = f"{_WEBHOOKS}/{configuration['metadata']['name']}"
        return await self.remove(path, configuration, f"/webhooks/{names.index(webhook)}")

    async def remove(self, path: str, found: Json, part: str) -> Json | None:
        """Take a part out of the object there, whoever wrote what of it.

        Args:
            path: Of the object.
            found: It as it was read.
            part: A JSON pointer.

        Returns:
            The object as stored; None when it is no longer what was read.
        """
        version = found["metadata"]["resourceVersion"]
        body = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "remove", "path": part},
        ]
        try:
            return await self._call("PATCH", path, body=body, content="application/json-patch+json")
        except ApiError as error:
            if error.status in {404, 409, 422}:  # 422: the test says no
                return None
            raise

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret; None when there is no such one."""
        found = await self.get(f"{_secrets(namespace)}/{name}")
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None
        data = {key: b64decode(value or "") for key, value in (found.get("data") or {}).items()}
        meta = found["metadata"]
        return Secret(data, meta["resourceVersion"], meta.get("annotations") or {}, meta.get("labels") or {})

    def secrets(self, namespace: str, name: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield the Secret of a name, then every change; see `changes`."""
        return self.changes(_secrets(namespace), name)

    async def replace_secret(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, bytes],
        annotations: Mapping[str, str | None],
        version: str,
    ) -> bool:
        """Replace data and annotations (None: none) of a Secret if it is still of that resourceVersion.

        False when it is not.
        """
        body = {
            "metadata": {"resourceVersion": version, "annotations": dict(annotations)},
            "data": _encoded(data),
        }
        try:
            await self._call(
                "PATCH",
                f"{_secrets(namespace)}/{name}",
                body=body,
                content="application/merge-patch+json",
                query={"fieldManager": FIELD_MANAGER},
            )
        except ApiError as error:
            if error.status in {404, 409}:
                return False
            raise
        return True

    async def create_secret(self, namespace: str, name: str, secret: Secret) -> bool:
        """Create a Secret; False when there is one by now.

        By server-side apply, since rights can name the one Secret that may be applied, but not one that may
        be created. Two who do it at once are two field managers, of whom the second finds a conflict.
        """
        meta = {"name": name, "annotations": dict(secret.annotations), "labels": dict(secret.labels)}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "type": "Opaque",
            "data": _encoded(secret.data),
        }
        manager = f"{FIELD_MANAGER}-{secrets.token_hex(4)}"
        try:
            await self._call(
                "PATCH",
                f"{_secrets(namespace)}/{name}",
                query={"fieldManager": manager},
                body=body,
                content=_APPLY,
            )
        except ApiError as error:
            if error.status == 409:  # noqa: PLR2004 - Conflict
                return False
            raise
        return True

    def pod_wirings(self) -> AsyncIterator[tuple[str, Json]]:
        """Yield the PodWirings of our name, then every change; see `changes`."""
        path = f"/apis/{contract.POD_WIRING_API}/{contract.POD_WIRINGS}"
        return self.changes(path, contract.POD_WIRING_NAME)

    async def changes(self, path: str, name: str = "") -> AsyncIterator[tuple[str, Json]]:
        """Yield the objects of a collection, then each change, until the API server ends the watch.

        Args:
            path: Of the collection.
            name: Only objects of this name, in whatever namespace; "" is all of them.

        Yields:
            ("LISTED", object) for each there is; once ("SYNCED", {}); then "ADDED", "MODIFIED" or
            "DELETED" with the object.

        Raises:
            ApiError: They could not be listed or watched; status 404 when there is no such resource.
        """
        chosen = {"fieldSelector": f"metadata.name={name}"} if name else {}
        following = ""
        while True:
            query = {"limit": str(_PAGE_OF_OBJECTS)} | ({"continue": following} if following else {})
            page = await self._call("GET", path, query=chosen | query)
            for item in page["items"] or ():
                yield "LISTED", item
            following = page["metadata"].get("continue", "")
            if not following:
                break
        yield "SYNCED", {}
        since = {"resourceVersion": page["metadata"]["resourceVersion"], "timeoutSeconds": str(_WATCH)}
        async for line in self._lines(path, chosen | since | {"watch": "true"}):
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise ApiError(f"watch {path}: {status.get('message')}", status.get("code", 0))
            yield event["type"], event["object"]

    async def get(self, path: str, accept: str = "application/json") -> Json | None:
        """Return the object there; None when there is none."""
        try:
            return await self._call("GET", path, accept=accept)
        except ApiError as error:
            if error.status == 404:  # noqa: PLR2004 - Not Found
                return None
            raise

    async def apply(
        self, path: str, body: Json, manager: str = FIELD_MANAGER, *, dry: bool = False, force: bool = True
    ) -> Json:
        """Make the object there have what `body` says, whoever else says otherwise; return it as stored.

        It is created if need be. A dry run stores nothing and returns what would have been stored. Without
        force it is a conflict, status 409, where another manager says otherwise.
        """
        forced = "true" if force else "false"
        query = {"fieldManager": manager, "force": forced} | ({"dryRun": "All"} if dry else {})
        return await self._call("PATCH", path, query=query, body=body, content=_APPLY)

    async def merge(self, path: str, body: Json, manager: str = FIELD_MANAGER) -> Json:
        """Merge `body` into the object there; return that as stored.

        Raises:
            ApiError: Status 404 where there is none, 409 where its resourceVersion is not that of `body`.
        """
        return await self._call(
            "PATCH", path, body=body, content="application/merge-patch+json", query={"fieldManager": manager}
        )

    async def pods(self, namespace: str, labels: str = "", fields: str = "") -> AsyncIterator[list[Json]]:
        """Yield the pods of a namespace, "" for all, page by page, each to be dropped before the next.

        Args:
            namespace: Its name.
            labels: A label selector.
            fields: A field selector.

        Raises:
            ApiError: They could not be listed to the end.
        """
        path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        chosen = {"labelSelector": labels} | ({"fieldSelector": fields} if fields else {})
        following, seen = "", 0
        while True:
            limit = min(max(PODS_AT_ONCE, seen // 10), MOST_PODS_AT_ONCE)
            query = {"limit": str(limit)} | ({"continue": following} if following else {})
            page = await self._call("GET", path, query=chosen | query)
            seen += limit
            yield page.pop("items") or []
            following = page["metadata"].get("continue", "")
            if not following:
                return

    async def namespaces_of_pods(self, labels: str) -> set[str]:
        """Return the namespaces that have pods with such labels, a label selector."""
        found: set[str] = set()
        following = ""
        while True:
            query = {"limit": str(PAGE), "labelSelector": labels}
            query |= {"continue": following} if following else {}
            page = await self._call("GET", "/api/v1/pods", query=query, accept=_METADATA_LIST)
            found.update(item["metadata"]["namespace"] for item in page["items"] or ())
            following = page["metadata"].get("continue", "")
            if not following:
                return found

    async def metadata(self, path: str) -> Json | None:
        """Return the metadata of the object there; None when there is none."""
        found = await self.get(path, accept=_METADATA)
        return None if found is None else dict(found["metadata"])

    async def budgets(self, namespace: str) -> list[Json]:
        """Return the PodDisruptionBudgets of a namespace."""
        found = await self._call("GET", f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets")
        return list(found["items"] or ())

    async def evict(self, namespace: str, pod: str, uid: str) -> None:
        """Evict a pod, if it is still that one.

        Raises:
            ApiError: Status 429 where a PodDisruptionBudget does not allow it, 404 or 409 where it is gone.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        await self._call("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body=body)

    async def delete(self, path: str, only: Json | None = None) -> None:
        """Delete the object there, if there is one; `only` as it was read: changed since, it stays."""
        meta = (only or {}).get("metadata", {})
        same = {key: meta[key] for key in ("uid", "resourceVersion") if key in meta}
        try:
            await self._call("DELETE", path, body={"preconditions": same} if same else None)
        except ApiError as error:
            if error.status not in {404, 409}:  # Not Found, Conflict
                raise

    async def create(self, path: str, body: Json) -> None:
        """Create an object, unless one of its name is there already."""
        try:
            await self._call("POST", path, body=body)
        except ApiError as error:
            if error.status != 409:  # noqa: PLR2004 - Already Exists
                raise

    async def rehearse(self, path: str, body: Json) -> Json:
        """Return an object as it would be stored, of which nothing is stored."""
        return await self._call("POST", path, query={"dryRun": "All"}, body=body)

    async def apply_pod_wiring(self, namespace: str, spec: Json, keeper: str) -> Json:
        """Make a namespace's PodWiring have this spec, and say who keeps it; return it as stored."""
        meta = {**_meta(namespace), "annotations": {contract.POD_WIRING_KEEPER: keeper}}
        return await self.apply(_pod_wiring(namespace), {**_POD_WIRING, "metadata": meta, "spec": spec})

    async def apply_pod_wiring_status(self, namespace: str, status: Json) -> Json:
        """Make a namespace's PodWiring have this status; return it as stored."""
        body = {**_POD_WIRING, "metadata": _meta(namespace), "status": status}
        return await self.apply(_pod_wiring(namespace) + "/status", body)

    async def apply_audit(self, namespace: str, pods: Mapping[str, int]) -> Json:
        """Make the status of a namespace's PodWiring say so of its pods; return it as stored.

        Under a field manager of its own: all replicas write the rest, and only one audits.
        """
        body = {**_POD_WIRING, "metadata": _meta(namespace), "status": {"pods": dict(pods)}}
        return await self.apply(_pod_wiring(namespace) + "/status", body, f"{FIELD_MANAGER}-audit")

    async def delete_pod_wiring(self, namespace: str) -> None:
        """Delete a namespace's PodWiring, if it has one."""
        await self.delete(_pod_wiring(namespace))

    async def _lines(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield the lines of an answer that comes little by little, however long they are."""
        patience = aiohttp.ClientTimeout(sock_connect=30, sock_read=_WATCH + 60)
        answered = False
        try:
            async with self._session.get(self._server + path, params=query, timeout=patience) as response:
                answered = True
                self._on_answer("GET", response.status)
                if response.status >= 400:  # noqa: PLR2004 - client and server errors
                    raise ApiError(f"watch {path}: {response.status} {response.reason}", response.status)
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not answered:
                self._on_answer("GET", 0)
            raise ApiError(f"watch {path}: {str(error) or type(error).__name__}") from error

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | list[Json] | None = None,
        accept: str = "application/json",
        content: str = "application/json",
    ) -> Json:
        try:
            async with self._session.request(
                method,
                self._server + path,
                params=query,
                data=None if body is None else _written(body),
                headers={"Accept": accept, "Content-Type": content},
                timeout=aiohttp.ClientTimeout(total=30),
            ) as response:
                answer = await response.read()
                if told := response.headers.get("Date"):
                    self._told_time = told, monotonic()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._on_answer(method, 0)
            reason = str(error) or type(error).__name__
            raise ApiError(f"{method} {path}: no answer from {self._server}: {reason}") from error
        self._on_answer(method, response.status)
        try:
            found = orjson.loads(answer)
        except ValueError as error:
            raise ApiError(f"{method} {path}: {response.status}, and no JSON", response.status) from error
        if response.status >= 400:  # noqa: PLR2004 - client and server errors
            told = found.get("message") if isinstance(found, dict) else None
            raise ApiError(f"{method} {path}: {response.status}: {told or response.reason}", response.status)
        return dict(found)


def _written(body: Json | list[Json]) -> str:
    """Return JSON that is YAML as well, which what is applied is read as.

    YAML knows no pairs of escapes for one letter, such as an emoji, and no control characters as they are.
    """
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(body, ensure_ascii=False))


def _secrets(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets"


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: b64encode(value).decode("ascii") for key, value in data.items()}


def _meta(namespace: str) -> Json:
    return {"name": contract.POD_WIRING_NAME, "namespace": namespace}


def _pod_wiring(namespace: str) -> str:
    kind, name = contract.POD_WIRINGS, contract.POD_WIRING_NAME
    return f"/apis/{contract.POD_WIRING_API}/namespaces/{namespace}/{kind}/{name}"
