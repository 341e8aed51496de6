"""What each `sweeps.journal.stores.Store` keeps to, whichever it is; what only one does, in the tests of that one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from no_room import no_room
from object_disk import Disk, fill, journal_on

from record.errors import EnvironmentFailed
from record.journal import journal_objects, journals, parsing
from record.journal.events import JournalEvent, Suggested
from record.journal.journals import Damaged
from sweeps.journal.journal import Journal
from sweeps.journal.state import replay


class InFolder:
    """A journal in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @contextlib.contextmanager
    def session(self) -> Iterator[Journal]:
        with contextlib.closing(Journal(self.folder)) as journal:
            yield journal

    def events(self) -> list[JournalEvent]:
        return list(journals.read_at(self.folder, parsing.read_lines))


class InObjects:
    """A journal as objects, merged four and eight at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._disk = folder, Disk(folder)

    def session(self) -> contextlib.AbstractContextManager[Journal]:
        return journal_on(self._disk, self.folder)

    def events(self) -> list[JournalEvent]:
        return list(journal_objects.Reading(self._disk, self._disk.root, "mem://x", parsing.read_lines).more())


Kept = InFolder | InObjects


@pytest.fixture(params=[InFolder, InObjects])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    made: Kept = request.param(tmp_path / "journal")
    return made


def spoil(kept: Kept, seq: int, change: Callable[[bytes], bytes]) -> Path:
    """Change the line of an event where it lies; a file that held nothing else and is empty now goes."""
    for path in sorted(kept.folder.glob("journal-*")):
        lines = path.read_bytes().splitlines(keepends=True)
        if seq in (numbers := [json.loads(line)["seq"] for line in lines]):
            lines[numbers.index(seq)] = change(lines[numbers.index(seq)])
            path.write_bytes(b"".join(lines))
            return path
    raise AssertionError(f"no event {seq}")


def seqs(kept: Kept) -> list[int]:
    return [event.seq for event in kept.events()]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_sessions_number_on_and_readers_see_each_event_at_once(kept: Kept, count: int) -> None:
    for session in range(3):
        with kept.session() as journal:
            assert journal.state.seq == session * count
            for _ in range(count):
                fill(journal, 1)
                assert seqs(kept) == list(range(1, journal.state.seq + 1))
    assert repr(replay(kept.events())) == repr(journal.state)
    assert [event.version for event in kept.events()] == [1, *[None] * (3 * count - 1)]


def test_nothing_is_a_journal_without_events(kept: Kept) -> None:
    with kept.session():
        pass
    assert kept.events() == []


@pytest.mark.parametrize("eighth", range(8))
def test_an_event_that_a_kill_left_half_written_is_left_out(kept: Kept, eighth: int) -> None:
    with kept.session() as journal:
        fill(journal, 3)
    path = spoil(kept, 3, lambda line: line[: len(line) * eighth // 8])
    torn = path.read_bytes()
    assert seqs(kept) == [1, 2]
    with kept.session() as journal:
        assert list(journal.state.trials) == ["t0000", "t0001"]
        journal.append(Suggested(trial="after", params={}))
        assert path.read_bytes() == torn, "nothing is overwritten"
        fill(journal, 2)
    assert seqs(kept) == [1, 2, 3, 4, 5]
    assert kept.events()[2].trial == "after"


@pytest.mark.parametrize(("change", "message"), [
    (lambda line: b"{nonsense\n", "not JSON: .*restore the journal from a copy"),
    (lambda line: b"", "the event after number 1 has number 3; restore the journal from a copy"),
    (lambda line: line.replace(b'"seq":2', b'"seq":7'), "number 2|after number 1"),
])
def test_damage_before_the_last_event_is_said_and_not_skipped(
        kept: Kept, change: Callable[[bytes], bytes], message: str) -> None:
    with kept.session() as journal:
        fill(journal, 3)
    spoil(kept, 2, change)
    with pytest.raises(Damaged, match=message):
        kept.events()
    with pytest.raises(Damaged, match=message), kept.session():
        raise AssertionError("a session began on a damaged journal")


def test_a_newer_version_is_refused(kept: Kept) -> None:
    with kept.session() as journal:
        fill(journal, 2)
    spoil(kept, 1, lambda line: line.replace(b'"version":1', b'"version":2'))
    with pytest.raises(EnvironmentFailed, match="was written as version 2, this one reads 1"), kept.session():
        raise AssertionError("a session began on a newer journal")


def test_a_write_that_is_refused_is_no_event_and_the_next_session_goes_on(kept: Kept) -> None:
    with kept.session() as journal:
        fill(journal, 2)
        with no_room(), pytest.raises(EnvironmentFailed, match=r"the journal cannot be written \(.*File too large"):
            fill(journal, 1)
        assert journal.state.seq == 2
    assert seqs(kept) == [1, 2]
    with kept.session() as journal:
        fill(journal, 3)
    assert seqs(kept) == [1, 2, 3, 4, 5]
