"""Tools and chains beside azure-identity's, on the same programs; each difference has its reason."""

import base64
import json
from typing import Any

import azure.core.exceptions
import azure.identity
import azure.identity.aio
import pytest

import workload_identity
from workload_identity import AccessToken

Family = Any
Toolbox = Any
SCOPE = "https://vault.azure.net/.default"
TENANT = "11111111-2222-3333-4444-555555555555"
ENDS = 2_000_000_000
AZ = "AzureCliCredential"
AZD = "AzureDeveloperCliCredential"
PWSH = "AzurePowerShellCredential"
PROGRAM = {AZ: "az", AZD: "azd", PWSH: "pwsh"}
GOOD = {
    AZ: json.dumps({"accessToken": "a", "expires_on": ENDS}),
    AZD: json.dumps({"token": "a", "expiresOn": "2033-05-18T03:33:20Z"}),
    PWSH: f"azsdk%a%{ENDS}",
}


def theirs_of(family: Family) -> Any:
    """Return azure-identity's module of the same family."""
    return azure.identity if family.module is workload_identity else azure.identity.aio


def outcome(family: Family, credential: Any, *scopes: str, **options: Any) -> str:
    """Return what a credential does, in one word."""
    try:
        token = family.do(credential.get_token, *scopes, **options)
    except azure.identity.CredentialUnavailableError:
        return "unavailable"
    except azure.core.exceptions.ClientAuthenticationError:
        return "failed"
    except Exception as failure:  # noqa: BLE001 - what they let through is what is looked at
        return type(failure).__name__
    return f"{token.token} {token.expires_on}"


@pytest.mark.parametrize("name", list(PROGRAM))
@pytest.mark.parametrize(
    ("constructor", "options"),
    [
        ({}, {}),
        ({"tenant_id": TENANT}, {}),
        ({}, {"tenant_id": TENANT}),
        ({"tenant_id": TENANT, "additionally_allowed_tenants": ["*"]}, {"tenant_id": "another"}),
        ({"subscription": "My one"}, {}),
        ({}, {"claims": '{"access_token": {}}'}),
        ({}, {"enable_cae": True}),
    ],
    ids=str,
)
def test_command_lines(
    family: Family, toolbox: Toolbox, name: str, constructor: dict[str, Any], options: dict[str, Any]
) -> None:
    """The same program is run with the same arguments in the same folder, or neither runs it."""
    if "subscription" in constructor and name != AZ:
        constructor = {}  # no other tool knows them
    program = PROGRAM[name]
    toolbox.put_answer(program, GOOD[name])
    outcomes = [
        outcome(family, getattr(module, name)(**constructor), SCOPE, **options)
        for module in (theirs_of(family), family.module)
    ]

    runs = toolbox.runs(program)
    shown = [
        (run["arguments"], run["folder"], run["input"], run["environment"].get("AZURE_CORE_NO_COLOR"))
        for run in runs
    ]
    if name == PWSH:
        # The script is our own; what it asks for is the same.
        scripts = [base64.b64decode(run["arguments"].pop()).decode("utf-16-le") for run in runs]
        assert all("'https://vault.azure.net'" in script for script in scripts)
        tenant = options.get("tenant_id") or constructor.get("tenant_id")
        assert all((f"'{tenant}'" in script) is bool(tenant) for script in scripts)
    if runs:
        assert shown[0] == shown[1]
    assert outcomes[0] == outcomes[1]
    assert len(runs) == (0 if outcomes[0] == "unavailable" else 2)


SAME = [
    (AZ, GOOD[AZ], "", 0),
    (AZ, '{"accessToken": "a", "expiresOn": "2033-05-18 03:33:20.000000"}', "", 0),
    (AZ, "nothing", "", 0),
    (AZ, "{}", "", 0),
    (AZ, "", "", 1),
    (AZ, "", "Please run 'az login'", 1),
    (AZ, "", "AADSTS1: az login", 1),
    (AZ, "", "not found", 127),
    (AZ, "", "'az' is not recognized", 1),
    (AZD, "nothing", "", 0),
    (AZD, "", "not logged in, run `azd auth login` to login", 1),
    (AZD, "AADSTS1", "not logged in, run `azd auth login` to login", 1),
    (AZD, "", "unknown flag: --claims", 1),
    (AZD, '{"error": "x"}', "", 1),
    (AZD, "", "", 127),
    (PWSH, GOOD[PWSH], "", 0),
    (PWSH, f"banner\n\nazsdk%a%{ENDS}\n", "noise", 0),
    (PWSH, "nothing", "", 0),
    (PWSH, "NO_AZ_ACCOUNT_MODULE", "", 0),
    (PWSH, "", "Run Connect-AzAccount to login", 1),
    (PWSH, "", "AuthorizationManager check failed", 1),
    (PWSH, "", "", 127),
    (PWSH, "", "else", 1),
]


@pytest.mark.parametrize(("name", "stdout", "stderr", "status"), SAME)
def test_same_outcome(
    family: Family,
    toolbox: Toolbox,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stdout: str,
    stderr: str,
    status: int,
) -> None:
    """A token, a failure that stops a chain, or one that does not: both say the same."""
    monkeypatch.setenv("TZ", "UTC")
    toolbox.put_answer(PROGRAM[name], stdout, stderr, status)

    assert outcome(family, getattr(family.module, name)(), SCOPE) == outcome(
        family, getattr(theirs_of(family), name)(), SCOPE
    )


DIFFERENT = [
    # Spec 7.2: text around the JSON, and other spellings of the local time, are read.
    (AZ, f"WARNING\n{GOOD[AZ]}", 0, "failed", f"a {ENDS}"),
    (AZ, '{"accessToken": "a", "expiresOn": "2033-05-18T03:33:20Z"}', 0, "failed", f"a {ENDS}"),
    # Wrong JSON types are an answer without a token, no raw error.
    (AZ, "null", 0, "TypeError", "failed"),
    (AZ, '{"accessToken": "a", "expires_on": null}', 0, "TypeError", "failed"),
    # A secret that is no text would get into an Authorization header.
    (AZ, f'{{"accessToken": null, "expires_on": {ENDS}}}', 0, f"None {ENDS}", "failed"),
    # 7.3: banners; fractions of a second.
    (AZD, f"a banner\n{GOOD[AZD]}", 0, "failed", f"a {ENDS}"),
    (AZD, '{"token": "a", "expiresOn": "2033-05-18T03:33:20.5Z"}', 0, "failed", f"a {ENDS}"),
    (AZD, "[]", 0, "TypeError", "failed"),
    # 7.4: another number of parts.
    (PWSH, "azsdk%a", 0, "ValueError", "failed"),
    (PWSH, f"azsdk%a%{ENDS}%more", 0, "ValueError", "failed"),
    (PWSH, "azsdk%a%soon", 0, "ValueError", "failed"),
]


@pytest.mark.parametrize(("name", "stdout", "status", "theirs", "ours"), DIFFERENT)
def test_other_outcome(
    family: Family, toolbox: Toolbox, name: str, stdout: str, status: int, theirs: str, ours: str
) -> None:
    """Where azure-identity loses a good token or raises something raw, ours reads it, or fails."""
    toolbox.put_answer(PROGRAM[name], stdout, "", status)

    assert outcome(family, getattr(theirs_of(family), name)(), SCOPE) == theirs
    assert outcome(family, getattr(family.module, name)(), SCOPE) == ours


def test_time_of_azd(family: Family, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """D13: azd tells UTC; azure-identity reads it as local time."""
    import time

    toolbox.put_answer("azd", GOOD[AZD])
    monkeypatch.setenv("TZ", "Etc/GMT-1")
    time.tzset()
    try:
        assert outcome(family, theirs_of(family).AzureDeveloperCliCredential(), SCOPE) == f"a {ENDS - 3600}"
        assert outcome(family, family.module.AzureDeveloperCliCredential(), SCOPE) == f"a {ENDS}"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_secrets(family: Family, toolbox: Toolbox) -> None:
    """D20: a token in an output that is not understood stays out of the message."""
    for name, stdout in ((AZ, '{"accessToken":"s3cr3t-of-az"}'), (PWSH, "azsdk%s3cr3t-of-pwsh")):
        toolbox.put_answer(PROGRAM[name], stdout)
        told = []
        for module in (theirs_of(family), family.module):
            with pytest.raises(Exception) as failure:  # noqa: PT011 - theirs is raw
                family.do(getattr(module, name)().get_token, SCOPE)
            told.append("s3cr3t" in str(failure.value))
        assert told == [name == AZ, False]


class Member:
    """A member that does as it was told, for both libraries and families."""

    def __init__(self, answer: Any, *, awaited: bool) -> None:
        self.answer = answer
        self.awaited = awaited
        self.asked: list[dict[str, Any]] = []

    def get_token_info(self, *_: str, options: Any = None) -> Any:
        """Answer."""
        self.asked.append(dict(options or {}))

        async def later() -> Any:
            return now()

        def now() -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return later() if self.awaited else now()


class Older(Member):
    """One that has only the older method."""

    def get_token(self, *_: str, **options: Any) -> Any:
        """Answer."""
        return Member.get_token_info(self, options=options)

    get_token_info = property()  # so that it has none


TOKEN = AccessToken("a", ENDS)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["unavailable", TOKEN], f"a {ENDS}"),
        (["sign in", TOKEN], f"a {ENDS}"),
        (["failed", TOKEN], "failed"),
        ([ValueError("x"), TOKEN], "failed"),
        (["unavailable", "unavailable"], "failed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_chains(family: Family, answers: list[Any], expected: str) -> None:
    """Who is passed over and what stops, on members of either method."""
    given = {
        "unavailable": azure.identity.CredentialUnavailableError(message="not here"),
        "sign in": azure.identity.AuthenticationRequiredError([SCOPE]),
        "failed": azure.core.exceptions.ClientAuthenticationError(message="refused"),
    }
    awaited = family.module is not workload_identity
    for kind in (Member, Older):
        outcomes = []
        for module in (theirs_of(family), family.module):
            members = [kind(given.get(a, a) if isinstance(a, str) else a, awaited=awaited) for a in answers]
            outcomes.append(outcome(family, module.ChainedTokenCredential(*members), SCOPE))
        assert outcomes == [expected, expected]


def test_member_that_gives_none(family: Family) -> None:
    """9.2: None means "not me", as in JavaScript; azure-identity hands it to the caller."""
    awaited = family.module is not workload_identity
    chains = [
        module.ChainedTokenCredential(Older(None, awaited=awaited), Older(TOKEN, awaited=awaited))
        for module in (theirs_of(family), family.module)
    ]

    assert [family.do(chain.get_token, SCOPE) for chain in chains] == [None, TOKEN]


def test_options_of_a_newer_member(family: Family) -> None:
    """D16: their awaiting chain drops what `get_token` was given, for a member of the newer method."""
    awaited = family.module is not workload_identity
    asked = []
    for module in (theirs_of(family), family.module):
        member = Member(TOKEN, awaited=awaited)
        family.do(module.ChainedTokenCredential(member).get_token, SCOPE, tenant_id="t", claims="c")
        asked.append({name: value for name, value in member.asked[0].items() if value})

    assert asked[1] == {"tenant_id": "t", "claims": "c"}
    assert asked[0] == ({} if awaited else asked[1])


def test_no_scope(family: Family) -> None:
    """1.3: asking for nothing is a mistake of the caller's, not a member's failure."""
    awaited = family.module is not workload_identity
    chains = [
        module.ChainedTokenCredential(Member(ValueError("no scope"), awaited=awaited))
        for module in (theirs_of(family), family.module)
    ]

    assert [outcome(family, chain) for chain in chains] == ["failed", "ValueError"]


def test_default_chain(family: Family, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same members in the same order, by AZURE_TOKEN_CREDENTIALS; a tool that fails is passed over."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    toolbox.put_answer("az", "", "AADSTS1", 1)
    toolbox.put_answer("azd", GOOD[AZD])
    for value in ("dev", "prod", AZ, ""):
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", value)
        names = [
            [
                type(member).__name__.removeprefix("Async")
                for member in module.DefaultAzureCredential().credentials
            ]
            for module in (theirs_of(family), family.module)
        ]
        # The broker has another name there, and no awaiting class (ours: a placeholder in both families);
        # what cannot be made has a placeholder of each library's own.
        theirs, ours = (
            [
                n
                for n in each
                if "Broker" not in n and n not in {"FailedDACCredential", "WorkloadIdentityCredential"}
            ]
            for each in names
        )
        assert [n for n in ours if n != "PlaceholderCredential"] == theirs
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")
    monkeypatch.setenv("TZ", "UTC")
    for module in (theirs_of(family), family.module):
        chain = module.DefaultAzureCredential(exclude_shared_token_cache_credential=True)
        assert outcome(family, chain, SCOPE) == f"a {ENDS}"
