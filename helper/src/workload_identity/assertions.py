"""The pod's token: read from its file whenever it is needed, looked into unverified, never shown.

Sources: kubernetes.io/docs/tasks/configure-pod-container/configure-service-account (projected tokens,
rotation); RFC 7515 for the form.
"""

from __future__ import annotations

import json
from binascii import Error as NotBase64
from binascii import a2b_base64

from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.steps import Read, Wait, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.steps import Content, Flow

_PARTS = 3
_DAMAGED_READS = 10
"""How often a file is read that is being written just now."""
_HINT = (
    "The Workload Identity Operator mounts it when a pod is created: this one may lack the label"
    ' azure.workload.identity/use: "true", or was created while the operator was not there; create it again.'
)


def pod_token(path: str, patience: float) -> Flow[str]:
    """Read the token file, by its given path each time: the kubelet swaps a link beneath it.

    Args:
        path: Where it is.
        patience: Seconds to wait for a file that is missing or empty.

    Raises:
        CredentialUnavailableError: It cannot be read; the message has the path and the system's words.
        ClientAuthenticationError: What is in it is no token.
    """
    start = yield from now()
    reads = 0
    while True:
        reads += 1
        missing: OSError | None = None
        content: Content | None = None
        try:
            content = yield Read(path)
        except (FileNotFoundError, NotADirectoryError) as failure:
            missing = failure
        except (OSError, ValueError) as failure:
            raise _unreadable(path, failure) from failure
        if content is not None and len(content.data) >= Read(path).most:
            raise _damaged(path, f"it has {len(content.data):,} bytes or more")
        text = "" if content is None else content.data.decode("utf-8-sig", "replace").strip()
        if content is not None and content.steady and is_jwt(text):
            return text
        moment = yield from now()
        if moment.monotonic - start.monotonic < patience and not text:
            yield Wait(0.05, min(0.1 * reads, 1.0))
        elif missing is not None:
            raise _unreadable(path, missing) from missing
        elif reads < _DAMAGED_READS:
            yield Wait(0.02, 0.04)
        else:
            raise _damaged(path, _found(text, steady=content is not None and content.steady))


def is_jwt(text: str) -> bool:
    """Tell whether this has the form of a signed JWT: two JSON objects and a signature."""
    return _claims(text) is not None and bool(_bytes(text.rpartition(".")[2]))


def claims_of(token: str) -> Mapping[str, Any]:
    """Return the claims of a JWT, signed or not, unverified; {} for anything else."""
    return _claims(token) or {}


def _claims(token: str) -> Mapping[str, Any] | None:
    parts = token.split(".")
    return json_object(parts[1]) if len(parts) == _PARTS and json_object(parts[0]) is not None else None


def json_object(part: str) -> dict[str, Any] | None:
    """Return the JSON object that a part of a JWT holds, in base64url; None for anything else."""
    try:
        value = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _bytes(part: str) -> bytes:
    if not part.isascii() or not part.replace("-", "").replace("_", "").isalnum():
        return b""
    try:
        return a2b_base64(part.replace("-", "+").replace("_", "/") + "=" * (-len(part) % 4), strict_mode=True)
    except NotBase64:
        return b""


def _unreadable(path: str, failure: OSError | ValueError) -> CredentialUnavailableError:
    words = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
    if isinstance(failure, PermissionError):
        hint = "The container's user must be able to read it: see runAsUser and fsGroup of the pod."
    else:
        hint = _HINT
    return CredentialUnavailableError(f"the token file {path!r} cannot be read: {words}. {hint}")


def _found(text: str, *, steady: bool) -> str:
    if not text:
        return "it is empty"
    if not steady:
        return f"it changed each of the {_DAMAGED_READS} times it was read"
    return f"found {len(text)} letters in {len(text.split('.'))} parts, which are no JWT"


def _damaged(path: str, found: str) -> ClientAuthenticationError:
    return ClientAuthenticationError(
        f"the token file {path!r} holds no token: wanted a service account token, a JWT of three parts;"
        f" {found}. Point AZURE_FEDERATED_TOKEN_FILE at the file that the kubelet writes, and let nothing"
        " else write there."
    )
