"""A study: a model, sample data, a space, objectives and search settings; from a file or in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.layer_speed import layer_offers
from ..objectives.predictor import Predictor
from ..objectives.refusal import refusal
from ..objectives.remote_engine import RemoteEngine
from ..objectives.runtimes import DEFAULT_RUNTIME, RUNTIMES, make_target
from ..objectives.samples import Samples
from ..objectives.target import Target
from ..objectives.widths import kernel_step
from ..spaces.build import Builder, Holdings
from ..spaces.cache import content_hash
from ..spaces.candidate import REFERENCE, Candidate
from ..spaces.capture import InputShape
from ..spaces.errors import InputError, nearest, some_of
from ..spaces.graph import Graph
from ..spaces.groups import channel_groups
from ..spaces.offers import Offer
from ..spaces.rules import RULES, Rules
from ..spaces.saturation import saturation_notes
from ..spaces.session import CPU, batches
from ..spaces.space import Space, make_space
from ..spaces.statistics import Progress
from ..spaces.widths import STEP
from . import calibration_notes, data
from .criteria import Criterion
from .definition import (
    DEFAULT_ACTIVATION_BITS,
    DEFAULT_PRUNING_RATIOS,
    DEFAULT_WEIGHT_BITS,
    STUDENT_KINDS,
    STUDENTS_WEIGHTS,
    FixedChoice,
    Settings,
    in_one_folder,
    parse_settings,
    read_settings,
    to_toml,
)
from .device import connect
from .environment import Environment, current_environment, device_environment
from .further import Further
from .parts import FileParts, MemoryParts, Parts, objects_of
from .range_notes import input_notes, output_notes

if TYPE_CHECKING:
    import torch

STUDY_FILE = "study.toml"
ROUNDING = "second-order"
SSIM_SIDE = 11  # of the window of SSIM
MOST_THREADS_A_CORE = 8  # above it a session takes minutes to open


class Study:
    """A study; its parts are loaded when first asked for.

    Args:
        model: a `torch.nn.Module`, or the path of an ONNX file.
        calibration: inputs ``[N, ...]`` (an array, or arrays by input name), used to choose scales and repair weights.
        evaluation: inputs as above, or a pair of inputs and target; used for quality. They share no sample with
            `calibration`.
        input_shape: the shape to measure at, e.g. (1, 3, 256, 256); needed for a module and for free axes. For several
            inputs, shapes by the names of the module's forward parameters (or the ONNX file's inputs), e.g.
            {"image": (1, 3, 32, 32), "style": (1, 8)}.
        name: names the default run folder.
        test: as `evaluation`; measured at ship only.
        range: black and white in the model's output; a uint8 target is scaled from 0..255 to it.
        weight_bits: widths that each layer may take: 2-8, 16, 32.
        activation_bits: 8 and 32; (32,) keeps all layers in float kernels.
        pruning_ratios: fractions of its channels that a channel group may lose, from 0 to below 1; each is moved to the
            nearest width that the kernels like.
        sparsities: fractions of its single weights that a layer may have at zero; they lower size, not time.
        students: whether other architectures are searched as well, or a table as in the study file; its ``weights`` may be
            arrays by name, its ``family`` a function of an `optuna.trial.Trial`.
        training: as in the study file, e.g. {"steps": 2000}.
        fixed: layers or groups (or globs) held at a choice, e.g. {"conv_in": {"weight_bits": 8, "pruning_ratio": 0.0}}.
        constraints: limits as in the study file, e.g. {"max_size": "1MB"}.
        objectives: further ones as in the study file, e.g. {"texture": True, "diversity": {"front": True, "min": 0.8}}; one's own
            may be a function of an `objectives.protocol.Subject`, or an object that follows `FurtherObjective` there:
            {"energy": {"objective": Energy(), "front": True}}.
        runtime: onnxruntime or openvino.
        provider: execution provider of ONNX Runtime.
        threads: its intra-op threads.
        device: "host:port" of a runner (`slimfront runner`) on the machine that runs the models; None is this one.
        saturation_safe: integer weights of at most 7 bits, exact on machines without VNNI too.
        trials: distinct candidates of a search, reference included.
        sampler: frontier, tpe, nsga2, gp or random.
        seed: of the sampler.

    Raises:
        InputError: a setting that cannot be; the samples are checked when they are loaded, all of it by `check`.

    Example:
        study = Study(model=module, calibration=x, evaluation=(x2, y2), input_shape=(1, 3, 256, 256))
        run = search(study, trials=60, run_dir="runs/mine")
    """

    def __init__(
        self,
        model: torch.nn.Module | Path | str,
        calibration: Any,
        evaluation: Any,
        *,
        input_shape: InputShape | None = None,
        name: str = "study",
        test: Any = None,
        range: tuple[float, float] = (0.0, 1.0),
        weight_bits: Sequence[int] = DEFAULT_WEIGHT_BITS,
        activation_bits: Sequence[int] = DEFAULT_ACTIVATION_BITS,
        pruning_ratios: Sequence[float] = DEFAULT_PRUNING_RATIOS,
        sparsities: Sequence[float] = (0.0,),
        students: bool | Mapping[str, Any] = False,
        training: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Mapping[str, Any]] | None = None,
        constraints: Mapping[str, Any] | None = None,
        objectives: Mapping[str, Any] | None = None,
        runtime: str = DEFAULT_RUNTIME,
        provider: str = CPU,
        threads: int = 1,
        device: str | None = None,
        saturation_safe: bool = False,
        trials: int = 200,
        sampler: str = "frontier",
        seed: int = 0,
    ) -> None:
        table = dict(students) if isinstance(students, Mapping) else {}
        weights, family = table.pop("weights", None), table.pop("family", None)
        further, objects = objects_of(objectives or {})
        tables = {
            "name": name,
            "model": {"file": "model.onnx", "input_shape": input_shape},
            "data": {
                "calibration": "calibration.npz",
                "evaluation": "evaluation.npz",
                "test": None if test is None else "test.npz",
                "range": list(range),
            },
            "space": {
                "weight_bits": list(weight_bits),
                "activation_bits": list(activation_bits),
                "pruning_ratios": list(pruning_ratios),
                "sparsities": list(sparsities),
                "students": table if table else bool(students),
                "fixed": {layer: dict(choice) for layer, choice in (fixed or {}).items()},
            },
            "constraints": dict(constraints or {}),
            "objectives": further,
            "training": dict(training or {}),
            "target": {
                "runtime": runtime,
                "provider": provider,
                "threads": threads,
                "device": device,
                "saturation_safe": saturation_safe,
            },
            "search": {"trials": trials, "sampler": sampler, "seed": seed},
        }
        arrays = {"calibration": calibration, "evaluation": evaluation, "test": test}
        self._set(parse_settings(tables), MemoryParts(model, input_shape, arrays, weights, family, objects), None)

    def _set(self, settings: Settings, parts: Parts, source: str | None) -> None:
        self.settings = settings
        self.name = settings.name
        self.source = source
        self.warnings = parts.notes  # what people should know about how the study was read
        self._parts = parts
        self._students: dict[str, Mapping[str, Any]] = {}
        self._student_spaces: dict[str, Space] = {}

    @classmethod
    def from_file(cls, path: Path, source: str | None = None) -> Study:
        """Read a study file; ``source`` is how a run may find it again, by default its absolute path."""
        study = cls.__new__(cls)
        settings = read_settings(path)
        study._set(settings, FileParts(settings, path.parent), source or str(path.resolve()))
        return study

    @cached_property
    def graph(self) -> Graph:
        """The captured model."""
        return self._parts.graph()

    @cached_property
    def calibration(self) -> dict[str, NDArray]:
        """Calibration inputs by name, each ``[N, ...]``."""
        return data.as_inputs(self._calibration_arrays, self.graph, "data.calibration")

    @cached_property
    def calibration_target(self) -> NDArray | None:
        """Targets of the calibration data, in the model's range ``[N, ...]``; None where it has none. Training may use them."""
        return self._samples("calibration", self._calibration_arrays).target

    @property
    def feed(self) -> dict[str, NDArray]:
        """One batch of calibration inputs by name: what models are run on where only their time matters."""
        return next(batches(self.calibration, self.graph.batch))

    @cached_property
    def evaluation(self) -> Samples:
        """Evaluation inputs, and targets where there are some."""
        return self._samples("evaluation", self._arrays("evaluation") or {})

    @cached_property
    def test(self) -> Samples | None:
        """Test inputs and targets, or None."""
        arrays = self._arrays("test")
        return None if arrays is None else self._samples("test", arrays)

    @cached_property
    def further(self) -> Further:
        """The further objectives, which are measured beside size, speed and quality."""
        return Further(self.settings.further, self._parts)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What is asked of the further objectives. Raises `InputError` where a function of one's own is not there."""
        return self.further.criteria

    @cached_property
    def space(self) -> Space:
        """The candidates that a search may propose."""
        return self._make_space(self.graph, self.settings.space.fixed, self.layer_offers)

    def _make_space(
        self, graph: Graph, fixed: Mapping[str, FixedChoice], offers: Mapping[str, Offer] | None = None
    ) -> Space:
        """Return the space of a graph, as the study asks for it."""
        table = self.settings.space
        return make_space(
            graph,
            weight_bits=table.weight_bits,
            activation_bits=table.activation_bits,
            pruning_ratios=table.pruning_ratios,
            sparsities=table.sparsities,
            step=self.kernel_step if any(table.pruning_ratios) else STEP,
            offers=offers,
            fixed={pattern: choice.model_dump(exclude_none=True) for pattern, choice in fixed.items()},
            saturation_safe=self.settings.target.saturation_safe,
            rules=self.rules,
        )

    @cached_property
    def kernel_step(self) -> int:
        """In which steps of output channels this machine's kernels get cheaper."""
        return kernel_step(self.target, 8 in self.settings.space.activation_bits)

    @cached_property
    def layer_offers(self) -> dict[str, Offer]:
        """Which layers have forms, or integer kernels, that pay or do not on this machine; none where bits do not vary."""
        table = self.settings.space
        if len(set(table.weight_bits)) == 1 and len(set(table.activation_bits)) == 1:
            return {}
        return layer_offers(self.graph, self.target, self.feed)

    @cached_property
    def student_weights(self) -> dict[str, NDArray] | None:
        """The weights of the students' shared network, by name; None where the study has none.

        Raises:
            InputError: they cannot be read.
        """
        return self._parts.student_weights()

    @cached_property
    def student_family(self) -> Callable[[Any], Any] | None:
        """The function of a researcher's own family of students; None where the study has none.

        Raises:
            InputError: there is no such file or function.
        """
        return self._parts.student_family()

    @property
    def students(self) -> Mapping[str, Mapping[str, Any]]:
        """The students that are searched beside the reference: by base, the parameters of the architecture."""
        return self._students

    def use_students(self, students: Mapping[str, Mapping[str, Any]], holdings: Holdings) -> None:
        """Search these students as well.

        Args:
            students: by base, the parameters of the architecture.
            holdings: has their graphs, and trained weights.
        """
        self._students = dict(students)
        self.builder.holdings = holdings

    @property
    def spaces(self) -> list[Space]:
        """The spaces of all bases, the reference's first."""
        return [self.space, *(self.space_of(base) for base in self.students)]

    def space_of(self, base: str) -> Space:
        """Return the candidates of a base that a search may propose."""
        if base == REFERENCE:
            return self.space
        if base not in self._student_spaces:
            graph = self.builder.of(base).graph
            names = [*graph.layers, *channel_groups(graph).groups]
            fixed = {
                pattern: choice
                for pattern, choice in self.settings.space.fixed.items()
                if any(fnmatchcase(name, pattern) for name in names)
            }
            found = self._make_space(graph, fixed)
            self._student_spaces[base] = replace(found, base=base, student=self.students.get(base, {}))
        return self._student_spaces[base]

    @property
    def machine_facts(self) -> dict[str, Any]:
        """What was measured on this machine and shapes the space, as plain data: a run keeps it."""
        offers = {name: offer.to_json() for name, offer in self.layer_offers.items()}
        return {"kernel_step": self.kernel_step, "layer_offers": offers}

    def use_machine_facts(self, facts: Mapping[str, Any] | None) -> None:
        """Shape the space by the facts of a run, so that it offers what it did; by this machine's where there are none."""
        for part in ("kernel_step", "layer_offers", "space"):
            vars(self).pop(part, None)
        if facts is None:
            return
        if isinstance(facts.get("kernel_step"), int):
            self.kernel_step = facts["kernel_step"]
        self.layer_offers = {name: Offer.from_json(offer) for name, offer in facts.get("layer_offers", {}).items()}

    @property
    def environment(self) -> Environment:
        """What readings of this study's target belong to, on this machine or on the device."""
        table = self.settings.target
        if self.device is not None:
            return device_environment(self.device.connection.facts, table.provider, table.threads)
        return current_environment(table.provider, table.threads, table.runtime)

    @cached_property
    def machine(self) -> str:
        """What the times of kernels measured here belong to."""
        return self.environment.machine

    @cached_property
    def device(self) -> RemoteEngine | None:
        """The runtime on the device that the study names; None is this machine.

        Raises:
            InputError: the environment holds no token for it.
        """
        table = self.settings.target
        return None if table.device is None else connect(table.device, table.runtime, table.threads, table.provider)

    @cached_property
    def target(self) -> Target:
        """What candidates run on."""
        table = self.settings.target
        return make_target(table.runtime, self.machine, table.threads, table.provider, self.device)

    @property
    def rules(self) -> Rules:
        """How candidates are made for the target."""
        return RULES[self.settings.target.runtime]

    @cached_property
    def builder(self) -> Builder:
        """Makes candidates; `Builder.prepare` gathers what it needs once."""
        return Builder(self.graph, self.calibration, rounding=ROUNDING, rules=self.rules)

    @cached_property
    def predictor(self) -> Predictor:
        """Predicts how fast candidates are on the study's target; what it learns is kept for each machine."""
        return Predictor(self.builder, self.target)

    @cached_property
    def definition(self) -> dict[str, Any]:
        """All that determines a run's readings, as plain data; sampler, seed and number of trials do not."""
        settings = self.settings
        return {
            "model": {"graph": self.graph.digest},
            "data": {
                "calibration": _describe(self.calibration),
                "evaluation": _describe(self.evaluation.inputs),
                "target": None if self.evaluation.target is None else _describe({"": self.evaluation.target}),
                "range": list(settings.data.range),
                **({} if self.evaluation.group is None else {"group": _describe({"": self.evaluation.group})}),
            },
            "space": {
                "weight_bits": sorted(settings.space.weight_bits),
                "activation_bits": sorted(settings.space.activation_bits),
                "fixed": {pattern: choice.definition() for pattern, choice in settings.space.fixed.items()},
                **{
                    key: sorted(values)
                    for key, values in (
                        ("pruning_ratios", settings.space.pruning_ratios),
                        ("sparsities", settings.space.sparsities),
                    )
                    if any(values)
                },
                **self._students_definition,
            },
            "constraints": settings.limits.given(),
            **({"objectives": self.further.definition} if self.further.tables else {}),  # older runs have none
            "target": settings.target.defined,
            "build": {"rounding": ROUNDING},
        }

    @property
    def _students_definition(self) -> dict[str, Any]:
        """What of the definition says which students there are; nothing where there are none."""
        table = self.settings.students
        if table is None:
            return {}
        weights = self.student_weights
        kept = None if weights is None else content_hash(*[part for item in sorted(weights.items()) for part in item])
        told = table.model_dump(exclude_none=True, mode="json", exclude={"kinds"})
        kinds = sorted(set(table.kinds))
        some = {} if kinds == sorted(STUDENT_KINDS) else {"kinds": kinds}  # older runs say nothing of them
        return {"students": {**told, **some, "weights": kept}}

    @cached_property
    def digest(self) -> str:
        """A hash of the definition: equal for studies whose readings may be mixed."""
        return content_hash(self.definition)

    def check(self) -> None:
        """Load and check all parts together.

        Raises:
            InputError: whatever is wrong with the model, the samples, the space or the provider.
        """
        self._check_runtime()
        threads, cores = self.settings.target.threads, self.environment.usable_cores
        if threads > MOST_THREADS_A_CORE * cores:
            raise InputError(f"target.threads {threads} is too many for this process, which may use {cores} cores")
        if threads > cores:
            self.warn(f"target.threads is {threads}, but this process may use {cores} cores: its timings say little")
        self.check_runs()
        _ = self.student_weights, self.student_family
        self._check_training()
        self.warn(*_offer_notes(self.space))
        if not self.settings.target.saturation_safe and self.rules.format.pack is None:  # what asks is an ONNX file
            opened = None if self.device is None else self.target.open
            self.warn(*saturation_notes(self.space, self.settings.target.provider, opened))
        sets = {"data.calibration": self.calibration, "data.evaluation": self.evaluation.inputs}
        if self.test is not None:
            sets["data.test"] = self.test.inputs
        data.check_distinct(sets)
        judged = {"evaluation": self.evaluation, "test": self.test}
        names = {key: f"data.{key} {getattr(self.settings.data, key)!r}" for key in judged}
        self.further.check({names[key]: samples for key, samples in judged.items() if samples is not None})
        self.warn(*input_notes(sets), *self._output_notes)
        samples = len(next(iter(self.calibration.values())))
        self.warn(*calibration_notes.sample_notes(self.graph, samples))

    def _check_runtime(self) -> None:
        import onnxruntime

        table, device = self.settings.target, self.device
        if device is None:
            RUNTIMES[table.runtime].version()
            where, available = "this ONNX Runtime", onnxruntime.get_available_providers()
        else:
            where, available = "the device's ONNX Runtime", list(device.connection.providers)
        if table.runtime == DEFAULT_RUNTIME and table.provider not in available:
            raise InputError(
                f"target.provider {table.provider!r} is not in {where}{nearest(table.provider, available)}; "
                f"available: {', '.join(available)}"
            )

    def check_runs(self) -> None:
        """Ask a runtime whose files are made by a converter whether it takes the model; of integers its refusal is a warning.

        Raises:
            InputError: it does not take it in float.
        """
        if self.rules.format.pack is None:
            return
        runtime = self.settings.target.runtime
        told = refusal(self.graph, self.target, self.feed, False)
        if told is not None:
            raise InputError(
                f"target.runtime {runtime!r} does not take this model: {told}; write the model without that op, or name "
                f"another runtime, such as {DEFAULT_RUNTIME!r}"
            )
        told = refusal(self.graph, self.target, self.feed, True) if 8 in self.settings.space.activation_bits else None
        if told is not None:
            self.warn(
                f"target.runtime {runtime!r} does not take the model with all layers in integers: {told}; hold that "
                "layer in float by [space.fixed] and activation_bits = 32"
            )

    def _check_training(self) -> None:
        """Raise `InputError` where training is asked for what the calibration data or the model's output does not have."""
        table, has_target = self.settings.training, self.calibration_target is not None
        if table.target and not has_target:
            raise InputError(
                f"training.target asks for {', '.join(table.target)} against targets, but the calibration data "
                f"{self.settings.data.calibration!r} has none: give it a `target`, or leave training.target out"
            )
        target = table.target or {}
        if not any(table.reference.values()) and not (any(target.values()) or (table.target is None and has_target)):
            raise InputError("training.reference names no measure, and there is no target to learn from")
        shape = self.graph.outputs[0].shape
        pictures = len(shape) == 4 and min(shape[2:]) >= SSIM_SIDE
        if not pictures and (table.reference.get("ssim") or target.get("ssim")):
            raise InputError(
                f"the measure 'ssim' needs pictures of at least {SSIM_SIDE} by {SSIM_SIDE}, but the model gives {list(shape)}"
            )

    def prepare(self, candidates: Iterable[Candidate], progress: Progress | None = None) -> None:
        """Gather all that candidates are built from.

        What is odd about the calibration data is added to the warnings.

        Raises:
            BuildError: the graph of a candidate's base is not at hand.
        """
        layers: dict[str, set[str]] = {}
        groups: dict[str, set[str]] = {}
        for candidate in candidates:
            layers.setdefault(candidate.base, set()).update(candidate.rounded)
            groups.setdefault(candidate.base, set()).update(candidate.groups)
        for base, rounded in layers.items():
            if rounded or groups[base]:
                self._prepare(base, sorted(rounded), sorted(groups[base]), progress)

    def prepare_spaces(self, progress: Progress | None = None) -> None:
        """Gather all that candidates of the spaces of all bases are built from; see `prepare`."""
        for space in self.spaces:
            self._prepare(space.base, space.rounded, space.pruned, progress)

    def _prepare(self, base: str, layers: Collection[str], groups: Collection[str], progress: Progress | None) -> None:
        formed = self.space_of(base).formed.items()
        forms = {form: [name for name in names if name in layers] for form, names in formed}
        builder = self.builder.of(base)
        builder.prepare(layers, groups, progress, {form: names for form, names in forms.items() if names})
        if (layers or groups) and base == REFERENCE:
            self.warn(*calibration_notes.input_notes(builder.statistics))

    def warn(self, *notes: str) -> None:
        """Add notes to the warnings, each once."""
        self.warnings += [note for note in notes if note not in self.warnings]

    def save(self, folder: Path) -> None:
        """Write the study as a folder with study.toml, the captured model, the samples and the students' weights."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.graph.save(folder / "model.onnx")
        calibration = self._samples("calibration", self._calibration_arrays)
        for name, samples in (("calibration", calibration), ("evaluation", self.evaluation), ("test", self.test)):
            if samples is not None:
                target = {} if samples.target is None else {"target": samples.target}
                group = {} if samples.group is None else {data.GROUP: samples.group}
                np.savez(folder / f"{name}.npz", **samples.inputs, **target, **group)  # type: ignore[arg-type]
        weights = self.student_weights
        if weights is not None:
            save_file(weights, folder / STUDENTS_WEIGHTS)
        settings = in_one_folder(self.settings, weights is not None, self.further.saved(folder))
        (folder / STUDY_FILE).write_text(to_toml(settings), encoding="utf-8")

    @cached_property
    def _output_notes(self) -> list[str]:
        return output_notes(self.graph, self.evaluation.inputs, self.settings.data.range)

    @cached_property
    def _calibration_arrays(self) -> Mapping[str, Any]:
        return self._arrays("calibration") or {}

    def _arrays(self, key: str) -> Mapping[str, Any] | None:
        return self._parts.arrays(key, self.graph)

    def _samples(self, key: str, arrays: Mapping[str, Any]) -> Samples:
        return data.as_samples(arrays, self.graph, f"data.{key}", self.settings.data.range)


def load_study(name_or_path: str | Path) -> Study:
    """Return a study from a TOML file, a folder with study.toml, or the name of a ready-made study.

    Raises:
        InputError: there is no such study, or its file is wrong.
    """
    path = Path(name_or_path)
    if (path / STUDY_FILE).is_file():
        path = path / STUDY_FILE
    if path.is_file():
        return Study.from_file(path)
    known = ready_made()
    if str(name_or_path) in known:
        return Study.from_file(known[str(name_or_path)] / STUDY_FILE, source=str(name_or_path))
    if path.is_dir():
        raise InputError(f"{path} is a folder without {STUDY_FILE}")
    raise InputError(
        f"there is no study {str(name_or_path)!r}{nearest(str(name_or_path), known)}; "
        f"give a TOML file, a folder with {STUDY_FILE}, or one of the ready-made studies: {', '.join(known)}"
    )


def ready_made() -> dict[str, Path]:
    """Return the folders of the studies that come with slimfront, by name."""
    here = Path(__file__).parent
    return {path.parent.name: path.parent for path in sorted(here.glob(f"*/{STUDY_FILE}"))}


def _offer_notes(space: Space) -> list[str]:
    slow = [
        name
        for name, choices in space.choices.items()
        if not space.offers.get(name, Offer()).integer and not any(choice.integer for choice in choices)
    ]
    if not slow:
        return []
    return [f"slower in integer kernels on this machine, so offered in float ones only: {some_of(slow)}"]


def _describe(arrays: Mapping[str, NDArray]) -> str:
    """Return "8 samples, 1a2b3c...": what tells sets of samples apart."""
    count = len(next(iter(arrays.values())))
    return f"{count} samples, {content_hash(*[part for item in sorted(arrays.items()) for part in item])[:12]}"
