"""Chains of credentials: who is asked, who is passed over, what ends a walk, and what is said of it."""

import asyncio
import contextvars
import copy
import logging
import pickle
import threading
import time
from typing import Any

import azure.core.credentials
import azure.core.exceptions
import azure.identity
import azure.identity.aio
import pytest

import workload_identity
import workload_identity.aio
from workload_identity import (
    AccessToken,
    AccessTokenInfo,
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
)
from workload_identity.context import IN_CHAIN, IN_DEFAULT_CHAIN

SCOPE = "https://vault.azure.net/.default"
Family = Any
Pod = Any


class Member:
    """A member that gives what it was told to, or raises it; both families may ask it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
        self.seen: list[tuple[bool, bool]] = []
        self.log: list[str] = []

    def given(self, method: str, scopes: tuple[str, ...], options: dict[str, Any], family: Any) -> Any:
        """Answer."""
        self.asked.append((method, scopes, options))
        self.seen.append((IN_CHAIN.get(), IN_DEFAULT_CHAIN.get()))

        async def awaited() -> Any:
            return result()

        def result() -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return result() if family is workload_identity else awaited()


def made(family: Family, answer: Any = None, methods: str = "both") -> Any:
    """Return a member for a family with the methods that are named."""
    module = family.module

    class Token(Member):
        def get_token(self, *scopes: str, **options: Any) -> Any:
            return self.given("get_token", scopes, options, module)

    class Info(Member):
        def get_token_info(self, *scopes: str, options: Any = None) -> Any:
            return self.given("get_token_info", scopes, options or {}, module)

    class Both(Token, Info):
        pass

    return {"get_token": Token, "get_token_info": Info, "both": Both}[methods](answer)


TOKEN = AccessToken("a-token", 2_000_000_000)
INFO = AccessTokenInfo("a-token", 2_000_000_000, refresh_on=1_900_000_000)
UNAVAILABLE = CredentialUnavailableError("nothing here")
REFUSED = ClientAuthenticationError(
    "AADSTS7000215: wrong secret", error="invalid_client", error_codes=[7000215]
)


def refusal(family: Family, chain: Any, *scopes: str, **options: Any) -> ClientAuthenticationError:
    """Return what a chain raises."""
    with pytest.raises(ClientAuthenticationError) as refused:
        family.do(chain.get_token, *(scopes or (SCOPE,)), **options)
    return refused.value


def test_first_token_wins(family: Family) -> None:
    """Members after the one that gives a token are not asked."""
    members = [made(family, UNAVAILABLE), made(family, TOKEN), made(family, TOKEN)]
    chain = family.module.ChainedTokenCredential(*members)

    assert family.do(chain.get_token, SCOPE) is TOKEN
    assert [len(member.asked) for member in members] == [1, 1, 0]


def test_each_call_begins_anew(family: Family) -> None:
    """The last success is not remembered: a member that comes to life is asked first again."""
    first = made(family, UNAVAILABLE)
    second = made(family, TOKEN)
    chain = family.module.ChainedTokenCredential(first, second)
    family.do(chain.get_token, SCOPE)
    first.answer = AccessToken("better", 2_000_000_000)

    assert family.do(chain.get_token, SCOPE).token == "better"


@pytest.mark.parametrize(
    "skipping",
    [
        UNAVAILABLE,
        AuthenticationRequiredError([SCOPE]),
        azure.identity.CredentialUnavailableError(message="theirs"),
        azure.identity.AuthenticationRequiredError([SCOPE]),
        None,
    ],
    ids=["ours", "a person must sign in", "theirs", "theirs: a person must", "None"],
)
def test_passed_over(family: Family, skipping: object) -> None:
    """Who cannot even try, says so by our error, by azure-identity's, or by giving nothing."""
    chain = family.module.ChainedTokenCredential(made(family, skipping), made(family, TOKEN))

    assert family.do(chain.get_token, SCOPE).token == "a-token"


@pytest.mark.parametrize(
    "failure",
    [
        REFUSED,
        azure.core.exceptions.ClientAuthenticationError(message="theirs"),
        ValueError("wrong"),
        KeyError("wrong"),
        OSError("wrong"),
        type("CredentialUnavailableError", (Exception,), {})("of somebody else's package"),
    ],
    ids=["ours", "azure-core's", "ValueError", "KeyError", "OSError", "same name elsewhere"],
)
def test_stops(family: Family, failure: Exception) -> None:
    """Any other failure ends the walk; it is the cause of the chain's own error."""
    last = made(family, TOKEN)
    chain = family.module.ChainedTokenCredential(made(family, UNAVAILABLE), made(family, failure), last)

    refused = refusal(family, chain)

    assert last.asked == []
    assert type(refused).__name__ == "ClientAuthenticationError"
    assert refused.__cause__ is failure
    assert [(name, error) for name, error in refused.attempts] == [("Both", UNAVAILABLE), ("Both", failure)]
    assert not refused.all_unavailable


def test_nobody_could_try(family: Family) -> None:
    """All of them were unavailable: the chain's error is not one of those, but says so."""
    chain = family.module.ChainedTokenCredential(made(family, UNAVAILABLE), made(family, None))

    refused = refusal(family, chain)

    assert not isinstance(refused, CredentialUnavailableError)
    assert refused.all_unavailable
    assert [attempt.name for attempt in refused.attempts] == ["Both", "Both"]
    assert all(attempt.seconds >= 0 and attempt.went_on for attempt in refused.attempts)
    assert refused.__cause__ is None
    assert str(refused).splitlines()[:3] == [
        f"ChainedTokenCredential for {SCOPE} failed: no member gave a token.",
        "  Both: nothing here",
        "  Both: a token was wanted, it gave None",
    ]


def test_the_cause_comes_first(family: Family) -> None:
    """What ended the walk is told before what was passed over, and its fields are the chain's."""
    failure = ClientAuthenticationError(
        "AADSTS50076: second factor\nask again",
        error="interaction_required",
        error_codes=[50076],
        claims='{"access_token": {}}',
        correlation_id="an-id",
        retryable=True,
        retry_after=7,
    )
    chain = family.module.ChainedTokenCredential(made(family, UNAVAILABLE), made(family, failure))

    refused = refusal(family, chain)

    lines = str(refused).splitlines()
    assert lines[1:4] == ["  Both: AADSTS50076: second factor", "    ask again", "  Both: nothing here"]
    assert (refused.error, refused.error_codes, refused.claims) == (
        "interaction_required",
        [50076],
        '{"access_token": {}}',
    )
    assert (refused.correlation_id, refused.retryable, refused.retry_after) == ("an-id", True, 7)


def test_error_can_be_copied_and_pickled() -> None:
    """Attempts go with it."""
    chain = workload_identity.ChainedTokenCredential(made(BLOCKING, UNAVAILABLE))
    with pytest.raises(ClientAuthenticationError) as refused:
        chain.get_token(SCOPE)

    for twin in (copy.copy(refused.value), pickle.loads(pickle.dumps(refused.value))):  # noqa: S301 - our own
        assert twin.attempts[0].name == "Both"
        assert twin.attempts[0].went_on
        assert str(twin.attempts[0].error) == "nothing here"
        assert twin.all_unavailable


class _Blocking:
    module = workload_identity


BLOCKING: Any = _Blocking()


@pytest.mark.parametrize("has", ["get_token", "get_token_info", "both"])
def test_method_and_options(family: Family, has: str) -> None:
    """The method that was called is called; where a member lacks it, the other one, with the same options."""
    options = {"claims": '{"a": 1}', "tenant_id": "another", "enable_cae": True}
    for wanted, answer in (("get_token", TOKEN), ("get_token_info", INFO)):
        member = made(family, INFO if has == "get_token_info" else answer, has)
        chain = family.module.ChainedTokenCredential(member)
        if wanted == "get_token":
            result = family.do(chain.get_token, SCOPE, "and/another", **options)
        else:
            result = family.do(chain.get_token_info, SCOPE, "and/another", options=options)

        assert member.asked == [(wanted if has == "both" else has, (SCOPE, "and/another"), options)]
        assert isinstance(result, AccessToken if wanted == "get_token" else AccessTokenInfo)
        assert (result.token, result.expires_on) == ("a-token", 2_000_000_000)


def test_nothing_that_is_empty_is_passed_on(family: Family) -> None:
    """An older member that knows no options can be asked without any."""

    class Plain(Member):
        def get_token(self, *scopes: str) -> Any:
            return self.given("get_token", scopes, {}, family.module)

    chain = family.module.ChainedTokenCredential(Plain(TOKEN))

    assert family.do(chain.get_token, SCOPE, claims="", tenant_id="").token == "a-token"
    assert family.do(chain.get_token_info, SCOPE).token == "a-token"


def test_unknown_keywords_go_on(family: Family) -> None:
    """What newer callers give is the members' to understand."""
    member = made(family, TOKEN)
    chain = family.module.ChainedTokenCredential(member)
    family.do(chain.get_token, SCOPE, newer="thing")

    assert member.asked == [("get_token", (SCOPE,), {"newer": "thing"})]


def test_proof_of_possession(family: Family) -> None:
    """Only who has `get_token_info` can be asked for it."""
    older = made(family, TOKEN, "get_token")
    newer = made(family, INFO, "get_token_info")
    chain = family.module.ChainedTokenCredential(older, newer)

    assert family.do(chain.get_token_info, SCOPE, options={"pop": {"nonce": "n"}}) is INFO
    assert older.asked == []
    assert newer.asked == [("get_token_info", (SCOPE,), {"pop": {"nonce": "n"}})]


def test_list_of_scopes(family: Family) -> None:
    """A list is taken as its items are."""
    member = made(family, TOKEN)
    family.do(family.module.ChainedTokenCredential(member).get_token, [SCOPE, "b"])

    assert member.asked[0][1] == (SCOPE, "b")


@pytest.mark.parametrize("scopes", [(), ("",), ([],), ("a\nb",)])
def test_misuse_is_no_walk(family: Family, scopes: Any) -> None:
    """Who asks for nothing gets a ValueError, and nobody is asked."""
    member = made(family, TOKEN)
    chain = family.module.ChainedTokenCredential(member)

    with pytest.raises(ValueError, match="scope"):
        family.do(chain.get_token, *scopes)
    with pytest.raises(ValueError, match="scope"):
        family.do(chain.get_token_info, *scopes)
    assert member.asked == []


def test_members_must_be_credentials(family: Family) -> None:
    """None at all, a list, and members of the other family are told at once."""
    module, other = (
        (workload_identity, workload_identity.aio)
        if family.module is workload_identity
        else (workload_identity.aio, workload_identity)
    )
    member = made(family, TOKEN)

    with pytest.raises(ValueError, match="at least one credential"):
        module.ChainedTokenCredential()
    with pytest.raises(ValueError, match="found list"):
        module.ChainedTokenCredential([member])
    stranger = other.VisualStudioCodeCredential()
    for inside in (stranger, other.ChainedTokenCredential(stranger)):
        with pytest.raises(ValueError, match=f"import all of them from {module.__name__}$"):
            module.ChainedTokenCredential(member, inside)


def test_members_can_be_seen(family: Family) -> None:
    """`credentials` is a tuple; `repr` names the members as users do."""
    module = family.module
    member = made(family, TOKEN)
    inner = module.ChainedTokenCredential(module.VisualStudioCodeCredential())
    chain = module.ChainedTokenCredential(member, inner)

    assert chain.credentials == (member, inner)
    assert repr(chain) == "<ChainedTokenCredential of Both, ChainedTokenCredential>"
    assert repr(inner) == "<ChainedTokenCredential of VisualStudioCodeCredential>"


def test_nested_chain_stops_the_outer(family: Family) -> None:
    """A chain's failure is never one of those that a chain passes over."""
    module = family.module
    last = made(family, TOKEN)
    chain = module.ChainedTokenCredential(module.ChainedTokenCredential(made(family, UNAVAILABLE)), last)

    refused = refusal(family, chain)

    assert last.asked == []
    assert [name for name, _ in refused.attempts] == ["ChainedTokenCredential"]
    assert isinstance(refused.__cause__, ClientAuthenticationError)
    assert refused.__cause__.all_unavailable


def test_members_know_who_asks(family: Family) -> None:
    """In a chain the flag is up, after a nested chain still, and outside it is as it was."""
    module = family.module
    before, after = made(family, UNAVAILABLE), made(family, TOKEN)
    inner = module.ChainedTokenCredential(made(family, TOKEN))

    class Nesting(Member):
        def get_token(self, *scopes: str, **_: Any) -> Any:
            self.seen.append((IN_CHAIN.get(), IN_DEFAULT_CHAIN.get()))
            if module is workload_identity:
                inner.get_token(*scopes)
                self.seen.append((IN_CHAIN.get(), IN_DEFAULT_CHAIN.get()))
                raise UNAVAILABLE
            return self.later(scopes)

        async def later(self, scopes: tuple[str, ...]) -> Any:
            await inner.get_token(*scopes)
            self.seen.append((IN_CHAIN.get(), IN_DEFAULT_CHAIN.get()))
            raise UNAVAILABLE

    nesting = Nesting()
    chain = module.ChainedTokenCredential(before, nesting, after)
    seen: list[bool] = []

    async def watched() -> None:
        await chain.get_token(SCOPE)
        seen.append(IN_CHAIN.get())

    if module is workload_identity:
        chain.get_token(SCOPE)
        seen.append(IN_CHAIN.get())
    else:
        family.runner.run(watched())

    assert before.seen + nesting.seen + after.seen == [(True, False)] * 4
    assert seen == [False]


def test_flag_comes_down_after_a_failure(family: Family) -> None:
    """And after a failing chain."""
    context = contextvars.copy_context()
    chain = family.module.ChainedTokenCredential(made(family, REFUSED))

    def failing() -> bool:
        refusal(family, chain)
        return IN_CHAIN.get()

    assert context.run(failing) is False


def test_records(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """An INFO line names who gave the token, a WARNING has all that was said; inside a chain, DEBUG."""
    caplog.set_level(logging.DEBUG, "workload_identity")
    module = family.module
    family.do(module.ChainedTokenCredential(made(family, UNAVAILABLE), made(family, TOKEN)).get_token, SCOPE)
    family.do(
        module.ChainedTokenCredential(module.ChainedTokenCredential(made(family, TOKEN))).get_token, SCOPE
    )
    refusal(family, module.ChainedTokenCredential(module.VisualStudioCodeCredential(), made(family, REFUSED)))

    told = [(record.levelname, record.getMessage().split(" in ")[0]) for record in caplog.records]
    assert told[:3] == [
        ("INFO", f"ChainedTokenCredential for {SCOPE}: Both gave a token,"),
        ("DEBUG", f"ChainedTokenCredential for {SCOPE}: Both gave a token,"),
        ("INFO", f"ChainedTokenCredential for {SCOPE}: ChainedTokenCredential gave a token,"),
    ]
    assert told[3][0] == "DEBUG"
    assert told[3][1].startswith(f"VisualStudioCodeCredential for {SCOPE}: this takes Microsoft's")
    assert told[4][0] == "WARNING"
    assert "Both: AADSTS7000215: wrong secret" in told[4][1]
    assert "VisualStudioCodeCredential: this takes Microsoft's" in told[4][1]
    assert len(told) == 5


def test_secrets_of_members_are_masked(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """What a foreign member's error quotes is redacted in message and record."""
    secret = "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2VjcmV0"
    chain = family.module.ChainedTokenCredential(made(family, OSError(f"answered {secret}")))

    refused = refusal(family, chain)

    assert secret not in str(refused)
    assert secret not in caplog.text
    assert "answered ***" in str(refused)


def test_foreign_error_with_a_response(family: Family) -> None:
    """The answer that an azure-core error holds is the chain's `response`."""

    class Response:
        status_code = 401
        reason = "No"

    failure = azure.core.exceptions.ClientAuthenticationError(message="theirs")
    failure.response = Response()  # type: ignore[assignment]

    refused = refusal(family, family.module.ChainedTokenCredential(made(family, failure)))

    assert refused.status_code == 401


@pytest.mark.usefixtures("pod")
def test_azure_identitys_own_credentials(family: Family) -> None:
    """They can be members: what they cannot try is passed over, and their chain's refusal stops."""
    theirs = azure.identity if family.module is workload_identity else azure.identity.aio
    environment = theirs.EnvironmentCredential()
    chain = family.module.ChainedTokenCredential(environment, family.credential())

    assert family.do(chain.get_token, SCOPE).expires_on > time.time()
    refused = refusal(
        family,
        family.module.ChainedTokenCredential(theirs.ChainedTokenCredential(environment), family.credential()),
    )
    assert [name for name, _ in refused.attempts] == ["ChainedTokenCredential"]
    assert isinstance(refused.__cause__, azure.core.exceptions.ClientAuthenticationError)


@pytest.mark.usefixtures("pod")
def test_ours_in_azure_identitys_chain(family: Family) -> None:
    """A chain of ours is a member of theirs, and a credential of ours is passed over there."""
    theirs = azure.identity if family.module is workload_identity else azure.identity.aio
    ours = family.module.ChainedTokenCredential(family.credential())
    chain = theirs.ChainedTokenCredential(family.module.VisualStudioCodeCredential(), ours)

    assert family.do(chain.get_token, SCOPE).expires_on > time.time()
    assert family.do(chain.get_token_info, SCOPE).token_type == "Bearer"


def test_closing(family: Family) -> None:
    """Closing closes the members that can be closed, whatever one of them does; again as well."""

    class Closable(Member):
        def get_token(self, *scopes: str, **_: Any) -> Any:
            return self.given("get_token", scopes, {}, family.module)

        def close(self) -> Any:
            self.log.append("closed")

            async def nothing() -> None:
                """Nothing is left to do."""

            return None if family.module is workload_identity else nothing()

    class Failing(Closable):
        def close(self) -> Any:
            self.log.append("closed")
            raise OSError("cannot be closed")

    first, bad, last, without = Closable(TOKEN), Failing(TOKEN), Closable(TOKEN), made(family, TOKEN)
    chain = family.module.ChainedTokenCredential(first, bad, without, last)
    with pytest.raises(OSError, match="cannot be closed"):
        family.do(chain.close)

    assert [first.log, bad.log, last.log] == [["closed"]] * 3
    with pytest.raises(ValueError, match="is closed"):
        family.do(chain.get_token, SCOPE)
    good = family.module.ChainedTokenCredential(without)
    family.do(good.close)
    family.do(good.close)


def test_contexts(family: Family) -> None:
    """Entering a chain enters its members, leaving leaves them; who is entered is left on a failure."""
    log: list[str] = []

    class Sync(Member):
        def __init__(self, name: str) -> None:
            super().__init__(TOKEN)
            self.name = name

        def get_token(self, *_: str, **__: Any) -> Any:
            return TOKEN

        def __enter__(self) -> Any:
            if self.name == "bad":
                raise OSError(self.name)
            log.append(f"into {self.name}")
            return self

        def __exit__(self, *_: object) -> None:
            log.append(f"out of {self.name}")

    class Async(Sync):
        async def __aenter__(self) -> Any:
            return self.__enter__()

        async def __aexit__(self, *_: object) -> None:
            self.__exit__()

    kind = Sync if family.module is workload_identity else Async
    chain = family.module.ChainedTokenCredential(kind("a"), made(family, TOKEN), kind("b"))

    assert family.enter(chain) is chain
    assert log == ["into a", "into b", "out of a", "out of b"]
    log.clear()
    with pytest.raises(OSError, match="bad"):
        family.enter(family.module.ChainedTokenCredential(kind("a"), kind("bad")))
    assert log == ["into a", "out of a"]


@pytest.mark.usefixtures("pod")
def test_token_provider_holds_a_chains_token(family: Family) -> None:
    """A chain holds nothing, so the provider does."""
    member = made(family, AccessTokenInfo("a-token", int(time.time()) + 3600))
    provider = family.module.get_bearer_token_provider(family.module.ChainedTokenCredential(member), SCOPE)

    assert [family.do(provider) for _ in range(3)] == ["a-token"] * 3
    assert len(member.asked) == 1


def test_blocking_chain_and_a_function_that_awaits() -> None:
    """A foreign member of the other family is told by what it gives, and nothing is left unawaited."""

    class Foreign:
        async def get_token(self, *_: str, **__: Any) -> Any:
            return TOKEN

    chain = workload_identity.ChainedTokenCredential(Foreign())

    with pytest.raises(ClientAuthenticationError, match=r"workload_identity\.aio"):
        chain.get_token(SCOPE)


async def test_cancelling_a_chain() -> None:
    """Cancelling a call is no failure of a member: the next is not asked, and the flag comes down."""
    entered = asyncio.Event()

    class Hanging:
        async def get_token(self, *_: str, **__: Any) -> Any:
            entered.set()
            await asyncio.Event().wait()

    class Family:
        module = workload_identity.aio

    last = made(Family(), TOKEN)
    chain = workload_identity.aio.ChainedTokenCredential(Hanging(), last)
    task = asyncio.create_task(chain.get_token(SCOPE))
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert last.asked == []
    assert not IN_CHAIN.get()


def test_many_threads() -> None:
    """A chain has no state that callers could disturb: each is told of its own scope."""

    class Echo:
        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            time.sleep(0.001)
            return AccessToken(scopes[0], 2_000_000_000)

    chain = workload_identity.ChainedTokenCredential(made(BLOCKING, UNAVAILABLE), Echo())
    given: list[tuple[str, str]] = []

    def ask(scope: str) -> None:
        given.append((scope, chain.get_token(scope).token))

    threads = [threading.Thread(target=ask, args=(f"scope-{number}",)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(given) == 30
    assert all(scope == token for scope, token in given)


@pytest.mark.usefixtures("pod")
def test_with_the_real_thing(family: Family) -> None:
    """Unavailable, then workload identity against the stand-in; a refusal there stops with its fields."""
    chain = family.module.ChainedTokenCredential(
        family.module.VisualStudioCodeCredential(), family.credential()
    )

    assert family.do(chain.get_token, SCOPE).token
    stranger = family.module.ChainedTokenCredential(
        family.credential(client_id="00000000-0000-0000-0000-00000000dead"), chain
    )
    refused = refusal(family, stranger)
    assert refused.error_codes
    assert refused.correlation_id
    assert refused.response.status_code in {400, 401}
