"""The pages under docs/: the generated ones are what the code says, every command parses, no link is dead."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer

from selfreward import cli
from selfreward.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^(?:    | *\$ )(selfreward [^\n#]*?)\s*(?:#.*)?$", re.MULTILINE)
INLINE = re.compile(r"`(selfreward [a-z][^`]*)`")
ELLIPSIS = ("…", "...", "ARGUMENTS", " --PAGE")


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """`scripts/make_docs.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("name", ["recipes.md", "store.md"])
def test_a_generated_page_is_what_the_code_says(maker: ModuleType, name: str) -> None:
    kept = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert kept == maker.pages()[name], f"docs/{name} is stale: run `python scripts/make_docs.py`"


def test_every_key_of_a_recipe_has_a_row(maker: ModuleType) -> None:
    """Each leaf of a whole recipe's own dump, signals told once: the page is complete whatever its walk."""
    page = maker.recipe_page()

    def leaves(data: dict[str, object], path: str) -> list[str]:
        found = []
        for key, value in data.items():
            here = f"{path}.{key}" if path else key
            found += leaves(value, here) if isinstance(value, dict) else [here]
        return found

    dump = Recipe.model_validate({"model": "m"}).model_dump(by_alias=True)
    for key in leaves(dump, ""):
        told = re.sub(r"^gate\.limits\.\w+\.", "gate.limits.SIGNAL.", key)
        assert f"| `{told}` |" in page, key
    assert "| `rewards[].best` | `16` |" in page


def test_defaults_are_those_in_force_and_a_source_is_of_its_own_value(maker: ModuleType) -> None:
    page = maker.recipe_page()
    (invented,) = re.findall(r"\| `prompts\.sampling\.temperature` \|.*", page)
    (answered,) = re.findall(r"\| `candidates\.sampling\.temperature` \|.*", page)
    assert "`0.6`" in invented and "Self-Rewarding LMs" not in invented  # the paper's is 0.7
    assert "`0.7`" in answered and "Self-Rewarding LMs" in answered


def test_every_column_of_the_store_has_a_row(maker: ModuleType) -> None:
    page = maker.store_page()
    for table, column in (("judgement", "fault"), ("pair", "margin"), ("mining", "outcome")):
        part = page.split(f"## `{table}`")[1].split("\n## ")[0]
        assert f"| `{column}` |" in part or column == "margin", (table, column)  # margin is generated
    assert "pair_is_sound" in page and "CREATE VIEW pair_of" in page


def shown() -> list[tuple[str, str]]:
    """Every command in the README and the docs, with the page it stands in."""
    found = []
    for path in [ROOT / "README.md", *DOCS]:
        text = path.read_text(encoding="utf-8")
        for line in {*COMMAND.findall(text), *INLINE.findall(text)}:
            if not any(e in line for e in ELLIPSIS):
                found.append((path.name, line))
    return sorted(found)


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_command_that_is_shown_is_one_the_program_knows(page: str, line: str) -> None:
    group = typer.main.get_command(cli.app)
    words = shlex.split(line.replace("|", " "), comments=True)[1:]
    context = typer.Context(group, info_name="selfreward")
    while words and hasattr(group, "commands"):
        assert words[0] in group.commands, f"{page}: {line}"
        group = group.commands[words.pop(0)]
        context = typer.Context(group, parent=context)
    if "[" in line or (not words and page != "README.md"):  # a command's name, or its usage
        return
    parser = group.make_parser(context)
    _, _, order = parser.parse_args(list(words))
    assert order is not None


def test_every_page_is_linked_from_the_readme_and_no_link_is_dead() -> None:
    for path in DOCS:
        assert f"docs/{path.name}" in README, f"{path.name} is in no line of the README"
    for path in [ROOT / "README.md", *DOCS]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_what_failures_md_quotes_is_what_the_program_says() -> None:
    """First cells that quote an error, against all text constants of the package (f-strings in parts)."""
    said = " ".join(
        node.value
        for path in (ROOT / "selfreward").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = re.findall(
        r"^\| ([^|]+) \|", (ROOT / "docs/failures.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    quoted = [q for row in rows for q in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 20
    for quote in quoted:
        assert quote in said or quote.startswith(("selfreward ", "compare")), quote
