"""What the chart declares of the policy engine, and in what a stored object differs from it.

The chart installs a ConfigMap that holds the very objects it installs. That is the truth, not this program's:
during an upgrade an operator of the former version keeps what the new chart declares.
"""

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from workload_identity_operator import contract
from workload_identity_operator.shapes import Json, is_object_name

State: TypeAlias = Literal["declared", "edited", "missing", "unknown"]
"""Of a declared object: as it should be, otherwise, not there, could not be told."""
STATES: Final[tuple[State, ...]] = ("declared", "edited", "missing", "unknown")

FREE: Final = 2
"""Times that an object is put right within `CALM` before somebody is taken to insist."""
CALM: Final = 10 * 60.0
"""Seconds without a repair after which nobody insists any more."""
LONGEST_PAUSE: Final = 5 * 60.0
"""Seconds between repairs that somebody undoes each time."""


class DeclarationUnreadable(Exception):  # noqa: N818 - what it is
    """The ConfigMap does not hold what the chart writes there; `str()` names key and fault."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that is kept.

    Attributes:
        api: Its apiVersion.
        plural: As it stands in a URL.
        replaceable: Whether it may be deleted and made anew; a definition takes its objects with it.
        others: Fields of its spec that are not the chart's.
    """

    api: str
    plural: str
    replaceable: bool
    others: frozenset[str] = frozenset()


_ADMISSION: Final = "admissionregistration.k8s.io/v1"
KINDS: Final[Mapping[str, Kind]] = {
    "CustomResourceDefinition": Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    "MutatingAdmissionPolicy": Kind(_ADMISSION, "mutatingadmissionpolicies", True),
    # Which pods are left to the peer's webhook is the operator's to say, and changes as that comes and goes.
    "MutatingAdmissionPolicyBinding": Kind(
        _ADMISSION, "mutatingadmissionpolicybindings", True, frozenset({"matchResources"})
    ),
}
"""In the order in which they need each other: a policy whose parameters have no kind is refused."""

_MARKS: Final = re.compile(r"meta\.helm\.sh/.+")
"""Annotations by which a tool knows all objects of an installation; other tools use labels."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An object as the chart declares it.

    Attributes:
        kind: One of `KINDS`.
        name: Its name.
        body: All of it, for a server-side apply.
    """

    kind: str
    name: str
    body: Json

    @property
    def collection(self) -> str:
        """The path of all objects of its kind."""
        return f"/apis/{KINDS[self.kind].api}/{KINDS[self.kind].plural}"

    @property
    def path(self) -> str:
        """The path of the object."""
        return f"{self.collection}/{self.name}"

    def extended(self, annotations: Json, spec: Json) -> Json:
        """Return all of it and, in addition, annotations and a part of a spec that are not the chart's."""
        meta = self.body["metadata"]
        return {
            **self.body,
            "metadata": {**meta, "annotations": {**meta["annotations"], **annotations}},
            "spec": {**self.body["spec"], **spec},
        }

    def rehearsal(self) -> tuple[str, Json]:
        """Return path and object of a dry run which tells what the API server makes of it.

        Under a name that is never stored, so that nothing is in it but what is declared and the API
        server's defaults. A definition's name is part of what it defines: it is rehearsed in its place,
        and what others added to it does not show.
        """
        if not KINDS[self.kind].replaceable:
            return self.path, self.body
        name = f"{self.name}-declared"
        return f"{self.collection}/{name}", {**self.body, "metadata": {"name": name}}


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the ConfigMap says.

    Attributes:
        objects: In the order of `KINDS`.
        manager: Field manager to apply them as: that of who applied the ConfigMap, so that the next
            upgrade finds its own fields; "" when it was not applied.
        version: Of the ConfigMap.
    """

    objects: tuple[Declared, ...]
    manager: str
    version: str


def read_declaration(config_map: Json) -> Declaration:
    """Return what the ConfigMap declares: an object of each of `KINDS` under the kind's name, or none.

    Raises:
        DeclarationUnreadable: Something else is in it.
    """
    meta, data = config_map["metadata"], config_map.get("data") or {}
    if unknown := sorted(data.keys() - KINDS.keys()):
        raise DeclarationUnreadable(f"{unknown[0]}: wanted one of {', '.join(KINDS)}")
    objects = tuple(_declared(kind, data[kind], meta) for kind in KINDS if kind in data)
    return Declaration(objects, _applied_by(meta), meta["resourceVersion"])


def settings_checksum(config_map: Json | None) -> str:
    """Return the checksum of the settings that a release declares; "" when it declares none, or is going."""
    if config_map is None or "deletionTimestamp" in config_map["metadata"]:
        return ""
    return str((config_map["metadata"].get("annotations") or {}).get(contract.SETTINGS_CHECKSUM, ""))


def _declared(kind: str, text: str, meta: Json) -> Declared:
    marks = {key: value for key, value in (meta.get("annotations") or {}).items() if _MARKS.fullmatch(key)}
    try:
        body = json.loads(text)
        own = body["metadata"]
        name = own["name"]
        fits = (body["kind"], body["apiVersion"]) == (kind, KINDS[kind].api) and is_object_name(name)
        labels = {**(own.get("labels") or {}), **(meta.get("labels") or {})}
        annotations = {**(own.get("annotations") or {}), **marks}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeclarationUnreadable(f"{kind}: is no object: {error}") from error
    if not fits:
        raise DeclarationUnreadable(f"{kind}: wanted a {kind} of {KINDS[kind].api} with a name")
    marked = {"name": name, "labels": labels, "annotations": annotations}
    return Declared(kind, name, {**body, "metadata": marked})


def _applied_by(meta: Json) -> str:
    """Return who applied the data; whoever wrote it in another way meets no conflicts later."""
    for owner in meta.get("managedFields") or ():
        if owner.get("operation") == "Apply" and "f:data" in (owner.get("fieldsV1") or {}):
            return str(owner.get("manager", ""))
    return ""


def difference(kind: str, wanted: Json, found: Json) -> tuple[str, ...]:
    """Return the fields in which the specs of two objects differ, sorted, without those that are not ours."""
    one, other = wanted.get("spec") or {}, found.get("spec") or {}
    fields = (one.keys() | other.keys()) - KINDS[kind].others
    return tuple(sorted(field for field in fields if one.get(field) != other.get(field)))


def editors(found: Json, known: AbstractSet[str]) -> tuple[str, ...]:
    """Return who else than these managers has written to an object's spec and still owns a part, sorted."""
    owners = {
        str(owner.get("manager", ""))
        for owner in found["metadata"].get("managedFields") or ()
        if "f:spec" in (owner.get("fieldsV1") or {})
    }
    return tuple(sorted(owners - known))


@dataclass(slots=True)
class Patience:
    """How often an object was put right lately, and when it may be again. Times are seconds of one clock.

    Attributes:
        times: Repairs without `CALM` between them.
        last: When the last one was.
    """

    times: int = 0
    last: float = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next repair; 0 when it may be made."""
        if not self.times or now - self.last > CALM:
            return 0.0
        return max(0.0, self.last + min(2.0 ** (self.times - 1), LONGEST_PAUSE) - now)

    def repaired(self, now: float) -> bool:
        """Take that it was put right; return whether this is the moment to say that somebody insists."""
        self.times = self.times + 1 if self.times and now - self.last <= CALM else 1
        self.last = now
        return self.times == FREE + 1

    @property
    def contested(self) -> bool:
        """Whether somebody insists, and was told so."""
        return self.times > FREE
