"""What the README says is true: its commands parse, its tree is the tree, its files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from selfreward import cli
from selfreward.stages.seeds import read_lines

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^\s+(selfreward [^\n#]*?)\s*(?:#.*)?$", README, re.MULTILINE)))


def test_the_two_commands_stand_at_the_top() -> None:
    top = README[: README.index("```")]
    assert "make demo" in top and "make test" in top
    for name in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_readme_is_one_the_program_knows(line: str) -> None:
    group = typer.main.get_command(cli.app)
    words = shlex.split(line)[1:]
    context = typer.Context(group, info_name="selfreward")
    while words and hasattr(group, "commands"):
        assert words[0] in group.commands, line
        group = group.commands[words.pop(0)]
        context = typer.Context(group, parent=context)
    group.make_parser(context).parse_args(words) if hasattr(group, "make_parser") else group.parse_args(
        context, words
    )


def test_the_readme_shows_some_commands() -> None:
    assert len(COMMANDS) >= 8


def test_the_tree_names_every_module_and_no_other() -> None:
    tree = README[README.index("## What is where") :]
    for path in sorted((ROOT / "selfreward").iterdir()):
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        assert re.search(rf"(?<![\w/]){re.escape(path.name)}\b", tree), f"{path.name} is not in the tree"
    for script in (ROOT / "scripts").glob("*.py"):
        assert re.search(rf"\b{re.escape(script.name)}\b", tree), f"{script.name} is not in the tree"
    pages = re.findall(r"^  (\w+\.md)\b", tree, re.MULTILINE)
    assert len(pages) == len(set(pages)), "a page of docs/ is in the tree twice"
    folders = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")]  # .venv is not ours
    here = {p.name for folder in folders for p in folder.rglob("*")} | {p.name for p in ROOT.iterdir()}
    for name in re.findall(r"\b([\w-]+\.(?:py|md|yaml|jsonl|txt|toml))\b", tree):
        assert name in here, f"{name} is in the tree and nowhere else"


def test_what_the_readme_counts_is_so() -> None:
    seeds = read_lines(ROOT / "prompts/seed/instructions.jsonl", ("prompt", "answer"))
    judged = read_lines(ROOT / "prompts/seed/judge.jsonl", ("prompt", "answer", "score", "judgement"))
    probes = read_lines(ROOT / "prompts/probe.jsonl", ("prompt",))
    assert f"({len(seeds)} with answers)" in README and len(seeds) >= 175
    assert f"({len(judged)} whose score" in README and len(judged) >= 60
    assert f"{len(probes)} held-out prompts" in README


def test_the_judge_examples_are_what_their_script_makes(tmp_path: Path) -> None:
    kept = (ROOT / "prompts/seed/judge.jsonl").read_bytes()
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import make_judge_seed as made; "
        "made.SEED = pathlib.Path(sys.argv[2]); made.main()"
    )
    (tmp_path / "instructions.jsonl").write_bytes((ROOT / "prompts/seed/instructions.jsonl").read_bytes())
    subprocess.run([sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)], check=True)
    assert (tmp_path / "judge.jsonl").read_bytes() == kept


def test_no_prompt_of_ours_is_a_near_duplicate_of_a_held_out_one() -> None:
    """What trains must not evaluate: seeds and the proof's prompts against all that is held out."""
    from selfreward.near import Neighbours

    held_out = Neighbours(0.7)
    for name in ("probe.jsonl", "prove/held_out.jsonl", "eval/integers.jsonl", "eval/two-turn.jsonl"):
        for row in read_lines(ROOT / "prompts" / name, ()):
            for text in [row.get("prompt"), row.get("problem"), *row.get("turns", [])]:
                if text:
                    held_out.add(text, name)
    for name in ("seed/instructions.jsonl", "prove/train.jsonl"):
        for row in read_lines(ROOT / "prompts" / name, ("prompt",)):
            assert held_out.nearest(row["prompt"]) is None, row["prompt"]
