"""The networks that load torchvision's weights answer as torchvision's do: recorded, and beside it where it imports."""

from typing import Any

import pytest
import torch

from gridsight.core.registry import Entry
from gridsight.models import MODELS
from published import entries, ours, recorded, theirs, torchvision_models

RECORDED = recorded()


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_every_family_is_recorded() -> None:
    families = [{entry.name for entry in family} for family in MODELS.families()]
    published = {entry.name for entry in entries()}
    without = [sorted(family & published) for family in families if family & published and not family & RECORDED.keys()]
    assert without == []


def in_time(name: str) -> Any:
    """Networks of more than 50 million weights take seconds each."""
    large = MODELS.get(name).tags["parameters_published"] > 50_000_000
    return pytest.param(name, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize("name", [in_time(name) for name in sorted(RECORDED)])
def test_logits_are_the_recorded_ones(name: str) -> None:
    logits, _ = ours(MODELS.get(name))
    expected = torch.tensor(RECORDED[name], dtype=torch.float64)
    assert expected.std() > 1e-3, "a record that is all alike proves nothing"
    close(logits[0, :8], expected)


@pytest.mark.slow
@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in entries()])
def test_logits_are_torchvisions(entry: Entry) -> None:
    try:
        torchvision_models()
    except ImportError as error:
        pytest.skip(f"torchvision does not import: {error}")
    logits, weights = ours(entry)
    close(logits, theirs(entry, weights))
