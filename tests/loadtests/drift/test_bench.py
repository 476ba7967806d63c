"""The drift bench on a model of four classes whose variants are made of numbers, end to end but for the files."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loadtests.drift import comparing, detecting, detectors, page, witnessing
from loadtests.drift.answers import Answers, Damage, Scene
from loadtests.drift.estimating import run_estimates
from loadtests.drift.picture import draw
from loadtests.drift.references import ReferenceMissing, present
from service.policy.drift.summary import summarise
from variants.drifting import Seen, Truth, describe_drift
from variants.perturbing import perturbed_places
from variants.scoring import CLASSES
from variants.summarising import describe_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CLASSES_, ROWS = 4, 400
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def answers_to(labels: np.ndarray[tuple[int], np.dtype[np.int64]], noise: float, seed: int) -> Array:
    chance = np.random.default_rng([1, seed])
    return (4.0 * np.eye(CLASSES_)[labels] + chance.normal(0.0, noise, (len(labels), CLASSES_))).astype(np.float32)


def elsewhere(work: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """Do jobs as another process would: nothing goes there or comes back but as bytes."""
    return [pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(job))))) for job in jobs]  # noqa: S301 - our own


def beside(answers: Array, noise: float, seed: int) -> Array:
    chance = np.random.default_rng([2, seed])
    return (answers + chance.normal(0.0, noise, answers.shape)).astype(np.float32)


@pytest.fixture
def model() -> Answers:
    labels = np.random.default_rng(0).integers(0, CLASSES_, ROWS)
    rows = np.random.default_rng(1).normal(size=(ROWS, 1, 6, 6)).astype(np.float32)
    full = answers_to(labels, 1.0, 0)
    small, other = (beside(full, 0.3, seed) for seed in (1, 2))
    outputs = {"full": full, "small": small, "other": other}
    worse = [answers_to(labels[perturbed_places(ROWS)], noise, 7) for noise in (1.5, 2.5)]
    seen = {
        name: Seen(output, tuple(beside(answer, 0.6 * place, place) for answer in worse))
        for place, (name, output) in enumerate(outputs.items())
    }
    truth = Truth(labels, CLASSES)
    drift = {name: describe_drift(None if name == "full" else seen["full"], seen[name], truth) for name in seen}
    accuracy = SimpleNamespace(value=0.95, rows=ROWS)
    tiers = {"full": "full", "small": "pruned", "other": "distilled"}
    published = [
        SimpleNamespace(name=name, tier=tiers[name], drift=found, accuracy=accuracy) for name, found in drift.items()
    ]
    manifest: Any = SimpleNamespace(model="tiny", published=published, input_drift=describe_inputs("x", rows))
    broken = full.copy()
    broken[::4] = np.roll(broken[::4], 1, axis=1)
    noisy = Scene("noise", 0.6, summarise(1.6 * rows), labels, {name: answers_to(labels, 1.4, 3) for name in outputs})
    damaged = small.copy()
    damaged[::16] = np.roll(damaged[::16], 1, axis=1)
    return Answers(
        manifest=manifest,
        clean=Scene("clean", 0.0, summarise(rows), labels, outputs),
        shifted=(noisy,),
        damaged=(Damage("small", 9, damaged), Damage("full", 99, broken)),
        places=np.arange(ROWS),
    )


def test_the_bench_finds_faults_and_writes_them_down(
    model: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (detecting, "CLEAN_SAMPLES", 400),
        (detecting, "MOST", 400),
        (detecting, "RUN_IN", 50),
        (detectors, "GRIDS", {kind: grid[:2] for kind, grid in detectors.GRIDS.items()}),
        (witnessing, "REPEATS", 1),
        (witnessing, "MOST", 300),
        (comparing, "WINDOWS", 3),
        (comparing, "PERMUTATIONS", 30),
    ):
        monkeypatch.setattr(module, name, value)
    models = {"tiny": model}
    document: dict[str, Any] = {
        "command": "bench",
        "commit": "abc",
        "date": "2026-01-01",
        "machine": {"cpu": "a", "cores": 2},
        "models": {"tiny": ROWS},
        "estimates": run_estimates(models),
        "inputs": comparing.run_comparison(models),
        "witnesses": witnessing.run_witnesses(models, elsewhere, lambda _: None),
        "detection": detecting.run_detection(models, elsewhere, lambda _: None, repeats=3),
    }
    ours = document["detection"]["detectors"]["tiergate"]
    assert ours["found_ratio"] == 1.0
    assert ours["median_delay_samples"] < 150
    assert document["inputs"]["tiny"]["noise 0.6"]["T2"] == 1.0
    estimates = document["estimates"]
    assert estimates["by condition"]["flipped weights"]["shadow"]["mean_absolute_error"] < 0.06
    assert estimates["all"]["shadow"]["coverage"] == 1.0

    blamed = document["witnesses"]
    assert blamed["full, by 20 points"]["full_out_ratio"] == 1.0
    assert blamed["full, by 20 points"]["smaller_out_without_ratio"] == 1.0
    assert blamed["the smaller variant, by 5 points"]["smaller_out_ratio"] == 1.0
    assert blamed["nothing"]["full_out_ratio"] == blamed["nothing"]["smaller_out_ratio"] == 0.0

    draw(document, tmp_path / "drift.png")
    assert (tmp_path / "drift.png").stat().st_size > 1000
    page.shorten(document)
    docs = tmp_path / "drift.md"
    docs.write_text(f"# Drift\n\n{page.MARKS.begin}\n{page.MARKS.end}\n", encoding="utf-8")
    page.rewrite(docs, document, tmp_path / "drift.png")
    text = docs.read_text(encoding="utf-8")
    for words in ("drift.png", "river ADWIN", "flipped weights", "demotions", "| noise 0.6 | 100 % |"):
        assert words in text
    assert "| bar | tiny | all |" in text
    assert "| full, by 20 points | 2 | 100 % | 0 % |" in text


def test_a_manifest_of_an_older_build_is_named() -> None:
    with pytest.raises(ReferenceMissing, match="build the model again"):
        present(None, "calibration of full")
