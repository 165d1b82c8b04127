"""Keywords of a credential: taken, refused, and warned about."""

import warnings
from typing import Any

import pytest
from azure.core.pipeline.policies import RetryMode

from workload_identity import WorkloadIdentityCredential
from workload_identity.options import Options

OWN = {"tenant_id": "a-tenant", "client_id": "a-client", "token_file_path": "/no/file"}


def test_defaults_let_nobody_hang() -> None:
    """Connecting, silence and a whole call have an end."""
    options = Options({})

    assert (options.connection_timeout, options.read_timeout, options.timeout) == (10, 30, 120)


def test_none_is_not_given() -> None:
    """A keyword that is None leaves the default."""
    assert Options({"timeout": None, "headers": None}) == Options({})


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"b": "2", "a": "1"}},
        {"proxies": {"https": "http://proxy"}},
        {"retry_on_status_codes": [404, 403]},
        {"connection_cert": ("a", "b")},
        {"transport": object()},
    ],
)
def test_equal_options_are_equal(given: dict[str, Any]) -> None:
    """Requests that are sent alike are one request, so options compare and hash by what they say."""
    assert Options(given) == Options(dict(given))
    assert hash(Options(given)) == hash(Options(dict(given)))
    assert Options(given) != Options({})


def test_transport_without_a_hash() -> None:
    """Whatever a transport is, options with it can be compared."""
    assert hash(Options({"transport": []})) != hash(Options({}))


@pytest.mark.parametrize("mode", ["fixed", "Fixed", RetryMode.Fixed])
def test_retry_mode_of_azure_core(mode: object) -> None:
    """azure-core's enumeration is understood."""
    assert Options({"retry_mode": mode}).retry_mode == "fixed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1),
        ("timeout", "5"),
        ("read_timeout", float("nan")),
        ("retry_total", True),
        ("retry_mode", "sometimes"),
        ("retry_on_status_codes", 429),
        ("connection_cert", 7),
        ("headers", "planted"),
        ("proxies", "http://me:planted@proxy.example"),
        ("token_file_timeout", -1),
        ("retry_on_propagation", "yes"),
        ("transport", object()),
    ],
)
def test_values_that_cannot_work_are_refused(name: str, value: object) -> None:
    """At construction, by the option's name; what may have a secret in it is not quoted."""
    with pytest.raises(ValueError, match=f"^{name}: ") as raised:
        WorkloadIdentityCredential(**OWN, **{name: value})  # type: ignore[arg-type]

    assert "planted" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("conection_timeout", "did you mean 'connection_timeout'"),
        ("tenantid", "did you mean 'tenant_id'"),
        ("additional_allowed_tenants", "did you mean 'additionally_allowed_tenants'"),
        ("zzz", "it has no effect"),
        ("policies", "give a `transport`"),
        ("cache_persistence_options", "held in memory"),
    ],
)
def test_unknown_keyword_gives_a_warning(name: str, near: str) -> None:
    """Code written for other versions runs, and a misspelt option does not pass silently."""
    with pytest.warns(UserWarning, match=near) as caught:
        WorkloadIdentityCredential(**OWN, **{name: 1})  # type: ignore[arg-type]

    assert caught[0].filename == __file__


def test_keywords_without_effect_are_taken() -> None:
    """What they ask for is so anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WorkloadIdentityCredential(
            tenant_id="a-tenant",
            client_id="a-client",
            token_file_path="/no/file",
            logging_enable=True,
            disable_instance_discovery=True,
        )


def test_type_checkers_know_every_option() -> None:
    """The typed keywords are those that are read, and those that are taken without effect."""
    import ast
    from pathlib import Path

    import workload_identity.options as module

    source = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    typed = [
        node
        for node in ast.walk(source)
        if isinstance(node, ast.ClassDef) and node.name in {"SendingOptions", "TransportOptions"}
    ]
    names = {
        node.target.id
        for node in (member for kind in typed for member in kind.body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert names == Options.__annotations__.keys() | module.WITHOUT_EFFECT
