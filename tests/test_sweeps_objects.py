"""Journals kept as objects: faults between any two requests."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from object_disk import Disk, fill, journal_on, refuse, seqs

from record.errors import EnvironmentFailed
from record.journal import journal_objects, parsing


def test_full_blocks_are_merged_and_the_events_stay(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 7)
        assert [name[8:33] for name in disk.names()] == ["000000000001-000000000004", *(
            f"{seq:012d}-{seq:012d}" for seq in (5, 6, 7))]
        fill(journal, 4)
        whole = [event.params["number"] for event in journal.store.read()]
    assert disk.names()[0][8:33] == "000000000001-000000000008"
    assert len(disk.names()) == 4
    assert whole == [*range(7), *range(4)]
    assert seqs(disk) == list(range(1, 12))
    with journal_on(disk, tmp_path) as again:
        assert again.state.seq == 11
        assert list(again.state.trials) == [f"t{number:04d}" for number in range(11)]


def test_a_merge_that_ends_between_its_two_steps_is_read_and_finished_later(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("delete_file", matching="^journal", after=2)
    with pytest.raises(EnvironmentFailed, match="cannot be written"), journal_on(disk, tmp_path) as journal:
        fill(journal, 4)
    assert len(disk.names()) == 3, "the merged object, and the parts that could not be deleted"
    assert seqs(disk) == [1, 2, 3, 4], "both are there, each event counts once"
    disk.refuse = lambda request, name: None
    with journal_on(disk, tmp_path) as journal:
        assert len(disk.names()) == 1
        fill(journal, 1)
    assert seqs(disk) == [1, 2, 3, 4, 5]


def test_a_merge_that_is_not_written_leaves_the_parts(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("open_output_stream", matching="1-000000000004")
    with pytest.raises(EnvironmentFailed, match="cannot be written"), journal_on(disk, tmp_path) as journal:
        fill(journal, 4)
    assert len(disk.names()) == 4
    assert seqs(disk) == [1, 2, 3, 4]


def test_a_refused_write_ends_the_session_and_the_next_one_goes_on(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("open_output_stream", matching="^journal", after=2)
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 2)
        message = r"mem://x: the journal cannot be written \(.*SLOW_DOWN.*\); check the network and that"
        with pytest.raises(EnvironmentFailed, match=message):
            fill(journal, 1)
        disk.refuse = lambda request, name: None
        with pytest.raises(EnvironmentFailed, match="an earlier event could not be written"):
            fill(journal, 1)
        assert journal.state.seq == 2
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
    assert seqs(disk) == [1, 2, 3]


def test_the_last_event_of_a_block_half_written_leaves_the_block_open(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 3)
    third = Path(disk.root) / disk.names()[-1]
    fourth = third.with_name(third.name.replace(f"{3:012d}-{3:012d}", f"{4:012d}-{4:012d}"))
    fourth.write_bytes(third.read_bytes()[:20])
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 2)
    assert seqs(disk) == [1, 2, 3, 4, 5]


def test_a_merged_object_that_is_whole_is_not_written_again(disk: Disk, tmp_path: Path) -> None:
    """A kill in the second writing would halve it when its parts are partly gone already."""
    disk.refuse = refuse("delete_file", matching="^journal", after=1)
    with pytest.raises(EnvironmentFailed, match="cannot be written"), journal_on(disk, tmp_path) as journal:
        fill(journal, 4)
    assert len(disk.names()) > 1, "the merged object, and the parts that could not be deleted"
    disk.refuse = refuse("open_output_stream", matching=f"{1:012d}-{4:012d}")
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
    assert len(disk.names()) == 2
    assert seqs(disk) == [1, 2, 3, 4, 5]


def test_a_merge_during_a_read_is_not_taken_for_a_gap(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 3)
        reader = Disk(Path(disk.root))
        done = threading.Event()

        def merge_first(request: str, name: str) -> None:
            if request == "open_input_stream" and not done.is_set():
                done.set()
                fill(journal, 1)

        reader.refuse = merge_first
        found = journal_objects.Reading(reader, reader.root, "mem://x", parsing.read_lines).more()
        assert [event.seq for event in found] == [1, 2, 3, 4]
