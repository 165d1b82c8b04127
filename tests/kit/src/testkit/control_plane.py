"""A real Kubernetes control plane on loopback, ready in seconds and thrown away afterwards."""

import base64
import json
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property, partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Self

from kubernetes.client import (
    ApiClient,
    Configuration,
    CoreV1Api,
    V1Namespace,
    V1ObjectMeta,
    V1ServiceAccount,
)
from kubernetes.client.exceptions import ConflictException, NotFoundException
from kubernetes.config import load_kube_config
from urllib3.exceptions import HTTPError

from testkit import components
from testkit.binaries import Binary, provide
from testkit.folders import throwaway_folder
from testkit.pki import Party, certificate, write_kubeconfig, write_pki
from testkit.processes import Child, ProcessFailed, output_of, running
from testkit.resources import NotUnderstood, Refused, Resources

NAMED_KUBECONFIG = "TESTKIT_KUBECONFIG"
"""Environment variable: a kubeconfig whose cluster is used instead of one of our own."""
START_WITHIN = 60
"""Seconds; it takes 3 on two cores with nothing else to do."""
TOKEN_LIFETIME = 24 * 3600
"""Seconds that the credentials of `kubeconfig_for` last."""
PARTIES = {
    "server": Party(("127.0.0.1", "localhost")),
    "admin": Party(("admin",), "admin", "system:masters"),
    "controllers": Party(("controllers",), "system:kube-controller-manager"),
}


class ClusterUnusable(RuntimeError):  # noqa: N818 - it reads as what is wrong
    """The cluster named by TESTKIT_KUBECONFIG lacks what is asked for; the message says what."""


class ControlPlane:
    """etcd, kube-apiserver and, if wanted, kube-controller-manager, from entering the context to leaving it.

    There are no nodes: pods are admitted and stored, and never run (`testkit.kubelet` does for one of
    them what a kubelet would). Controllers that need nodes, volumes or a network are not there either
    (`components.CONTROLLERS` has those that are). Any number can run side by side.

    With TESTKIT_KUBECONFIG set, nothing is started and that kubeconfig's cluster is used as it is. What we
    would have set up is then its administrator's: extra arguments are refused, and anonymous callers see
    the issuer's discovery documents only where the cluster lets them.

    Attributes:
        folder: Its private folder: kubeconfigs, certificates, logs; for callers' files too.
        kubeconfig: That of an administrator.
        server: The API server's address, "https://127.0.0.1:41234".
        issuer: The `iss` of ServiceAccount tokens; ours is `server` unless `apiserver_args` name another.
        ca_file: The authorities that vouch for `server`, in PEM.
    """

    folder: Path
    kubeconfig: Path
    server: str
    issuer: str
    ca_file: Path

    _client: ApiClient

    def __init__(
        self,
        *,
        controllers: bool = False,
        apiserver_args: Sequence[str] = (),
        kubeconfig: Path | None = None,
        parts: Sequence[Child] = (),
    ) -> None:
        """Choose what is started, or what is used instead.

        Args:
            controllers: Whether kube-controller-manager runs.
            apiserver_args: What is added to kube-apiserver's command line.
            kubeconfig: Start nothing: use this kubeconfig's cluster.
            parts: The processes that cluster consists of, where they are ours.
        """
        self._controllers = controllers
        self._apiserver_args = tuple(apiserver_args)
        self._kubeconfig = kubeconfig or os.environ.get(NAMED_KUBECONFIG)
        self._open = ExitStack()
        self._children: list[Child] = list(parts)
        self._commands: dict[str, Sequence[str]] = {}
        self._ready: Callable[[], bool] = lambda: True

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = stack.enter_context(throwaway_folder())
            self.kubeconfig = self.folder / "kubeconfig"
            if self._kubeconfig:
                self._use(stack, Path(self._kubeconfig))
            else:
                self._start(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # What callers do with it.

    def kubectl(self, *args: str | Path, given: str | None = None) -> str:
        """Run kubectl as administrator and return what it wrote; `given` is its stdin.

        Raises:
            ProcessFailed: It failed, or a part of the control plane has ended.
        """
        return self._run("kubectl", *args, given=given)

    def get(self, *args: str) -> Any:
        """Return what `kubectl get` with these arguments finds, as JSON.

        Raises:
            ProcessFailed: There is no such thing, or a part of the control plane has ended.
        """
        self.check()
        with suppress(NotUnderstood, HTTPError):
            return self._resources.get(args)
        return json.loads(self.kubectl("get", *args, "--output=json"))

    def create(self, manifest: Mapping[str, Any], *args: str, namespace: str = "default") -> dict[str, Any]:
        """Create an object as `kubectl create` does with these arguments, and return it as stored.

        Raises:
            ProcessFailed: It is refused, or a part of the control plane has ended.
        """
        self.check()
        try:
            return self._resources.create(manifest, namespace, args)
        except (Refused, HTTPError) as refusal:
            raise ProcessFailed(f"{manifest.get('kind')} cannot be created: {refusal}") from None
        except NotUnderstood:
            words = (f"--namespace={namespace}", "create", "--filename=-", "--output=json", *args)
            stored: dict[str, Any] = json.loads(self.kubectl(*words, given=json.dumps(manifest)))
            return stored

    def helm(self, *args: str | Path, given: str | None = None) -> str:
        """Run helm as administrator, as `kubectl` does."""
        return self._run("helm", *args, given=given)

    @property
    def environment(self) -> dict[str, str]:
        """Our environment, but for kubectl and helm to find this control plane and nothing of the user's."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        return ours | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)]),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),
            "KUBERC": "off",  # the user's aliases and preferred flags
            "HELM_CACHE_HOME": str(self.folder / "helm" / "cache"),
            "HELM_CONFIG_HOME": str(self.folder / "helm" / "config"),
            "HELM_DATA_HOME": str(self.folder / "helm" / "data"),
        }

    @cached_property
    def _resources(self) -> Resources:
        return Resources(self._client, self.server)

    def client(self) -> ApiClient:
        """Return the administrator's client, the same for all callers; it is closed with us."""
        return self._client

    def create_namespace(self, name: str) -> None:
        """Create a namespace in which pods can be made at once, with or without controllers."""
        core = CoreV1Api(self._client)
        core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
        # Otherwise pods are refused until the controller has made their default ServiceAccount.
        with suppress(ConflictException):
            core.create_namespaced_service_account(
                name, V1ServiceAccount(metadata=V1ObjectMeta(name="default"))
            )

    def publish_discovery(self) -> None:
        """Let everybody see the issuer's keys: a token service asks for them without credentials."""
        role = "system:service-account-issuer-discovery"
        whom = [f"--clusterrole={role}", "--group=system:unauthenticated"]
        create = ("create", "clusterrolebinding", f"{role}:anonymous", *whom)
        # Applied: a cluster that is not ours may have it.
        self.kubectl(
            "apply", "--filename=-", given=self.kubectl(*create, "--dry-run=client", "--output=json")
        )

    def kubeconfig_for(self, service_account: str, namespace: str) -> Path:
        """Write a kubeconfig with a ServiceAccount's own token, good for a day, and return its path."""
        lifetime = f"--duration={TOKEN_LIFETIME}s"
        token = self.kubectl("create", "token", service_account, "--namespace", namespace, lifetime)
        path = self.folder / f"kubeconfig-{namespace}-{service_account}"
        write_kubeconfig(path, self.server, self.ca_file, {"token": token.strip()})
        return path

    def pid_of(self, program: str) -> int:
        """Return the process of a part of it, "kube-apiserver".

        Raises:
            ClusterUnusable: There is no such part, or the cluster is not one of our own.
        """
        for child in self._children:
            if child.name.startswith(program):
                return child.pid
        raise ClusterUnusable(
            f"What a {program} uses can only be read on its own machine, and only of one that we started: "
            f"unset {NAMED_KUBECONFIG}."
        )

    def kill(self, program: str) -> None:
        """Kill a part of it, "etcd", as a crash would; `start_again` brings it back with what it had stored.

        Raises:
            ClusterUnusable: There is no such part, or the cluster is not one of our own.
        """
        pid = self.pid_of(program)
        (child,) = (child for child in self._children if child.pid == pid)
        self._children.remove(child)
        child.end(0)

    def start_again(self, program: str) -> None:
        """Start a part anew that was killed, and wait until the API server is ready."""
        (name,) = (name for name in self._commands if name.startswith(program))
        child = self._run_child(self._open, self._commands[name])
        if any(running.name.startswith("kube-apiserver") for running in self._children):
            child.wait_until(self._ready, within=START_WITHIN)

    def ask_etcd(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what etcd's own HTTP gateway answers to a POST, "/v3/maintenance/alarm"."""
        with closing(_SocketConnection(self.folder / "etcd.sock")) as connection:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status != HTTPStatus.OK:
            raise ClusterUnusable(f"etcd answered {answer.status} to {path}: {text}")
        found: dict[str, Any] = json.loads(text)
        return found

    def check(self) -> None:
        """Raise ProcessFailed if a part of it has ended."""
        for child in self._children:
            child.check()

    def _run(self, program: str, *args: str | Path, given: str | None) -> str:
        self.check()
        return output_of([self.folder / "bin" / program, *args], env=self.environment, given=given)

    # How it comes to be.

    def _connect(self, stack: ExitStack, no_proxy: str | None = None) -> None:
        configuration = Configuration(no_proxy=no_proxy)
        # The one part of the official client that has no types.
        load_kube_config(str(self.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._client = stack.enter_context(ApiClient(configuration))

    def _start(self, stack: ExitStack) -> None:
        controllers = ("kube-controller-manager",) if self._controllers else ()
        binaries = provide(("etcd", "kube-apiserver", *controllers, "kubectl", "helm"))
        self._link(binaries)
        write_pki(self.folder / "pki", PARTIES)
        self.ca_file = self.folder / "pki" / "ca.crt"
        port = stack.enter_context(_reserved_port())
        self.server = f"https://127.0.0.1:{port}"
        self.issuer = components.issuer_among(self._apiserver_args) or self.server
        admin = certificate(self.folder / "pki", "admin")
        write_kubeconfig(self.kubeconfig, self.server, self.ca_file, admin)

        self._connect(stack, no_proxy="127.0.0.1")  # what HTTPS_PROXY names cannot reach our loopback

        self._run_child(stack, components.etcd(binaries["etcd"].path, self.folder))
        api_server = self._run_child(
            stack,
            components.api_server(binaries["kube-apiserver"].path, self.folder, port, self._apiserver_args),
        )
        tls = ssl.create_default_context(cafile=self.ca_file)
        tls.load_cert_chain(self.folder / "pki" / "admin.crt", self.folder / "pki" / "admin.key")
        self._ready = partial(answers_ready, port, tls)
        api_server.wait_until(self._ready, within=START_WITHIN)
        self.publish_discovery()
        if self._controllers:
            kubeconfig = self.folder / "kubeconfig-controllers"
            user = certificate(self.folder / "pki", "controllers")
            write_kubeconfig(kubeconfig, self.server, self.ca_file, user)
            program = binaries["kube-controller-manager"].path
            child = self._run_child(stack, components.controller_manager(program, self.folder, kubeconfig))
            child.wait_until(self._has_default_account, within=START_WITHIN)

    def _run_child(self, stack: ExitStack, command: Sequence[str]) -> Child:
        log = self.folder / f"{Path(command[0]).name}.log"
        # There is nothing to save, so they end at once.
        child = stack.enter_context(running(command, log=log, cwd=self.folder, grace=0))
        self._children.append(child)
        self._commands[child.name] = command
        return child

    def _link(self, binaries: Mapping[str, Binary]) -> None:
        """Have kubectl and helm in a folder under their own names, for PATH."""
        (self.folder / "bin").mkdir()
        for name in ("kubectl", "helm"):
            (self.folder / "bin" / name).symlink_to(binaries[name].path)

    def _has_default_account(self) -> bool:
        with suppress(NotFoundException):
            CoreV1Api(self._client).read_namespaced_service_account("default", "default")
            return True
        return False

    def _use(self, stack: ExitStack, named: Path) -> None:
        """Use the cluster of a kubeconfig's current context."""
        if self._apiserver_args:
            raise ClusterUnusable(
                f"{NAMED_KUBECONFIG} names a cluster that runs already, so its API server cannot be "
                f"given {' '.join(self._apiserver_args)}: unset it for this."
            )
        if not named.is_file():
            raise ClusterUnusable(f"{NAMED_KUBECONFIG} is {str(named)!r}, which is no file.")
        self._link(provide(("kubectl", "helm")))
        # A copy, so that nobody changes the user's: their current context least of all.
        shutil.copy(named, self.kubeconfig)
        flat = self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")
        self.kubeconfig.write_text(flat, encoding="utf-8")
        self._connect(stack)
        cluster = json.loads(flat)["clusters"][0]["cluster"]
        if not (authorities := cluster.get("certificate-authority-data")):
            raise ClusterUnusable(f"{named} names no certificate authority for {cluster['server']}: add it.")
        self.server = cluster["server"]
        self.ca_file = self.folder / "ca.crt"
        self.ca_file.write_bytes(base64.b64decode(authorities))
        self.issuer = json.loads(self.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"]


class _SocketConnection(HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a free port on loopback that nobody else gets meanwhile.

    Only who sets SO_REUSEPORT too, and is of our user, can listen on it; we ourselves never do.
    """
    with closing(socket.socket()) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def answers_ready(port: int, tls: ssl.SSLContext) -> bool:
    """Whether an API server on this port of loopback says that it is ready."""
    with closing(HTTPSConnection("127.0.0.1", port, context=tls, timeout=5)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
