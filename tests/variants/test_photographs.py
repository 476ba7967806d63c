"""A published ResNet on folders of pictures: files in torchvision's layout are read, others refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from variants.data import load_parts
from variants.errors import MissingPart, RecipeError
from variants.recipe import Recipe
from variants.recipes.photographs import Photographs, Portions
from variants.sources.folders import class_names, read_picture
from variants.sources.recipes import load_recipe
from variants.sources.resnet import RESNET18, RESNET50, FixedScale, ResNet, Shape

if TYPE_CHECKING:
    from pathlib import Path

MINE = """
from variants.recipes.photographs import Photographs, Portions

portions = Portions(train=2, calibration=1, validation=1, test=2)
RECIPE = Photographs({root!r}, weights={weights!r}, architecture="resnet18", side=32, portions=portions)
"""


def published(shape: Shape = RESNET18, classes: int = 1000) -> ResNet:
    return ResNet(shape, channels=3, classes=classes, normalise=FixedScale((0.5,) * 3, (0.25,) * 3))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(published().state_dict(), file)
    return file


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, name in ((part, name) for part in ("train", "val") for name in ("cat", "dog")):
        (tmp_path / part / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_the_network_has_the_published_names_and_sizes() -> None:
    state = published().state_dict()
    assert (
        sum(value.numel() for name, value in state.items() if "running" not in name and "num_b" not in name)
        == 11_689_512
    )
    for name, shape in (("conv1.weight", (64, 3, 7, 7)), ("layer2.0.downsample.0.weight", (128, 64, 1, 1))):
        assert state[name].shape == shape
    deep = published(RESNET50)
    assert sum(parameter.numel() for parameter in deep.parameters()) == 25_557_032
    assert deep.state_dict()["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)


def test_a_folder_of_pictures_and_a_file_of_weights_make_a_recipe(
    pictures: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(root=str(pictures), weights=str(weights)))
    recipe = load_recipe(str(tmp_path / "mine.py"))
    assert isinstance(recipe, Recipe)
    parts = load_parts(recipe, 0)
    assert {name: part.labels.tolist() for name, part in parts.named().items()} == {
        "train": [0, 0, 1, 1], "calibration": [0, 1], "validation": [0, 1], "test": [0, 0, 1, 1]
    }  # fmt: skip
    rows = torch.from_numpy(parts.test.inputs)
    model = recipe.make_model().eval()
    assert model(rows).shape == recipe.make_student().eval()(rows).shape == (4, 2)
    stored = torch.load(weights, weights_only=True)
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], stored["layer4.1.conv2.weight"])
    assert recipe.augment(rows, torch.Generator().manual_seed(0)).shape == rows.shape


def test_weights_change_what_build_it_is(pictures: Path, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({name: value + 1 for name, value in torch.load(weights, weights_only=True).items()}, other)
    plans = [Photographs(pictures, weights=str(file), architecture="resnet18").plan for file in (weights, other)]
    assert plans[0].starts_from != plans[1].starts_from


def test_a_picture_is_cut_from_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 40:80] = (255, 128, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    picture = read_picture(tmp_path / "wide.png", 28)
    assert picture.shape == (3, 28, 28)
    assert picture[:, 14, 14].tolist() == [255.0, 128.0, 0.0]


def test_weights_that_do_not_fit_are_refused_by_name(pictures: Path, weights: Path, tmp_path: Path) -> None:
    recipe = Photographs(pictures, weights=str(weights), architecture="resnet50")
    with pytest.raises(RecipeError, match=r"do not fit this network: \d+ of \d+ differ, the first is 'layer1"):
        recipe.make_model()
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(RecipeError, match=r"cannot read weights from '.*text\.pth'"):
        Photographs(pictures, weights=str(tmp_path / "text.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RecipeError, match="holds no state dictionary"):
        Photographs(pictures, weights=str(tmp_path / "list.pth"))


def test_unreadable_and_missing_pictures_are_refused_by_name(pictures: Path, weights: Path) -> None:
    recipe = Photographs(pictures, weights=str(weights), architecture="resnet18", side=32, portions=Portions())
    with pytest.raises(RecipeError, match=r"class 'cat' in .* has 3 pictures; 21 are wanted"):
        recipe.load(0)
    (pictures / "broken.png").write_text("no picture")
    with pytest.raises(RecipeError, match=r"cannot read picture '.*broken\.png'"):
        read_picture(pictures / "broken.png", 32)
    with pytest.raises(RecipeError, match="has no folder per class"):
        class_names(pictures / "nowhere")


def test_an_architecture_or_package_that_is_not_there_is_named(pictures: Path, weights: Path) -> None:
    with pytest.raises(RecipeError, match="'resnet19' is not known; allowed are resnet18, resnet50"):
        Photographs(pictures, weights=str(weights), architecture="resnet19")
    with pytest.raises(MissingPart, match="pip install torchvision"):
        Photographs(pictures, weights="torchvision")
