"""What the operator is documented to do, each behaviour by itself: done and seen on a real API server.

They exist to show what each of its rights is for. Whoever adds a right adds, to `BEHAVIOURS`, the behaviour
that needs it; `Release.expect` waits for what is to be seen, and raises AssertionError when it never is.
"""

import json
import secrets
import ssl
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPSConnection
from typing import Any, Final, TypeAlias

import yaml

from testkit.control_plane import ControlPlane
from testkit.installation import CONFIGURATION, Operator, free_port, operator_running
from testkit.manifests import CHART, TENANT, rendered
from testkit.owners import events_of, pods_of, workload
from testkit.processes import ProcessFailed
from testkit.readiness import pods_become_ready
from testkit.rights import rights_of, roles_of, rule_of
from testkit.workloads import CLIENT, Namespace, fresh_namespace, pod
from workload_identity_operator import contract, repairs
from workload_identity_operator.check.cluster import Right

Json = dict[str, Any]

NAMESPACE: Final = "azure-workload-identity-system"
RELEASE: Final = "workload-identity-operator"
TEST: Final = f"{RELEASE}-test"
"""The account of `helm test`."""
CONFIGURATIONS: Final = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
POLICIES: Final = "mutatingadmissionpolicies.admissionregistration.k8s.io"
BINDINGS: Final = "mutatingadmissionpolicybindings.admissionregistration.k8s.io"
DEFINITION: Final = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
_NO_LONGER_NEW: Final = repairs.RECONSIDER + 2
_SETTLED: Final = 2 * repairs.SETTLE + 1
"""Seconds."""
POLICY_ENGINE: Final[Json] = {"engine": "policy"}
WEBHOOK_ENGINE: Final[Json] = {"engine": "webhook"}
HEALING: Final[Json] = {"engine": "policy", "healing": {"mode": "restart", "pauseSeconds": 0}}


@dataclass(slots=True)
class Release:
    """The chart installed as it is meant to be, in the cluster; its operator runs here, with its rights.

    The API server's calls reach nobody, for want of a node; who wants a review answered sends it.

    Attributes:
        plane: The cluster.
        values: Of the release.
        patience: Seconds that `expect` waits.
        calmly: Whether `calm` waits; it need not where nothing is taken away.
    """

    plane: ControlPlane
    values: Mapping[str, Any]
    patience: float = 60
    calmly: bool = True
    _operator: Operator | None = None
    _inside: Namespace | None = None
    _started: float = 0.0

    @property
    def operator(self) -> Operator:
        """The operator."""
        assert self._operator
        return self._operator

    @property
    def inside(self) -> Namespace:
        """A fresh namespace."""
        assert self._inside
        return self._inside

    @property
    def given(self) -> Json:
        """All values."""
        return {"azureTenantID": TENANT, "replicaCount": 1, "minReadySeconds": 0, **self.values}

    def install(self) -> None:
        """Install it, or put right whatever was done to it."""
        where = ("--namespace", NAMESPACE, "--create-namespace", "--values=-", "--force-conflicts")
        self.plane.helm("upgrade", "--install", RELEASE, CHART, *where, given=json.dumps(self.given))
        self.plane.kubectl("delete", "events", "--all", "--namespace=default")

    def objects(self) -> list[Json]:
        """Return what the chart renders for it."""
        text = rendered(self.given, RELEASE, NAMESPACE)
        return [found for found in yaml.safe_load_all(text) if found]

    def granted(self, account: str = RELEASE) -> list[Right]:
        """Return the rights that it gives an account."""
        return [right for role in roles_of(self.objects(), account) for right in rights_of(role)]

    @contextmanager
    def without(self, right: Right) -> Iterator[None]:
        """Take one right away meanwhile, and nothing else."""
        with ExitStack() as stack:
            for role in roles_of(self.objects(), RELEASE):
                every = rights_of(role)
                if right in every:
                    left = {**role, "rules": [rule_of(one) for one in every if one != right]}
                    self.plane.kubectl("replace", "--filename=-", given=json.dumps(left))
                    stack.callback(self.plane.kubectl, "replace", "--filename=-", given=json.dumps(role))
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the operator with command line and environment of its Deployment and its account's rights."""
        deployment = self.get("deployment")["spec"]["template"]["spec"]["containers"][0]
        elsewhere = ("run", "--listen=", "--health-addr=", "--metrics-addr=")
        flags = [flag for flag in deployment["args"] if not flag.startswith(elsewhere)]
        environ = {**self.get("configmap")["data"], "POD_NAMESPACE": NAMESPACE, "POD_NAME": "operator-1"}
        kubeconfig = self.plane.kubeconfig_for(RELEASE, NAMESPACE)
        with (
            fresh_namespace(self.plane) as self._inside,
            operator_running(
                *(self.plane, free_port()), environ=environ, flags=flags, kubeconfig=kubeconfig, ready=False
            ) as self._operator,
        ):
            self._started = time.monotonic()
            yield
        self._operator = self._inside = None

    def calm(self) -> None:
        """Wait until the operator looks at nothing but what it is told of.

        It looks at everything a few seconds after its start, and an instant after each change.
        """
        if self.calmly:
            time.sleep(max(_SETTLED, self._started + _NO_LONGER_NEW - time.monotonic()))

    def get(self, kind: str, name: str = RELEASE) -> Json:
        """Return an object of its own."""
        found: Json = self.plane.get(kind, name, f"--namespace={NAMESPACE}")
        return found

    def find(self, kind: str, name: str = RELEASE, namespace: str = NAMESPACE) -> Json | None:
        """Return an object; None when there is none."""
        how = (kind, f"--field-selector=metadata.name={name}", f"--namespace={namespace}")
        try:
            (one,) = self.plane.get(*how)["items"] or (None,)
        except ProcessFailed:  # the kind itself may be gone
            return None
        return dict(one) if one else None

    def kubectl(self, *arguments: str, given: Json | None = None) -> str:
        """Run kubectl as administrator, in its namespace."""
        text = None if given is None else json.dumps(given)
        return self.plane.kubectl(*arguments, f"--namespace={NAMESPACE}", given=text)

    def expect(self, seen: Callable[[], object], what: str) -> None:
        """Wait until something is seen.

        Raises:
            AssertionError: It never was.
        """
        deadline = time.monotonic() + self.patience
        while not seen():
            assert self.operator.child.status is None, f"the operator ended, awaited: {what}"
            assert time.monotonic() < deadline, f"not within {self.patience:g} s: {what}"
            time.sleep(0.1)

    def identities(self) -> Json:
        """Return the identities in the PodWiring of `inside`."""
        found = self.find("podwirings", contract.POD_WIRING_NAME, self.inside.name)
        return dict(found["spec"]["identities"]) if found else {}

    def told(self, reason: str) -> bool:
        """Whether there is an Event with that reason about an object without a namespace."""
        events = self.plane.get("events", "--namespace=default")["items"]
        return reason in {event["reason"] for event in events}

    def state_of(self, kind: str) -> str:
        """Return how the operator's metrics say that an object of the policy is; "" when they say nothing."""
        name = "workload_identity_policy_state"
        states = ("declared", "edited", "missing", "unknown")
        holds = [s for s in states if self.operator.metric(f'{name}{{object="{kind}",state="{s}"}}') == 1]
        return holds[0] if holds else ""


Behaviour: TypeAlias = Callable[[Release], None]


def unprepared(release: Release) -> None:
    """Take away what an operator that starts has to bring: Secret, Lease and caBundle."""
    release.kubectl("delete", f"secret/{RELEASE}-certificate", f"lease/{RELEASE}", "--ignore-not-found")
    path = "/webhooks/0/clientConfig/caBundle"
    patch = json.dumps([{"op": "add", "path": path, "value": None}, {"op": "remove", "path": path}])
    release.kubectl("patch", CONFIGURATIONS, CONFIGURATION, "--type=json", f"--patch={patch}")


def certificate(release: Release) -> Json:
    """Return the data of the Secret; {} when there are none."""
    return dict((release.find("secret", f"{RELEASE}-certificate") or {}).get("data") or {})


def becomes_ready(release: Release) -> None:
    """The table is filled, the certificate is in the Secret, and the API server trusts it."""
    release.expect(release.operator.ready, "ready")
    release.expect(lambda: {"tls.crt", "tls.key", "ca.crt"} <= certificate(release).keys(), "the Secret")
    bundle = release.get(CONFIGURATIONS, CONFIGURATION)["webhooks"][0]["clientConfig"].get("caBundle", "")
    assert b64decode(certificate(release)["ca.crt"]) in b64decode(bundle), "the caBundle is another's"


def mends_secret(release: Release) -> None:
    """What somebody empties of the Secret is there again within seconds."""
    release.calm()
    patch = json.dumps([{"op": "remove", "path": "/data"}])
    release.kubectl("patch", "secret", f"{RELEASE}-certificate", "--type=json", f"--patch={patch}")
    release.expect(lambda: certificate(release), "data of the Secret")


def compiles_accounts(release: Release) -> None:
    """An annotated ServiceAccount gets into the PodWiring of its namespace, which says how it is."""
    annotated(release)

    def tells() -> bool:
        found = release.find("podwirings", contract.POD_WIRING_NAME, release.inside.name)
        return bool(found and found.get("status", {}).get("identities") == 1)

    release.expect(tells, "status of the PodWiring")


def annotated(release: Release) -> None:
    """Have an annotated ServiceAccount, and wait until it is in the PodWiring."""
    if not release.find("serviceaccount", "billing", release.inside.name):
        release.inside.account("billing")
    release.inside.kubectl("annotate", "serviceaccount", "billing", f"{contract.CLIENT_ID}={CLIENT}")
    release.expect(lambda: "billing" in release.identities(), "in the PodWiring")


def puts_podwirings_right(release: Release) -> None:
    """What somebody edits of a PodWiring is put right."""
    annotated(release)
    patch = json.dumps({"spec": {"audience": "api://somebodys"}})
    name = contract.POD_WIRING_NAME
    release.inside.kubectl("patch", "podwiring", name, "--type=merge", f"--patch={patch}")

    def right() -> bool:
        found = release.find("podwirings", name, release.inside.name)
        return bool(found and found["spec"]["audience"] != "api://somebodys")

    release.expect(right, "the PodWiring put right")


def removes_podwirings(release: Release) -> None:
    """With the last annotation of a namespace its PodWiring goes."""
    annotated(release)
    release.inside.kubectl("annotate", "serviceaccount", "billing", f"{contract.CLIENT_ID}-")
    gone = (contract.POD_WIRING_NAME, release.inside.name)
    release.expect(lambda: not release.find("podwirings", *gone), "the PodWiring gone")


def looks_accounts_up(release: Release) -> None:
    """A ServiceAccount that the table does not know is looked up when its pod is created."""
    name = f"unknown-{secrets.token_hex(4)}"
    release.inside.account(name)

    def wired() -> bool:
        return bool(review(release, pod("web", name))["allowed"])

    release.expect(wired, "the review allowed")


def review(release: Release, of: Json) -> Json:
    """Send the operator the review of a pod's creation, trusting its caBundle; return the response."""
    bundle = release.get(CONFIGURATIONS, CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"]
    trust = ssl.create_default_context(cadata=b64decode(bundle).decode("ascii"))
    host, _, path = release.operator.webhook.removeprefix("https://").partition("/")
    request = {"uid": "1", "namespace": release.inside.name, "operation": "CREATE", "object": of}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    with closing(HTTPSConnection(host, context=trust, timeout=10)) as opened:
        opened.request("POST", f"/{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer: Json = json.loads(opened.getresponse().read())
    return dict(answer["response"])


def keeps_policy(release: Release) -> None:
    """An edited policy is made what it was, anew where something was added, and an Event says so."""
    release.calm()
    added = f"added-{secrets.token_hex(4)}"  # what an earlier one could not put right may be there still
    value = {"name": added, "expression": "false"}
    condition = [{"op": "add", "path": "/spec/matchConditions/-", "value": value}]
    release.kubectl("patch", POLICIES, RELEASE, "--type=json", f"--patch={json.dumps(condition)}")

    def right() -> bool:
        found = release.find(POLICIES)
        return found is not None and added not in {one["name"] for one in found["spec"]["matchConditions"]}

    release.expect(right, "the policy put right")
    release.expect(lambda: release.told("Reverted"), "an Event")


def brings_policy_back(release: Release) -> None:
    """A deleted policy is there again."""
    release.kubectl("delete", POLICIES, RELEASE)
    release.expect(lambda: release.find(POLICIES), "the policy")


def keeps_binding(release: Release) -> None:
    """An edited binding is made what it was."""
    release.calm()
    whole = json.dumps({"spec": {"paramRef": {"namespace": "somewhere"}}})
    release.kubectl("patch", BINDINGS, RELEASE, "--type=merge", f"--patch={whole}")

    def right() -> bool:
        found = release.find(BINDINGS)
        return found is not None and "namespace" not in found["spec"]["paramRef"]

    release.expect(right, "the binding put right")


def brings_binding_back(release: Release) -> None:
    """A deleted binding is there again."""
    release.kubectl("delete", BINDINGS, RELEASE)
    release.expect(lambda: release.find(BINDINGS), "the binding")


def keeps_definition(release: Release) -> None:
    """An edited CustomResourceDefinition is made what it was."""
    release.calm()
    names = json.dumps({"spec": {"names": {"shortNames": ["other"]}}})
    release.kubectl("patch", "crd", DEFINITION, "--type=merge", f"--patch={names}")

    def right() -> bool:
        found = release.find("crd", DEFINITION)
        return bool(found and found["spec"]["names"]["shortNames"] == ["pw"])

    release.expect(right, "the CustomResourceDefinition put right")


def brings_definition_back(release: Release) -> None:
    """A deleted CustomResourceDefinition is there again."""
    release.kubectl("delete", "crd", DEFINITION)
    release.expect(lambda: release.find("crd", DEFINITION), "the CustomResourceDefinition")


def leaves_labelled_pods_to_the_peer(release: Release) -> None:
    """While the peer is there the binding leaves labelled pods out, whoever edits it; later it does not."""

    def leaves() -> bool:
        found = release.find(BINDINGS)
        return bool(found and contract.LEFT_TO in found["metadata"].get("annotations", {}))

    with peer(release):
        release.expect(leaves, "labelled pods left to the peer")
        release.kubectl("annotate", BINDINGS, RELEASE, f"{contract.LEFT_TO}-")
        release.expect(leaves, "labelled pods left to the peer again")
    release.expect(lambda: not leaves(), "labelled pods taken over")
    release.expect(lambda: release.told("LabelledPodsTakenOver"), "an Event")


@contextmanager
def peer(release: Release) -> Iterator[None]:
    """Have the peer's configuration there, which calls nobody."""
    webhook = {
        "name": contract.WEBHOOK_NAME,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "objectSelector": {"matchLabels": {contract.USE_LABEL: "true"}},
        "rules": [],
    }
    name = contract.PEER_CONFIGURATION
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    configuration = {**kind, "metadata": {"name": name}, "webhooks": [webhook]}
    release.kubectl("create", "--filename=-", given=configuration)
    try:
        yield
    finally:
        release.kubectl("delete", CONFIGURATIONS, name)


def follows_the_declaration(release: Release) -> None:
    """Once the chart declares no policy any more, none is kept; the metrics follow within seconds."""
    kind, name = "MutatingAdmissionPolicy", f"{RELEASE}-declared"
    release.expect(lambda: release.state_of(kind) == "declared", "the policy as declared")
    found = release.get("configmap", name)
    release.kubectl("delete", "configmap", name)
    release.expect(lambda: not release.state_of(kind), "no policy kept")
    del found["metadata"]["resourceVersion"], found["metadata"]["uid"]
    release.kubectl("create", "--filename=-", given=found)
    release.expect(lambda: release.state_of(kind) == "declared", "the policy as declared again")


def covers_unlabelled_pods(release: Release) -> None:
    """Without a policy the operator keeps a second webhook, for namespaces with an identity."""
    annotated(release)

    def covered() -> bool:
        webhooks = release.get(CONFIGURATIONS, CONFIGURATION)["webhooks"]
        places = [w["namespaceSelector"] for w in webhooks if w["name"] == contract.UNLABELLED_WEBHOOK]
        return release.inside.name in json.dumps(places)

    release.expect(covered, "the namespace covered")


def audits(release: Release) -> None:
    """Pods made before their ServiceAccount was annotated are told of, to whomever made them."""
    inside = release.inside
    inside.account("web")
    made = ("Deployment", "StatefulSet", "Job")
    for kind in made:
        inside.create(workload(kind, kind.lower(), "web"))
    release.expect(lambda: all(pods_of(inside, kind.lower()) for kind in made), "their pods")
    for kind, version in (("DaemonSet", "apps/v1"), ("ReplicationController", "v1")):
        owned_pod(inside, kind, version, kind.lower(), "web")
    inside.kubectl("annotate", "serviceaccount", "web", f"{contract.CLIENT_ID}={CLIENT}")

    def told(kind: str) -> bool:
        return "PodsUnwired" in events_of(inside, kind, kind.lower())

    for kind in (*made, "DaemonSet", "ReplicationController"):
        release.expect(partial(told, kind), f"an Event about the {kind}")

    def tells() -> bool:
        found = release.find("podwirings", contract.POD_WIRING_NAME, inside.name)
        return bool(found and found.get("status", {}).get("pods", {}).get("unwired"))

    if release.values.get("healing") is None:
        release.expect(tells, "pods in the status of the PodWiring")


def owned_pod(inside: Namespace, kind: str, version: str, name: str, account: str) -> None:
    """Create an object whose controller has nothing to do here, and a pod of it."""
    manifest = workload(kind, name, account) | {"apiVersion": version}
    if kind == "ReplicationController":
        manifest["spec"]["selector"] = {"app": name}
        manifest["spec"]["replicas"] = 0
    uid = inside.create(manifest)["metadata"]["uid"]
    reference = {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}
    labels = {"app": name}
    inside.create(pod(name, account, metadata={"labels": labels, "ownerReferences": [reference]}))


def heals(release: Release) -> None:
    """Whoever made such pods is restarted, one at a time; pods of a ReplicaSet on its own are evicted."""
    inside = release.inside
    inside.account("api")
    for kind in ("Deployment", "StatefulSet", "ReplicaSet"):
        inside.create(workload(kind, f"api-{kind.lower()}", "api", replicas=1))
    made = ("api-deployment", "api-statefulset", "api-replicaset")
    release.expect(lambda: all(pods_of(inside, name) for name in made), "their pods")
    owned_pod(inside, "DaemonSet", "apps/v1", "api-daemonset", "api")
    first = pods_of(inside, "api-replicaset")[0]["metadata"]["uid"]

    def restarted(kind: str, name: str) -> bool:
        template = inside.get(kind, name)["spec"]["template"]["metadata"]
        return contract.RESTARTED_AT in (template.get("annotations") or {})

    with pods_become_ready(inside):
        inside.kubectl("annotate", "serviceaccount", "api", f"{contract.CLIENT_ID}={CLIENT}")
        release.expect(lambda: restarted("deployments", "api-deployment"), "the Deployment restarted")
        release.expect(lambda: restarted("statefulsets", "api-statefulset"), "the StatefulSet restarted")
        release.expect(
            lambda: first not in {one["metadata"]["uid"] for one in pods_of(inside, "api-replicaset")},
            "the pod of the ReplicaSet evicted",
        )
        release.expect(lambda: restarted("daemonsets", "api-daemonset"), "the DaemonSet restarted")


BEHAVIOURS: Final[Mapping[str, tuple[Mapping[str, Any], Sequence[Behaviour]]]] = {
    "policy": (
        POLICY_ENGINE,
        [
            becomes_ready,
            compiles_accounts,
            puts_podwirings_right,
            looks_accounts_up,
            keeps_policy,
            keeps_binding,
            keeps_definition,
            leaves_labelled_pods_to_the_peer,
            removes_podwirings,
            brings_policy_back,
            brings_binding_back,
            brings_definition_back,
            mends_secret,
            follows_the_declaration,
            audits,
        ],
    ),
    "webhook": (
        WEBHOOK_ENGINE,
        [
            becomes_ready,
            compiles_accounts,
            looks_accounts_up,
            covers_unlabelled_pods,
            removes_podwirings,
            mends_secret,
            audits,
        ],
    ),
    "healing": (
        HEALING,
        [becomes_ready, audits, heals],
    ),
}
"""By name: values of a release, and what its operator does, in an order in which each finds what it needs."""


def rehearse(release: Release, timeout: int = 20) -> subprocess.CompletedProcess[str]:
    """Run the program of `helm test` with its arguments and its account's rights; return how it ended.

    Args:
        release: Whose.
        timeout: Seconds that it waits for the operator's Deployment.
    """
    objects = {(one["kind"], one["metadata"]["name"]): one for one in release.objects()}
    test = objects["Pod", TEST]
    brought = [one for one in objects.values() if one["metadata"].get("annotations", {}).get("helm.sh/hook")]
    with ExitStack() as stack:
        for one in brought:
            if one["kind"] != "Pod":
                given = json.dumps(one)
                release.plane.kubectl("apply", "--filename=-", given=given)
                stack.callback(release.plane.kubectl, "delete", "--filename=-", given=given)
        kubeconfig = release.plane.kubeconfig_for(TEST, NAMESPACE)
        arguments = [*test["spec"]["containers"][0]["args"], "--kubeconfig", str(kubeconfig)]
        command = [sys.executable, "-m", "workload_identity_operator", *arguments, f"--timeout={timeout}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)
