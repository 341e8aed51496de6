"""`lam sweep ...`: launch, plan, status, explain, extend, confirm, replay, optuna, stop, enqueue; submit, logs.

Each command imports what it needs itself, so that `lam` answers before torch, optuna or ray is loaded.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def _read(text: str) -> Path:
    """A sweep that is read: its folder, or a copy of what its store has of the sweep itself."""
    from record.storage import copies

    return copies.at_hand(text, deep=False)


def _written(text: str) -> Path:
    """A sweep that is gone on with."""
    from record.storage import copies

    return copies.driven(text)


def _spec(text: str) -> Path:
    """A YAML; that of a sweep may lie on its store."""
    from record.storage import addresses

    if not addresses.is_one(text):
        return Path(text)
    folder, name = addresses.above(text)
    return _written(folder) / name


Folder = Annotated[Path, typer.Argument(parser=_read, metavar="DIR", help="A sweep, for example runs/vq or "
                                        "s3://bucket/runs/vq.")]
Driven = Annotated[Path, typer.Argument(parser=_written, metavar="DIR", help="A sweep, for example runs/vq or "
                                        "s3://bucket/runs/vq.")]
SpecFile = Annotated[Path, typer.Argument(parser=_spec, metavar="FILE", help="The sweep's YAML.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster's address; default: a Ray of its own.")]
Dashboard = Annotated[str, typer.Option(help="The cluster's dashboard, for example http://127.0.0.1:8265.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show only the result.")]
Baseline = Annotated[str | None, typer.Option(metavar="FILE", help="A production YAML: its config is the first "
                                              "trial, and what the report compares with.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the sub-app `sweep`."""
    sweep = typer.Typer(help="Train many runs: search, stop early, resume, confirm.", no_args_is_help=True)
    sweep.command("launch")(launch)
    sweep.command("plan")(plan)
    sweep.command("status")(status)
    sweep.command("explain")(explain)
    sweep.command("extend")(extend)
    sweep.command("confirm")(confirm)
    sweep.command("replay")(replay)
    sweep.command("optuna")(optuna)
    sweep.command("submit")(submit)
    sweep.command("logs")(logs)
    sweep.command("stop")(stop)
    sweep.command("enqueue")(enqueue)
    app.add_typer(sweep, name="sweep")
    app.command("doctor")(doctor)


def launch(
    spec: SpecFile,
    storage: Annotated[str | None, typer.Option(help="What holds sweeps: a folder, or s3://bucket/prefix (gs, abfs); "
                                                     "default: the YAML's.")] = None,
    address: Address = None,
    quiet: Quiet = False,
    allow_inert: Annotated[bool, typer.Option("--allow-inert", help="Launch although a knob changes nothing.")] = False,
    warm_start: Annotated[str | None, typer.Option(help="Folder of another sweep whose results the search starts "
                                                        "from, where the spaces match; for the first launch.")] = None,
    baseline: Baseline = None,
) -> None:
    """Run a sweep; the same command again resumes it."""
    from sweeps.commands.launching import Options
    from sweeps.commands.launching import launch as run

    run(spec, storage, Options(address=address, quiet=quiet, again=_this_command(), allow_inert=allow_inert,
                               warm_start=warm_start, baseline=baseline))


def plan(spec: SpecFile) -> None:
    """Check a sweep's YAML and say what it would do; starts no trial."""
    from record.text import printable
    from sweeps.commands.planning import plan as describe

    for line in describe(spec):
        typer.echo(printable(line))


def status(
    folder: Folder,
    as_json: AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and redraw until the sweep is over.")] = False,
) -> None:
    """Where a sweep stands; works while another terminal runs it."""
    from record import files
    from sweeps.views import display, looking, summary

    if follow and not as_json:
        display.follow(folder)
        return
    seen = looking.look(folder)
    if as_json:
        typer.echo(json.dumps(files.jsonable(summary.status(seen.sweep, seen.state, seen.at_work)), indent=2))
    else:
        display.show(seen)


def explain(
    folder: Folder,
    trial: Annotated[str | None, typer.Argument(help="One trial, for example t0003; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Why each trial ended, in a sentence; and what early stopping saved."""
    from record.errors import BadInput
    from record.text import printable
    from sweeps.journal import folders
    from sweeps.views import summary

    sweep, state = folders.open_sweep(folder)
    if trial is not None and trial not in state.trials:
        raise BadInput(f"has no trial {trial!r}", source=folder, remedy=f"its trials are {', '.join(state.trials)}"
                       if len(state.trials) <= 5 else f"its trials are {min(state.trials)} to {max(state.trials)}")
    if as_json:
        typer.echo(json.dumps(summary.stories(sweep, state, trial), indent=2))
        return
    for line in summary.explain(sweep, state, trial):
        typer.echo(printable(line))


def extend(
    folder: Driven,
    trials: Annotated[int | None, typer.Option(help="More trials.")] = None,
    hours: Annotated[float | None, typer.Option(help="More hours.")] = None,
    epochs: Annotated[int | None, typer.Option(help="More epochs of all trials.")] = None,
    tflops: Annotated[float | None, typer.Option(help="More TFLOP of all trials.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="More GPU hours.")] = None,
    space: Annotated[Path | None, typer.Option(help="A YAML whose 'space' is wider than the sweep's.")] = None,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Give a sweep more budget or a wider space, and go on; its trials stay."""
    from sweeps.journal.folders import begun_in, resume_command

    begun_in(folder)
    from sweeps.commands.extending import extend as run
    from sweeps.commands.launching import Options

    asked = {"trials": trials, "hours": hours, "epochs": epochs, "tflops": tflops, "gpu_hours": gpu_hours}
    more = {name: float(amount) for name, amount in asked.items() if amount is not None}
    run(folder, more, space, Options(address=address, quiet=quiet, again=resume_command(folder)))


def replay(
    folder: Folder,
    policy: Annotated[list[str], typer.Option(help="asha, asha:reduction_factor=4,grace_epochs=2, median, none; "
                                                   "repeatable.")],
    as_json: AsJson = False,
) -> None:
    """What other stopping rules would have saved on the recorded curves, and whether they keep the winner."""
    from dataclasses import asdict

    from record import files
    from record.journal.journals import history
    from record.text import printable
    from sweeps.journal import folders
    from sweeps.scheduling.replaying import parse, recorded, replay_policy

    sweep = folders.sweep_in(folder)
    for text in policy:
        parse(text, sweep)  # a wrong one is said before a long journal is read
    found = recorded(history(folder))
    outcomes = [replay_policy(sweep, found, text) for text in policy]
    if as_json:
        typer.echo(json.dumps(files.jsonable([asdict(outcome) for outcome in outcomes]), indent=2))
        return
    for outcome in outcomes:
        typer.echo(printable(outcome.sentence()))


def optuna(
    folder: Folder,
    to: Annotated[str, typer.Option(help="An Optuna storage, for example sqlite:///studies.db.")],
) -> None:
    """Write the sweep as a study into an Optuna storage, for optuna-dashboard."""
    from sweeps.views.exporting import export

    name, trials = export(folder, to)
    typer.echo(f"wrote study {name} with {trials} trials; open it with: {shlex.join(['optuna-dashboard', to])}")


def confirm(
    folder: Driven,
    top: Annotated[int, typer.Option(help="How many of the best trials.")] = 1,
    seeds: Annotated[int, typer.Option(help="Fresh seeds for each.")] = 3,
    trial: Annotated[list[str] | None, typer.Option(metavar="ID", help="Also this trial; repeatable. Then --top may be "
                                                    "0.")] = None,
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Train the best trials again on fresh seeds; the same command does only what is missing."""
    from record.storage import copies
    from record.text import printable, short
    from sweeps.journal import folders

    folders.begun_in(folder)  # said before optuna and ray are loaded
    from sweeps.commands.confirming import confirm as run
    from sweeps.commands.launching import Options

    found = run(folder, top, seeds, Options(address=address, quiet=quiet, again=_this_command()), trials=trial or ())
    for row in found.trials:
        typer.echo(printable(f"{row.trial}: {found.objective} {short(row.mean)} [{short(row.low)}, {short(row.high)}] "
                             f"over {len(row.seeds)} fresh seeds, {row.live} of them live"))
    for pair in found.differences:
        typer.echo(f"{pair.a} - {pair.b}: {short(pair.mean)} [{short(pair.low)}, {short(pair.high)}]")
    typer.echo(f"wrote {copies.where(folder / 'confirm.json')}")


def doctor(
    file: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A run's or a sweep's YAML whose data and "
                                                "storage are looked at, too.")] = None,
    storage: Annotated[str, typer.Option(help="Folder of results, or s3://bucket/prefix, where the YAML does not "
                                              "say.")] = "runs",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Whether this machine can train: versions, memory, GPU, storage, Ray, trackers; of CONFIG also its data.

    Each finding has its remedy. What a bug report starts with: no secret is printed.
    """
    from dataclasses import asdict

    from record.errors import AnswerIsNo
    from record.text import count, printable
    from sweeps.commands.doctoring import examine

    checks = []
    for check in examine(file, storage, address):
        checks.append(check)
        if not as_json:
            typer.echo(printable(check.line()))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    failed = sum(check.state == "failed" for check in checks)
    if failed:
        raise AnswerIsNo(f"{count(failed, 'check')} failed; each says what to do")


def submit(
    spec: SpecFile,
    address: Dashboard,
    storage: Annotated[str | None, typer.Option(help="Where sweeps are kept, on a path that every machine sees; "
                                                     "default: the YAML's.")] = None,
    baseline: Baseline = None,
) -> None:
    """Launch a sweep as a job of a cluster; submitted again it attaches, or resumes what has ended."""
    from sweeps.journal.folders import storage_uri
    from sweeps.search.baseline import in_production
    from sweeps.spec.load import load
    from sweeps.workers.jobs import SubmittedJobs

    sweep = load(spec)
    storage_uri(sweep, storage)
    if baseline is not None:
        in_production(sweep, baseline)  # what cannot be trained is refused here, not in a job's log
    jobs, file = SubmittedJobs(address), Path(baseline) if baseline else None
    name, new = jobs.submit(sweep, storage or sweep.spec.storage, file)
    here = shlex.join([str(spec), "--address", address])
    typer.echo(f"{'submitted as' if new else 'is at work already as'} {name}")
    typer.echo(f"follow it with: lam sweep logs {here} --follow; end it, resumably, with: lam sweep stop {here}")


def logs(
    spec: SpecFile,
    address: Dashboard,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the job is over.")] = False,
) -> None:
    """What a submitted sweep has printed; its journal, which `lam sweep status` reads, is the truth."""
    from record.text import printable
    from sweeps.workers.jobs import SubmittedJobs

    jobs = SubmittedJobs(address)
    for text in jobs.log(jobs.job_of(spec), follow):
        for line in text.splitlines():
            typer.echo(printable(line))


def stop(
    what: Annotated[str, typer.Argument(help="A sweep, with TRIAL; or its YAML, with --address.")],
    trial: Annotated[str | None, typer.Argument(help="The trial to end, for example t0003.")] = None,
    because: Annotated[str, typer.Option(help="Why; it stands in the journal.")] = "",
    address: Annotated[str | None, typer.Option(help="The dashboard of the cluster that the sweep was submitted to.")
                       ] = None,
) -> None:
    """End one trial, or a whole sweep that was submitted to a cluster; that one is resumed by submitting it again."""
    from record.errors import BadInput

    if (trial is None) == (address is None):
        raise BadInput("got neither a trial nor --address" if trial is None else "got a trial and --address",
                       source="lam sweep stop", remedy="'lam sweep stop DIR TRIAL' ends a trial, 'lam sweep stop FILE "
                       "--address URL' a submitted sweep; a sweep in a terminal ends with Ctrl-C")
    if trial is not None:
        _ask(_written(what), "stop", trial, because, {})
        return
    from sweeps.workers.jobs import SubmittedJobs

    jobs = SubmittedJobs(str(address))
    name = jobs.job_of(_spec(what))
    jobs.stop(name)
    typer.echo(f"{name} is {jobs.state(name).lower()}; resume with: lam sweep submit "
               f"{shlex.join([str(what), '--address', str(address)])}")


def enqueue(
    folder: Driven,
    source: Annotated[str, typer.Option("--from", help="The trial whose config the new one starts from.")],
    change: Annotated[list[str] | None, typer.Option("--set", help="knob=value; repeatable.")] = None,
    because: Annotated[str, typer.Option(help="Why; it stands in the journal.")] = "",
) -> None:
    """Have a config of your own trained as a further trial, beside what the searcher suggests."""
    from record.yamlio import parse_mapping

    pairs = [text.partition("=") for text in change or ()]
    values = {name: parse_mapping(f"v: {value}", source=f"--set {name}").get("v") for name, _, value in pairs}
    _ask(folder, "enqueue", source, because, values)


def _ask(folder: Path, what: str, trial: str, because: str, change: dict[str, object]) -> None:
    from record.text import printable
    from sweeps.journal import folders, requests
    from sweeps.views import display

    sweep, _ = folders.open_sweep(folder)
    request = requests.request(what, trial, because, change)
    event = requests.hand_in(folder.absolute(), sweep, request)
    if event is None:
        typer.echo("asked; the driver that is at work takes it up within seconds, a running trial ends with its epoch")
        return
    typer.echo(printable(display.line(event, sweep.max_epochs)))
    if what == "enqueue":
        typer.echo("no driver is at work; the command that launched the sweep trains it")


def _this_command() -> str:
    return shlex.join(["lam", *sys.argv[1:]])
