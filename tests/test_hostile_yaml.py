"""YAML that surprises: what looks like a number and is another, what never ends, and the wrong file altogether."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lam import config, scaffold
from record import yamlio
from record.errors import BadInput
from record.health import profile
from record.schema import build
from record.workload.settings import resolve
from sweeps.spec.load import load
from sweeps.spec.spec import SweepSpec


@pytest.mark.parametrize(("text", "value"), [
    ("10", 10), ("-5", -5), ("+7", 7), ("0", 0), ("0x1f", 31), ("0o17", 15), ("1e-4", 1e-4), (".5", 0.5),
    ("1:30", "1:30"),
    ("1_000", "1_000"), ("0b11", "0b11"), ("2001-01-01", "2001-01-01"), ("no", "no"), ("~", None), ("true", True),
    ("'010'", "010"), ("1" * 41, "1" * 41), ("9" * 20000 + ":30", "9" * 20000 + ":30")])
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    assert yamlio.parse_mapping(f"v: {text}") == {"v": value}


@pytest.mark.parametrize("name", profile.shipped())
def test_what_comes_with_the_package_reads_alike_by_either_parser(name: str) -> None:
    text = (Path(profile.__file__).parent / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    assert repr(yamlio.parse_own(text, name)) == repr(yamlio.parse_mapping(text))


@pytest.mark.parametrize(("text", "message"), [
    ("v: 010", "f:1: not valid YAML: got 010, a number that begins with 0; write 10, or 0o for octal"),
    ("v: 00", "got 00, a number that begins with 0; write 0,"), ("v: &a 1", "anchors and aliases are not supported"),
    ("v: !!int ''", "f:1: not valid YAML: the tag 'tag:yaml.org,2002:int' is not supported"),
    ("v: !!float ''", "the tag"), ("v: !!bool foo", "the tag"), ("v: !!timestamp foo", "the tag"),
    ("v: !!map [1]", "the tag"), ("v: !!set {a}", "the tag"), ("v: !!omap [a: 1]", "the tag"),
    ("v: !!null x", "the tag"),
    ("v: !!binary aGk=", "the tag"), ("v: !!python/object/apply:os.system [id]", "the tag"), ("v: ! 5", "the tag '!'"),
    ("v: " + "[" * 500 + "]" * 500, "nests more than 20 deep"), ("v: " + "[" * 100_000, "nests more than 20 deep"),
    ("v: " + "{a: " * 2000 + "1" + "}" * 2000, "nests more than 20 deep"),
    ("\n".join("  " * level + "v:" for level in range(500)), "f:20: not valid YAML: nests more than 20 deep"),
    ("\n".join(f"k{number}: 1" for number in range(20_000)), "holds more than 20,000 keys and values; is this the"),
], ids=lambda text: text[:24])
def test_what_a_config_never_needs_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        yamlio.parse_mapping(text, "f")
    assert message in str(caught.value)


KEYS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
NUMBERS = st.integers(-10**30, 10**30) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = (st.from_regex(r"[-+]?[0-9.]{0,3}[eExo_:]?[-+]?[0-9]{0,4}", fullmatch=True)
         | st.sampled_from(["on", "no", "Yes", "null", "~", "TRUE", ".inf", "-.NaN", "=", "<<", "08", "0E0", "1_0"])
         | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=12))


@given(st.dictionaries(KEYS, st.none() | st.booleans() | NUMBERS | WORDS, min_size=1))
def test_what_is_written_is_what_is_read(values: dict[str, Any]) -> None:
    assert yamlio.parse_mapping(yamlio.dump_mapping(values)) == values


def test_the_loader_is_still_the_one_that_makes_no_objects() -> None:
    assert issubclass(yamlio._StrictLoader, yaml.SafeLoader)


@pytest.mark.parametrize("values", [
    {f"k{number}": 1 for number in range(70_000)}, {"validate_at": list(range(0, -500_000, -1))},
    {"k" * 1_000_000: 1}, {"seed": ["x" * 1000] * 100_000}], ids=["keys", "list", "long", "words"])
def test_thousands_of_mistakes_are_ten_sentences(values: dict[str, Any]) -> None:
    begin = time.process_time()
    with pytest.raises(BadInput) as caught:
        build(config.RunConfig, {"data_dir": "x", **values}, "f")
    assert len(str(caught.value)) < 20_000
    assert len(str(caught.value).splitlines()) <= 12
    assert time.process_time() - begin < 20, "it was minutes"


def test_the_rest_of_the_mistakes_is_counted() -> None:
    with pytest.raises(BadInput, match=r"^f: 40 problems\n") as caught:
        build(config.RunConfig, {"data_dir": "x", **{f"k{number}": 1 for number in range(40)}}, "f")
    assert str(caught.value).endswith("\n  and 30 more")


@pytest.mark.parametrize("key", ["seed", "eval_seed"])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "run.yaml").write_text(f"data_dir: data\n{key}: 99999999999999999999999\n")
    with pytest.raises(BadInput, match=rf"run.yaml:{key}: got 9{{23}}, it should be less than 4294967296"):
        config.load(tmp_path / "run.yaml")


def test_the_wrong_kind_of_file_is_told_with_the_right_command(tmp_path: Path) -> None:
    run, sweep, *_ = scaffold.write(tmp_path / "my first", str(tmp_path / "data"), "laptop")
    with pytest.raises(BadInput, match=r"sweep.yaml: is a sweep file, expected a run config; lam sweep launch '/.*'"):
        config.load(sweep)
    with pytest.raises(BadInput, match=r"run.yaml: is a run config, expected a sweep file; lam train '/.*/run.yaml'"):
        load(run)


def test_a_path_is_relative_to_the_yaml_that_states_it_from_wherever_it_is_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    scaffold.write(Path("first"), "data", "laptop")
    found = []
    for place in (tmp_path, tmp_path / "first", tmp_path / "data"):
        monkeypatch.chdir(place)
        sweep = load(os.path.relpath(tmp_path / "first/sweep.yaml"))
        found.append((Path(sweep.base.mapping()["data_dir"]).resolve(), sweep.spec.name))
    assert found == [(tmp_path / "data", found[0][1])] * 3


def test_a_path_that_no_system_has_is_refused_or_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds a path of 5,000 characters, '1{40}'\.\.\., and the system takes no"):
        resolve("1" * 5000, tmp_path)
    assert Path(resolve("a\ud800", tmp_path)).name == "a\ud800"


def test_a_path_beside_the_yaml_comes_before_one_in_the_current_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here/data", "there/data", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "there/run.yaml").write_text("data_dir: data\n")
    (tmp_path / "elsewhere/run.yaml").write_text("data_dir: data\n")
    monkeypatch.chdir(tmp_path / "here")
    for folder, expected in (("there", "there/data"), ("elsewhere", "here/data")):
        read = config.relative_paths_from(config.load(tmp_path / folder / "run.yaml"), tmp_path / folder)
        assert read.data_dir == str(tmp_path / expected)


def test_the_schema_of_a_sweep_bounds_its_seed() -> None:
    with pytest.raises(BadInput, match="seed"):
        build(SweepSpec, {"name": "a", "base": {}, "space": {"seed": {"choice": [1]}}, "budget": {"trials": 1},
                          "seed": 2**32}, "f")
