"""Augmentation recipes, what single operations promise in their own units, and the label guard."""

import numpy as np
import pytest
import torch
from scipy import stats

from gridsight.core import seed
from gridsight.core.errors import UsageError
from gridsight.data.augment import AUGMENTS, apply, check, drawn, guard, guarded
from gridsight.data.augment.affine import matrix as affine_matrix
from gridsight.data.augment.noise import normal

MANY = torch.arange(20_000)


def u_of(name: str, ndim: int, items: torch.Tensor = MANY) -> torch.Tensor:
    return seed.uniform(0, 0, items, name, AUGMENTS.get(name).tags["count"](ndim))


def test_apply_runs_each_domain_apart_and_skips_strength_zero() -> None:
    sound, spectrum = torch.randn(3, 1, 50), torch.randn(3, 1, 12, 20)
    items, recipe = torch.arange(3), [("shift", 0.2), ("time_mask", 0.5), ("noise", 0.0)]
    on_sound = apply(sound, items, 0, 0, recipe, "signal")
    assert torch.equal(on_sound, apply(sound, items, 0, 0, [("shift", 0.2)], "signal"))
    assert torch.equal(
        apply(spectrum, items, 0, 0, recipe, "spectrum"),
        AUGMENTS.get("time_mask").item(spectrum, u_of("time_mask", 2, items), 0.5),
    )
    assert torch.equal(apply(sound, items, 0, 0, [("noise", 0.0), ("affine", 0.0)]), sound)


def test_apply_is_a_function_of_seed_epoch_and_item_alone() -> None:
    recipe = [("affine", 1.0), ("shift", 0.1), ("contrast", 0.2), ("noise", 0.1), ("cutout", 0.3)]
    x, items = torch.randn(12, 3, 16, 16), torch.randint(0, 10**6, (12,), generator=torch.Generator().manual_seed(0))
    whole = apply(x, items, 1, 2, recipe)
    halves = torch.cat([apply(x[:5], items[:5], 1, 2, recipe), apply(x[5:], items[5:], 1, 2, recipe)])
    assert torch.equal(whole, halves)
    for other in (apply(x, items, 2, 2, recipe), apply(x, items, 1, 3, recipe), apply(x, items + 1, 1, 2, recipe)):
        assert not torch.equal(whole, other)


def test_channels_last_memory_is_kept_and_changes_no_value() -> None:
    recipe = [("shift", 0.1), ("flip", 1.0), ("cutout", 0.4)]
    for x in (torch.randn(4, 3, 8, 9), torch.randn(4, 3, 6, 8, 9)):
        layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        out = apply(x.contiguous(memory_format=layout), torch.arange(4), 0, 0, recipe)
        assert out.is_contiguous(memory_format=layout)
        torch.testing.assert_close(out, apply(x, torch.arange(4), 0, 0, recipe))


def test_a_wrong_recipe_is_refused() -> None:
    check([("shift", 0.1), ("time_mask", 0.2)], 1, sound=True)
    check([("flip", 1.0), ("shift", 0.1)], 1)
    with pytest.raises(UsageError, match="time_mask is not for data that are no sounds"):
        check([("time_mask", 0.2)], 2)
    with pytest.raises(UsageError, match="flip is not for sounds"):
        check([("flip", 1.0)], 1, sound=True)
    with pytest.raises(UsageError, match="did you mean shift"):
        check([("shfit", 0.1)], 2)
    with pytest.raises(UsageError, match="from 0 to 1, not 3"):
        check([("shift", 3.0)], 2)
    with pytest.raises(UsageError, match="not -1"):
        check([("noise", -1.0)], 2)
    with pytest.raises(UsageError, match="twice"):
        check([("shift", 0.1), ("shift", 0.2)], 2)


def test_flip_mirrors_the_stated_share() -> None:
    x = torch.arange(5.0).expand(20_000, 1, 5)
    for strength in (0.5, 1.0, 2.0):
        out = AUGMENTS.get("flip").item(x, u_of("flip", 1), strength)
        mirrored = (out[:, 0, 0] == 4).float().mean().item()
        assert abs(mirrored - strength / 2) <= 3.5 * 0.5 / 20_000**0.5
        assert ((out == x).flatten(1).all(1) | (out == x.flip(-1)).flatten(1).all(1)).all()


def test_flip_alternates_from_epoch_to_epoch_and_shift_does_not() -> None:
    x, items = torch.arange(5.0).expand(200, 1, 5), torch.arange(200)
    sides = torch.stack([apply(x, items, 3, epoch, [("flip", 1.0)])[:, 0, 0] for epoch in range(4)])
    assert (sides[0] != sides[1]).all() and (sides[0] == sides[2]).all() and (sides[1] == sides[3]).all()
    assert 60 < int((sides[0] == 4).sum()) < 140
    moved = [drawn(items, 3, epoch, "shift", 1) for epoch in range(3)]
    assert not torch.allclose(moved[0], moved[2])


def test_shift_moves_by_whole_cells_each_equally_likely_and_repeats_the_edge() -> None:
    x = torch.arange(20.0).expand(20_000, 1, 20)
    out = AUGMENTS.get("shift").item(x, u_of("shift", 1), 0.1)
    moves = (out[:, 0, 10] - 10).to(torch.int64)
    counts = torch.bincount(moves + 2, minlength=5)
    assert len(counts) == 5 and stats.chisquare(counts.numpy()).pvalue > 1e-3
    torch.testing.assert_close(out[:, 0], (torch.arange(20.0) + moves[:, None]).clamp(0, 19))


def test_crop_looks_at_the_stated_share_and_stays_inside() -> None:
    matrix = AUGMENTS.get("crop").tags["matrix"](u_of("crop", 2), 0.4, (10, 20))
    for axis, size in enumerate((10, 20)):
        keep = matrix[:, axis, axis]
        assert 0.6 <= keep.min() < 0.601 and 0.999 < keep.max() <= 1
        far = keep * size / 2 + matrix[:, axis, -1].abs()
        assert far.max() <= size / 2 + 1e-5 and (far > size / 2 - 0.01).any()


def test_affine_units() -> None:
    u = u_of("affine", 2)
    a = affine_matrix(u, 1.0, (9, 9))[:, :, :2].double()
    area = torch.linalg.det(a)  # rotation and shear keep the area, zoom z divides it by z^2
    zoom = area**-0.5
    assert 0.9 <= zoom.min() < 0.901 and 1.099 < zoom.max() <= 1.1 + 1e-6
    angle = torch.atan2(a[:, 0, 1], a[:, 1, 1]).rad2deg()  # the last column is not sheared
    assert -15.001 <= angle.min() < -14.9 and 14.9 < angle.max() <= 15.001
    torch.testing.assert_close(affine_matrix(torch.full((1, 3), 0.5), 1.0, (9, 9))[0], torch.eye(2, 3))
    # 3-D: no rotation axis is left out, and a rotation alone is orthogonal with determinant 1
    for axis in (1, 2, 3):
        u3 = torch.full((1, 6), 0.5)
        u3[0, axis] = 1.0
        r = affine_matrix(u3, 1.0, (5, 5, 5))[0, :, :3].double()
        torch.testing.assert_close(r @ r.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
        assert abs(float(torch.trace(r)) - (1 + 2 * np.cos(np.radians(15)))) < 1e-6
    stretch = affine_matrix(torch.tensor([[1.0], [0.0]]), 2.0, (100,))
    torch.testing.assert_close(stretch[:, 0, 0], torch.tensor([1 / 1.2, 1 / 0.8]))


def test_noise_is_white_normal_and_scaled_by_the_item() -> None:
    rows = normal(u_of("noise", 1, torch.arange(200)), 1000).double()
    flat = rows.flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(flat)) < 0.05 and abs(stats.skew(flat)) < 0.02
    limit = 4 / flat.size**0.5
    for lag in (1, 2, 3, 4, 5, 8):  # four cells share a hash
        assert abs(float((rows[:, :-lag] * rows[:, lag:]).mean())) < limit
    assert abs(float((rows[:-1] * rows[1:]).mean())) < limit, "neighbouring items"
    x = torch.randn(3, 2, 30, 30) * torch.tensor([1.0, 10.0, 0.0]).view(3, 1, 1, 1)
    added = AUGMENTS.get("noise").item(x, u_of("noise", 2, torch.arange(3)), 0.5) - x
    assert abs(float(added[0].std()) - 0.5) < 0.05 and abs(float(added[1].std()) - 5) < 0.5
    assert torch.equal(added[2], torch.zeros_like(added[2]))


def test_contrast_units_and_sound_keeps_its_zero() -> None:
    x = torch.randn(1000, 1, 64)
    out = apply(x, torch.arange(1000), 0, 0, [("contrast", 0.3)])
    gain = out.std(2) / x.std(2)
    assert 0.7 - 1e-4 <= gain.min() < 0.72 and 1.28 < gain.max() <= 1.3 + 1e-4
    offset = (out.mean(2) - gain * x.mean(2)) / x.std(2, correction=0)
    assert -0.3 - 1e-4 <= offset.min() < -0.28 and 0.28 < offset.max() <= 0.3 + 1e-4
    silent = torch.zeros(5, 1, 64)
    silent[:, :, 0] = 1
    assert (apply(silent, torch.arange(5), 0, 0, [("contrast", 0.3)], "signal")[:, :, 1:] == 0).all()


@pytest.mark.parametrize(("name", "axes"), [("cutout", (2, 3)), ("time_mask", (3,)), ("frequency_mask", (2,))])
def test_masks_hide_one_box_up_to_the_stated_share(name: str, axes: tuple[int, ...]) -> None:
    x = torch.rand(4000, 1, 20, 30) + 1
    x[:, :, 0, 0] = 5.0  # so that no cell equals the mean by chance
    out = AUGMENTS.get(name).item(x, u_of(name, 2, torch.arange(4000)), 0.4)
    hidden = out != x
    torch.testing.assert_close(out[hidden], x.mean((2, 3), keepdim=True).expand_as(x)[hidden])
    for axis in (2, 3):
        along = hidden.any(5 - axis)[:, 0]
        size, length = along.shape[1], along.sum(1)
        if axis not in axes:
            assert set(length.tolist()) <= {0, size}
            continue
        assert length.max() == round(0.4 * size) and length.min() == 0
        pieces = (along[:, 1:] & ~along[:, :-1]).sum(1) + along[:, 0]
        assert pieces.max() == 1
        assert along[:, 0].any() and along[:, -1].any()


DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (DIGITS, "0, 1, 2"),
        (("zero", "one", "cat"), "zero, one"),
        (("b", "d"), "b, d"),
        (("ब", "か"), "ब, か"),
        (("digit_3", "letter-E", "plane"), "digit_3, letter-E"),
        (("left", "right"), "left, right"),
        (("turnLeft", "stop"), "turnLeft"),
        (("Keep right", "Yield"), "Keep right"),
        (("hand_L", "hand_R", "foot"), "hand_L, hand_R"),
    ],
)
def test_guard_leaves_out_flips_that_change_labels(classes: tuple[str, ...], named: str) -> None:
    kept, messages = guarded([("shift", 0.1), ("flip", 1.0)], classes, "image")
    assert kept == (("shift", 0.1),)
    assert len(messages) == 1 and messages[0].startswith(f"flip is left out: {named}")


def test_guard_lets_harmless_recipes_through() -> None:
    recipe = (("affine", 2.0), ("flip", 1.0))
    names = ("airplane", "bright star", "copyright", "type_A_lung", "benign", "wright flyer")
    assert guarded(recipe, names, "image") == (recipe, [])
    assert guard([("flip", 0.0)], DIGITS, "image") == []
    assert guard([("flip", 1.0)], ("Point", "Gun"), "series")[0].endswith("Point, Gun may differ by its direction")


def test_guard_holds_rotations_that_turn_6_into_9() -> None:
    kept, messages = guarded([("affine", 4.0)], DIGITS, "image")
    assert kept == (("affine", 3.0),) and "6 and 9" in messages[0]
    assert guarded([("affine", 3.0)], DIGITS, "image")[1] == []
    assert guarded([("affine", 4.0)], ("cat", "dog"), "image")[1] == []
    assert guarded([("affine", 4.0)], DIGITS, "sound")[1] == [], "in 1-D it is a stretch"
