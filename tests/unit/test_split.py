"""Splits: disjoint, covering, stratified within one item, groups whole, decided by the seed alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsight.core.errors import DataError, UsageError
from gridsight.data.split import FEWEST, LEAST, folds, split

GOLDEN_TEST = [3, 9, 12, 19]


def _labels(counts):
    return np.repeat(np.arange(len(counts)), counts)


def _whole(parts, n):
    joined = np.concatenate(parts)
    assert len(joined) == n and sorted(joined.tolist()) == list(range(n))


def _together(groups, parts):
    seen = [set(np.asarray(groups)[part].tolist()) for part in parts]
    for i, one in enumerate(seen):
        for other in seen[i + 1 :]:
            assert not one & other


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=8), st.integers(0, 10_000))
def test_unpublished_data_are_carved_class_by_class(counts, seed):
    y = _labels(counts)
    if max(counts) == 1:
        with pytest.raises(DataError, match="no class has a second item"):
            split(y, None, None, seed)
        return
    got = split(y, None, None, seed)
    _whole([got.train, got.val, got.test], len(y))
    rest = 0
    for c, count in enumerate(counts):
        tested = int((y[got.test] == c).sum())
        assert abs(tested - 0.2 * count) <= 1 and (tested >= 1 or count == 1)
        rest += count - tested
    for c, count in enumerate(counts):
        left = count - int((y[got.test] == c).sum())
        in_val = int((y[got.val] == c).sum())
        if rest < FEWEST:
            assert in_val == 0
        else:
            assert in_val >= min(LEAST, left // 3) and (in_val <= LEAST or abs(in_val - 0.1 * left) <= 1)
            assert left - in_val >= 1
    again = split(y, None, None, seed)
    assert all(np.array_equal(getattr(got, part), getattr(again, part)) for part in ("train", "val", "test"))


def test_known_counts_and_words():
    y = _labels([600, 400])
    got = split(y, None, None, 0)
    assert Counter(y[got.test].tolist()) == {0: 120, 1: 80}
    assert Counter(y[got.val].tolist()) == {0: 48, 1: 32}
    assert got.words == (
        "test: 200 of 1,000 (20%) held back, stratified, seed 0; "
        "validation: 80 of 800 (10%) of the training data, stratified, seed 0"
    )
    other = split(y, None, None, 1)
    assert not np.array_equal(got.test, other.test)
    assert len(np.intersect1d(got.test, other.test)) < 80  # by chance about 40


def test_the_draw_is_the_same_on_every_machine():
    got = split(_labels([10, 10]), None, None, 0)
    assert got.test.tolist() == GOLDEN_TEST


def test_published_parts_stay():
    y = np.array([0, 1] * 400)
    said = ["test" if i < 100 else "val" if i < 150 else "train" for i in range(800)]
    got = split(y, None, said, 3)
    assert got.test.tolist() == list(range(100)) and got.val.tolist() == list(range(100, 150))
    assert got.train.tolist() == list(range(150, 800))
    got = split(y, None, [part if part == "test" else None for part in said], 3)
    assert got.test.tolist() == list(range(100)) and len(got.val) == 70 and len(got.train) == 630


def test_a_lone_published_validation_part_is_the_test():
    y = np.array([0, 1] * 50)
    got = split(y, None, ["train"] * 80 + ["val"] * 20, 0)
    assert got.test.tolist() == list(range(80, 100)) and len(got.val) == 0 and len(got.train) == 80
    assert "published validation" in got.words and "no validation: 80 training items" in got.words


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 5),
    st.integers(6, 60),
    st.integers(0, 1000),
    st.randoms(use_true_random=False),
)
def test_groups_are_never_broken(classes, count, seed, random):
    groups, y = [], []
    for group in range(count):  # every group has every class, so that any choice is possible
        for c in range(classes):
            here = random.randint(1, 12)
            y += [c] * here
            groups += [f"g{group}"] * here
    got = split(y, groups, None, seed)
    _whole([got.train, got.val, got.test], len(y))
    _together(groups, [got.train, got.val, got.test])
    assert len(got.test) and set(np.asarray(y)[got.train].tolist()) == set(range(classes))
    k = min(5, count)
    tested = []
    for train, test in folds(y, groups, k, seed):
        _whole([train, test], len(y))
        _together(groups, [train, test])
        tested.append(test)
    _whole(tested, len(y))


def test_grouped_parts_keep_the_classes_even():
    rng = np.random.default_rng(0)
    y = rng.choice(3, 6000, p=[0.6, 0.3, 0.1])
    groups = rng.integers(0, 300, 6000)
    got = split(y, groups, None, 0)
    assert abs(len(got.test) / 6000 - 0.2) < 0.02 and abs(len(got.val) / (6000 - len(got.test)) - 0.1) < 0.02
    for part in (got.test, got.val):
        share = np.bincount(y[part], minlength=3) / len(part)
        assert np.abs(share - np.bincount(y) / 6000).max() < 0.02


def test_folds_agree_with_scikit_learn_on_evenness():
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(1)
    y = rng.choice(4, 2000, p=[0.4, 0.3, 0.2, 0.1])
    groups = rng.integers(0, 120, 2000)

    def spread(pairs):
        shares = np.array([np.bincount(y[test], minlength=4) / np.bincount(y) for _, test in pairs])
        return shares.std(0).mean()

    ours = spread(folds(y, groups, 5, 0))
    theirs = spread(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(y, y, groups))
    assert ours <= 1.2 * theirs + 0.002


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 90), min_size=2, max_size=6), st.integers(2, 7), st.integers(0, 99))
def test_folds_are_even_in_size_and_in_classes(counts, k, seed):
    y = _labels(counts)
    if k > len(y):
        with pytest.raises(UsageError, match="there are only"):
            folds(y, None, k, seed)
        return
    pairs = folds(y, None, k, seed)
    _whole([test for _, test in pairs], len(y))
    sizes = [len(test) for _, test in pairs]
    assert max(sizes) - min(sizes) <= 1
    for c in range(len(counts)):
        each = [int((y[test] == c).sum()) for _, test in pairs]
        assert max(each) - min(each) <= 1


def test_tiny_classes():
    y = _labels([700, 9, 2, 1])
    got = split(y, None, None, 0)
    assert Counter(y[got.test].tolist()) == {0: 140, 1: 2, 2: 1}
    assert Counter(y[got.val].tolist()) == {0: 56, 1: 2}  # 7 of the class are left, a third of them at most
    assert "not tested for lack of items: 3" in got.words
    assert "classes with fewer than 5 validation items: 1, 2, 3" in got.words


def test_few_groups():
    y, speakers = [0, 1] * 300, ["a"] * 200 + ["b"] * 200 + ["c"] * 200
    got = split(y, speakers, None, 0)
    assert (len(got.train), len(got.test)) == (400, 200) and len(got.val) == 0  # 400 are fewer than 500
    got = split(y * 2, ["a"] * 600 + ["b"] * 600, None, 0)
    assert (len(got.train), len(got.val), len(got.test)) == (600, 0, 600)
    assert "no validation: the training data are one group" in got.words


@pytest.mark.parametrize(
    ("labels", "groups", "published", "words"),
    [
        (["a"] * 9, None, None, "one class only ('a')"),
        (["a", "b", "c"], None, ["train", "train", "test"], "only in the test data, so never trained on: c"),
        (["a", "b", "c"], None, ["train", "train", "val"], "never trained on: c"),
        (["a", "b"], None, ["test", "test"], "nothing to train on"),
        (["a", "b", "a"], ["x", "y", "x"], ["train", "train", "test"], "1 groups are in both the train and the test"),
        (["a", "b"], ["x", "x"], None, "all items are of one group"),
        (["a", "b"] * 3, ["x", "y"] * 3, None, "would leave a class without training data"),
    ],
)
def test_what_cannot_be_split_honestly(labels, groups, published, words):
    with pytest.raises(DataError) as caught:
        split(labels, groups, published, 0)
    assert words in str(caught.value)


def test_folds_that_cannot_be():
    with pytest.raises(DataError, match="class 'b' would be tested without being trained on"):
        folds(["a"] * 9 + ["b"], None, 5, 0)
    with pytest.raises(UsageError, match="at least 2"):
        folds(["a", "b"] * 5, None, 1, 0)
    with pytest.raises(UsageError, match="only 2 groups"):
        folds(["a", "b"] * 5, ["x"] * 5 + ["y"] * 5, 3, 0)
