"""The commands `promote` and `promotions`. Only typer at the top: `lam --help` loads this file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Target = Annotated[Path, typer.Argument(metavar="FILE", help="The production YAML.")]
TARGET, PROJECT = Path("production.yaml"), "vvae-lam"
Uri = Annotated[str | None, typer.Option("--mlflow", metavar="URI", help="Mirror into this MLflow; default: none.")]
Wandb = Annotated[str | None, typer.Option("--wandb", metavar="MODE", help="Mirror into W&B artifacts: offline (files "
                                           "beside the ledger) or online; default: not.")]
Project = Annotated[str, typer.Option("--wandb-project", help="W&B project.")]
Name = Annotated[str | None, typer.Option("--model", help="The registered model's name; default: the YAML's.")]
Aliases = Annotated[str | None, typer.Option(help="Of production, the one before, the newest; default: "
                                             "champion,previous,candidate.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("promote")(promote_command)
    room = typer.Typer(no_args_is_help=True, help="What was promoted to a production YAML: list, show, rollback.")
    room.command("list")(listed)
    room.command()(show)
    room.command()(rollback)
    room.command("sync")(mirror)
    room.command()(snapshot)
    app.add_typer(room, name="promotions")


def promote_command(
    paths: Annotated[list[str], typer.Argument(
        metavar="PATH...", help="A sweep (also s3://...), one of its trials, or runs trained by hand (those of one "
        "config and other seeds confirm the first).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The production YAML to write.")],
    trial: Annotated[str | None, typer.Option(metavar="ID", help="Which trial; default: the winner.")] = None,
    waive: Annotated[list[str] | None, typer.Option(
        metavar="GATE", help="Let a failed gate pass; needs --because.")] = None,
    because: Annotated[list[str] | None, typer.Option(
        metavar="REASON", help="Why, one for each --waive, in the same order.")] = None,
    production: Annotated[Path | None, typer.Option(
        metavar="YAML", help="Values that production has instead of the trial's own: KEY: VALUE, or KEY: {value: ..., "
        "because: ...}.")] = None,
    baseline: Annotated[Path | None, typer.Option(
        metavar="RUN", help="A run without codes, to compare the error with.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show the difference to the file in production; write "
                                       "nothing.")] = False,
    mlflow: Uri = None, wandb: Wandb = None, wandb_project: Project = PROJECT, model: Name = None,
    aliases: Aliases = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check the gates and write the best trial's config as a production YAML, its weights beside it."""
    import json

    from record.errors import AnswerIsNo
    from record.text import shown

    _check_asked(diff, json_output)
    promotion, mirrors = _promoting(paths), _mirrors(output, mlflow, (wandb, wandb_project), model, aliases)
    wish = promotion.Wish(trial, promotion.waivers(waive or [], because or []), production, baseline, diff)
    result = promotion.promote(list(paths), output, wish=wish)
    if diff:
        return _show_difference(result, output)
    if json_output:
        typer.echo(json.dumps(result.document().as_written(), indent=2, allow_nan=False))
    if not result.promoted:
        raise AnswerIsNo(promotion.refusal(result))
    if not json_output:
        typer.echo(shown(result.summary()))
    _mirror(output, mirrors, tell=not json_output)


def _check_asked(diff: bool, json_output: bool) -> None:
    from record.errors import BadInput

    if diff and json_output:
        raise BadInput("got both", key="--diff and --json", remedy="leave one out: a difference is text")


def _promoting(paths: list[str]) -> Any:
    """What promotes, which takes seconds to import, once the paths are known to be there."""
    from record.errors import check_there

    for path in paths:
        check_there(path, "name a sweep, one of its trials or a run")
    from analysis import promote

    return promote


def _show_difference(result: Any, output: Path) -> None:
    """What would change in the file in production, and which gates would refuse it."""
    typer.echo(result.difference or f"{output} would stay as it is", nl=not result.difference)
    failed = [gate.name for gate in result.gates if not gate.lets_pass]
    typer.echo(f"failed gates: {', '.join(failed) or 'none'}; the test split was not read; nothing was written")


def listed(file: Target = TARGET,
           json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Every promotion and rollback, the last one in production."""
    import json

    from analysis.promote import history

    found = history.served(file)
    if json_output:
        typer.echo(json.dumps(history.as_json(found), indent=2))
        return
    for line in history.as_text(file, found):
        typer.echo(line)


def show(file: Target = TARGET,
         at: Annotated[str | None, typer.Option(metavar="DATE", help="What was in production then (ISO, UTC unless it "
                                                "says otherwise); default: now.")] = None) -> None:
    """The YAML that is, or was, in production, and since when."""
    from analysis.promote import history

    told, text = history.shown_at(file, at)
    for line in told:
        typer.echo(line, err=True)
    typer.echo(text, nl=False)


def rollback(file: Target = TARGET,
             to: Annotated[int | None, typer.Option(metavar="VERSION", help="Default: the one before.")] = None,
             because: Annotated[str, typer.Option(metavar="REASON", help="Why, for the ledger.")] = "",
             mlflow: Uri = None, wandb: Wandb = None, wandb_project: Project = PROJECT, model: Name = None,
             aliases: Aliases = None) -> None:
    """Put an earlier version back into production."""
    from analysis.promote import history

    mirrors = _mirrors(file, mlflow, (wandb, wandb_project), model, aliases)
    typer.echo(history.roll_back(file, to, because))
    _mirror(file, mirrors)


def mirror(file: Target = TARGET, mlflow: Uri = None, wandb: Wandb = None, wandb_project: Project = PROJECT,
           model: Name = None, aliases: Aliases = None) -> None:
    """Make MLflow's model registry, or W&B, say what the ledger says, for example after it could not be reached."""
    from record.errors import BadInput

    mirrors = _mirrors(file, mlflow, (wandb, wandb_project), model, aliases)
    if not mirrors:
        raise BadInput("no MLflow was named, nor W&B", source="lam promotions sync",
                       remedy="add --mlflow URI, or --wandb offline")
    _mirror(file, mirrors)


def snapshot(file: Target = TARGET,
             data: Annotated[Path | None, typer.Option(
                 metavar="DIR", help="Videos that are as they should be; default: those that the promoted run did not "
                 "train on.")] = None) -> None:
    """Keep what the model in production sees in videos, for 'lam monitor FILE --data DIR' to hold new ones to."""
    from analysis.promote import snapshots

    typer.echo(snapshots.take_again(file, data))


def _mirrors(file: Path, uri: str | None, wandb: tuple[str | None, str], name: str | None,
             aliases: str | None) -> list[Any]:
    from analysis.promote import artifacts, registry

    named = registry.chosen(file, uri, name, aliases), artifacts.wandb_of(file, *wandb, name, aliases)
    return [each for each in named if each is not None]


def _mirror(file: Path, mirrors: list[Any], tell: bool = True) -> None:
    """Mirror a promotion that is done, and name the mirrors that were told before and not now."""
    from analysis.promote.history import behind
    from analysis.promote.ledger import Ledger

    for each in mirrors:
        told = each.mirror(file)
        if tell:
            typer.echo(told)
    for line in behind(Ledger(file)) if tell else []:
        typer.echo(line)
