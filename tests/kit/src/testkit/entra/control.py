"""The stand-in's own endpoints, below /standin/: for other processes, and for people with curl.

JSON in, JSON out; what a DELETE is about may stand in its query as well. An error is `{"error": "..."}`.
Nothing here shows an assertion, a secret or a token: they are never kept.
"""

import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from testkit.entra import bodies
from testkit.entra.directory import Application, FederatedCredential, Unknown
from testkit.entra.faults import KINDS, Placed, name_of
from testkit.entra.service import Service

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_control(application: web.Application, service: Service) -> None:
    """Give a web application the endpoints that steer the stand-in."""
    control = _Control(service)
    application.middlewares.append(_explaining)
    application.add_routes(
        [
            web.get("/standin", control.overview),
            web.get("/standin/", control.overview),
            web.get("/standin/applications", control.applications),
            web.post("/standin/applications", control.add_application),
            web.delete("/standin/applications", control.remove_application),
            web.post("/standin/federated-credentials", control.add_credential),
            web.delete("/standin/federated-credentials", control.remove_credential),
            web.get("/standin/requests", control.requests),
            web.delete("/standin/requests", control.forget_requests),
            web.get("/standin/faults", control.faults),
            web.post("/standin/faults", control.place_fault),
            web.delete("/standin/faults", control.remove_faults),
        ]
    )


class _Control:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def overview(self, request: web.Request) -> web.Response:
        """Tell what is here."""
        endpoints = sorted(
            f"{route.method} {resource.canonical}"
            for resource in request.app.router.resources()
            for route in resource
            if route.method != "HEAD"
        )
        kinds = {
            name: dataclasses.asdict(kind())  # every setting has a default
            for name, kind in KINDS.items()
        }
        return web.json_response(
            {"authority": self._service.authority, "endpoints": endpoints, "fault_kinds": kinds}
        )

    async def applications(self, request: web.Request) -> web.Response:
        """Tell what is registered."""
        del request
        return web.json_response([_shown(one) for one in self._service.directory.applications()])

    async def add_application(self, request: web.Request) -> web.Response:
        """Register an application with its federated credentials, all or none."""
        body = await bodies.read(request)
        bodies.only(body, "tenant", "client_id", "federated_credentials")
        return self._registered(body, *bodies.credentials(body, "federated_credentials"))

    async def remove_application(self, request: web.Request) -> web.Response:
        """Remove an application."""
        body = await bodies.read(request)
        bodies.only(body, "tenant", "client_id")
        self._service.remove_application(*_ids(body))
        return web.json_response({})

    async def add_credential(self, request: web.Request) -> web.Response:
        """Register a federated credential, and its application with it."""
        body = await bodies.read(request)
        bodies.only(body, "tenant", "client_id", *bodies.CREDENTIAL)
        return self._registered(body, bodies.credential(body))

    async def remove_credential(self, request: web.Request) -> web.Response:
        """Remove the federated credential of that name, or all of an application."""
        body = await bodies.read(request)
        bodies.only(body, "tenant", "client_id", "name")
        ids = _ids(body)
        self._service.remove_credential(*ids, bodies.optional(body, "name", str))
        return web.json_response(_shown(self._service.directory.application(*ids)))

    async def requests(self, request: web.Request) -> web.Response:
        """Tell which tokens were asked for, oldest first."""
        del request
        return web.json_response([dataclasses.asdict(one) for one in tuple(self._service.requests)])

    async def forget_requests(self, request: web.Request) -> web.Response:
        """Forget them."""
        del request
        self._service.requests.clear()
        return web.json_response({})

    async def faults(self, request: web.Request) -> web.Response:
        """Tell which faults are in place, oldest first."""
        del request
        now = time.monotonic()
        return web.json_response([_shown_fault(one, now) for one in self._service.faults.placed(now)])

    async def place_fault(self, request: web.Request) -> web.Response:
        """Put a fault in place: `kind`, its settings, and whom it meets how often or how long."""
        body = await bodies.read(request)
        kind = bodies.required(body, "kind")
        times, seconds = bodies.optional(body, "times", int), bodies.optional(body, "seconds", float)
        if times is not None and times < 1:
            raise ValueError(f"times: 1 or more wanted, {times} found")
        scope = {"kind", "tenant", "client_id", "times", "seconds"}
        settings = {name: value for name, value in body.items() if name not in scope}
        now = time.monotonic()
        placed = self._service.faults.place(
            bodies.fault(kind, settings),
            tenant_id=bodies.optional(body, "tenant", str),
            client_id=bodies.optional(body, "client_id", str),
            times=times,
            until=math.inf if seconds is None else now + seconds,
        )
        return web.json_response(_shown_fault(placed, now), status=201)

    async def remove_faults(self, request: web.Request) -> web.Response:
        """Remove the fault of that number, or all."""
        body = await bodies.read(request)
        bodies.only(body, "number")
        if "number" not in body:
            self._service.faults.clear()
            return web.json_response({})
        number = body["number"]
        if not str(number).isdecimal():
            raise ValueError(f"number: a whole number wanted, {number!r} found")
        if not self._service.faults.remove(int(number)):
            raise Unknown(f"no fault has the number {number}")
        return web.json_response({})

    def _registered(self, body: Mapping[str, Any], *credentials: FederatedCredential) -> web.Response:
        ids = _ids(body)
        changed = self._service.register(*ids, *credentials)
        shown = _shown(self._service.directory.application(*ids))
        return web.json_response(shown, status=201 if changed else 200)


@web.middleware
async def _explaining(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer the control endpoints' errors as JSON."""
    if not request.path.startswith("/standin"):
        return await handler(request)
    try:
        return await handler(request)
    except Unknown as failure:
        status, message = 404, str(failure)
    except ValueError as failure:
        status, message = 400, str(failure)
    except web.HTTPException as failure:
        status, message = failure.status, f"{failure.reason}; GET /standin/ tells what is here"
    return web.json_response({"error": message}, status=status)


def _ids(body: Mapping[str, Any]) -> tuple[str, str]:
    return bodies.required(body, "tenant"), bodies.required(body, "client_id")


def _shown(application: Application) -> dict[str, Any]:
    return {
        "tenant": application.tenant_id,
        "client_id": application.client_id,
        "federated_credentials": [dataclasses.asdict(one) for one in application.credentials],
    }


def _shown_fault(placed: Placed, now: float) -> dict[str, Any]:
    return {
        "number": placed.number,
        "kind": name_of(placed.fault),
        **dataclasses.asdict(placed.fault),
        "tenant": placed.tenant_id,
        "client_id": placed.client_id,
        "times": placed.times,
        "seconds": None if math.isinf(placed.until) else round(placed.until - now, 3),
    }
