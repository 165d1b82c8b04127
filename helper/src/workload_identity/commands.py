"""The flows of credentials that run a developer's tool: its command line, and what its output means.

A tool that is not there, not signed in, or does not answer is "unavailable": a chain goes on. One that was
asked and could not give a token is a failure, which DefaultAzureCredential alone passes over.

Sources: azure-identity 1.27.0, for command lines and the words to look for in outputs;
learn.microsoft.com/cli/azure/account; learn.microsoft.com/powershell/module/az.accounts/get-azaccesstoken.
"""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime

from workload_identity.cache import Held
from workload_identity.entra import seconds
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.redaction import MASK, excerpt, redacted
from workload_identity.steps import Find, Ran, Run, now
from workload_identity.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from workload_identity.clock import Instant
    from workload_identity.steps import Flow

_WINDOWS = sys.platform == "win32"
_NOT_FOUND = 127
"""A shell's exit status for a program that it does not find."""
_LONGEST_OUTPUT = 1 << 20
"""Letters that are looked at."""
_MOST_TRIES = 200
"""Places in an output where JSON may begin."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d*)?(Z?)")
_LONG_WORD = re.compile(r"[^\s\"'<>]{64,}")
"""What may be a token that has no known shape."""
_MARKER = "NO_AZ_ACCOUNT_MODULE"
_LINE = "azsdk%"


class _Tool(Value):
    """A tool's name, what it may be called on the PATH, and what to do when it is not there."""

    name: str
    programs: tuple[str, ...]
    cure: str


_AZ = _Tool(
    "Azure CLI",
    ("az.cmd", "az") if _WINDOWS else ("az",),
    "Install it (learn.microsoft.com/cli/azure/install-azure-cli), then run `az login`.",
)
_AZD = _Tool(
    "Azure Developer CLI",
    ("azd",),
    "Install it (learn.microsoft.com/azure/developer/azure-developer-cli), then run `azd auth login`.",
)
_PWSH = _Tool(
    "PowerShell",
    ("pwsh", "powershell") if _WINDOWS else ("pwsh",),
    "Install it (learn.microsoft.com/powershell/scripting/install) and its module Az.Accounts, then run"
    " Connect-AzAccount.",
)


def refusing(words: str) -> Flow[Held]:
    """Be unavailable."""
    raise CredentialUnavailableError(words)
    yield  # type: ignore[unreachable] # makes it a flow


def az_claims(claims: str, tenant_id: str | None, scope: str) -> str:
    """Return what to do about a claims challenge, which `az` can only meet when a person signs in."""
    tenant = f" --tenant {tenant_id}" if tenant_id else ""
    return (
        "a claims challenge cannot be met by the tool's own account: run (Azure CLI 2.76.0 or later)"
        f" `az login --claims-challenge {_base64(claims)}{tenant} --scope {scope}`"
    )


def powershell_claims(claims: str, tenant_id: str | None) -> str:
    """Return the same for Azure PowerShell."""
    tenant = f" -Tenant {tenant_id}" if tenant_id else ""
    return (
        "a claims challenge cannot be met by the tool's own account: run (Az.Accounts 5.2.0 or later)"
        f" `Connect-AzAccount -ClaimsChallenge {_base64(claims)}{tenant}`"
    )


def azure_cli(resource: str, tenant: str, subscription: str, timeout: float) -> Flow[Held]:
    """Ask `az` for a token.

    Args:
        resource: What the token is for.
        tenant: Whose token; "": the current account's.
        subscription: Whose account; "": the current one.
        timeout: Seconds it may take.

    Raises:
        CredentialUnavailableError: It is not there, nobody is signed in, or it gives no answer.
        ClientAuthenticationError: It has no token.
    """
    arguments = ["account", "get-access-token", "--output", "json", "--resource", resource]
    arguments += ["--tenant", tenant] if tenant else []
    arguments += ["--subscription", subscription] if subscription else []
    started, ran = yield from _ran(_AZ, arguments, {"AZURE_CORE_NO_COLOR": "true"}, timeout)
    output, complaint = _text(ran.stdout), _text(ran.stderr)
    if ran.status == 0:
        for found in _objects(output, "accessToken"):
            held = _held(found["accessToken"], _end_of_az(found), started)
            if held is not None:
                return held
            break
        raise _unexpected(_AZ, output, "a JSON object with accessToken and expires_on")
    if ran.status == _NOT_FOUND or complaint.startswith("'az' is not recognized"):
        raise _missing(_AZ)
    if ("az login" in complaint or "az account set" in complaint) and "AADSTS" not in complaint:
        raise CredentialUnavailableError("nobody is signed in to the Azure CLI: run `az login`.")
    raise _failed(_AZ, ran, complaint)


def azure_developer_cli(
    scopes: tuple[str, ...], tenant: str, claims: str | None, timeout: float
) -> Flow[Held]:
    """Ask `azd` for a token.

    Args:
        scopes: One or more.
        tenant: Whose token; "": the current account's.
        claims: A claims challenge, JSON text.
        timeout: Seconds it may take.

    Raises:
        CredentialUnavailableError: It is not there or too old, nobody is signed in, or it gives no answer.
        ClientAuthenticationError: It has no token.
    """
    arguments = ["auth", "token", "--output", "json", "--no-prompt"]
    for scope in scopes:
        arguments += ["--scope", scope]
    arguments += ["--tenant-id", tenant] if tenant else []
    arguments += ["--claims", _base64(claims)] if claims else []
    started, ran = yield from _ran(_AZD, arguments, {"NO_COLOR": "true"}, timeout)
    output, complaint = _text(ran.stdout), _text(ran.stderr)
    if ran.status == 0:
        for found in _objects(output, "token"):
            held = _held(found["token"], _epoch(found.get("expiresOn"), local=False), started)
            if held is not None:
                return held
            break
        words = _words_of_azd(output)
        if words:
            raise ClientAuthenticationError(f"Azure Developer CLI: {words}")
        raise _unexpected(_AZD, output, "a JSON object with token and expiresOn")
    if ran.status == _NOT_FOUND or complaint.startswith("'azd' is not recognized"):
        raise _missing(_AZD)
    both = f"{output}\n{complaint}"
    if "not logged in, run `azd auth login` to login" in both and "AADSTS" not in both:
        raise CredentialUnavailableError(
            "nobody is signed in to the Azure Developer CLI: run `azd auth login`."
        )
    if "unknown flag: --claims" in both:
        raise CredentialUnavailableError(
            "this Azure Developer CLI cannot meet a claims challenge: install version 1.18.1 or later."
        )
    words = _words_of_azd(output) or _words_of_azd(complaint)
    if words:
        raise ClientAuthenticationError(f"Azure Developer CLI: {words}")
    raise _failed(_AZD, ran, complaint)


def azure_powershell(resource: str, tenant: str, timeout: float) -> Flow[Held]:
    """Ask Azure PowerShell for a token.

    Args:
        resource: What the token is for.
        tenant: Whose token; "": that of the current context.
        timeout: Seconds it may take.

    Raises:
        CredentialUnavailableError: It or its module is not there, nobody is signed in, or it gives no answer.
        ClientAuthenticationError: It ended well, and without a token.
    """
    script = _script(resource, tenant)
    arguments = ["-NoProfile", "-NonInteractive", "-EncodedCommand", _base64(script, "utf-16-le")]
    started, ran = yield from _ran(_PWSH, arguments, {}, timeout)
    output, complaint = _text(ran.stdout), _text(ran.stderr)
    if ran.status == 0:
        return _told(output, started)
    if ran.status == _NOT_FOUND or "' is not recognized" in complaint:
        raise _missing(_PWSH)
    if "Run Connect-AzAccount to login" in complaint:
        raise CredentialUnavailableError("nobody is signed in to Azure PowerShell: run Connect-AzAccount.")
    if "AuthorizationManager check failed" in complaint:
        raise CredentialUnavailableError(
            "the execution policy keeps PowerShell from loading Az.Accounts: see Get-ExecutionPolicy -List."
        )
    from workload_identity import records  # noqa: PLC0415 - hardly ever

    records.complained(_PWSH.name, _fit(complaint))
    raise CredentialUnavailableError(
        f"PowerShell ended with status {ran.status}; what it wrote is logged at DEBUG."
    )


def _ran(
    tool: _Tool, arguments: list[str], environment: Mapping[str, str], timeout: float
) -> Flow[tuple[Instant, Ran]]:
    path: str | None = yield Find(tool.programs)
    if path is None:
        raise _missing(tool)
    # One of the system's, so that nobody can have put a program or a setting there.
    folder = os.environ.get("SYSTEMROOT", "") if _WINDOWS else "/bin"
    if not folder:
        raise CredentialUnavailableError(f"{tool.name} cannot be run: the variable SYSTEMROOT is not set.")
    started = yield from now()
    try:
        ran: Ran = yield Run((path, *arguments), environment, folder, timeout)
    except TimeoutError:
        raise CredentialUnavailableError(
            f"{tool.name} had no answer within {timeout:g} s and was ended; process_timeout gives it longer.",
            retryable=True,
        ) from None
    except OSError as failure:
        raise CredentialUnavailableError(
            f"{tool.name} cannot be run ({path}): {failure.strerror or type(failure).__name__}"
        ) from failure
    return started, ran


def _text(output: bytes) -> str:
    return output[:_LONGEST_OUTPUT].decode("utf-8", "replace").removeprefix("\ufeff")


def _objects(text: str, key: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in an output that have a key; a banner or a warning may stand around them."""
    decoder = json.JSONDecoder()
    at = -1
    for _ in range(_MOST_TRIES):
        at = text.find("{", at + 1)
        if at < 0:
            return
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        at = end - 1
        if isinstance(found, dict) and key in found:
            yield found


def _held(token: object, ends: int | None, started: Instant) -> Held | None:
    """Return a token, if it and its end are such."""
    if ends is None or not isinstance(token, str) or not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        return None
    return Held(token, ends, started=started, lifetime=ends - started.epoch)


def _end_of_az(found: Mapping[str, object]) -> int | None:
    """Return when a token of `az` ends: newer ones say it in epoch seconds, older ones in local time."""
    if found.get("expires_on") is None:
        return _epoch(found.get("expiresOn"), local=True)
    try:
        return seconds(found["expires_on"])
    except ValueError:
        return None


def _epoch(text: object, *, local: bool) -> int | None:
    """Return the epoch seconds of a date and time; None when it is none.

    Args:
        text: As ISO 8601 has it, or with a blank for the T; a fraction is dropped.
        local: It is by this machine's clock, unless it ends in Z.
    """
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        naive = datetime.fromisoformat(f"{match[1]}T{match[2]}")
        return int((naive if local and not match[3] else naive.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _words_of_azd(output: str) -> str:
    """Return what `azd` says of a failure: `error` of a JSON line, else the first message of an older one."""
    message = ""
    for line in output.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(found, dict):
            continue
        error = found.get("error")
        if isinstance(error, str) and error.strip():
            return _fit(error.strip())
        data = found.get("data")
        older = data.get("message") if isinstance(data, dict) else None
        if not message and isinstance(older, str):
            message = older.strip()
    return _fit(message)


def _told(output: str, started: Instant) -> Held:
    """Return the token in PowerShell's output; other lines are banners."""
    for word in output.split():
        if not word.startswith(_LINE):
            continue
        parts = word.split("%")
        if len(parts) == 3:  # noqa: PLR2004 - the mark, the token, its end
            try:
                held = _held(parts[1], seconds(parts[2]), started)
            except ValueError:
                held = None
            if held is not None:
                return held
        break
    else:
        if _MARKER in output:
            raise CredentialUnavailableError(
                "PowerShell has no module Az.Accounts of version 2.2.0 or later: Install-Module Az.Accounts."
            )
    raise _unexpected(_PWSH, re.sub(rf"{_LINE}\S*", _LINE + MASK, output), "a token of Get-AzAccessToken")


def _missing(tool: _Tool) -> CredentialUnavailableError:
    return CredentialUnavailableError(f"{tool.name} was not found ({tool.programs[0]} on PATH). {tool.cure}")


def _unexpected(tool: _Tool, output: str, wanted: str) -> ClientAuthenticationError:
    quoted = excerpt(_fit(output))
    found = f"output beginning {quoted!r}" if quoted else "no output"
    return ClientAuthenticationError(
        f"unexpected output of {tool.name}: {wanted} was wanted, found {found}. Run the tool by hand, and"
        " update it if it does the same there."
    )


def _failed(tool: _Tool, ran: Ran, complaint: str) -> ClientAuthenticationError:
    words = _fit(complaint).strip() or "it wrote nothing about it"
    return ClientAuthenticationError(f"{tool.name} ended with status {ran.status}: {words}")


def _fit(text: str) -> str:
    """Return a tool's words, at most some lines, without what is or may be a token."""
    return _LONG_WORD.sub(MASK, redacted(text[:20_000]))[:1000]


def _base64(text: str, encoding: str = "utf-8") -> str:
    from base64 import b64encode  # noqa: PLC0415 - not for all

    return b64encode(text.encode(encoding)).decode()


def _script(resource: str, tenant: str) -> str:
    """Return what PowerShell runs. Its answer is a line as no banner has it: a mark, the token, its end."""
    chosen = f"$wanted.TenantId = '{tenant}'" if tenant else ""
    return f"""
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$accounts = Import-Module -Name Az.Accounts -MinimumVersion 2.2.0 -PassThru -ErrorAction SilentlyContinue
if ($null -eq $accounts) {{ '{_MARKER}'; exit 0 }}
$wanted = @{{ ResourceUrl = '{resource}'; WarningAction = 'Ignore' }}
{chosen}
# From 5.0.0 on it is a secure string without asking, before 2.17.0 there is none.
if ($accounts.Version -ge [version]'2.17.0' -and $accounts.Version -lt [version]'5.0.0') {{
    $wanted.AsSecureString = $true
}}
$given = Get-AzAccessToken @wanted
$text = $given.Token
if ($text -is [securestring]) {{
    if ($PSVersionTable.PSVersion.Major -ge 7) {{
        $text = ConvertFrom-SecureString -SecureString $text -AsPlainText
    }} else {{
        $memory = [Runtime.InteropServices.Marshal]::SecureStringToBSTR($text)
        try {{ $text = [Runtime.InteropServices.Marshal]::PtrToStringBSTR($memory) }}
        finally {{ [Runtime.InteropServices.Marshal]::ZeroFreeBSTR($memory) }}
    }}
}}
"`n{_LINE}$text%$($given.ExpiresOn.ToUnixTimeSeconds())`n"
"""
