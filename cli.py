"""The command line: parse, call, print; no logic."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .spaces.errors import InputError, SlimfrontError
from .studies.screen import Screen

app = typer.Typer(
    name="slimfront",
    help="Compress image-generating networks: search the Pareto front of size, speed and quality.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="TOML file, folder with study.toml, or ready-made study.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
Candidates = Annotated[list[Path] | None, typer.Argument(metavar="[CANDIDATE.json]...", help="Candidate files.")]
OneCandidate = Annotated[Path | None, typer.Argument(metavar="[CANDIDATE.json]", help="Candidate file.")]
Uniform = Annotated[
    str | None,
    typer.Option("--uniform", help="One choice for all, e.g. weight_bits=4,activation_bits=8,pruning_ratio=0.25."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings and hints.")]
MaxSize = Annotated[str | None, typer.Option(help="Largest file, e.g. 1MB, 800kB, 1.5MiB.")]
MaxLatency = Annotated[str | None, typer.Option(help="Longest time of a batch, e.g. 40ms, 0.1s.")]
MinPsnr = Annotated[float | None, typer.Option(help="Least PSNR in dB.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(help="Largest loss against the reference in dB (without targets: below a fidelity of 50 dB)."),
]
MinPreference = Annotated[
    float | None,
    typer.Option(help="How often people prefer it to the reference at least, 0 to 1 (slimfront board --judge)."),
]
MinSpeedup = Annotated[float | None, typer.Option(help="Least speedup against the reference.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory that opening and running the model may take, e.g. 64MB."),
]

Least = Annotated[
    list[str] | None,
    typer.Option(
        "--min",
        metavar="NAME=VALUE",
        help="Least value of a further objective, a number or a size such as 40MB; may be repeated.",
    ),
]
Most = Annotated[
    list[str] | None,
    typer.Option(
        "--max",
        metavar="NAME=VALUE",
        help="Largest value of a further objective, a number or a size such as 40MB; may be repeated.",
    ),
]
PreferOption = Annotated[
    str,
    typer.Option(
        metavar="[knee|size|latency|psnr|NAME]",
        help="What decides among those that keep the limits; NAME is a further objective's.",
    ),
]


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    try:
        sys.exit(app(prog_name="slimfront", standalone_mode=False))
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except InputError as error:
        _fail(str(error), 2)
    except SlimfrontError as error:
        _fail(str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # else one of typer's own: what was typed is wrong
            raise
        _fail(f"{error.format_message().replace('Value error, ', '')} (try: slimfront --help)", 2)


def _fail(message: str, status: int) -> None:
    print(f"slimfront: {message}", file=sys.stderr)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog="Example: slimfront studies")
def studies(json: Json = False, quiet: Quiet = False) -> None:
    """List the ready-made studies."""
    from .studies.describe import describe_studies
    from .studies.show import studies_table

    Screen(json, quiet).result(describe_studies(), studies_table)


@app.command(epilog="Example: slimfront init model.onnx --data samples -o study.toml")
def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file, or model.py:function for PyTorch.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="F", help="The study file to write.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with calibration and evaluation data.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a study file for a model, its shapes and names looked up."""
    from .studies.init import init_study
    from .studies.show import lines_view

    screen = Screen(json, quiet)
    todo = init_study(model, data, output)
    screen.result({"file": str(output), "todo": todo}, lambda facts: lines_view({"file": facts["file"]}))
    for item in todo:
        screen.hint(f"to do: {item}")
    screen.hint(f"next: slimfront search {output}")


@app.command(epilog="Example: slimfront space painting")
def space(study: StudyName, json: Json = False, quiet: Quiet = False) -> None:
    """Show layers, their choices, and what is frozen and why."""
    from .studies.describe import describe_space
    from .studies.show import space_table
    from .studies.study import load_study

    screen = Screen(json, quiet)
    loaded = load_study(study)
    loaded.check_runs()
    screen.result(describe_space(loaded), space_table)
    screen.note(*loaded.warnings)


@app.command(epilog="Example: slimfront profile painting")
def profile(study: StudyName, json: Json = False, quiet: Quiet = False) -> None:
    """Show bytes and milliseconds per layer, and what fewer bits or channels of each cost: what to compress first."""
    from .studies.profile import profile as measure
    from .studies.show import profile_table
    from .studies.study import load_study

    screen = Screen(json, quiet)
    loaded = load_study(study)
    with screen.steps() as progress:
        measured = measure(loaded, progress)
    screen.result(measured, profile_table)
    screen.note(*loaded.warnings)


@app.command(epilog="Example: slimfront search painting --trials 60 --timeout 10m")
def search(
    study: StudyName,
    run: Annotated[Path | None, typer.Option(help="Run folder; by default runs/<study name>.")] = None,
    trials: Annotated[int | None, typer.Option(help="The run's candidates in all; by default the study's.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Longest time, e.g. 90s, 10m, 1h.")] = None,
    sampler: Annotated[str | None, typer.Option(help="frontier, tpe, nsga2, gp or random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampler.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database that keeps the records, for several searches at once; or an Optuna journal file.",
        ),
    ] = None,
    until_converged: Annotated[
        bool, typer.Option("--until-converged", help="End earlier where little is left to gain.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that evaluate side by side; by default one.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Ray cluster that does the work: its head's address, or auto."),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the models of reference and front are kept besides the run folder: s3://…, gs://…, or a folder.",
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOG", help="Log to mlflow:URI, tensorboard:FOLDER or wandb:PROJECT as well; may be repeated."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the front. Running the same command again continues it."""
    from .search.logs import log_of
    from .search.loop import search as run_search
    from .studies.show import search_table
    from .studies.study import load_study

    screen = Screen(json, quiet)
    try:
        with screen.search() as progress:
            loaded, logs = load_study(study), [log_of(text) for text in log or ()]
            more = (until_converged, workers, ray, artifacts, logs)
            done = run_search(loaded, trials, run, timeout, sampler, seed, storage, progress, *more)
    except KeyboardInterrupt:
        screen.note("interrupted: everything finished is kept; the same command continues")
        raise typer.Exit(130) from None
    screen.result(done.to_json() | {"run": str(done.folder)}, search_table)
    folder = shlex.quote(str(done.folder))
    screen.hint(f"next: slimfront report {folder} -o report.html")
    screen.hint(
        f"      slimfront ship {folder} {'--max-drop 0.5 --prefer size' if done.has_target else '--prefer knee'} -o bundle"
    )


@app.command(epilog="Example: slimfront front runs/painting --all --csv trials.csv")
def front(
    run: RunFolder,
    all_trials: Annotated[bool, typer.Option("--all", help="Every trial with state, reason and stages.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="F", help="Write a CSV file as well.")] = None,
    parquet: Annotated[Path | None, typer.Option(metavar="F", help="Write a Parquet file as well.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the non-dominated candidates of a run."""
    from .studies.export import export
    from .studies.run import open_run
    from .studies.show import front_table

    opened = open_run(run)
    export(opened, all_trials, csv, parquet)
    Screen(json, quiet).result(opened.to_json(all=all_trials), front_table)


@app.command(epilog="Example: slimfront report runs/painting -o report.html")
def report(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="F", help="The HTML page to write.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as one self-contained page: the front, pictures, bits per layer."""
    from .studies.report import report as write_report
    from .studies.run import open_run
    from .studies.show import lines_view

    screen = Screen(json, quiet)
    with screen.steps() as progress:
        notes = write_report(open_run(run), output, progress)
    screen.note(*notes)
    screen.result(
        {"report": str(output), "size_bytes": output.stat().st_size, "notes": notes},
        lambda f: lines_view({"report": f["report"]}),
    )


@app.command(epilog="Example: slimfront board runs/painting")
def board(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that hold some.")],
    host: Annotated[
        str, typer.Option(metavar="H", help="Address to serve on; one that other machines reach asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="P", help="Port to serve on; 0 takes a free one.", min=0, max=65535)
    ] = 8050,
    judge: Annotated[bool, typer.Option("--judge", help="Begin with judging pictures blind.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Review runs in the browser: front, pictures, budgets, decisions. A running search is followed."""
    from .studies.board.app import board as serve
    from .studies.board.boarded import found_runs

    screen = Screen(json, quiet)
    folders = found_runs(runs)
    screen.hint("reading the runs")

    def told(address: str) -> None:
        screen.result({"address": address}, lambda facts: f"the board is at {facts['address']} (Ctrl-C ends it)")

    serve(folders, host, port, judge, told)


@app.command(epilog="Example: slimfront runner --port 7007 --token a-long-secret")
def runner(
    port: Annotated[
        int | None, typer.Option(metavar="P", help="Port to serve on; 0 takes a free one.", min=0, max=65535)
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="T", envvar="SLIMFRONT_TOKEN", help="What a search must know, at least 8 characters."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="H", help="Address to serve on.")] = "127.0.0.1",
    space: Annotated[str, typer.Option(metavar="SIZE", help="Most that files take on disk.")] = "2GB",
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where they lie; by default in the cache folder.")
    ] = None,
    pack: Annotated[
        Path | None,
        typer.Option(
            metavar="F.pyz", help="Write the runner as one file, for a device without slimfront; serve nothing."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run models on this machine for a search on another one, whose study names it as target.device."""
    from .objectives.device.command import place_of, run, served
    from .objectives.device.pack import pack as write
    from .studies.show import lines_view

    screen = Screen(json, quiet)
    if pack is not None:
        write(pack)
        screen.result({"file": str(pack), "size_bytes": pack.stat().st_size}, lines_view)
        screen.hint(f"next: take it to the device, and there: python {pack.name} --port 7007 --token ...")
        return
    if port is None:
        raise InputError("--port must be given, e.g. --port 7007")

    def told(address: str, runtimes: list[str]) -> None:
        screen.result({"address": address, "runtimes": runtimes}, lambda facts: served(**facts))

    run(place_of(port, token, host, space, folder), quiet, told)


@app.command(epilog="Example: slimfront pick runs/painting --max-drop 0.5 --prefer size")
def pick(
    run: RunFolder,
    max_size: MaxSize = None,
    max_latency: MaxLatency = None,
    min_psnr: MinPsnr = None,
    max_drop: MaxDrop = None,
    min_speedup: MinSpeedup = None,
    max_memory: MaxMemory = None,
    min_preference: MinPreference = None,
    min: Least = None,
    max: Most = None,
    prefer: PreferOption = "knee",
    propose: Annotated[
        bool, typer.Option("--propose", help="Also look among candidates that were not measured; measure the best.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose one candidate of a run by what it must keep."""
    from .studies.criteria import abouts, limits_of_texts
    from .studies.pick import choice_notes
    from .studies.run import open_run
    from .studies.show import candidate_view

    screen = Screen(json, quiet)
    opened = open_run(run)
    bounds = limits_of_texts(min or (), "--min"), limits_of_texts(max or (), "--max")
    limits = (max_size, max_latency, min_psnr, max_drop, min_speedup)
    if propose and min_preference is not None:
        raise InputError("give either --propose or --min-preference: nobody has judged what was not measured")
    if propose:
        from .search.propose import propose as find

        with screen.steps() as progress:
            chosen, notes = find(opened, *limits, prefer, progress, *bounds, max_memory)
        screen.note(*notes)
        opened = open_run(run)
    else:
        chosen = opened.pick(*limits, prefer, min_preference, *bounds, max_memory)
    screen.result(chosen.row(), partial(candidate_view, further=abouts(opened.criteria)))
    screen.note(*choice_notes(opened, chosen))
    screen.hint(f"next: slimfront ship {shlex.quote(str(run))} --trial {chosen.number} -o bundle")


@app.command(epilog="Example: slimfront polish runs/painting --trial 12")
def polish(
    run: RunFolder,
    trial: Annotated[int, typer.Option(help="The number of the trial that is trained on.")],
    steps: Annotated[int, typer.Option(help="Training steps, of one batch each.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the order and the variation of the samples.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a candidate on, by distillation from the reference; what it becomes is measured and added to the run.

    Interrupted, the same command goes on.
    """
    from .search.polish import polish as train
    from .studies.criteria import abouts
    from .studies.run import open_run
    from .studies.show import candidate_view

    screen = Screen(json, quiet)
    opened = open_run(run)
    with screen.steps() as progress:
        found, notes = train(opened, trial, steps, seed, progress)
    screen.note(*notes)
    screen.result(found.row(), partial(candidate_view, further=abouts(opened.criteria)))
    screen.hint(f"next: slimfront front {shlex.quote(str(run))}")


@app.command(epilog="Example: slimfront explain runs/painting --trial 12")
def explain(
    run: RunFolder,
    trial: Annotated[int, typer.Option(help="The trial's number.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where a candidate's time goes, layer by layer, and why it is or is not faster."""
    from .studies.run import open_run
    from .studies.show import explanation_view

    screen = Screen(json, quiet)
    with screen.steps() as progress:
        explained = open_run(run).explain(trial, progress)
    screen.result(explained, explanation_view)


@app.command(epilog="Example: slimfront ship runs/painting --trial 12 -o bundle")
def ship(
    run: RunFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The bundle's folder, new or empty.")],
    trial: Annotated[int | None, typer.Option(help="The trial's number; else the limits choose.")] = None,
    max_size: MaxSize = None,
    max_latency: MaxLatency = None,
    min_psnr: MinPsnr = None,
    max_drop: MaxDrop = None,
    min_speedup: MinSpeedup = None,
    max_memory: MaxMemory = None,
    min_preference: MinPreference = None,
    min: Least = None,
    max: Most = None,
    prefer: PreferOption = "knee",
    bundle: Annotated[
        int | None,
        typer.Option(metavar="N", help="Ship N spread members of the front, with a loader that chooses on the device."),
    ] = None,
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="The reason, kept in the run and in the bundle's card.")
    ] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a candidate as a bundle, measured again in a fresh process; or several, with a loader that chooses on the device."""
    from .studies.criteria import abouts, limits_of_texts
    from .studies.pick import choice_notes
    from .studies.run import open_run
    from .studies.ship import choose, shipped, shipped_notes
    from .studies.ship import ship as ship_trial
    from .studies.shipment import ship_spread, shipped_members
    from .studies.show import candidate_view, members_view

    screen = Screen(json, quiet)
    opened = open_run(run)
    bounds = limits_of_texts(min or (), "--min"), limits_of_texts(max or (), "--max")
    limits = (max_size, max_latency, min_psnr, max_drop, min_speedup)
    hint = f"shipped to {output}; check it anywhere with: slimfront verify {shlex.quote(str(output))}"
    if bundle is not None:
        if trial is not None or min_preference is not None or prefer != "knee":
            raise InputError("--bundle takes limits only: leave --trial, --prefer and --min-preference out")
        folder = ship_spread(opened, bundle, output, opened.wanted(*limits, *bounds, max_memory), screen.hint, why)
        screen.result({"members": shipped_members(folder)}, members_view)
        screen.hint(hint)
        return
    chosen = choose(opened, trial, *limits, prefer, min_preference, *bounds, max_memory)
    row = shipped(ship_trial(opened, chosen, output, screen.hint, why))
    screen.note(*choice_notes(opened, chosen), *shipped_notes(chosen, row))
    screen.result(row, partial(candidate_view, further=abouts(opened.criteria)))
    screen.hint(hint)


@app.command(epilog="Example: slimfront verify bundle")
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle's folder.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle again; exit status 1 where it does not hold."""
    from .studies.show import checks_view
    from .studies.verify import verify as verify_bundle

    screen = Screen(json, quiet)
    verified = verify_bundle(bundle)
    screen.note(*verified["notes"])
    screen.result(verified, checks_view)
    if not verified["holds"]:
        raise SlimfrontError(f"{bundle} does not hold: {', '.join(verified['failed'])}")


@app.command(epilog="Example: slimfront build painting --uniform weight_bits=4,activation_bits=8 -o small.onnx")
def build(
    study: StudyName,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="F.onnx", help="The file to write, as the study's runtime reads it."),
    ],
    candidate: OneCandidate = None,
    uniform: Uniform = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build one candidate as a file: ONNX, or what the study's runtime reads."""
    from .studies.candidates import build_file, given_candidates
    from .studies.show import lines_view
    from .studies.study import load_study

    screen = Screen(json, quiet)
    loaded = load_study(study)
    [chosen], notes = given_candidates(loaded, [candidate] if candidate else [], uniform)
    screen.note(*notes)
    with screen.steps() as progress:
        built = build_file(loaded, chosen, output, progress)
    screen.note(*loaded.warnings)
    screen.result(built, lambda facts: lines_view({key: facts[key] for key in ("file", "size_bytes", "sha256")}))


@app.command(epilog="Example: slimfront evaluate painting --uniform weight_bits=8,activation_bits=8")
def evaluate(
    study: StudyName, candidates: Candidates = None, uniform: Uniform = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Build and measure candidates, outside any run."""
    from .search.evaluate import evaluate as measure
    from .studies.criteria import abouts
    from .studies.show import candidates_table

    def table(rows: list[dict[str, Any]], loaded: Any) -> Any:
        return candidates_table(rows, further=abouts(loaded.criteria))

    _of_candidates(study, candidates, uniform, Screen(json, quiet), measure, table)


@app.command(epilog="Example: slimfront predict painting --uniform weight_bits=8,activation_bits=8")
def predict(
    study: StudyName, candidates: Candidates = None, uniform: Uniform = None, json: Json = False, quiet: Quiet = False
) -> None:
    """Predict how fast candidates will be on this machine; nothing is built. The first time takes a minute."""
    from .studies.predict import predict as foresee
    from .studies.show import predictions_table

    _of_candidates(study, candidates, uniform, Screen(json, quiet), foresee, lambda rows, _: predictions_table(rows))


def _of_candidates(
    study: str,
    files: list[Path] | None,
    uniform: str | None,
    screen: Screen,
    work: Callable[..., list[dict[str, Any]]],
    view: Callable[..., Any],
) -> None:
    """Do some work on the candidates that a command names, and show a row for each; every warning is told once."""
    from .studies.candidates import given_candidates
    from .studies.study import load_study

    loaded = load_study(study)
    chosen, notes = given_candidates(loaded, files or [], uniform)
    loaded.check()
    told = [*loaded.warnings, *notes]
    screen.note(*told)
    with screen.steps() as progress:
        rows = work(loaded, chosen, progress)
    screen.result(rows, lambda found: view(found, loaded))
    screen.note(*(note for note in loaded.warnings if note not in told))


if __name__ == "__main__":
    main()
