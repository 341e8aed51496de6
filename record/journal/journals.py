"""Where a sweep's journal is, and reading it; `sweeps` writes it, `sweeps` and `analysis` read it.

A journal is kept in a folder (segments to which lines are appended) or, where a store cannot append,
as objects (`record.journal.journal_objects`). The key `journal` of the sweep says which; without it, it is where the
sweep is, in its folder or on its store. Its events are the same in both: numbered 1, 2, 3, ... without gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from record import documents, files
from record.errors import BadInput, Damaged
from record.journal import events, journal_objects, parsing
from record.journal.parsing import E
from record.journal.results import Event, Line, Told
from record.storage import addresses, copies, store, trust

_RESULTS = (Told, Line)


def home(folder: str | Path) -> Path | str:
    """Where the journal of the sweep in `folder` is kept, by its sweep.json.

    Raises:
        BadInput: sweep.json is damaged, or names a server that the reader has not allowed (`record.storage.trust`).
    """
    file = Path(folder) / "sweep.json"
    if not files.stands(file):
        return Path(folder)
    known = documents.load_document(documents.Sweep, file)
    uri = known.spec.get("journal")
    if uri is None:
        return copies.address(folder) or Path(folder)
    if wrong := addresses.problem(str(uri)):
        raise BadInput(wrong, source=file, key="spec.journal", remedy="restore sweep.json from a copy")
    trust.check(str(uri), file, "spec.journal")
    return addresses.place(str(uri), known.name)


def read(folder: str | Path) -> Iterator[events.JournalEvent]:
    """The events of the sweep in `folder`, in order; half-written lines are left out.

    Raises:
        BadInput: sweep.json names no place, or one that does not exist.
        Damaged: a line in the middle is no event, a field of one is wrong, or a sequence number is missing.
        EnvironmentFailed: a newer version wrote it, or the store does not answer.
    """
    return read_at(home(folder), parsing.read_lines)


def changes(folder: str | Path) -> Iterator[events.Change | events.MachineEvent]:
    """Those events that give trials their status, and those of machines; for whom results stand in the runs' records.

    Raises:
        BadInput, Damaged, EnvironmentFailed: as `read`; nothing is made of a result's fields, which are looked at.
    """
    return (event for event in read_at(home(folder), parsing.skim_lines)
            if isinstance(event, events.Change | events.MachineEvent))


def history(folder: str | Path) -> Iterator[Event]:
    """As `read`, for who wants to know what the sweep has come to: results are taken as decisions read them."""
    return read_at(home(folder), parsing.read_told)


def read_at(where: Path | str, lines: parsing.Lines[E]) -> Iterator[E]:
    """The events kept at a place (`home`), from a folder or a store; raises as `read`.

    Args:
        lines: reads them: `parsing.read_lines`, `parsing.read_told` or `parsing.skim_lines`.
    """
    if isinstance(where, Path):
        return coherent(_in_folder(where, lines), where)
    return coherent(journal_objects.Reading(*store.connect(where), where, lines).more(), where)


def coherent(found: Iterable[E], where: Path | str, trials: set[str] | None = None) -> Iterator[E]:
    """The same events, as long as each is about a trial that an earlier one suggested, and none is suggested twice.

    Args:
        trials: those that were suggested before; it grows.

    Raises:
        Damaged: the first one that is not.
    """
    trials = set() if trials is None else trials
    with parsing.uncollected():
        for event in found:
            if not (isinstance(event, _RESULTS) and event.trial in trials):  # as almost all are
                _check(event, where, trials)
            yield event


def _check(event: Event | Line, where: Path | str, trials: set[str]) -> None:
    if isinstance(event, events.TrialEvent | Told | Line):
        if wrong := _stranger(event, trials):
            kind = "result" if isinstance(event, Told) else event.event
            raise Damaged(f"{where}: event {event.seq}: {kind}: {wrong}; restore the journal from a copy")
        trials.add(event.trial)


def _stranger(event: events.TrialEvent | Told | Line, trials: set[str]) -> str | None:
    """What is wrong with the trials that an event names, given those suggested before."""
    if not isinstance(event, events.Suggested):
        return None if event.trial in trials else f"trial {event.trial!r} was never suggested"
    if event.trial in trials:
        return f"trial {event.trial!r} was suggested before"
    stranger = event.repeats is not None and event.repeats not in trials
    return f"repeats trial {event.repeats!r}, which was never suggested" if stranger else None


def segments(folder: str | Path) -> list[Path]:
    """Files of a journal that is kept in a folder, in order."""
    return sorted(Path(folder).glob("journal-[0-9]*.jsonl"))


def _in_folder(folder: Path, lines: parsing.Lines[E]) -> Iterator[E]:
    expected = 1
    for segment in segments(folder):
        for event in numbered(lines, files.read_record(segment), segment, expected):
            yield event
            expected += 1


def numbered(lines: parsing.Lines[E], data: bytes, source: str | Path, expected: int) -> Iterator[E]:
    """The events of a segment, or of the rest of one, the first of which has the number `expected`.

    Raises:
        Damaged: one has another number, or is no event.
    """
    try:
        for event in lines(data, source):
            if event.seq != expected:
                raise Damaged(f"{source}: the event after number {expected - 1} has number {event.seq}; "
                              "restore the journal from a copy of the sweep folder")
            yield event
            expected += 1
    except ValueError as error:
        raise Damaged(f"{error}; restore the journal from a copy of the sweep folder") from None
