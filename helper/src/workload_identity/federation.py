"""The flow of workload identity: a pod's token is traded for an access token.

Source: learn.microsoft.com/entra/workload-id/workload-identity-federation.
"""

from __future__ import annotations

from workload_identity.assertions import claims_of, pod_token
from workload_identity.entra import Grant, Granted, ask, by_assertion, refused
from workload_identity.errors import ClientAuthenticationError
from workload_identity.steps import Wait, now
from workload_identity.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.cache import Held
    from workload_identity.options import Options
    from workload_identity.refusals import Refusal
    from workload_identity.steps import Flow
    from workload_identity.token_proxy import TokenProxy

_STALE = frozenset({700024, 700027, 7000272, 50012, 50027, 7000215})
"""The assertion is out of its time or damaged: the file may have a better one by now."""
_PROPAGATING = frozenset({70021, 700211, 700212, 700213})
_PROPAGATION_PAUSES = (3.0, 6.0, 10.0)
"""Seconds before a federated credential is looked for again; the last one repeats."""


class Wish(Value):
    """A token that is asked for with a pod's token; times are in seconds."""

    authority: str
    tenant_id: str
    client_id: str
    token_file: str
    scopes: tuple[str, ...]
    claims: str | None = None
    token_file_timeout: float = 0
    retry_on_propagation: float = 0
    region: str = ""
    proxy: TokenProxy | None = None

    def grant(self, assertion: str) -> Grant:
        """Return the request that trades a pod's token."""
        return Grant(
            self.authority,
            self.tenant_id,
            self.client_id,
            self.scopes,
            {"grant_type": "client_credentials", **by_assertion(assertion)},
            self.claims,
            proof="pod",
            stated=claims_of(assertion),
            region=self.region,
            proxy=self.proxy,
        )


def workload_identity(wish: Wish, options: Options, *, background: bool = False) -> Flow[Held]:
    """Read the pod's token and trade it.

    The file is read anew for each trade, and once more when Entra finds its content too old, too young or
    damaged: if there is another token by then, it is tried.

    Args:
        wish: What is asked for.
        options: How requests are sent.
        background: Nobody waits for this, a good token is held.

    Raises:
        CredentialUnavailableError: There is no token file.
        ClientAuthenticationError: Everything else that keeps from a token.
    """
    assertion = yield from pod_token(wish.token_file, wish.token_file_timeout)
    start = yield from now()
    give_up = start.monotonic + wish.retry_on_propagation
    reread = False
    propagations = 0
    while True:
        grant = wish.grant(assertion)
        deadline = max(start.monotonic, give_up if propagations else 0) + options.timeout
        answer = yield from ask(grant, options, deadline=deadline, background=background)
        if isinstance(answer, Granted):
            return answer.held
        if not reread and _may_be_stale(answer):
            reread = True
            newer = yield from _newer(wish.token_file, assertion)
            if newer is not None:
                assertion = newer
                continue
        moment = yield from now()
        pause = _PROPAGATION_PAUSES[min(propagations, len(_PROPAGATION_PAUSES) - 1)]
        if not _PROPAGATING.isdisjoint(answer.codes) and moment.monotonic + pause <= give_up:
            propagations += 1
            yield Wait(pause / 2, pause)
            assertion = (yield from _newer(wish.token_file, assertion)) or assertion
            continue
        raise refused(answer, grant, moment.epoch)


def _may_be_stale(answer: Refusal) -> bool:
    return answer.fields.get("error") == "invalid_client" or not _STALE.isdisjoint(answer.codes)


def _newer(path: str, known: str) -> Flow[str | None]:
    try:
        token = yield from pod_token(path, 0)
    except ClientAuthenticationError:
        # The answer that was got already says more than this would.
        return None
    return None if token == known else token
