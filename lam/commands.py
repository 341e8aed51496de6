"""Commands about one run: `lam init`, `train`, `evaluate`, `label`, `export`, `play` and `sync`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

ASKING = "Asking for true actions"  # options of `lam label` of their own
Checkpoint = Annotated[str | None, typer.Option(help="Which kept weights: best, last or epoch-N; default: best, else "
                                                "last.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("init")(init)
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("label")(label)
    app.command("export")(export)
    app.command("play")(play)
    app.command("sync")(sync)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if missing.")] = Path(),
    data_dir: Annotated[str, typer.Option("--data", help="Folder of videos of latents, or its URI.")] = "data",
    preset: Annotated[str, typer.Option(help="full, the guide's model for a GPU, or laptop, a small one.")] = "full",
) -> None:
    """Write a commented run.yaml and sweep.yaml, with JSON schemas for editors.

    The same command again changes nothing, or finishes what was interrupted.
    """
    from lam import scaffold

    for path in scaffold.write(folder, data_dir, preset):
        typer.echo(f"wrote {path}")
    if "://" not in data_dir and not Path(data_dir).is_dir():
        typer.echo(f"warning: {data_dir}: no such folder yet; put .h5 latents there, or make some: "
                   f"{shlex.join(['lam', 'data', 'demo', data_dir])}", err=True)
    train_it, sweep_it = (shlex.join(["lam", *words, str(folder / name)]) for words, name in (
        (["train"], "run.yaml"), (["sweep", "launch"], "sweep.yaml")))
    typer.echo(f"next: {train_it}   or   {sweep_it}")


def train(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A run YAML, or a promoted production YAML.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<name of CONFIG>.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes of this machine that train together, each on "
                                         "its share of a batch and a GPU of its own; the run is the same.")] = 1,
    overfit: Annotated[bool, typer.Option("--overfit", help="Only check that the model can learn one batch by heart; "
                                          "writes nothing.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Most optimizer steps of --overfit.")] = 2000,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a production YAML whose data, values or software are "
                                         "not those of its promotion; default: say so and train.")] = False,
    notify_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Add a JSON line when a health rule fires or "
                                                     "clears, and the verdict.")] = None,
    notify_command: Annotated[str | None, typer.Option(
        metavar="COMMAND", envvar="LAM_NOTIFY_COMMAND", help="Start this for each of them, its JSON on standard input; "
        "no shell reads it.")] = None,
    notify_webhook: Annotated[str | None, typer.Option(
        metavar="URL", envvar="LAM_NOTIFY_WEBHOOK", help="POST each of them there as JSON.")] = None,
) -> None:
    """Train one model. The same command again resumes."""
    from lam import config
    from record.errors import BadInput
    from record.tracking import notices

    if overfit and workers > 1:
        raise BadInput("got both", key="--workers and --overfit", remedy="leave --workers out: one process learns "
                       "one batch")
    told = notices.receivers(notify_file, notify_command, notify_webhook)
    asked = config.relative_paths_from(config.load(config_file, overrides), config_file.parent)
    from lam.training import console  # only now: torch takes seconds, and a misspelt key is answered at once

    if overfit:
        console.show_overfit(asked, steps)
        return
    console.show_training(asked, run_dir or Path("runs") / config_file.stem, config_file, strict, told, workers)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    checkpoint: Annotated[str, typer.Option(help="Which kept weights: best, last or epoch-N.")] = "best",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto; default: a GPU where there is one, unless the "
                                               "run's config says cpu.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Measure a trained run on a split, with a probe of the codes for the true actions."""
    from record.run import RunFolder

    RunFolder(run).identity()  # before torch is imported
    from lam.training import console

    console.show_evaluation(run, split, checkpoint, json_output, device)


def label(
    given: typer.Context,
    run: Annotated[str, typer.Argument(help="A run folder; with DATA also an export, or the URI of either.")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="A folder of videos to give codes to; it "
                                                "needs neither a manifest nor actions.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the codes go: .h5, "
                                                ".parquet or .npz.")] = None,
    embedding: Annotated[bool, typer.Option("--embedding", help="Also the embedding before quantisation.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that give codes.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows that go through the model at a time.")] = 64,
    checkpoint: Checkpoint = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    address: Annotated[str | None, typer.Option(help="A Ray cluster that does the work, such as 10.0.0.1:6379; its "
                                                "machines see DATA at the same path.")] = None,
    latents: Annotated[str | None, typer.Option(help="Name of the latents in each video; default: embeddings, of "
                                                "LeRobot observation.latent.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Open a page on this machine that shows transitions and takes "
                                      "their actions, keys 1 to 9.", rich_help_panel=ASKING)] = False,
    split: Annotated[str, typer.Option(help="validation, whose labels score; or train, whose labels teach.",
                                       rich_help_panel=ASKING)] = "validation",
    count: Annotated[int, typer.Option(min=1, max=10_000, help="Most transitions to ask about.",
                                       rich_help_panel=ASKING)] = 100,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 = any.", rich_help_panel=ASKING)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.", rich_help_panel=ASKING)] = True,
) -> None:
    """Give every transition of DATA its codes, into FILE; or, with --ask, transitions of the run's data a true action.

    Codes come with the tuple's number, the distance of the embedding to it,
    and the likeliest true action. Interrupted, the same command goes on.
    Answers of --ask go to labels.csv beside the run's data; 300 of validation
    make val/action_skill reliable.
    """
    _fits(given, ask)
    if ask:
        _ask(Path(run), split, count, port, browser)
    else:
        _give_codes(run, data, output, checkpoint=checkpoint, embedding=embedding, batch_size=batch_size,
                    workers=workers, device=device, latents=latents, address=address)


def _fits(given: typer.Context, ask: bool) -> None:
    """Refuse what was typed and would do nothing: options of giving codes with --ask, and those of --ask without."""
    from record.errors import BadInput

    for option in given.command.params:
        name = max(option.opts, key=len)
        source = given.get_parameter_source(option.name or "")
        if source is None or source.name != "COMMANDLINE" or name in ("run", "--ask"):
            continue
        if ask and getattr(option, "rich_help_panel", None) != ASKING:
            raise BadInput("got both", key=f"--ask and {name if name[0] == '-' else name.upper()}",
                           remedy="--ask shows transitions of the run's own data and gives no codes; leave one out")
        if not ask and getattr(option, "rich_help_panel", None) == ASKING:
            raise BadInput("got it without --ask", key=name, remedy="add --ask, or leave it out")


def _ask(run: Path, split: str, count: int, port: int, browser: bool) -> None:
    from typing import cast, get_args

    from lam.data.manifest import SplitName
    from lam.labelling import asking
    from record.errors import BadInput
    from record.schema import suggest

    if split not in get_args(SplitName):
        raise BadInput(f"got {split!r}", key="--split", remedy=suggest(split, list(get_args(SplitName))))
    asking.ask(run, cast(SplitName, split), count, port, browser)


def _give_codes(run: str, data: Path | None, output: Path | None, **how: Any) -> None:
    from lam.labelling.labelling import Asked
    from lam.labelling.labelling import label as give
    from record.errors import BadInput
    from record.text import count

    if data is None or output is None:
        raise BadInput("nothing to do", remedy=f"name the videos and where the codes go: lam label {run} DATA -o "
                       f"codes.parquet; or ask for true actions: lam label {run} --ask")
    done = give(Asked(run, data, output, **how))
    typer.echo(f"wrote {done.out}: {count(done.transitions, 'transition')} of {count(done.videos, 'video')}")
    if not done.named:
        typer.echo("no true action is known of the training videos, or they are gone, so codes have no names")
    if done.short:
        typer.echo(f"{count(done.short, 'video')} of one latent frame had none")
    for problem in done.problems.values():
        typer.echo(f"left out: {problem}")


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; made if missing.")],
    checkpoint: Checkpoint = None,
    programs: Annotated[bool, typer.Option("--programs", help="Also encode.pt2 and step.pt2, which torch runs without "
                                           "this package.")] = False,
) -> None:
    """Write a run's model as a folder that needs neither the run nor its data: safetensors, config and a card."""
    from lam.inference import exporting

    folder = exporting.export(run, to, checkpoint, programs)
    for path in sorted(folder.iterdir()):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: python -c \"import lam; print(lam.load('{folder}').codebook.shape)\"")


def play(
    run: Annotated[str, typer.Argument(help="A run folder, an export, or the URI of either.")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Folder of videos to begin with; default: "
                                                "the run's own.")] = None,
    checkpoint: Checkpoint = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 = any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Open a page on this machine: begin at a frame, press keys for actions, see the future that the model makes."""
    from lam.inference import playing

    playing.serve(run, data, port, browser, checkpoint)


def sync(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    wandb: Annotated[str | None, typer.Option(help="off, offline or online; default: the run's config.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="MLflow tracking URI; default: the run's config, where "
                                                     "MLFLOW_TRACKING_URI is the same.")] = None,
) -> None:
    """Send a run's records to W&B and MLflow again, for example after they could not be reached."""
    from lam import trackers
    from lam.config import TrackingConfig, of_run
    from record import schema
    from record.run import RunFolder

    folder = RunFolder(run)
    folder.identity()
    asked = {key: value for key, value in (("wandb", wandb), ("mlflow", mlflow)) if value is not None}
    tracking = schema.build(TrackingConfig, of_run(folder).tracking.model_dump() | asked, "lam sync")
    trackers.check_address(folder, tracking, mlflow)
    for name in trackers.sync(folder, tracking):
        typer.echo(f"{name} has every record of {run}")
