"""MLflow's model registry as a mirror of the ledger: a model version for each version that was served, and aliases.

The ledger is the truth. A mirror is made from it alone and can be made again: what is there already is left as it is, a
model whose upload was cut off is uploaded again, and the aliases are set last, the champion's at the very end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from analysis.promote.ledger import Ledger, Served, ledger_of
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.text import gist
from record.tracking.mlflow_client import client_of

ALIASES = ("champion", "previous", "candidate")
KEY = "lam.promotion"  # tag: the ledger's version and the hash of its YAML
EXPERIMENT = "lam"


@dataclass(frozen=True)
class Registry:
    """Where the mirror is.

    Attributes:
        name: of the registered model.
        aliases: of what is in production, of what was before it, and of the newest version.
    """

    uri: str
    name: str
    aliases: tuple[str, str, str] = ALIASES

    def mirror(self, file: Path) -> str:
        """See `sync`."""
        return sync(file, self)


def chosen(file: Path, uri: str | None, name: str | None, aliases: str | None) -> Registry | None:
    """The registry that was named on the command line; None where none was, whatever the environment says.

    The model's name and the aliases are those that this address was told last, where none are given.

    Raises:
        BadInput: the address holds a password or is a folder's, or there are not three aliases.
    """
    if not uri:
        return None
    if urlsplit(uri).password is not None:
        raise BadInput("holds a password, and the ledger keeps the address", source="--mlflow",
                       remedy="leave it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if urlsplit(uri).scheme in ("", "file"):
        raise BadInput(f"got {uri!r}, a folder, which newer versions of MLflow refuse", source="--mlflow",
                       remedy="name a server, or a database such as sqlite:///mlflow.db")
    told = Ledger(file).mirrored("mlflow")
    known = told if told.get("uri") == uri else {}
    return Registry(uri, name or known.get("name") or file.stem, aliases_of(aliases, known.get("aliases")))


def aliases_of(text: str | None, before: Sequence[str] | None = None) -> tuple[str, str, str]:
    """The names of what is in production, of what was before it, and of the newest version.

    Args:
        text: as a person gave them; None takes those from `before`, or `ALIASES`.

    Raises:
        BadInput: there are not three different ones.
    """
    names = tuple(part.strip() for part in text.split(",")) if text is not None else tuple(before or ALIASES)
    if len(names) != 3 or len(set(names)) != 3 or not all(names):
        raise BadInput(f"got {text!r}, expected three different names", source="--aliases",
                       remedy=f"for example --aliases {','.join(ALIASES)}")
    return names[0], names[1], names[2]


def sync(file: Path, registry: Registry) -> str:
    """Make the registry say what the ledger says; returns what to tell.

    Raises:
        BadInput: nothing was promoted.
        EnvironmentFailed: the server did not take it; the file in production and the ledger are as they should be.
    """
    with ledger_of(file).held() as ledger:
        changes = ledger.changes()
        try:
            with _named_to_mlflow(registry.uri):
                versions = _mirrored(ledger, changes, registry)
        except BadInput:
            raise
        except Exception as error:
            raise EnvironmentFailed(
                f"MLflow at {registry.uri} did not take it ({type(error).__name__}: {gist(error)}); {file} and its "
                f"ledger are done; finish with: lam promotions sync {file} --mlflow {registry.uri}") from None
        now = changes[-1]
        told = {"uri": registry.uri, "name": registry.name, "version": versions[now.version],
                "aliases": list(registry.aliases)}
        if now.mirrors.get("mlflow") != told:
            ledger.append("mirrored", of=now.begun.seq, mirror=told)
    return f"MLflow has {registry.name} version {versions[now.version]} as {registry.aliases[0]} ({registry.uri})"


@contextmanager
def _named_to_mlflow(uri: str) -> Iterator[None]:
    """A registry in a database asks the tracking store that MLflow was told of last, not the one beside it."""
    import mlflow

    before: Any = os.environ.get("MLFLOW_TRACKING_URI")  # which MLflow sets as well, and a training logs to
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _mirrored(ledger: Ledger, changes: list[Served], registry: Registry) -> dict[int, str]:
    """Register what is missing and set the aliases; returns the ledger's version -> MLflow's."""
    client = client_of(registry.uri)
    _ensure_model(client, registry.name)
    by_version = {change.version: change for change in changes}
    there = {each.tags.get(KEY): each.version for each in client.search_model_versions(f"name='{registry.name}'")}
    found = {}
    for version, change in sorted(by_version.items()):
        key = _key(change)
        found[version] = str(there.get(key) or _register(client, ledger, change, registry, key))
    for alias, version in roles(registry.aliases, changes):
        client.set_registered_model_alias(registry.name, alias, found[version])
    for alias in _renamed(ledger, registry):
        client.delete_registered_model_alias(registry.name, alias)
    return found


def _renamed(ledger: Ledger, registry: Registry) -> set[str]:
    """Aliases that were set before and have another name now: left there, they would name an old version for ever."""
    told = ledger.mirrored("mlflow")
    same = (told.get("uri"), told.get("name")) == (registry.uri, registry.name)
    return set(told.get("aliases", ())) - set(registry.aliases) if same else set()


def _key(change: Served) -> str:
    return f"{change.version}-{(change.begun.sha256 or '')[:12]}"


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name, description="What 'lam promote' put into production.")


def _register(client: Any, ledger: Ledger, change: Served, registry: Registry, key: str) -> str:
    """Upload weights, YAML and card as a logged model, PENDING until all is there, then make a version of it."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    place = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    known = tags(change, key)
    begun = [each for each in client.search_logged_models([place], f"tags.`{KEY}` = '{key}'")
             if str(each.status) in ("LoggedModelStatus.PENDING", "LoggedModelStatus.READY", "PENDING", "READY")]
    model = begun[0] if begun else client.create_logged_model(place, name=registry.name, tags=known)
    if not str(model.status).endswith("READY"):
        with TemporaryDirectory() as room:
            client.log_model_artifacts(model.model_id, str(gathered(ledger, change, Path(room))))
        model = client.finalize_logged_model(model.model_id, "READY")
    made = client.create_model_version(registry.name, source=model.artifact_location, model_id=model.model_id,
                                       tags=known, description=change.begun.because[:1000])
    return str(made.version)


def gathered(ledger: Ledger, change: Served, room: Path) -> Path:
    """Everything of a version in one folder.

    Raises:
        BadInput: a part of it is gone or not what was promoted.
    """
    (room / "production.yaml").write_text(ledger.checked(change.begun), encoding="utf-8")
    ledger.check_weights(change.begun)
    weights = ledger.model_folder(change.version)
    for file in sorted(weights.rglob("*")) if weights.exists() else []:
        if file.is_file():
            copy = room / "model" / file.relative_to(weights)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return room


def tags(change: Served, key: str) -> dict[str, str]:
    """Where a version came from."""
    begun = change.begun
    found: Mapping[str, Any] = {
        KEY: key, "lam.trial": begun.trial, "lam.source": begun.source, "lam.sha256": begun.sha256,
        "lam.data_fingerprint": begun.data_fingerprint, "lam.kind": begun.kind,
        "lam.weights": files.json_line((begun.weights or {}).get("sha256") or {}).strip()}
    return {name: str(value)[:5000] for name, value in found.items() if value is not None}


def roles(aliases: tuple[str, str, str], changes: list[Served]) -> list[tuple[str, int]]:
    """Which alias is which version's: the newest first, the champion last; none is the one before the first."""
    champion, previous, candidate = aliases
    now, newest = changes[-1].version, max(change.version for change in changes)
    before = next((change.version for change in reversed(changes) if change.version != now), None)
    return [(candidate, newest), *([(previous, before)] if before is not None else []), (champion, now)]
