"""`check` as its user has it: what it prints, where, its exit status, and what it does with few rights."""

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from socket import create_server
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web
from kubernetes.config import incluster_config

from testkit import loopback
from testkit.ailments import Patient, taking_away
from testkit.installation import CONFIGURATION
from workload_identity_operator import contract
from workload_identity_operator.__main__ import main
from workload_identity_operator.check import command, gathering

NO_SCHEME = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: c}}]
clusters: [{name: c, cluster: {server: "127.0.0.1:1"}}]
users: [{name: c, user: {}}]
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Done:
    """Run the command line in this process and return what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["workload-identity-operator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module is not installed."""
    start = (
        "from workload_identity_operator.__main__ import main; assert 'rich.table' not in sys.modules; main()"
    )
    program = f"import sys; sys.modules[{module!r}] = None; {start}"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def at(outside: Patient) -> str:
    """The flag that names the cluster whose operator is outside of it; nothing is wrong with it."""
    outside.becomes(set())
    return f"--kubeconfig={outside.plane.kubeconfig}"


def test_nothing_wrong(at: str) -> None:
    """Exit status 0, the table on stdout, progress on stderr."""
    done = run("check", at)

    assert (done.returncode, "Nothing wrong was found" in done.stdout) == (0, True), done
    assert "looking at the issuer" in done.stderr
    assert "whether Entra knows the tenant" in done.stdout, "not looked at, and said so"


@pytest.mark.parametrize("form", ["json", "yaml", "table"])
def test_something_wrong(outside: Patient, at: str, form: str) -> None:
    """Exit status 1, the same findings in each form."""
    with outside.place() as place:
        place.account("typo", {contract.PREFIX + "clientid": "x"})
        outside.becomes({("annotation-unknown", f"ServiceAccount {place.name}/typo")})
        done = run("check", at, "-q", "--offline", "-o", form)

    assert (done.returncode, done.stderr) == (1, "")
    if form == "table":
        assert "annotation-unknown" in done.stdout
        assert f"{place.name}/typo" in done.stdout
        assert "1 warning(s)" in done.stdout
        return
    told = (json.loads if form == "json" else yaml.safe_load)(done.stdout)
    (found,) = told["findings"]
    about = {"kind": "ServiceAccount", "namespace": place.name, "name": "typo"}
    assert (found["code"], found["severity"], found["object"]) == ("annotation-unknown", "warning", about)
    assert found["wanted"].startswith(contract.CLIENT_ID)
    assert "--offline says so" in [one["needs"] for one in told["notLookedAt"]]


@pytest.mark.parametrize("mended", [True, False])
def test_what_may_pass_is_looked_at_again(
    outside: Patient, at: str, monkeypatch: pytest.MonkeyPatch, *, mended: bool
) -> None:
    """After a change, operator and API servers need a moment: what is so for no longer is not told."""
    kind = "MutatingWebhookConfiguration"
    waited = list[float]()
    with ExitStack() as fault:
        fault.enter_context(taking_away(outside, last=True))
        outside.becomes({("wiring-not-in-force", f"{kind} {CONFIGURATION}")})

        def wait(seconds: float) -> None:
            waited.append(seconds)
            if mended:
                fault.close()
                outside.becomes(set())

        monkeypatch.setattr(command, "time", SimpleNamespace(sleep=wait))
        done = run("check", at)
    outside.becomes(set())

    assert waited == [command.LOOK_AGAIN]
    assert "once more" in done.stderr
    assert (done.returncode, "wiring-not-in-force" in done.stdout) == (int(not mended), not mended)


def test_one_pod(outside: Patient, at: str, tmp_path: Path) -> None:
    """The chain, and the federated credential as Azure's command line wants it; the token is nowhere.

    A pod that is named without its namespace is in that of the kubeconfig's context.
    """
    with outside.place() as place:
        place.pod()
        outside.becomes(set())
        shown = run("check", "pod", f"{place.name}/web", at)
        done = run("check", "pod", "web", "-n", place.name, at, "--output=json", "-q")
        kubeconfig = yaml.safe_load(outside.plane.kubeconfig.read_text())
        kubeconfig["contexts"][0]["context"]["namespace"] = place.name
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        bare = run("check", "pod", "web", f"--kubeconfig={tmp_path / 'kubeconfig'}", "-o", "json", "-q")

    assert (shown.returncode, done.returncode) == (0, 0), (shown, done)
    told = json.loads(done.stdout)
    assert json.loads(bare.stdout) == told
    assert {step["state"] for step in told["chain"]} == {"ok"}
    wanted = {
        "name": f"{place.name}-billing",
        "issuer": outside.plane.issuer,
        "subject": f"system:serviceaccount:{place.name}:billing",
        "audiences": ["api://AzureADTokenExchange"],
    }
    assert told["federatedCredential"] == wanted
    managed, application = (shlex.split(command) for command in told["commands"])
    assert managed[managed.index("--issuer") + 1] == wanted["issuer"]
    assert json.loads(application[-1]) == wanted
    assert " ".join(managed) in " ".join(shlex.split(shown.stdout.replace("'", "")))
    assert "eyJ" not in shown.stdout + shown.stderr + done.stdout, "how every token begins"


def test_one_pod_with_a_fault(outside: Patient, at: str) -> None:
    """Its own faults and its ServiceAccount's are told, other pods' are not."""
    with outside.place() as place, outside.place() as elsewhere:
        elsewhere.account("typo", {contract.PREFIX + "clientid": "x"})
        place.account("blank", {contract.CLIENT_ID: " "})
        place.pod(account="blank")
        done = run("check", "pod", f"{place.name}/web", at, "-o", "json")

    told = json.loads(done.stdout)
    assert [found["code"] for found in told["findings"]] == ["client-id-invalid"]
    assert [step["step"] for step in told["chain"] if step["state"] == "wrong"] == ["client id"]


def test_pod_that_is_not_there(at: str) -> None:
    """Exit status 2: there was nothing to look at."""
    done = run("check", "pod", "default/nobody", at)

    assert (done.returncode, "there is no pod default/nobody" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--kubeconfig=/none",), "/none is no file"),
        (("--context=none",), "none"),
        (("-o", "xml"), "xml"),
        (("pod", "a/b", "-n", "c"), "a/b is not in --namespace c"),
        (("pod", "a/b/c"), "'a/b/c' is no pod: wanted NAMESPACE/POD, or POD"),
        (("pod", "a/"), "'a/' is no pod"),
        (("-n", ".."), "--namespace: '..' is no namespace's name"),
    ],
)
def test_wrong_arguments(at: str, arguments: tuple[str, ...], told: str) -> None:
    """Exit status 2 and one line that says why."""
    given = arguments if "--kubeconfig=/none" in arguments else (*arguments, at)
    done = run("check", *given)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [b\nusers: [{user: {token: s3cr3t}}]", "is no YAML, see its line 2"),
        ("- users", "is no mapping with contexts"),
        ("", "is empty"),
        ("a: \x01", "is no text"),
        ("current-context: gone", "gone"),
        (NO_SCHEME, '"127.0.0.1:1": wanted https://HOST:PORT'),
    ],
)
def test_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    """Exit status 2 and one line that says why, with nothing of the file's secrets."""
    path = tmp_path / "kubeconfig"
    path.write_text(text)

    done = run("check", f"--kubeconfig={path}")

    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith("error: no cluster: ")) == (2, True), done
    assert told in line
    assert "s3cr3t" not in line


def test_as_a_pod_is(outside: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no kubeconfig, it is the pod's own ServiceAccount that looks, in its own namespace."""
    token = outside.plane.kubectl("create", "token", "default", "--namespace=default").strip()
    cluster = yaml.safe_load(outside.plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = Path(cluster["certificate-authority"]).read_bytes()
    for name, content in (("token", token.encode()), ("ca.crt", authority), ("namespace", b"billing")):
        (tmp_path / name).write_bytes(content)
    server = urlsplit(outside.plane.server)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", server.hostname or "")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(gathering, "_IN_POD", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))

    api = gathering.connect("", "")

    assert api.namespace == "billing"
    assert api.get("/version")["gitVersion"]


def test_nobody_answers(tmp_path: Path) -> None:
    """Exit status 2 where there is no API server."""
    path = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    user = {"name": "c", "user": {"token": "t"}}
    path.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"})
    )

    done = run("check", f"--kubeconfig={path}")

    assert (done.returncode, "no answer from https://127.0.0.1:1" in done.stderr) == (2, True), done


def test_time_is_the_api_servers(tmp_path: Path) -> None:
    """By its clock it judges certificates; the one of an administrator's machine may be wrong."""

    async def version(_: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)
        return web.json_response({"gitVersion": "v1.36.3"}, headers={"Date": date})

    application, path = web.Application(), tmp_path / "kubeconfig"
    application.router.add_get("/version", version)
    with loopback.listening("127.0.0.1", 0) as listener, loopback.serving(application, listener, None):
        cluster = {"name": "c", "cluster": {"server": loopback.address(listener, "http")}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
        whole = {"clusters": [cluster], "contexts": [context], "users": [], "current-context": "c"}
        path.write_text(json.dumps(whole), encoding="utf-8")
        api = gathering.connect(str(path), "")
        api.get("/version")

    assert round((api.now() - time.time()) / 3600) == 5


def test_whoever_interrupts_it_sees_no_traceback(tmp_path: Path) -> None:
    """The exit status is a shell's for that, and none of those that say something of the cluster."""
    path = tmp_path / "kubeconfig"
    with loopback.listening("127.0.0.1", 0) as silent:
        cluster = {"name": "c", "cluster": {"server": loopback.address(silent, "http")}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
        whole = {"clusters": [cluster], "contexts": [context], "users": [], "current-context": "c"}
        path.write_text(json.dumps(whole), encoding="utf-8")
        command = [sys.executable, "-m", "workload_identity_operator", "check", f"--kubeconfig={path}"]
        # As from a shell: what a script starts behind itself ignores it, and so does all that this starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            with silent.accept()[0]:
                child.send_signal(signal.SIGINT)
                _, told = child.communicate(timeout=60)
        finally:
            child.kill()

    assert (child.returncode, "Traceback" in told) == (130, False), told


def test_credentials_from_a_program(outside: Patient, at: str, tmp_path: Path) -> None:
    """Kubeconfigs are read as kubectl reads them, unlike the operator's own."""
    assert at
    kubeconfig = yaml.safe_load(outside.plane.kubeconfig.read_text())
    token = outside.plane.kubectl("create", "token", "default", "--namespace=default").strip()
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    (tmp_path / "answer").write_text(json.dumps(answer))
    program = {
        "apiVersion": answer["apiVersion"],
        "command": "cat",
        "args": [str(tmp_path / "answer")],
        "interactiveMode": "Never",
    }
    kubeconfig["users"].append({"name": "program", "user": {"exec": program}})
    cluster = kubeconfig["clusters"][0]["name"]
    kubeconfig["contexts"].append({"name": "second", "context": {"cluster": cluster, "user": "program"}})
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))

    done = run("check", f"--kubeconfig={path}", "--context=second", "-q")

    assert done.returncode == 2, "default/default may look at nothing"
    assert "needs list on serviceaccounts" in done.stderr
    assert token not in done.stdout + done.stderr


@pytest.fixture
def developer(outside: Patient, at: str) -> Iterator[tuple[str, str]]:
    """A namespace, and the flag for somebody who may only read in it."""
    assert at
    with outside.place() as place:
        plane, inside = outside.plane, f"--namespace={place.name}"
        verbs, resources = "--verb=get,list", "--resource=pods,serviceaccounts,deployments.apps"
        plane.kubectl("create", "role", "reader", verbs, resources, inside)
        place.account("developer")
        who = f"--serviceaccount={place.name}:developer"
        plane.kubectl("create", "rolebinding", "reader", "--role=reader", who, inside)
        place.account("blank", {contract.CLIENT_ID: " "})
        yield place.name, f"--kubeconfig={plane.kubeconfig_for('developer', place.name)}"


def test_few_rights(developer: tuple[str, str]) -> None:
    """What may be read is judged, what may not is named with the right that it needs, and nothing breaks."""
    namespace, kubeconfig = developer

    done = run("check", kubeconfig, "-n", namespace, "-o", "json", "-q")

    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert [found["code"] for found in told["findings"]] == ["client-id-invalid"]
    needs = {one["needs"] for one in told["notLookedAt"]}
    for right in (
        "needs list on mutatingwebhookconfigurations",
        f"needs list on statefulsets in namespace {namespace}",
        f"needs list on services in namespace {namespace}",
    ):
        assert right in needs, told["notLookedAt"]


def test_rights_in_one_namespace_only(developer: tuple[str, str]) -> None:
    """Without --namespace there is nothing that may be looked at, and the cure is told."""
    _, kubeconfig = developer

    done = run("check", kubeconfig, "-q")

    assert (done.returncode, "name one by --namespace" in done.stderr) == (2, True), done


def test_without_rich(outside: Patient, at: str) -> None:
    """The same in plain lines."""
    with outside.place() as place:
        place.account("typo", {contract.PREFIX + "clientid": "x"})
        done = run_without("rich", "check", at, "--offline", "--no-probe")

    assert (
        done.returncode,
        f"warning: annotation-unknown: ServiceAccount {place.name}/typo" in done.stdout,
    ) == (1, True)


def test_without_the_extra() -> None:
    """What to install is told; the operator itself needs neither."""
    done = run_without("kubernetes", "check")

    assert (done.returncode, "workload-identity-operator[check]" in done.stderr) == (2, True), done


def test_nothing_is_stored(outside: Patient, at: str) -> None:
    """Neither a pod nor anything else is there after a look."""
    assert at
    paths = ("/api/v1/pods", "/api/v1/secrets", "/api/v1/events", "/api/v1/configmaps")

    def stored() -> set[str]:
        return {one["metadata"]["uid"] for path in paths for one in outside.api.list(path)}

    before = stored()
    outside.look()

    # What was there may go meanwhile: other tests' namespaces are still being deleted.
    assert stored() - before == set()


def test_a_public_document_that_never_comes(outside: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes it may take for ever: the look does not."""
    monkeypatch.setattr(gathering, "PUBLIC_WITHIN", 1.0)
    assert outside.issuer is not None
    with closing(create_server(("127.0.0.1", 0))) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/keys"
        documents = outside.issuer.documents
        outside.issuer.documents = documents | {"discovery": documents["discovery"] | {"jwks_uri": url}}
        try:
            (found,) = [one for one in outside.look().findings if one.code == "issuer-unreachable"]
        finally:
            outside.issuer.documents = documents

    assert url in found.wanted
    assert "timed out" in found.found or "no answer within" in found.found
