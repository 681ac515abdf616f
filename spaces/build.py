"""Build: candidate -> model file. Assembly of cached parts; the same candidate always gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .cache import Store, content_hash
from .candidate import REFERENCE, Candidate, LayerChoice
from .equalise import WAYS, equalised
from .errors import BuildError, InputError
from .formats import ONNX, Format
from .forms import FORMS, formed, formed_entries, forms_of
from .graph import EXTERNAL_ABOVE_BYTES, Graph, first_output, model_bytes, save_model, serialized
from .groups import fitting
from .lowering import Lowering, lowering_of
from .narrow import Removed, kept_inputs, kept_outputs
from .prune import Pruner
from .repair import StaticRepair
from .repaired import FloatLayer, RoundedLayer, round_layer, rounding_method, take
from .rounding import VERSION as ROUNDING_VERSION
from .rounding import Rounding
from .rules import ONNX_RUNTIME, Rules
from .session import infer, open_session
from .skeleton import skeleton_lowering
from .statistics import Progress, Statistics
from .trained import Trained

if TYPE_CHECKING:
    import onnx_ir as ir

    from .trainee import Trainee

UNNAMED = ""  # counts integer kernels that are known by no tensor of the file
COMPARED_PARAMETERS = 10_000_000
EQUALISATION = "equalisation-8"  # part of the cache key: raise it when the lowering changes


@dataclass(frozen=True)
class Built:
    """A candidate's model.

    Attributes:
        candidate: what was built.
        model: the `onnx_ir.Model` that it was lowered to.
        owners: by name of a node's first output, the name of the captured node it was written for.
        integer_tensors: for each convolution and matrix product that has to run in integers, the captured node it was
            written for and the tensor that its kernel is known by: its weights, or what it writes.
        shared_bytes: by layer, the part that it has of weights which several layers are stored in.
        format: of the file that the model becomes.
        shapes: to measure at, by input name.
    """

    candidate: Candidate
    model: ir.Model
    owners: Mapping[str, str]
    integer_tensors: tuple[tuple[str, str], ...]
    shared_bytes: Mapping[str, int] = field(default_factory=dict)
    format: Format = ONNX
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def _file(self) -> tuple[int, str, bytes | None]:
        """Size in bytes, sha256, and the bytes where they fit one file."""
        pack = self.format.pack
        if pack is not None or model_bytes(self.model) <= EXTERNAL_ABOVE_BYTES:
            data = serialized(self.model) if pack is None else pack(self.model, self.shapes)
            return len(data), hashlib.sha256(data).hexdigest(), data
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_model(self.model, path)
            return file_size(path), file_hash(path), None

    @property
    def size_bytes(self) -> int:
        """Size on disk, external data included."""
        return self._file[0]

    @property
    def sha256(self) -> str:
        """Hash of the file (and, above 2 GB, of the weights beside it)."""
        return self._file[1]

    @property
    def integer_kernels(self) -> int:
        """How many convolutions and matrix products have to run in integers."""
        return len(self.integer_tensors)

    def fallbacks(self, reads: Mapping[str, int]) -> list[str]:
        """Return the captured nodes that have to run in integers and do not.

        Args:
            reads: how many integer kernels are known by each tensor (`objectives.target.Target.inspected`).
        """
        left = {tensor: reads.get(tensor, 0) for _, tensor in self.integer_tensors}
        lacking = []
        for node, tensor in self.integer_tensors:
            left[tensor] -= 1
            if left[tensor] < 0:
                lacking.append(node)
        merged = sum(count for count in left.values() if count > 0)  # ONNX Runtime computes equal weights once
        merged += reads.get(UNNAMED, 0)
        return lacking if len(lacking) > merged else []

    def to_bytes(self) -> bytes:
        """Return the file's bytes.

        Raises:
            InputError: the model is above 2 GB and needs an ONNX file with external data: use `save`.
            BuildError: the model has no file in this format.
        """
        data = self._file[2]
        if data is None:
            raise InputError("the model is larger than 2 GB and cannot be one piece of bytes: save it to a file")
        return data

    def save(self, path: Path) -> None:
        """Write the file (and, of ONNX above 2 GB, ``<path>.data`` beside it).

        Raises:
            InputError: the file cannot be written.
            BuildError: the model has no file in this format.
        """
        data = self._file[2]
        if data is None:
            save_model(self.model, path)
            return
        try:
            path.write_bytes(data)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    def save_graph(self, path: Path) -> None:
        """Write the ONNX graph that the file is made of, or is (above 2 GB with ``<path>.data`` beside it); nothing is packed.

        Raises:
            InputError: the file cannot be written.
        """
        if self.format.pack is None:
            self.save(path)
        else:
            save_model(self.model, path)


def file_size(path: Path) -> int:
    """Return the bytes of a model file and of the external data beside it."""
    return sum(part.stat().st_size for part in file_parts(path))


def file_hash(path: Path) -> str:
    """Return the sha256 of a model file, followed by its external data where there is some."""
    digest = hashlib.sha256()
    for part in file_parts(path):
        with part.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def built_hash(path: Path) -> str:
    """Return the `Built.sha256` of a saved model whatever its file is called.

    Above 2 GB the model names the file of its weights, so it is written anew under the name that a build has it hashed by.

    Raises:
        InputError: the disk has no room for that.
    """
    if len(file_parts(path)) == 1:
        return file_hash(path)
    import onnx_ir as ir

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        save_model(ir.load(path), copy)
        return file_hash(copy)


def file_parts(path: Path) -> list[Path]:
    """Return what a model lies in, as far as it is there: its file, and the external data beside it."""
    return [part for part in (path, path.with_name(path.name + ".data")) if part.exists()]


class Holdings(Protocol):
    """What a run holds besides its study, by content id."""

    def graph(self, base: str, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
        """Return a base's graph, given the shapes to measure at. Raises `BuildError` where it is not at hand."""
        ...

    def trained(self, weights: str) -> Trained:
        """Return trained weights. Raises `BuildError` where they are not at hand."""
        ...


class NoHoldings:
    """Of a study outside any run."""

    def graph(self, base: str, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
        """Raise `BuildError`."""
        raise BuildError(f"the base {base} is not at hand: it lies in the run whose search made it")

    def trained(self, weights: str) -> Trained:
        """Raise `BuildError`."""
        raise BuildError(
            f"the trained weights {weights} are not at hand: they lie in the run whose search or polish made them"
        )


class Builder:
    """Builds candidates of one graph, and of others by their bases.

    Statistics and rounded weights come from the cache or are made when first needed.

    Args:
        graph: the captured reference.
        calibration: inputs by name, [N, ...].
        rounding: name of a rounding method (`rounding.METHODS`).
        importance: name of a criterion for channels (`importance.METHODS`).
        sparsify: name of a method that chooses which single weights are zeroed (`sparsity.METHODS`).
        rules: of the runtime that candidates are made for.
        base: of the candidates that are made from the graph.
        holdings: graphs of other bases, and trained weights.
    """

    def __init__(
        self,
        graph: Graph,
        calibration: Mapping[str, np.ndarray],
        *,
        rounding: str = "second-order",
        importance: str = "output-energy",
        sparsify: str = "second-order",
        rules: Rules = ONNX_RUNTIME,
        base: str = REFERENCE,
        holdings: Holdings | None = None,
    ) -> None:
        self.graph = graph
        self.base = base
        self.holdings: Holdings = holdings or NoHoldings()
        self.calibration = calibration
        self.rounding = rounding
        self.importance = importance
        self.sparsify = sparsify
        self.rules = rules
        self._others: dict[str, Builder] = {}
        self._formed: dict[str, StaticRepair] = {}

    def of(self, base: str) -> Builder:
        """Return what builds the candidates of a base.

        Raises:
            BuildError: its graph is not at hand.
        """
        if base == self.base:
            return self
        if base not in self._others:
            self._others[base] = Builder(
                self.holdings.graph(base, {port.name: port.shape for port in self.graph.inputs}),
                self.calibration,
                rounding=self.rounding,
                importance=self.importance,
                sparsify=self.sparsify,
                rules=self.rules,
                base=base,
            )
        other = self._others[base]
        other.holdings = self.holdings
        return other

    @cached_property
    def plain(self) -> Statistics:
        """Ranges and Gram matrices of the reference as it was captured."""
        return Statistics(self.graph, self.calibration)

    @cached_property
    def statistics(self) -> Statistics:
        """Ranges and Gram matrices of the graph that rounded candidates are made from.

        That graph is the reference, or the same function with channels equalised in one of two ways: whichever comes closest
        to the reference's outputs on the calibration data when all layers run in integers, at 7 and at 4 bits. Above
        `COMPARED_PARAMETERS` rounding everything twice takes too long, and the reference is taken.
        """
        plain = self.plain
        if self.graph.parameters > COMPARED_PARAMETERS:
            return plain
        others = [equalised(self.graph, self.calibration, way) for way in WAYS]
        if others[0] is self.graph:
            return plain
        parts = (plain.key, *(graph.digest for graph in others), self.rounding, ROUNDING_VERSION, self.rules.runtime)
        store = Store(content_hash(EQUALISATION, *parts))
        known = store.arrays("errors")
        choices = [plain, *(Statistics(graph, self.calibration) for graph in others)]
        if known is None:
            rounding = rounding_method(self.rounding)
            errors = [_integer_error(self.graph, statistics, rounding, self.rules) for statistics in choices]
            known = {"errors": np.array(errors)}
            store.put_arrays("errors", known)
        return choices[int(known["errors"].argmin())]

    @property
    def equalised(self) -> Graph:
        """The graph that rounded candidates are made from."""
        return self.statistics.graph

    @cached_property
    def static(self) -> StaticRepair:
        """All layers rounded to all widths, each on its own."""
        return StaticRepair(self.statistics, self.rounding, self.sparsify)

    def static_of(self, form: str) -> StaticRepair:
        """Return the layers that can take a form rounded in it, from statistics of the graph in which they all have it."""
        if form not in FORMS:
            return self.static
        if form not in self._formed:
            able = [name for name, layer in self.equalised.layers.items() if FORMS[form].fits(self.equalised, layer)]
            statistics = Statistics(formed(self.equalised, dict.fromkeys(able, form)), self.calibration, able)
            self._formed[form] = StaticRepair(statistics, self.rounding, self.sparsify)
        return self._formed[form]

    @cached_property
    def pruner(self) -> Pruner:
        """Says which channels a candidate's pruning ratios keep."""
        return Pruner(self.statistics, self.importance)

    def prepare(
        self,
        layers: Collection[str] | None = None,
        groups: Collection[str] = (),
        progress: Progress | None = None,
        forms: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Gather statistics, round layers to all widths and order channels, unless the cache has it all.

        A build then assembles; what a layer becomes with fewer inputs is made when it is first asked for, and kept.

        Args:
            layers: names of those that will be rounded; None for all.
            groups: names of the channel groups that will be pruned. Without any of both there is nothing to prepare.
            progress: told what is being done, and the part of it that is done.
            forms: by form, the layers that will be rounded in it.
        """
        names = self.graph.layers if layers is None else layers
        if names or groups:
            self.statistics.prepare(progress)
            self.pruner.prepare(groups, progress)
            self.static.prepare(names, progress)
            for form, formed_names in (forms or {}).items():
                self.static_of(form).prepare(formed_names, progress)

    def build(self, candidate: Candidate) -> Built:
        """Build a candidate.

        Raises:
            InputError: the candidate names a layer or a channel group that the graph has not.
            BuildError: it cannot be built.
        """
        candidate = self.fitting(candidate)
        return _built(candidate, self.lower(candidate), self.rules.format)

    def fitting(self, candidate: Candidate) -> Candidate:
        """Return a candidate with the ratios that its groups really come to; see `groups.fitting`."""
        return fitting(self.of(candidate.base).graph, candidate)

    def skeleton(self, candidate: Candidate) -> Built:
        """Return a model that runs the kernels of a candidate's, without its weights: nothing is rounded or packed.

        Raises:
            InputError, BuildError: as `build`.
        """
        candidate = self.fitting(candidate)
        own = self.of(candidate.base)
        self.rules.check_stored(candidate)
        self.rules.check(own.graph, candidate)
        lowering = skeleton_lowering(own.graph, candidate, own.plain.range, self.rules)
        return _built(candidate, lowering, self.rules.format)

    def to_torch(self, candidate: Candidate) -> Trainee:
        """Return a candidate as a PyTorch module, rounded as its file is; its weights can be trained.

        Raises:
            InputError, BuildError: as `build`; or an op has no form in PyTorch here, and is named.
        """
        from .trainee import Trainee

        return Trainee(self.lower(self.fitting(candidate)))

    def lower(self, candidate: Candidate) -> Lowering:
        """Return the lowering of a candidate, not yet run."""
        if candidate.base != self.base:
            return self.of(candidate.base).lower(candidate)
        self.rules.check_stored(candidate)
        graph = self.graph_of(candidate)
        removed = self.removed(candidate)
        trained = self.holdings.trained(candidate.weights) if candidate.weights else None
        repair = self._repair(candidate) if trained is None else trained.layers.__getitem__
        return lowering_of(graph, candidate, removed, repair, self._range, self.rules, trained)

    def _range(self, tensor: str) -> tuple[float, float]:
        return self.statistics.range(tensor)

    def graph_of(self, candidate: Candidate) -> Graph:
        """Return the float graph that a candidate is made from, all channels there: its layers have their forms."""
        own = self.of(candidate.base)
        return formed(own.equalised if candidate.repaired else own.graph, forms_of(candidate))

    def removed(self, candidate: Candidate) -> Removed:
        """Return the entries of each axis that go with the channels that a candidate removes."""
        if not candidate.groups:
            return {}
        own = self.of(candidate.base)
        return formed_entries(own.graph, own.pruner.removed(candidate.groups), forms_of(candidate))

    def static_layer(self, candidate: Candidate, name: str) -> RoundedLayer | FloatLayer:
        """Return a layer's weights, with the channels that stay, as static repair leaves them."""
        choice, removed = candidate.choice(name), self.removed(candidate)
        static = self.static_of(choice.form)
        layer = static.statistics.graph.layers[name]
        kept = kept_inputs(layer, removed)
        found: RoundedLayer | FloatLayer
        if choice.rounded:
            found = static.rounded(layer, choice.weight_bits, choice.sparsity, kept)
        else:
            found = static.fitted(layer, choice.sparsity, kept)
        return take(layer, found, kept_outputs(layer, removed))

    def _repair(self, candidate: Candidate) -> Callable[[str], Any]:
        """Return what gives a layer's repaired weights by its name: rounded, or in float where it is not rounded."""
        if candidate.repair == "sequential":
            from .sequential import sequential_repair

            return sequential_repair(self, candidate).__getitem__
        return lambda name: self.static_layer(candidate, name)


def _built(candidate: Candidate, lowering: Lowering, format: Format) -> Built:
    """Run a lowering."""
    model = lowering.run()
    owners = {first_output(node): lowering.emitter.owners.get(id(node), "") for node in model.graph if node.outputs}
    tensors = tuple((node, value.name or "") for node, value in lowering.integer_tensors)
    shapes = {port.name: port.shape for port in lowering.graph.inputs}
    return Built(candidate, model, owners, tensors, lowering.shared_bytes, format, shapes)


def _integer_error(reference: Graph, statistics: Statistics, rounding: Rounding, rules: Rules) -> float:
    """Return the geometric mean, over 7 and 4 bits, of the mean squared output error on the calibration data.

    All layers run in integers, at widths that no machine saturates: the choice is the same on all.
    """
    statistics.prepare()
    graph = statistics.graph
    models = [reference.model]
    integer = [name for name, layer in graph.layers.items() if rules.has_integer_kernel(graph, layer)]
    layers = [graph.layers[name] for name in integer]
    found = {
        layer.name: round_layer(layer, graph.weight(layer), statistics.moments(layer), rounding, (7, 4))
        for layer in layers
    }
    for bits in (7, 4):
        candidate = Candidate({name: LayerChoice(bits, 8) for name in integer})
        lowering = rules.lowering(
            graph,
            candidate,
            rules.integer_nodes(graph, candidate),
            statistics.range,
            lambda name, width=bits: found[name][width],  # type: ignore[misc]
        )
        models.append(lowering.run())
    outputs = []
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(models):
            path = Path(folder) / f"{number}.onnx"
            save_model(model, path)
            session = open_session(path, threads=os.cpu_count() or 1, spinning=False)
            outputs.append(infer(session, statistics.calibration, graph.batch))
    errors = [float(np.mean((output - outputs[0]) ** 2)) for output in outputs[1:]]
    return float(np.sqrt(errors[0] * errors[1]))
