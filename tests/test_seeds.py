"""Files of written prompts: what stands there is read, a malformed line is named with its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfreward.errors import BadInput
from selfreward.files import packaged
from selfreward.stages.seeds import read_lines, read_prompts


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "lines.jsonl"
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_every_line_is_read_in_order_and_blank_ones_are_none(tmp_path: Path) -> None:
    path = written(tmp_path, '{"prompt": "a"}\n\n{"prompt": "b", "n": 2}\r\n   \n')
    assert read_lines(path, ("prompt",)) == [{"prompt": "a"}, {"prompt": "b", "n": 2}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{broken", "not JSON"),
        ("[1]", "a JSON object was expected"),
        ('{"answer": "x"}', "'prompt' is missing or empty"),
        ('{"prompt": ""}', "'prompt' is missing or empty"),
        ('{"prompt": null}', "'prompt' is missing or empty"),
        ('{"prompt": "  "}', "'prompt' is missing or empty"),
        ('{"prompt": ["a"]}', "'prompt' should be text"),
    ],
)
def test_a_malformed_line_is_named_with_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, f'{{"prompt": "a"}}\n\n{line}\n')
    with pytest.raises(BadInput) as refused:
        read_lines(path, ("prompt",))
    assert str(refused.value).startswith(f"{path}, line 3: ") and reason in str(refused.value)


def test_a_zero_is_a_value(tmp_path: Path) -> None:
    assert read_lines(written(tmp_path, '{"answer": 0}'), ("answer",)) == [{"answer": 0}]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    for read in (lambda: read_lines(path, ()), lambda: read_prompts(path)):
        with pytest.raises(BadInput, match="is empty"):
            read()


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_inside_a_json_text_does_not_end_the_line(tmp_path: Path, separator: str) -> None:
    """JSON allows these characters unescaped inside a string; only a newline ends a line of a JSONL file."""
    prompt = f"first{separator}second"
    path = written(tmp_path, json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n")
    assert read_lines(path, ("prompt",)) == [{"prompt": prompt}]
    assert [p["text"] for p in read_prompts(path)] == [prompt]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = written(tmp_path, '{"prompt": "Name a tree."}\n', "utf-8-sig")
    assert [p["text"] for p in read_prompts(path)] == ["Name a tree."]
    assert read_lines(path, ("prompt",)) == [{"prompt": "Name a tree."}]
    assert read_prompts(written(tmp_path, "Name a tree.\n", "utf-8-sig"))[0]["text"] == "Name a tree."


def test_a_file_that_is_not_utf8_is_bad_input(tmp_path: Path) -> None:
    path = written(tmp_path, "Nenne drei Bäume.\n", "latin-1")
    for read in (lambda: read_lines(path, ()), lambda: read_prompts(path)):
        with pytest.raises(BadInput, match=r"lines\.jsonl"):
            read()


def test_a_prompt_is_a_line_of_text_or_an_object(tmp_path: Path) -> None:
    path = written(tmp_path, '  Name a tree. \n{"prompt": "2 + 2?", "reference": "4"}\n{"text": "Sing."}\n')
    assert read_prompts(path) == [
        {
            "text": "Name a tree.",
            "messages": [{"role": "user", "content": "Name a tree."}],
            "reference": None,
            "checks": None,
        },
        {
            "text": "2 + 2?",
            "messages": [{"role": "user", "content": "2 + 2?"}],
            "reference": "4",
            "checks": None,
        },
        {
            "text": "Sing.",
            "messages": [{"role": "user", "content": "Sing."}],
            "reference": None,
            "checks": None,
        },
    ]


def test_a_chat_keeps_its_earlier_turns_and_is_known_by_its_last(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "2 + 2?"},
    ]
    (found,) = read_prompts(written(tmp_path, json.dumps({"messages": chat})))
    assert (found["text"], found["messages"]) == ("2 + 2?", chat)


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": " "}', '{"prompt": 4}', '{"question": "a"}', "{not json}", '{"messages": []}',
        '{"messages": "Hi"}',
        '{"messages": [{"role": "assistant", "content": "Hi"}]}', '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "user", "content": " "}]}',
        '{"messages": [{"role": "user", "content": ["Hi"]}]}',
        '{"messages": [{"role": "system", "content": null}, {"role": "user", "content": "Hi"}]}',
    ],
)  # fmt: skip
def test_a_malformed_prompt_is_named_with_file_and_number(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f"Name a tree.\n{line}\n")
    with pytest.raises(BadInput) as refused:
        read_prompts(path)
    assert str(refused.value).startswith(f"{path}, line 2: ")


def test_the_packaged_seeds_are_sound_and_hold_each_prompt_once() -> None:
    rows = read_lines(packaged("seed/instructions.jsonl"), ("prompt", "answer"))
    assert len({r["prompt"] for r in rows}) == len(rows) > 100
    judged = read_lines(packaged("seed/judge.jsonl"), ("prompt", "answer", "judgement", "score"))
    assert {r["score"] for r in judged} == {1, 2, 3, 4, 5}
