"""Puts the operator together and runs it."""

import asyncio
import gc
import logging
import random
import signal
import time
from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp
import kopf

from workload_identity_operator import admission, certificates, upgrades
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.auditor import Auditor
from workload_identity_operator.following import follow_all
from workload_identity_operator.handlers import registry
from workload_identity_operator.healer import Healer
from workload_identity_operator.health import Health
from workload_identity_operator.kube import ApiError, Cluster, KubeApi
from workload_identity_operator.lease import Lease
from workload_identity_operator.metrics import Metrics
from workload_identity_operator.peer import Peer
from workload_identity_operator.podwirings import PodWirings
from workload_identity_operator.repairs import Repairs
from workload_identity_operator.reviews import Review
from workload_identity_operator.serving import AdmissionServer, probes
from workload_identity_operator.settings import Settings
from workload_identity_operator.trust import Files, Trust
from workload_identity_operator.unlabelled import Unlabelled

T = TypeVar("T")

_log = logging.getLogger(__name__)

_RETRY_AFTER: Final = 2.0
"""Seconds."""
_LIST_EVERY: Final = 10 * 60.0
"""Seconds between listings of all ServiceAccounts, at most; at least half of it."""


async def operate(settings: Settings, cluster: Cluster) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        AddressTaken: One of the servers cannot listen where it should.
        ExceptionGroup: Something broke that a restart may mend.
    """
    health, metrics = Health(), Metrics()
    async with cluster.open(aiohttp.ClientResponse) as session:
        api = KubeApi(cluster.server, session, metrics.asked)
        accounts = Accounts(api.service_account, metrics.looked_up)
        wirings = PodWirings(api, accounts, settings)
        unlabelled = Unlabelled(api, accounts, settings.webhook_configuration)
        peer = Peer(api, settings, lambda present: metrics.peer_is(present=present))
        native_sidecars = True  # as in all clusters that upstream supports, until this one tells
        auditor = Auditor(api, accounts, settings, metrics, wirings, lambda: native_sidecars)
        metrics.watch(lambda: len(accounts), health.conditions, lambda: health.ready, wirings.state)

        accounts.on_change = _all_of(wirings.changed, lambda _: unlabelled.changed(), auditor.changed)
        filled = asyncio.Event()

        async def begin() -> None:
            await filled.wait()
            unlabelled.start()
            auditor.start()
            await peer.settled.wait()  # what the policy wires from is written once it is known for whom
            wirings.start()

        async def repair() -> None:
            await peer.settled.wait()  # likewise a binding that is missing
            await Repairs(api, settings, metrics, peer.hand_off, wirings.take_declared).run()

        def take_version(native: bool) -> None:
            nonlocal native_sidecars
            native_sidecars = native

        async def admit(review: Review, opted_in: bool) -> admission.Answer:
            return await admission.admit(
                review, accounts, settings, native_sidecars=native_sidecars, opted_in=opted_in
            )

        server = AdmissionServer(settings.listen, settings.tls_minimum, admit, health, metrics)

        def load(leaf: bytes, key: bytes) -> None:
            server.load(leaf, key)
            metrics.certificate_loaded(certificates.expiry_of(leaf).timestamp())

        theirs = settings.certificate_folder is not None
        unreadable = metrics.certificate_unreadable
        trust = Files(settings, health, load, unreadable) if theirs else Trust(api, settings, health, load)

        async with probes(settings.health, settings.metrics, health, metrics) as addresses:
            _log.info("starting", extra={name: f"http://{where}" for name, where in addresses.items()})
            async with asyncio.TaskGroup() as duties:
                tasks = [
                    duties.create_task(_keep_table(accounts, api, health, metrics, filled)),
                    duties.create_task(begin()),
                    duties.create_task(wirings.run()),
                    duties.create_task(unlabelled.run()),
                    duties.create_task(peer.run()),
                    duties.create_task(repair()),
                    duties.create_task(_audit(auditor, api, settings, health, metrics)),
                    duties.create_task(
                        follow_all(
                            "webhook configurations",
                            api.webhook_configurations,
                            _all_of(*(one.take_configurations for one in (peer, unlabelled, trust, auditor))),
                        )
                    ),
                    duties.create_task(
                        follow_all(
                            "the policy's binding",
                            lambda: api.policy_binding(settings.release),
                            peer.take_binding,
                        )
                    ),
                    duties.create_task(upgrades.follow(api, health, take_version)),
                    duties.create_task(trust.run()),
                ]

                def rest() -> None:
                    for task in tasks:
                        if not task.cancelling():  # else it is at its end, such as giving the Lease back
                            task.cancel()

                await _watch(registry(accounts, cluster, server), health, settings.drain, rest)
                rest()


async def _watch(
    handlers: kopf.OperatorRegistry, health: Health, drain: float, rest: Callable[[], None]
) -> None:
    """Run kopf until a signal comes: at once for SIGINT, for SIGTERM after `drain` seconds.

    Readiness goes first, so that the API server is sent elsewhere while reviews already on their
    way are still answered. All else that runs is ended by `rest` before kopf, which would take it for its
    own and wait five seconds for it.
    """
    started, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        health.draining = True
        _log.info("stopping", extra={"drain-seconds": drain})
        loop.call_later(drain, finish)

    def finish() -> None:
        rest()
        stop.set()

    async def take_signals() -> None:
        await started.wait()  # kopf has set its own handlers by then, which end at once
        loop.add_signal_handler(signal.SIGTERM, end)
        loop.add_signal_handler(signal.SIGINT, finish)

    signals = asyncio.create_task(take_signals())
    try:
        await kopf.operator(
            registry=handlers, standalone=True, clusterwide=True, ready_flag=started, stop_flag=stop
        )
    finally:
        signals.cancel()


def _all_of(*takers: Callable[[T], None]) -> Callable[[T], None]:
    """Return what tells all of them."""

    def take(what: T) -> None:
        for taker in takers:
            taker(what)

    return take


async def _audit(
    auditor: Auditor, api: KubeApi, settings: Settings, health: Health, metrics: Metrics
) -> None:
    """Audit and heal, as long as the Lease is ours."""
    lease = Lease(api, settings.namespace, settings.release)
    healer = Healer(api, lease, health, settings, metrics, auditor)
    auditor.on_owners = healer.take

    async def work() -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(auditor.run())
            both.create_task(healer.run())

    await lease.run(work)


async def _keep_table(
    accounts: Accounts, api: KubeApi, health: Health, metrics: Metrics, filled: asyncio.Event
) -> None:
    """List all ServiceAccounts: at start, which sets `filled`, and now and then.

    kopf does not say when its own first listing is through, nor what was deleted while its watch was away.
    """
    told = ""
    while True:
        pause = random.uniform(_LIST_EVERY / 2, _LIST_EVERY)  # noqa: S311 - so that replicas take turns
        try:
            await accounts.fill(api.service_accounts())
            metrics.listed(time.time())
            told = ""
        except ApiError as error:
            if str(error) != told:
                told = str(error)
                _log.warning("ServiceAccounts could not be listed: %s", told)
            pause = pause if filled.is_set() else _RETRY_AFTER
        else:
            if not filled.is_set():
                filled.set()
                # What is there by now stays: to look through it for garbage again and again is a third of
                # what an audit costs.
                gc.collect()
                gc.freeze()
                _log.info("the table of ServiceAccounts is filled", extra={"identities": len(accounts)})
                health.met("table")
        await asyncio.sleep(pause)
