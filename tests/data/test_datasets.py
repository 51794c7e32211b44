"""Named image data sets: values, splits, and what is said when one is missing."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch.utils.data import TensorDataset

from nodelens.data.datasets import ImageDataset, dataset_names, load_dataset, loader
from nodelens.errors import InvalidValueError, UnknownNameError


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", seed=3, test_fraction=0.25)


def test_digits_are_float_images_between_zero_and_one_with_whole_classes(digits):
    images, labels = digits.train.tensors
    assert images.dtype == torch.float32
    assert images.shape[1:] == digits.shape == (1, 8, 8)
    assert images.min() == 0 and images.max() == 1
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(digits.classes)) == set(range(10))


def test_the_split_holds_every_image_once(digits):
    from sklearn.datasets import load_digits

    together = torch.cat([digits.train.tensors[0], digits.test.tensors[0]]).flatten(1)
    original = torch.from_numpy(load_digits().data / 16).float()
    assert sorted(together.tolist()) == sorted(original.tolist())
    assert len(digits.test) == 450


def test_every_class_has_its_share_of_the_test_split(digits):
    train, test = (part.tensors[1].bincount() for part in (digits.train, digits.test))
    assert (test / (train + test) - 0.25).abs().max() < 0.01


def test_one_seed_gives_one_split_and_another_seed_another(digits):
    again = load_dataset("digits", seed=3, test_fraction=0.25)
    other = load_dataset("digits", seed=4, test_fraction=0.25)
    assert torch.equal(again.test.tensors[0], digits.test.tensors[0])
    assert not torch.equal(other.test.tensors[0], digits.test.tensors[0])


def test_loading_and_iterating_leave_the_global_generator_alone(digits):
    before = torch.get_rng_state()
    dataset = load_dataset("digits")
    for _ in loader(dataset.test, batch_size=100):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_keeps_the_order_and_the_last_short_batch():
    dataset = TensorDataset(torch.arange(7), torch.arange(7))
    batches = [images.tolist() for images, _ in loader(dataset, batch_size=3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_unknown_data_set_names_the_nearest_and_all():
    with pytest.raises(UnknownNameError, match=r"'digit' \(did you mean 'digits'\?\).* mnist"):
        load_dataset("digit")
    assert dataset_names() == ["digits", "imagenet_photos", "images", "mnist"]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(InvalidValueError, match=f"test_fraction is {fraction}"):
        load_dataset("digits", test_fraction=fraction)


def test_a_batch_size_below_one_is_refused(digits):
    with pytest.raises(InvalidValueError, match="batch_size is 0"):
        loader(digits.test, batch_size=0)


def test_mnist_without_its_package_says_what_to_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidValueError, match="make models"):
        load_dataset("mnist")


@pytest.mark.models
def test_mnist_is_a_slice_of_five_thousand_images():
    mnist = load_dataset("mnist")
    assert mnist.shape == (1, 28, 28)
    assert (len(mnist.train), len(mnist.test)) == (4000, 1000)
    assert mnist.train.tensors[1].bincount().tolist() == [400] * 10
    assert "slice" in mnist.note and "5000" in mnist.note
