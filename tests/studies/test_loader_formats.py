"""Files for LiteRT and ExecuTorch as the loader of a shipment and the code on a bundle's card run them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slimfront.studies import card, loader

SHAPES = {"image": (1, 3, 5, 4), "shift": (1, 3)}
MODELS = {"litert": "model.tflite", "executorch": "model.pte"}


class Network(torch.nn.Module):
    """Two inputs that are not alike, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image, shift):
        found = self.conv(image - shift[:, :, None, None])
        return found, found.sum(dim=(2, 3))


def litert(network, inputs, path):
    litert_torch = pytest.importorskip("litert_torch")
    litert_torch.convert(network, inputs).export(str(path))


def executorch(network, inputs, path):
    pytest.importorskip("executorch.runtime")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(network, inputs)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(lowered.buffer)


@pytest.fixture(scope="module")
def feed():
    random = np.random.default_rng(0)
    return {name: random.random(shape, dtype=np.float32) for name, shape in reversed(SHAPES.items())}


@pytest.fixture(scope="module")
def expected(feed):
    with torch.no_grad():
        return [output.numpy() for output in Network()(*(torch.from_numpy(feed[name]) for name in sorted(feed)))]


@pytest.fixture(scope="module", params=[litert, executorch])
def shipment(request, tmp_path_factory, feed):
    """A shipment's folder with one member, as far as the loader reads it."""
    folder = tmp_path_factory.mktemp("shipment")
    runtime = request.param.__name__
    (folder / "trial-1").mkdir()
    request.param(
        Network().eval(),
        tuple(torch.zeros(SHAPES[name]) for name in sorted(SHAPES)),
        folder / "trial-1" / MODELS[runtime],
    )
    np.savez(folder / "trial-1" / "check.npz", **{f"input:{name}": array for name, array in feed.items()})
    np.savez(folder / "feed.npz", **feed)
    member = {"name": "trial-1", "psnr_db": 30.0, "sha256": "0"}
    document = {"runtime": runtime, "threads": 1, "batch": 1, "model": MODELS[runtime], "members": [member]}
    (folder / "shipment.json").write_text(json.dumps(document))
    shutil.copyfile(loader.__file__, folder / "load.py")
    return folder


def on_the_device(folder: Path, code: str) -> str:
    """Run code beside the files, in a process that cannot import slimfront; return the last line that it prints."""
    hidden = "import sys; sys.modules['slimfront'] = None; sys.modules['onnx'] = None; import numpy as np\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_loader_gives_all_outputs_of_inputs_by_name(shipment, feed, expected):
    on_the_device(
        shipment,
        "from load import load\nmodel = load()\nfeed = dict(np.load('feed.npz'))\n"
        "first = model.run(feed)\nmodel.run({name: array + 1 for name, array in feed.items()})\n"
        "np.savez('found.npz', *first)\nprint('done')",
    )
    with np.load(shipment / "found.npz") as found:
        for name, wanted in zip(found.files, expected, strict=True):
            np.testing.assert_allclose(found[name], wanted, atol=1e-4)


def test_inputs_are_cast_to_what_the_file_takes(shipment):
    wide = "{name: array.astype(np.float64) for name, array in np.load('feed.npz').items()}"
    told = on_the_device(shipment, f"from load import load\nprint(load().run({wide})[0].dtype)")
    assert told == "float32"


def test_the_loader_measures_on_the_device_and_keeps_a_budget(shipment):
    told = on_the_device(shipment, "from load import load\nprint(load(milliseconds=1e6, megabytes=1e6).facts['name'])")
    assert told == "trial-1"
    kept = json.loads((shipment / "measured.json").read_text())
    assert kept["members"][0]["milliseconds"] > 0
    runtime = json.loads((shipment / "shipment.json").read_text())["runtime"]
    assert any(str(part).startswith(f"{runtime} ") and part[-1].isalnum() for part in kept["device"])


def test_executorch_runs_with_as_many_threads_as_are_asked_for(shipment):
    if json.loads((shipment / "shipment.json").read_text())["runtime"] != "executorch":
        pytest.skip("LiteRT takes them for each model")
    told = on_the_device(
        shipment,
        "from load import load\nload(threads=2)\n"
        "from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count\n"
        "print(_threadpool_get_thread_count())",
    )
    assert told == "2"


def test_the_code_on_a_card_runs_the_file(shipment, expected):
    document = json.loads((shipment / "shipment.json").read_text())
    facts = {"model": f"trial-1/{document['model']}", "threads": 1, "runtime": document["runtime"]}
    code = card.RUNTIMES[document["runtime"]].code(facts, "dict(np.load('feed.npz'))")
    on_the_device(shipment, f"{code}\nnp.save('output.npy', output)\nprint('done')")
    np.testing.assert_allclose(np.load(shipment / "output.npy"), expected[0], atol=1e-4)


def test_a_card_says_what_to_install():
    for runtime, title, package in (
        ("litert", "LiteRT 2.3.0", "ai-edge-litert"),
        ("executorch", "ExecuTorch 1.5.1", "executorch"),
    ):
        told = card.RUNTIMES[runtime].needs({"environment": {"runtime": f"{title}, float32"}})
        assert told.startswith(title) and f"`pip install {package}`" in told and "float32" not in told
