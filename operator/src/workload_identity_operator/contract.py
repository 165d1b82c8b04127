"""Every name, path, bound and default that users, pods and Azure rely on, each in one place.

Unless said otherwise the values are those of Azure/azure-workload-identity v1.6.0, so that
clusters move over without changing a manifest. The chart's templates and the tests take theirs
from here or are checked against it.
"""

from typing import Final

PREFIX: Final = "azure.workload.identity/"
"""Prefix of all our labels and annotations."""

# On pods.
USE_LABEL: Final = PREFIX + "use"
"""Pod label; `"true"` opts the pod in."""
EXPIRATION: Final = PREFIX + "service-account-token-expiration"
"""Annotation on pod or ServiceAccount: lifetime of the projected token in seconds; the pod's wins."""
SKIP_CONTAINERS: Final = PREFIX + "skip-containers"
"""Pod annotation: names of containers that stay untouched, separated by `;`."""
INJECT_PROXY: Final = PREFIX + "inject-proxy-sidecar"
"""Pod annotation: add the proxy for programs that call the instance metadata service."""
PROXY_PORT: Final = PREFIX + "proxy-sidecar-port"
"""Pod annotation: the port that proxy listens on."""
LEGACY_PATH_ANNOTATION: Final = PREFIX + "legacy-token-path"
"""Ours alone. Pod annotation: `"true"` mounts the token at `LEGACY_PATH` too, `"false"` does not, whatever
the operator's flag says."""
MIRROR_POD: Final = "kubernetes.io/config.mirror"
"""Annotation of the kubelet's copy of a static pod, which may not use projected tokens."""

# On ServiceAccounts.
CLIENT_ID: Final = PREFIX + "client-id"
"""Annotation: client id of the application or managed identity."""
TENANT_ID: Final = PREFIX + "tenant-id"
"""Annotation: tenant id, where it differs from the cluster's."""

POD_ANNOTATIONS: Final = frozenset(
    {EXPIRATION, SKIP_CONTAINERS, INJECT_PROXY, PROXY_PORT, LEGACY_PATH_ANNOTATION}
)
SERVICE_ACCOUNT_ANNOTATIONS: Final = frozenset({CLIENT_ID, TENANT_ID, EXPIRATION})

# In wired containers, in the order they are appended.
ENV_CLIENT_ID: Final = "AZURE_CLIENT_ID"
ENV_TENANT_ID: Final = "AZURE_TENANT_ID"
ENV_TOKEN_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - the variable's name
ENV_AUTHORITY_HOST: Final = "AZURE_AUTHORITY_HOST"

ENDPOINT_VARIABLES: Final = (
    *("AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_KUBERNETES_SNI_NAME"),
    *("AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA"),
)
"""Those of the custom token endpoint."""
VARIABLES: Final = (
    *(ENV_CLIENT_ID, ENV_TENANT_ID, ENV_TOKEN_FILE, ENV_AUTHORITY_HOST),
    *ENDPOINT_VARIABLES,
)
"""All of them, in that order."""

# The projected volume.
BASE_PATH: Final = "/var/run/secrets/azure/wi"
"""Where the volume is mounted, read-only."""
TOKEN_PATH: Final = "token/azure-identity-token"  # noqa: S105 - a path
"""The token's path inside the volume."""
TOKEN_FILE: Final = f"{BASE_PATH}/{TOKEN_PATH}"
"""The token file as the container sees it."""
LEGACY_PATH: Final = "/var/run/secrets/azure/tokens"
"""Where the peer had it up to v1.5, as some programs have built in. Mounted too, read-only, if asked for."""
LEGACY_TOKEN_PATH: Final = "azure-identity-token"  # noqa: S105 - a path
"""The token's path in the volume, for those. No subPath of the other: such a mount sees no renewed token."""
VOLUME_PREFIX: Final = "azure-workload-identity-reserved-"
"""Begins the name of every volume of ours (and the peer's); 33 characters."""
VOLUME_HASH_LENGTH: Final = 30
"""Hex digits after the prefix: 33 + 30 = 63, the longest name Kubernetes allows."""

POLICY_VOLUME: Final = VOLUME_PREFIX + "policy"
"""The volume's name where the API server's own policy wires the pod: CEL has no hash function."""
WIRED_BY: Final = "workload-identity.io/wired-by"
"""Ours alone. Label that the policy puts on labelled pods beside that volume: by it the API server leaves our
webhook out, and need not evaluate whether the pod lacks something. What an author says there is taken off."""
WIRED_BY_POLICY: Final = "policy"

# The proxy for programs that call the instance metadata service.
PROXY_NAME: Final = "azwi-proxy"
PROXY_INIT_NAME: Final = "azwi-proxy-init"
ENV_PROXY_PORT: Final = "PROXY_PORT"
"""Tells the init container's script where to send such calls."""
DEFAULT_PROXY_PORT: Final = 8000
PROXY_UID: Final = 1501
"""User and group of the proxy's process; the init container's rules let this user's calls pass."""
_PROXY_VERSION: Final = "v1.6.0"  # the images are the peer's own, of the release that the rest follows
_REGISTRY: Final = "mcr.microsoft.com/oss/azure/workload-identity"
PROXY_IMAGE: Final = f"{_REGISTRY}/proxy:{_PROXY_VERSION}"
PROXY_INIT_IMAGE: Final = f"{_REGISTRY}/proxy-init:{_PROXY_VERSION}"

# The projected token.
DEFAULT_EXPIRATION: Final = 3600
"""Seconds."""
MIN_EXPIRATION: Final = 3600
"""Seconds; included."""
MAX_EXPIRATION: Final = 86400
"""Seconds; included."""

# Our objects in a cluster.
RELEASE_NAME: Final = "workload-identity-operator"
"""Begins the names of nearly all, where nobody says otherwise."""
CONFIGURATION_PREFIX: Final = "azure-"
"""Comes before that in the name of the MutatingWebhookConfiguration. API servers call webhooks in order of
their names, and a mesh's is to come later: the container that it adds is wired on the second round, by the
policy too, which needs nobody. Were ours the later one, it would be asked, and so would have to be up."""

# The table that the API server's policy wires pods from.
POD_WIRING_GROUP: Final = "workload-identity.io"
POD_WIRING_API: Final = f"{POD_WIRING_GROUP}/v1"
POD_WIRINGS: Final = "podwirings"
"""The resource, as it stands in a URL."""
POD_WIRING_NAME: Final = "workload-identity"
"""Name of the one PodWiring of a namespace."""
POD_WIRING_KEEPER: Final = f"{POD_WIRING_GROUP}/kept-by"
"""Its annotation: the webhook configuration of the release whose operator keeps it."""
SETTINGS_CHECKSUM: Final = f"{POD_WIRING_GROUP}/settings-checksum"
"""Annotation of the ConfigMap in which the chart declares the policy: of which settings PodWirings are."""
MAX_POD_WIRING_BYTES: Final = 900_000
"""Of identities in one PodWiring; etcd takes requests of 1.5 MiB."""

# Azure/azure-workload-identity itself, which AKS runs as its add-on.
PEER_CONFIGURATION: Final = "azure-wi-webhook-mutating-webhook-configuration"
"""Its MutatingWebhookConfiguration."""
LEFT_TO: Final = f"{POD_WIRING_GROUP}/labelled-pods-left-to"
"""Annotation of our MutatingAdmissionPolicyBinding: whose configuration wires labelled pods instead."""

# Its certificate.
TRUSTED_UNTIL: Final = f"{POD_WIRING_GROUP}/former-authorities-until"
"""Annotation of the certificate's Secret: until when authorities that issued before are trusted, RFC 3339."""
INJECTORS: Final = ("cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret")
"""Annotations of a webhook configuration by which cert-manager fills in its caBundle."""

# Pods that are not wired as they should be.
HEALING: Final = f"{POD_WIRING_GROUP}/healing"
"""Annotation of our webhook configuration, of a ServiceAccount or of an owner of pods: what is done."""
HEALING_PAUSE: Final = f"{POD_WIRING_GROUP}/healing-pause-seconds"
"""Annotation of our MutatingWebhookConfiguration."""
RESTARTED_AT: Final = f"{POD_WIRING_GROUP}/restarted-at"
"""Annotation of a template, by which its pods are made anew."""
RESTARTED_FOR: Final = f"{POD_WIRING_GROUP}/restarted-for"
"""Beside it: a digest of what its pods were to be given."""

# The webhook.
WEBHOOK_NAME: Final = "mutation.azure-workload-identity.io"
WEBHOOK_PATH: Final = "/mutate-v1-pod"
UNLABELLED_WEBHOOK: Final = f"unlabelled.mutation.{POD_WIRING_GROUP}"
"""Ours alone: called for pods without the label."""
UNLABELLED_PATH: Final = "/unlabelled"
"""Follows the other's path."""
UNLABELLED_PODS: Final = f"{POD_WIRING_GROUP}/unlabelled-pods"
"""Annotation of our MutatingWebhookConfiguration: `webhook` has the operator keep that webhook in it."""
SELECTION: Final = f"{POD_WIRING_GROUP}/selection"
"""Annotation of our MutatingWebhookConfiguration: `label` where only labelled pods are wired."""
MAX_REVIEW_BYTES: Final = 7 * 1024 * 1024
"""A longer review is refused with 413 before it is read."""
MAX_REVIEW_PARTS: Final = 250_000
"""Braces, brackets and commas of a review. A pod that can be stored has tens of thousands; the millions that
fit into the bytes above take seconds, and more memory than the operator has."""
MAX_ANNOTATION: Final = 256 * 1024
"""Characters; Kubernetes stores no more in all annotations of an object."""
MOST_WARNINGS: Final = 5
"""Of a review; the API server cuts all of them off when they are too many."""
