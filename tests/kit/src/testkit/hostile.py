"""Reviews that no API server sends: what anyone who reaches the webhook's port may try.

Each case is made from a seed and its number alone, so any of them can be made again. What must come of it is
judged by an independent reading of what was sent.
"""

import copy
import json
import random
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workload_identity_operator import contract

Json = dict[str, Any]

PATH: Final = contract.WEBHOOK_PATH
STATUSES: Final = frozenset({200, 400, 404, 405, 413})
"""What a request is answered with."""
_DEEP: Final = "@deep@"
_HUGE: Final = contract.MAX_REVIEW_BYTES
_ODD: Final[Sequence[Any]] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 2**70, float("nan"), float("-inf"), "", " ", "true", "\ud800"),
    *(
        "\udfff\ud83d",
        "\x00",
        "\u202e",
        "é" * 300,
        "x" * 10_000,
        "../../../secrets/x",
        "sa-0\n",
        "sa-1/token",
    ),
    *([], {}, [None], [[]], [{}], {"": None}, {"name": {"name": []}}, _DEEP, contract.BASE_PATH),
    *(contract.VOLUME_PREFIX + "x", contract.ENV_CLIENT_ID, contract.TOKEN_PATH),
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent on one connection.

    Attributes:
        kind: Whose idea it is.
        pieces: Bytes, written one after the other.
        bodies: Of the requests in them; each must be answered, in this order. None: what is sent is no
            HTTP, and an answer or the end of the connection will do.
        tls: Whether they are sent over TLS.
    """

    kind: str
    pieces: Sequence[bytes]
    bodies: Sequence[bytes] | None
    tls: bool = True


@dataclass(frozen=True, slots=True)
class Hostility:
    """A source of cases.

    Attributes:
        seed: Of all cases.
        namespace: Of the good reviews among them.
        clients: Client ids of its ServiceAccounts by name; "" of one without.
    """

    seed: int
    namespace: str
    clients: Mapping[str, str]

    def case(self, number: int) -> Case:
        """Return a case, always the same one for the number."""
        rng = random.Random(f"{self.seed}/{number}")  # noqa: S311 - to be repeated, not to be secret
        (make,) = rng.choices(list(_MAKERS), list(_MAKERS.values()))
        return make(self, rng, f"{self.seed}/{number}")

    def good(self, rng: random.Random, uid: str) -> Json:
        """Return a review as an API server sends it, of a pod that is to be wired."""
        names = rng.sample(["app", "side", "log", "first"], rng.randint(1, 4))
        containers = [_container(rng, name) for name in names]
        metadata: Json = {"name": f"pod-{rng.randrange(1000)}", "labels": {contract.USE_LABEL: "true"}}
        if rng.random() < 0.3:
            metadata["annotations"] = {contract.EXPIRATION: rng.choice(["3600", "+7200", "086400"]), "a": "b"}
        spec = {
            "serviceAccountName": rng.choice(list(self.clients)),
            "containers": containers[:-1] or containers,
            "initContainers": containers[-1:] if containers[1:] else None,
            "volumes": rng.choice([None, [], [{"name": "data", "emptyDir": {}}]]),
            "tolerations": [{"key": "k", "operator": "Exists"}],
        }
        request = {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": self.namespace,
            "operation": "CREATE",
            "object": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        }
        version = rng.choice(["v1", "v1beta1"])
        return {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview", "request": request}

    # Who has ideas.

    def _sane(self, rng: random.Random, uid: str) -> Case:
        return _posted("sane", json.dumps(self.good(rng, uid)).encode())

    def _grafted(self, rng: random.Random, uid: str) -> Case:
        review = self.good(rng, uid)
        for _ in range(rng.randint(1, 3)):
            _graft(rng, review, copy.deepcopy(rng.choice([*_ODD, *self.clients])))
        return _posted("grafted", _written(rng, review))

    def _confused(self, rng: random.Random, uid: str) -> Case:
        """Name other ServiceAccounts wherever one might look for the pod's."""
        review = self.good(rng, uid)
        other = rng.choice(list(self.clients))
        pod = review["request"]["object"]
        pod["spec"]["serviceAccount"] = pod["serviceAccountName"] = other
        pod["metadata"] |= {"namespace": rng.choice(["default", "kube-system"]), "serviceAccountName": other}
        pod["metadata"]["annotations"] = {contract.CLIENT_ID: self.clients[other], contract.TENANT_ID: "evil"}
        review["request"]["userInfo"] = {"username": f"system:serviceaccount:{self.namespace}:{other}"}
        body = _written(rng, review)
        for twice in (f'"spec":{{"serviceAccountName":"{other}"}}', f'"serviceAccountName":"{other}"'):
            if rng.random() < 0.5:
                body = _inserted(rng, body, twice.encode())
        return _posted("confused", body)

    def _damaged(self, rng: random.Random, uid: str) -> Case:
        body = bytearray(json.dumps(self.good(rng, uid)).encode())
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(4):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1:
                    del body[at : at + rng.randint(1, 40)]
                case 2:
                    body[at:at] = rng.choice(
                        [b"\xff\xfe", b"\\ud800", b"\x00", b"}}", b"[[[", b"\xed\xa0\x80", b"9" * 5000]
                    )
                case _:
                    del body[at:]
                    body += b" "
        return _posted("damaged", bytes(body))

    def _tree(self, rng: random.Random, _: str) -> Case:
        depth = rng.choice([1, 10, 500, 5_000, 100_000])
        opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"request":', b"}]")])
        body = opening * depth + rng.choice([b"1", b"NaN", b'"\\ud800"', b"{}", b""]) + closing * depth
        return _posted("deep", rng.choice([b"", b"\xef\xbb\xbf", b"\xff\xfe"]) + body)

    def _large(self, rng: random.Random, uid: str) -> Case:
        size = rng.choice([_HUGE // 8, _HUGE // 2, _HUGE - 5000, _HUGE + 1, _HUGE + 100_000])
        review = self.good(rng, uid)
        marked = rng.choice(["metadata", "spec"])
        review["request"]["object"][marked]["extra"] = "@large@"
        filling = rng.choice([b'"%b"', b'[{"%b":1}]', b'"\\ud83d\\ude80%b"'])
        part = rng.choice([b"x", b"\\u0001", b"\xc3\xa9", b"\\\\", b";"])
        body = json.dumps(review).encode().replace(b'"@large@"', filling % (part * (size // len(part))), 1)
        return _posted("large", body)

    def _many(self, rng: random.Random, uid: str) -> Case:
        part = rng.choice(["{}", "[]", "null", '{"name":"a"}', '{"":0}', "1"])
        count = rng.choice([100, 4_000, 60_000, 1_000_000]) // (1 + len(part))
        review = self.good(rng, uid)
        pod = review["request"]["object"]
        where = rng.choice(
            ["containers", "initContainers", "volumes", "env", "volumeMounts", "envFrom", "extra"]
        )
        target = (
            pod["spec"]
            if where.endswith("ontainers") or where in {"volumes", "extra"}
            else pod["spec"]["containers"][0]
        )
        target[where] = "@many@"
        body = json.dumps(review).replace('"@many@"', f"[{','.join([part] * count)}]", 1).encode()
        return _posted("many", body)

    def _long(self, rng: random.Random, uid: str) -> Case:
        review = self.good(rng, uid)
        key = rng.choice(
            [
                contract.SKIP_CONTAINERS,
                contract.EXPIRATION,
                contract.INJECT_PROXY,
                contract.PREFIX + "x" * 5000,
            ]
        )
        value = rng.choice([";", " ", "0", "9", "a;", "\u2003", "-", "\x01"]) * rng.choice(
            [10, 1000, 300_000]
        )
        review["request"]["object"]["metadata"]["annotations"] = {key: value}
        return _posted("long", json.dumps(review).encode())

    def _framed(self, rng: random.Random, uid: str) -> Case:
        """HTTP that is right, though no API server speaks it so."""
        body = json.dumps(self.good(rng, uid)).encode()
        match rng.randrange(5):
            case 0:
                chunks = [body[at : at + 97] for at in range(0, len(body), 97)]
                sent = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
                return Case(
                    "chunked",
                    [_head(b"Transfer-Encoding: chunked"), sent + b"0\r\nTrailer: x\r\n\r\n"],
                    [body],
                )
            case 1:
                bodies = [
                    json.dumps(self.good(rng, f"{uid}/{number}")).encode()
                    for number in range(rng.randint(2, 12))
                ]
                return Case("pipelined", [b"".join(_head(length=len(one)) + one for one in bodies)], bodies)
            case 2:
                whole = _head(length=len(body)) + body
                cut = rng.randrange(1, len(whole))
                return Case("in pieces", [whole[:1], whole[1:cut], whole[cut:]], [body])
            case 3:
                kind = rng.choice(
                    [b"text/json", b"application/json; charset=utf-8", b"application/xml", b"\xff", b""]
                )
                return Case("content type", [_head(length=len(body), kind=kind) + body], [body])
            case _:
                method = rng.choice([b"GET", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
                path = rng.choice(
                    [
                        b"/",
                        b"/mutate-v1-pod/",
                        b"//mutate-v1-pod",
                        b"/%2e%2e/mutate-v1-pod",
                        b"/" + b"x" * 3000,
                    ]
                )
                return Case("elsewhere", [_head(length=len(body), method=method, path=path) + body], [body])

    def _rubbish(self, rng: random.Random, uid: str) -> Case:
        body = json.dumps(self.good(rng, uid)).encode()
        whole = _head(length=len(body)) + body
        broken = rng.choice(
            [
                rng.randbytes(rng.randint(1, 2000)),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"POST /mutate-v1-pod\r\n\r\n" + body,
                b"HEAD /mutate-v1-pod HTTP/1.1\r\nHost: x\r\n\r\n",
                whole[: rng.randrange(len(whole))],
                whole.replace(b"Content-Length: ", b"Content-Length: -"),
                whole.replace(b"Content-Length: ", b"Content-Length: 1, "),
                whole.replace(b"Content-Length: ", b"Content-Length: 99999999999999999999"),
                whole.replace(b"Content-Length: ", b"Content-Length: 5\r\nContent-Length: "),
                whole.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
                whole.replace(b"Host:", b"Host\x00:"),
                whole.replace(b"\r\n", b"\n"),
                whole.replace(b"Host:", b"Transfer-Encoding: gzip, x\r\nHost:"),
                whole.replace(b"Host:", b"Expect: 100-continue\r\nHost:"),
                whole.replace(b"Host:", b"Content-Encoding: gzip\r\nHost:"),
                whole.replace(b"Host:", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost:"),
                whole.replace(b"Host:", b"X: " + b"y" * 70_000 + b"\r\nHost:"),
                whole.replace(b"Host:", b"X: y\r\n" * 3000 + b"Host:"),
                _head(b"Transfer-Encoding: chunked") + b"-5\r\n" + body,
                _head(b"Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n" + body,
                _head(b"Transfer-Encoding: chunked") + b"5\r\n" + body,
                whole + rng.randbytes(50),
            ]
        )
        return Case("rubbish", [broken], None)

    def _no_tls(self, rng: random.Random, uid: str) -> Case:
        body = json.dumps(self.good(rng, uid)).encode()
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        sent = [
            _head(length=len(body)) + body,
            rng.randbytes(rng.randint(1, 600)),
            hello + rng.randbytes(rng.randint(0, 505)),
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"",
        ]
        return Case("no TLS", [rng.choice(sent)], None, tls=False)


_MAKERS: Final[Mapping[Callable[[Hostility, random.Random, str], Case], float]] = {
    Hostility._sane: 25,
    Hostility._grafted: 25,
    Hostility._confused: 10,
    Hostility._damaged: 14,
    Hostility._tree: 3,
    Hostility._large: 0.3,
    Hostility._many: 1.5,
    Hostility._long: 3,
    Hostility._framed: 10,
    Hostility._rubbish: 5.2,
    Hostility._no_tls: 3,
}
"""Who makes cases, and how many of a hundred."""


def fault_of(body: bytes, status: int, answer: bytes, hostility: Hostility) -> str:
    """Return what is wrong with the answer to a request of this body; "" when nothing is."""
    told = json.loads(answer)
    response = told["response"]
    if status not in STATUSES or told["kind"] != "AdmissionReview":
        return f"status {status} with {answer[:200]!r}"
    if not (response["allowed"] or response["status"]["message"]):
        return "refused without a reason"
    if status != 200:
        return "wired though it is no review" if "patch" in response else ""
    sent = _read(body)
    request = sent["request"]
    if (_mended(request["uid"]), sent["apiVersion"]) != (response["uid"], told["apiVersion"]):
        return "an answer to another review"
    return _misgiven(request, json.loads(b64decode(response.get("patch", "W10="))), hostility)


def _misgiven(request: Json, patch: Sequence[Json], hostility: Hostility) -> str:
    """Return what is wrong with the identity that a patch gives; "" when nothing is."""
    if not patch:
        return ""
    given = set(_client_ids(patch))
    name = (request["object"].get("spec") or {}).get("serviceAccountName") or "default"
    # Every namespace has a ServiceAccount `default`, here without annotations.
    clients = hostility.clients if request["namespace"] == hostility.namespace else {"default": ""}
    if name not in clients:
        return f"wired though there is no ServiceAccount {name!r}"
    return f"given {given} though it is {name}'s, {clients[name]!r}" if given - {clients[name]} else ""


def _client_ids(value: Any) -> Iterator[str]:
    """Yield the client ids that a patch gives to containers."""
    if isinstance(value, dict):
        if value.get("name") == contract.ENV_CLIENT_ID:
            yield value["value"]
        for inner in value.values():
            yield from _client_ids(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _client_ids(inner)


def _read(body: bytes) -> Any:
    return json.loads(body.removeprefix(b"\xef\xbb\xbf").decode())


def _mended(text: str) -> str:
    """Return a text as an API server would read it."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _posted(kind: str, body: bytes) -> Case:
    return Case(kind, [_head(length=len(body)) + body], [body])


def _head(
    *fields: bytes,
    length: int | None = None,
    kind: bytes = b"application/json",
    method: bytes = b"POST",
    path: bytes = PATH.encode() + b"?timeout=10s",
) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: 127.0.0.1", b"Content-Type: " + kind, *fields]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _container(rng: random.Random, name: str) -> Json:
    container: Json = {"name": name, "image": "x"}
    if rng.random() < 0.5:
        container["env"] = [
            {"name": "LEVEL", "value": "é🚀"},
            {"name": "FROM", "valueFrom": {"fieldRef": {}}},
        ]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return container


def _graft(rng: random.Random, tree: Json, value: object) -> None:
    """Put a value in a place of the tree where another one was, or under a key of its own."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys = (
            list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        )
        for key in keys:
            places.append((inner, key))
            walk(inner[key])

    walk(tree)
    parent, key = rng.choice(places)
    if isinstance(parent, dict) and rng.random() < 0.1:
        del parent[key]
        parent[rng.choice(["\ud800", "", "x" * 3000, "__proto__", "name"])] = value
    else:
        parent[key] = value


def _written(rng: random.Random, tree: Json) -> bytes:
    depth = rng.choice([10, 500, 5_000, 50_000])
    deep = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth])
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5 or "\\ud" in json.dumps(tree))
    return text.replace(f'"{_DEEP}"', deep).encode()


def _inserted(rng: random.Random, body: bytes, member: bytes) -> bytes:
    """Put a member into one of the objects of a document, before those that it has."""
    opened = [at for at, byte in enumerate(body) if byte == ord("{") and body[at + 1 : at + 2] != b"}"]
    at = rng.choice(opened) + 1
    return body[:at] + member + b"," + body[at:]
