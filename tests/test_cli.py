"""The command line: what a command writes, prints and ends with; model text can do nothing to a terminal."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from selfreward import cli
from selfreward import records as r
from selfreward.recipe_file import load, parse
from selfreward.show import console
from selfreward.stages.work import flat
from selfreward.store import Store
from tests.conftest import make_tiny_policy
from tests.test_store import candidate, judgement, mined, policy, prompt, sides

HOSTILE = "[bold]b[/bold] [/x] \x1b[31mred \x9b2J \x07\r\x7f \u202eesrever é"
HARMLESS = r"[bold]b[/bold] [/x] \u001b[31mred \u009b2J \u0007\u000d\u007f \u202eesrever é"
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
PAIR, PLAIN, DROPPED = (mined(slot)[1].id for slot in (0, 1, 4))
PROMPTS = [prompt(slot).id for slot in range(5)]
VIEWS = ("status", "pairs list", "pairs list --outcome tie", f"pairs show {PAIR}", "prompts list")


class Said(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    def refuses(self, *told: str) -> bool:
        """Code 3, and one line that tells this."""
        line = re.fullmatch(r"selfreward: .+\n", self.err)
        return self.code == 3 and line is not None and all(t in self.err for t in told)


Command = Callable[..., Said]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The entry point, in a folder with a recipe whose model is an empty file and on a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFREWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(console.console, "width", 400)
    (tmp_path / "iterations/base").mkdir(parents=True)
    (tmp_path / "iterations/base/model.safetensors").touch()
    (tmp_path / "iterations/mine.yaml").write_text("model: base\n")
    (tmp_path / "iterations/mine").mkdir()

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["selfreward", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Command:
    """`command` beside a run: M1 has two pairs, a dropped one, a tie, a failed stage, and hostile texts."""
    store = Store(tmp_path / "iterations/mine/selfreward.db", write=True)
    store.save(r.Run(id=1, name="mine", recipe="{}", fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1))
    of = {"run_id": 1, "policy": "M1", "stage": "probe"}
    made = {"run_id": 1, "policy": "M1", "made_in": 1, "made_from": "{}", "fingerprint": "f"}
    store.save(r.Stage(**made, name="judge", status="failed", error=HOSTILE))
    store.save(r.Stage(**made, name="prompts", status="done"))
    prompts = [*(prompt(slot) for slot in (0, 1, 2, 4)), prompt(3, reason=HOSTILE), prompt(0, idx=0)]
    chat = [{"role": HOSTILE, "content": HOSTILE}, {"role": "user", "content": HOSTILE}]
    prompts[0].text, prompts[0].messages = HOSTILE, json.dumps(chat)
    prompts[4].text, prompts[0].parents = HOSTILE, json.dumps([prompts[4].id])
    prompts[1].messages = json.dumps([{"role": "user", "content": "Why?"}])
    store.add([*prompts, candidate(0, 0, HOSTILE), candidate(0, 1, f"worse {HOSTILE}" + "x" * 200_000)])
    store.add([candidate(slot, s, f"{slot}.{s}") for slot in (1, 2, 4) for s in (0, 1)])
    verdicts = [judgement(0, 0, 0, 4.0), judgement(0, 0, 1, None), judgement(0, 1, 0, 3.0)]
    verdicts[0].raw, verdicts[1].fault, verdicts[2].detail = HOSTILE, HOSTILE, json.dumps({HOSTILE: 1})
    tie = r.Mining(run_id=1, prompt_id=PROMPTS[2], outcome="tie", margin=0.0, detail=HOSTILE)
    store.add([*verdicts, *mined(0), *mined(1, chosen_score=5.0), *mined(4), tie])
    store.add([r.Review(run_id=1, **sides(4), review="drop", note=HOSTILE, at="now")])
    metric = r.Metric(**of, name="kl_m0", value=0.25, n=6, low=0.125, high=0.5)
    store.add([metric, r.Alarm(**of, signal="loops", level="warn", message=HOSTILE)])
    store.close()
    return command


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from selfreward import cli\ntry: cli.main()\nfinally: print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    told, _, loaded = done.stdout.partition("LOADED")
    heavy = "torch transformers trl peft ray vllm datasets numpy sqlalchemy sqlmodel alembic pydantic yaml"
    assert "iterate" in told and {m.split(".")[0] for m in loaded.split()}.isdisjoint(heavy.split())


@pytest.mark.parametrize("model", ["owner/name", "../a folder", 'odd: "{x}" #1\\', "123", "null"])
def test_init_writes_the_defaults_for_any_model_and_overwrites_nothing(command: Command, model: str) -> None:
    assert "selfreward iterate --run new" in command("init", "new", "--model", model).out
    assert load(Path("iterations/new.yaml")) == parse({"model": model}, "new")
    before = Path("iterations/new.yaml").read_bytes()
    assert command("init", "new", "--model", "other").refuses("iterations/new.yaml", "another name")
    assert Path("iterations/new.yaml").read_bytes() == before


def test_the_demo_differs_from_what_init_writes_only_in_model_sizes_and_judging(command: Command) -> None:
    command("init", "new", "--model", "base")
    demo = Path(__file__).parents[1] / "iterations/demo.yaml"
    ours, theirs = (flat(load(p), "") for p in (Path("iterations/new.yaml"), demo))
    sizes = r"(.*_)?(batch|block|count|examples|max_length|max_new_tokens|requests|rounds|save_steps)"
    different = {k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)}
    other = {k for k in different if not re.fullmatch(sizes, k.split(".")[-1])}
    assert other == {".model.id", ".judge.mode"}


@pytest.mark.parametrize(
    ("arguments", "recipe", "told"),
    [
        ("iterate", "model: base\ntrainig: {}", "unknown key trainig; the nearest known one is training"),
        ("iterate --set seed", "model: base", "key=value"),
        ("iterate --run nope", "model: base", "selfreward init nope --model"),
        ("status --run nope", "model: base", "selfreward init nope --model"),
        ("iterate", "model: [", "not valid YAML"),
        ("iterate", "", "not a recipe"),
        ("iterate", "seed: 1", "model is missing"),
        ("iterate", "model: ./nope", "'./nope'"),
        ("iterate", "model: base\nprompts: {seed_file: nope.jsonl}", "nope.jsonl"),
        (
            "iterate --from M1",
            "model: base",
            "M1 does not exist yet: `selfreward iterate --from M0` makes it",
        ),
        (
            "iterate --from M2",
            "model: base",
            "M2 does not exist yet: `selfreward iterate --from M0` makes it",
        ),
        ("status", "model: base", "selfreward iterate"),
        ("pairs list", "model: base", "selfreward iterate"),
        ("init ../new --model base", "model: base", "'../new'"),
        ("init New --model base", "model: base", "'New'"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_with_the_next_move(
    command: Command, arguments: str, recipe: str, told: str
) -> None:
    Path("iterations/mine.yaml").write_text(recipe)
    assert command(*arguments.split()).refuses(told)
    assert not Path("iterations/mine/logs").exists()  # no engine was started for it
    assert [p.name for p in Path().rglob("*.yaml")] == ["mine.yaml"]


USAGE = """
iterate --to M0|iterate --to 3|iterate --to m3|iterate --to M03|iterate --to M²|iterate --from M-1|doctr
iterate --from M2 --to M2|iterate --from M3 --to M1|iterate --pause-before cooking|iterate --too M3|init mine
iterate --pause-before M1/cooking|pairs list --limit 0|pairs list --sort size|pairs show one|pairs cook
pairs list --outcome maybe|prompts list --status maybe|prompts list --source maybe
"""


@pytest.mark.parametrize("arguments", re.split(r"[|\n]", USAGE.strip()))
def test_what_no_command_understands_is_a_usage_error(run: Command, arguments: str) -> None:
    said = run(*arguments.split())
    assert (said.code, said.out) == (2, "") and said.err


def in_a_process(arguments: str, shut: Path) -> Said:
    """The command where `shut` is read-only, to root too: the child gives up CAP_DAC_OVERRIDE first."""
    drop = (lambda: ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)) if os.geteuid() == 0 else None
    line = [sys.executable, "-m", "selfreward.cli", *arguments.split()]
    shut.chmod(0o555)
    try:
        done = subprocess.run(line, capture_output=True, text=True, preexec_fn=drop)
    finally:
        shut.chmod(0o755)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root may write anywhere")
@pytest.mark.parametrize(("arguments", "shut"), (
    ("init new --model base", "iterations"), ("iterate", "iterations/mine"), ("iterate", "iterations"),
    ("pairs export x.jsonl", "."), ("pairs export x.parquet", "."),
))  # fmt: skip
def test_a_folder_that_cannot_be_written_is_said_in_one_line(run: Command, arguments: str, shut: str) -> None:
    assert in_a_process(arguments, Path(shut)).refuses("cannot be written")


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root may write anywhere")
def test_a_run_that_cannot_be_written_can_be_looked_at(run: Command) -> None:
    assert "M1" in in_a_process("status", Path("iterations/mine")).out


def test_a_model_without_chat_template_is_refused_with_the_key_that_gives_one(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_policy(tmp_path / "iterations/bare", template=None)
    capsys.readouterr()
    Path("iterations/mine.yaml").write_text("model: bare\nengine: {threads: 1}")
    assert command("iterate").refuses("no chat template", "model.chat_template", "plain")
    found = command("doctor", "--json")
    assert (found.code, [c["check"] for c in json.loads(found.out) if not c["ok"]]) == (3, ["chat template"])


def test_status_tells_stages_in_order_counts_measures_and_alarms(run: Command) -> None:
    base, mine = json.loads(run("status", "--json").out)["policies"]
    assert [(p["name"], [s["name"] for s in p["stages"]]) for p in (base, mine)] == [
        ("M0", []), ("M1", ["prompts", "judge"]),
    ]  # fmt: skip
    assert mine["iteration"] == {
        "prompts": {"user": 4}, "candidates": [8, 0], "judgements": [3, 1], "outcomes": {"pair": 3, "tie": 1},
    }  # fmt: skip
    assert mine["metrics"] == {"kl_m0": {"value": 0.25, "low": 0.125, "high": 0.5, "n": 6}}
    told = "prompts ✓ judge (failed)|3 judgements (1 faults), 3 pairs|0.25 n=6|[0.12, 0.5]|warn: " + HARMLESS
    table = run("status").out
    assert [part for part in told.split("|") if part not in table] == []


@pytest.mark.parametrize(("arguments", "expected"), (
    ("pairs list", [PAIR, PLAIN, DROPPED]), ("pairs list --of M0", []), ("pairs list --search WORSE", [PAIR]),
    ("pairs list --sort -margin --limit 2", [PLAIN, PAIR]), ("pairs list --min-margin 2", [PLAIN]),
    ("pairs list --outcome tie", [PROMPTS[2]]), ("prompts list", PROMPTS), ("prompts list --source seed", []),
    ("prompts list --status rejected", [PROMPTS[3]]), ("prompts list --of M0", [prompt(0, idx=0).id]),
))  # fmt: skip
def test_a_list_has_the_rows_asked_for(run: Command, arguments: str, expected: list[int]) -> None:
    rows, table = json.loads(run(*arguments.split(), "--json").out), run(*arguments.split()).out
    assert [row["id"] for row in rows] == expected
    assert [line.split()[0] for line in table.splitlines()[1:]] == [str(e) for e in expected]


def test_an_id_is_never_broken_in_a_narrow_terminal(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.console, "width", 80)
    assert str(PAIR) in run("pairs", "list").out


def test_statistics_of_pairs_are_worked_out_by_hand(run: Command) -> None:
    """Margins 1, 2, 1; chosen 4, 5, 4; all texts two tokens."""
    found = json.loads(run("pairs", "stats", "--json").out)["M1"]
    numbers = ("n", "margin_mean", "chosen_score_mean", "rejected_score_mean", "chosen_longer_share")
    assert [found[n] for n in numbers] == [3, 4 / 3, 13 / 3, 3.0, 0.0]
    assert found["outcomes"] == {"pair": 3, "tie": 1} and sum(found["margins"]["counts"]) == 3
    assert "1 tie" in run("pairs", "stats").out


@pytest.mark.parametrize("form", ("", " --json"))
@pytest.mark.parametrize("arguments", VIEWS)
def test_model_text_is_shown_as_it_is_and_never_obeyed(run: Command, arguments: str, form: str) -> None:
    said = run(*(arguments + form).split())
    assert (said.code, RAW.findall(said.out)) == (0, [])
    told, text = (json.loads(said.out), HOSTILE) if form else (said.out, HARMLESS[:30])
    assert repr(text)[1:-1] in repr(told)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
def test_an_export_has_trls_columns_and_no_dropped_pair(run: Command, tmp_path: Path, suffix: str) -> None:
    from datasets import load_dataset, load_from_disk

    to = tmp_path / f"out{suffix}"
    assert run("pairs", "export", to).out == f"2 pairs written to {to}\n"
    kind = {".jsonl": "json", ".parquet": "parquet"}.get(suffix)
    if kind is None:
        rows = list(load_from_disk(str(to)))
        assert run("pairs", "export", to).refuses("is there already")
    else:
        rows = list(load_dataset(kind, data_files=str(to), split="train", cache_dir=str(tmp_path / "hf")))
    assert rows[1] == {
        "prompt": [{"role": "user", "content": "Why?"}], "chosen": [{"role": "assistant", "content": "1.0"}],
        "rejected": [{"role": "assistant", "content": "1.1"}], "score_chosen": 5.0, "score_rejected": 3.0,
        "policy": "M1", "pair_id": PLAIN,
    }  # fmt: skip
    assert rows[0]["chosen"] == [{"role": "assistant", "content": HOSTILE}] and len(rows) == 2
    assert not list(tmp_path.glob("*.part"))


def test_an_export_to_nowhere_is_one_line(run: Command) -> None:
    Path("folder.jsonl").mkdir()
    for to in ("out.csv", "no/out.jsonl", "folder.jsonl"):
        assert run("pairs", "export", to).refuses(to.split("/")[0])
    assert run("pairs", "show", 1).refuses("no pair 1", "selfreward pairs list")


@pytest.mark.parametrize("form", ("", " --json"))
def test_a_reader_that_has_seen_enough_is_no_error(run: Command, form: str) -> None:
    line = [sys.executable, "-m", "selfreward.cli", *f"pairs show {PAIR}{form}".split()]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert shown.stdout and shown.stderr and shown.stdout.read(1)
        shown.stdout.close()
        assert (shown.stderr.read(), shown.wait()) == ("", 0)


def test_the_run_is_the_only_one_or_the_last_or_has_to_be_named(run: Command) -> None:
    Path("iterations/other.yaml").write_text("model: base")
    assert run("status").refuses("--run takes one of mine, other")
    assert run("status", "--run", "mine").code == 0
    assert run("iterate", "--run", "mine", "--from", "M9", "--to", "M10").code == 3
    assert run("status").code == 0
