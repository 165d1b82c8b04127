"""Credentials that run `az`, `azd` and PowerShell: how these are run, and what their outputs mean."""

import asyncio
import base64
import json
import logging
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import workload_identity
import workload_identity.aio
from workload_identity import ClientAuthenticationError, CredentialUnavailableError

Family = Any
Toolbox = Any
SCOPE = "https://vault.azure.net/.default"
TENANT = "11111111-2222-3333-4444-555555555555"
SECRET = "opaque-" + "s3cr3t" * 20
"""As long as a token, and of no shape that tells it for one."""
ENDS = 2_000_000_000
AZ = {"accessToken": SECRET, "expires_on": ENDS, "tokenType": "Bearer"}
AZD = {"token": SECRET, "expiresOn": "2033-05-18T03:33:20Z"}
PWSH = f"WARNING: a banner\n\nazsdk%{SECRET}%{ENDS}\n\n"
TOOLS = {
    "az": ("AzureCliCredential", json.dumps(AZ)),
    "azd": ("AzureDeveloperCliCredential", json.dumps(AZD)),
    "pwsh": ("AzurePowerShellCredential", PWSH),
}
tool = pytest.mark.parametrize("name", list(TOOLS))


def make(family: Family, name: str, **given: Any) -> Any:
    """Return a credential that runs a tool."""
    return getattr(family.module, TOOLS[name][0])(**given)


def refused(family: Family, credential: Any, *scopes: str, **options: Any) -> ClientAuthenticationError:
    """Return what a credential raises; it never shows the secret."""
    with pytest.raises(ClientAuthenticationError) as failure:
        family.do(credential.get_token, *(scopes or (SCOPE,)), **options)
    assert SECRET not in str(failure.value)
    return failure.value


def unavailable(failure: ClientAuthenticationError) -> bool:
    """Tell which of the two kinds of failure it is."""
    return isinstance(failure, CredentialUnavailableError)


@tool
def test_gives_a_token(family: Family, toolbox: Toolbox, name: str) -> None:
    """The tool's token and its end come out of both methods."""
    toolbox.put_answer(name, TOOLS[name][1])
    credential = make(family, name)

    assert family.do(credential.get_token, SCOPE) == (SECRET, ENDS)
    info = family.do(credential.get_token_info, SCOPE)
    assert (info.token, info.expires_on, info.token_type) == (SECRET, ENDS, "Bearer")


@tool
def test_how_it_is_run(family: Family, toolbox: Toolbox, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the system, without input, with the caller's environment and no colours."""
    toolbox.put_answer(name, TOOLS[name][1])
    monkeypatch.setenv("SOME_SETTING", "of the caller")
    family.do(make(family, name).get_token, SCOPE)

    (run,) = toolbox.runs(name)
    assert Path(run["folder"]).samefile("/bin")
    assert run["input"] == ""
    assert run["environment"]["SOME_SETTING"] == "of the caller"
    colours = {"az": "AZURE_CORE_NO_COLOR", "azd": "NO_COLOR"}.get(name)
    assert colours is None or run["environment"][colours] == "true"


def test_command_line_of_az(family: Family, toolbox: Toolbox) -> None:
    """Resource, tenant and subscription, in this order; what is not given is not there."""
    toolbox.put_answer("az", TOOLS["az"][1])
    family.do(make(family, "az").get_token, SCOPE)
    family.do(
        make(family, "az", subscription="My Subscription_1").get_token,
        "https://x//.default",
        tenant_id=TENANT,
    )

    common = ["account", "get-access-token", "--output", "json", "--resource"]
    assert sorted(run["arguments"] for run in toolbox.runs("az")) == [
        [*common, "https://vault.azure.net"],
        [*common, "https://x/", "--tenant", TENANT, "--subscription", "My Subscription_1"],
    ]


def test_command_line_of_azd(family: Family, toolbox: Toolbox) -> None:
    """Every scope, tenant and claims."""
    toolbox.put_answer("azd", TOOLS["azd"][1])
    credential = make(family, "azd", tenant_id=TENANT)
    family.do(credential.get_token, SCOPE, "b", claims='{"a": "ü"}')

    (run,) = toolbox.runs("azd")
    claims = base64.b64encode('{"a": "ü"}'.encode()).decode()
    scopes = ["--scope", SCOPE, "--scope", "b"]
    begins = ["auth", "token", "--output", "json", "--no-prompt"]
    assert run["arguments"] == [*begins, *scopes, "--tenant-id", TENANT, "--claims", claims]


def test_command_line_of_powershell(family: Family, toolbox: Toolbox) -> None:
    """One encoded command, which names resource and tenant."""
    toolbox.put_answer("pwsh", PWSH)
    family.do(make(family, "pwsh").get_token, SCOPE, tenant_id=TENANT)

    (run,) = toolbox.runs("pwsh")
    assert run["arguments"][:3] == ["-NoProfile", "-NonInteractive", "-EncodedCommand"]
    script = base64.b64decode(run["arguments"][3]).decode("utf-16-le")
    assert "ResourceUrl = 'https://vault.azure.net'" in script
    assert f"TenantId = '{TENANT}'" in script
    assert len(run["arguments"]) == 4


@tool
def test_not_there(family: Family, toolbox: Toolbox, name: str) -> None:
    """Without the tool on the PATH nothing can be tried; the message says what to install and to run."""
    failure = refused(family, make(family, name))

    assert unavailable(failure)
    assert f"({name} on PATH)" in str(failure)
    assert toolbox.folder


@tool
def test_folder_of_the_program(
    family: Family, toolbox: Toolbox, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool in the working directory is not run, though the PATH names that."""
    toolbox.put_answer(name, TOOLS[name][1])
    monkeypatch.chdir(toolbox.folder)
    monkeypatch.setenv("PATH", ".:")

    assert unavailable(refused(family, make(family, name)))
    assert toolbox.runs(name) == []


@tool
def test_cannot_be_started(family: Family, toolbox: Toolbox, name: str) -> None:
    """A program that the system will not start is told with its path."""
    program = toolbox.folder / name
    program.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    program.chmod(0o755)

    failure = refused(family, make(family, name))

    assert unavailable(failure)
    assert str(program) in str(failure)


@pytest.mark.parametrize(
    "output",
    [
        f'{{"expires_on": {ENDS}, "accessToken": "{SECRET}"}}',
        f'{{"expires_on": "{ENDS}", "accessToken": "{SECRET}"}}',
        f'{{"expiresOn": "2033-05-18T03:33:20Z", "accessToken": "{SECRET}"}}',
        f'{{"expires_on": null, "expiresOn": "2033-05-18 03:33:20.999999Z", "accessToken": "{SECRET}"}}',
        f'\ufeffWARNING: {{not JSON}} [1]\n{{"a": 1}} {{"accessToken":"{SECRET}","expires_on":{ENDS}}} {{',
    ],
    ids=["number", "text", "UTC", "null", "text around"],
)
def test_outputs_of_az(family: Family, toolbox: Toolbox, output: str) -> None:
    """Every form of the end, a byte order mark, and text around the JSON."""
    toolbox.put_answer("az", output)

    assert family.do(make(family, "az").get_token, SCOPE) == (SECRET, ENDS)


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
@pytest.mark.parametrize("text", ["2033-01-18 03:33:20.000000", "2033-01-18 03:33:20", "2033-01-18T03:33:20"])
def test_local_time_of_az(
    family: Family, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, zone: str, text: str
) -> None:
    """An older one tells the end by the clock on the wall."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        toolbox.put_answer("az", json.dumps({"accessToken": SECRET, "expiresOn": text}))
        ends = family.do(make(family, "az").get_token, SCOPE).expires_on
        assert ends == int(datetime(2033, 1, 18, 3, 33, 20).astimezone().timestamp())
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["2033-05-18T03:33:20Z", "2033-05-18T03:33:20.1234567Z", "2033-05-18T03:33:20"]
)
def test_time_of_azd(family: Family, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It is UTC, wherever this machine stands."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        toolbox.put_answer("azd", "a banner\n" + json.dumps({**AZD, "expiresOn": text}))
        ends = family.do(make(family, "azd").get_token, SCOPE).expires_on
        assert ends == datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00\x00",
    b"{" * 100_000,
    b'{"a":' * 5000,
    b"<html>no</html>",
    json.dumps({"accessToken": SECRET, "token": SECRET}).encode(),
    json.dumps({"accessToken": [SECRET], "token": [SECRET], "expires_on": ENDS, "expiresOn": "x"}).encode(),
    json.dumps({"accessToken": SECRET, "token": SECRET, "expires_on": True, "expiresOn": 5}).encode(),
    json.dumps({"accessToken": SECRET, "token": SECRET, "expires_on": "soon", "expiresOn": "soon"}).encode(),
    json.dumps({"accessToken": "", "token": "", "expires_on": ENDS, "expiresOn": AZD["expiresOn"]}).encode(),
    json.dumps(
        {"accessToken": "a b", "token": "a\nb", "expires_on": ENDS, "expiresOn": AZD["expiresOn"]}
    ).encode(),
    b'{"accessToken" : "%s", "token" :"%s"' % (SECRET.encode(), SECRET.encode()),
    b'{"accessToken":\n"%s", "expires_on": 1e400}' % SECRET.encode(),
    b'{"accessToken": "%s", "expires_on": 99999999999999}' % SECRET.encode(),
    b'{"accessToken": "%s", "expiresOn": "2033-13-45 99:99:99.0"}' % SECRET.encode(),
    b"azsdk%%%s" % SECRET.encode(),
    b"azsdk%%%s%%%d%%more" % (SECRET.encode(), ENDS),
    b"azsdk%%%s%%soon" % SECRET.encode(),
    b"azsdk%%%d" % ENDS,
    b"azsdk%%a%s\n" % SECRET.encode(),
]


@tool
@pytest.mark.parametrize("output", HOSTILE, ids=range(len(HOSTILE)))
def test_anything_else(family: Family, toolbox: Toolbox, name: str, output: bytes) -> None:
    """A tool that ends well and gives no token has failed; nothing of a token is quoted."""
    toolbox.put_answer(name, output)

    failure = refused(family, make(family, name))

    assert not unavailable(failure)
    assert "unexpected output" in str(failure)
    assert len(str(failure)) < 600


@pytest.mark.parametrize(
    ("name", "stdout", "stderr", "status", "is_unavailable", "words"),
    [
        ("az", "", "sh: az: not found", 127, True, "was not found"),
        ("az", "", "'az' is not recognized as a command", 1, True, "was not found"),
        ("az", "", "ERROR: Please run 'az login' to setup account.", 1, True, "nobody is signed in"),
        ("az", "", "ERROR: run az account set", 1, True, "nobody is signed in"),
        ("az", "", "ERROR: AADSTS70043: expired. Run az login", 1, False, "AADSTS70043: expired"),
        ("az", "", "ERROR: something", 3, False, "ended with status 3: ERROR: something"),
        ("az", "", "", 2, False, "ended with status 2: it wrote nothing"),
        ("az", "", f'{{"accessToken": "{SECRET}"}}', 1, False, "status 1"),
        ("azd", "", "sh: azd: not found", 127, True, "was not found"),
        ("azd", "", "'azd' is not recognized", 1, True, "was not found"),
        ("azd", "", "ERROR: not logged in, run `azd auth login` to login", 1, True, "nobody is signed in"),
        ("azd", "not logged in, run `azd auth login` to login", "", 1, True, "nobody is signed in"),
        ("azd", "", "AADSTS1: not logged in, run `azd auth login` to login", 1, False, "AADSTS1"),
        ("azd", "", "ERROR: unknown flag: --claims", 1, True, "1.18.1"),
        ("azd", '{"error": "the first", "message": "no"}', '{"error": "no"}', 1, False, "CLI: the first"),
        (
            "azd",
            "no JSON\n[]\n3",
            '{"data": {"message": ""}}\n{"error": " the second "}',
            1,
            False,
            "the second",
        ),
        ("azd", '{"data": {"message": "older"}}\n{"data": {"message": "no"}}', "", 1, False, "CLI: older"),
        ("azd", '{"data": {"message": "older"}}\n{"error": "newer"}', "", 1, False, "CLI: newer"),
        ("azd", '{"message": "a root message"}', "plain words", 1, False, "status 1: plain words"),
        ("azd", '{"error": 5, "data": 7}', "", 4, False, "status 4: it wrote nothing"),
        ("azd", '{"error": "while ending well"}', "", 0, False, "CLI: while ending well"),
        ("pwsh", "NO_AZ_ACCOUNT_MODULE", "", 0, True, "Az.Accounts"),
        ("pwsh", "", "sh: pwsh: not found", 127, True, "was not found"),
        ("pwsh", "", "'pwsh' is not recognized", 9009, True, "was not found"),
        ("pwsh", "", "Run Connect-AzAccount to login.", 1, True, "nobody is signed in"),
        ("pwsh", "", "AuthorizationManager check failed.", 1, True, "execution policy"),
        ("pwsh", "", f"the long story of {SECRET}", 1, True, "ended with status 1"),
    ],
)
def test_outputs(
    family: Family,
    toolbox: Toolbox,
    name: str,
    stdout: str,
    stderr: str,
    status: int,
    is_unavailable: bool,
    words: str,
) -> None:
    """What each way to end means: whether a chain goes on, and what a person reads."""
    toolbox.put_answer(name, stdout, stderr, status % 256)

    failure = refused(family, make(family, name))

    assert unavailable(failure) is is_unavailable
    assert words in str(failure)


def test_powershells_complaint_is_logged(
    family: Family, toolbox: Toolbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It is too long for an error: it goes to the DEBUG log, without what may be a token."""
    caplog.set_level(logging.DEBUG, "workload_identity")
    toolbox.put_answer("pwsh", "", f"the long story of {SECRET}", 1)

    assert "long story" not in str(refused(family, make(family, "pwsh")))
    assert [r.levelname for r in caplog.records if "the long story of ***" in r.getMessage()] == ["DEBUG"]
    assert SECRET not in caplog.text


def test_claims(family: Family, toolbox: Toolbox) -> None:
    """`az` and PowerShell cannot meet a challenge: the message has the command that can, nothing is run."""
    for name in TOOLS:
        toolbox.put_answer(name, TOOLS[name][1])
    claims = '{"access_token": {"nbf": {"essential": true}}}'
    encoded = base64.b64encode(claims.encode()).decode()

    failure = refused(family, make(family, "az"), claims=claims, tenant_id=TENANT)
    assert unavailable(failure)
    assert f"az login --claims-challenge {encoded} --tenant {TENANT} --scope {SCOPE}`" in str(failure)
    failure = refused(family, make(family, "az", tenant_id=TENANT), claims=claims)
    assert f"az login --claims-challenge {encoded} --scope {SCOPE}`" in str(failure)
    failure = refused(family, make(family, "pwsh"), claims=claims, tenant_id=TENANT)
    assert unavailable(failure)
    assert f"Connect-AzAccount -ClaimsChallenge {encoded} -Tenant {TENANT}`" in str(failure)
    assert toolbox.runs("az") == toolbox.runs("pwsh") == []


@tool
def test_continuous_access_evaluation_is_no_claim(family: Family, toolbox: Toolbox, name: str) -> None:
    """Azure's clients ask with `enable_cae`: no tool knows of it, so it changes nothing."""
    toolbox.put_answer(name, TOOLS[name][1])
    credential = make(family, name)

    assert family.do(credential.get_token, SCOPE, enable_cae=True).token == SECRET
    assert family.do(credential.get_token_info, SCOPE, options={"enable_cae": True}).token == SECRET
    (run, again) = toolbox.runs(name)
    assert run["arguments"] == again["arguments"]
    assert "--claims" not in run["arguments"]


@tool
@pytest.mark.parametrize(
    "scopes", [("a b",), ("a;b",), ("$(a)",), ("a'b",), ("ä",), ("--debug",), ("",), ()], ids=str
)
def test_scopes_that_cannot_be(family: Family, toolbox: Toolbox, name: str, scopes: tuple[str, ...]) -> None:
    """What a shell could take for something else never comes to a command line."""
    toolbox.put_answer(name, TOOLS[name][1])

    with pytest.raises(ValueError, match="scope"):
        family.do(make(family, name).get_token, *scopes)
    assert toolbox.runs(name) == []


@pytest.mark.parametrize("name", ["az", "pwsh"])
@pytest.mark.parametrize("scopes", [(SCOPE, "b"), ("/.default",)])
def test_one_resource(family: Family, toolbox: Toolbox, name: str, scopes: tuple[str, ...]) -> None:
    """These tools know one resource at a time."""
    toolbox.put_answer(name, TOOLS[name][1])

    with pytest.raises(ValueError, match="one scope of one resource"):
        family.do(make(family, name).get_token, *scopes)


@tool
def test_tenants(family: Family, toolbox: Toolbox, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one configured any may be asked for; with one, what is allowed; letters are checked."""
    toolbox.put_answer(name, TOOLS[name][1])
    with pytest.raises(ValueError, match="tenant id"):
        make(family, name, tenant_id="a/b")
    with pytest.raises(ValueError, match="tenant id"):
        family.do(make(family, name).get_token, SCOPE, tenant_id="a'b")
    assert "additionally_allowed_tenants" in str(
        refused(family, make(family, name, tenant_id=TENANT), tenant_id="another")
    )
    assert toolbox.runs(name) == []

    allowing = make(family, name, tenant_id=TENANT, additionally_allowed_tenants=["Another"])
    assert family.do(allowing.get_token, SCOPE, tenant_id="another").token == SECRET
    monkeypatch.setenv("AZURE_IDENTITY_DISABLE_MULTITENANTAUTH", "1")
    assert family.do(make(family, name).get_token, SCOPE, tenant_id="another").token == SECRET
    runs = sorted(" ".join(run["arguments"]) for run in toolbox.runs(name))
    if name != "pwsh":
        assert ["another" in run for run in runs] == [False, True]


@pytest.mark.parametrize("subscription", ["a;b", "a'b", "ä", "a\nb", "--debug", "a&b"])
def test_subscriptions(family: Family, subscription: str) -> None:
    """Likewise."""
    with pytest.raises(ValueError, match="subscription"):
        make(family, "az", subscription=subscription)


def test_options(family: Family) -> None:
    """Unknown ones are warned of, seconds are checked, `repr` and pickling work."""
    with pytest.warns(UserWarning, match="did you mean 'process_timeout'"):
        make(family, "az", proces_timeout=3)
    with pytest.raises(ValueError, match="process_timeout"):
        make(family, "azd", process_timeout=-1)
    credential = make(family, "az", tenant_id=TENANT, subscription="mine")

    assert repr(credential) == f"<AzureCliCredential tenant_id={TENANT!r}>"
    assert pickle.loads(pickle.dumps(credential))._subscription == "mine"  # noqa: S301 - our own


HANGING = """
sleep 600 &
echo $! > {folder}/child
echo {secret}
sleep 600
"""


def gone(folder: Path) -> bool:
    """Tell whether the child of a hanging tool has ended."""
    child = int((folder / "child").read_text())
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(child, 0)
        state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state == "Z"  # of a parent that does not look after it
    return True


@tool
def test_takes_too_long(family: Family, toolbox: Toolbox, name: str) -> None:
    """It is ended after its time, with all that it started; nothing can be tried."""
    toolbox.put(name, HANGING.format(folder=toolbox.folder, secret=SECRET))

    failure = refused(family, make(family, name, process_timeout=1))

    assert unavailable(failure)
    assert "within 1 s" in str(failure)
    family.until(lambda: gone(toolbox.folder))
    assert gone(toolbox.folder)


def test_somebody_else_waits_longer(toolbox: Toolbox) -> None:
    """Who has less time than the thread that runs the tool is told what he would be if he ran it: go on."""
    toolbox.put("az", HANGING.format(folder=toolbox.folder, secret=SECRET))
    child = toolbox.folder / "child"
    patient = workload_identity.AzureCliCredential(process_timeout=6)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(patient.get_token, SCOPE)
        while not (child.exists() and child.read_text().endswith("\n")) and not first.done():
            time.sleep(0.01)
        with pytest.raises(CredentialUnavailableError, match="another thread or event loop is asking"):
            workload_identity.AzureCliCredential(process_timeout=0.1).get_token(SCOPE)

    assert isinstance(first.exception(), CredentialUnavailableError)


@tool
async def test_cancelling_ends_the_tool(toolbox: Toolbox, name: str) -> None:
    """Who gives up leaves no process behind."""
    toolbox.put(name, HANGING.format(folder=toolbox.folder, secret=SECRET))
    credential = getattr(workload_identity.aio, TOOLS[name][0])()
    task = asyncio.create_task(credential.get_token(SCOPE))
    child = toolbox.folder / "child"
    async with asyncio.timeout(30):
        while not (child.exists() and child.read_text().endswith("\n")):  # noqa: ASYNC110 - a file is no event
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = time.monotonic() + 10
    while not gone(toolbox.folder) and time.monotonic() < end:  # noqa: ASYNC110 - nor is a process
        await asyncio.sleep(0.01)

    assert gone(toolbox.folder)


def test_what_it_leaves_running(family: Family, toolbox: Toolbox) -> None:
    """A tool that is done has given its answer, though a process of its own still holds its output open."""
    body = "sleep 600 & echo $! > {folder}/child; echo '{answer}'; exit 0"
    toolbox.put("az", body.format(folder=toolbox.folder, answer=TOOLS["az"][1]))

    assert family.do(make(family, "az", process_timeout=2).get_token, SCOPE).token == SECRET
    os.kill(int((toolbox.folder / "child").read_text()), signal.SIGKILL)


@tool
def test_large_outputs(family: Family, toolbox: Toolbox, name: str) -> None:
    """Megabytes on both sides do not block it, and do not get into the message."""
    noise = "x " * 500_000
    toolbox.put_answer(name, TOOLS[name][1] + "\n" + noise, noise, 0)
    assert family.do(make(family, name).get_token, SCOPE).token == SECRET

    toolbox.put_answer(name, noise, noise, 1)
    assert len(str(refused(family, make(family, name)))) < 5000


@tool
def test_one_process_for_many(family: Family, toolbox: Toolbox, name: str) -> None:
    """Calls at the same time, of many instances, run one; for another tenant it is another one."""
    toolbox.put_answer(name, TOOLS[name][1])
    slow = (toolbox.folder / name).read_text().replace("cat > $run/input", "cat > $run/input; sleep 0.5")
    (toolbox.folder / name).write_text(slow)
    credentials = [make(family, name, process_timeout=10 + number) for number in range(10)]
    results = family.together(
        [
            lambda credential=credential, tenant=tenant: credential.get_token(SCOPE, tenant_id=tenant)
            for credential in credentials
            for tenant in (None, TENANT)
        ]
    )

    assert {result.token for result in results} == {SECRET}
    assert len(toolbox.runs(name)) == 2


@tool
def test_nothing_is_held_unless_asked_for(family: Family, toolbox: Toolbox, name: str) -> None:
    """Each call runs the tool; with `cache_tokens` the first does."""
    toolbox.put_answer(name, TOOLS[name][1])
    for credential in (make(family, name), make(family, name)):
        family.do(credential.get_token, SCOPE)
    assert len(toolbox.runs(name)) == 2

    toolbox.put_answer(name, TOOLS[name][1].replace(SECRET, "another"))
    holding = make(family, name, cache_tokens=True, tenant_id=TENANT)
    for _ in range(3):
        assert family.do(holding.get_token, SCOPE).token == "another"
        assert family.do(holding.get_token, SCOPE, enable_cae=True).token == "another"
    assert len(toolbox.runs(name)) == 3


@tool
def test_token_provider_holds_it(family: Family, toolbox: Toolbox, name: str) -> None:
    """A bearer token provider does not run the tool for each request."""
    toolbox.put_answer(name, TOOLS[name][1])
    provider = family.module.get_bearer_token_provider(make(family, name), SCOPE)

    assert [family.do(provider) for _ in range(3)] == [SECRET] * 3
    assert len(toolbox.runs(name)) == 1


@tool
def test_records(family: Family, toolbox: Toolbox, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A token is told of, and never shown."""
    caplog.set_level(logging.DEBUG)
    toolbox.put_answer(name, TOOLS[name][1])
    family.do(make(family, name).get_token, SCOPE)

    assert f"{TOOLS[name][0]} for {SCOPE}: got a token in" in caplog.text
    assert SECRET not in caplog.text


def test_placeholder(family: Family) -> None:
    """Visual Studio Code is never available, and takes azure-identity's keywords."""
    credential = family.module.VisualStudioCodeCredential(
        tenant_id=TENANT, additionally_allowed_tenants=["*"], connection_timeout=3
    )

    failure = refused(family, credential)

    assert unavailable(failure)
    assert "az login" in str(failure)
    assert family.enter(credential) is credential
    with pytest.warns(UserWarning, match="did you mean 'tenant_id'"):
        family.module.VisualStudioCodeCredential(tenant="x")
