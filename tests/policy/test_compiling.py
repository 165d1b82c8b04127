"""What a namespace's annotations are compiled into."""

from dataclasses import dataclass

import pytest

from workload_identity_operator import contract
from workload_identity_operator.compiling import MOST_PROBLEMS, compile_identities, status_of
from workload_identity_operator.token_endpoint import TokenEndpoint

CLIENT = "11111111-2222-3333-4444-555555555555"
NOW = "2026-11-20T10:00:00Z"


@dataclass(frozen=True)
class Defaults:
    """The operator's settings, as far as they matter."""

    tenant_id: str = "tenant"
    authority_host: str = "https://login.example/"
    audience: str = "api://audience"
    token_endpoint: TokenEndpoint | None = None
    legacy_path: bool = False


def compiled(accounts: dict[str, dict[str, str]]):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return what these ServiceAccounts are compiled into; there is something."""
    found = compile_identities(accounts, Defaults())
    assert found
    return found


def test_settings_and_annotations() -> None:
    """The settings stand once, each identity has what is its own."""
    accounts = {
        "b": {contract.CLIENT_ID: CLIENT, contract.TENANT_ID: "other", contract.EXPIRATION: "+07200"},
        "a": {contract.CLIENT_ID: CLIENT},
    }

    found = compiled(accounts)

    assert found.spec == {
        "tenantID": "tenant",
        "authorityHost": "https://login.example/",
        "audience": "api://audience",
        "identities": {
            "a": {"clientID": CLIENT, "expirationSeconds": 3600},
            "b": {"clientID": CLIENT, "tenantID": "other", "expirationSeconds": 7200},
        },
    }
    assert (found.left_out, found.truncated) == ({}, False)


def test_absent_and_empty_differ_for_the_tenant_only() -> None:
    """An empty client id is none; an empty tenant id leaves its variable out, an absent one does not."""
    found = compiled({"a": {contract.CLIENT_ID: "", contract.TENANT_ID: ""}, "b": {contract.EXPIRATION: ""}})

    assert found.spec["identities"] == {
        "a": {"tenantID": "", "expirationSeconds": 3600},
        "b": {"expirationSeconds": 3600},
    }


def test_no_annotated_account_needs_no_table() -> None:
    """A namespace without any has no PodWiring."""
    assert compile_identities({}, Defaults()) is None


@pytest.mark.parametrize("expiration", ["1h", "3599", "86401", " 3600", "9" * 30])
def test_account_that_cannot_be_compiled_is_left_out(expiration: str) -> None:
    """It is the webhook's, which refuses its pods; the others are in, and the reason is told."""
    accounts = {"a": {contract.EXPIRATION: expiration}, "b": {contract.CLIENT_ID: CLIENT}}

    found = compiled(accounts)

    assert found.spec["identities"].keys() == {"b"}
    assert found.left_out.keys() == {"a"}
    assert contract.EXPIRATION in found.left_out["a"]


def test_order_of_events_does_not_matter() -> None:
    """Two replicas that heard of the ServiceAccounts in another order write the same."""
    accounts = {f"sa-{number}": {contract.CLIENT_ID: f"{number}" * 40_000} for number in range(9)} | {
        f"sb-{number}": {contract.CLIENT_ID: f"{number}" * 80_000} for number in range(9)
    }

    forwards, backwards = compiled(accounts), compiled(dict(reversed(accounts.items())))

    assert list(forwards.spec["identities"].items()) == list(backwards.spec["identities"].items())
    assert list(forwards.left_out.items()) == list(backwards.left_out.items())
    assert forwards.truncated


def test_what_does_not_fit_stays_out_by_name() -> None:
    """The first by name fill the object; a smaller one after a larger one may still fit."""
    accounts = {name: {contract.CLIENT_ID: "x" * 400_000} for name in ("a", "b", "c")}
    accounts["d"] = {contract.CLIENT_ID: CLIENT}

    found = compiled(accounts)

    assert found.spec["identities"].keys() == {"a", "b", "d"}
    assert list(found.left_out) == ["c"]
    assert "900000 bytes" in found.left_out["c"]


@pytest.mark.parametrize("character", ["<", ">", "&", "\u2028", "é"])
def test_characters_count_as_api_servers_write_them(character: str) -> None:
    """Six bytes each, where a table that is too long could never be stored, and the former one stayed."""
    found = compiled({"a": {contract.CLIENT_ID: character * 160_000}, "b": {contract.CLIENT_ID: CLIENT}})

    assert found.spec["identities"].keys() == {"b"}
    assert found.truncated


def test_status_tells_counts_conditions_and_the_first_problems() -> None:
    """However many are left out, a status names no more than so many of them."""
    accounts = {f"sa-{number:02}": {contract.EXPIRATION: "1h"} for number in range(30)}
    accounts["whole"] = {contract.CLIENT_ID: CLIENT}

    status = status_of(compiled(accounts), 7, {}, NOW)

    assert (status["observedGeneration"], status["identities"], status["leftOut"]) == (7, 1, 30)
    assert [problem["serviceAccount"] for problem in status["problems"]] == [
        f"sa-{number:02}" for number in range(MOST_PROBLEMS)
    ]
    assert {condition["type"]: condition["status"] for condition in status["conditions"]} == {
        "Compiled": "False",
        "Truncated": "False",
    }
    assert "30 of 31" in status["conditions"][0]["message"]


def test_conditions_that_stay_keep_their_time() -> None:
    """A status that says the same is the same, whenever it is computed; a change has its own time."""
    well = compiled({"a": {contract.CLIENT_ID: CLIENT}})
    ill = compiled({"a": {contract.EXPIRATION: "1h"}})
    first = status_of(well, 1, {}, NOW)

    again = status_of(well, 1, first, "2027-01-01T00:00:00Z")
    changed = status_of(ill, 2, first, "2027-01-01T00:00:00Z")

    assert again == first
    assert [condition["lastTransitionTime"] for condition in changed["conditions"]] == [
        "2027-01-01T00:00:00Z",
        NOW,
    ]
