"""Edge: looks at a cluster as whoever the kubeconfig says, and at what is public of it.

Nothing is written. Pods are made by a server-side dry run, which stores nothing; of a token only header and
claims are kept, of a Secret only its certificate, or the names of its keys. What may not be read is said.
"""

import json
import os
import ssl
import threading
import time
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.resources import files
from pathlib import Path
from socket import create_connection
from typing import Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import yaml
from cryptography import x509
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from urllib3.exceptions import HTTPError as TransportError

from workload_identity_operator import __version__, contract
from workload_identity_operator.check import issuer, workloads
from workload_identity_operator.check.annotations import Keys, value_mistakes
from workload_identity_operator.check.cluster import (
    Cluster,
    Fetched,
    Probe,
    Right,
    Served,
    account_of,
    annotations_of,
    labels_of,
    template_of,
)
from workload_identity_operator.check.findings import CLAIMS, Unseen
from workload_identity_operator.check.installation import (
    BINDING,
    MWC,
    POLICY,
    RULES,
    RULES_BINDING,
    FlagsOf,
    Release,
    declares_policy,
    keeps_certificate,
    releases_of,
    secret_of,
)
from workload_identity_operator.check.rights import (
    account_of_release,
    given,
    lacking,
    review_of,
    rights_of,
)
from workload_identity_operator.clouds import PUBLIC_AUDIENCE
from workload_identity_operator.errors import quoted
from workload_identity_operator.releases import is_of_chart
from workload_identity_operator.shapes import Json

T = TypeVar("T")
Tell = Callable[[str], None]
"""Told what is looked at now."""

PAGE: Final = 500
"""Objects that a listing asks for at a time."""
AT_ONCE: Final = 6
"""Questions to the API server at the same time."""
ANSWER_WITHIN: Final = 60.0
"""Seconds that the API server has for one answer."""
PUBLIC_WITHIN: Final = 10.0
"""Seconds that a public document, or a TLS server, has."""
LONGEST_DOCUMENT: Final = 1024 * 1024
"""Bytes of a public document; the rest is not read."""

_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
_CLUSTER_WIDE: Final = {
    MWC: f"{_ADMISSION}/mutatingwebhookconfigurations",
    POLICY: f"{_ADMISSION}/mutatingadmissionpolicies",
    BINDING: f"{_ADMISSION}/mutatingadmissionpolicybindings",
    RULES: f"{_ADMISSION}/validatingadmissionpolicies",
    RULES_BINDING: f"{_ADMISSION}/validatingadmissionpolicybindings",
}
_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_DEFINITION: Final = f"{_DEFINITIONS}/{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
_NAMESPACED: Final = {
    "PodWiring": (f"/apis/{contract.POD_WIRING_API}", contract.POD_WIRINGS),
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "ReplicationController": ("/api/v1", "replicationcontrollers"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "CronJob": ("/apis/batch/v1", "cronjobs"),
}
_IN_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FORBIDDEN, _NOT_FOUND, _UNAUTHORIZED = 403, 404, 401
_FAILED: Final = 400
"""HTTP statuses from here on."""


class CannotLook(Exception):  # noqa: N818 - what happened
    """There is no cluster, or it does not let us look at anything; `str()` says why and what to do."""


class Refused(Exception):  # noqa: N818 - what happened
    """The API server says no, in `str()`; attribute `status` is HTTP's, 0 when it could not be reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Looking:
    """How to look.

    Attributes:
        namespace: Workloads of this one only; "" is all.
        pod: Namespace and name of the one pod to explain; None for none.
        offline: Whether to ask nobody but the API server.
        probe: Whether to make pods by dry run.
        flags_of: Reads the arguments of the operator's Deployment.
        tell: Told what is looked at now.
    """

    namespace: str
    pod: tuple[str, str] | None
    offline: bool
    probe: bool
    flags_of: FlagsOf
    tell: Tell


class Api:
    """The API server, as whoever the kubeconfig says.

    Attributes:
        server: Its URL.
        authority: File with the authorities that it is trusted by; "" for the system's.
        namespace: Which one is meant where nobody names one, as kubectl has it.
        ahead: By how many seconds its clock is ahead of ours, as it told last.
    """

    def __init__(self, client: kubernetes_client.ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        self.ahead = 0.0
        self.server = str(client.configuration.host).rstrip("/")
        self.authority = str(client.configuration.ssl_ca_cert or "")

    def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        """Return what it answers.

        Raises:
            Refused: It does not; status 0 when it could not be reached.
        """
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {
            "Accept": "application/json, application/jwk-set+json, */*;q=0.1",
            "Content-Type": "application/json",
            "User-Agent": f"workload-identity-operator-check/{__version__}",
        }
        try:
            request = self._client.param_serialize(
                method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = self._client.call_api(*request, _request_timeout=(PUBLIC_WITHIN, ANSWER_WITHIN))
            text = answer.read()  # type: ignore[no-untyped-call]  # as are all answers
            self.ahead = _ahead(answer.getheader("Date"))  # type: ignore[no-untyped-call]
        except (TransportError, OSError, kubernetes_client.ApiException) as error:
            raise Refused(0, f"no answer from {self.server}: {_reason(error)}") from error
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if answer.status >= _FAILED or not isinstance(found, dict):
            told = found.get("message") if isinstance(found, dict) else None
            raise Refused(answer.status, str(told or answer.reason or "no JSON"))
        return found

    def now(self) -> float:
        """Return the time by its clock, by which it judges certificates; ours may be wrong."""
        return time.time() + self.ahead

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return the object there."""
        return self.call("GET", path, query)

    def list(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Json]:
        """Yield the objects there, page after page."""
        following = ""
        while True:
            page = self.get(
                path, {**(query or {}), "limit": str(PAGE)} | ({"continue": following} if following else {})
            )
            yield from page.get("items") or ()
            following = (page.get("metadata") or {}).get("continue", "")
            if not following:
                return


def connect(kubeconfig: str, context: str) -> Api:
    """Return the API server of a kubeconfig's context, or of the pod that we run in.

    Raises:
        CannotLook: There is none.
    """
    configuration = kubernetes_client.Configuration()
    configuration.retries = 1
    path = str(Path(kubeconfig).expanduser()) if kubeconfig else None
    if path and not Path(path).is_file():
        raise CannotLook(f"--kubeconfig: {path} is no file")
    try:
        namespace = _load(path, context, configuration)
    except yaml.MarkedYAMLError as error:
        # Its own message quotes the file, in which there are tokens and keys.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CannotLook(f"no cluster: the kubeconfig is no YAML, see its line {line}") from error
    except Exception as error:  # whatever plugins and parsers raise
        told = _reason(error)
        if isinstance(error, (TypeError, AttributeError, LookupError)):
            told = "the kubeconfig is no mapping with contexts, clusters and users, as kubectl writes it"
        elif isinstance(error, (yaml.YAMLError, UnicodeDecodeError)):
            told = "the kubeconfig is no text"
        raise CannotLook(f"no cluster: {told}: name one by --kubeconfig and --context") from error
    if urlsplit(str(configuration.host)).scheme not in {"http", "https"}:
        told = f"the kubeconfig's server is {quoted(str(configuration.host))}: wanted https://HOST:PORT"
        raise CannotLook(f"no cluster: {told}")
    return Api(kubernetes_client.ApiClient(configuration), namespace)


def _load(path: str | None, context: str, configuration: kubernetes_client.Configuration) -> str:
    """Load a kubeconfig, or what a pod has where there is none; return the namespace that it means."""
    there = path or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists()
    if not there and not context and (_IN_POD / "token").is_file():
        kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return (_IN_POD / "namespace").read_text(encoding="ascii").strip() or "default"
    kubernetes_config.load_kube_config(
        config_file=path, context=context or None, client_configuration=configuration
    )  # type: ignore[no-untyped-call]
    contexts, current = kubernetes_config.list_kube_config_contexts(path)  # type: ignore[no-untyped-call]
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def look(api: Api, how: Looking) -> tuple[Cluster, list[Release]]:
    """Return what there is to see, and the releases in it.

    Raises:
        CannotLook: There is nothing to see.
    """
    try:
        version = str(api.get("/version").get("gitVersion", ""))
    except Refused as refused:
        if refused.status in {0, _UNAUTHORIZED}:
            advice = "log in" if refused.status else "see --kubeconfig and --context"
            raise CannotLook(f"{refused}: {advice}") from refused
        version = ""
    rules = json.loads((files("workload_identity_operator.check") / "rules.json").read_text(encoding="utf-8"))
    eyes = _Eyes(api, how, Cluster(api.server, version, how.namespace, rules=rules, now=api.now()))
    eyes.look()
    cluster = eyes.cluster
    if not cluster.objects:
        needs = "; ".join(f"{one.what}: {one.why}" for one in cluster.unseen[:3])
        raise CannotLook(f"nothing of {api.server} may be looked at: {needs}")
    return cluster, releases_of(cluster, how.flags_of)


class _Eyes:
    """What looks."""

    def __init__(self, api: Api, how: Looking, cluster: Cluster) -> None:
        self._api = api
        self._how = how
        self.cluster = cluster
        self._annotated: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Fill the cluster."""
        how, cluster = self._how, self.cluster
        how.tell("ServiceAccounts and namespaces")
        self._list("ServiceAccount", self._path("/api/v1", "serviceaccounts"), _slim_account)
        for account in cluster.all("ServiceAccount"):
            if any(
                key.startswith(contract.PREFIX) for key in (*annotations_of(account), *labels_of(account))
            ):
                self._annotated.add((account["metadata"]["namespace"], account["metadata"]["name"]))
        if how.namespace:
            self._get("Namespace", f"/api/v1/namespaces/{quote(how.namespace, safe='')}")
            if cluster.saw("Namespace") and not cluster.all("Namespace"):
                raise CannotLook(f"--namespace: there is no namespace {how.namespace}")
        else:
            self._list("Namespace", "/api/v1/namespaces", _slim)
        how.tell("webhooks, policies, workloads and pods")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(self._list, kind, path) for kind, path in _CLUSTER_WIDE.items()]
            asked += [
                pool.submit(self._list, kind, self._path(*where), self._keep_of(kind))
                for kind, where in _NAMESPACED.items()
            ]
            for one in asked:
                one.result()
        self._get("CustomResourceDefinition", _DEFINITION)
        how.tell("the operator")
        for release in releases_of(cluster, how.flags_of):
            self._look_at_release(release)
        if how.probe:
            how.tell("what pods become, without storing any")
            self._probe(releases_of(cluster, how.flags_of))
        else:
            self._unseen("whether pods are wired, by a pod made without being stored", "--no-probe says so")
        releases = releases_of(cluster, how.flags_of)
        self._look_at_keys(workloads.references_of(cluster, releases))
        how.tell("the issuer")
        self._look_at_issuer(releases)
        if how.offline:
            self._unseen(
                "the issuer's public documents, and whether Entra knows the tenant", "--offline says so"
            )
        else:
            self._look_outside(releases)

    # The API server.

    def _unseen(self, what: str, why: str) -> None:
        one = Unseen(what, why)
        if one not in self.cluster.unseen:
            self.cluster.unseen.append(one)

    def _path(self, base: str, plural: str) -> str:
        return (
            f"{base}/namespaces/{self._how.namespace}/{plural}" if self._how.namespace else f"{base}/{plural}"
        )

    def _list(self, kind: str, path: str, keep: Callable[[Json], Json | None] | None = None) -> None:
        """List a kind; what `keep` returns of each object is kept."""
        try:
            found = [kept for one in self._api.list(path) if (kept := keep(one) if keep else one) is not None]
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                self.cluster.unserved.add(kind)
            else:
                self._cannot("list", path, refused)
            return
        for one in found:
            one.setdefault("kind", kind)
        self.cluster.objects[kind] = found

    def _get(self, kind: str, path: str) -> Json | None:
        """Get an object; whether there is one is then known."""
        found = None
        try:
            found = self._api.get(path)
        except Refused as refused:
            if refused.status != _NOT_FOUND:
                self._cannot("get", path, refused)
                return None
        seen = self.cluster.objects.setdefault(kind, [])
        if found and not self.cluster.one(
            kind, found["metadata"]["name"], found["metadata"].get("namespace", "")
        ):
            seen.append(found)
        return found

    def _cannot(self, verb: str, path: str, refused: Refused) -> None:
        parts = path.split("?", maxsplit=1)[0].split("/")
        named = verb == "get" and not path.startswith(("/openid", "/.well-known"))
        resource, name = (parts[-2], f" {parts[-1]}") if named else (parts[-1], "")
        where = ""
        if "namespaces" in parts[:-2]:
            where = f" in namespace {parts[parts.index('namespaces') + 1]}"
        if refused.status == _FORBIDDEN:
            why = f"needs {verb} on {resource}{where}"
            if (
                verb == "list"
                and not where
                and path not in _CLUSTER_WIDE.values()
                and resource != "namespaces"
            ):
                why += ", in all namespaces; or name one by --namespace"
        else:
            why = f"{refused.status or 'no answer'}: {_reason(refused)}"
        self._unseen(f"{resource}{name}{where if named else ''}", why)

    def _keep_of(self, kind: str) -> Callable[[Json], Json | None]:
        if kind == "PodWiring":
            return lambda found: found if found["metadata"]["name"] == contract.POD_WIRING_NAME else None
        if kind == "Service":
            return _slim_service
        return lambda found: self._slim_of_interest(kind, found)

    def _slim_of_interest(self, kind: str, found: Json) -> Json | None:
        """Return what is judged of something that makes pods, or a pod; None when none of it is."""
        if kind == "Deployment" and is_of_chart(found):
            return found
        pod = template_of(kind, found)
        account = (found["metadata"]["namespace"], account_of(pod))
        asked = self._how.pod == (found["metadata"]["namespace"], found["metadata"]["name"]) and kind == "Pod"
        if asked or account in self._annotated or workloads.is_of_interest(found, kind, Keys()):
            found["metadata"].pop("managedFields", None)
            return found
        return None

    def _look_at_release(self, release: Release) -> None:
        namespace, inside = release.namespace, f"/api/v1/namespaces/{release.namespace}"
        if not release.outside and release.webhook:
            self._get("Deployment", f"/apis/apps/v1/namespaces/{namespace}/deployments/{release.name}")
        deployment = self.cluster.one("Deployment", release.name, namespace)
        names, account = [f"{release.name}-declared"], ""
        if deployment:
            pod = deployment["spec"]["template"]["spec"]
            names += [
                source["configMapRef"]["name"]
                for container in pod["containers"]
                for source in container.get("envFrom") or ()
                if "configMapRef" in source
            ]
            account = pod.get("serviceAccountName") or "default"
            if not self.cluster.one("ServiceAccount", account, namespace):
                self._get("ServiceAccount", f"{inside}/serviceaccounts/{account}")
        for name in names:
            self._get("ConfigMap", f"{inside}/configmaps/{name}")
        # Of the settings, only now known, are the names of others.
        (release,) = (
            one for one in releases_of(self.cluster, self._how.flags_of) if one.name == release.name
        )
        self._look_at_rights(release, account)
        if (secret := secret_of(release)) and (found := self._get("Secret", f"{inside}/secrets/{secret}")):
            found["data"] = {"tls.crt": (found.get("data") or {}).get("tls.crt", "")}
        called = (release.webhook or {}).get("clientConfig") or {}
        if service := called.get("service"):
            where = f"namespaces/{service['namespace']}"
            found = self._get("Service", f"/api/v1/{where}/services/{service['name']}")
            stored = self.cluster.one("Service", service["name"], service["namespace"])
            if found and stored is not None and stored is not found:
                stored["spec"] = found["spec"]
            path = f"/apis/discovery.k8s.io/v1/{where}/endpointslices"
            self._list_of("EndpointSlice", path, f"kubernetes.io/service-name={service['name']}")
        elif url := called.get("url"):
            self._look_at_server(url, called.get("caBundle") or "")

    def _list_of(self, kind: str, path: str, selector: str) -> None:
        try:
            found = list(self._api.list(path, {"labelSelector": selector}))
        except Refused as refused:
            self._cannot("list", path, refused)
            return
        self.cluster.objects.setdefault(kind, []).extend(found)

    def _look_at_rights(self, release: Release, account: str) -> None:
        """Learn what the operator may not do; what its own roles do not give is asked one by one."""
        if release.version not in {"", __version__}:
            return  # whose roles may be others
        name, cluster = release.name, self.cluster
        own = f"namespaces/{release.namespace}"
        for plural, kind, where in (
            ("clusterroles", "ClusterRole", ""),
            ("clusterrolebindings", "ClusterRoleBinding", ""),
            ("roles", "Role", f"{own}/"),
            ("rolebindings", "RoleBinding", f"{own}/"),
        ):
            for one in (
                (name,) if where or not declares_policy(cluster, release) else (name, f"{name}-declared")
            ):
                # Who may not read them asks for all rights one by one, which is as good.
                with suppress(Refused):
                    found = self._api.get(f"{_RBAC}/{where}{plural}/{one}")
                    cluster.objects.setdefault(kind, []).append(found)
        account = account or account_of_release(cluster, name)
        wanted = rights_of(
            name,
            release.namespace,
            release.configuration_name,
            secret=secret_of(release) if keeps_certificate(release) else "",
            policy=declares_policy(cluster, release),
            healing=annotations_of(release.configuration or {}).get(contract.HEALING, ""),
        )
        asked = lacking(wanted, given(cluster, account, release.namespace))
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                may = list(pool.map(lambda right: self._may(right, account, release.namespace), asked))
        except Refused as refused:
            forbidden = refused.status == _FORBIDDEN
            why = "needs create on subjectaccessreviews" if forbidden else str(refused)
            self._unseen("the operator's rights", why)
            return
        lacks = [right for right, allowed in zip(asked, may, strict=True) if not allowed]
        cluster.rights[f"{release.namespace}/{name}"] = (account, lacks)

    def _may(self, right: Right, account: str, namespace: str) -> bool:
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = self._api.call("POST", path, body=dict(review_of(right, account, namespace)))
        return bool(answer["status"].get("allowed"))

    def _look_at_keys(self, references: Iterable[workloads.Reference]) -> None:
        """Learn the names of the keys of what pods take variables from."""
        for kind, namespace, name in sorted(references):
            plural = {"ConfigMap": "configmaps", "Secret": "secrets"}[kind]
            path = f"/api/v1/namespaces/{namespace}/{plural}/{quote(name)}"
            try:
                found = self._api.get(path)
            except Refused as refused:
                if refused.status == _NOT_FOUND:
                    self.cluster.keys_of[kind, namespace, name] = None
                else:
                    self._cannot("get", path, refused)
            else:
                self.cluster.keys_of[kind, namespace, name] = [
                    *(found.get("data") or {}),
                    *(found.get("binaryData") or {}),
                ]

    # Pods made without being stored.

    def _probe(self, releases: Sequence[Release]) -> None:
        release = releases[0] if releases else None
        if release is None or release.webhook is None:
            return
        where = self._place(release, wired=False)
        if where is None:
            self._unseen(
                "whether pods are wired, by a pod made without being stored",
                "needs a namespace that is looked at",
            )
            return
        self._make("webhook", *where, labelled=True)
        wired = self._place(release, wired=True)
        if wired and self.cluster.one(POLICY, release.name) and self.cluster.one(BINDING, release.name):
            peer = release.peer(self.cluster)
            if not (peer and release.by_label):
                self._make("policy", *wired, labelled=not peer)

    def _place(self, release: Release, *, wired: bool) -> tuple[str, str] | None:
        """Return a namespace and a ServiceAccount to try; with `wired` one that the policy knows."""
        cluster = self.cluster
        places = {
            one["metadata"]["name"]
            for one in cluster.all("Namespace")
            if not release.leaves_out(one) and "deletionTimestamp" not in one["metadata"]
        }
        tables = {
            one["metadata"]["namespace"]: (one.get("spec") or {}).get("identities") or {}
            for one in cluster.all("PodWiring")
        }
        for account in cluster.all("ServiceAccount"):
            meta = account["metadata"]
            if meta["namespace"] not in places or not annotations_of(account).get(contract.CLIENT_ID):
                continue
            if any(True for _ in value_mistakes(account, "")):
                continue
            if not wired or meta["name"] in tables.get(meta["namespace"], {}):
                return meta["namespace"], meta["name"]
        if wired or not places:
            return None
        return ("default" if "default" in places else min(places)), "default"

    def _make(self, engine: str, namespace: str, account: str, *, labelled: bool) -> None:
        """Make a pod by dry run. What no policy knows is the webhook's: names to skip with a blank."""
        annotations = {} if engine == "policy" else {contract.SKIP_CONTAINERS: " "}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "workload-identity-check-",
                "labels": {contract.USE_LABEL: "true"} if labelled else {},
                "annotations": annotations,
            },
            "spec": {
                "serviceAccountName": account,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "check",
                        "image": "registry.invalid/none",
                        "resources": {
                            "requests": {"cpu": "1m", "memory": "1Mi"},
                            "limits": {"cpu": "1m", "memory": "1Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": True,
                        },
                    }
                ],
            },
        }
        try:
            stored = self._api.call("POST", f"/api/v1/namespaces/{namespace}/pods", {"dryRun": "All"}, pod)
        except Refused as refused:
            self.cluster.probes.append(Probe(engine, namespace, account, None, refused.status, str(refused)))
        else:
            self.cluster.probes.append(Probe(engine, namespace, account, stored))

    # The issuer.

    def _look_at_issuer(self, releases: Sequence[Release]) -> None:
        cluster = self.cluster
        for path, name in ((issuer.DISCOVERY, "discovery"), ("/openid/v1/jwks", "keys")):
            try:
                setattr(cluster, name, self._api.get(path))
            except Refused as refused:
                if refused.status == _FORBIDDEN:
                    self._unseen(f"the API server's {path}", f"needs get on the non-resource URL {path}")
                else:
                    self._unseen(f"the API server's {path}", str(refused))
        if self._how.pod:
            namespace, name = self._how.pod
            pod = cluster.one("Pod", name, namespace)
            if pod:
                cluster.token = self._token(pod, releases)

    def _token(self, pod: Json, releases: Sequence[Release]) -> Json | None:
        """Have a token made as the kubelet would, and return its header and claims, nothing else."""
        from workload_identity_operator.check.chain import audience_of  # noqa: PLC0415 - only for one pod

        namespace, account = pod["metadata"]["namespace"], account_of(pod)
        audience = audience_of(pod, releases[0] if releases else None) or PUBLIC_AUDIENCE
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600},
        }
        try:
            answer = self._api.call(
                "POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body=body
            )
            header, claims, _ = answer["status"]["token"].split(".")
            return {"header": _decoded(header), "claims": _decoded(claims)}
        except Refused as refused:
            if refused.status == _FORBIDDEN:
                self._unseen(CLAIMS, f"needs create on serviceaccounts/token in namespace {namespace}")
            elif refused.status != _NOT_FOUND:
                self._unseen(CLAIMS, str(refused))
        except (KeyError, ValueError):
            self._unseen(CLAIMS, "a token that the API server makes; it made another")
        return None

    # Outside.

    def _look_outside(self, releases: Sequence[Release]) -> None:
        cluster, named = self.cluster, issuer.issuer_of(self.cluster)
        asked: dict[str, str] = {}
        if named and not issuer.why_not_public(named):
            asked["issuer"] = issuer.document_url(named)
        for release in releases:
            settings = release.settings
            if settings and settings.tenant_id and settings.authority_host.startswith("https://"):
                tenant = quote(settings.tenant_id, safe="")
                asked[settings.tenant_id] = f"{settings.authority_host}{tenant}/v2.0{issuer.DISCOVERY}"
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(asked, pool.map(self._fetch, asked.values()), strict=True))
        cluster.issued = found.pop("issuer", None)
        cluster.tenants = found
        for tenant, told in found.items():
            if told.body is None:
                self._unseen(f"whether Entra knows the tenant {tenant}", f"{told.url}: {told.fault}")
        where = ((cluster.issued.body if cluster.issued else None) or {}).get("jwks_uri")
        if isinstance(where, str) and where and not issuer.why_not_public(where):
            cluster.issued_keys = self._fetch(where)

    def _fetch(self, url: str) -> Fetched:
        """Fetch a public JSON document; what it is when Entra answers with an error, too."""
        try:
            return within(PUBLIC_WITHIN, lambda: self._fetched(url))
        except TimeoutError:
            return Fetched(url, None, f"no answer within {PUBLIC_WITHIN:g} s")
        except (URLError, OSError, ValueError) as error:
            return Fetched(url, None, _reason(error))

    def _fetched(self, url: str) -> Fetched:
        trust = ssl.create_default_context()
        handlers: list[Any] = [_OnlyHttps()]
        if issuer.is_on_loopback(url):
            # A cluster on this machine, for trying things out: its own authority is as good as a public one.
            handlers.append(ProxyHandler({}))
            if self._api.authority:
                trust.load_verify_locations(self._api.authority)
        opener = build_opener(HTTPSHandler(context=trust), *handlers)
        request = Request(  # noqa: S310 - its callers see to https
            url,
            headers={
                "Accept": "application/json, application/jwk-set+json, */*;q=0.1",
                "User-Agent": "workload-identity-operator-check",
            },
        )
        status = 200
        try:
            with opener.open(request, timeout=PUBLIC_WITHIN) as answer:
                text, told = answer.read(LONGEST_DOCUMENT), answer.headers
        except HTTPError as error:
            with error:
                status, text, told = error.code, error.read(LONGEST_DOCUMENT), error.headers
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        if status >= _FAILED and not (isinstance(body, dict) and "error" in body):
            return Fetched(url, None, f"HTTP status {status}")
        if not isinstance(body, dict):
            return Fetched(url, None, "no JSON object")
        # What somebody between us has kept says when it was made.
        date = None if "Age" in told else told.get("Date")
        return Fetched(url, body, ahead=_ahead(date) - self._api.ahead if date else 0.0)

    def _look_at_server(self, url: str, bundle: str) -> None:
        """Learn what answers at the webhook's URL, if it answers here."""
        try:
            self.cluster.served[url] = within(PUBLIC_WITHIN, lambda: served_at(url, bundle))
        except (OSError, ValueError) as error:  # TimeoutError is one
            self._unseen(f"the certificate at {url}", f"an answer from there to here: {_reason(error)}")


class _OnlyHttps(HTTPRedirectHandler):
    """Follows no redirect to what is not https."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != "https":
            raise URLError(f"redirects to {newurl}, which is no https URL")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def served_at(url: str, bundle: str) -> Served:
    """Return what a TLS server shows, judged by a caBundle (base64; "": by public authorities).

    Raises:
        OSError: Nobody answers.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    fault, told = _tls_fault(host, port, bundle)
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lenient.check_hostname, lenient.verify_mode = False, ssl.CERT_NONE  # only to read its dates
    with (
        create_connection((host, port), timeout=PUBLIC_WITHIN) as plain,
        lenient.wrap_socket(plain, server_hostname=host) as tls,
    ):
        leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    return Served(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), fault, told)


_FAULTS: Final = {
    9: "certificate-expired",  # not yet valid
    10: "certificate-expired",
    62: "certificate-name-wrong",
    64: "certificate-name-wrong",  # an address
}
"""By X509_V_ERR_… of OpenSSL; all others are the authority's."""


def _tls_fault(host: str, port: int, bundle: str) -> tuple[str, str]:
    trust = ssl.create_default_context()
    if bundle:
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            trust.load_verify_locations(cadata=_text(bundle))
        except (ssl.SSLError, ValueError):
            return "ca-bundle-wrong", "no certificates in PEM"
    # As Go has it: an authority need not be self-signed.
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with (
            create_connection((host, port), timeout=PUBLIC_WITHIN) as plain,
            trust.wrap_socket(plain, server_hostname=host),
        ):
            return "", ""
    except ssl.SSLCertVerificationError as error:
        return _FAULTS.get(error.verify_code, "ca-bundle-wrong"), str(error.verify_message)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what work returns, within a time whatever it does: name resolution knows no deadline.

    Raises:
        TimeoutError: It took longer; its thread does not keep the process alive.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return done[0]


def _ahead(told: str | None) -> float:
    """Return by how many seconds a clock is ahead of ours, by an answer's header Date; 0 within a second."""
    try:
        seconds = parsedate_to_datetime(told or "").timestamp() - time.time()
    except ValueError:
        return 0.0
    return seconds if abs(seconds) > 1 else 0.0


def _slim(found: Json) -> Json:
    found["metadata"].pop("managedFields", None)
    return found


def _slim_service(found: Json) -> Json | None:
    """Keep what has anything of ours on it."""
    keys = Keys()
    if any(
        key.startswith(contract.PREFIX) or keys.meant_by(key)
        for key in (*labels_of(found), *annotations_of(found))
    ):
        return _slim(found)
    return None


def _slim_account(found: Json) -> Json:
    """Keep names, and where there is anything of ours what tells of it."""
    meta = found["metadata"]
    kept = ("name", "namespace", "annotations", "labels", "managedFields", "uid", "creationTimestamp")
    return {"metadata": {key: meta[key] for key in kept if key in meta}}


def _decoded(part: str) -> Json:
    found: Json = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _text(encoded: str) -> str:
    return b64decode(encoded, validate=True).decode("ascii")


def _reason(error: BaseException) -> str:
    """Return why something failed, in a line."""
    inner: object = getattr(error, "reason", None) or error
    with suppress(AttributeError, IndexError):
        inner = inner.args[0] if isinstance(inner, OSError) and len(inner.args) == 1 else inner
    return (str(inner) or type(error).__name__).splitlines()[0][:300]
