"""A crew makes variants beside each other, and nothing is lost or left over however it ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from tests.variants.conftest import TINY, Listener
from variants.cache import StepCache
from variants.data import map_parts, store_parts
from variants.errors import StepFailed
from variants.making import Jobs, make_variants
from variants.recipe import DataParts, Examples
from variants.sources.models import Given, reload_of
from variants.sources.recipes import load_recipe
from variants.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.build import BuildResult
    from variants.recipe import AnyRecipe, Recipe
    from variants.workshop import Made

RECIPE = Path(__file__).with_name("beside_recipe.py")
PATIENCE_S = 300.0

pytestmark = pytest.mark.timeout(900)  # processes that import torch, perhaps on a machine with other work


class Hearing(Listener):
    """Keeps all that it is told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        self.tasks.append(name)
        self.heard.append(f"{name} begins")
        yield lambda: self.heard.append(f"{name} of {total}")
        self.heard.append(f"{name} ends")

    def note(self, text: str) -> None:
        self.heard.append(text)


class Site:
    """A folder with the recipe, what its makers are told to do, and the marks that they leave."""

    def __init__(self, folder: Path, **todo: str) -> None:
        self.folder = folder
        self.recipe_file = shutil.copyfile(RECIPE, folder / "beside_recipe.py")
        self.tell(**todo)

    def tell(self, **todo: str) -> None:
        for name, what in todo.items():
            (self.folder / name).write_text(what.replace("_", " "))

    def make(self, listener: Listener, count: int = 2) -> tuple[Made, ...]:
        load = partial(load_recipe, str(self.recipe_file))
        recipe = load()
        shop = Workshop(recipe, recipe.load(0), 0, StepCache(self.folder / "steps"), listener)
        return make_variants(shop, Jobs(count, load))

    def makers(self, name: str) -> list[int]:
        """Return the processes that began to make a variant, in their order."""
        marks = self.folder / f"{name}.marks"
        return [int(line) for line in marks.read_text().split()] if marks.exists() else []

    def wait_for(self, name: str, times: int = 1) -> int:
        """Wait until making a variant has begun so many times; return the process."""
        for _ in range(int(PATIENCE_S / 0.05)):
            if len(self.makers(name)) >= times:
                return self.makers(name)[-1]
            Event().wait(0.05)
        raise TimeoutError(name)


def is_running(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def wait_until_ended(process: int) -> None:
    for _ in range(int(PATIENCE_S / 0.05)):
        if not is_running(process):
            return
        Event().wait(0.05)
    raise TimeoutError(f"process {process} goes on")


def test_independent_variants_are_made_beside_each_other_and_shown(tmp_path: Path) -> None:
    site, told = Site(tmp_path, third="leave_out"), Hearing()
    made = site.make(told)
    names = ["full", "first", "second", "half", "first-half", "second-half"]
    assert [one.name for one in made] == names, "in the order of a build without a crew, and without what is left out"
    (full,), (first,), (second,), (third,) = map(site.makers, ("full", "first", "second", "third"))
    assert full == os.getpid(), "what everything derives from is made before"
    assert len({full, first, second}) == 3, "each waits for the other, so neither was made alone"
    assert third in (first, second), "processes go on with what is ready next"
    own = [text for text in told.heard if text.startswith("take second")]
    assert own[:2] == ["take second begins", "take second ends"]
    assert own[2].startswith("take second: ")
    assert own[2].endswith(" MiB")

    again = Hearing()
    assert [one.file for one in site.make(again, count=1)] == [one.file for one in made]
    assert again.heard == [], "one after another everything is found done"
    assert told.heard.count("left out: third: there is no third way") == 1


def test_a_variant_that_fails_ends_the_others_and_keeps_what_is_finished(tmp_path: Path) -> None:
    site = Site(tmp_path, first="at_once", second="after_third", third="stay")
    with pytest.raises(StepFailed, match=r"step 'take second' failed: RuntimeError: broken") as caught:
        site.make(Listener())
    assert "beside_recipe.py" in "".join(caught.value.__notes__), "where it failed, for --verbose"
    (staying,) = site.makers("third")
    assert not is_running(staying)
    site.tell(second="at_once", third="at_once")
    site.make(Listener(), count=1)
    assert [len(site.makers(name)) for name in ("full", "first", "second", "third")] == [1, 1, 2, 2]


def test_a_worker_that_is_killed_is_told_of(tmp_path: Path) -> None:
    site = Site(tmp_path, first="at_once", second="die")
    with pytest.raises(StepFailed, match=r"making 'second' failed: its process ended with exit code -9 .* --jobs"):
        site.make(Listener())


def build(site: Site, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "build",
        str(site.recipe_file),
        "--output",
        str(site.folder / "out"),
    ]
    return subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_build_that_is_stopped_leaves_no_worker_and_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, first="at_once", second="stay")
    with build(site, "--jobs", "2") as killed:
        staying, _ = site.wait_for("second"), site.wait_for("third")
        killed.kill()  # and cannot end its workers any more
    wait_until_ended(staying)

    with build(site, "--jobs", "2") as interrupted:
        staying = site.wait_for("second", times=2)
        os.killpg(interrupted.pid, signal.SIGINT)  # as a terminal does: every process of the group hears Ctrl-C
        _, said = interrupted.communicate()
    assert interrupted.returncode == 130
    assert said.endswith("tiergate build: interrupted; run the same command again to go on where it stopped\n")
    assert "Traceback" not in said
    assert not is_running(staying)
    assert len(site.makers("full")) == len(site.makers("first")) == 1, "made before the first was stopped"


def test_trained_variants_are_the_same_bytes_with_jobs(built: BuildResult, tiny: Recipe, tmp_path: Path) -> None:
    listener = Listener()
    shop = Workshop(tiny, tiny.load(0), 0, StepCache(tmp_path), listener)
    made = make_variants(shop, Jobs(2, partial(load_recipe, str(TINY))))
    digests = {one.name: hashlib.sha256(one.file).hexdigest() for one in made}
    expected = {variant.name: variant.sha256 for variant in built.manifest.variants}
    assert list(digests.items()) == list(expected.items())
    assert len(listener.tasks) == len(set(listener.tasks)), "no step is done twice"
    assert {"teach", "prune pruned", "distil distilled"} <= set(listener.tasks)


def test_a_recipe_reaches_other_processes(tmp_path: Path) -> None:
    recipe: Any = object()
    source = Given(source=tmp_path / "model.onnx")
    assert reload_of(source, recipe)() is recipe
    loaded: AnyRecipe = reload_of(Given(source=TINY), recipe)()
    assert loaded.name == "tiny"


def test_rows_are_the_same_in_another_process(tmp_path: Path) -> None:
    pairs = np.zeros(3, dtype=[("ids", np.int64, (4,)), ("mask", np.int64, (4,))])
    pairs["ids"] = np.arange(12).reshape(3, 4)
    none = Examples(pairs[:0], np.zeros(0, dtype=np.int64))
    parts = DataParts(none, Examples(pairs, np.arange(3)), Examples(pairs[1:], np.arange(2)), none)
    store_parts(parts, tmp_path)
    for name, part in map_parts(tmp_path).named().items():
        expected = parts.named()[name]
        assert part.inputs.dtype == expected.inputs.dtype
        assert type(part.inputs) is np.ndarray
        assert np.array_equal(part.inputs, expected.inputs)
        assert np.array_equal(part.labels, expected.labels)
