"""The card of a bundle: what it is, its numbers with intervals, what it needs, and how it is run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..objectives.openvino import PRECISION
from ..objectives.runtimes import DEFAULT_RUNTIME
from ..spaces.candidate import NATIVE, Candidate
from ..spaces.graph import EXTERNAL_ABOVE_BYTES
from .bundle import model_file
from .criteria import Criterion, kept_criteria, readings_of
from .texts import (
    change_text,
    interval_text,
    number_text,
    ratio_text,
    reading_text,
    runtime_text,
    size_text,
    student_text,
    time_text,
)

if TYPE_CHECKING:
    from ..spaces.graph import Graph, Port
    from .study import Study

Row = Mapping[str, Any]


def card(row: Row, facts: Row, study: Study) -> str:
    """Return the card as Markdown.

    Args:
        row: the shipped candidate's numbers, as `ship.shipped_row` gives them.
        facts: of the bundle.
        study: it was made of.
    """
    environment = facts["environment"]
    speaks = RUNTIMES[facts.get("runtime", DEFAULT_RUNTIME)]
    is_onnx = _is_onnx(facts)
    threads = "1 thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
    versus = "the targets" if study.evaluation.target is not None else "the reference's own output"
    return f"""# {_plain(facts["study"]["name"])}, trial {facts["trial"]}

{_summary(Candidate.from_json(row["candidate"]), study)}

| | reference | this model | |
|---|---:|---:|---|
{_table(row, study, kept_criteria(facts))}

The speedup is the median of the ratios to the reference, timed in turn with it: a batch of {facts["batch"]} on
{threads}; in brackets its 95 % interval. PSNR and SSIM are means over {_counts(study)},
against {versus}; fidelity is the PSNR against the reference's output. All of it was measured on this
very file in a fresh process, on {facts["shipped"]}.

## Run it

```python
{speaks.code(facts, _feed(study.graph))}  # {_output(study)}
```

{_range(study, is_onnx)}

{_decision(facts["decision"])}## What it needs

- {speaks.needs(facts)}{_versions(facts) if is_onnx else ""}.
{_saturation(row) if is_onnx else ""}- sha256 of {_files(row["size_bytes"], facts)}: `{facts["sha256"]}`

Measured with {runtime_text(environment, provider=True)} on {environment["cpu"]},
{environment["system"]}, Python {environment["python"]}, slimfront {environment["slimfront"]}.
`slimfront verify` on this folder measures it again.
"""


@dataclass(frozen=True)
class _Runtime:
    """How a card speaks of a runtime.

    Attributes:
        code: that runs the model, of a bundle's facts and an expression of its inputs.
        needs: what that takes, of the facts.
        loader: what a shipment's loader takes.
    """

    code: Callable[[Row, str], str]
    needs: Callable[[Row], str]
    loader: str = "Python, NumPy and the runtime alone"


def _onnxruntime_code(facts: Row, feed: str) -> str:
    return f"""import numpy as np, onnxruntime as ort
session = ort.InferenceSession("{model_file(facts)}", providers=["{facts["provider"]}"])
output = session.run(None, {feed})[0]"""


def _onnxruntime_needs(facts: Row) -> str:
    least = facts["least_onnxruntime"]
    return (
        f"ONNX Runtime {least} or later"
        if least
        else f"an ONNX Runtime as new as {facts['environment']['onnxruntime']}"
    )


def _openvino_code(facts: Row, feed: str) -> str:
    return f"""import numpy as np, openvino as ov
feed = {feed}
model = ov.Core().read_model("{model_file(facts)}")
model.reshape({{name: array.shape for name, array in feed.items()}})  # sizes that are known are faster than free ones
settings = {{"INFERENCE_PRECISION_HINT": "{PRECISION}", "INFERENCE_NUM_THREADS": {facts["threads"]}}}  # as it was measured
output = ov.compile_model(model, "CPU", settings)(feed)[0]"""


def _openvino_needs(facts: Row) -> str:
    return f"{_version(facts)}, which reads ONNX files"


def _litert_code(facts: Row, feed: str) -> str:
    return f"""import numpy as np
from ai_edge_litert.interpreter import Interpreter
feed = {feed}
model = Interpreter("{model_file(facts)}", num_threads={facts["threads"]})  # as it was measured
model.allocate_tensors()
for port, name in zip(model.get_input_details(), sorted(feed)):  # the file's inputs stand in the order of their names
    model.set_tensor(port["index"], feed[name].astype(port["dtype"]))
model.invoke()
output = model.get_tensor(model.get_output_details()[0]["index"])"""


def _litert_needs(facts: Row) -> str:
    return f"{_version(facts)}, with which it was measured (`pip install ai-edge-litert`)"


def _executorch_code(facts: Row, feed: str) -> str:
    return f"""import numpy as np, torch
from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool
from executorch.runtime import Runtime
feed = {feed}
if _threadpool_get_thread_count() != {facts["threads"]}:  # of the whole process, as it was measured; before any model is loaded
    _unsafe_reset_threadpool({facts["threads"]})
program = Runtime.get().load_program("{model_file(facts)}")
inputs = [torch.from_numpy(feed[name]) for name in sorted(feed)]  # the file has them in the order of their names
output = program.load_method("forward").execute(inputs)[0].numpy()"""


def _executorch_needs(facts: Row) -> str:
    return (
        f"{_version(facts)} with its XNNPACK backend, with which it was measured (`pip install executorch`); in Python it needs "
        "PyTorch beside it"
    )


def _version(facts: Row) -> str:
    """Return the name and version of a runtime that is not ONNX Runtime, without its precision."""
    return str(facts["environment"]["runtime"].split(",")[0])


def _is_onnx(facts: Row) -> bool:
    """Whether the model is an ONNX file: what such a one asks of a runtime is among the facts."""
    return "opset" in facts


def _versions(facts: Row) -> str:
    """Say what an ONNX file asks of a runtime."""
    return f" (opset {facts['opset']}, IR version {facts['ir_version']}); no custom operators"


RUNTIMES = {
    DEFAULT_RUNTIME: _Runtime(_onnxruntime_code, _onnxruntime_needs),
    "openvino": _Runtime(_openvino_code, _openvino_needs),
    "litert": _Runtime(_litert_code, _litert_needs),
    "executorch": _Runtime(_executorch_code, _executorch_needs, "Python, NumPy, PyTorch and the runtime"),
}


def _decision(decision: Row) -> str:
    """Say who chose it, when and why, and what stood beside it."""
    by = f"by {_plain(decision['who'])} " if decision["who"] else ""
    chosen = f"Chosen {by}on {decision['when'][:10]}."
    why = f"\n\n> {_plain(decision['why'])}" if decision["why"] else ""
    rows = "".join(map(_neighbour, decision["against"]))
    beside = (
        f"\n\nIts neighbours on the front:\n\n| trial | size | speedup | PSNR |\n|---|---:|---:|---:|{rows}"
        if rows
        else ""
    )
    return f"## Why this one\n\n{chosen}{why}{beside}\n\n"


def _neighbour(row: Row) -> str:
    cells = (
        row["trial"],
        size_text(row["size_bytes"]),
        f"{number_text(row['speedup'])}×",
        f"{number_text(row['psnr_db'])} dB",
    )
    return f"\n| {' | '.join(map(str, cells))} |"


def _plain(text: str) -> str:
    """Return a text as one paragraph in which Markdown and HTML have no meaning."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|&!~])", r"\\\1", " ".join(text.split()))
    escaped = re.sub(r"^([-+=])", r"\\\1", escaped)  # no list, no rule
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped)


def _files(size_bytes: int, facts: Row) -> str:
    """Name what the checksum is of."""
    name, apart = model_file(facts), size_bytes > EXTERNAL_ABOVE_BYTES and _is_onnx(facts)
    return f"{name} followed by {name}.data" if apart else name


def _summary(candidate: Candidate, study: Study) -> str:
    graph = study.builder.of(candidate.base).graph
    weights = f"{graph.parameters:,} weights"
    kind = f"A network of {weights}"
    if candidate.student:
        kind = (
            f"A student of {weights} ({student_text(candidate.student)}; the reference has {study.graph.parameters:,})"
        )
    bits = Counter(candidate.choice(name).weight_bits for name in graph.layers)
    integer = sum(candidate.choice(name).integer for name in graph.layers)
    widths = ", ".join(f"{count} at {width}" for width, count in sorted(bits.items()))
    sparse = sum(candidate.choice(name).sparsity > 0 for name in graph.layers)
    more = f" Channel groups that lost channels: {len(candidate.groups)}." if candidate.groups else ""
    more += f" Layers with weights at zero: {sparse}." if sparse else ""
    forms = Counter(choice.form for choice in candidate.layers.values() if choice.form != NATIVE)
    more += "".join(f" Layers written in {form}: {count}." for form, count in sorted(forms.items()))
    return (
        f"{kind}, compressed by slimfront. It takes and gives what the reference "
        f"does. Weight bits of its {len(graph.layers)} layers: {widths}; {integer} of them run in integer kernels.{more}"
    )


def _table(row: Row, study: Study, criteria: Sequence[Criterion]) -> str:
    reference = row["reference"]
    interval = interval_text(row["speedup_low"], row["speedup_high"])
    small, fast = ratio_text(reference["size_bytes"], row["size_bytes"]), number_text(row["speedup"])
    lines = [
        ("size", size_text(reference["size_bytes"]), size_text(row["size_bytes"]), f"{small} smaller"),
        ("time", time_text(reference["latency_ms"]), time_text(row["latency_ms"]), f"{fast}× ({interval})"),
        *_quality("evaluation data", reference, row, study.evaluation.target is not None),
        *_further("evaluation data", reference, row, criteria, study.evaluation.target is not None),
    ]
    if row["test"] is not None and study.test is not None:
        lines += _quality("test data", row["test"]["reference"], row["test"], study.test.target is not None)
        lines += _further("test data", row["test"]["reference"], row["test"], criteria, study.test.target is not None)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _quality(data: str, reference: Row, row: Row, has_target: bool) -> list[tuple[str, str, str, str]]:
    lines = []
    for key, name in (("psnr_db", "PSNR"), ("worst_psnr_db", "PSNR of the worst image")):
        base = f"{number_text(reference[key])} dB" if has_target else ""
        change = f"{change_text(reference, row, key)} dB" if has_target else ""
        lines.append((f"{name}, {data}", base, f"{number_text(row[key])} dB", change))
    base = number_text(reference["ssim"], 4) if has_target else ""
    lines.append((f"SSIM, {data}", base, number_text(row["ssim"], 4), ""))
    if has_target:
        lines.append((f"fidelity, {data}", "", f"{number_text(row['fidelity_db'])} dB", ""))
    return lines


def _further(
    data: str, reference: Row, row: Row, criteria: Sequence[Criterion], has_target: bool
) -> list[tuple[str, str, str, str]]:
    """Return a line for each reading of a further objective that was measured."""
    lines = []
    for name, about in readings_of(criteria).items():
        if row.get(name) is not None:
            itself = about.unit == "dB" and not has_target  # the reference against its own output
            base = "" if itself or name not in reference else reading_text(reference[name], about.unit)
            note = "" if name in reference else "as the search measured it"
            lines.append((f"{_plain(about.title)}, {data}", base, reading_text(row[name], _plain(about.unit)), note))
    return lines


def _counts(study: Study) -> str:
    counts = f"{study.evaluation.count} evaluation images"
    return counts if study.test is None else f"{counts} and {study.test.count} test images"


def _feed(graph: Graph) -> str:
    def zeros(port: Port) -> str:
        return f'"{port.name}": np.zeros({port.shape}, np.{port.dtype})'

    return "{" + ", ".join(zeros(port) for port in graph.inputs) + "}"


def _output(study: Study) -> str:
    shape = ", ".join(map(str, study.graph.outputs[0].shape))
    return f"[{shape}], {study.evaluation.low:g} is black and {study.evaluation.high:g} white"


def _range(study: Study, is_onnx: bool) -> str:
    """Say what the inputs look like: a wrong range costs decibels without an error. Axes are free in ONNX files alone."""
    parts = []
    for port in study.graph.inputs:
        values = study.evaluation.inputs[port.name]
        free = [str(axis) for axis in port.axes if isinstance(axis, str)] if is_onnx else []
        axes = f"; free axes: {', '.join(free)}" if free else ""
        seen = f"{values.min():.3g} to {values.max():.3g} in the evaluation data"
        parts.append(f"`{port.name}` {list(port.shape)} {port.dtype}, {seen}{axes}")
    fixed = "" if is_onnx else " The file takes no other shapes."
    return f"Input: {'; '.join(parts)}.{fixed}"


def _saturation(row: Row) -> str:
    layers = row["candidate"]["layers"].values()
    if not any(layer.get("weight_bits") == 8 and layer.get("activation_bits") == 8 for layer in layers):
        return ""
    return (
        "- A processor with integer dot products (AVX-VNNI, AVX512-VNNI, ARM): on others, 8-bit weights may saturate.\n"
    )
