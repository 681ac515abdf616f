"""The study file: its tables and keys, their defaults, and one clear line for whatever is wrong in it."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..objectives.connection import parse_address
from ..objectives.device.service import KINDS
from ..objectives.runtimes import DEFAULT_RUNTIME, RUNTIMES
from ..spaces.candidate import ACTIVATION_BITS, FORM_NAMES, WEIGHT_BITS, share
from ..spaces.errors import InputError, nearest
from ..spaces.session import CPU
from ..spaces.student import BLOCKS, UPSAMPLINGS
from .limits import Limits, parse_time
from .objective_table import MEMORY, STRICT, ObjectiveEntry, ObjectiveTable, check_objectives

SAMPLERS = ("frontier", "tpe", "nsga2", "gp", "random")
DEFAULT_WEIGHT_BITS = (2, 3, 4, 5, 6, 8, 32)
DEFAULT_ACTIVATION_BITS = (8, 32)
DEFAULT_PRUNING_RATIOS = (0.0, 0.125, 0.25, 0.375, 0.5)
UNCOMPRESSED_ONLY = (32,)
STUDENTS_WEIGHTS = "students.safetensors"  # of a study in one folder
DEFAULT_STEPS = 1000  # of training

Positive = Annotated[int, Field(gt=0)]
Range = tuple[float, float]
Shape = tuple[Positive, ...]
# of the first input, or of several by name; the tags keep an error to the kind that was written
InputShape = Annotated[
    Annotated[Shape, Tag("list")] | Annotated[dict[str, Shape], Tag("table")],
    Discriminator(lambda value: "table" if isinstance(value, dict) else "list"),
]


def _one_of(value: int, allowed: Iterable[int]) -> int:
    if value not in allowed:
        raise ValueError(f"must be one of {', '.join(map(str, allowed))}, but got {value!r}")
    return value


def _shares_of(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("must list at least one value, but is empty")
    try:
        return tuple(dict.fromkeys(share("", value) for value in values))
    except InputError as error:
        raise ValueError(str(error).strip()) from None


def _choices(values: tuple[int, ...], allowed: tuple[int, ...]) -> tuple[int, ...]:
    if not values:
        raise ValueError("must list at least one value, but is empty")
    return tuple(dict.fromkeys(_one_of(value, allowed) for value in values))


class Table(BaseModel):
    """A table of the study file: no key but these, no value of another type."""

    model_config = STRICT


class ModelTable(Table):
    """``[model]``: an ONNX file, or "model.py:build" with weights and an input shape."""

    file: str
    weights: str | None = None
    input_shape: InputShape | None = None

    @property
    def function(self) -> str | None:
        """The function's name where the file is a Python file."""
        _, colon, function = self.file.rpartition(".py:")
        return function if colon else None

    @model_validator(mode="after")
    def _torch_needs_shape(self) -> ModelTable:
        if self.function is not None and self.input_shape is None:
            raise ValueError("input_shape is missing: a PyTorch model needs one, such as [1, 3, 256, 256]")
        if self.function is None and self.weights is not None:
            raise ValueError('weights go with a PyTorch model only (file = "model.py:build")')
        return self


class DataTable(Table):
    """``[data]``: where samples come from, and what is black and white in them."""

    calibration: str
    evaluation: str
    test: str | None = None
    range: Range = (0.0, 1.0)
    input_range: Range = (0.0, 1.0)

    @field_validator("range", "input_range")
    @classmethod
    def _ordered(cls, value: Range) -> Range:
        if not value[0] < value[1]:
            raise ValueError(f"must be [black, white] with black below white, but got {list(value)}")
        return value


class FixedChoice(Table):
    """What a layer, or a channel group, of ``[space.fixed]`` is held at."""

    weight_bits: int | None = None
    activation_bits: int | None = None
    sparsity: float | None = None
    form: str | None = None
    pruning_ratio: float | None = None

    @field_validator("weight_bits")
    @classmethod
    def _weight(cls, value: int | None) -> int | None:
        return None if value is None else _one_of(value, WEIGHT_BITS)

    @field_validator("sparsity", "pruning_ratio")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        return None if value is None else _shares_of((value,))[0]

    @field_validator("activation_bits")
    @classmethod
    def _activation(cls, value: int | None) -> int | None:
        return None if value is None else _one_of(value, ACTIVATION_BITS)

    @field_validator("form")
    @classmethod
    def _form(cls, value: str | None) -> str | None:
        if value is not None and value not in FORM_NAMES:
            raise ValueError(f"must be one of {', '.join(FORM_NAMES)}, but got {value!r}{nearest(value, FORM_NAMES)}")
        return value

    @property
    def holds_layers(self) -> bool:
        """Whether a layer's bits, sparsity or form are held, rather than a group's ratio alone."""
        return self.pruning_ratio is None or self.model_dump(exclude_none=True).keys() != {"pruning_ratio"}

    def definition(self) -> dict[str, Any]:
        """Return what determines a run's readings; what was not given and came later is left out."""
        return {"weight_bits": 32, "activation_bits": None} | self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _pair(self) -> FixedChoice:
        weight_bits = 32 if self.weight_bits is None else self.weight_bits
        if self.activation_bits == 8 and weight_bits > 8:
            raise ValueError(f"activation_bits 8 needs weight_bits 2-8, but got weight_bits {weight_bits}")
        return self


STUDENT_KINDS = ("elastic", "shortened")


class StudentsTable(Table):
    """``[space.students]``: other architectures beside the reference.

    ``kinds``: "elastic", of a family that matches the reference's input and output (the keys from ``coarse`` on say which);
    "shortened", the reference without some of its residual blocks, where students are trained alone. ``weights``: of the elastic
    family's shared network. ``family``: the file and function of a family of one's own, in place of both.
    """

    count: Positive = 3
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = STUDENT_KINDS
    weights: str | None = None
    family: str | None = None
    coarse: tuple[Positive, ...] | None = None
    fine: tuple[Positive, ...] | None = None
    width: tuple[Positive, ...] | None = None
    fine_width: tuple[Positive, ...] | None = None
    depth: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    fine_depth: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    block: tuple[str, ...] | None = None
    upsampling: tuple[str, ...] | None = None

    @field_validator("kinds", "block", "upsampling")
    @classmethod
    def _known(cls, values: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        allowed = {"kinds": STUDENT_KINDS, "block": BLOCKS, "upsampling": UPSAMPLINGS}[info.field_name or ""]
        for value in values or ():
            if value not in allowed:
                raise ValueError(f"must be of {', '.join(allowed)}, but got {value!r}{nearest(value, allowed)}")
        return values

    @field_validator("coarse", "fine")
    @classmethod
    def _powers(cls, values: tuple[int, ...] | None) -> tuple[int, ...] | None:
        for value in values or ():
            if value & (value - 1):
                raise ValueError(f"must be powers of 2, but got {value}")
        return values

    @field_validator("family")
    @classmethod
    def _is_function(cls, value: str | None) -> str | None:
        if value is not None and ".py:" not in value:
            raise ValueError(f"must be 'students.py:build', the file and the function, but got {value!r}")
        return value

    @model_validator(mode="after")
    def _one_family(self) -> StudentsTable:
        given = [*self.sizes, *(["weights"] if self.weights else [])]
        if self.family is not None and (given or self.kinds != STUDENT_KINDS):
            kinds = ["kinds"] if self.kinds != STUDENT_KINDS else []
            raise ValueError(f"family is a family of its own, to which {', '.join([*given, *kinds])} do not belong")
        if given and "elastic" not in self.kinds:
            raise ValueError(f"{', '.join(given)} belong to elastic students, but kinds lists {', '.join(self.kinds)}")
        return self

    @property
    def sizes(self) -> dict[str, Any]:
        """What of the elastic family is not the default."""
        return self.model_dump(exclude={"count", "kinds", "weights", "family"}, exclude_none=True)


class SpaceTable(Table):
    """``[space]``: what may vary; an absent key does not."""

    weight_bits: tuple[int, ...] = UNCOMPRESSED_ONLY
    activation_bits: tuple[int, ...] = UNCOMPRESSED_ONLY
    pruning_ratios: tuple[float, ...] = (0.0,)
    sparsities: tuple[float, ...] = (0.0,)
    students: Annotated[
        Annotated[bool, Tag("bool")] | Annotated[StudentsTable, Tag("table")],
        Discriminator(lambda value: "bool" if isinstance(value, bool) else "table"),
    ] = False
    fixed: dict[str, FixedChoice] = {}

    @field_validator("weight_bits")
    @classmethod
    def _weights(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return _choices(values, WEIGHT_BITS)

    @field_validator("activation_bits")
    @classmethod
    def _activations(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return _choices(values, ACTIVATION_BITS)

    @field_validator("pruning_ratios", "sparsities")
    @classmethod
    def _shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return _shares_of(values)

    @model_validator(mode="after")
    def _pairs(self) -> SpaceTable:
        if self.activation_bits == (8,) and not any(bits <= 8 for bits in self.weight_bits):
            raise ValueError(
                f"activation_bits [8] needs weight_bits 2-8, but weight_bits is {list(self.weight_bits)}: "
                "integer kernels take integer weights"
            )
        return self


class ConstraintsTable(Table):
    """``[constraints]``: limits that a useful candidate keeps."""

    max_size: str | float | None = None
    max_latency: str | float | None = None
    min_psnr: float | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    max_memory: str | float | None = None


class TargetTable(Table):
    """``[target]``: what runs the model. The execution provider is ONNX Runtime's, the device "host:port" of a runner."""

    runtime: str = DEFAULT_RUNTIME
    provider: str = CPU
    threads: Positive = 1
    device: str | None = None
    saturation_safe: bool = False

    @field_validator("device")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("runtime")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in RUNTIMES:
            raise ValueError(f"must be one of {', '.join(RUNTIMES)}, but got {value!r}{nearest(value, RUNTIMES)}")
        return value

    @model_validator(mode="after")
    def _provider_of_its_own(self) -> TargetTable:
        if self.runtime != DEFAULT_RUNTIME and self.provider != CPU:
            raise ValueError(
                f"provider {self.provider!r} is ONNX Runtime's, but runtime is {self.runtime!r}: leave it out"
            )
        if self.device is not None and self.runtime not in KINDS:
            raise ValueError(f"runtime {self.runtime!r} runs on this machine only: a device has {', '.join(KINDS)}")
        return self

    @property
    def defined(self) -> dict[str, Any]:
        """What a study's digest is of: older runs know no runtime, and a device may move to another address."""
        told = {key: value for key, value in self.model_dump().items() if (key, value) != ("runtime", DEFAULT_RUNTIME)}
        away = told.pop("device") is not None
        return told | ({"device": True} if away else {})


class SearchTable(Table):
    """``[search]``: how long and how candidates are proposed; may change when a run continues."""

    trials: Positive = 200
    sampler: str = "frontier"
    seed: Annotated[int, Field(ge=0)] = 0
    stage_timeout: str | float | None = None

    @field_validator("sampler")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_sampler(value)

    @property
    def stage_seconds(self) -> float | None:
        """What a worker's stage may take; None is by what the reference took. Raises `InputError` for no time."""
        return None if self.stage_timeout is None else parse_time(self.stage_timeout, "search.stage_timeout")


MEASURES = ("l1", "l2", "ssim", "kl", "cross_entropy")  # of what training makes small (`search.losses`)
Weight = Annotated[float, Field(ge=0.0)]


class TrainingTable(Table):
    """``[training]``: what is trained in a search, on the calibration data; a search with other values is the same study's.

    ``steps``: of each student alone, and of each candidate that is polished. ``share``: of the trials, the last ones, that are
    the front's members polished. ``shared_steps``: of the students' shared network, where the study has none. ``reference`` and
    ``target``: the loss, weights by the names of measures, against the reference's output and against targets; by default the
    mean squared error against both, where the calibration data has targets. ``temperature``: of the measure "kl".
    ``features``: what the error of inner layers counts beside that, where a candidate is polished.
    """

    steps: Annotated[int, Field(ge=0)] | None = None
    reference: dict[str, Weight] = {"l2": 1.0}
    target: dict[str, Weight] | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 4.0
    features: Weight = 0.0
    shared_steps: Positive = 3000
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @field_validator("reference", "target")
    @classmethod
    def _measures(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        for name in weights or ():
            if name not in MEASURES:
                raise ValueError(f"must name {', '.join(MEASURES)}, but got {name!r}{nearest(name, MEASURES)}")
        return weights

    @model_validator(mode="after")
    def _some_loss(self) -> TrainingTable:
        if not any(self.reference.values()) and self.target is not None and not any(self.target.values()):
            raise ValueError("reference and target must not both be without a measure: nothing would be learned")
        return self

    @property
    def polish_steps(self) -> int:
        """Of each candidate."""
        return DEFAULT_STEPS if self.steps is None else self.steps

    def student_steps(self, shared_here: bool) -> int:
        """Of each student alone; by default none where the shared network came with the study, trained on better data."""
        if self.steps is None:
            return DEFAULT_STEPS if shared_here else 0
        return self.steps


class Settings(Table):
    """A whole study file. Paths are as written there: relative to its folder."""

    name: str
    model: ModelTable
    data: DataTable
    space: SpaceTable = SpaceTable(
        weight_bits=DEFAULT_WEIGHT_BITS,
        activation_bits=DEFAULT_ACTIVATION_BITS,
        pruning_ratios=DEFAULT_PRUNING_RATIOS,
    )
    constraints: ConstraintsTable = ConstraintsTable()
    objectives: dict[str, ObjectiveEntry] = {}
    target: TargetTable = TargetTable()
    search: SearchTable = SearchTable()
    training: TrainingTable = TrainingTable()

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not value or value in (".", "..") or any(letter in value for letter in "/\\\0\n"):
            raise ValueError(f"must be a plain name, such as 'taef2', but got {value!r}")
        return value

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: dict[str, bool | ObjectiveTable]) -> dict[str, bool | ObjectiveTable]:
        check_objectives(value)
        return value

    @property
    def further(self) -> dict[str, ObjectiveTable]:
        """The further objectives that are asked for, by name; a limit of memory asks for memory."""
        asked = check_objectives(self.objectives)
        limit = self.limits.max_memory
        if limit is None or (MEMORY in asked and asked[MEMORY].compared):
            return asked
        return asked | {MEMORY: ObjectiveTable(max=limit)}

    @property
    def limits(self) -> Limits:
        """The constraints as numbers. Raises `InputError` for a size or time that cannot be read."""
        return Limits.parse(self.constraints.model_dump(), "constraints.")

    @property
    def students(self) -> StudentsTable | None:
        """What is asked for of students; None where none are."""
        asked = self.space.students
        return (StudentsTable() if asked else None) if isinstance(asked, bool) else asked


def check_sampler(name: str) -> str:
    """Return the sampler's name. Raises `ValueError` naming the nearest one where there is no such sampler."""
    if name not in SAMPLERS:
        raise ValueError(f"must be one of {', '.join(SAMPLERS)}, but got {name!r}{nearest(name, SAMPLERS)}")
    return name


def read_settings(path: Path) -> Settings:
    """Read a study file.

    Raises:
        InputError: no such file, no TOML, or a key or value that does not belong there.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this is no valid TOML: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: the study file cannot be read: {error.strerror}") from error
    try:
        return parse_settings(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_settings(data: Mapping[str, Any]) -> Settings:
    """Check the tables of a study. Raises `InputError` that names the first wrong key."""
    try:
        settings = Settings.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise InputError(_explain(error)) from None
    _ = settings.limits, settings.search.stage_seconds
    _check_memory(settings)
    return settings


def _check_memory(settings: Settings) -> None:
    asked = ["constraints.max_memory"] if settings.constraints.max_memory is not None else []
    asked += ["objectives.memory"] if MEMORY in settings.objectives else []
    if asked and settings.target.device is not None:
        raise InputError(
            f"{asked[0]}: memory is measured on this machine alone, but target.device is {settings.target.device!r}"
        )


def in_one_folder(
    settings: Settings, student_weights: bool = False, objectives: Mapping[str, ObjectiveTable] | None = None
) -> Settings:
    """Return the settings of a study whose captured model and samples lie beside its study file.

    Args:
        settings: of the study.
        objectives: the further ones, where their files lie there.
        student_weights: whether the students' weights lie there as well, as `STUDENTS_WEIGHTS`.
    """
    model = settings.model.model_copy(update={"file": "model.onnx", "weights": None})
    samples = {"calibration": "calibration.npz", "evaluation": "evaluation.npz"}
    data = settings.data.model_copy(update=samples | ({"test": "test.npz"} if settings.data.test else {}))
    update: dict[str, Any] = {"model": model, "data": data}
    if objectives:
        update["objectives"] = dict(objectives)
    students = settings.students
    if students is None:
        return settings.model_copy(update=update)
    students = students.model_copy(update={"weights": STUDENTS_WEIGHTS if student_weights else None, "family": None})
    space = settings.space.model_copy(update={"students": students})
    return settings.model_copy(update=update | {"space": space})


def to_toml(settings: Settings) -> str:
    """Return the study file of these settings; what stands at its default is left out."""
    data = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    lines = [f"name = {_toml(data.pop('name'))}"]
    for table, values in data.items():
        nested = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines += ["", f"[{table}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if key not in nested]
        for key, value in nested.items():
            lines += ["", f"[{table}.{key}]", *(f"{_toml(k)} = {_toml(v)}" for k, v in value.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _explain(error: ValidationError) -> str:
    """Return one line for the first error: the key, the value, what is allowed, the nearest spelling."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    loc = [str(part) for part in first["loc"] if isinstance(part, str)]
    if loc[:2] in (["space", "students"], ["model", "input_shape"]) or (loc[:1] == ["objectives"] and len(loc) > 2):
        del loc[2:3]  # pydantic's name of the alternative
    key = ".".join(loc)
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(loc[:-1])
        where = f"[{'.'.join(loc[:-1])}] " if loc[:-1] else ""
        return f"{where}unknown key {loc[-1]!r}{nearest(loc[-1], allowed)}; allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        if first["loc"] and isinstance(first["loc"][-1], int):  # an item of a list, not a key
            return f"{key} must have more values, but got {_shown(list(first['input']))}"
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        return f"{key} {_expected(message)}, but got {_shown(first['input'])}"
    return f"{key} {message}" if message.startswith("must ") else f"[{key}] {message}"


def _expected(message: str) -> str:
    """Put pydantic's words ("Input should be a valid integer") into those of a study file."""
    for theirs, ours in (
        ("Input should be", "must be"),
        ("Tuple should have", "must have"),
        (" after validation", ""),
        ("a valid integer", "a whole number"),
        ("a valid string", "a text"),
        ("a valid array", "a list"),
        ("a valid boolean", "true or false"),
        ("an object", "a table"),
        ("a valid number", "a number"),
        ("greater than or equal to", "at least"),
        ("greater than", "above"),
        ("less than", "below"),
    ):
        message = message.replace(theirs, ours)
    return message.split(", not ")[0]


def _shown(value: Any) -> str:
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else "a value that is not finite"


def _keys_at(loc: list[str]) -> list[str]:
    if loc[:2] == ["space", "fixed"]:
        return list(FixedChoice.model_fields)
    if loc[:2] == ["space", "students"]:
        return list(StudentsTable.model_fields)
    if loc[:1] == ["objectives"]:
        return list(ObjectiveTable.model_fields)
    table: Any = Settings.model_fields[loc[0]].annotation if loc else Settings
    return list(table.model_fields)
