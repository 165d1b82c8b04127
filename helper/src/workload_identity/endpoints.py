"""The flows of managed identity: the machine's own endpoint gives tokens to who runs there.

Sources: learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token (IMDS);
learn.microsoft.com/azure/app-service/overview-managed-identity, "REST endpoint reference";
learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication;
learn.microsoft.com/azure/service-fabric/how-to-managed-identity-service-fabric-app-code; azure-identity
1.27.0 for what is repeated, and for what is an error that lets a chain go on.
"""

from __future__ import annotations

import json
import math
import re

from workload_identity import hosts
from workload_identity.entra import Granted, judged
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.retry import Server, persistently, times_of, worth_another_try
from workload_identity.steps import NewId, Read, Send, Unreachable, now
from workload_identity.values import NOTHING, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.cache import Held
    from workload_identity.hosts import Host
    from workload_identity.options import Options
    from workload_identity.refusals import Refusal
    from workload_identity.steps import Flow, Response

_LONGEST_PAUSE = 60
"""Seconds; a server that asks for a longer pause is not waited for while a good token is held, or a chain
has others to ask."""
_PROBE = 1.0
"""Seconds in which a metadata service that is there begins to answer, whatever it answers."""
_ABSENT = 30.0
"""Seconds for which one that did not is not looked for again."""
_LATE = 1.0
"""Seconds after the end of that by which a process that is awake knows that nothing came."""
_LONGEST_KEY = 4096
_THUMBPRINT = 40
_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 200, 400, 401, 403


class Dialect(Value):
    """How one kind of endpoint wants to be asked.

    Attributes:
        version: The `api-version`; "" for none, and a form instead of a query.
        metadata: Whether a header Metadata proves that no web page has its visitor ask.
        header: What has the secret; "" where none is wanted.
        names: What the ids of user-assigned identities are called.
    """

    version: str
    metadata: bool = True
    header: str = ""
    names: Mapping[str, str] = NOTHING


_OF_METADATA_SERVICE = {"client_id": "client_id", "object_id": "object_id", "resource_id": "msi_res_id"}
DIALECTS: Mapping[str, Dialect] = {
    hosts.IMDS: Dialect("2018-02-01", names=_OF_METADATA_SERVICE),
    hosts.APP_SERVICE: Dialect(
        "2019-08-01", header="X-IDENTITY-HEADER", names={**_OF_METADATA_SERVICE, "resource_id": "mi_res_id"}
    ),
    hosts.ARC: Dialect("2020-06-01", names=_OF_METADATA_SERVICE),
    hosts.SERVICE_FABRIC: Dialect("2019-07-01-preview", metadata=False, header="Secret"),
    hosts.AZURE_ML: Dialect(
        "2017-09-01",
        metadata=False,
        header="secret",
        names={**_OF_METADATA_SERVICE, "client_id": "clientid"},
    ),
    # An id is only sent there for a default chain, which does not choose where it runs.
    hosts.CLOUD_SHELL: Dialect("", names={name: name for name in _OF_METADATA_SERVICE}),
}


class Wish(Value):
    """A token that is asked for.

    Attributes:
        host: Where.
        resource: What it is for.
        identity: Which id names whose it is to be, and its value; None: the system-assigned identity's.
        others: What else is sent, by name.
        probing: Whether to find out first if the endpoint is there.
        hurried: Nobody waits for this, or a chain has others to ask.
    """

    host: Host
    resource: str
    identity: tuple[str, str] | None = None
    others: Mapping[str, str] = NOTHING
    probing: bool = False
    hurried: bool = False

    def whose(self) -> str:
        """Return whose token is meant, in words."""
        if self.identity is None:
            user = self.host.kind == hosts.CLOUD_SHELL
            return "who is signed in" if user else "the system-assigned managed identity"
        name, value = self.identity
        return f"the managed identity with {name} {value}"

    def request(self, request_id: str, deadline: float, thumbprint: str) -> Send:
        """Return what is sent."""
        from urllib.parse import urlencode  # noqa: PLC0415 - what only these requests need

        host = self.host
        dialect = DIALECTS[host.kind]
        headers = {"x-ms-client-request-id": request_id}
        if dialect.metadata:
            headers["Metadata"] = "true"
        if dialect.header:
            headers[dialect.header] = host.secret
        named = {} if self.identity is None else {dialect.names[self.identity[0]]: self.identity[1]}
        asked = {"resource": self.resource, **named, **self.others}
        url = host.endpoint
        if not dialect.version:
            return Send(url, asked, headers, deadline, direct=True)
        query = urlencode({"api-version": dialect.version, **asked})
        url += f"{'&' if '?' in url else '?'}{query}"
        return Send(url, None, headers, deadline, "GET", direct=True, thumbprint=thumbprint)


class Sighting:
    """What this process knows of the metadata service.

    Attributes:
        present: It answered once, so it is there for good.
        absent_until: It was looked for in vain: so it is until this moment of the monotonic clock.
    """

    def __init__(self) -> None:
        self.present = False
        self.absent_until = -math.inf


METADATA_SERVICE = Sighting()


def managed_identity(wish: Wish, options: Options) -> Flow[Held]:
    """Ask the endpoint of this machine for a token.

    Args:
        wish: What is asked for.
        options: How requests are sent.

    Raises:
        CredentialUnavailableError: There is no endpoint here, or the metadata service has no such identity.
        ClientAuthenticationError: Everything else that keeps from a token.
    """
    if wish.host.kind == hosts.UNKNOWN:
        raise CredentialUnavailableError(
            "no managed identity: IDENTITY_ENDPOINT is set, and neither IDENTITY_HEADER, as App Service and"
            " Service Fabric have it, nor IMDS_ENDPOINT, as Azure Arc has it. Set what belongs to the host"
            " this runs on, or remove IDENTITY_ENDPOINT."
        )
    thumbprint = _pinned(wish) if wish.host.kind == hosts.SERVICE_FABRIC else ""
    start = yield from now()
    request_id: str = yield NewId()
    request = wish.request(request_id, start.monotonic + options.timeout, thumbprint)
    if wish.probing:
        yield from _looked_for(request, wish)
    if wish.host.kind == hosts.ARC:
        request = yield from _challenged(request, wish, options)
    response = yield from _answered(request, wish, options)
    answer = judged(response, *_secrets(request, wish))
    if not isinstance(answer, Granted):
        raise _refused(answer, response, wish)
    if wish.host.kind == hosts.IMDS and not wish.host.certain:
        METADATA_SERVICE.present = True
    if wish.host.kind == hosts.ARC:
        _check_echo(response, wish)
    return answer.held


def _answered(request: Send, wish: Wish, options: Options) -> Flow[Response]:
    def no_answer(failure: Unreachable, tries: int) -> ClientAuthenticationError:
        if failure.kind == "trust" and request.thumbprint:
            return ClientAuthenticationError(
                f"no token of {wish.whose()}: {wish.host.kind} at {wish.host.place} is another server than"
                f" IDENTITY_SERVER_THUMBPRINT says, and was sent nothing: {failure.cause}"
            )
        return _unanswered(wish, f"{failure.cause} ({times_of(tries)})", worth_another_try(failure))

    factors = {410: 2.5} if wish.host.kind == hosts.IMDS else {}  # an update takes it more than a minute
    return persistently(
        request,
        options,
        longest_pause=_LONGEST_PAUSE if wish.hurried else math.inf,
        server=Server(no_answer, factors),
    )


def _unanswered(wish: Wish, cause: str, retryable: bool, **fields: Any) -> ClientAuthenticationError:
    host = wish.host
    if host.kind != hosts.IMDS:
        return ClientAuthenticationError(
            f"no token of {wish.whose()}: no answer from {host.kind} at {host.place}: {cause}. The variables"
            " of this process say that it is there; is it another machine's environment?",
            retryable=retryable,
        )
    return CredentialUnavailableError(
        f"no token of {wish.whose()}: no answer from the instance metadata service at {host.place}: {cause}."
        " It is there on Azure's virtual machines and on nodes of AKS. In a pod, a network policy may keep"
        " from it; elsewhere, use another credential.",
        retryable=retryable,
        **fields,
    )


def _looked_for(request: Send, wish: Wish) -> Flow[None]:
    """Find out whether the metadata service is there, in a second.

    Any answer will do. Without the header Metadata it answers at once, that it wants one.
    """
    sighting = METADATA_SERVICE
    if sighting.present:
        return
    begun = yield from now()
    if begun.monotonic < sighting.absent_until:
        ago = _ABSENT - (sighting.absent_until - begun.monotonic)
        raise _unanswered(
            wish, f"there was none {ago:.0f} s ago, and it is looked for every {_ABSENT:g} s", True
        )
    headers = {name: value for name, value in request.headers.items() if name != "Metadata"}
    again = True
    while True:
        deadline = min(request.deadline, begun.monotonic + _PROBE)
        try:
            response: Response = yield Send(
                request.url, None, headers, deadline, "GET", direct=True, connection_timeout=_PROBE
            )
            break
        except Unreachable as failure:
            ended = yield from now()
            # We were not awake: an answer may have been there, and nothing is known about who gives it.
            asleep = again and ended.monotonic > deadline + _LATE
            if asleep and ended.monotonic < request.deadline:
                again, begun = False, ended
                continue
            # Else it is how we ask that is at fault, not who does not answer.
            if worth_another_try(failure) and not asleep:
                sighting.absent_until = ended.monotonic + _ABSENT
            cause = f"none within {_PROBE:g} s" if ended.monotonic >= deadline else failure.cause
            raise _unanswered(wish, cause, worth_another_try(failure)) from failure
    if _bars(response):
        ended = yield from now()
        sighting.absent_until = ended.monotonic + _ABSENT
        raise _barred(response, wish)
    sighting.present = True


def _bars(response: Response) -> bool:
    """Tell whether a proxy says that it cannot reach the metadata service: Docker Desktop has such a one."""
    return response.status == _FORBIDDEN and b"unreachable" in response.body


def _barred(response: Response, wish: Wish) -> ClientAuthenticationError:
    from workload_identity.redaction import excerpt  # noqa: PLC0415 - hardly ever

    said = excerpt(response.body.decode("utf-8", "replace"), wish.host.secret)
    answer = judged(response, wish.host.secret)
    fields = {} if isinstance(answer, Granted) else {**answer.fields}
    fields.pop("retryable", None)
    return _unanswered(wish, f"a proxy answers in its place: {said!r}", True, **fields)


def _refused(answer: Refusal, response: Response, wish: Wish) -> ClientAuthenticationError:
    """Return the error for an answer that is no token: a chain goes on only from what is not there at all."""
    kind, host = wish.host.kind, wish.host
    if kind == hosts.IMDS and _bars(response):
        return _barred(response, wish)
    error: type[ClientAuthenticationError] = ClientAuthenticationError
    cure = ""
    if answer.fields.get("error") == "invalid_resource":
        cure = (
            f"The resource {wish.resource!r} is not known in the identity's tenant: correct the scope, which"
            " is a resource and '/.default', such as 'https://vault.azure.net/.default'."
        )
    elif kind == hosts.IMDS and response.status == _BAD_REQUEST:
        error, cure = CredentialUnavailableError, _assign(wish)
    elif kind == hosts.IMDS and _of_somebody_else(response):
        error = CredentialUnavailableError
        cure = f"That is not the instance metadata service: something else answers at {host.place}."
    lines = [
        f"no token of {wish.whose()} for {wish.resource} from {kind} at {host.place}: {answer.problem}",
        cure,
    ]
    fields = dict(answer.fields)
    if fields["retry_after"] is not None:
        lines.append(f"It asks to wait {math.ceil(fields['retry_after'])} s.")
    found = fields.get("correlation_id")
    if found and found not in answer.problem:
        lines.append(f"correlation id {found}")
    return error("\n".join(line for line in lines if line), **fields)


def _assign(wish: Wish) -> str:
    if wish.identity is None:
        return (
            "No identity has been assigned to this machine, or only user-assigned ones: assign it one (az vm"
            " identity assign, az vmss identity assign), or name one with client_id or identity_config."
        )
    return (
        "That identity has not been assigned to this machine: assign it (az vm identity assign, az vmss"
        " identity assign), or correct client_id or identity_config."
    )


def _of_somebody_else(response: Response) -> bool:
    """Tell whether an answer is a page, of a proxy or a portal: the metadata service says all in JSON."""
    if not response.body.strip() or response.headers.get("content-type", "").startswith("application/json"):
        return False
    try:
        json.loads(response.body)
    except (ValueError, RecursionError):
        return True
    return False


def _secrets(request: Send, wish: Wish) -> tuple[str, ...]:
    proof = request.headers.get("Authorization", "")
    return wish.host.secret, proof, proof.partition(" ")[2]


def _challenged(request: Send, wish: Wish, options: Options) -> Flow[Send]:
    """Prove to Azure Arc that we may read what its agent writes, and return the request that does.

    A first request is answered with the path of a file; what is in it goes into the second. Who answers on
    that port chooses the path, so it must not make us read and send anything else.
    """
    response = yield from _answered(request, wish, options)
    if response.status != _UNAUTHORIZED:
        if response.status == _OK:
            raise ClientAuthenticationError(
                f"{_of_arc(wish)}: a challenge with status {_UNAUTHORIZED} was wanted, found status {_OK}."
                " Its agent always asks for a proof: is it another program that answers there?"
            )
        answer = judged(response, *_secrets(request, wish))
        raise (
            ClientAuthenticationError(f"{_of_arc(wish)}: status {response.status} in place of a challenge")
            if isinstance(answer, Granted)
            else _refused(answer, response, wish)
        )
    folder = wish.host.key_folder
    if not folder:
        raise ClientAuthenticationError(
            f"{_of_arc(wish)}: its agent runs on Linux and on Windows with PROGRAMDATA set; this is neither"
        )
    path = folder
    try:
        path = key_path(response.headers.get("www-authenticate", ""), folder)
        content = yield Read(path, most=_LONGEST_KEY + 1, folder=folder)
        key = _key(content.data)
    except OSError as failure:
        words = failure.strerror or str(failure)
        raise ClientAuthenticationError(
            f"{_of_arc(wish)}: the key {path!r} cannot be read: {words}. The user of this process must be in"
            " the group himds (on Windows: an administrator or in Hybrid agent extension applications)."
        ) from failure
    except ValueError as failure:
        # Not chained: its words are unredacted.
        raise ClientAuthenticationError(f"{_of_arc(wish)}: {failure}") from None
    headers = {**request.headers, "Authorization": f"Basic {key}"}
    return Send(request.url, None, headers, request.deadline, "GET", direct=True)


def _of_arc(wish: Wish) -> str:
    return f"no token of {wish.whose()} from {wish.host.kind} at {wish.host.place}"


_REALM = re.compile(r"""\s*basic\s+realm\s*=\s*(?:"([^"]*)"|([^",]*[^",\s]))\s*(?:,.*)?""", re.IGNORECASE)


def key_path(challenge: str, folder: str) -> str:
    """Return the path of the key that a challenge names.

    Args:
        challenge: The header WWW-Authenticate.
        folder: Where keys are; on Windows with backslashes, and letter case does not matter there.

    Raises:
        ValueError: It names none, or one that is no key of the agent's.
    """
    found = _REALM.fullmatch(challenge)
    if found is None:
        raise ValueError(
            "a header WWW-Authenticate with 'Basic realm=' and the path of a key was wanted, found"
            f" {challenge[:100]!r}"
        )
    named = found[1] if found[1] is not None else found[2]
    windows = "\\" in folder
    separators = r"[\\/]+" if windows else "/+"
    *parents, name = re.split(separators, named)
    wanted = re.split(separators, folder)
    if windows:
        parents, wanted = [part.lower() for part in parents], [part.lower() for part in wanted]
    odd = name.startswith(".") or "\0" in name or (windows and ":" in name)
    if parents != wanted or not name.endswith(".key") or odd:
        raise ValueError(f"a key, *.key in the folder {folder}, was wanted, found the path {named[:200]!r}")
    return f"{folder}\\{name}" if windows else f"{folder}/{name}"


def _key(data: bytes) -> str:
    if not 1 <= len(data) <= _LONGEST_KEY:
        size = "an empty file" if not data else "a longer one"
        raise ValueError(f"a key of 1 to {_LONGEST_KEY} bytes was wanted, found {size}")
    text = data.decode("ascii", "replace")
    if not text.isascii() or not text.isprintable():
        raise ValueError("a key of printable letters was wanted, found others in its file")
    return text


def _check_echo(response: Response, wish: Wish) -> None:
    """Refuse the token of another identity: an older agent ignores which one is asked for."""
    if wish.identity is None:
        return
    name, value = wish.identity
    payload = json.loads(response.body)
    fields = ("msi_res_id", "mi_res_id") if name == "resource_id" else (name,)
    found = next((payload[field] for field in fields if payload.get(field)), None)
    if not isinstance(found, str) or found.lower() != value.lower():
        raise ClientAuthenticationError(
            f"{_of_arc(wish)}: the requested identity was not confirmed. An older agent gives tokens of the"
            " machine's own identity whatever is asked for: update it, or leave out client_id and"
            " identity_config."
        )


def _pinned(wish: Wish) -> str:
    """Return the thumbprint of Service Fabric's certificate, which nobody has signed.

    Raises:
        ClientAuthenticationError: What is asked for, or the environment, does not fit.
    """
    host = wish.host
    start = f"no token of {wish.whose()} from {host.kind} at {host.place}"
    if wish.identity is not None:
        raise ClientAuthenticationError(
            f"{start}: which identity an application has is set in the cluster, by its manifest: leave out"
            " client_id and identity_config."
        )
    if not host.endpoint.lower().startswith("https://"):
        raise ClientAuthenticationError(
            f"{start}: IDENTITY_ENDPOINT was to be an https address, and the secret IDENTITY_HEADER is sent"
            " nowhere else"
        )
    thumbprint = "".join(host.thumbprint.split()).replace(":", "").lower()
    if len(thumbprint) != _THUMBPRINT or not set(thumbprint) <= set("0123456789abcdef"):
        raise ClientAuthenticationError(
            f"{start}: IDENTITY_SERVER_THUMBPRINT was to be the SHA-1 of its certificate, {_THUMBPRINT} hex"
            f" digits; found {len(thumbprint)} letters"
        )
    return thumbprint
