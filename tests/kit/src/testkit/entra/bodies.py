"""What comes to the control endpoints, checked.

Every fault in a body is a ValueError that says what was wanted and what was found.
"""

import json
import typing
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from aiohttp import web

from testkit.entra.directory import DEFAULT_AUDIENCE, FederatedCredential
from testkit.entra.faults import KINDS, Fault

_V = TypeVar("_V", str, int, float)

_ACCEPTED: Mapping[Any, Any] = {float: int | float, Mapping[str, Any]: dict}  # in JSON
CREDENTIAL = ("name", "issuer", "subject", "audience")


async def read(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that a request carries, else its query."""
    text = await request.text()
    if not text:
        return dict(request.query)
    try:
        body = json.loads(text, parse_constant=_refused)
    except ValueError as failure:
        raise ValueError(f"the body: a JSON object wanted: {failure}") from failure
    return _object("the body", body)


def only(body: Mapping[str, Any], *names: str) -> None:
    """Check that a body has no members but these."""
    unknown = [name for name in body if name not in names]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; known are: {', '.join(names) or 'none'}")


def required(body: Mapping[str, Any], name: str) -> str:
    """Return a member that must be there, a string that is not empty."""
    value = optional(body, name, str)
    if not value:
        raise ValueError(f"{name}: missing")
    return value


def optional(body: Mapping[str, Any], name: str, kind: type[_V]) -> _V | None:
    """Return a member of that type, None when it is not there or null."""
    value = body.get(name)
    return None if value is None else kind(_typed(name, value, kind))


def credentials(body: Mapping[str, Any], name: str) -> list[FederatedCredential]:
    """Return the federated credentials that a list in the body describes."""
    listed = body.get(name, [])
    if not isinstance(listed, list):
        raise ValueError(f"{name}: a list wanted, {_kind(listed)} found")  # noqa: TRY004 - see the docstring
    found = [_object(f"a member of {name}", one) for one in listed]
    for one in found:
        only(one, *CREDENTIAL)
    return [credential(one) for one in found]


def credential(body: Mapping[str, Any]) -> FederatedCredential:
    """Return the federated credential that the body describes; name and audience have defaults."""
    audience = optional(body, "audience", str)
    return FederatedCredential.of(
        required(body, "issuer"),
        required(body, "subject"),
        audience=DEFAULT_AUDIENCE if audience is None else audience,
        name=optional(body, "name", str),
    )


def fault(kind: str, settings: Mapping[str, Any]) -> Fault:
    """Return the fault of that kind with these settings."""
    if kind not in KINDS:
        raise ValueError(f"kind: one of {', '.join(KINDS)} wanted, {kind!r} found")
    types = typing.get_type_hints(KINDS[kind])
    only(settings, *types)
    status = settings.get("status")
    if isinstance(status, int) and not 200 <= status <= 599:
        raise ValueError(f"status: an HTTP status from 200 to 599 wanted, {status} found")
    return KINDS[kind](**{name: _typed(name, value, types[name]) for name, value in settings.items()})


def _typed(name: str, value: object, kind: Any) -> Any:
    accepted = _ACCEPTED.get(kind, kind)
    if isinstance(value, bool) or not isinstance(value, accepted):
        wanted = accepted.__name__ if isinstance(accepted, type) else accepted
        raise ValueError(f"{name}: {wanted} wanted, {value!r} found")  # noqa: TRY004 - see the docstring
    return value


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: an object wanted, {_kind(value)} found")  # noqa: TRY004 - see the docstring
    return value


def _kind(value: object) -> str:
    return type(value).__name__


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
