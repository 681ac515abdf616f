"""python studies/benchmarks/forms.py --zoo ../shared/zoo [taef2_decoder waifu2x_upconv7_x2 ...]

What ways to write a layer are worth. Times uniform 8/8 candidates in turn with the reference and with one another, and prints,
as a Markdown table: all layers in integers as they came; those that can be in phases in phases; those that are transposed
convolutions, and then those that are grouped, left in float. Sizes are those of the files, quality is against the target.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zoo import Model, load, parser

from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.forms import valid_forms
from slimfront.spaces.graph import Graph, Layer
from slimfront.spaces.space import uniform

MODELS = ("taef2_decoder", "waifu2x_upconv7_x2", "dcgan_digits", "carn_m_x2", "mobilesr_x4")


def main() -> None:
    """Measure and print the table."""
    arguments = parser(__doc__ or "", MODELS).parse_args()
    print("| model | 8/8 | layers changed | smaller | faster (low-high) | PSNR |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        for row in rows(load(arguments.zoo, name)):
            print(f"| {name} | {row} |", flush=True)


def variants(graph: Graph) -> dict[str, tuple[Candidate, int]]:
    """Return by what was changed the candidate and how many layers differ from the uniform one; each kind once."""
    plain, _ = uniform(graph, {"weight_bits": 8, "activation_bits": 8})
    found = {"as it came": (plain, 0)}

    def change(what: str, chosen: Callable[[Layer], bool], **values: object) -> None:
        names = [name for name, layer in graph.layers.items() if chosen(layer)]
        if names:
            changed: dict[str, LayerChoice] = {name: replace(plain.choice(name), **values) for name in names}  # type: ignore[arg-type]
            found[what] = Candidate({**plain.layers, **changed}), len(names)

    change("phases", lambda layer: "phases" in valid_forms(graph, layer), form="phases")
    change("ConvTranspose in float", lambda layer: layer.op == "ConvTranspose", activation_bits=32)
    change("grouped in float", lambda layer: layer.group > 1, activation_bits=32)
    return found


def rows(model: Model) -> list[str]:
    """Return the rows of one model."""
    builder = Builder(model.graph, model.calibration)
    samples, batch = Samples(model.inputs, None, model.low, model.high), model.graph.batch
    found = variants(model.graph)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(found) + 1)]
        for candidate, path in zip([Candidate(), *(candidate for candidate, _ in found.values())], paths, strict=True):
            builder.build(candidate).save(path)
        reference, *models = (OpenModel(path, samples, batch) for path in paths)
        timed = Timing().measure_together([Subject(each, reference) for each in models])
        whole = paths[0].stat().st_size
        result = []
        for (what, (_, changed)), path, readings in zip(found.items(), paths[1:], timed, strict=True):
            speedup = readings["speedup"]
            cells = f"{whole / path.stat().st_size:.2f}× | {speedup.value:.2f}× ({speedup.low:.2f}-{speedup.high:.2f})"
            result.append(f"{what} | {changed} | {cells} | {model.psnr(path):.2f}")
        return result


if __name__ == "__main__":
    main()
