"""The chain for programs that run anywhere: in a pod, on a machine of Azure, at a developer's desk.

Who is in it, in which order, and by which variable and keyword, stands in `MEMBERS`.

Source: azure-identity 1.27.0, `DefaultAzureCredential`.
"""

from __future__ import annotations

import os
from collections import namedtuple

from workload_identity.authority import normal_authority, valid_tenant
from workload_identity.cache import TokenCache
from workload_identity.chain import AwaitingChain, BlockingChain, Chain
from workload_identity.clock import SYSTEM
from workload_identity.context import Asking
from workload_identity.credentials import Order, allowed_tenants, seconds_of
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.options import Options, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NamedTuple, Unpack

    from workload_identity.cache import Held
    from workload_identity.chain import Wish
    from workload_identity.options import SendingOptions
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Flow

    class Member(NamedTuple):
        """A place in the chain.

        Attributes:
            name: The credential's class.
            exclude: The keyword that leaves it out, or in.
            group: "prod" or "dev", as AZURE_TOKEN_CREDENTIALS may say; "" for none.
            single: AZURE_TOKEN_CREDENTIALS may name it alone.
            lenient: When it tried and failed, the next member is asked all the same.
            in_pods: It is asked in pods too without being asked for.
        """

        name: str
        exclude: str
        group: str
        single: bool = True
        lenient: bool = True
        in_pods: bool = True
else:
    Member = namedtuple(  # noqa: PYI024 - importing typing costs more than the rest
        "Member", ("name", "exclude", "group", "single", "lenient", "in_pods"), defaults=(True, True, True)
    )

MEMBERS = (
    Member("EnvironmentCredential", "exclude_environment_credential", "prod", lenient=False),
    Member("WorkloadIdentityCredential", "exclude_workload_identity_credential", "prod", lenient=False),
    Member("ManagedIdentityCredential", "exclude_managed_identity_credential", "prod", lenient=False),
    Member(
        "SharedTokenCacheCredential",
        "exclude_shared_token_cache_credential",
        "dev",
        single=False,
        in_pods=False,
    ),
    Member(
        "VisualStudioCodeCredential",
        "exclude_visual_studio_code_credential",
        "dev",
        in_pods=False,
    ),
    Member("AzureCliCredential", "exclude_cli_credential", "dev"),
    Member("AzurePowerShellCredential", "exclude_powershell_credential", "dev"),
    Member("AzureDeveloperCliCredential", "exclude_developer_cli_credential", "dev"),
    Member("InteractiveBrowserCredential", "exclude_interactive_browser_credential", "", lenient=False),
    Member(
        "InteractiveBrowserBrokerCredential",
        "exclude_broker_credential",
        "dev",
        single=False,
        in_pods=False,
    ),
)
_VARIABLE = "AZURE_TOKEN_CREDENTIALS"
_FROM_ENVIRONMENT = "\0"
"""In place of a keyword that is not given, where None means something else."""
_PATIENCE = 600
"""Seconds that a caller waits for another thread or event loop, which may wait for a person to sign in."""
_NOT_HERE = (
    "None of these can be used here. In a pod: give its ServiceAccount the annotation"
    " azure.workload.identity/client-id and create the pod again; on a machine of Azure: assign it a managed"
    " identity; at a desk: `az login`."
)


class Default(Chain):
    """The identity that is there: of the environment, of the pod, of the machine, of the developer.

    The first call asks the members in their order. The one that gives a token is asked by all later calls,
    and its errors are theirs; `reset` forgets it. Calls at the same time share one walk through the members.

    The members: EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential,
    SharedTokenCacheCredential, VisualStudioCodeCredential, AzureCliCredential, AzurePowerShellCredential,
    AzureDeveloperCliCredential, InteractiveBrowserCredential, and the authentication broker. The variable
    AZURE_TOKEN_CREDENTIALS narrows them: "prod" (the first three), "dev" (the others without the browser),
    or the name of one. In a pod the shared cache, Visual Studio Code and the broker are left out, unless that
    variable is set. A member that cannot be made from what the environment says is still in the chain, and
    says so when it is asked.

    Args:
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        exclude_environment_credential: Leaves the member out, or with False in, whatever the variable says;
            so do the next nine.
        exclude_workload_identity_credential: Likewise.
        exclude_managed_identity_credential: Likewise.
        exclude_shared_token_cache_credential: Likewise.
        exclude_visual_studio_code_credential: Likewise.
        exclude_cli_credential: Likewise.
        exclude_powershell_credential: Likewise.
        exclude_developer_cli_credential: Likewise.
        exclude_interactive_browser_credential: Likewise; out unless asked for.
        exclude_broker_credential: Likewise.
        managed_identity_client_id: A managed identity's client id; from AZURE_CLIENT_ID. None: the machine's
            own identity.
        managed_identity_object_id: Its object id, in place of that.
        managed_identity_resource_id: Its resource id, in place of that.
        identity_config: These as ManagedIdentityCredential takes them, in place of all three.
        workload_identity_client_id: From `managed_identity_client_id`, else from AZURE_CLIENT_ID.
        workload_identity_tenant_id: From AZURE_TENANT_ID; so are the next three.
        interactive_browser_tenant_id: Whose users sign in.
        broker_tenant_id: Without effect.
        shared_cache_tenant_id: Whose user is looked for in the shared cache.
        shared_cache_username: Which user; from AZURE_USERNAME.
        interactive_browser_client_id: The application that users sign in to; Azure's own for developers.
        broker_client_id: Without effect.
        visual_studio_code_tenant_id: Without effect.
        process_timeout: Seconds that a developer's tool may take.
        require_envvar: Refuse to be made while AZURE_TOKEN_CREDENTIALS is not set.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all. Not
            for members that run a tool.
        cache_persistence_options: Where EnvironmentCredential, SharedTokenCacheCredential and
            InteractiveBrowserCredential store tokens beyond the life of the process; by default nowhere.
        disable_instance_discovery: For the same three: trust the authority without asking Entra whether it
            knows it.
        enable_azure_proxy: See WorkloadIdentityCredential; so are the next three.
        token_file_timeout: Likewise.
        retry_on_propagation: Likewise.
        shared_cache: Likewise, for all members that hold tokens.
        timeout: As in `workload_identity.options.Options`.
        options: See there; not for members that run a tool.

    Raises:
        ValueError: A keyword or AZURE_TOKEN_CREDENTIALS that cannot work, or no member is left.
        TypeError: `tenant_id` is given: it would mean another thing for each member.

    Attributes:
        lenient: The members that may fail without ending the walk.

    Source: azure-identity 1.27.0, `DefaultAzureCredential`.
    """

    # What a walk was for, and how it ended: a token, or the attempts.
    _last: tuple[Wish, object] | None = None

    def __init__(
        self,
        *,
        authority: str | None = None,
        exclude_environment_credential: bool | None = None,
        exclude_workload_identity_credential: bool | None = None,
        exclude_managed_identity_credential: bool | None = None,
        exclude_shared_token_cache_credential: bool | None = None,
        exclude_visual_studio_code_credential: bool | None = None,
        exclude_cli_credential: bool | None = None,
        exclude_powershell_credential: bool | None = None,
        exclude_developer_cli_credential: bool | None = None,
        exclude_interactive_browser_credential: bool | None = None,
        exclude_broker_credential: bool | None = None,
        managed_identity_client_id: str | None = _FROM_ENVIRONMENT,
        managed_identity_object_id: str | None = None,
        managed_identity_resource_id: str | None = None,
        identity_config: Mapping[str, str] | None = None,
        workload_identity_client_id: str | None = None,
        workload_identity_tenant_id: str | None = None,
        interactive_browser_tenant_id: str | None = None,
        broker_tenant_id: str | None = None,
        shared_cache_tenant_id: str | None = None,
        shared_cache_username: str | None = None,
        interactive_browser_client_id: str | None = None,
        broker_client_id: str | None = None,
        visual_studio_code_tenant_id: str | None = None,
        process_timeout: float | None = 10,
        require_envvar: bool = False,
        additionally_allowed_tenants: Iterable[str] | None = None,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        enable_azure_proxy: bool | None = None,
        token_file_timeout: float = 0,
        retry_on_propagation: float = 0,
        shared_cache: bool = True,
        timeout: float | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        given = dict(locals())
        for name in ("self", "options", "timeout", "__class__"):
            del given[name]
        if "tenant_id" in options:
            raise TypeError(
                f"{self._name()} takes no tenant_id, it would mean another thing for each member: give"
                " workload_identity_tenant_id, interactive_browser_tenant_id, …"
            )
        given["additionally_allowed_tenants"] = allowed_tenants(additionally_allowed_tenants)
        everything: Mapping[str, Any] = {**options, "timeout": timeout}
        sending = {name: everything[name] for name in options_of(everything, given).__dict__}
        arguments = _arguments(_checked(given), sending)
        made = [
            (member, self._made(member, arguments.get(member.name, {}), {**given, **sending}))
            for member in _wanted(given)
            if member.name != "SharedTokenCacheCredential" or self._kind(member.name).supported()
        ]
        if not made:
            raise ValueError(
                f"{self._name()} has no member left: {_VARIABLE} and the exclude_… keywords leave all out"
            )
        super().__init__(*(credential for _, credential in made))
        self.lenient = tuple(credential for member, credential in made if member.lenient)
        self._open()

    def reset(self) -> None:
        """Forget which member gave a token: the next call asks all of them again."""
        self._chosen = None
        self._last = None

    def _open(self) -> None:
        self.reset()
        self._cache = TokenCache()

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy in another process needs: no token goes there."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _made(self, member: Member, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> object:
        """Return a member, or a placeholder for one that cannot be made from what the environment says."""
        try:
            with Asking(default=True):
                return self._kind(member.name)(
                    **{name: value for name, value in arguments.items() if value is not None}
                )
        except Exception as failure:
            if _is_callers(failure, member, given):
                raise
            lacking = member.name == "WorkloadIdentityCredential" and not _complete(arguments)
            error = CredentialUnavailableError if lacking else ClientAuthenticationError
            kind = "" if isinstance(failure, ValueError) else f"{type(failure).__name__}: "
            return self._kind("PlaceholderCredential")(member.name, error(f"{kind}{failure}"))

    def _kind(self, name: str) -> Any:
        """Return a class of the family; its module is loaded with it."""
        from importlib import import_module  # noqa: PLC0415 - a module is loaded for who makes a chain

        if name == "PlaceholderCredential":
            prefix = "" if self._family == "blocking" else "Async"
            return getattr(import_module("workload_identity.placeholders"), prefix + name)
        module = "workload_identity" if self._family == "blocking" else "workload_identity.aio"
        return getattr(import_module(module), name)

    def _flow(self, wish: Wish) -> Flow[Any]:
        """Ask the member that gave a token before; before there is one, walk, one caller for all."""
        from workload_identity.steps import Ask, Share  # noqa: PLC0415 - what a token request needs

        method = wish.method
        wish = wish._replace(method="get_token_info")
        while (member := self._chosen) is None:
            try:
                held = yield Share(self._walk(wish))
            except ClientAuthenticationError as failure:
                if not failure.attempts or self._was_for(wish, failure.attempts):
                    raise
            else:
                if self._was_for(wish, held):
                    return held.token if method == "get_token" else held.info
        return (yield Ask(member, wish.scopes, wish.options, method))

    def _was_for(self, wish: Wish, outcome: object) -> bool:
        """Tell whether a walk's outcome answers this wish: who waited for it may have another."""
        last = self._last
        return last is not None and last[1] is outcome and last[0] == wish

    def _walk(self, wish: Wish) -> Order:
        """Return the order for a walk; there is one at a time, whatever is asked for."""
        return Order(
            f"{self._name()} for {' '.join(wish.scopes)}",
            cache=self._cache,
            slot=self._cache.slot("walk", frozenset(), SYSTEM.now()),
            way=None,
            clock=SYSTEM,
            options=Options({}),
            patience=_PATIENCE,
            flow=lambda _background: self._walking(wish),
            must=True,
            silent=True,
        )

    def _walking(self, wish: Wish) -> Flow[Held]:
        from workload_identity.providers import dated  # noqa: PLC0415 - what a token request needs
        from workload_identity.walking import walk  # noqa: PLC0415 - likewise

        try:
            won = yield from walk(
                self._name(), self.credentials, wish, lenient=self.lenient, default=True, advice=_NOT_HERE
            )
        except ClientAuthenticationError as failure:
            self._last = wish, failure.attempts
            raise
        held = dated(won.answer, won.started)
        self._last, self._chosen = (wish, held), won.member
        return held


_OF_THIS_PROCESS = frozenset({"_cache", "_chosen", "_last"})


class DefaultAzureCredential(Default, BlockingChain):  # noqa: D101 - it has, see below
    __doc__ = Default.__doc__


class AsyncDefaultAzureCredential(Default, AwaitingChain):  # noqa: D101 - likewise
    __doc__ = Default.__doc__


def _checked(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keywords as they are.

    Raises:
        ValueError: One cannot work for any member; the message names it.
    """
    if given["authority"]:
        normal_authority(given["authority"])
    for name, value in given.items():
        if name.endswith("_tenant_id") and value:
            try:
                valid_tenant(value)
            except ValueError as failure:
                raise ValueError(f"{name}: {failure}") from failure
    for name in ("process_timeout", "token_file_timeout", "retry_on_propagation"):
        seconds_of(name, given[name])
    ids = [name for name in _IDS if given[name] and given[name] != _FROM_ENVIRONMENT]
    if len(ids) > 1:
        raise ValueError(
            f"{', '.join(ids)}: they name one managed identity in several ways; give one of them"
        )
    return given


_IDS = (
    "managed_identity_client_id",
    "managed_identity_object_id",
    "managed_identity_resource_id",
    "identity_config",
)


def _wanted(given: Mapping[str, Any]) -> list[Member]:
    """Return the members that the variable, the keywords and the place leave.

    Raises:
        ValueError: The variable is wanted and not set, or names nothing.
    """
    value = os.environ.get(_VARIABLE, "").strip().lower()
    names = ["dev", "prod", *(member.name for member in MEMBERS if member.single)]
    if not value and given["require_envvar"]:
        raise ValueError(f"require_envvar: {_VARIABLE} is not set; set it to one of {', '.join(names)}")
    if value and value not in map(str.lower, names):
        raise ValueError(f"{_VARIABLE}={value!r}: wanted one of {', '.join(names)}")
    in_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))

    def wanted(member: Member) -> bool:
        excluded: bool | None = given[member.exclude]
        if excluded is not None:
            return not excluded
        if value:
            return value in {member.group, member.name.lower()}
        return bool(member.group) and (member.in_pods or not in_pod)

    return [member for member in MEMBERS if wanted(member)]


def _arguments(given: Mapping[str, Any], sending: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the keywords of each member's constructor; None is none."""
    tenant_id = os.environ.get("AZURE_TENANT_ID") or None
    client_id = given["managed_identity_client_id"]
    config = given["identity_config"]
    for key in ("object_id", "resource_id"):
        if given[f"managed_identity_{key}"]:
            config = {key: given[f"managed_identity_{key}"]}
    explicit = client_id if client_id != _FROM_ENVIRONMENT else None
    if client_id == _FROM_ENVIRONMENT:
        client_id = None if config else os.environ.get("AZURE_CLIENT_ID") or None
    entra = {
        "authority": given["authority"],
        "additionally_allowed_tenants": given["additionally_allowed_tenants"],
        **sending,
    }
    signing_in = {
        **entra,
        "cache_persistence_options": given["cache_persistence_options"],
        "disable_instance_discovery": given["disable_instance_discovery"],
    }
    alone = os.environ.get(_VARIABLE, "").strip().lower() == "managedidentitycredential"
    tool = {"process_timeout": given["process_timeout"]}
    return {
        "EnvironmentCredential": {**signing_in, "shared_cache": given["shared_cache"]},
        "WorkloadIdentityCredential": {
            **entra,
            "client_id": given["workload_identity_client_id"] or explicit,
            "tenant_id": given["workload_identity_tenant_id"],
            "enable_azure_proxy": given["enable_azure_proxy"],
            "token_file_timeout": given["token_file_timeout"],
            "retry_on_propagation": given["retry_on_propagation"],
            "shared_cache": given["shared_cache"],
        },
        "ManagedIdentityCredential": {
            **sending,
            "client_id": client_id,
            "identity_config": config,
            "shared_cache": given["shared_cache"],
            # The member before it does that, or is not wanted.
            "_exclude_workload_identity": True,
            "_probe": False if alone else None,
        },
        "SharedTokenCacheCredential": {
            **signing_in,
            "username": given["shared_cache_username"] or os.environ.get("AZURE_USERNAME") or None,
            "tenant_id": given["shared_cache_tenant_id"] or tenant_id,
        },
        "AzureCliCredential": tool,
        "AzurePowerShellCredential": tool,
        "AzureDeveloperCliCredential": tool,
        "InteractiveBrowserCredential": {
            **signing_in,
            "tenant_id": given["interactive_browser_tenant_id"] or tenant_id,
            "client_id": given["interactive_browser_client_id"],
        },
    }


def _complete(arguments: Mapping[str, Any]) -> bool:
    """Tell whether workload identity is configured, well or badly."""
    environ = os.environ
    return bool(
        (arguments["tenant_id"] or environ.get("AZURE_TENANT_ID"))
        and (arguments["client_id"] or environ.get("AZURE_CLIENT_ID"))
        and environ.get("AZURE_FEDERATED_TOKEN_FILE")
    )


def _is_callers(failure: Exception, member: Member, given: Mapping[str, Any]) -> bool:
    """Tell whether a keyword of the caller keeps a member from being made: messages begin with its name."""
    words = str(failure)
    if given.get(words.partition(":")[0]) is not None:
        return True
    if member.name == "ManagedIdentityCredential":
        return isinstance(failure, ValueError) and any(given[name] for name in _IDS[1:])
    return bool(given["enable_azure_proxy"]) and words.startswith("AZURE_KUBERNETES_")
