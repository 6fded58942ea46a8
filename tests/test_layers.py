"""The ladder of imports and the rights of each layer, read from the source itself (DESIGN, section 4)."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfreward

ROOT = Path(selfreward.__file__).parent
# Lowest first. A name stands for a module or for a package with all its modules.
# fmt: off
LADDER: tuple[tuple[str, ...], ...] = (
    ("errors", "sections", "points"),
    ("files", "ids", "jsonl", "rewards", "stopping"),
    ("recipe", "records"),
    ("recipe_file",),
    ("protocols",),
    (
        "rubric", "pairs", "stats", "diversity", "collapse", "invent", "near", "audit", "shapes", "budget",
        "footprint", "wording", "outlook", "agreement", "calibration", "seeding",
    ),
    ("store", "migrations", "engines", "scorers", "training", "evaluation"),
    ("stages",),
    ("loop",),
    ("branching",),
    ("rollback",),
    (
        "cli", "report", "ui", "show", "export", "doctor", "runs", "grading_cli", "no_model", "plan",
        "policy_export", "probe", "asking_cli", "judge_cli", "track", "upkeep", "seed_cli",
        "pairs_cli", "options",
    ),
)
# fmt: on
RECIPES = {"recipe", "recipe_file", "rewards", "sections"}
PURE, HANDS, DOORS = LADDER[5], LADDER[6], LADDER[11]
LAYER = {name: height for height, names in enumerate(LADDER) for name in names}
# Within a rung names keep to themselves, but for these; `cli` may open every door.
SIDEWAYS = {
    ("diversity", "stats"), ("audit", "near"), ("pairs", "near"), ("training", "engines"),
    ("no_model", "show"), ("no_model", "runs"), ("grading_cli", "runs"), ("grading_cli", "show"),
    ("budget", "shapes"), ("footprint", "shapes"), ("footprint", "budget"), ("plan", "runs"),
    ("plan", "show"), ("policy_export", "runs"), ("collapse", "stats"), ("collapse", "diversity"),
    ("probe", "show"), ("agreement", "stats"), ("grading_cli", "asking_cli"), ("asking_cli", "runs"),
    ("asking_cli", "show"), ("scorers", "evaluation"), ("upkeep", "runs"),
    ("report", "runs"), ("report", "ui"), ("policy_export", "report"),
    ("pairs_cli", "options"), ("pairs_cli", "runs"), ("pairs_cli", "show"), ("pairs_cli", "no_model"),
    ("pairs_cli", "export"),
    ("calibration", "stats"), ("judge_cli", "runs"), ("judge_cli", "show"), ("judge_cli", "no_model"),
}  # fmt: skip

HEAVY = {"torch", "transformers", "vllm", "openai", "trl", "peft", "ray"}
OUTSIDE = {
    "builtins", "datetime", "glob", "http", "httpx", "io", "logging", "os", "pathlib", "requests", "secrets",
    "shutil", "socket", "sqlalchemy", "sqlite3", "sqlmodel", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib", "uuid",
}  # fmt: skip
SQL = re.compile(
    r"\b(SELECT\s.*\bFROM|INSERT\s+(OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM"
    r"|(CREATE|DROP|ALTER)\s+(TABLE|INDEX|VIEW|TRIGGER)|PRAGMA\s+\w+)",
    re.IGNORECASE | re.DOTALL,
)


def name_of(path: Path) -> str:
    """`store.views` for selfreward/store/views.py, `store` for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(p): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(ROOT.rglob("*.py"))}
MODULES = sorted(SOURCES.keys() - {""})


def top(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str) -> Iterator[tuple[str, str | None]]:
    """Every (module, name) an import statement of the module names, at its top or late."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import: write out the name"
            yield from ((node.module or "", alias.name) for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of this package it imports: the submodule where the name is one."""
    found = set()
    for source, name in imports(module):
        if top(source) == "selfreward":
            inner = ".".join(filter(None, [source.partition(".")[2], name]))
            found.add(inner if inner in SOURCES else source.partition(".")[2])
    return found - {""}


def calls(module: str) -> Iterator[str]:
    """What the module calls or raises, as it is written: `print`, `sys.exit`."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
            yield node.exc.id


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the nodes that are documentation, not data."""
    bodies = [n.body for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    bare = (s.value for body in bodies for s in body if isinstance(s, ast.Expr))
    return {id(value) for value in bare}


def test_every_module_has_its_place_on_the_ladder() -> None:
    assert {top(m) for m in MODULES} == set(LAYER)


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {part for module in MODULES for part in module.split(".")}
    assert not [p for p in parts if re.fullmatch(r"(.*_)?(utils?|common|base|core|helpers?|misc)", p)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    here = top(module)
    for other in own_imports(module):
        there = top(other)
        aside = here == there or (here, there) in SIDEWAYS or here == "cli"
        assert LAYER[there] < LAYER[here] or (LAYER[there] == LAYER[here] and aside), (
            f"{module} imports {other}"
        )


def test_no_module_needs_itself() -> None:
    needs = {m: own_imports(m) - {m} for m in MODULES}
    order = list(graphlib.TopologicalSorter(needs).static_order())  # a cycle raises CycleError
    assert all(order.index(other) < order.index(m) for m, others in needs.items() for other in others)


@pytest.mark.parametrize("module", [m for m in MODULES if top(m) in {*PURE, "protocols"}])
def test_pure_modules_reach_for_no_file_clock_network_or_process(module: str) -> None:
    assert not {top(source) for source, _ in imports(module)} & (OUTSIDE | HEAVY)
    assert not {"open", "input", "eval", "exec"} & set(calls(module))


@pytest.mark.parametrize("module", [m for m in MODULES if LAYER[top(m)] <= LAYER[HANDS[0]]])
def test_workers_take_plain_arguments_never_a_recipe(module: str) -> None:
    assert module in RECIPES or not own_imports(module) & RECIPES


def test_tensor_libraries_are_imported_in_engines_and_training_only() -> None:
    users = {top(m) for m in MODULES for source, _ in imports(m) if top(source) in HEAVY}
    assert users == {"engines", "training"}


def test_nothing_is_imported_by_a_name_made_at_run_time() -> None:
    ways = ("__import__", "import_module", "importlib.import_module")
    assert not [m for m in MODULES if set(calls(m)) & set(ways)]


def test_the_driver_loads_no_tensor_library() -> None:
    """All of the driver's modules in one process: the doors, the loop, the stages, the store."""
    driver = [m for m in MODULES if top(m) in {*DOORS, "branching", "rollback", "loop", "stages", "store"}]
    code = f"import sys\nfor m in {driver}: __import__('selfreward.' + m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"selfreward.loop", "selfreward.stages.train", "selfreward.store.store"} <= loaded
    assert not {top(m) for m in loaded} & HEAVY


def test_sql_is_spoken_in_the_store_only() -> None:
    speakers = set()
    for module in MODULES:
        documentation = docstrings(SOURCES[module])
        for node in ast.walk(SOURCES[module]):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in documentation
            ):
                speakers |= {top(module)} if SQL.search(node.value) else set()
        if {top(source) for source, _ in imports(module)} & {"sqlite3", "sqlalchemy", "alembic"}:
            speakers.add(top(module))
    assert speakers == {"store", "migrations", "records"}  # records names column types
    taken = {name for source, name in imports("records") if source == "sqlalchemy"}
    assert taken <= {"REAL", "Integer", "LargeBinary", "Text"}


def test_only_doors_and_the_mains_of_children_print_or_exit() -> None:
    speech = re.compile(
        r"print|input|exit|quit|SystemExit|sys\.exit|os\._exit|os\.abort|traceback\.print_\w+|sys\.std(out|err)\.\w+"
    )
    found = {(m, c) for m in MODULES if top(m) not in DOORS for c in calls(m) if speech.fullmatch(c)}
    child, trainer = "engines.child", "training.__main__"
    mains = {(child, "traceback.print_exc"), (trainer, "print"), (trainer, "sys.exit")}
    mains |= {("engines.merge", "print"), ("engines.merge", "sys.exit")}
    mains |= {("training.launch", "sys.exit"), ("training.launch", "os._exit")}  # in a child that lost it
    mains |= {("training.checkpoints", "print")}  # in the trainer's log: which one it sets aside
    mains |= {("scorers.confined", "os._exit")}  # a program that was run must not end in its own way
    assert found <= mains | {("engines.process", "os._exit")}  # how a child dies with its driver
    consoles = {m for m in MODULES for source, _ in imports(m) if top(source) in ("rich", "typer")}
    assert {top(m) for m in consoles} <= set(DOORS)


def assigned(node: ast.AST) -> list[ast.expr]:
    """The targets of an assignment, taken out of their tuples."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        return []
    return [t for target in targets if target for t in ast.walk(target) if isinstance(t, ast.expr)]


def sets_status(node: ast.AST) -> bool:
    """An assignment to an attribute, a setattr, or SQL."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.search(r"(?is)UPDATE\s+(stage|policy)\b.*\bstatus\s*=", node.value))
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
        return "'status'" in [ast.unparse(a) for a in node.args]
    return any(isinstance(t, ast.Attribute) and t.attr == "status" for t in assigned(node))


def makes_status(node: ast.AST) -> bool:
    """A stage or policy that is born with a status."""
    made = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Stage", "Policy")
    return made and "status" in {k.arg for k in node.keywords}  # type: ignore[attr-defined]


def test_only_the_loop_sets_the_status_of_a_stage_or_a_policy() -> None:
    assert {m for m in MODULES if any(sets_status(n) for n in ast.walk(SOURCES[m]))} == {"loop"}
    makers = {m for m in MODULES if any(makes_status(n) for n in ast.walk(SOURCES[m]))}
    assert makers <= {"loop", "stages.prompts"}  # there M0 stands in for itself and is not stored
