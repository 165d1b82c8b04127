"""`wire`: what gives the containers of a pod their identity. No clock, no network, no logging.

A pod is the raw JSON tree of an admission review, so that fields no one here has heard of
survive. What comes out are JSON Patch operations (RFC 6902) that only add, or replace an entry
of our own; `[]` for a pod that is wired already. The API server calls again with the patched pod
when a later webhook changed it, and people paste live pods into templates: a volume that already
carries the token is therefore adopted, under whatever hash it was named.

Source of the behaviour: Azure/azure-workload-identity v1.6.0; where that pod would be rejected
or could never start, ours is refused with a reason, or repaired.
"""

import hashlib
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.identity import Identity
from workload_identity_operator.shapes import Json, items, mapping, objects, text
from workload_identity_operator.sidecar import Sidecar, insertions, port_warnings

Operation: TypeAlias = dict[str, Any]

_GENERATED: Final = " (prefix)"
_PROXY: Final = frozenset({contract.PROXY_NAME, contract.PROXY_INIT_NAME})
_KINDS: Final = ("initContainers", "containers")
MOST_CONTAINERS: Final = 5000
"""Of each kind. More cannot be stored once wired, and would cost seconds and a patch of megabytes."""

_LANDMARK: Final = posixpath.basename(posixpath.dirname(contract.BASE_PATH))
"""Part of the base path, and so of every way to write it."""

_Standing: TypeAlias = Literal["ours", "author's", "below", "in the way", "elsewhere"]
"""How a mount stands to the base path: our volume at it, the author's own volume with the same
token at it, our volume below it (how later versions of the peer lay it out), anything else at or
below it, or somewhere else."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What to do to a pod.

    Attributes:
        operations: JSON Patch operations in the order in which they apply; [] when wired already.
        warnings: Soft findings for the pod's author, one sentence each.
    """

    operations: list[Operation]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Volume:
    """The volume that carries the token, and its neighbours.

    Attributes:
        name: The one that containers shall mount.
        wired: Names of all volumes of ours in the pod, that one included.
        present: Names of all volumes in the pod.
        authors: Names of the author's own volumes that carry the same token at the same path.
    """

    name: str
    wired: frozenset[str]
    present: frozenset[str]
    authors: frozenset[str]

    def is_ours(self, source: str) -> bool:
        """Whether a mount of that volume is ours: also where containers were pasted without their volumes."""
        lost = source.startswith(contract.VOLUME_PREFIX) and source not in self.present
        return lost or source in self.wired


def wire(pod: Mapping[str, Any], identity: Identity, sidecar: Sidecar | None = None) -> Wiring:
    """Return what gives every container of the pod its identity.

    Args:
        pod: The Pod as it stands in the admission review; never changed.
        identity: What to give.
        sidecar: The proxy that the pod asks for; None when it asks for none.

    Raises:
        PodRefused: A part of the pod has the wrong shape, there are too many containers, or a
            mount of the author's own is in the way; the message names the container, the volume
            and the path.
    """
    spec = mapping(pod.get("spec"), "spec")
    volumes = objects(spec, "volumes", "spec")
    volume = _volume_of(pod, volumes, identity)
    operations = [] if pod.get("spec") is not None else [_add("/spec", {})]
    operations += _put_volume(spec.get("volumes"), volumes, volume.name, identity)
    warnings = list(identity.warnings)
    names: set[str] = set()
    overridden = []
    for at, where, raw in _containers(spec):
        container = mapping(raw, where)
        name = text(container, "name", where)
        names.add(name)
        if name in identity.skip:
            continue
        if raw is None:
            operations.append({"op": "replace", "path": at, "value": {}})
        mount, base_path = _put_mount(container, at, where, volume, legacy=identity.legacy_path)
        # The proxy, which is made without, reads the token where its variable says.
        wants_legacy = identity.legacy_path and name not in _PROXY
        legacy = _put_legacy_mount(container, at, where, volume, mount) if wants_legacy else []
        env = _put_env(container, at, where, identity, base_path)
        if env and _may_override(container, where):
            overridden.append(name)
        if not mount:
            warnings += _stale_client_id(container, where, identity)
        operations += env + mount + legacy
    if sidecar:
        inserted = _put_sidecar(spec, sidecar, volume.name, identity)
        names |= inserted.keys()
        operations += inserted.values()
        warnings += port_warnings(spec, sidecar)
        if not identity.tenant_id:
            warnings.append("the proxy needs a tenant: the ServiceAccount's annotation tenant-id is empty")
    if overridden:
        warnings.append(f"AZURE_* variables from envFrom, if any, are overridden in {_named(overridden)}")
    if unmatched := sorted(identity.skip - names):
        warnings.append(f"annotation skip-containers names no container: {_named(unmatched)}")
    return Wiring(operations, warnings)


def _containers(spec: Json) -> Iterator[tuple[str, str, object]]:
    """Yield where each container is, as a JSON pointer and as a message names it, and the container."""
    for kind in _KINDS:
        containers = items(spec, kind, "spec")
        if len(containers) > MOST_CONTAINERS:
            raise PodRefused(f"spec.{kind}: wanted at most {MOST_CONTAINERS}, found {len(containers)}")
        for index, container in enumerate(containers):
            yield f"/spec/{kind}/{index}", f"spec.{kind}[{index}]", container


def wanted_variables(
    pod: Mapping[str, Any], identity: Identity
) -> Iterator[tuple[str, Sequence[Json], Mapping[str, str]]]:
    """Yield the name of each container that is not skipped, its variables, and all that we have for it.

    Raises:
        PodRefused: As `wire` does.
    """
    spec = mapping(pod.get("spec"), "spec")
    volume = _volume_of(pod, objects(spec, "volumes", "spec"), identity)
    for at, where, raw in _containers(spec):
        container = mapping(raw, where)
        name = text(container, "name", where)
        if name not in identity.skip:
            _, base_path = _put_mount(container, at, where, volume, legacy=identity.legacy_path)
            wanted = {found["name"]: found["value"] for found in _variables(identity, base_path)}
            yield name, objects(container, "env", where), wanted


def display_name(pod: Mapping[str, Any]) -> str:
    """Return what the volume's name is a hash of.

    A pod from a ReplicaSet or a Job reaches admission with generateName only.
    """
    metadata = mapping(pod.get("metadata"), "metadata")
    return text(metadata, "name", "metadata") or text(metadata, "generateName", "metadata") + _GENERATED


def volume_name(shown: str) -> str:
    """Return the name of the volume that a pod of that display name is given."""
    digest = hashlib.sha256(shown.encode()).hexdigest()
    return contract.VOLUME_PREFIX + digest[: contract.VOLUME_HASH_LENGTH]


def _volume_of(pod: Mapping[str, Any], volumes: Sequence[Json], identity: Identity) -> _Volume:
    """Find the volume to adopt; compute a name when there is none.

    For a token endpoint no volume of the author's will do: it has neither that audience nor the certificates.
    """
    computed = volume_name(display_name(pod))
    ours, authors, present = [], set(), set()
    for index, volume in enumerate(volumes):
        name = text(volume, "name", f"spec.volumes[{index}]")
        present.add(name)
        if _carries_token(volume, f"spec.volumes[{index}]"):
            if name.startswith(contract.VOLUME_PREFIX):
                ours.append(name)
            elif not identity.token_endpoint:
                authors.add(name)
    adopted = computed if computed in ours or not ours else ours[0]
    return _Volume(adopted, frozenset(ours) | {adopted}, frozenset(present), frozenset(authors))


def _carries_token(volume: Json, where: str) -> bool:
    """Whether the volume projects a ServiceAccount token to the path that our containers read."""
    projected = mapping(volume.get("projected"), f"{where}.projected")
    return any(
        mapping(source.get("serviceAccountToken"), f"{where}.projected.sources").get("path")
        == contract.TOKEN_PATH
        for source in objects(projected, "sources", f"{where}.projected")
    )


def _put_volume(raw: object, volumes: Sequence[Json], name: str, identity: Identity) -> list[Operation]:
    """Add the volume, or bring the one of that name to its desired sources where it stands."""
    token = {
        "path": contract.TOKEN_PATH,
        "expirationSeconds": identity.expiration,
        "audience": identity.audience,
    }
    sources: list[Json] = [{"serviceAccountToken": token}]
    if identity.token_endpoint and identity.token_endpoint.ca_source:
        sources.append(identity.token_endpoint.ca_source)
    if identity.legacy_path:
        sources.append({"serviceAccountToken": {**token, "path": contract.LEGACY_TOKEN_PATH}})
    desired = {"name": name, "projected": {"sources": sources}}
    for index, volume in enumerate(volumes):
        if volume.get("name") == name:
            at = f"/spec/volumes/{index}"
            if not _carries_token(volume, f"spec.volumes[{index}]"):
                # The prefix is reserved: whatever else has that name goes.
                return [{"op": "replace", "path": at, "value": desired}]
            # What we wired before keeps its other fields, such as the defaultMode that the API
            # server filled in.
            if volume["projected"]["sources"] == sources:
                return []
            return [{"op": "replace", "path": f"{at}/projected/sources", "value": sources}]
    return _append("/spec/volumes", raw, [desired])


def _put_mount(
    container: Json, at: str, where: str, volume: _Volume, *, legacy: bool
) -> tuple[list[Operation], str]:
    """Return what mounts the volume, and where the container then has it.

    No operation for a container that reads the token already. With `legacy` a mount at that path stays.
    """
    mounts, inside = objects(container, "volumeMounts", where), f"{where}.volumeMounts"
    sources = [text(mount, "name", inside) for mount in mounts]
    paths = [_absolute(text(mount, "mountPath", inside)) for mount in mounts]
    standings = [_standing(path, source, volume) for path, source in zip(paths, sources, strict=True)]
    if "below" in standings:
        return [], paths[standings.index("below")]
    if "in the way" in standings:
        raise PodRefused(_in_the_way(container, mounts[standings.index("in the way")]))
    if "author's" in standings:
        return [], contract.BASE_PATH
    desired = _mount_of(volume.name)
    movable = ["" if legacy and _is_legacy(path) else name for path, name in zip(paths, sources, strict=True)]
    if "ours" in standings:
        index = standings.index("ours")
    elif volume.name in movable:
        index = movable.index(volume.name)
    else:
        return _append(f"{at}/volumeMounts", container.get("volumeMounts"), [desired]), contract.BASE_PATH
    if mounts[index] == desired:
        return [], contract.BASE_PATH
    replace = {"op": "replace", "path": f"{at}/volumeMounts/{index}", "value": desired}
    return [replace], contract.BASE_PATH


def _put_legacy_mount(
    container: Json, at: str, where: str, volume: _Volume, before: Sequence[Operation]
) -> list[Operation]:
    """Return what mounts the volume at the peer's former path too, after the operations `before`.

    Whatever is mounted there already stays: a template may still have what the peer had made.
    """
    mounts, inside = objects(container, "volumeMounts", where), f"{where}.volumeMounts"
    desired = {"name": volume.name, "mountPath": contract.LEGACY_PATH, "readOnly": True}
    path = f"{at}/volumeMounts"
    for index, mount in enumerate(mounts):
        if _is_legacy(text(mount, "mountPath", inside)):
            source = text(mount, "name", inside)
            lost = volume.is_ours(source) and source not in volume.present | {volume.name}
            return [{"op": "replace", "path": f"{path}/{index}", "value": desired}] if lost else []
    made = any(operation["path"] == path for operation in before)
    return [_add(f"{path}/-", desired)] if made else _append(path, container.get("volumeMounts"), [desired])


def _is_legacy(path: str) -> bool:
    return posixpath.normpath("/" + path.lstrip("/")) == contract.LEGACY_PATH


def _standing(path: str, source: str, volume: _Volume) -> _Standing:
    """Tell how a mount stands to the base path."""
    if path == contract.BASE_PATH and volume.is_ours(source):
        return "ours"
    if path == contract.BASE_PATH and source in volume.authors:
        return "author's"
    if path.startswith(contract.BASE_PATH + "/") and source in volume.wired:
        return "below"
    if f"{path}/".startswith(contract.BASE_PATH + "/"):
        return "in the way"
    return "elsewhere"


def _put_env(container: Json, at: str, where: str, identity: Identity, base_path: str) -> list[Operation]:
    """Return what appends the variables whose names are not taken, in their order."""
    inside = f"{where}.env"
    taken = {text(variable, "name", inside) for variable in objects(container, "env", where)}
    return _append(f"{at}/env", container.get("env"), _variables(identity, base_path, taken))


def _variables(identity: Identity, base_path: str, taken: Collection[str] = ()) -> list[Json]:
    """Return the variables of a container that mounts the volume there, in their order; not those taken."""
    wanted = (
        (contract.ENV_CLIENT_ID, identity.client_id),
        (contract.ENV_TENANT_ID, identity.tenant_id),
        (contract.ENV_TOKEN_FILE, f"{base_path}/{contract.TOKEN_PATH}"),
        (contract.ENV_AUTHORITY_HOST, identity.authority_host),
        *(identity.token_endpoint.env(base_path) if identity.token_endpoint else ()),
    )
    return [{"name": name, "value": value} for name, value in wanted if value and name not in taken]


def _put_sidecar(spec: Json, sidecar: Sidecar, volume: str, identity: Identity) -> dict[str, Operation]:
    """Return, by its name, what inserts each container that the pod lacks.

    They are wired as they are made: the author's list of containers to skip does not reach them.
    """
    operations: dict[str, Operation] = {}
    absent = {kind for kind in _KINDS if spec.get(kind) is None}
    for kind, index, bare in insertions(spec, sidecar):
        env = [*bare.get("env", ()), *_variables(identity, contract.BASE_PATH)]
        container = {**bare, "env": env, "volumeMounts": [_mount_of(volume)]}
        at = f"/spec/{kind}"
        operations[bare["name"]] = (
            _add(at, [container]) if kind in absent else _add(f"{at}/{index}", container)
        )
        absent.discard(kind)
    return operations


def _mount_of(volume: str) -> Json:
    return {"name": volume, "mountPath": contract.BASE_PATH, "readOnly": True}


def _absolute(path: str) -> str:
    """Return the path that a container runtime makes of a mountPath, where it may lead to the base path."""
    if _LANDMARK not in path:
        return path
    return posixpath.normpath("/" + path.lstrip("/"))


def _in_the_way(container: Json, mount: Json) -> str:
    return (
        f"container {quoted(container.get('name') or '')} mounts volume {quoted(mount.get('name') or '')} at "
        f"{quoted(mount['mountPath'])}, where the Azure identity token belongs ({contract.BASE_PATH}): mount "
        f"it elsewhere, or list the container in the pod's annotation {contract.SKIP_CONTAINERS}"
    )


def _may_override(container: Json, where: str) -> bool:
    """Whether envFrom could bring a variable that our explicit one overrides."""
    prefixes = [text(source, "prefix", f"{where}.envFrom") for source in objects(container, "envFrom", where)]
    return any(prefix.startswith("AZURE_") or "AZURE_".startswith(prefix) for prefix in prefixes)


def _stale_client_id(container: Json, where: str, identity: Identity) -> Iterator[str]:
    """Tell of a container wired before, whose client id is another than its ServiceAccount's now."""
    for variable in objects(container, "env", where):
        if variable.get("name") == contract.ENV_CLIENT_ID:
            kept = variable.get("value")  # read for this finding only, so no shape of it is refused
            if isinstance(kept, str) and kept and identity.client_id and kept != identity.client_id:
                # Both ids in full, so everything else is terse.
                yield (
                    f"{quoted(container.get('name') or '', 10)} has client id {quoted(kept, 36)}, "
                    f"its account {quoted(identity.client_id, 36)}"
                )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name, 20) for name in names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"  # noqa: PLR2004 - a short line


def _append(path: str, raw: object, items: Sequence[Json]) -> list[Operation]:
    """Append to the list at path; a missing or null one is added whole."""
    if not items:
        return []
    if raw is None:
        return [_add(path, list(items))]
    return [_add(f"{path}/-", item) for item in items]


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}
