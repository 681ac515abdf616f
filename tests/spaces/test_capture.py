"""Capture: what an ONNX file or a PyTorch module becomes, and each bad input in one clear line."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_module, capture_onnx, load_module
from slimfront.spaces.errors import InputError

CONV = "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] y = Conv<pads=[1,1,1,1]>(x, w, b) }"


@pytest.fixture
def conv_file(onnx_file, weight) -> Path:
    return onnx_file(CONV, w=weight(8, 4, 3, 3), b=weight(8))


# --- ONNX files -----------------------------------------------------------------------------------------------------


def test_an_onnx_file_is_taken_as_it_is(conv_file, weight, noise, run, reference):
    graph = capture_onnx(conv_file)
    layer = graph.layers["k"]
    assert (layer.op, layer.shape, layer.parameters, layer.channels) == ("Conv", (8, 4, 3, 3), 296, 8)
    assert np.array_equal(graph.weight(layer), weight(8, 4, 3, 3)) and np.array_equal(graph.bias(layer), weight(8))
    assert graph.inputs[0].shape == graph.inputs[0].axes == (1, 4, 8, 8)
    assert graph.outputs[0].shape == (1, 8, 8, 8)
    assert graph.batch == 1 and graph.parameters == 296
    x = noise(1, 4, 8, 8)
    assert np.array_equal(reference(graph, x), run(conv_file, x))


def test_the_digest_follows_weights_structure_and_shape(capture, conv_file, weight):
    first = capture_onnx(conv_file)
    assert first.digest == capture_onnx(conv_file).digest
    others = [
        capture(CONV, w=weight(8, 4, 3, 3, seed=1), b=weight(8)),
        capture(CONV.replace("pads=[1,1,1,1]", "pads=[0,0,0,0]"), w=weight(8, 4, 3, 3), b=weight(8)),
        capture(CONV.replace("1,4,8,8", "1,4,9,8"), w=weight(8, 4, 3, 3), b=weight(8)),
    ]
    assert len({first.digest, *(graph.digest for graph in others)}) == 4


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 17, 21, 22])
def test_old_and_new_opsets_are_brought_to_one_form(opset, onnx_file, weight, noise, run, reference, exact_bits):
    modes = {9: 'Upsample<mode="nearest">(r, s)', 10: 'Resize<mode="nearest">(r, s)'}
    at_floor = 'Resize<mode="nearest",nearest_mode="floor",coordinate_transformation_mode="asymmetric">'
    resize = modes.get(opset, f"{at_floor}(r, {'e' if opset == 11 else ''}, s)")
    text = (
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w)\n r = Relu(a)\n"
        f" u = {resize}\n [l] y = Conv(u, v) }}"
    )
    weights = {"w": weight(8, 4, 3, 3), "v": weight(8, 8, 1, 1), "s": np.float32([1, 1, 2, 2])}
    if opset == 11:
        weights["e"] = np.zeros(0, np.float32)
    path = onnx_file(text, opset, **weights)
    graph = capture_onnx(path)
    assert list(graph.layers) == ["k", "l"]
    assert graph.model.graph.opset_imports[""] >= 21
    x = noise(1, 4, 8, 8)
    assert np.allclose(reference(graph, x), run(path, x), atol=1e-6)
    built = Builder(graph, {"x": noise(2, 4, 8, 8)}, rounding="plain").build(
        Candidate({"k": LayerChoice(exact_bits, 8), "l": LayerChoice(exact_bits, 8)})
    )
    assert np.sqrt(np.mean((run(built, x) - run(path, x)) ** 2)) < 0.03


def test_batch_norms_are_folded_into_their_convolutions(onnx_file, weight, noise, run, reference):
    random = np.random.default_rng(0)
    path = onnx_file(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w)\n n1 = BatchNormalization(a, g, b, m, v)\n"
        "r = Relu(n1)\n [l] d = ConvTranspose(r, u, c)\n y = BatchNormalization(d, g, b, m, v) }",
        w=weight(6, 4, 3, 3), u=weight(6, 6, 2, 2), c=weight(6),
        g=random.random(6, np.float32) + 0.5, b=random.random(6, np.float32), m=random.random(6, np.float32),
        v=random.random(6, np.float32) + 0.5,
    )  # fmt: skip
    graph = capture_onnx(path)
    assert [node.op_type for node in graph.model.graph] == ["Conv", "Relu", "ConvTranspose"]
    assert all(graph.bias(layer) is not None for layer in graph.layers.values())
    x = noise(1, 4, 8, 8)
    assert np.allclose(reference(graph, x), run(path, x), atol=1e-5)


def test_constants_identities_and_metadata_are_gone(weight, tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[n,c,h,w] y) { i = Identity(x)\n'
        "s = Constant<value_float=2.0>()\n a = Conv(i, w)\n y = Mul(a, s) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight(8, 4, 3, 3), "w"))
    model.graph.node[2].doc_string = model.graph.doc_string = model.doc_string = "/home/someone"
    model.graph.input[0].doc_string = "/home/someone"
    model.metadata_props.add(key="path", value="/home/someone")
    model.graph.node[3].metadata_props.add(key="path", value="/home/someone")
    onnx.save(model, tmp_path / "model.onnx")
    graph = capture_onnx(tmp_path / "model.onnx")
    assert [node.op_type for node in graph.model.graph] == ["Conv", "Mul"]
    for candidate in (Candidate(), Candidate({"Conv_0": LayerChoice(8)})):
        layers = {next(iter(graph.layers)): choice for choice in candidate.layers.values()}
        built = Builder(graph, {"x": np.ones((1, 4, 8, 8), np.float32)}, rounding="plain").build(Candidate(layers))
        assert b"someone" not in built.to_bytes()


def test_nodes_without_a_name_get_names_of_their_own(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w)\n b = Conv(a, v)\n y = Conv(b, u) }",
        w=weight(4, 4, 1, 1), v=weight(4, 4, 1, 1, seed=1), u=weight(4, 4, 1, 1, seed=2),
    )  # fmt: skip
    assert len(graph.layers) == 3 and next(iter(graph.layers)) == "k" and all(graph.layers)


def test_layers_are_the_ops_with_constant_weights(capture, weight):
    graph = capture(
        "(float[1,4,8] x, float[1,8,6] z) => (float[n,c,l] y, float[n,m,l] q) { [k] a = Conv(x, w)\n"
        "[m] b = MatMul(a, v)\n [n] y = MatMul(b, z)\n [o] c = ConvTranspose(x, t)\n [p] q = Mul(c, c) }",
        w=weight(4, 4, 1), v=weight(8, 8), t=weight(4, 4, 1, seed=1),
    )  # fmt: skip
    assert {name: layer.op for name, layer in graph.layers.items()} == {
        "k": "Conv",
        "m": "MatMul",
        "o": "ConvTranspose",
    }


def test_a_weight_that_is_used_in_another_way_as_well_is_frozen(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w)\n [l] b = Conv(a, v)\n y = Mul(b, v) }",
        w=weight(4, 4, 1, 1), v=weight(1, 4, 1, 1),
    )  # fmt: skip
    assert list(graph.layers) == ["k"]
    assert graph.frozen == (("l", "its weight is used in another way as well"),)


def test_a_computed_weight_is_frozen(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x, float[4,4,1,1] w) => (float[n,c,h,u] y) { [k] a = Conv(x, w)\n [l] y = Conv(a, v) }",
        v=weight(4, 4, 1, 1),
    )
    assert list(graph.layers) == ["l"] and graph.frozen == (("k", "its weight is not a constant"),)


def test_models_of_two_inputs_are_captured_and_built(
    capture, weight, noise, run, reference, uniform_candidate, exact_bits
):
    graph = capture(
        "(float[1,4,8,8] x, float[1,4,8,8] z) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w)\n"
        "[l] b = Conv<pads=[1,1,1,1]>(z, v)\n c = Concat<axis=1>(a, b)\n [m] y = Conv(c, u) }",
        w=weight(8, 4, 3, 3), v=weight(8, 4, 3, 3, seed=1), u=weight(3, 16, 1, 1),
    )  # fmt: skip
    assert [port.name for port in graph.inputs] == ["x", "z"]
    feed = {"x": noise(4, 4, 8, 8), "z": noise(4, 4, 8, 8, seed=1)}
    built = Builder(graph, feed).build(uniform_candidate(graph, exact_bits, 8))
    one = {name: array[:1] for name, array in feed.items()}
    expected = reference(graph, one)
    assert np.sqrt(np.mean((run(built, one) - expected) ** 2)) < 2 * (expected.max() - expected.min()) / 255
    assert built.integer_kernels == 3


def test_external_data_is_read(conv_file, tmp_path, noise, run, reference):
    model = onnx.load(conv_file)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = capture_onnx(tmp_path / "model.onnx")
    x = noise(1, 4, 8, 8)
    assert np.array_equal(reference(graph, x), run(conv_file, x))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"keeps weights in 'weights\.bin', which is not beside it"):
        capture_onnx(tmp_path / "model.onnx")


def test_truncated_external_data_is_refused(conv_file, tmp_path):
    model = onnx.load(conv_file)
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with one_line(r"model\.onnx"):
        capture_onnx(tmp_path / "model.onnx")


def test_free_axes_need_a_shape_and_are_kept(onnx_file, weight, noise):
    path = onnx_file("(float[N,4,H,W] x) => (float[N,8,A,B] y) { [k] y = Conv(x, w) }", w=weight(8, 4, 3, 3))
    with one_line(r"input 'x' has free axes \['N', 4, 'H', 'W'\]: set model\.input_shape"):
        capture_onnx(path)
    graph = capture_onnx(path, (2, 4, 10, 12))
    assert graph.inputs[0].axes == ("N", 4, "H", "W") and graph.inputs[0].shape == (2, 4, 10, 12)
    assert graph.batch == 2 and graph.outputs[0].shape == (2, 8, 8, 10)


def test_free_axes_of_several_inputs_take_shapes_by_name(onnx_file, weight):
    path = onnx_file(
        "(float[N,4,H,W] x, float[N,4,1,1] s, float[1,4,1,1] t) => (float[N,8,A,B] y)"
        "{ a = Mul(x, s)\n b = Mul(a, t)\n [k] y = Conv(b, w) }",
        w=weight(8, 4, 3, 3),
    )
    graph = capture_onnx(path, {"s": (2, 4, 1, 1), "x": (2, 4, 10, 12)})
    assert [port.shape for port in graph.inputs] == [(2, 4, 10, 12), (2, 4, 1, 1), (1, 4, 1, 1)]
    with one_line(r"input 's' has free axes .*: set model\.input_shape .* \{ s = "):
        capture_onnx(path, {"x": (2, 4, 10, 12)})
    with one_line(r"model\.input_shape names 'x', 'z', but the model's inputs are 'x', 's', 't'"):
        capture_onnx(path, {"x": (2, 4, 10, 12), "z": (2, 4, 1, 1)})
    with one_line(r"model\.input_shape \[2, 5, 1, 1\] does not fit the input 's'"):
        capture_onnx(path, {"x": (2, 4, 10, 12), "s": (2, 5, 1, 1)})


# --- bad files ------------------------------------------------------------------------------------------------------


class one_line:  # noqa: N801 - reads like pytest.raises
    """Expect an `InputError` of one line that matches."""

    def __init__(self, pattern: str) -> None:
        self.raises = pytest.raises(InputError, match=pattern)

    def __enter__(self) -> None:
        self.caught = self.raises.__enter__()

    def __exit__(self, *error: object) -> bool:
        result = self.raises.__exit__(*error)
        assert "\n" not in str(self.caught.value).strip(), "an error is one line"
        return result


def test_a_missing_file_is_refused(tmp_path):
    with one_line(r"model\.file: there is no file .*absent\.onnx"):
        capture_onnx(tmp_path / "absent.onnx")
    with one_line(r"model\.file: there is no file"):
        capture_onnx(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 500, -1])
def test_a_truncated_file_is_refused(kept, conv_file, tmp_path):
    data = conv_file.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[:kept])
    with one_line(r"cut\.onnx is not a readable ONNX file|cut\.onnx"):
        capture_onnx(tmp_path / "cut.onnx")


@pytest.mark.parametrize(
    "content", [b"This is a text, and no model.\n" * 20, b"\x00" * 300, b"PK\x03\x04" + b"x" * 99, b"{}"]
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "text.onnx").write_bytes(content)
    with one_line(r"text\.onnx is not a readable ONNX file"):
        capture_onnx(tmp_path / "text.onnx")


def test_a_custom_op_is_refused(onnx_file, weight):
    path = onnx_file(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { a = Conv(x, w)\n [odd] y = other.Twist(a) }", w=weight(8, 4, 3, 3)
    )
    with one_line(r"uses the custom op other::Twist \(node 'odd'\)"):
        capture_onnx(path)


def test_an_op_that_does_not_exist_is_refused(onnx_file, weight):
    path = onnx_file("(float[1,4,8,8] x) => (float[n,c,h,w] y) { a = Conv(x, w)\n y = Twist(a) }", w=weight(8, 4, 3, 3))
    with one_line(r"Twist"):
        capture_onnx(path)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 4, 8), (1, 4, 8, 9), (2, 4, 8, 8), ()])
def test_a_shape_that_does_not_fit_is_refused(shape, conv_file):
    with one_line(r"model\.input_shape .* does not fit the input 'x'"):
        capture_onnx(conv_file, shape)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 4, 1, 1), (1, 4, 0, 8), (1, 4, -8, 8)])
def test_a_shape_that_does_not_run_is_refused(shape, onnx_file, weight):
    path = onnx_file("(float[1,C,H,W] x) => (float[n,c,h,w] y) { [k] y = Conv(x, w) }", w=weight(8, 4, 3, 3))
    with one_line(r"shape|input_shape"):
        capture_onnx(path, shape)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value, onnx_file, weight):
    w = weight(8, 4, 3, 3)
    w[3, 2, 1, 1] = value
    with one_line(r"the weight 'w' has NaN or infinite values"):
        capture_onnx(onnx_file(CONV, w=w, b=weight(8)))


def test_a_float16_model_is_refused(onnx_file, weight):
    path = onnx_file(
        "(float16[1,4,8,8] x) => (float16[n,c,h,w] y) { y = Conv(x, w) }", w=weight(8, 4, 3, 3).astype(np.float16)
    )
    with one_line(r"the weight 'w' is float16; export the model in float32"):
        capture_onnx(path)


# --- PyTorch modules ------------------------------------------------------------------------------------------------

MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.PReLU(8),
            torch.nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), torch.nn.Dropout(),
        )
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x))

def build():
    torch.manual_seed(0)
    return Net()

def nothing():
    return 42

number = 42
"""


@pytest.fixture
def model_file(tmp_path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def trained(model_file) -> torch.nn.Module:
    """A module with weights unlike those that `build` makes, batch statistics included."""
    module = load_module(model_file, "build")
    torch.manual_seed(7)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return module


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_module_with_its_weights_is_captured(suffix, model_file, trained, tmp_path, reference):
    from safetensors.torch import save_file

    weights = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), weights)
    loaded = load_module(model_file, "build", weights)
    graph = capture_module(loaded, (1, 3, 8, 8))
    assert [layer.op for layer in graph.layers.values()] == ["Conv", "ConvTranspose", "MatMul"]
    assert graph.inputs[0].shape == (1, 3, 8, 8)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = trained.eval()(x).numpy()
    assert np.allclose(reference(graph, x.numpy()), expected, rtol=1e-4, atol=1e-4)


def test_a_missing_function_is_refused(model_file, tmp_path):
    with one_line(r"model\.py has no function 'make'"):
        load_module(model_file, "make")
    with one_line(r"model\.py has no function 'number'"):
        load_module(model_file, "number")
    with one_line(r"there is no file .*other\.py"):
        load_module(tmp_path / "other.py", "build")


def test_a_function_that_returns_no_module_is_refused(model_file):
    with one_line(r"nothing\(\) must return a torch\.nn\.Module, but got int"):
        load_module(model_file, "nothing")


def test_a_file_that_cannot_be_imported_is_refused(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    with one_line(r"broken\.py cannot be imported: ModuleNotFoundError"):
        load_module(tmp_path / "broken.py", "build")
    (tmp_path / "broken.py").write_text("def build(:\n")
    with one_line(r"broken\.py cannot be imported: SyntaxError"):
        load_module(tmp_path / "broken.py", "build")


def test_a_function_that_fails_is_refused(tmp_path):
    (tmp_path / "fails.py").write_text("def build():\n    raise ValueError('no such size')\n")
    with one_line(r"build\(\).*no such size"):
        load_module(tmp_path / "fails.py", "build")


def test_weights_that_do_not_fit_are_refused(model_file, trained, tmp_path):
    state = trained.state_dict()
    del state["head.bias"]
    torch.save(state, tmp_path / "less.pt")
    torch.save({**trained.state_dict(), "head.bias": torch.zeros(6)}, tmp_path / "wrong.pt")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "text.pt").write_text("no weights at all")
    for name in ("less.pt", "wrong.pt", "text.safetensors", "text.pt"):
        with one_line(rf"model\.weights: .*{name} cannot be loaded"):
            load_module(model_file, "build", tmp_path / name)
    with one_line(r"model\.weights: there is no file .*absent\.pt"):
        load_module(model_file, "build", tmp_path / "absent.pt")


class Malicious:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "done")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_in_weights_is_never_run(model_file, tmp_path):
    proof = tmp_path / "proof"
    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"a": Malicious(proof)}))
    torch.save({"a": Malicious(proof)}, tmp_path / "worse.pt")
    for name in ("bad.pt", "worse.pt"):
        with one_line(rf"model\.weights: .*{name} cannot be loaded"):
            load_module(model_file, "build", tmp_path / name)
    assert not proof.exists()


class Styled(torch.nn.Module):
    """Two inputs of one shape, told apart by the sign; a third of another shape, and one with a default."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(5, 4)

    def forward(self, image, mask, strength=2.0, *, style):
        return self.conv(image - mask) * strength + self.linear(style)[:, :, None, None]


SHAPES = {"style": (1, 5), "mask": (1, 3, 8, 8), "image": (1, 3, 8, 8)}


def test_a_module_of_several_inputs_takes_shapes_by_the_names_of_its_parameters(reference, noise):
    module = Styled()
    graph = capture_module(module, SHAPES)
    assert {port.name: port.shape for port in graph.inputs} == SHAPES
    assert sorted(layer.op for layer in graph.layers.values()) == ["Conv", "Gemm"]
    feed = {name: noise(*shape, seed=seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in feed.items()}).numpy()
    assert np.allclose(reference(graph, feed), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"stile": (1, 5)}, {}])
def test_names_that_are_not_the_modules_parameters_are_refused(wrong):
    shapes = {name: shape for name, shape in SHAPES.items() if name != "style"} | wrong
    named = ", ".join(map(repr, shapes))
    with one_line(f"model.input_shape names {named}, but .* forward takes 'image', 'mask', 'strength', 'style'"):
        capture_module(Styled(), shapes)


def test_one_shape_for_a_module_of_several_inputs_is_refused():
    with one_line(r"takes 'image', 'mask', .*: give model\.input_shape as a table of their shapes, such as { image ="):
        capture_module(Styled(), (1, 3, 8, 8))


def test_a_module_that_returns_no_tensor_is_refused():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, x

    with one_line("the module must return one tensor, but got tuple"):
        capture_module(Pair(), (1, 3, 8, 8))


def test_torchscript_is_refused():
    with one_line("give the torch.nn.Module that it was made of"):
        capture_module(torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), (1, 3, 4, 4))


def test_a_module_that_fails_on_the_shape_is_refused(trained):
    with one_line(r"the module fails on an input of shape \[1, 4, 8, 8\]"):
        capture_module(trained, (1, 4, 8, 8))


def test_a_module_with_nan_weights_is_refused(trained):
    with torch.no_grad():
        trained.head.weight[0, 0] = torch.nan
    with one_line(r"the weight 'head\.weight' has NaN or infinite values"):
        capture_module(trained, (1, 3, 8, 8))
