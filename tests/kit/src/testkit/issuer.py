"""An issuer of service account tokens, for tests without a cluster.

It serves the two documents that Entra fetches, over TLS on loopback, and mints what a kube-apiserver would
project into a pod. It can rotate its keys, publish them late, and answer its documents wrongly.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import trustme
from aiohttp import web

from testkit import loopback
from testkit.folders import throwaway_folder
from testkit.signing import SigningKey

Document: TypeAlias = Literal["discovery", "keys"]


@dataclass(frozen=True, slots=True)
class _Wrong:
    status: int
    body: str
    headers: Mapping[str, str]


class Issuer:
    """A running issuer: a context manager around a server in a thread of its own.

    Attributes:
        url: What its tokens name as their issuer, byte for byte.
        ca_file: The authority behind its TLS certificate, a PEM file.
        key: The key that signs, from now on.
        published: The keys that the key set shows.
        fetched: Which documents were asked for so far, oldest first.
    """

    url: str
    ca_file: Path

    def __init__(self, *, path: str = "", key: SigningKey | None = None) -> None:
        """Prepare an issuer; `with` starts it.

        Args:
            path: What follows host and port in the issuer; AKS has "/<tenant>/<uuid>/", slash included.
            key: What signs its tokens; None: a new one.
        """
        self._path = path
        self._wrong: dict[Document, _Wrong] = {}
        self._running = ExitStack()
        self.key = key or SigningKey.generate()
        self.published: tuple[SigningKey, ...] = (self.key,)
        self.fetched: list[Document] = []

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            folder = starting.enter_context(throwaway_folder())
            listener = starting.enter_context(loopback.listening("127.0.0.1", 0))
            self.url = f"{loopback.address(listener)}{self._path}"
            ca = trustme.CA(organization_name="Issuer of service account tokens")
            self.ca_file = folder / "issuer-ca.pem"
            ca.cert_pem.write_to_path(self.ca_file)
            starting.enter_context(
                loopback.serving(self._application(), listener, loopback.server_tls(ca, "127.0.0.1"))
            )
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    def mint(
        self,
        *,
        namespace: str = "default",
        service_account: str = "default",
        audience: str = "api://AzureADTokenExchange",
        pod: str = "pod",
        lifetime: float = 3600,
        **claims: Any,
    ) -> str:
        """Return a token like those that a kubelet projects.

        Args:
            namespace: Of the ServiceAccount.
            service_account: Its name; both make the subject.
            audience: The token's only one.
            pod: Name of the pod that the token is bound to.
            lifetime: In seconds from now; negative: it is over already.
            claims: Instead of or beside those that a kube-apiserver states; None leaves one out.
        """
        now = int(time.time())
        stated: dict[str, Any] = {
            "iss": self.url,
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": int(now + lifetime),
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": pod, "uid": _uid(namespace, pod)},
                "serviceaccount": {"name": service_account, "uid": _uid(namespace, service_account)},
            },
        }
        merged = {**stated, **claims}
        return self.key.sign({name: value for name, value in merged.items() if value is not None})

    def rotate(self, *, publish: bool = True, keep: bool = True) -> None:
        """Sign with a new key from now on.

        Args:
            publish: Show it in the key set at once; otherwise `publish` does.
            keep: Go on showing the old ones.
        """
        self.key = SigningKey.generate()
        self.published = self.published if keep else ()
        if publish:
            self.publish()

    def publish(self) -> None:
        """Show the signing key in the key set."""
        if self.key not in self.published:
            self.published = (*self.published, self.key)

    @contextmanager
    def answering(
        self, document: Document, body: str, *, status: int = 200, location: str | None = None
    ) -> Iterator[None]:
        """Answer something else for one of the documents until the block ends; `location` is a redirect's."""
        self._wrong[document] = _Wrong(status, body, {} if location is None else {"Location": location})
        try:
            yield
        finally:
            del self._wrong[document]

    def discovery(self) -> Mapping[str, Any]:
        """Return the discovery document, as a kube-apiserver writes it."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url.rstrip('/')}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def keys(self) -> Mapping[str, Any]:
        """Return the key set."""
        return {"keys": [key.published() for key in self.published]}

    def _application(self) -> web.Application:
        async def discovery(request: web.Request) -> web.Response:
            del request
            return self._answer("discovery", self.discovery(), "application/json")

        async def keys(request: web.Request) -> web.Response:
            del request
            return self._answer("keys", self.keys(), "application/jwk-set+json")

        base = self._path.rstrip("/")
        application = web.Application()
        application.add_routes(
            [
                web.get(f"{base}/.well-known/openid-configuration", discovery),
                web.get(f"{base}/openid/v1/jwks", keys),
            ]
        )
        return application

    def _answer(self, document: Document, right: Mapping[str, Any], content_type: str) -> web.Response:
        self.fetched.append(document)
        wrong = self._wrong.get(document)
        if wrong is not None:
            return web.Response(
                status=wrong.status, text=wrong.body, headers=wrong.headers, content_type=content_type
            )
        return web.Response(text=json.dumps(right), content_type=content_type)


def _uid(*names: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "/".join(names)))
