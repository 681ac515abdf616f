"""What a study's space offers, and which ready-made studies there are, as plain data."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.candidate import DYNAMIC, NATIVE
from ..spaces.groups import channel_groups
from .study import STUDY_FILE, ready_made

if TYPE_CHECKING:
    from ..spaces.graph import Layer
    from .study import Study


def describe_studies() -> list[dict[str, str]]:
    """Return name, folder and description (the study file's first comment) of the ready-made studies."""
    return [
        {"name": name, "folder": str(folder), "description": _first_comment(folder / STUDY_FILE)}
        for name, folder in ready_made().items()
    ]


def describe_space(study: Study) -> dict[str, Any]:
    """Return layers with their choices, channel groups, and what is frozen with the reason."""
    layers, frozen = [], []
    for name, layer in study.graph.layers.items():
        choices = study.space.choices[name]
        layers.append(
            {
                "name": name,
                "op": layer.op,
                "parameters": layer.parameters,
                "weight_bits": sorted({choice.weight_bits for choice in choices}),
                "activation_bits": sorted({choice.activation_bits for choice in choices}),
                "sparsities": sorted({choice.sparsity for choice in choices}),
                "forms": list(dict.fromkeys(choice.form for choice in choices)),
            }
        )
        frozen += [{"name": name, "reason": reason} for reason in _lacks(study, layer)]
        if len(choices) == 1:
            frozen.append({"name": name, "reason": _why_fixed(study, name)})
    frozen += [{"name": name, "reason": reason} for name, reason in study.graph.frozen]
    channels = channel_groups(study.graph)
    groups = [
        {
            "name": name,
            "channels": group.channels,
            "layers": list(group.layers),
            "pruning_ratios": list(study.space.ratios[name]),
        }
        for name, group in channels.groups.items()
    ]
    frozen += [
        {"name": name, "reason": _why_whole(study, name)}
        for name, ratios in study.space.ratios.items()
        if len(ratios) == 1 and any(study.settings.space.pruning_ratios)
    ]
    frozen += [
        {"name": name, "reason": f"no output channel can be removed: {reason}"}
        for name, reason in channels.frozen.items()
    ]
    return {"layers": layers, "groups": groups, "frozen": frozen}


def _lacks(study: Study, layer: Layer) -> list[str]:
    """Return what the study asks for and the target cannot do for a layer."""
    rules, table, runtime = study.rules, study.settings.space, study.target.runtime
    found = []
    if 8 in table.activation_bits and not rules.has_integer_kernel(study.graph, layer):
        dynamic = DYNAMIC in rules.forms(study.graph, layer)
        more = f" but in form {DYNAMIC!r}, which is offered where it is faster" if dynamic else ""
        found.append(f"{runtime} has no integer kernel for it: activation_bits is 32{more}")
    lacking = [bits for bits in sorted(table.weight_bits) if not any(bits in able for able in rules.stored.values())]
    if lacking:
        found.append(
            f"files for {runtime} store no weights in {', '.join(map(str, lacking))} bits: those are not offered"
        )
    if any(table.sparsities) and not rules.sparse:
        found.append(f"{runtime} is given all weights, those at zero as well: sparsity is 0")
    return found


def _why_fixed(study: Study, layer: str) -> str:
    only = study.space.choices[layer][0]
    bits = f"weight_bits {only.weight_bits}, activation_bits {only.activation_bits}"
    bits += f", form {only.form!r}" if only.form != NATIVE else ""
    patterns = [pattern for pattern, choice in study.settings.space.fixed.items() if choice.holds_layers]
    matching = [pattern for pattern in patterns if fnmatch(layer, pattern)]
    for pattern in [layer] if layer in patterns else matching[::-1]:  # the last one counts, an exact name most
        return f"held at {bits} by space.fixed {pattern!r}"
    return f"the study's space offers it {bits} only"


def _why_whole(study: Study, group: str) -> str:
    if any(choice.pruning_ratio is not None for choice in study.settings.space.fixed.values()):
        ratio = study.space.ratios[group][0]
        return f"space.fixed, or the widths that the kernels like, leave its channels one pruning ratio: {ratio:g}"
    return "all its channels stay: near the study's pruning_ratios there is no smaller width that the kernels like"


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
