"""The repository is never seen half written."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from variants.cache import StepCache
from variants.errors import BuildBusy, OutputError
from variants.publication import model_lock, publish, stage, versions, write_whole

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, signal, sys
from pathlib import Path
from variants.publication import publish, stage
root = Path(sys.argv[1])
stage({"manifest.json": b"{}", "full.onnx": b"weights"}, root / ".work" / "staging")
os.kill(os.getpid(), signal.SIGKILL)
publish(root / ".work" / "staging", root / "model" / "1")
"""


def test_kill_between_write_and_rename_leaves_no_version(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert versions(tmp_path, "model") == []
    assert not (tmp_path / "model").exists()


def test_publish_renames_the_whole_folder(tmp_path: Path) -> None:
    stage({"a": b"1", "b": b"2"}, tmp_path / "staging")
    publish(tmp_path / "staging", tmp_path / "model" / "1")
    assert sorted(entry.name for entry in (tmp_path / "model" / "1").iterdir()) == ["a", "b"]
    assert not (tmp_path / "staging").exists()
    assert versions(tmp_path, "model") == [1]


def test_versions_ignores_what_is_no_version(tmp_path: Path) -> None:
    for name in ("1", "10", "2", "02", "x", ".building", "0"):
        (tmp_path / "model" / name).mkdir(parents=True)
    (tmp_path / "model" / "3").write_text("a file")
    assert versions(tmp_path, "model") == [1, 2, 10]


def test_write_whole_leaves_nothing_aside(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_whole_leaves_nothing_aside_where_it_fails(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "file", b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_second_search_hears_of_the_first_and_a_build_does_not(tmp_path: Path) -> None:
    with model_lock(tmp_path, "tiny", "search"), model_lock(tmp_path, "tiny"):
        with pytest.raises(BuildBusy, match="another search of 'tiny' is running"):
            model_lock(tmp_path, "tiny", "search").__enter__()
        with pytest.raises(BuildBusy, match="another build of 'tiny' is running"):
            model_lock(tmp_path, "tiny").__enter__()


def test_a_repository_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(OutputError, match=r"cannot write to .*link"), model_lock(tmp_path / "link", "tiny"):
        pass


def test_cache_makes_a_step_once(tmp_path: Path) -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"payload\nwith lines")
        return made[-1]

    first = StepCache(tmp_path).get_or_make("step", make)
    second = StepCache(tmp_path).get_or_make("step", make)
    assert first == second
    assert len(made) == 1


def test_cache_makes_a_spoiled_step_again(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    cache.get_or_make("step", lambda: b"payload")
    for spoiled in (b"", b"no header", b'{"sha256": "0", "seconds": 1}\npayload', b"[]\npayload"):
        (tmp_path / "step.step").write_bytes(spoiled)
        assert cache.get_or_make("step", lambda: b"again").payload == b"again"
