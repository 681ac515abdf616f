"""Capture: a PyTorch module or an ONNX file becomes the graph that every candidate is made from."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BuildError, InputError, one_line
from .gemms import plain_gemms
from .graph import LAYER_OPS, Graph
from .recurrent import join_weights
from .reshapes import told_reshapes
from .session import open_session
from .shuffles import reorder_shuffles

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime as ort
    import torch

OPSET = 21
ONLY_INPUT = "input"  # the name of a lone input of a PyTorch module
TOLERANCE = 1e-3  # of the output's largest magnitude; float32 kernels differ by far less
FOLD_LIMIT = 1 << 28  # elements of a constant that folding may read or write

InputShape = Sequence[int] | Mapping[str, Sequence[int]]  # of the first input, or of several by name


def capture_onnx(path: Path, input_shape: InputShape | None = None) -> Graph:
    """Take an ONNX file as it is: opset converted where old, batch norms folded, metadata stripped, shapes inferred.

    Args:
        path: the file; external data lies beside it.
        input_shape: the shape to measure at, needed where an input has free axes: that of the first input, or shapes
            by the inputs' names.

    Raises:
        InputError: missing, truncated or non-ONNX file, absent external data, custom op, a shape that does not fit,
            weights that are not finite or not float32.
    """
    model = _load(path)
    _check_ops(model, path)
    shapes = _input_shapes(model, input_shape)
    _check_weights(model)
    original = _session_of(path)
    graph = Graph(_simplify(model), shapes)
    for feed in _check_inputs(graph):
        _compare(_first_output(original, feed), graph, feed, str(path))
    return graph


def capture_module(module: torch.nn.Module, input_shape: InputShape, free: Collection[int] = ()) -> Graph:
    """Export a PyTorch module once (evaluation mode, float32) and check the graph against it at two inputs.

    Args:
        module: takes one tensor or several, and returns one.
        input_shape: the shape to measure at, e.g. [1, 3, 256, 256]; for several inputs, shapes by the names of
            forward's parameters, e.g. {"image": [1, 3, 32, 32], "style": [1, 8]}. The graph keeps these axes,
        free: but for those of a lone input that stay free, where PyTorch can export the module so.

    Raises:
        InputError: the names are not those of forward's parameters, the module fails on this shape, has NaN weights,
            or cannot be exported.
    """
    import onnx_ir as ir
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        raise InputError("PyTorch cannot export TorchScript to ONNX: give the torch.nn.Module that it was made of")
    shapes = _module_shapes(module, input_shape)
    module = module.eval().float()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"the weight {name!r} has NaN or infinite values")
    generator = torch.Generator().manual_seed(0)
    args, kwargs = _arguments({name: torch.rand(shape, generator=generator) for name, shape in shapes.items()})
    try:
        with torch.no_grad():
            output = module(*args, **kwargs)
    except Exception as error:
        raise InputError(f"the module fails on an input of shape {_shapes_text(shapes)}: {one_line(error)}") from error
    if not isinstance(output, torch.Tensor):
        raise InputError(f"the module must return one tensor, but got {type(output).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        exported = _exported(module, args, kwargs, free)
        exported.save(str(Path(folder) / "model.onnx"), external_data=True)
        model = ir.load(Path(folder) / "model.onnx")
        ir.external_data.load_to_model(model)
    graph = Graph(_simplify(model), shapes)
    for feed in _check_inputs(graph):
        args, kwargs = _arguments({name: torch.from_numpy(array) for name, array in feed.items()})
        with torch.no_grad():
            expected = module(*args, **kwargs)
        _compare(expected.numpy(), graph, feed, "the PyTorch module")
    return graph


def load_module(file: Path, function: str, weights: Path | None = None) -> torch.nn.Module:
    """Import ``file``, call ``function()`` and load ``weights`` (safetensors, or a state_dict without pickled code).

    Raises:
        InputError: a missing file or function, no module returned, weights that do not fit it.
    """
    build = load_function(file, function, "model.file")
    module = made_module(build, f"model.file: {function}() of {file} fails", f"model.file: {function}()")
    if weights is not None:
        _load_weights(module, weights)
    return module


def made_module(make: Callable[[], Any], fails: str, who: str) -> torch.nn.Module:
    """Return the module that a user's function makes.

    Args:
        make: the function.
        fails: how the message begins where it raises.
        who: how the message begins where it returns something else.

    Raises:
        InputError: it raises, or returns no module.
    """
    import torch

    try:
        module = make()
    except Exception as error:
        raise InputError(f"{fails}: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{who} must return a torch.nn.Module, but got {type(module).__name__}")
    return module


def load_function(file: Path, function: str, key: str) -> Any:
    """Return ``function`` of the Python file ``file``; ``key`` is the study's key to name in an error."""
    if not file.is_file():
        raise InputError(f"{key}: there is no file {file}")
    name = f"_slimfront_{abs(hash(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    sys.modules[name] = imported
    try:
        spec.loader.exec_module(imported)
    except Exception as error:
        raise InputError(f"{key}: {file} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
    found = getattr(imported, function, None)
    if not callable(found):
        raise InputError(f"{key}: {file} has no function {function!r}")
    return found


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"model.weights: there is no file {path}")
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"model.weights: {path} cannot be loaded: it is no state_dict of tensors only (other pickled objects are "
            "never read); save module.state_dict(), or use safetensors"
        ) from error
    except Exception as error:
        raise InputError(f"model.weights: {path} cannot be loaded into the module: {one_line(error)}") from error


def _module_shapes(module: torch.nn.Module, input_shape: InputShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input in the order of forward's parameters; a lone shape is that of `ONLY_INPUT`."""
    parameters = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    required = [name for name, is_required in parameters.items() if is_required]
    takes = f"the module's forward takes {_names(parameters)}"
    if not isinstance(input_shape, Mapping):
        if len(required) > 1:
            raise InputError(
                f"{takes}: give model.input_shape as a table of their shapes, "
                f"such as {{ {required[0]} = [1, 3, 32, 32], {required[1]} = [1, 8] }}"
            )
        return {ONLY_INPUT: _sizes(input_shape)}
    if not set(required) <= set(input_shape) <= set(parameters):
        raise InputError(f"model.input_shape names {_names(input_shape)}, but {takes}")
    return {name: _sizes(input_shape[name]) for name in parameters if name in input_shape}


def _arguments(tensors: dict[str, torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """Return what a module is called with: a lone input by its place, as forward may name it in any way."""
    return (tuple(tensors.values()), {}) if list(tensors) == [ONLY_INPUT] else ((), tensors)


def _exported(
    module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], free: Collection[int]
) -> torch.onnx.ONNXProgram:
    """Export a module, with free axes of its lone input where that is possible."""
    import torch

    if free and len(args) == 1:
        (sample,) = args
        for axis in free:  # of an axis of 1 the export would make a fixed one
            sample = sample.repeat_interleave(2, axis) if sample.shape[axis] == 1 else sample
        axes = (dict.fromkeys(free, torch.export.Dim.AUTO),)
        with suppress(InputError):
            return _export(module, (sample,), {}, axes)
    return _export(module, args, kwargs)


def _export(
    module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], axes: Any = None
) -> torch.onnx.ONNXProgram:
    import contextlib
    import io
    import logging
    import warnings

    import torch

    names = list(kwargs) or [ONLY_INPUT]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamo=True,
                input_names=names,
                output_names=["output"],
                verbose=False,
                dynamic_shapes=axes,
            )
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise InputError(f"PyTorch cannot export the module to ONNX: {one_line(cause)}") from error
    assert program is not None
    return program


def _load(path: Path) -> ir.Model:
    import onnx_ir as ir

    if not path.is_file():
        raise InputError(f"model.file: there is no file {path}")
    try:
        model = ir.load(path)
    except Exception as error:
        raise InputError(f"model.file: {path} is not a readable ONNX file (truncated, or of another kind)") from error
    if not model.graph.outputs or not len(model.graph):
        raise InputError(f"model.file: {path} is not a readable ONNX file (it has no nodes or no outputs)")
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and not Path(tensor.path).is_file():
            raise InputError(f"model.file: {path} keeps weights in {tensor.location!r}, which is not beside it")
    try:
        ir.external_data.load_to_model(model)
    except Exception as error:
        raise InputError(f"model.file: the external data of {path} cannot be read: {one_line(error)}") from error
    return model


def _check_ops(model: ir.Model, path: Path) -> None:
    functions = {(function.domain, function.name) for function in model.functions.values()}
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in functions:
            raise InputError(
                f"model.file: {path} uses the custom op {node.domain}::{node.op_type} (node {node.name!r}); "
                "only ops of the ONNX standard can be searched"
            )


def _check_weights(model: ir.Model) -> None:
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or value.dtype is None or not value.dtype.is_floating_point():
            continue
        if value.dtype.name in ("FLOAT16", "BFLOAT16") and tensor.size > 64:
            raise InputError(f"the weight {name!r} is {value.dtype.name.lower()}; export the model in float32")
        if not np.isfinite(tensor.numpy()).all():
            raise InputError(f"the weight {name!r} has NaN or infinite values")


def _sizes(input_shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(d) for d in input_shape)
    if any(size < 1 for size in sizes):
        raise InputError(f"model.input_shape {list(sizes)}: every size must be at least 1")
    return sizes


def _shapes_text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(
        str(list(shape)) if name == ONLY_INPUT else f"{name} {list(shape)}" for name, shape in shapes.items()
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _input_shapes(model: ir.Model, input_shape: InputShape | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes to measure at that were given, by input name, each checked against the input's own axes."""
    inputs = {value.name or "": value for value in model.graph.inputs if value.name not in model.graph.initializers}
    if input_shape is None:
        return {}
    if not isinstance(input_shape, Mapping):
        input_shape = {next(iter(inputs)): input_shape}
    if not set(input_shape) <= set(inputs):
        raise InputError(f"model.input_shape names {_names(input_shape)}, but the model's inputs are {_names(inputs)}")
    wanted = {name: _sizes(shape) for name, shape in input_shape.items()}
    for name, sizes in wanted.items():
        axes = inputs[name].shape
        if axes is None:
            continue
        fits = len(axes) == len(sizes) and all(
            not isinstance(axis, int) or axis == size for axis, size in zip(axes, sizes, strict=True)
        )
        if not fits:
            raise InputError(f"model.input_shape {list(sizes)} does not fit the input {name!r}: {axes}")
    return wanted


def _simplify(model: ir.Model) -> ir.Model:
    """Return the model in the form that all later steps expect; the passes are onnxscript's and onnx_ir's."""
    import logging

    import onnx_ir.passes.common as passes
    from onnxscript import optimizer, version_converter
    from onnxscript.rewriter import RewriteRuleSet, rewrite
    from onnxscript.rewriter.rules import common as rules

    passes.RemoveInitializersFromInputsPass()(model)
    names = _layer_names(model)
    if model.graph.opset_imports.get("", OPSET) < OPSET:
        logging.getLogger("onnxscript.version_converter").setLevel(logging.ERROR)  # it warns of its own fallback
        version_converter.convert_version(model, OPSET, fallback=True)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    optimizer.optimize(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    _restore_names(model, names)
    plain_gemms(model)
    names = _layer_names(model)
    batch_norms = RewriteRuleSet(
        [
            rules.fuse_batchnorm_into_conv_rule,
            rules.fuse_batchnorm_into_conv_transpose_rule,
            rules.fuse_batchnorm_into_gemm_rule,
        ]
    )
    model = rewrite(model, pattern_rewrite_rules=batch_norms)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.TopologicalSortPass()(model)
    _restore_names(model, names)
    _name_nodes(model)
    join_weights(model)
    passes.RemoveUnusedNodesPass()(model)  # the weights that were joined
    _resolve_auto_pad(model)
    reorder_shuffles(model)
    told_reshapes(model)
    passes.RemoveUnusedNodesPass()(model)  # what computed their shapes
    passes.ShapeInferencePass()(model)
    return model


def _layer_names(model: ir.Model) -> dict[str, list[str]]:
    """Return the nodes' own names by the weight they read: rewriting loses some."""
    names: dict[str, list[str]] = {}
    for node in model.graph:
        if node.name and _weight_name(node):
            names.setdefault(_weight_name(node), []).append(node.name)
    return names


def _restore_names(model: ir.Model, names: Mapping[str, list[str]]) -> None:
    """Give nodes the names that `_layer_names` found, in their order."""
    for node in model.graph:
        if names.get(_weight_name(node)):
            node.name = names[_weight_name(node)].pop(0)


def _weight_name(node: ir.Node) -> str:
    weight = node.inputs[1] if node.op_type in LAYER_OPS and len(node.inputs) > 1 else None
    return "" if weight is None else weight.name or ""


def _name_nodes(model: ir.Model) -> None:
    taken: set[str] = set()
    for number, node in enumerate(model.graph):
        name = node.name or f"{node.op_type}_{number}"
        node.name = name if name not in taken else f"{name}_{number}"
        taken.add(node.name)


def _resolve_auto_pad(model: ir.Model) -> None:
    """Write VALID and NOTSET padding of layers out; SAME depends on the size and keeps its attribute."""
    import onnx_ir as ir

    for node in model.graph:
        if node.op_type in ("Conv", "ConvTranspose") and node.attributes.get_string("auto_pad", "NOTSET") in (
            "VALID",
            "NOTSET",
        ):
            node.attributes.pop("auto_pad", None)
            spatial = len(node.inputs[1].shape) - 2 if node.inputs[1] is not None and node.inputs[1].shape else 0  # type: ignore[arg-type]
            if "pads" not in node.attributes and spatial:
                node.attributes.add(ir.AttrInt64s("pads", [0] * 2 * spatial))


def _session_of(path: Path) -> ort.InferenceSession:
    try:
        return open_session(path)
    except BuildError as error:
        raise InputError(f"model.file: {one_line(error)}") from error


def _check_inputs(graph: Graph) -> list[dict[str, np.ndarray]]:
    """Two seeded inputs: uniform noise in 0..1 and a smooth ramp."""
    random = np.random.default_rng(0)
    noise, ramp = {}, {}
    for port in graph.inputs:
        dtype = np.dtype(port.dtype)
        noise[port.name] = random.random(port.shape).astype(dtype)
        ramp[port.name] = np.linspace(0, 1, int(np.prod(port.shape))).reshape(port.shape).astype(dtype)
    return [noise, ramp]


def _first_output(session: ort.InferenceSession, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        return np.asarray(session.run(None, dict(feed))[0])
    except Exception as error:
        shapes = {name: list(array.shape) for name, array in feed.items()}
        raise InputError(f"the model does not run on inputs of shape {shapes}: {one_line(error)}") from error


def _compare(expected: np.ndarray, graph: Graph, feed: Mapping[str, np.ndarray], origin: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captured.onnx"
        graph.save(path)
        found = _first_output(open_session(path), feed)
    scale = max(float(np.abs(expected).max()), 1e-6)
    if found.shape != expected.shape:
        raise InputError(f"the captured graph gives shape {found.shape} where {origin} gives {expected.shape}")
    error = float(np.abs(found - expected).max()) / scale
    if not error <= TOLERANCE:
        raise InputError(f"the captured graph differs from {origin} by {error:.2g} of its range")
