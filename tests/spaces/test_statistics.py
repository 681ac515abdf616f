"""Calibration statistics against a direct computation, kept in the cache, and what goes wrong in one clear line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimfront.spaces import statistics as module
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError, SlimfrontError
from slimfront.spaces.statistics import Statistics, activations

NETWORK = (
    "(float[2,4,7,6] x) => (float[n,c] y) { [k] a = Conv<pads=[1,1,1,1],strides=[2,1]>(x, w, b)\n r = Relu(a)\n"
    "[u] d = ConvTranspose<strides=[2,2]>(r, t)\n m = GlobalAveragePool(d)\n f = Flatten(m)\n [g] y = Gemm(f, v) }"
)


@pytest.fixture(scope="module")
def graph(capture, weight):
    weights = {"w": weight(8, 4, 3, 3), "b": weight(8), "t": weight(8, 4, 2, 2), "v": weight(4, 5)}
    return capture(NETWORK, **weights)


@pytest.fixture(scope="module")
def x(noise):
    return noise(6, 4, 7, 6)


@pytest.fixture(scope="module")
def tensors(graph, x) -> dict[str, np.ndarray]:
    """All tensors by PyTorch."""
    weights = {name: torch.from_numpy(graph.weight(layer).copy()) for name, layer in graph.layers.items()}
    bias = torch.from_numpy(graph.bias(graph.layers["k"]).copy())
    a = torch.nn.functional.conv2d(torch.from_numpy(x), weights["k"], bias, stride=(2, 1), padding=1)
    r = torch.relu(a)
    d = torch.nn.functional.conv_transpose2d(r, weights["u"], stride=2)
    f = d.mean(dim=(2, 3))
    values = {"x": torch.from_numpy(x), "a": a, "r": r, "d": d, "f": f, "y": f @ weights["g"]}
    return {name: value.numpy() for name, value in values.items()}


def test_activations_are_those_of_the_reference_batch_by_batch(graph, x, tensors):
    found: dict[str, list[np.ndarray]] = {}
    fractions = []
    for fraction, name, array in activations(graph, {"x": x}, list(tensors)):
        found.setdefault(name, []).append(array)
        fractions.append(fraction)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    for name, expected in tensors.items():
        assert [len(part) for part in found[name]] == [2, 2, 2]
        assert np.allclose(np.concatenate(found[name]), expected, atol=1e-5)


def test_memory_is_bounded_by_running_in_several_passes(graph, x, tensors, monkeypatch):
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 2000)
    assert len(module._groups(graph, list(tensors), {})) > 2
    found: dict[str, list[np.ndarray]] = {}
    for _, name, array in activations(graph, {"x": x}, list(tensors)):
        found.setdefault(name, []).append(array)
    for name, expected in tensors.items():
        assert np.allclose(np.concatenate(found[name]), expected, atol=1e-5)


def test_gram_matrices_are_the_mean_outer_products_of_the_unfolded_inputs(graph, x, tensors):
    statistics = Statistics(graph, {"x": x})
    statistics.prepare()
    unfolded = {
        "k": torch.nn.functional.unfold(torch.from_numpy(x), 3, padding=1, stride=(2, 1)),
        "u": torch.nn.functional.unfold(torch.from_numpy(tensors["r"]), 1),
        "g": torch.from_numpy(tensors["f"])[:, :, None],
    }
    for name, columns in unfolded.items():
        columns = columns.permute(0, 2, 1).reshape(-1, columns.shape[1]).double().numpy()
        gram, mean = statistics.moments(graph.layers[name])
        assert gram.shape == (1, columns.shape[1], columns.shape[1])
        assert np.allclose(gram[0], columns.T @ columns / len(columns), atol=1e-5)
        assert np.allclose(mean[0], columns.mean(axis=0), atol=1e-5)


def test_grouped_layers_have_a_gram_matrix_for_each_group(capture, weight, noise):
    graph = capture("(float[1,6,5,5] x) => (float[n,c,h,w] y) { [k] y = Conv<group=3>(x, w) }", w=weight(6, 2, 3, 3))
    x = noise(3, 6, 5, 5)
    statistics = Statistics(graph, {"x": x})
    statistics.prepare()
    gram, mean = statistics.moments(graph.layers["k"])
    assert gram.shape == (3, 18, 18) and mean.shape == (3, 18)
    for group in range(3):
        columns = torch.nn.functional.unfold(torch.from_numpy(x[:, 2 * group : 2 * group + 2]), 3)
        columns = columns.permute(0, 2, 1).reshape(-1, 18).numpy()
        assert np.allclose(gram[group], columns.T @ columns / len(columns), atol=1e-5)


def test_weights_of_two_nodes_see_the_inputs_of_both(capture, weight, noise):
    graph = capture(
        "(float[1,4,5,5] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w)\n r = Relu(a)\n [l] y = Conv(r, w) }",
        w=weight(4, 4, 1, 1),
    )
    x = noise(3, 4, 5, 5)
    statistics = Statistics(graph, {"x": x})
    statistics.prepare()
    first = x.transpose(0, 2, 3, 1).reshape(-1, 4)
    both = np.concatenate([first, np.maximum(first @ graph.weight(graph.layers["k"])[:, :, 0, 0].T, 0)])
    assert np.allclose(statistics.moments(graph.layers["k"])[0][0], both.T @ both / len(both), atol=1e-5)


def test_ranges_lie_within_the_extremes_and_hold_zero(graph, x, tensors):
    statistics = Statistics(graph, {"x": x})
    for name, values in tensors.items():
        low, high = statistics.range(name)
        assert min(values.min(), 0) - 1e-5 <= low <= 0 <= high <= max(values.max(), 0) + 1e-5
        if name != "a":  # its Relu sees only half
            inside = np.clip(values, low, high)
            assert np.mean((inside - values) ** 2) < 1e-3 * values.var()


def test_a_second_builder_takes_everything_from_the_cache(graph, noise, monkeypatch):
    x = noise(4, 4, 7, 6, seed=5)
    candidate = Candidate({name: LayerChoice(3, 8) for name in graph.layers}, repair="sequential")
    first = Builder(graph, {"x": x})
    first.prepare()
    data = first.build(candidate).to_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was run again")

    for name in ("statistics.open_session", "stepwise.open_session", "build.open_session", "repair.round_layer"):
        monkeypatch.setattr(f"slimfront.spaces.{name}", never)
    again = Builder(graph, {"x": x.copy()})
    again.prepare()
    assert again.build(candidate).to_bytes() == data


def test_other_calibration_data_make_other_statistics(graph, x):
    keys = {Statistics(graph, {"x": data}).key for data in (x, x[:4], x + 1)}
    assert len(keys) == 3


def test_a_damaged_cache_is_made_anew(graph, noise):
    x = noise(4, 4, 7, 6, seed=6)
    candidate = Candidate({name: LayerChoice(4, 8) for name in graph.layers})
    first = Builder(graph, {"x": x})
    first.prepare()
    data = first.build(candidate).to_bytes()
    entries = [*first.static.store.folder.iterdir(), *first.statistics.store.folder.iterdir()]
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = Builder(graph, {"x": x})
    again.prepare()
    assert again.build(candidate).to_bytes() == data


def test_a_cache_that_cannot_be_written_gives_one_clear_line(graph, noise, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write to the cache folder .*SLIMFRONT_CACHE") as caught:
        Builder(graph, {"x": noise(2, 4, 7, 6, seed=7)}).prepare()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_data_that_is_not_finite_is_refused(value, graph, noise):
    x = noise(2, 4, 7, 6, seed=8)
    x[1, 2, 3, 4] = value
    with pytest.raises(SlimfrontError, match=r"NaN or infinite") as caught:
        Builder(graph, {"x": x}).prepare()
    assert "\n" not in str(caught.value)


def test_progress_goes_from_nothing_to_all(graph, noise):
    told: list[tuple[str, float]] = []
    Builder(graph, {"x": noise(2, 4, 7, 6, seed=9)}).prepare(
        progress=lambda text, fraction: told.append((text, fraction))
    )
    for text in {text for text, _ in told}:
        fractions = [fraction for other, fraction in told if other == text]
        assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert told
