"""The commands `report`, `promote`, `promotions` and `monitor`. Only typer at the top: `lam --help` loads this file."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis import promotion_commands as promotion

if TYPE_CHECKING:
    from analysis.report.delivery.again import Said
    from record.tracking.notices import Notices


def register(app: typer.Typer) -> None:
    """Add the commands of `analysis` to `app`."""
    app.command()(report)
    promotion.register(app)
    app.command()(monitor)


def report(
    paths: Annotated[list[str] | None, typer.Argument(
        metavar="PATH...", help="Sweeps, runs (also s3://...), other trainers' logs, trackers' folders, databases or "
        "addresses.", show_default=False)] = None,
    output: Annotated[list[Path] | None, typer.Option(
        "--output", "-o", metavar="FILE", help="Where to write: FILE.html, .md, .json, or the records as "
        ".parquet; repeat for several.")] = None,
    baseline: Annotated[str | None, typer.Option(
        metavar="RUN", help="A trial of these, or a run's folder, to compare against.")] = None,
    objective: Annotated[str | None, typer.Option(
        metavar="KEY", help="Rank by this metric; --objective=-KEY where lower is better.")] = None,
    profile: Annotated[str | None, typer.Option(
        metavar="NAME", help="Health profile of other trainers' records; default: the one that fits.")] = None,
    verify: Annotated[Path | None, typer.Option(
        metavar="FILE.json", help="Compute a JSON report again from its records; exit 1 if they differ.")] = None,
    serve: Annotated[bool, typer.Option(
        "--serve", help="Serve the page on this machine alone, made again while a sweep runs, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between two pages, with --serve.")] = 30.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve; 0 picks a free one.")] = 0,
) -> None:
    """Compare trials: who won and why, go or no-go, what to run next."""
    from record.errors import BadInput, check_there

    if verify is not None:
        return _verify(verify, paths or [])
    if not paths:
        raise BadInput("no path given", source="PATH", remedy="name a sweep, a run or another trainer's records")
    for path in paths:  # before seconds of imports
        check_there(path, "name a sweep, a run or another trainer's records")
    asked = {"baseline": baseline, "objective": objective, "profile": profile}
    if serve and output:
        raise BadInput("is for a page that is written", source="-o", remedy="leave it out, or leave --serve out")
    if serve:
        return _serve(list(paths), every, port, asked)
    with _keeping_all():
        return _report(list(paths), output, asked)


def _report(paths: list[str], output: list[Path] | None, asked: dict[str, str | None]) -> None:
    """Write the report and say what it comes to; one of large sweeps that nothing has changed since is given again."""
    from analysis.report.delivery import again
    from analysis.report.delivery.targets import check_target, save_texts
    from record.text import printable, shown

    default = (Path(paths[0]) if len(paths) == 1 and Path(paths[0]).is_dir() else Path()) / "report.html"
    targets = [check_target(target) for target in output or [default]]
    known = again.made_of(paths, asked)
    said = again.find(known, {target.suffix.lower() for target in targets})
    if said is not None:
        places = _places(targets, [Path(path) for path in paths])
        save_texts(said.texts, targets)
        typer.echo(f"Nothing has changed since {said.made_at}: this is the report made then.")
    else:
        said, places = _made(paths, targets, asked, known)
    for line in said.lines:
        typer.echo(shown(line))
    for label, place in places:
        typer.echo(printable(f"{label:<16}{place}"))


def _made(paths: list[str], targets: list[Path], asked: dict[str, str | None],
          known: str | None) -> tuple[Said, list[tuple[str, Path]]]:
    """Make and write the report; returns what to say of it, and where things are."""
    from analysis.read.reading import read_study
    from analysis.report.delivery import again
    from analysis.report.render import get_ready, write
    from analysis.report.report import build_report

    study = read_study(list(paths), asked["objective"], asked["profile"])
    made = build_report(list(paths), asked["baseline"], objective=asked["objective"], profile=asked["profile"],
                        study=study, meanwhile=get_ready)
    places = _places(targets, [Path(path) for path in paths if Path(path).is_dir()])
    decision = [f"{made.decision.headline}. {made.decision.readiness}"] if made.decision else []
    said = again.Said(write(made, targets, study), (made.verdict.sentence, *decision, *(
        f"Note: {caution}" for caution in made.verdict.cautions)), made.made_at)
    again.keep_report(known, said, study)
    return said, places


@contextmanager
def _keeping_all() -> Iterator[None]:
    """No search for garbage meanwhile: what is read stays, and millions of values are looked through in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _serve(paths: list[str], every: float, port: int, asked: dict[str, str | None]) -> None:
    """Serve the page until Ctrl-C."""
    from analysis.report.delivery.live import current
    from analysis.report.delivery.serve import PageServer
    from record.errors import BadInput

    try:
        server = PageServer(lambda: current(paths, asked), every, port)
    except OSError as error:
        raise BadInput(f"got {port}, which cannot be listened on ({error.strerror})", source="--port",
                       remedy="name another one, or 0") from None
    with server:
        server.page()  # what is wrong with the paths is said here, not in a browser
        typer.echo(f"{'report':<16}{server.url}")
        typer.echo("Serving on this machine alone; Ctrl-C ends it.")
        server.serve_forever()


def _verify(file: Path, named: list[str]) -> None:
    from analysis.report.verify import verify
    from record.errors import AnswerIsNo
    from record.text import count, shown

    found, compared = verify(file, named)
    if found:
        told = "\n".join(f"  {item.sentence}" for item in found[:20])
        more = f"\n  and {len(found) - 20} more" if len(found) > 20 else ""
        raise AnswerIsNo(f"{file}: {count(len(found), 'value')} of {compared:,} changed since it was made\n"
                         f"{told}{more}")
    typer.echo(shown(f"{file}: all {compared:,} values are what its records say"))


def _places(reports: list[Path], paths: list[Path]) -> list[tuple[str, Path]]:
    """Where things are: the reports, and for each sweep its folder and what was promoted from it."""
    from record import documents

    places = [("report", report) for report in reports]
    for path in {path.resolve(): path for path in paths}.values():
        if (path / "sweep.json").exists():
            places.append(("sweep folder", path))
        if (path / "promotion.json").exists():
            promotion = documents.load_document(documents.Promotion, path / "promotion.json")
            if promotion.promoted:
                places.append(("production YAML", Path(promotion.target)))
    return places


def monitor(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder (also s3://...), another trainer's folder, or "
                                       "a log; with --data a production YAML.")],
    profile: Annotated[str | None, typer.Option(
        metavar="NAME", help="Health profile, or a YAML file of your own; default: the one that fits.")] = None,
    alerts: Annotated[Path | None, typer.Option(
        metavar="FILE", help="A production YAML: judge by its alerts as well.")] = None,
    data: Annotated[Path | None, typer.Option(
        metavar="DIR", help="New videos: are they still what the model in production was chosen on?")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run is over or must abort.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --follow.")] = 5.0,
    fact: Annotated[list[str] | None, typer.Option(
        metavar="NAME=NUMBER", help="What the records do not say: early_stopping_patience=25; repeatable.")] = None,
    notify_file: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Add a JSON line for each rule that holds, with --follow when it fires or clears; and for "
        "drift.")] = None,
    notify_command: Annotated[str | None, typer.Option(
        metavar="COMMAND", envvar="LAM_NOTIFY_COMMAND", help="Start this for each, its JSON on standard input; no "
        "shell reads it.")] = None,
    notify_webhook: Annotated[str | None, typer.Option(
        metavar="URL", envvar="LAM_NOTIFY_WEBHOOK", help="POST each there as JSON.")] = None,
    json_output: Annotated[bool, typer.Option(
        "--json", help="Print one JSON document; with --follow one a line at each change.")] = False,
) -> None:
    """Judge a run: which health rules fired, since when, why, and what to do. Exit 1 means: stop it.

    With --data judge new videos, against those kept at promotion. Exit 1 means: drift; 2: nothing can be told.
    """
    import contextlib

    from record.tracking import notices

    told = notices.receivers(notify_file, notify_command, notify_webhook)
    with contextlib.closing(notices.Notices(told, Path(run).name)) as receivers:
        if data is not None:
            return _drift(Path(run), data, json_output, receivers)
        facts = dict(_fact(text) for text in fact or [])
        _judge(run, (profile, facts, alerts), every if follow else None, json_output, receivers)


def _judge(run: str, how: tuple[str | None, dict[str, float], Path | None], every: float | None, json_output: bool,
           receivers: Notices) -> None:
    """Say how a run does, again and again where `every` is given."""
    import json

    from record.errors import AnswerIsNo, check_there

    check_there(run, "name a run folder or a log")
    from analysis.monitor import telling
    from analysis.monitor.monitor import examine, follow, lines, status_dict
    from analysis.read import foreign

    (profile, facts, alerts), before = how, None
    for status in follow(run, profile, facts, every, alerts=alerts) if every else \
            [examine(foreign.read(run), profile, facts, alerts)]:
        typer.echo(json.dumps(status_dict(status), indent=None if every else 2) if json_output else
                   "\n".join(lines(status)))
        telling.tell(receivers, run, before, status)
        before = status
    if before is not None and before.aborts:
        rules = ", ".join(finding.rule for finding in before.judgement.aborts)
        raise AnswerIsNo(f"{run}: this run must be stopped ({rules})")


def _drift(file: Path, data: Path, json_output: bool, receivers: Notices) -> None:
    import json

    from analysis.promote.looking import drift_lines, look
    from record.errors import AnswerIsNo

    found = look(file, data)
    typer.echo(json.dumps(found.values, indent=2) if json_output else "\n".join(drift_lines(found)))
    if found.drifted:
        receivers.send("drift", **found.values)
        raise AnswerIsNo(f"{data}: the data are no more what {file} was chosen on "
                         f"({', '.join(test['aspect'] for test in found.values['tests'] if test['drifted'])})")


def _fact(text: str) -> tuple[str, float]:
    from record.errors import BadInput

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise BadInput(f"got {text!r}, expected NAME=NUMBER", source="--fact",
                       remedy="for example --fact early_stopping_patience=25") from None
