"""Commands about data: `lam data demo`, `lam data manifest`, `lam data inspect`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

FOLDER_HELP = "Folder of videos of latents: .h5, .zarr, .safetensors, .tar, .npy, or a LeRobot data set."
OR_URI = "Or the URI of one."
LATENTS_HELP = "Name of the latents in each video; default: embeddings, of LeRobot observation.latent."
GAME_HELP = "An Atari game, such as breakout or pong; or panning, where nothing but the action changes the picture."


def register(app: typer.Typer) -> None:
    """Add the group `data` to the application."""
    group = typer.Typer(help="Make, split and check folders of latents.", no_args_is_help=True)
    group.command("demo")(demo)
    group.command("manifest")(manifest)
    group.command("inspect")(inspect)
    app.add_typer(group, name="data")


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if missing.")],
    game: Annotated[str, typer.Option(help=GAME_HELP)] = "breakout",
    episodes: Annotated[int, typer.Option(help="Clips, one file each; at least 3.")] = 60,
    length: Annotated[int, typer.Option(help="Latent frames of a clip, four video frames each; even.")] = 120,
    size: Annotated[int, typer.Option(help="Pixels of a side; the latent grid has an eighth. A multiple of 8.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the play, the split and the codec.")] = 0,
) -> None:
    """Play a real Atari game at random and write it as latents with true actions.

    The same command again does nothing, or finishes what was interrupted.
    """
    from lam.data.demo import Demo, make
    from record.text import share

    made = make(folder, Demo(game, episodes, length, size, seed))
    if made.explained_variance is None:
        typer.echo(f"{folder} already holds this demonstration; nothing to do")
        return
    typer.echo(f"wrote {made.written} clips of {game} to {folder}")
    typer.echo(f"the codec explains {share(made.explained_variance, digits=1)} of what differs from the mean picture")
    typer.echo(f"next: {shlex.join(['lam', 'data', 'inspect', str(folder)])}")


def manifest(
    where: Annotated[str, typer.Argument(metavar="DIR", help=f"{FOLDER_HELP} {OR_URI}")],
    train_ratio: Annotated[float, typer.Option(help="Share of the files for training.")] = 0.8,
    val_ratio: Annotated[float, typer.Option(help="Share for validation.")] = 0.1,
    test_ratio: Annotated[float, typer.Option(help="Share for the test at promotion.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 42,
    replace: Annotated[bool, typer.Option("--replace", help="Also where a manifest with another split is there.")
                       ] = False,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
) -> None:
    """Split a folder's files into training, validation and test, and write DIR/manifest.json.

    A manifest with another split is not replaced unasked: its test videos would be trained on.
    """
    from lam.data.manifest import SPLITS, Ratios, read_manifest, write_manifest
    from lam.data.readers.registry import reader_of
    from record.storage import copies, sets

    folder = sets.brought(where)
    path = write_manifest(folder, Ratios(train_ratio, val_ratio, test_ratio), seed, replace, latents)
    splits = read_manifest(path, folder, reader_of(folder, latents))
    copies.publish(folder, path.name)
    counts = ", ".join(f"{split} {len(splits.of(split))}" for split in SPLITS)
    typer.echo(f"wrote {copies.where(path)}: {counts} files")


def inspect(
    where: Annotated[str, typer.Argument(metavar="DIR", help=f"{FOLDER_HELP} {OR_URI}")],
    batches: Annotated[int, typer.Option(min=0, help="Training batches to read and time; 0 = none.")] = 20,
    cached: Annotated[bool, typer.Option("--cached", help="Time the decoded cache, building it first.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
) -> None:
    """Show shapes, ranges, splits and per-channel statistics; name every file that cannot be used.

    Ends with exit code 1 when a file cannot be used.
    """
    from lam.data import inspect as inspection
    from lam.data.manifest import SPLITS
    from record.errors import AnswerIsNo
    from record.files import jsonable
    from record.storage import sets
    from record.text import count

    folder = sets.brought(where)
    found = inspection.inspect(folder, batches, cached, latents)
    if json_output:
        typer.echo(json.dumps(jsonable(found.mapping()), indent=2, allow_nan=False))
    else:
        inspection.show(found)
    if len(found.files) < len(SPLITS) and not found.splits and not found.problems:
        raise AnswerIsNo(f"{where}: holds {count(len(found.files), 'file')}, and a split into training, validation "
                         f"and test needs {len(SPLITS)}; add more videos")
    if found.problems:
        total = len(found.problems) + len(found.files)
        raise AnswerIsNo(f"{where}: {len(found.problems)} of {total} files cannot be used")
