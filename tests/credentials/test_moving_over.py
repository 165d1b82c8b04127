"""Moving from azure-identity is changing an import: its names, its parameters, its defaults are ours."""

from types import ModuleType

import pytest

from testkit.migration import (
    FAMILIES,
    PAGE,
    accepted,
    credentials,
    keywords,
    page,
    parameters,
)

CREDENTIALS = [
    pytest.param(theirs, name, id=f"{theirs.__name__}.{name}")
    for theirs in FAMILIES
    for name in credentials(theirs)
]


@pytest.mark.parametrize("theirs", FAMILIES)
def test_every_name_is_there(theirs: ModuleType) -> None:
    """Whatever a program imports from azure-identity it finds here."""
    assert set(theirs.__all__) <= set(FAMILIES[theirs].__all__)


def test_both_families_have_all_credentials() -> None:
    """No credential is for blocking programs alone."""
    blocking, awaiting = (set(credentials(ours)) for ours in FAMILIES.values())

    assert blocking == awaiting


@pytest.mark.parametrize(("theirs", "name"), CREDENTIALS)
def test_every_keyword_is_taken(theirs: ModuleType, name: str) -> None:
    """All that azure-identity's constructor takes, or says that it takes, ours takes."""
    assert keywords(getattr(theirs, name)) <= accepted(getattr(FAMILIES[theirs], name))


@pytest.mark.parametrize(("theirs", "name"), CREDENTIALS)
def test_parameters_stand_alike(theirs: ModuleType, name: str) -> None:
    """What can be given by position stands at the same place, and defaults are the same."""
    known = {parameter.name: parameter for parameter in parameters(getattr(FAMILIES[theirs], name))}
    ours = [parameter for parameter in known.values() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    wanted = [
        parameter
        for parameter in parameters(getattr(theirs, name))
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]

    assert [parameter.name for parameter in ours][: len(wanted)] == [parameter.name for parameter in wanted]
    for parameter in parameters(getattr(theirs, name)):
        twin = known.get(parameter.name)
        if twin is None:  # taken as one of the options
            continue
        nothing = (None, "", (), parameter.empty)
        same = twin.default == parameter.default or (twin.default in nothing and parameter.default in nothing)
        assert same, f"{parameter.name}: {twin.default!r} here, {parameter.default!r} there"


@pytest.mark.parametrize("theirs", FAMILIES)
def test_methods_are_there(theirs: ModuleType) -> None:
    """Whatever a program calls on a credential it can call here."""
    for name, credential in credentials(theirs).items():
        methods = {method for method in dir(credential) if not method.startswith("_")}
        assert methods <= set(dir(getattr(FAMILIES[theirs], name))), name


def test_page_is_made_of_this() -> None:
    """docs/moving-from-azure-identity.md says what the libraries are now; `make manifests` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
