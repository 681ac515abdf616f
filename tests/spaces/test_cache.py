"""The cache: entries whole or absent, a hash of content, a clear line where nothing can be written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.cache import Store, cache_folder, content_hash
from slimfront.spaces.errors import InputError


def test_arrays_come_back_as_they_were_put():
    store = Store(content_hash("a test"))
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "names": np.array(["x", "ü"])}
    store.put_arrays("entry", arrays)
    found = store.arrays("entry")
    assert found is not None and set(found) == set(arrays)
    assert all(np.array_equal(found[key], arrays[key]) and found[key].dtype == arrays[key].dtype for key in arrays)
    store.put_array("one", arrays["a"])
    assert np.array_equal(store.array("one"), arrays["a"])


def test_an_absent_entry_is_none():
    store = Store(content_hash("nothing here"))
    assert store.arrays("entry") is None and store.array("entry") is None


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_a_damaged_entry_counts_as_absent(kept):
    store = Store(content_hash("damaged", kept))
    store.put_arrays("entry", {"a": np.arange(100)})
    store.put_array("one", np.arange(100))
    for name in ("entry.npz", "one.npy"):
        path = store.path(name)
        path.write_bytes(path.read_bytes()[:kept])
    assert store.arrays("entry") is None
    assert store.array("one") is None


def test_a_pickled_entry_is_not_read():
    store = Store(content_hash("pickled"))
    store.put_array("one", np.arange(3))
    np.save(store.path("one.npy"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert store.array("one") is None


def test_nothing_half_written_is_left_behind():
    store = Store(content_hash("whole"))
    store.put_array("one", np.arange(1000))
    assert [path.name for path in store.folder.iterdir()] == ["one.npy"]


def test_the_folder_is_the_one_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("SLIMFRONT_CACHE")
    assert "slimfront" in str(cache_folder())


def test_a_folder_that_cannot_be_made_gives_one_clear_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"cannot write to the cache folder .*SLIMFRONT_CACHE") as caught:
        Store(content_hash("a test")).put_arrays("entry", {"a": np.arange(3)})
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(0, 3), max_size=4))
def test_hashes_are_equal_where_content_is(first, second):
    arrays = [np.array(values, np.float32) for values in (first, second)]
    assert (content_hash(arrays[0]) == content_hash(arrays[1])) == (first == second)


def test_hashes_tell_shapes_types_and_parts_apart():
    array = np.arange(4, dtype=np.int32)
    different = [
        content_hash(array),
        content_hash(array.reshape(2, 2)),
        content_hash(array.view(np.float32)),
        content_hash(array[:2], array[2:]),
        content_hash("ab", "c"),
        content_hash("a", "bc"),
        content_hash({"a": 1}),
    ]
    assert len(set(different)) == len(different)
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash(array.reshape(2, 2).T) == content_hash(np.ascontiguousarray(array.reshape(2, 2).T))
