"""Edge: keeps the serving certificate, the Secret that replicas share it through, and the caBundle.

The webhook configuration is the chart's; we read from it which names the API server will call us by, and
write nothing of it here but `caBundle`. Replicas know nothing of each other, and no call fails on the way
from one authority to the next, because each keeps these rules:

- What the Secret names goes into the caBundle: the issuing authority, those before it, and nothing else.
- Whoever finds another authority in the caBundle first notes it in the Secret, to be trusted for one more
  day (`OVERLAP`).
- A replica serves by an authority once that has been in the caBundle for `SETTLE`: API servers know it then.
- One that has seen neither Secret nor caBundle for half that day is not ready: what it serves may soon be
  trusted no more.

Writes are bound to what was read, the Secret read after the configuration: an old view overwrites nothing.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from workload_identity_operator import certificates, contract
from workload_identity_operator.certificates import (
    Certificate,
    fault_of,
    from_secret,
    is_vouched_for,
    issue,
    remembering,
    renew,
)
from workload_identity_operator.following import AGAIN_AFTER, FORBIDDEN, NOT_FOUND, RETRY_AFTER
from workload_identity_operator.health import Health
from workload_identity_operator.kube import ApiError, KubeApi, Secret
from workload_identity_operator.settings import Settings
from workload_identity_operator.shapes import Json

_log = logging.getLogger(__name__)

CHECK_EVERY: Final = 60.0
"""Seconds between looks at what we keep, once all is well and nothing is told."""
SETTLE: Final = 10.0
"""Seconds that API servers, of which there may be several, have to learn of a new authority."""
GONE_FOR: Final = 5.0
"""Seconds that a Secret must have been missing before it is made anew: the release may be on its way out."""
LOOK_AT_FILES_EVERY: Final = 10.0
"""Seconds."""

_TRIES: Final = 5
_PAUSE: Final = 0.1
"""Seconds between two looks at least: somebody may write caBundle as often as we do."""
_NOT_OURS_TO_MAKE: Final = frozenset({FORBIDDEN, NOT_FOUND})
"""Without the right, or the namespace, there is no Secret: the certificate then lives in memory only."""
_VARYING_LABELS: Final = frozenset({"helm.sh/chart", "app.kubernetes.io/version"})
"""Those that an upgrade changes: were they ours too, it would find a conflict."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look came to.

    Attributes:
        fault: What is still missing; "" when nothing is.
        again: Seconds until the next one.
    """

    fault: str
    again: float


class Trust:
    """Keeps certificate, Secret and caBundle as they must be. `run` must be running."""

    def __init__(
        self, api: KubeApi, settings: Settings, health: Health, load: Callable[[bytes, bytes], None]
    ) -> None:
        """Start knowing nothing.

        Args:
            api: Where they are.
            settings: Name them.
            health: Learns whether the caBundle is confirmed.
            load: Serves a certificate and its key, PEM, from now on.
        """
        self._api = api
        self._settings = settings
        self._health = health
        self._load = load
        self._wake = asyncio.Event()
        self._bundles: list[bytes] | None = None
        self._certificate: Certificate | None = None  # the latest, which is to be served
        self._secret: Secret | None = None  # as it was last there
        self._missing_since: float | None = None
        self._may_recreate = True
        self._serving: Certificate | None = None
        self._trusted = (b"", 0.0)  # an authority in the caBundle, and since when

    def take_configurations(self, configurations: Mapping[str, Json]) -> None:
        """Take all MutatingWebhookConfigurations, by name."""
        found = configurations.get(self._settings.webhook_configuration)
        bundles = None if found is None else [_bundle_of(webhook) for webhook in _webhooks_of(found)]
        if bundles != self._bundles:
            self._bundles = bundles
            self._wake.set()

    async def run(self) -> None:
        """Keep them for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._follow_secret())
            both.create_task(self._keep())

    async def _follow_secret(self) -> None:
        """Wake up at each change of the Secret. What goes wrong is told by the look at it."""
        while True:
            pause = AGAIN_AFTER
            try:
                watch = self._api.secrets(self._settings.namespace, self._settings.certificate_secret)
                async for kind, _ in watch:
                    if kind != "LISTED":
                        self._wake.set()
            except ApiError:
                pause = CHECK_EVERY  # no right to: then the looks must do
            await asyncio.sleep(pause)

    async def _keep(self) -> None:
        confirmed, told = False, "nothing yet"
        loop = asyncio.get_running_loop()
        seen = loop.time()
        while True:
            self._wake.clear()
            try:
                look = await self._look()
                confirmed, seen = not look.fault, loop.time()
            except ApiError as error:
                # What was confirmed stays so for long: the API server may be the one that is away.
                look = _Look(str(error), RETRY_AFTER)
                confirmed = confirmed and loop.time() - seen < certificates.OVERLAP.total_seconds() / 2
            if confirmed:
                self._health.met("caBundle")
            else:
                self._health.unmet("caBundle", look.fault)
            if look.fault != told:
                _log.log(
                    logging.WARNING if look.fault else logging.INFO,
                    look.fault or "the webhook's caBundle is ours",
                )
                told = look.fault
            await asyncio.sleep(_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(look.again):
                    await self._wake.wait()

    async def _look(self) -> _Look:
        """Put right what is not.

        Raises:
            ApiError: What there is could not be read or written.
        """
        for _ in range(_TRIES):
            if look := await self._try():
                return look
        raise ApiError("the webhook configuration is written again and again, caBundle could not be", 409)

    async def _try(self) -> _Look | None:
        """Look once; None when somebody wrote the configuration meanwhile."""
        name = self._settings.webhook_configuration
        configuration = await self._api.webhook_configuration(name)
        names = sorted({*_callers_names(configuration or {}), *_own_names(self._settings)})
        webhooks = _webhooks_of(configuration or {})
        before = _bundle_of(webhooks[0]) if webhooks else b""
        latest, overdue = await self._shared(names, before, installed=bool(webhooks))
        self._certificate = latest
        if configuration is None:
            self._serve(latest)
            return _Look(
                f"MutatingWebhookConfiguration {name} is not there: install the chart, "
                "or name the right one by --webhook-configuration",
                RETRY_AFTER,
            )
        bundle = latest.authority if overdue else latest.bundle
        if any(_bundle_of(webhook) != bundle for webhook in webhooks):
            names_of_all = [webhook["name"] for webhook in webhooks]
            if not await self._api.apply_ca_bundle(configuration, names_of_all, bundle):
                return None
        elif overdue:
            await self._forget(latest)
        return self._switch(latest, before)

    def _switch(self, latest: Certificate, before: bytes) -> _Look:
        """Serve the latest certificate once API servers trust it, whose caBundle has its authority now."""
        now = asyncio.get_running_loop().time()
        serving, new = self._serving, latest.authority not in before
        if self._trusted[0] != latest.authority or (
            new and serving and serving.authority != latest.authority
        ):
            # Where there was no authority before it nobody serves by one, so nobody is to be waited for.
            age = self._api.now() - certificates.issued_at(latest.authority)
            wanted = latest.former and (new or age < timedelta(seconds=CHECK_EVERY))
            self._trusted = (latest.authority, now if wanted else now - SETTLE)
        wait = self._trusted[1] + SETTLE - now
        if serving is None or serving.authority == latest.authority or wait <= 0:
            self._serve(latest)
            serving = latest
        if wait <= 0:
            missed = self._missing_since is not None and self._may_recreate
            return _Look("", min(GONE_FOR, CHECK_EVERY) if missed else CHECK_EVERY)
        unknown = "the authority is new: API servers are learning of it"
        return _Look(unknown if serving.authority == latest.authority else "", wait)

    def _serve(self, latest: Certificate) -> None:
        if self._serving is None or (self._serving.leaf, self._serving.leaf_key) != (
            latest.leaf,
            latest.leaf_key,
        ):
            self._load(latest.leaf, latest.leaf_key)
        self._serving = latest

    # The Secret.

    async def _shared(self, names: list[str], trusted: bytes, *, installed: bool) -> tuple[Certificate, bool]:
        """Return the certificate that the replicas share, written by us when theirs does not serve.

        Args:
            names: What it must cover.
            trusted: The caBundle, whose authorities others may serve by.
            installed: Whether there is a webhook configuration, so that a missing Secret is missed.

        Returns:
            It, and whether the authorities before its own have been trusted long enough.
        """
        while True:
            try:
                secret = await self._stored()
            except ApiError as error:
                if error.status != FORBIDDEN:
                    raise
                return self._own(names), False
            if secret is None:
                latest = self._remembering(self._own(names), trusted)
                if not installed or self._gone_for() < GONE_FOR or await self._recreate(latest):
                    return latest, False
                continue
            held = from_secret(secret.data)
            now = self._api.now()
            fault = fault_of(held, names, now) if held else "it is empty"
            latest = held if held and not fault else self._own(names, held)
            latest = self._remembering(latest, trusted)
            until = _moment(secret.annotations.get(contract.TRUSTED_UNTIL))
            longer = until is None or (held is not None and len(latest.former) > len(held.former))
            if latest == held and not (latest.former and longer):
                return latest, bool(latest.former and until and until <= now)
            why = fault or "authorities that are trusted still are noted in it"
            _log.info(
                "writing the serving certificate to Secret %s: %s", self._settings.certificate_secret, why
            )
            if await self._replace(secret, latest):
                return latest, False
            # Else another replica was faster: take what it wrote.

    async def _stored(self) -> Secret | None:
        """Return the Secret; None where there is none."""
        found = await self._api.secret(self._settings.namespace, self._settings.certificate_secret)
        if found is not None:
            self._secret, self._missing_since = found, None
        elif self._missing_since is None:
            # Who starts without one has none to wait for: it was never there, or is missed already.
            started = self._certificate is None
            now = asyncio.get_running_loop().time()
            self._missing_since = now - GONE_FOR if started else now
        return found

    def _gone_for(self) -> float:
        return asyncio.get_running_loop().time() - (self._missing_since or 0.0)

    def _own(self, names: list[str], held: Certificate | None = None) -> Certificate:
        """Return what serves without the Secret, or in place of what that holds: ours as long as it does."""
        now = self._api.now()
        if self._certificate and not fault_of(self._certificate, names, now):
            return self._certificate
        for base in (held, self._certificate):
            if base and (renewed := renew(base, names, now)).authority == base.authority:
                return renewed
        return issue(names, now)

    def _remembering(self, latest: Certificate, trusted: bytes) -> Certificate:
        serving = self._serving.authority if self._serving else b""
        return remembering(latest, trusted + serving, self._api.now())

    async def _replace(self, secret: Secret, latest: Certificate) -> bool:
        until = self._api.now() + certificates.OVERLAP
        note = until.strftime("%Y-%m-%dT%H:%M:%SZ") if latest.former else None
        return await self._api.replace_secret(
            self._settings.namespace,
            self._settings.certificate_secret,
            latest.as_secret(),
            {contract.TRUSTED_UNTIL: note},
            secret.version,
        )

    async def _forget(self, latest: Certificate) -> None:
        """Take the authorities before out of the Secret: they are in no caBundle any more."""
        secret = await self._stored()
        if secret and from_secret(secret.data) == latest:
            _log.info("authorities that issued before are trusted no longer")
            await self._replace(secret, replace(latest, former=b""))

    async def _recreate(self, latest: Certificate) -> bool:
        """Make the Secret anew; False when it is there by now. Without the right to it nothing is done."""
        last = self._secret or Secret({}, "", {}, {})
        annotations = dict(last.annotations)
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        annotations.pop(contract.TRUSTED_UNTIL, None)
        labels = {key: value for key, value in last.labels.items() if key not in _VARYING_LABELS}
        secret = Secret(latest.as_secret(), "", annotations, labels)
        namespace, name = self._settings.namespace, self._settings.certificate_secret
        try:
            created = await self._api.create_secret(namespace, name, secret)
        except ApiError as error:
            if error.status not in _NOT_OURS_TO_MAKE:
                raise
            self._may_recreate = False
            return True
        if created:
            _log.warning("Secret %s was missing: made anew with the certificate that is served", name)
        return created


class Files:
    """Serves files that someone else keeps, such as cert-manager, as the caBundle. `run` must be running."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        load: Callable[[bytes, bytes], None],
        on_fault: Callable[[], None] = lambda: None,
    ) -> None:
        """Start knowing nothing; see `Trust`. `on_fault` is called when the files cannot be used."""
        self._on_fault = on_fault
        self._folder = settings.certificate_folder
        self._name = settings.webhook_configuration
        self._health = health
        self._load = load
        self._loaded: tuple[bytes, bytes] | None = None
        self._configuration: Json | None = None

    def take_configurations(self, configurations: Mapping[str, Json]) -> None:
        """Take all MutatingWebhookConfigurations, by name."""
        self._configuration = configurations.get(self._name)
        self._judge()

    async def run(self) -> None:
        """Look at the files for ever."""
        if self._folder is None:
            return
        told = ""
        while True:
            try:
                found = ((self._folder / "tls.crt").read_bytes(), (self._folder / "tls.key").read_bytes())
                if found != self._loaded:
                    self._load(*found)
                    self._loaded = found
                told = ""
            except (OSError, ValueError) as error:  # half-written: the pair that is served stays
                self._on_fault()
                if str(error) != told:
                    told = str(error)
                    _log.warning("the certificate in %s cannot be used: %s", self._folder, error)
            self._judge()
            await asyncio.sleep(LOOK_AT_FILES_EVERY)

    def _judge(self) -> None:
        """Take the caBundle for confirmed unless it is there and does not vouch for what is served.

        An empty one has the API server trust what its system does, which we cannot know; unless an injector
        is to fill it. Where there is no configuration of our name it is in one that others keep, as they do
        the files.
        """
        webhooks = _webhooks_of(self._configuration or {})
        annotations = (self._configuration or {}).get("metadata", {}).get("annotations") or {}
        empty_will_do = not any(name in annotations for name in contract.INJECTORS)
        if self._loaded is None:
            why = "no certificate to compare it with"
        elif all(_vouches(_bundle_of(one), self._loaded[0], empty=empty_will_do) for one in webhooks):
            self._health.met("caBundle")
            return
        else:
            why = f"that of {self._name} does not vouch for the certificate in {self._folder}"
        self._health.unmet("caBundle", why)


def _vouches(bundle: bytes, leaf: bytes, *, empty: bool) -> bool:
    return is_vouched_for(leaf, bundle) if bundle else empty


def _webhooks_of(configuration: Json) -> list[Json]:
    """Return the webhooks whose caBundle is kept here; that for unlabelled pods follows the chart's."""
    return [
        webhook
        for webhook in configuration.get("webhooks") or ()
        if webhook["name"] != contract.UNLABELLED_WEBHOOK
    ]


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


def _moment(text: str | None) -> datetime | None:
    """Return an RFC 3339 moment; None for what is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
