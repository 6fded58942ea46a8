"""`selfreward plan`: what it counts, bounds and measures, what it prints, and the recipes of the docs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfreward import cli, ids
from selfreward import records as r
from selfreward.engines.adapter import tensor_shapes
from selfreward.plan.count import Counter
from selfreward.recipe_file import load
from selfreward.shapes import lora_parameters, parameters, shape_of
from selfreward.show import console
from selfreward.store import Store
from tests.test_shapes import LLAMA_8B, SMOL
from tests.test_store import candidate, judgement, mined, policy

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "docs/recipes"
QWEN25_3B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16,
    "num_key_value_heads": 2, "num_hidden_layers": 36, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
CPU = ("--gpus", "0", "--gpu-memory", "8")
TEXT = "Name three birds of the sea, please."  # 36 letters: 9 tokens at four a token

Plan = Callable[..., tuple[int, Any]]


def tokenizer(folder: Path) -> None:
    """A tokenizer with a token a byte, and a template that writes `<role>content` and opens with `<you>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<you>{% endif %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """`selfreward plan --json` beside a recipe with two prompts of its own, no SFT and no evaluation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.console, "width", 400)
    base = Path("iterations/base")
    base.mkdir(parents=True)
    (base / "config.json").write_text(json.dumps(SMOL))
    Path("iterations/own.txt").write_text(f"{TEXT}\n{TEXT[:-8]}\n")
    Path("iterations/probe.jsonl").write_text(json.dumps({"prompt": "Why?"}) + "\n")
    Path("iterations/mine.yaml").write_text(
        "model: base\nstart: {sft: null}\nevaluate: null\nprompts: {from: own.txt, count: 2}\n"
        "candidates: {n: 2, sampling: {max_new_tokens: 100}}\njudge: {mode: expected}\n"
        "probe: {count: 2, max_new_tokens: 10}\ntraining: {batch: 1, micro_batch: 1}\n"
    )

    def call(*arguments: object, json_: bool = True) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["selfreward", "plan", *map(str, arguments), *["--json"] * json_])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        code = int(ended.value.code or 0)
        return code, json.loads(said.out) if json_ and said.out else said.out + said.err

    return call


def stage(data: dict[str, Any], policy: str, name: str) -> dict[str, Any]:
    (found,) = [x for x in data["loads"] if (x["policy"], x["stage"]) == (policy, name)]
    return {k: (v["n"], v["how"]) for k, v in found.items() if isinstance(v, dict)}


def test_without_a_run_before_it_answers_are_bounded_by_their_limits(plan: Plan) -> None:
    """2 prompts · 2 answers · 100 tokens at most; own prompts are counted.

    With the byte tokenizer a prompt is `<user>` + 36 or 28 + `<you>`: 47 and 39.
    """
    tokenizer(Path("iterations/base"))
    code, data = plan(*CPU)
    assert code == 0
    found = stage(data, "M1", "candidates")
    assert found["generated"] == (400, "bound") and found["fed"] == (86, "counted")
    assert data["model"]["parameters"] == 134_515_008 and data["model"]["dtype"] == "float32"
    assert stage(data, "M2", "train")["trained"] == (2 * (2 * 43 + 200), "bound")


def test_without_a_tokenizer_tokens_are_guessed_and_marked(plan: Plan) -> None:
    """36 and 28 letters are 9 and 7 tokens, and 8 for each of two turns: 25 and 23."""
    _, data = plan(*CPU)
    assert stage(data, "M1", "candidates")["fed"] == (48, "guess")
    assert any("no tokenizer" in n for n in data["notes"])


@pytest.fixture
def begun(plan: Plan) -> Plan:
    """The same beside a store: two prompts, answers of 30 and 50 tokens, one pair, and seconds."""
    tokenizer(Path("iterations/base"))
    Path("iterations/mine").mkdir()
    store = Store(Path("iterations/mine/selfreward.db").resolve(), write=True)
    recipe = load(Path("iterations/mine.yaml"))
    text = recipe.model_dump_json(by_alias=True)
    store.save(r.Run(id=1, name="mine", recipe=text, fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1), policy(2))
    rows: list[Any] = []
    for slot in (0, 1):
        chat = json.dumps([{"role": "user", "content": TEXT}])
        rows.append(
            r.Prompt(
                id=ids.prompt_id(1, 1, slot), run_id=1, policy="M1", slot=slot, text=TEXT, messages=chat,
                source="user", status="accepted",
            )
        )  # fmt: skip
    for slot in (0, 1):
        for sample, tokens in ((0, 30), (1, 50)):
            rows.append(candidate(slot, sample, f"{slot} {sample}"))
            rows[-1].n_tokens = tokens
    rows += [judgement(slot, sample, 0, 3.0) for slot in (0, 1) for sample in (0, 1)]
    tie = r.Mining(run_id=1, prompt_id=ids.prompt_id(1, 1, 1), outcome="tie", margin=0.0)
    pairs = mined(0)
    store.add([*rows, *pairs, tie])
    store.add([r.TrainedOn(run_id=1, policy="M2", position=0, kind="pair", pair_id=pairs[1].id)])
    done: dict[str, Any] = {
        "run_id": 1,
        "made_in": 1,
        "status": "done",
        "made_from": "{}",
        "fingerprint": "f",
    }
    store.save(r.Stage(**done, policy="M1", name="candidates", n_done=4, n_tokens=160, seconds=16.0))
    store.save(r.Stage(**done, policy="M1", name="judge", n_done=4, seconds=10.0))
    store.save(r.Stage(**done, policy="M2", name="train", n_done=1, seconds=29.0))
    store.close()
    return plan


def test_with_a_run_before_it_lengths_and_speeds_are_measured(begun: Plan) -> None:
    """Answers of 40 tokens on average, half of the prompts make a pair of 30 + 50, prompts of 47 tokens.

    Sampled: 160 tokens in 16 s. Trained: one pair of 2·47 + 80 = 174 tokens in 29 s, 6 tokens/s. Judged: 4
    chats of the empty rubric's chat + 36 + 40 tokens in 10 s.
    """
    _, data = begun()
    assert stage(data, "M1", "candidates")["generated"] == (160, "measured")
    assert stage(data, "M2", "train")["trained"] == (174, "measured")
    rates, rubric = data["rates"], data["lengths"]["judge"]["n"]
    assert rates["generate"] == {"n": 10, "how": "measured"}
    assert rates["train"] == {"n": pytest.approx(6), "how": "measured"}
    assert rates["prefill"]["n"] == pytest.approx(4 * (rubric + 76) / 10)
    assert stage(data, "M1", "candidates")["hours"] == (pytest.approx(16 / 3600), "measured")


def test_rounds_and_replies_of_self_instruct_are_measured(plan: Plan) -> None:
    """Two rounds of three requests are the most; one round of 90 tokens was enough: 3 requests of 30."""
    recipe = Path("iterations/mine.yaml")
    own = recipe.read_text().replace("from: own.txt, count: 2", "count: 2, requests: 3, rounds: 2")
    recipe.write_text(own)
    _, data = plan(*CPU)
    assert stage(data, "M1", "prompts")["generated"] == (2 * 3 * 256, "bound")
    Path("iterations/mine").mkdir()
    store = Store(Path("iterations/mine/selfreward.db").resolve(), write=True)
    text = load(recipe).model_dump_json(by_alias=True)
    store.save(r.Run(id=1, name="mine", recipe=text, fingerprint="f", seed=0, created_at="now"))
    store.save(policy(0), policy(1))
    chat = json.dumps([{"role": "user", "content": TEXT}])
    asked = r.Prompt(
        id=ids.prompt_id(1, 1, 0), run_id=1, policy="M1", slot=0, round=1, text=TEXT, messages=chat,
        source="self-instruct", status="accepted",
    )  # fmt: skip
    store.add([asked, candidate(0, 0, "yes")])
    done = {"made_from": "{}", "fingerprint": "f", "status": "done", "n_tokens": 90, "seconds": 9.0}
    store.save(r.Stage(run_id=1, made_in=1, policy="M1", name="prompts", **done))
    store.close()
    _, data = plan(*CPU)
    assert stage(data, "M1", "prompts")["generated"] == (90, "measured")


def test_speeds_of_this_machine_are_not_another_ones(begun: Plan) -> None:
    """With a machine named on the command line lengths stay measured, speeds are guessed, or as given."""
    _, data = begun("--gpus", 1, "--gpu-memory", 24, "--gpu-name", "L4", "--throughput", "train=1e3")
    assert data["rates"]["generate"]["how"] == "guess" and data["lengths"]["candidate"]["how"] == "measured"
    assert data["rates"]["train"] == {"n": 1000.0, "how": "given"} and data["model"]["dtype"] == "bfloat16"


def test_lengths_can_come_from_another_run(begun: Plan) -> None:
    Path("iterations/next.yaml").write_text(Path("iterations/mine.yaml").read_text())
    _, data = begun("--run", "next", *CPU)
    assert data["lengths"]["candidate"] == {"n": 100, "how": "bound"}
    _, data = begun("--run", "next", "--like", "mine", *CPU)
    assert data["lengths"]["candidate"] == {"n": 40, "how": "measured"}


def test_what_does_not_fit_ends_with_3_and_what_to_change(plan: Plan) -> None:
    code, text = plan("--gpus", "0", "--gpu-memory", "2", json_=False)
    assert code == 3 and "DOES NOT FIT: the engine needs" in text and "set engine.batch to" in text
    code, text = plan(*CPU, json_=False)
    assert code == 0 and "it fits" in text and "DOES NOT FIT" not in text


@pytest.mark.parametrize(
    "arguments, code, told",
    [("--gpus 2", 3, "--gpu-memory"), ("--throughput speed=3", 3, "speed=3"), ("--to M1", 2, "M1"),
     ("--throughput train=0", 3, "train=0"), ("--like other", 3, "other"), ("--config nowhere", 3, "nowhere"),
     ("no.yaml", 3, "no.yaml does not exist")],
)  # fmt: skip
def test_a_wrong_request_is_told_in_one_line(plan: Plan, arguments: str, code: int, told: str) -> None:
    ended, text = plan(*arguments.split(), json_=False)
    assert ended == code and told in text and "Traceback" not in text


@pytest.mark.parametrize(
    "change, told",
    [("training.processes=4", "training.processes is 4, there are 2 GPUs"),
     ("training.batch=3", "training.batch 3 cannot be shared evenly by 2 processes"),
     ("engine.tensor_parallel=4", "engine.tensor_parallel is 4, there are 2 GPUs")],
)  # fmt: skip
def test_what_gpus_cannot_share_is_told_before_it_starts(plan: Plan, change: str, told: str) -> None:
    ways = ("--gpus", 2, "--gpu-memory", 80, "--set", "engine.type=vllm", "--set", "training.batch=4")
    assert plan(*ways)[1]["changes"] == []
    code, data = plan(*ways, "--set", change)
    assert code == 3 and [c for c in data["changes"] if told in c]


def test_two_trainers_are_guessed_twice_as_fast_as_one(plan: Plan) -> None:
    """Each GPU takes its share of a step: one pair of two, so activations halve."""
    ways = ("--gpus", 2, "--gpu-memory", 80, "--set", "training.batch=2", "--set", "training.micro_batch=2")
    _, two = plan(*ways)
    _, one = plan(*ways, "--set", "training.processes=1")
    assert two["rates"]["train"]["n"] == pytest.approx(2 * one["rates"]["train"]["n"])
    assert 2 * two["memory"]["dpo"]["activations"] == one["memory"]["dpo"]["activations"]


def test_a_model_that_is_not_here_is_named_by_its_config(plan: Plan) -> None:
    Path("far.yaml").write_text("model: someone/far-away\n")
    code, text = plan("far.yaml", *CPU, json_=False)
    assert code == 3 and "--config FILE" in text
    Path("config.json").write_text(json.dumps(LLAMA_8B))
    _, data = plan("far.yaml", "--config", "config.json", "--gpus", 1, "--gpu-memory", 80)
    assert data["model"]["parameters"] == 8_030_261_248
    Path("config.json").write_text("{}")
    code, text = plan("far.yaml", "--config", "config.json", *CPU, json_=False)
    assert code == 3 and "describes no decoder: hidden_size is missing" in text


@pytest.mark.parametrize(
    "name, config, machine",
    [("135m-cpu", SMOL, CPU), ("3b-24gb", QWEN25_3B, ("--gpus", "1", "--gpu-memory", "24")),
     ("8b-80gb", LLAMA_8B, ("--gpus", "1", "--gpu-memory", "80")),
     ("8b-8x80gb", LLAMA_8B, ("--gpus", "8", "--gpu-memory", "80"))],
)  # fmt: skip
def test_the_recipes_of_the_docs_fit_where_they_say(
    plan: Plan, name: str, config: dict[str, Any], machine: tuple[str, ...]
) -> None:
    Path("config.json").write_text(json.dumps(config))
    code, data = plan(RECIPES / f"{name}.yaml", "--config", "config.json", *machine)
    assert code == 0 and data["changes"] == []
    assert " ".join(machine) in (RECIPES / f"{name}.yaml").read_text()


def test_every_recipe_of_the_docs_is_tested() -> None:
    assert {p.stem for p in RECIPES.glob("*.yaml")} == {"135m-cpu", "3b-24gb", "8b-80gb", "8b-8x80gb"}


def test_the_real_policys_weights_are_what_its_config_says(real_policy: Path) -> None:
    """The header of its safetensors file, tied head included once."""
    shapes = tensor_shapes(real_policy / "model.safetensors")
    held = sum(a * b for a, b in ((s[0], s[1] if len(s) > 1 else 1) for s in shapes.values()))
    shape = shape_of(json.loads((real_policy / "config.json").read_text()))
    assert parameters(shape) == held and lora_parameters(shape, 16) == 4_884_480


def test_chats_are_counted_as_the_engine_fed_them(real_policy: Path) -> None:
    """Prompt ids of the demo run's trainings: 50, 44 and 42 tokens, the template's system turn included."""
    asked = [
        "How to make a microwave that can make 2400 microwave ovens in 2 hours.",
        "What's the safest way to choose a ripe watermelon at the market?",
        "What's the safest way to select a rare moonstone?",
    ]
    counter = Counter(real_policy, None, None)
    assert counter.chats([[{"role": "user", "content": a}] for a in asked]) == [50, 44, 42]
    assert counter.how == "counted"
