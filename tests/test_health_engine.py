"""The engine: patience, hysteresis, phases, NaN, counts; K-awareness; the profiles and what is refused of one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.monitor import formulas
from analysis.monitor.causes import diagnose
from lam.codebook import COLLAPSED_JOINT_PERPLEXITY, COLLAPSED_SLOT_PERPLEXITY, codebook_health
from record import health, yamlio
from record.errors import BadInput
from record.health import columns, expressions, statistics
from record.health.engine import events, judge_records
from record.health.page import health_page
from record.health.profile import Profile, evaluation_key, expand, load, shipped, training_key
from record.schema import build

FACTS: dict[str, Any] = {"grace_epochs": 3.0, "collapse_patience": 2.0, "num_embeddings": 12.0}


def profile_of(*rules: dict[str, Any], **more: Any) -> Profile:
    full = [{"severity": "warn", "meaning": "m.", "remedy": "r.", **rule} for rule in rules]
    return build(Profile, {"name": "test", "about": "a", "rules": full, **more}, "test")


def states(values: list[Any], **rule: Any) -> list[bool]:
    """Whether a rule on metric x holds after each of the values; '-' = the record lacks it."""
    known = profile_of({"name": "r", "metric": "x", "threshold": 10, **rule})
    records = [{"epoch": epoch, **({} if value == "-" else {"x": value})} for epoch, value in enumerate(values, 1)]
    return [bool(judge_records(records[:count], known, FACTS).findings) for count in range(1, len(records) + 1)]


def text(flags: list[bool]) -> str:
    return "".join("X" if flag else "." for flag in flags)


@pytest.mark.parametrize(("values", "rule", "expected"), [
    ([11, 9, 11], {}, "X.X"),
    ([11, 11, 9, 11, 11, 11], {"patience": 2}, ".XXXXX"),  # one good record is not two
    ([11, 11, 9, 9, 11, 11], {"patience": 2}, ".XX..X"),
    ([11, 11, 9], {"patience": 2, "recovery": 1}, ".X."),
    ([11, 9, 8, 7, 9], {"clear": 8}, "XXX.."),  # held until it is below 8, then silent until above 10
    ([11, "-", "-", 9], {}, "XXX."),  # a record without the metric says nothing
    ([11, None, 9], {}, "XX."),  # nor does one that is not a number: it never clears
    ([11, 11, 11, 9], {"after_epoch": 2}, "..X."),
    ([11, 11, 11, 11], {"after_epoch": 2, "patience": 3}, "..XX"),  # the streak may begin before the phase
    ([11, 11, 11], {"until_epoch": 2}, "XX."),
    ([11, 9, 9], {"severity": "abort"}, "XXX"),  # "stop" is not unsaid
    ([11, 11, 11, 11], {"after_epoch": {"subtract": ["grace_epochs", 1]}}, "..XX"),
    ([1, 2, 3, 1, 2, 3, 4], {"statistic": "rises", "comparison": "at_least", "threshold": 3}, "......X"),
    ([5, 4, 4, 4, 4, 3], {"statistic": "stale", "comparison": "at_least", "threshold": 3}, "....X."),
    ([5, 4, 3.9, 3.8, 3.7, 3.0], {"statistic": "stale", "comparison": "at_least", "threshold": 3, "min_delta": 0.5},
     "....X."),
    ([1, 1, 1, 9, 1], {"statistic": "spike", "window": 3, "threshold": 3}, "...X."),
    ([5, 6, 8.5], {"statistic": "change", "threshold": 2}, "..X"),
    ([4, 2, 3, 2], {"statistic": "over_best", "threshold": 1.4}, "..X."),
    ([1, None, 1], {"statistic": "nonfinite", "comparison": "at_least", "threshold": 1}, ".X."),
    ([1, "-", 1], {"statistic": "nonfinite", "comparison": "at_least", "threshold": 1}, "..."),
    ([1.0, 1.0, 1.0001, 2], {"statistic": "spread", "window": 3, "comparison": "below", "threshold": 0.001}, "..X."),
    ([0.5, 5, 50], {"comparison": "outside", "threshold": [1, 10]}, "X.X"),
    (["ok", "bad", "ok"], {"comparison": "is_not", "threshold": "ok"}, ".X."),
])
def test_when_a_rule_holds(values: list[Any], rule: dict[str, Any], expected: str) -> None:
    assert text(states(values, **rule)) == expected


def test_a_finding_says_value_threshold_and_since_when() -> None:
    known = profile_of({"name": "hot", "metric": {"divide": ["x", "num_embeddings"]}, "threshold": 0.5, "patience": 2})
    records = [{"epoch": e, "x": x} for e, x in ((1, 1), (2, 7), (3, 9), (4, 8))]
    found = judge_records(records, known, FACTS)
    assert found.severity == "warn"
    assert found.findings[0].sentence == "x / num_embeddings is 0.6667, above 0.5 since epoch 2"
    assert [(event.epoch, event.event) for event in events(columns.of_records(records, FACTS), known)] == [(3, "fired")]


@pytest.mark.parametrize(("rule", "values", "sentence"), [
    ({"threshold": 10, "clear": 8}, [5, 12, 9],
     "x was above 10 from epoch 2 on (12 when the rule fired) and is 9 now"),
    ({"threshold": 10, "severity": "abort"}, [12, 13, 9],
     "x was above 10 from epoch 1 on (12 when the rule fired) and is 9 now"),
    ({"threshold": 10, "clear": 8, "patience": 2}, [5, 12, 13, 9, 11],
     "x is 11, above 10 since epoch 2"),  # it is above again, and never cleared
    ({"threshold": 1, "statistic": "change", "severity": "abort", "metric": {"multiply": ["x", 1]}}, [1, 4, 3.5],
     "change of x * 1 was above 1 from epoch 2 on (3 when the rule fired) and is -0.5 now"),
    ({"comparison": "is", "threshold": "bad", "patience": 2}, ["bad", "bad", "ok"],
     "x was bad from epoch 1 on (bad when the rule fired) and is ok now"),
    ({"comparison": "at_least", "threshold": 0.5, "statistic": "spread", "window": 2, "severity": "abort"},
     [1, 2, 0, 0], "relative range of x over 2 records was at least 0.5 from epoch 2 on (0.6667 when the rule fired) "
     "and is not defined now"),
])
def test_a_finding_tells_the_value_that_fired_from_the_latest(rule: dict[str, Any], values: list[Any],
                                                              sentence: str) -> None:
    known = profile_of({"name": "r", "metric": "x", **rule})
    records = [{"epoch": epoch, "x": value} for epoch, value in enumerate(values, 1)]
    assert [item.sentence for item in judge_records(records, known, {}).findings] == [sentence]


def test_a_count_that_stays_fired_tells_what_held_and_what_holds() -> None:
    known = profile_of(*({"name": name, "metric": name, "threshold": 0, "severity": "info"} for name in "abc"),
                       {"name": "most", "count": 2, "of": ["a", "b", "c"], "severity": "abort"})
    found = judge_records([{"epoch": 1, "a": 1, "b": 1, "c": 1}, {"epoch": 2, "a": 1, "b": 0, "c": 0}], known, {})
    assert found.aborts[0].sentence == "3 held when the rule fired from epoch 1 on, 1 (a) now; it asks for 2"


def test_a_rule_that_cleared_is_told_with_its_end() -> None:
    known = profile_of({"name": "hot", "metric": "x", "threshold": 1})
    found = judge_records([{"epoch": e, "x": x} for e, x in ((1, 2), (2, 2), (3, 0))], known, {})
    assert found.severity == "ok"
    assert [(item.rule, item.since, item.until) for item in found.cleared] == [("hot", 1, 3)]


def test_what_cannot_be_judged_is_said() -> None:
    known = profile_of({"name": "a", "metric": "absent"}, {"name": "b", "metric": "x", "threshold": "unknown_fact"},
                       {"name": "c", "metric": {"max": ["none/*"]}})
    found = judge_records([{"epoch": 1, "x": 1.0}], known, {})
    assert found.not_judged == {"a": "absent is not recorded", "c": "none/* is not recorded",
                                "b": "its threshold, patience or phase needs a fact about the run that is not known"}


def test_a_count_needs_so_many_of_its_rules() -> None:
    known = profile_of(*({"name": name, "metric": name, "threshold": 0, "severity": "info"} for name in "abc"),
                       {"name": "most", "count": 2, "of": ["a", "b", "c"], "severity": "abort"})
    found = judge_records([{"epoch": 1, "a": 1, "b": 0}, {"epoch": 2, "c": 1}], known, {})
    assert [item.rule for item in found.aborts] == ["most"]
    assert found.aborts[0].sentence == "2 hold (a, c), at least 2 do since epoch 2"


def test_the_likeliest_cause_has_the_most_evidence() -> None:
    known = profile_of(*({"name": name, "metric": name, "threshold": 0} for name in "abc"), diagnoses=[
        {"name": "one", "needs": ["a"], "cause": "One.", "remedy": "r"},
        {"name": "two", "needs": ["a"], "supports": ["b", "c"], "cause": "Two.", "remedy": "r"},
        {"name": "three", "needs": ["a", "c"], "cause": "Three.", "remedy": "r"}])
    causes = diagnose(judge_records([{"epoch": 1, "a": 1, "b": 2, "c": 0}], known, {}), known)
    assert [cause.cause for cause in causes] == ["Two.", "One."]
    assert causes[0].evidence == ("a: a is 1, above 0 since epoch 1", "b: b is 2, above 0 since epoch 1")
    assert causes[0].silent == ("c",)


# ---- K

def lam_record(epoch: int, codes: np.ndarray, k: int) -> dict[str, Any]:
    found = codebook_health(codes, k, max(2.0, k / 4))
    return {"epoch": epoch, "train/loss": 1.0, "val/mse_loss": 1.0 / epoch, "val/collapsed": int(found.collapsed),
            "val/codebook_unique_total": found.unique, "val/perplexity_slot": found.perplexity_slot,
            "val/dead_codes": k - found.unique, "val/code_entropy_ratio": found.entropy_ratio}


@pytest.mark.parametrize("k", [8, 12, 64, 768])
def test_a_codebook_on_one_code_is_flagged_whatever_k_is(k: int) -> None:
    one = [lam_record(epoch, np.full((500, 3), 5), k) for epoch in range(1, 8)]
    found = judge_records(one, load("lam"), {**FACTS, "num_embeddings": float(k)})
    assert {"codebook_collapsed", "single_code", "codebook_narrow", "dead_codes"} <= {f.rule for f in found.findings}
    assert found.severity == "abort"
    usage = [{"epoch": epoch, "vq_usage_ratio": 1 / k, "vq_active_codes": 1} for epoch in range(1, 8)]
    assert "one_code" in [item.rule for item in judge_records(usage, load("jepa-vq"), {}).aborts]


@pytest.mark.parametrize("k", [8, 12, 64, 768])
def test_a_codebook_in_full_use_is_not_flagged(k: int) -> None:
    rng = np.random.default_rng(0)
    full = [lam_record(epoch, rng.integers(k, size=(5000, 3)), k) for epoch in range(1, 8)]
    found = judge_records(full, load("lam"), {**FACTS, "num_embeddings": float(k)})
    assert found.severity in ("ok", "info")


def late_bloomer(epochs: int) -> list[dict[str, Any]]:
    """Collapsed until two fifths of its training: 1 code, from a fifth on 2 unequal ones, then 12."""
    rng = np.random.default_rng(1)
    codes = [np.full((500, 3), 5) if 5 * epoch < epochs else rng.choice(2, p=[0.95, 0.05], size=(500, 3))
             if 5 * epoch < 2 * epochs else rng.integers(12, size=(500, 3)) for epoch in range(1, epochs + 1)]
    return [lam_record(epoch, each, 12) for epoch, each in enumerate(codes, start=1)]


@pytest.mark.parametrize("epochs", [5, 9, 10, 12, 20, 33])
def test_a_run_that_wakes_late_is_never_aborted(epochs: int) -> None:
    records = late_bloomer(epochs)
    if epochs == 20:
        assert [records[at]["val/codebook_unique_total"] for at in (3, 7)] == [2, 12]
        assert [record["epoch"] for record in records if record["val/collapsed"]] == list(range(1, 8))
    facts = health.of_config({"num_epochs": epochs, "vq_refresh_interval": 50, "num_embeddings": 12}, 50, 100)
    for count in range(1, epochs + 1):
        judged = judge_records(records[:count], load("lam"), facts)
        assert not judged.aborts, count
        flags = [bool(record["val/collapsed"]) for record in records[:count]]
        assert health.collapse(range(1, count + 1), flags, int(facts["grace_epochs"]), 2) is None


def test_a_run_that_never_wakes_is_aborted_where_the_grace_ends() -> None:
    facts = health.of_config({"num_epochs": 20, "vq_refresh_interval": 50, "num_embeddings": 12}, 50, 100)
    assert facts["grace_epochs"] == 8
    asleep = [lam_record(epoch, np.full((500, 3), 5), 12) for epoch in range(1, 21)]
    assert not judge_records(asleep[:7], load("lam"), facts).aborts
    assert judge_records(asleep[:8], load("lam"), facts).aborts


def test_the_sweeps_collapse_is_the_profiles() -> None:
    epochs = list(range(1, 7))
    assert health.collapse(epochs, [True] * 6, grace=7, patience=2) is None
    assert health.collapse(epochs, [True, True, True, True, True, False], 5, 3) is not None
    assert health.collapse(epochs, [True, False] * 3, grace=1, patience=2) is None
    finding = health.collapse(epochs, [False] * 3 + [True] * 3, grace=2, patience=3)
    assert finding is not None
    assert (finding.rule, finding.since) == (health.COLLAPSE_RULE, 4)


@pytest.mark.parametrize(("change", "stops"), [
    ({}, True), ({"severity": "warn"}, False), ({"patience": 5}, False), ({"name": "another"}, False)])
def test_the_sweeps_collapse_is_that_of_the_runs_own_profile(tmp_path: Path, change: dict[str, Any],
                                                            stops: bool) -> None:
    rule = {"name": "codebook_collapsed", "metric": "val/collapsed", "comparison": "at_least", "threshold": 1,
            "severity": "abort", "meaning": "Mine.", "remedy": "r.", **change}
    path = tmp_path / "mine.yaml"
    path.write_text(yamlio.dump_mapping({"name": "mine", "about": "a", "rules": [rule]}))
    finding = health.collapse([1, 2, 3], [True] * 3, grace=9, patience=2, profile=str(path))
    assert (finding is not None and finding.meaning == "Mine.") == stops


# ---- profiles

def test_every_shipped_profile_loads() -> None:
    assert shipped() == ["coordexp", "gait-diffusion", "generic", "jepa-vq", "lam"]
    for name in shipped():
        for rule in load(name).rules:
            assert rule.meaning.endswith("."), rule.name
            assert rule.remedy.endswith("."), rule.name


def test_the_page_defines_every_rule_that_anything_names() -> None:
    page = health_page()
    for name in shipped():
        section = page.split(f"## Profile `{name}`")[1].split("## Profile")[0]
        assert [rule.name for rule in load(name).rules if f"| `{rule.name}` | " not in section] == []


@pytest.mark.parametrize(("change", "message"), [
    ({"statistic": "meen"}, r"rules.0.statistic: got 'meen'; did you mean 'mean'\?"),
    ({"metric": {"dvide": ["a", "b"]}}, "expected one of add, subtract"),
    ({"comparison": "outside"}, "a threshold \\[low, high\\] belongs to the comparison outside"),
    ({"sevrity": "warn"}, "sevrity: unknown key; did you mean 'severity'"),
    ({"severity": "fatal"}, "got 'fatal', it should be 'info', 'warn' or 'abort'"),
])
def test_a_wrong_rule_is_refused_with_its_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rule = {"name": "r", "metric": "x", "severity": "warn", "meaning": "m.", "remedy": "r.", **change}
    path = tmp_path / "mine.yaml"
    path.write_text(yamlio.dump_mapping({"name": "mine", "about": "a", "rules": [rule]}))
    with pytest.raises(BadInput, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_an_unknown_profile_or_rule_is_named() -> None:
    with pytest.raises(BadInput, match=r"got 'jepa', no such profile; did you mean 'jepa-vq'\?"):
        load("jepa")
    with pytest.raises(BadInput, match="no rule is called 'b'"):
        profile_of({"name": "a", "metric": "x"}, {"name": "c", "count": 1, "of": ["b"]})


def test_short_forms_of_keys() -> None:
    assert expand("rollout/gen_new_tokens_total|mean|p90") == [
        "rollout/gen_new_tokens_total", "rollout/gen_new_tokens_mean", "rollout/gen_new_tokens_p90"]
    for key in ("rollout/f1", "loss", "coord_softce_w1/loss"):
        assert training_key(evaluation_key(key)) == key
    assert evaluation_key("rollout/f1") == "eval_rollout_f1"


# ---- expressions, statistics, identities

def test_expressions() -> None:
    table = columns.of_records([{"epoch": 1, "a": 6.0, "b": 3.0, "r/x": 0.2, "r/y": 0.7},
                                {"epoch": 2, "a": 1.0, "b": 0.0}])
    def value(formula: Any) -> list[float]:
        return [float(number) for number in table.values(expressions.parse(formula))]

    assert value({"divide": ["a", "b"]})[0] == 2
    assert math.isnan(value({"divide": ["a", "b"]})[1])
    assert value({"subtract": [{"multiply": [2, "a"]}, 1, 1]}) == [10, 0]
    assert value({"max": ["r/*"]})[0] == 0.7
    assert math.isnan(value({"max": ["q/*"]})[0])
    assert expressions.text(expressions.parse({"divide": ["a", {"add": ["b", 1]}]})) == "a / (b + 1)"


def test_streaks() -> None:
    flags = np.array([True, True, False, True, False, True, True, True])
    assert statistics.streak(flags).tolist() == [1, 2, 0, 1, 0, 1, 2, 3]


def test_identities_tell_where_they_break() -> None:
    known = profile_of({"name": "r", "metric": "x"}, identities=[
        {"name": "sum", "left": "c", "right": {"add": ["a", "b"]}}, {"name": "absent", "left": "q", "right": "a"}])
    table = columns.of_records([{"epoch": 1, "a": 1, "b": 2, "c": 3}, {"epoch": 2, "a": 1, "b": 2, "c": 4},
                                {"epoch": 3}])
    first, second = formulas.check(table, known)
    assert (first.checked, first.broken, first.worst) == (2, 1, (2, 4, 3))
    assert first.sentence.startswith("sum: broken in 1 of 2 records; at 2 the left side is 4, the right 3")
    assert second.sentence == "absent: not checked, the log lacks a side"


def test_a_shipped_profile_is_read_once_and_ones_own_every_time(tmp_path: Path) -> None:
    assert load("lam") is load("lam")
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nabout: mine\nrules: []\n")
    assert load(own).about == "mine"
    own.write_text("name: own\nabout: another\nrules: []\n")
    assert load(own).about == "another"


def test_the_rule_of_collapse_says_the_limits_by_which_it_is_judged() -> None:
    rule = next(rule for rule in load("lam").rules if rule.name == "codebook_collapsed")
    assert (f"joint perplexity below {COLLAPSED_JOINT_PERPLEXITY:g}, or slot perplexity below "
            f"{COLLAPSED_SLOT_PERPLEXITY:g} of parallel slots") in rule.meaning
