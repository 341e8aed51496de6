"""Epoch records as columns say what the lines say; what is unusual is read line by line."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.read.epochs import columns
from analysis.read.epochs.bulk import read_epochs
from analysis.read.epochs.columns import Block, Epochs, apart
from analysis.read.ours import Configs
from lam.workload import LAM
from record import yamlio
from record.errors import BadInput
from record.health.columns import of_records
from record.run import RunFolder

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-10, 10), st.integers(), st.floats(allow_nan=False),
                   st.text(max_size=3), st.lists(st.integers(0, 300), max_size=3), st.lists(st.text(max_size=2)))
RECORDS = st.lists(st.dictionaries(st.sampled_from("abcde"), VALUES), max_size=8)


@pytest.fixture(autouse=True, scope="module", params=[2, 200])
def at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """All of it, and made of pieces that are joined."""
    before, columns.AT_ONCE = columns.AT_ONCE, request.param
    yield
    columns.AT_ONCE = before


@given(RECORDS)
def test_records_come_back_from_columns_as_they_were_written(records: list[dict[str, Any]]) -> None:
    epochs = Epochs.of(records)
    assert list(epochs) == records
    assert [epochs[place] for place in range(len(records))] == records
    assert [list(record) for record in epochs] == [list(record) for record in records]  # keys in their order


@given(RECORDS, st.sampled_from("abcde"))
def test_a_column_is_what_a_loop_over_the_records_finds(records: list[dict[str, Any]], key: str) -> None:
    from record.text import finite

    epochs = Epochs.of(records)
    loop = [finite(record.get(key)) for record in records]
    assert [None if math.isnan(value) else value for value in epochs.column(key).tolist()] == loop
    assert epochs.values(key) == [record.get(key) for record in records]
    assert epochs.true(key).tolist() == [bool(record.get(key)) for record in records]
    assert epochs.last(key) == next((record[key] for record in reversed(records) if key in record), None)


@given(RECORDS)
def test_the_table_that_rules_read_is_that_of_the_records(records: list[dict[str, Any]]) -> None:
    epochs = Epochs.of([{"epoch": place, **record} for place, record in enumerate(records)])
    found, expected = epochs.table({"steps_per_epoch": 3.0}), of_records(list(epochs), {"steps_per_epoch": 3.0})
    np.testing.assert_equal(found.epoch, expected.epoch)
    np.testing.assert_equal(dict(found.columns), dict(expected.columns))
    np.testing.assert_equal(dict(found.nonfinite), dict(expected.nonfinite))
    assert found.facts == expected.facts


@given(RECORDS)
def test_one_record_is_looked_up_as_the_whole_one_says(records: list[dict[str, Any]]) -> None:
    epochs = Epochs.of(records)
    assert [dict(epochs.row(place)) for place in range(len(records))] == records
    assert all(epochs.row(place).get("e", 7) == record.get("e", 7) for place, record in enumerate(records))


def test_a_whole_number_stays_whole_where_a_key_holds_both_kinds(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", '{"epoch":1,"x":1}\n{"epoch":2,"x":0.5}\n{"epoch":3,"x":null}\n{"epoch":4,"x":2.0}\n')
    (epochs,) = read_epochs([run], LAM)
    assert [(type(value), value) for value in epochs.values("x")] == [
        (int, 1), (float, 0.5), (type(None), None), (float, 2.0)]
    assert [repr(record["x"]) for record in epochs] == ["1", "0.5", "None", "2.0"]
    assert repr(epochs.row(0)["x"]) == "1"


def test_kinds_are_kept_and_trainings_are_cut_apart() -> None:
    first = [{"epoch": 1, "loss": 1.0, "ok": True, "word": "a"}, {"epoch": 2, "loss": None, "histogram": [1, 2]}]
    second = [{"epoch": 1, "loss": 0.5}]
    one, other = apart(Block.of([*first, *second]), [2, 1])
    assert [*one] == first
    assert [*other] == second
    assert one[-1]["histogram"] == [1, 2]
    assert type(one[0]["epoch"]) is int
    assert one[0]["ok"] is True
    assert type(other[0]["loss"]) is float
    assert one.points("loss") == [(1, 1.0)]
    assert other.names() == ["epoch", "loss"]
    assert [*one.having(lambda record: "histogram" in record)] == first[1:]
    assert [*one[1:]] == first[1:]


def _run(folder: Path, text: str) -> RunFolder:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(text)
    return RunFolder(folder)


@pytest.mark.parametrize(("text", "epochs"), [
    ("", []),
    ('{"epoch":1,"train/loss":1.5}\n', [1]),
    ('{"epoch":1,"train/loss":1.5}\n{"epoch":2,"tra', [1]),  # cut off while it was written
    ('{"epoch":1,"train/loss":1.5}\n{"epoch":2,"train/loss":null}', [1, 2]),  # without its line's end
    ('{"epoch":2,"train/loss":1}\n{"epoch":1,"train/loss":2}\n{"epoch":2,"train/loss":3}\n', [1, 2]),  # a resume
    ('{"epoch":1,"train/loss":NaN}\n{"epoch":2,"train/loss":Infinity}\n', [1, 2]),  # no JSON, but Python's
    ('\n\n{"epoch":1}\n\n', [1]),
    ('{"epoch":1,"word":"\\ud800"}\n', [1]),  # half of a pair
])
def test_a_log_of_many_is_read_as_it_is_alone(tmp_path: Path, text: str, epochs: list[int]) -> None:
    runs = [_run(tmp_path / "a", '{"epoch":1,"train/loss":0.5}\n'), _run(tmp_path / "b", text), RunFolder(tmp_path)]
    read = list(read_epochs(runs, LAM))
    alone = [run.metrics() for run in runs]
    assert [[*each] for each in read] == alone or "NaN" in text
    assert [record["epoch"] for record in read[1]] == epochs


@pytest.mark.parametrize(("line", "said"), [
    ('{"epoch":1}\nbroken\n{"epoch":2}\n', "is damaged"),
    ('{"train/loss":1}\n', "lacks its epoch"),
    ('{"epoch":1.5}\n', "epoch"),
    ('{"epoch":true}\n', "epoch"),
    ('{"epoch":-1}\n', "epoch"),
    ('[1]\n', "expected an epoch record"),
    ('{"epoch":1,"train/loss":"low"}\n', "expected a number or null"),
    ('{"epoch":1,"train/loss":[1]}\n', "expected a number or null"),
    ('{"epoch":1,"train/loss":{}}\n', "expected a number or null"),
    ('{"epoch":1}{"epoch":2}\n', "is damaged"),
    ('{"epoch":1},{"epoch":2}\n', "is damaged"),
])
def test_a_damaged_log_among_many_is_named_with_what_is_wrong(tmp_path: Path, line: str, said: str) -> None:
    good = '{"epoch":1,"train/loss":0.5}\n'
    runs = [_run(tmp_path / name, text) for name, text in (("a", good), ("b", line), ("c", good))]
    with pytest.raises(BadInput, match=said) as caught:
        list(read_epochs(runs, LAM))
    assert str(tmp_path / "b" / "metrics.jsonl") in str(caught.value)


PLAIN = ["ema", "0.001", "1e-4", "1.5e+3", "-3", "+7", "12", "true", "False", "null", "Null", "no", "on", "1_000",
         "a.b", ".5", "-.5", "v1.0", "007", "0x1F", "0o17", ".inf", ".nan", "-", "--", "1.", "1e5", "e5", "12abc", "-x"]


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_value_is_what_the_parser_makes_of_it(text: str) -> None:
    try:
        value = yamlio.plain_value(text)
    except ValueError:
        return
    told = yamlio.parse_mapping(f"key: {text}\n")["key"]
    assert (value, type(value)) == (told, type(told))


@given(st.one_of(st.floats(allow_nan=False), st.integers(-10**9, 10**9),
                 st.from_regex(r"[-+a-z0-9_.]{1,9}", fullmatch=True)))
def test_what_the_dumper_writes_is_read_alike(value: float | str) -> None:
    text = yamlio.dump_mapping({"key": value}).strip().removeprefix("key: ")
    with contextlib.suppress(ValueError):
        assert yamlio.plain_value(text) == yamlio.parse_mapping(f"key: {text}")["key"]


def test_configs_that_differ_in_more_than_plain_lines_are_parsed(tmp_path: Path) -> None:
    texts = ["lr: 0.1\nname: a\nhealth:\n  patience: 2\n", "lr: 0.2\nname: a\nhealth:\n  patience: 2\n",
             "lr: 0.1\nname: a\nhealth:\n  patience: 3\n", "lr: 0.1\nother: a\nhealth:\n  patience: 2\n",
             "lr: 0.1\nname: [1, 2]\nhealth:\n  patience: 2\n"]
    configs, found = Configs(), []
    for number, text in enumerate(texts):
        run = RunFolder(tmp_path / str(number))
        run.path.mkdir()
        run.config_file.write_text(text)
        found.append(configs.of(run))
    assert json.dumps(found) == json.dumps([
        {"lr": 0.1, "name": "a", "health.patience": 2}, {"lr": 0.2, "name": "a", "health.patience": 2},
        {"lr": 0.1, "name": "a", "health.patience": 3}, {"lr": 0.1, "other": "a", "health.patience": 2},
        {"lr": 0.1, "name": [1, 2], "health.patience": 2}])
