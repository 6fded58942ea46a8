"""Files appear whole or not at all; hashes are of contents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfreward.files import (
    packaged,
    place_folder,
    remove_folder,
    sha256_of,
    sha256_of_text,
    write_json,
    write_text,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-2


def test_a_hash_is_of_the_bytes_and_not_of_the_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"abc")
        assert sha256_of(tmp_path / name) == ABC
    assert sha256_of_text("abc") == ABC
    assert sha256_of_text("é") != sha256_of_text("e\u0301")


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for text in ("old", "nëw\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it \ud800")
    assert path.read_text(encoding="utf-8") == "old"


def test_a_reader_with_the_old_file_open_sees_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with open(path, encoding="utf-8") as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"text": "Grüße \u2028", "n": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_a_finished_folder_moves_whole_and_only_once(tmp_path: Path) -> None:
    finished, target = tmp_path / "job" / "adapter", tmp_path / "M2" / "adapter"
    (finished / "deep").mkdir(parents=True)
    (finished / "deep" / "weights").write_bytes(b"abc")
    place_folder(finished, target)
    assert not finished.exists() and sha256_of(target / "deep" / "weights") == ABC


def test_a_folder_in_place_is_never_overwritten(tmp_path: Path) -> None:
    finished, target = tmp_path / "new", tmp_path / "adapter"
    for folder, text in ((finished, "new"), (target, "old")):
        folder.mkdir()
        (folder / "weights").write_text(text, encoding="utf-8")
    with pytest.raises(OSError, match="adapter"):
        place_folder(finished, target)
    assert (target / "weights").read_text(encoding="utf-8") == "old"
    assert (finished / "weights").read_text(encoding="utf-8") == "new"


def test_removing_a_folder_takes_all_of_it_and_one_that_is_not_there_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "keep").touch()
    for _ in range(2):
        remove_folder(tmp_path / "a")
        assert [p.name for p in tmp_path.iterdir()] == ["keep"]


def test_packaged_files_are_found() -> None:
    for name in ("rubrics/additive.md", "self_instruct.md", "seed/instructions.jsonl", "probe.jsonl"):
        assert packaged(name).is_file(), name
