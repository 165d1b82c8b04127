"""Edge: keeps the serving certificate, the Secret that replicas share it through, and the caBundle.

The webhook configuration is the chart's; we read from it which names the API server will call us
by, and write nothing of it here but `caBundle`.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from workload_identity_operator import contract
from workload_identity_operator.certificates import Certificate, fault_of, from_secret, issue
from workload_identity_operator.health import Health
from workload_identity_operator.kube import ApiError, KubeApi
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

_log = logging.getLogger(__name__)

CHECK_EVERY: Final = 60.0
"""Seconds between looks at what we keep, once all is well."""
RETRY_AFTER: Final = 2.0
"""Seconds until the next look when something is missing."""
_FORBIDDEN: Final = 403


async def keep(api: KubeApi, settings: Settings, health: Health, load: Callable[[Certificate], None]) -> None:
    """Keep certificate, Secret and caBundle as they must be, for ever; `load` each new certificate."""
    keeper = _Keeper(api, settings, load)
    confirmed, told = False, "nothing yet"
    while True:
        try:
            fault = await keeper.look()
            confirmed = not fault
        except ApiError as error:
            fault = str(error)  # what was confirmed stays so: the API server may be the one that is away
        if confirmed:
            health.met("caBundle")
        else:
            health.unmet("caBundle", fault)
        if fault != told:
            _log.log(logging.WARNING if fault else logging.INFO, fault or "the webhook's caBundle is ours")
            told = fault
        await asyncio.sleep(RETRY_AFTER if fault else CHECK_EVERY)


class _Keeper:
    def __init__(self, api: KubeApi, settings: Settings, load: Callable[[Certificate], None]) -> None:
        self._api = api
        self._settings = settings
        self._load = load
        self._certificate: Certificate | None = None

    async def look(self) -> str:
        """Put right what is not; return what is still missing, "" when nothing is."""
        name = self._settings.webhook_configuration
        configuration = await self._api.webhook_configuration(name)
        names = sorted({*_callers_names(configuration or {}), *_own_names(self._settings)})
        bundle = (await self._have_certificate(names)).authority
        if configuration is None:
            return (
                f"MutatingWebhookConfiguration {name} is not there: install the chart, "
                "or name the right one by --webhook-configuration"
            )
        # That for unlabelled pods is a copy of the chart's, whose caBundle it follows.
        webhooks = [
            webhook
            for webhook in configuration.get("webhooks") or ()
            if webhook["name"] != contract.UNLABELLED_WEBHOOK
        ]
        if any(_bundle_of(webhook) != bundle for webhook in webhooks):
            await self._api.apply_ca_bundle(name, [webhook["name"] for webhook in webhooks], bundle)
        return ""

    async def _have_certificate(self, names: list[str]) -> Certificate:
        """Load the certificate that the replicas share; share ours when theirs does not serve."""
        usable = self._certificate and not fault_of(self._certificate, names, datetime.now(UTC))
        ours = self._certificate if usable else None
        shared = await self._shared()
        while shared is not None:
            data, version = shared
            found = from_secret(data)
            fault = fault_of(found, names, datetime.now(UTC)) if found else "it is empty"
            if found and not fault:
                ours = found
                break
            ours = ours or issue(names, datetime.now(UTC))
            secret = self._settings.certificate_secret
            _log.info("writing a new serving certificate to Secret %s: %s", secret, fault)
            if await self._api.replace_secret(self._settings.namespace, secret, ours.as_secret(), version):
                break
            shared = await self._shared()  # another replica was faster: take what it wrote
        ours = ours or issue(names, datetime.now(UTC))
        if ours != self._certificate:
            self._certificate = ours
            self._load(ours)
        return ours

    async def _shared(self) -> tuple[dict[str, bytes], str] | None:
        """Return the Secret; None when there is none, and the certificate lives in memory only."""
        try:
            return await self._api.secret(self._settings.namespace, self._settings.certificate_secret)
        except ApiError as error:
            if error.status == _FORBIDDEN:
                return None
            raise


def _callers_names(configuration: Json) -> set[str]:
    """Return the names by which the API server calls the webhooks of a configuration."""
    names = set()
    for webhook in configuration.get("webhooks") or []:
        client = webhook.get("clientConfig") or {}
        if service := client.get("service"):
            names.add(f"{service['name']}.{service['namespace']}.svc")
        elif host := urlsplit(client.get("url") or "").hostname:
            names.add(host)
    return names


def _own_names(settings: Settings) -> set[str]:
    """Return the names by which someone on this machine calls us."""
    host = settings.listen.host
    return {"localhost", "127.0.0.1", "::1"} | ({host} if host and host not in {"0.0.0.0", "::"} else set())


def _bundle_of(webhook: Json) -> bytes:
    return b64decode((webhook.get("clientConfig") or {}).get("caBundle") or "")
