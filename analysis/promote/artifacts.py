"""W&B artifacts as a mirror of the ledger: one artifact version for each version that was served, and aliases.

As with MLflow's registry the ledger is the truth: what was logged before is not logged again, the aliases are set
after everything is there, the champion's last. W&B knows content by its hash, so a version that is logged once more
with an alias is the version that is there already. Offline it is all files, which `wandb sync` sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.promote.ledger import Ledger, Served, ledger_of
from analysis.promote.registry import ALIASES, aliases_of, gathered, roles, tags
from record.errors import BadInput, EnvironmentFailed
from record.text import gist
from record.tracking import wandb_client

MODES = ("offline", "online")
FINISH_SECONDS = 300.0  # weights are larger than records


@dataclass(frozen=True)
class Artifacts:
    """Where the mirror is.

    Attributes:
        mode: offline, into files beside the ledger, or online.
        name: of the artifact.
        aliases: of what is in production, of what was before it, and of the newest version.
    """

    mode: str
    project: str
    name: str
    aliases: tuple[str, str, str] = ALIASES

    def mirror(self, file: Path) -> str:
        """See `log`."""
        return log(file, self)


def wandb_of(file: Path, mode: str | None, project: str, name: str | None, aliases: str | None) -> Artifacts | None:
    """What was asked for on the command line; None where nothing was, whatever the environment says.

    The artifact's name and the aliases are those that this project was told last, where none are given.

    Raises:
        BadInput: no such mode, no key for W&B online, or wrong aliases.
    """
    if mode is None:
        return None
    if mode not in MODES:
        raise BadInput(f"got {mode!r}", source="--wandb", remedy="take offline or online")
    if mode == "online" and not wandb_client.has_key():
        raise BadInput("got online, and there is no API key", source="--wandb", remedy="run 'wandb login', or take "
                       "--wandb offline and send the files later with 'wandb sync'")
    told = Ledger(file).mirrored("wandb")
    known = told if (told.get("wandb"), told.get("project")) == (mode, project) else {}
    return Artifacts(mode, project, name or known.get("name") or file.stem, aliases_of(aliases, known.get("aliases")))


def log(file: Path, wanted: Artifacts) -> str:
    """Make W&B say what the ledger says; returns what to tell.

    Raises:
        BadInput: nothing was promoted.
        EnvironmentFailed: W&B did not take it; the file in production and the ledger are as they should be.
    """
    with ledger_of(file).held() as ledger:
        changes = ledger.changes()
        told = {"wandb": wanted.mode, "project": wanted.project, "name": wanted.name, "aliases": list(wanted.aliases),
                "versions": sorted({change.version for change in changes}), "champion": changes[-1].version}
        before = ledger.mirrored("wandb")
        here = before if before.get("name") == wanted.name and before.get("project") == wanted.project \
            and before.get("wandb") == wanted.mode else {}
        if {key: here.get(key) for key in told} != told:
            try:
                place = _logged(ledger, changes, wanted, set(here.get("versions") or ()))
            except BadInput:
                raise
            except Exception as error:
                raise EnvironmentFailed(
                    f"W&B did not take it ({type(error).__name__}: {gist(error)}); {file} and its ledger are done; "
                    f"finish with: lam promotions sync {file} --wandb {wanted.mode}") from None
            here = {**told, "files": place}
            ledger.append("mirrored", of=changes[-1].begun.seq, mirror=here)
    send = f"; send it with: wandb sync {here['files']}" if wanted.mode == "offline" else ""
    return f"W&B has {wanted.name} version {changes[-1].version} as {wanted.aliases[0]} ({wanted.mode}){send}"


def _logged(ledger: Ledger, changes: list[Served], wanted: Artifacts, there: set[int]) -> str:
    """Log what is missing, then the aliases; returns where W&B keeps the files of it."""
    by_version, now = {change.version: change for change in changes}, changes[-1]
    run = wandb_client.begin(
        online=wanted.mode == "online", finish_seconds=FINISH_SECONDS, project=wanted.project, dir=str(ledger.folder),
        job_type="promotion", name=f"{wanted.name} version {now.version}", config=tags(now, str(now.version)))
    place, ended = str(Path(run.dir).parent), 1
    try:
        for version in sorted(set(by_version) - there):
            _log(run, ledger, by_version[version], wanted, f"version-{version}")
        for alias, version in roles(wanted.aliases, changes):
            _log(run, ledger, by_version[version], wanted, alias)
        ended = 0
    finally:
        run.finish(exit_code=ended)
    return place


def _log(run: Any, ledger: Ledger, change: Served, wanted: Artifacts, alias: str) -> None:
    """Log a version with one alias; online it is there when this returns."""
    import wandb

    artifact = wandb.Artifact(wanted.name, type="model", description=change.begun.because[:1000],
                              metadata=tags(change, str(change.version)))
    with TemporaryDirectory() as room:
        folder = gathered(ledger, change, Path(room))
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=file.relative_to(folder).as_posix())
        logged = run.log_artifact(artifact, aliases=[alias])
        if wanted.mode == "online":
            logged.wait()
