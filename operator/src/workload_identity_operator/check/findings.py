"""What `check` can find: each kind under a stable code, each finding with what to change.

Scripts may rely on codes, severities and the fields of the JSON report; sentences may change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["error", "warning"]
"""error: pods are refused, run without their identity, or cannot trade their token. warning: something has no
effect, or the next fault will do harm."""


CLAIMS: Final = "the token's claims"
"""What is not looked at where no token is made."""

State: TypeAlias = Literal["ok", "wrong", "unseen"]
"""Of a link of a chain."""


class Code(NamedTuple):
    """A kind of finding: a row of the table in docs/check.md.

    Attributes:
        severity: Of every finding of the kind.
        meaning: What it means.
        cure: What to do, in general; a finding says it for its object.
    """

    severity: Severity
    meaning: str
    cure: str


CODES: Final[Mapping[str, Code]] = {
    # The installation.
    "not-installed": Code(
        "error", "no release of the chart is in the cluster", "install the chart, or look at another context"
    ),
    "object-missing": Code(
        "error", "an object that the release needs is not there", "`helm upgrade` makes it anew"
    ),
    "object-edited": Code(
        "error",
        "an object of the API server's policy, or the webhook's choice of pods, is not as the release has it",
        "start the operator, which puts the policy right, or `helm upgrade`; change values, not objects",
    ),
    "settings-invalid": Code(
        "error",
        "the operator cannot start with the flags and variables of its Deployment",
        "correct the named value of the chart",
    ),
    "rights-missing": Code(
        "error",
        "the operator's ServiceAccount may not do what the operator needs",
        "`helm upgrade` restores ClusterRole, Role and their bindings",
    ),
    "replicas-unavailable": Code(
        "warning", "fewer replicas are available than wanted", "see their events and logs"
    ),
    "versions-differ": Code(
        "warning",
        "objects of one release are of different versions",
        "finish the upgrade: `helm upgrade`",
    ),
    "validation-off": Code(
        "warning",
        "a ValidatingAdmissionPolicy of the release is not in force, or not the chart's: mistakes in "
        "annotations are not told at once, or the guard lets unwired pods through",
        "`helm upgrade` makes policy and binding anew",
    ),
    "peer-beside": Code(
        "warning",
        "Azure/azure-workload-identity, such as AKS's add-on, is installed too: labelled pods are its",
        "remove one of the two, or live with it",
    ),
    "enforcer": Code(
        "warning",
        "AKS's admissions enforcer rewrites the webhook configuration",
        'restore the annotation `admissions.enforcer/disabled: "true"`, or set the value '
        "`admissionsEnforcer.disabled=false`",
    ),
    # The webhook.
    "webhook-not-called": Code(
        "error",
        "the webhook's rules or selectors leave out labelled pods",
        "`helm upgrade` restores them",
    ),
    "webhook-for-all-pods": Code(
        "error",
        "the webhook is called for pods that did not ask for an identity, and refuses them while it is away",
        "`helm upgrade` restores its objectSelector",
    ),
    "webhook-lets-through": Code(
        "warning",
        "failurePolicy is Ignore: labelled pods start without an identity while the operator is away",
        "set the chart's `failurePolicy` to Fail, or `guard=true`",
    ),
    "webhook-hasty": Code(
        "warning",
        "the API server waits for less than the operator may need to look a ServiceAccount up",
        "set the chart's `timeoutSeconds` to 5",
    ),
    "webhook-asked-once": Code(
        "warning",
        "reinvocationPolicy is Never: containers that other webhooks add later have no identity",
        "set it to IfNeeded: `helm upgrade`",
    ),
    "webhook-without-endpoints": Code(
        "error",
        "nobody answers behind the webhook's Service",
        "see Deployment and pods of the operator, and the Service's selector",
    ),
    "webhook-service-wrong": Code(
        "error",
        "the webhook configuration calls a path or port that the operator does not answer on",
        "`helm upgrade` restores it",
    ),
    "webhook-fails": Code(
        "error", "the API server cannot call the webhook", "what the API server says names the reason"
    ),
    "wiring-not-in-force": Code(
        "error",
        "a labelled pod, made without being stored, gets no identity or a wrong one",
        "see policy, webhook and who else changes pods",
    ),
    "policy-not-in-force": Code(
        "warning",
        "the API server's policy does not wire a plain pod: all pods depend on the operator",
        "see MutatingAdmissionPolicy, its binding and the PodWiring",
    ),
    # Certificates.
    "ca-bundle-missing": Code(
        "error",
        "the webhook configuration names no authority for the operator's certificate",
        "start the operator, which fills in caBundle; or let cert-manager inject it",
    ),
    "ca-bundle-wrong": Code(
        "error",
        "caBundle is not the authority of the certificate that is served",
        "see who else writes caBundle; the operator sets it within a minute",
    ),
    "certificate-expired": Code(
        "error",
        "the serving certificate, or its authority, is not valid now",
        "start the operator, which issues a new one; or see whoever keeps it",
    ),
    "certificate-expires-soon": Code(
        "warning",
        "the serving certificate ends within two weeks and was not renewed",
        "see the operator's log, or whoever keeps the certificate",
    ),
    "certificate-name-wrong": Code(
        "error",
        "the serving certificate does not have the name by which the API server calls the webhook",
        "let the operator issue it, or have the name added",
    ),
    "certificate-unusable": Code(
        "error",
        "the Secret with the serving certificate holds something else",
        "delete its data: the operator issues a new one",
    ),
    # The tables that the policy wires from.
    "podwiring-anothers": Code(
        "warning",
        "another release keeps the namespace's PodWiring, with its own settings",
        "give both releases the same settings, or uninstall one",
    ),
    "podwiring-outdated": Code(
        "error",
        "the PodWiring is not what the annotations of the namespace's ServiceAccounts say",
        "see whether the operator runs, and its log",
    ),
    # Azure.
    "tenant-invalid": Code("error", "the cluster's tenant cannot be one", "set the chart's `azureTenantID`"),
    "tenant-unknown": Code(
        "error",
        "Entra does not know the cluster's tenant",
        "set the chart's `azureTenantID` and `azureEnvironment`",
    ),
    "issuer-not-public": Code(
        "error",
        "Entra cannot reach the cluster's issuer, or its keys: no https URL, or a name inside a network",
        "set kube-apiserver's `--service-account-issuer` and `--service-account-jwks-uri` to public https "
        "URLs",
    ),
    "issuer-unreachable": Code(
        "error",
        "the issuer's public documents cannot be fetched",
        "publish both where everybody can read them",
    ),
    "issuer-differs": Code(
        "error",
        "the public document names another issuer than the tokens, if only by a slash",
        "publish the API server's own document; federated credentials take the tokens' issuer",
    ),
    "issuer-document-wrong": Code(
        "error",
        "one of the issuer's public documents is not what it should be",
        "publish the API server's own documents",
    ),
    "issuer-keys-missing": Code(
        "error",
        "a key that signs, or may sign, tokens is not among the published ones",
        "publish the API server's keys before it signs with them",
    ),
    "issuer-algorithm": Code(
        "error", "tokens are not signed RS256, the only way that Entra accepts", "sign with an RSA key"
    ),
    "clock-differs": Code(
        "error",
        "the API server's clock is not Entra's: tokens are not valid yet, or end early",
        "have the control plane's machines keep time (NTP)",
    ),
    # ServiceAccounts, namespaces, workloads.
    "annotation-unknown": Code(
        "warning",
        "an annotation or label is nearly one of ours, and has no effect",
        "correct its spelling",
    ),
    "annotation-misplaced": Code(
        "warning",
        "an annotation or label of ours is where it has no effect",
        "move it to the object that it belongs on",
    ),
    "annotation-idle": Code(
        "warning",
        "an annotation has no effect for its value, or for want of another that it needs",
        "correct its value, add the other, or remove it",
    ),
    "label-misplaced": Code(
        "warning",
        "the label is on an object whose pods do not have it",
        "label the pod; in a Deployment, its template",
    ),
    "label-missing": Code(
        "warning",
        "pods are prepared for an identity but do not ask for one, so nobody gives it",
        "label the pod; in a Deployment, its template",
    ),
    "label-value": Code(
        "warning", "the label's value opts neither in nor out", 'write "true", or "false" to opt out'
    ),
    "client-id-invalid": Code(
        "error",
        "the annotation is no client id: Entra will not know it",
        "copy the application's or managed identity's client id, without blanks",
    ),
    "tenant-id-invalid": Code(
        "error",
        "the annotation is no tenant id: Entra will not know it",
        "copy the tenant's id, or leave the annotation out for the cluster's tenant",
    ),
    "expiration-invalid": Code(
        "error",
        "the token's lifetime is no whole number of seconds from 3600 to 86400: labelled pods are refused",
        "correct the annotation",
    ),
    "healing-invalid": Code(
        "warning",
        "the wish about healing is none of off, dryRun and restart: it counts as off",
        "correct the annotation",
    ),
    "proxy-impossible": Code(
        "error",
        "the pod asks for the proxy sidecar where that cannot run, or at a port that is none: it is refused",
        "correct or remove the annotation",
    ),
    "proxy-port-taken": Code(
        "warning",
        "a container listens where the proxy sidecar does",
        "change one of the two ports",
    ),
    "skips-nothing": Code(
        "warning",
        "skip-containers names a container that is not there",
        "correct the name; names are separated by `;`",
    ),
    "mount-in-the-way": Code(
        "error",
        "a volume of the pod's own is where the token belongs: the pod is refused",
        "mount it elsewhere, or skip the container",
    ),
    "env-overridden": Code(
        "warning",
        "an AZURE_* variable from envFrom is overridden by ours",
        "set it in `env`, which is kept, or leave it out",
    ),
    "env-empty": Code(
        "warning",
        "a container sets one of our variables to nothing, which is kept",
        "remove the variable, or set it",
    ),
    "env-not-expanded": Code(
        "warning",
        "a variable refers to one of ours, which comes after it and so is not expanded",
        "refer to it in `command` or `args`, or read both in the program",
    ),
    "token-file-elsewhere": Code(
        "warning",
        "a container looks for its token where no token is",
        "use AZURE_FEDERATED_TOKEN_FILE as it is given",
    ),
    "token-endpoint-ca-missing": Code(
        "error",
        "the namespace lacks the ConfigMap with the custom token endpoint's certificates: pods do not start",
        "make it, or name kube-root-ca.crt, which every namespace has",
    ),
    "account-missing": Code(
        "error",
        "pods run, or should, as a ServiceAccount that is not there",
        "create it, or correct serviceAccountName",
    ),
    "account-not-annotated": Code(
        "warning",
        "labelled pods run as a ServiceAccount without client-id: AZURE_CLIENT_ID is not set",
        "annotate the ServiceAccount, or name the right one",
    ),
    "namespace-left-out": Code(
        "error",
        "pods of the namespace should have an identity, but webhook and policy leave the namespace out",
        "remove its label, change `mutatingWebhookNamespaceSelector`, or move the workload",
    ),
    "pod-left-out": Code(
        "error",
        "labelled pods lack another label that the webhook's objectSelector wants",
        "add it, or change `mutatingWebhookObjectSelector`",
    ),
    # Pods.
    "pod-unwired": Code(
        "error",
        "pods that should have an identity run without: made before the install, or during an outage",
        "make them anew: `kubectl rollout restart`",
    ),
    "pod-outdated": Code(
        "warning",
        "pods run with an identity that their ServiceAccount no longer says",
        "make them anew: `kubectl rollout restart`",
    ),
    "pod-wired-wrong": Code(
        "error",
        "pods were wired, but not such that it works",
        "make them anew: `kubectl rollout restart`",
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Object:
    """What a finding is about.

    Attributes:
        kind: "ServiceAccount"; "Issuer" and "Tenant" for what is no object.
        name: Its name; the URL or id of what is no object.
        namespace: "" outside of namespaces.
    """

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        """Return it as a table shows it."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: One of `CODES`.
        object: What it is about.
        wanted: What should be.
        found: What is; never a token, key or assertion.
        change: What to do.
    """

    code: str
    object: Object
    wanted: str
    found: str
    change: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CODES[self.code].severity

    def as_json(self) -> dict[str, Any]:
        """Return it as the JSON report has it."""
        return {
            "severity": self.severity,
            "code": self.code,
            "object": {
                "kind": self.object.kind,
                "namespace": self.object.namespace,
                "name": self.object.name,
            },
            "wanted": self.wanted,
            "found": self.found,
            "change": self.change,
        }


@dataclass(frozen=True, slots=True, order=True)
class Unseen:
    """Something that was not looked at, and so is neither right nor wrong.

    Attributes:
        what: What it is.
        why: What it needs: a right, a network, a flag.
    """

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """A link of the chain from a pod's label to its access token.

    Attributes:
        what: The link.
        state: How it is.
        told: What was found.
    """

    what: str
    state: State
    told: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of `check` says.

    Attributes:
        findings: The worst first.
        unseen: What was not looked at.
        seen: What was, "12 ServiceAccounts".
        steps: Of `check pod`, the chain; () otherwise.
        credential: Of `check pod`, the federated credential that must exist; None otherwise.
        commands: That create it; of Azure's own command line.
    """

    findings: Sequence[Finding]
    unseen: Sequence[Unseen] = ()
    seen: Sequence[str] = ()
    steps: Sequence[Step] = ()
    credential: Mapping[str, Any] | None = None
    commands: Sequence[str] = field(default=())

    @property
    def wrong(self) -> bool:
        """Whether something is: a finding, or a link of a pod's chain."""
        return bool(self.findings) or any(step.state == "wrong" for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        told: dict[str, Any] = {
            "findings": [finding.as_json() for finding in self.findings],
            "notLookedAt": [{"what": one.what, "needs": one.why} for one in self.unseen],
            "lookedAt": list(self.seen),
        }
        if self.steps:
            told["chain"] = [{"step": one.what, "state": one.state, "found": one.told} for one in self.steps]
        if self.credential is not None:
            told["federatedCredential"] = dict(self.credential)
            told["commands"] = list(self.commands)
        return told


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return them without repetitions, errors first, then by what they are about."""
    codes = list(CODES)
    return sorted(
        dict.fromkeys(findings),
        key=lambda one: (one.severity != "error", codes.index(one.code), one.object, one.found),
    )
