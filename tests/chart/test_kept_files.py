"""The files that are made from the chart and kept in the repository."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from testkit import manifests
from testkit.manifests import Value, made_files, read_values, static, table, with_table


def test_they_are_what_the_chart_gives() -> None:
    """Whoever changed the chart has run `make manifests`."""
    stale = [path.name for path, wanted in made_files().items() if path.read_text("utf-8") != wanted]

    assert stale == []


def test_the_static_manifest_has_two_variables() -> None:
    """Envsubst replaces whatever looks like a variable, so there is nothing else of that look."""
    text = (manifests.ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8")

    assert set(re.findall(r"\$.\w+.", text)) == {"${AZURE_TENANT_ID}", "${AZURE_ENVIRONMENT}"}
    assert "Helm" not in text


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that should say "new", beside which nothing is made."""
    path = tmp_path / "file"
    monkeypatch.setattr(manifests, "ROOT", tmp_path)
    monkeypatch.setattr(manifests, "made_files", lambda: {path: "new"})
    return path


@pytest.mark.parametrize("there", ["old", None])
def test_check_tells_what_is_stale(made: Path, there: str | None) -> None:
    """With --check nothing is written, and the message says what to run."""
    if there:
        made.write_text(there, encoding="utf-8")

    ended = CliRunner().invoke(manifests.main, ["--check"])

    assert (ended.exit_code, ended.stderr) == (
        1,
        "Not what the chart gives: file. Run `make manifests` and commit.\n",
    )
    assert (made.read_text("utf-8") if made.exists() else None) == there


def test_writes_what_is_stale(made: Path) -> None:
    """Without --check the file is written; after that there is nothing to tell."""
    assert CliRunner().invoke(manifests.main).output == "Written: file\n"
    assert made.read_text("utf-8") == "new"
    assert CliRunner().invoke(manifests.main, ["--check"]).exit_code == 0


def test_a_chart_that_cannot_be_made_into_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is one line, the status 1."""

    def made_files() -> dict[Path, str]:
        raise ValueError("values.yaml: a needs a comment")

    monkeypatch.setattr(manifests, "made_files", made_files)

    ended = CliRunner().invoke(manifests.main)

    assert (ended.exit_code, ended.stderr) == (1, "values.yaml: a needs a comment\n")


def test_values_are_read_with_their_comments() -> None:
    """In order, with the names around them; an object with a typed comment is one value."""
    text = """
# Not about the key below.

# A heading without a type.
a:
  # (integer, seconds) How long
  # it takes.
  b: 5
# (object) All of it.
c:
  d: [x|y]
"""

    assert read_values(text) == [
        Value("a.b", "integer, seconds", "5", "How long it takes."),
        Value("c", "object", '{"d": ["x|y"]}', "All of it."),
    ]


@pytest.mark.parametrize("text", ["a: 1", "# (string)\na: x", "a:\n  b: 1", "a: {}"])
def test_a_value_without_a_comment_is_refused(text: str) -> None:
    """No value goes undescribed."""
    with pytest.raises(ValueError, match=r"values\.yaml: a(\.b)? needs a comment above it"):
        read_values(text)


def test_the_table_is_markdown() -> None:
    """One row for a value; what would end a cell is escaped."""
    assert table([Value("a", "string", '"x|y"', "Effect.")]) == (
        "| Value | Type | Default | Effect |\n"
        "| --- | --- | --- | --- |\n"
        '| `a` | string | `"x\\|y"` | Effect. |\n'
    )


def test_the_table_goes_between_its_marks() -> None:
    """What is around it stays; without the marks there is no place for it."""
    readme = "before\n<!-- values -->\nold\n<!-- /values -->\nafter\n"

    assert with_table(readme, "new\n") == "before\n<!-- values -->\n\nnew\n\n<!-- /values -->\nafter\n"
    with pytest.raises(ValueError, match="needs the lines <!-- values --> and <!-- /values -->"):
        with_table("no marks", "new\n")


def test_a_rendering_without_what_is_replaced_is_refused() -> None:
    """A template that says a thing in another way must not end up in the manifest unnoticed."""
    with pytest.raises(ValueError, match="the rendered chart has no 'AZURE_TENANT_ID"):
        static("kind: ConfigMap\n")
