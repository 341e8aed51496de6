"""Runs of other trainers, rebuilt from the figures that their documents print: judged here as they were there."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.monitor import formulas
from analysis.monitor.causes import diagnose
from analysis.monitor.monitor import Status, examine
from analysis.read import foreign
from record.health import columns, engine
from record.health.engine import judge_records
from record.health.profile import load, shipped

GENTLE = {200: 136, 400: 120, 600: 131, 800: 88, 1000: 95, 1200: 84, 1400: 88, 1600: 75, 1800: 83, 2000: 78, 2850: 84}
K = 768
STEPS = 95  # 2850 steps in 30 epochs


def embedding(step: int, usage: float | None = None, context: float | None = None, target: float | None = None,
              codes: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"step": step}
    for side, rank in (("context", context), ("target", target)):
        if rank is not None:
            found[side] = {"effective_rank": rank}
    if usage is not None:
        found |= {"vq_usage_ratio": usage, "vq_active_codes": codes if codes is not None else round(usage * K)}
    return found


def write(folder: Path, epochs: int, losses: dict[int, float], embeddings: list[dict[str, Any]],
          val: dict[int, float], grad: dict[int, float] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": epoch, "grad_norm": {"count": STEPS, **({"mean": grad[epoch]} if grad and epoch in grad else {})},
             **({"loss_mean": {"total": losses[epoch]}} if epoch in losses else {})} for epoch in range(1, epochs + 1)]
    (folder / "epoch_metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "embedding_metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in embeddings))
    (folder / "metrics.json").write_text(json.dumps({"val_losses": [val.get(e) for e in range(1, epochs + 1)]}))
    return folder


def four_runs(folder: Path) -> dict[str, Path]:
    """Start, end and what else is printed; what is not is left out."""
    return {
        "sixth": write(folder / "sixth", 22, {22: 9.26}, [
            embedding(1, 0.243, 6.4), embedding(22 * STEPS, 0.017, 1.4, 2.9)], {12: 8.66, 13: 27.2, 22: 9.18}),
        "no_vq": write(folder / "no_vq", 30, {30: 7.74}, [
            embedding(1, context=12.7), embedding(30 * STEPS, context=33.2, target=43.1)], {30: 7.75}),
        "no_refresh": write(folder / "no_refresh", 30, {30: 9.07}, [
            embedding(1, 0.177, 3.3), embedding(30 * STEPS, 0.044, 1.5, 2.9)], {29: 8.68, 30: 8.99}, {1: 50, 30: 121}),
        "gentle": write(folder / "gentle", 30, {1: 9.45, 30: 8.38}, [
            embedding(1, context=2.3, target=5.6), *(embedding(step, codes / K) for step, codes in GENTLE.items()),
            embedding(30 * STEPS, context=7.5, target=10.0)], {1: 9.39, 29: 8.37, 30: 8.39}, {1: 15, 30: 6}),
    }


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Status]:
    return {name: examine(foreign.read(path)) for name, path in four_runs(tmp_path_factory.mktemp("jepa")).items()}


def figure(status: Status, key: str) -> tuple[str, str]:
    found = next(item for item in status.figures if item.key == key)
    return found.trend.word, found.trend.change


def test_which_runs_collapsed(judged: dict[str, Status]) -> None:
    assert {name: status.judgement.severity for name, status in judged.items()} == {
        "sixth": "abort", "no_vq": "ok", "no_refresh": "abort", "gentle": "info"}
    both = {"usage_collapsed", "context_rank_collapsed", "target_rank_collapsed"}
    assert {item.rule for item in judged["no_refresh"].judgement.aborts} == both
    assert {item.rule for item in judged["sixth"].judgement.aborts} == both | {"val_loss_spike"}


def test_when_the_spike_came(judged: dict[str, Status]) -> None:
    spike = next(item for item in judged["sixth"].judgement.aborts if item.rule == "val_loss_spike")
    assert spike.since == 13
    assert not any(item.rule == "val_loss_spike" for name in ("no_vq", "no_refresh", "gentle")
                   for item in judged[name].judgement.findings)


def test_which_grew_and_that_two_points_are_no_trajectory(judged: dict[str, Status]) -> None:
    rank = "context.effective_rank"
    assert figure(judged["gentle"], rank) == figure(judged["no_vq"], rank) == ("not determined", "grew")
    assert figure(judged["sixth"], rank) == figure(judged["no_refresh"], rank) == ("not determined", "fell")
    assert figure(judged["sixth"], "vq_usage_ratio") == ("not determined", "fell")


def test_the_gentle_runs_usage_oscillates(judged: dict[str, Status]) -> None:
    found = next(item for item in judged["gentle"].figures if item.key == "vq_usage_ratio")
    assert found.trend.word == "oscillating"
    assert found.trend.least == pytest.approx(0.098, abs=5e-4)
    assert (found.trend.first, found.trend.last) == (pytest.approx(0.177, abs=5e-4), pytest.approx(0.109, abs=5e-4))
    assert [item.rule for item in judged["gentle"].judgement.findings] == ["usage_below_target"]
    assert "gradients_large" in [item.rule for item in judged["no_refresh"].judgement.findings]


def test_without_vq_the_usage_is_not_judged(judged: dict[str, Status]) -> None:
    assert judged["no_vq"].judgement.not_judged["usage_low"] == "vq_usage_ratio is not recorded"


@pytest.mark.parametrize(("usage", "context", "target", "severity"), [
    (0.13, 5.5, 10.5, "ok"), (0.11, 5.5, 10.5, "info"), (0.07, 5.5, 10.5, "warn"), (0.13, 4.0, 10.5, "info"),
    (0.13, 2.9, 10.5, "warn"), (0.13, 1.9, 10.5, "abort"), (0.13, 5.5, 4.9, "warn"), (0.13, 5.5, 3.9, "abort"),
])
def test_each_threshold(usage: float, context: float, target: float, severity: str) -> None:
    record = {"epoch": 3, "vq_usage_ratio": usage, "vq_active_codes": usage * K, "context.effective_rank": context,
              "target.effective_rank": target}
    assert judge_records([record], load("jepa-vq"), {}).severity == severity


def test_usage_aborts_only_after_epoch_fifteen() -> None:
    for epoch, severity in ((15, "warn"), (16, "abort")):
        record = {"epoch": epoch, "vq_usage_ratio": 0.07, "vq_active_codes": 54}
        assert judge_records([record], load("jepa-vq"), {}).severity == severity


def test_a_plateau_warns_and_beyond_the_patience_aborts() -> None:
    records = [{"epoch": epoch, "val_loss": 8.0 if epoch > 1 else 9.0} for epoch in range(1, 60)]
    facts = {"early_stopping_patience": 25.0}
    for count, severity in ((21, "ok"), (22, "warn"), (46, "warn"), (47, "abort")):
        assert judge_records(records[:count], load("jepa-vq"), facts).severity == severity, count


# ---- gait

def gait(bits: tuple[int, ...]) -> list[dict[str, Any]]:
    cv, knee, grf, gen, stuck, uniform = bits
    return [{"epoch": epoch, "train/batch_loss_cv": 0.005 if cv else 0.2, "train/batch_loss_std": 0.2,
             "train/is_improving": 0 if stuck else 1, "train/grad_norm_mean": 2.0,
             "train/grad_norm_std": 0.1 if uniform else 1.0, "validation/knee_healthy": 0 if knee else 1,
             "validation/grf_healthy": 0 if grf else 1, "validation/gen_std": 0.05 if gen else 0.8}
            for epoch in range(1, 21)]


@pytest.mark.parametrize("bits", list(itertools.product((0, 1), repeat=6)), ids=lambda bits: "".join(map(str, bits)))
def test_mode_collapse_is_three_of_six(bits: tuple[int, ...]) -> None:
    found = judge_records(gait(bits), load("gait-diffusion"), {})
    assert ("mode_collapse" in {item.rule for item in found.aborts}) == (sum(bits) >= 3)


def test_nineteen_epochs_without_gain_are_not_twenty() -> None:
    records = gait((1, 1, 0, 0, 1, 0))
    assert not judge_records(records[1:], load("gait-diffusion"), {}).aborts
    assert judge_records(records, load("gait-diffusion"), {}).aborts


@pytest.mark.parametrize(("record", "rule"), [
    ({"train/grad_norm_max": 101.0}, "gradients_exploding"), ({"model/weight_max": 10.5}, "weights_exploding"),
    ({"model/weight_mean": 0.0005}, "weights_dead"), ({"model/ema_diff": 1.1}, "ema_unstable"),
    ({"train/batch_loss_std": 0.005}, "batch_loss_std_tiny"), ({"validation/gen_range": 0.4}, "gen_range_tiny"),
    ({"validation/knee_r_std": 0.08}, "knee_low"), ({"validation/knee_r_std": 0.04}, "knee_constant"),
    ({"validation/grf_vz_r_std": 9.0}, "grf_low"), ({"validation/grf_vz_r_std": 0.5}, "grf_constant"),
])
def test_each_single_rule(record: dict[str, float], rule: str) -> None:
    found = judge_records([{"epoch": 1, **record}], load("gait-diffusion"), {})
    assert rule in {item.rule for item in found.findings}
    healthy = {key: {"train/grad_norm_max": 5.0, "model/weight_max": 1.0, "model/weight_mean": 0.1,
                     "model/ema_diff": 0.01,
                     "train/batch_loss_std": 0.2, "validation/gen_range": 3.0, "validation/knee_r_std": 0.4,
                     "validation/grf_vz_r_std": 200.0}[key] for key in record}
    assert judge_records([{"epoch": 1, **healthy}], load("gait-diffusion"), {}).severity == "ok"


def test_one_term_of_the_loss_ignores_the_others() -> None:
    records = [{"epoch": e, "loss_ratio/simple": 0.93, "loss_ratio/vel": 0.04, "loss_ratio/fk": 0.03} for e in (1, 2)]
    assert "one_term_dominates" in {item.rule for item in judge_records(records, load("gait-diffusion"), {}).findings}


def test_phases_have_their_own_expectations() -> None:
    def rules(epoch: int) -> set[str]:
        records = [{"epoch": epoch + n, "train/grad_norm_mean": 5.0, "validation/knee_healthy": 0} for n in range(10)]
        return {item.rule for item in judge_records(records, load("gait-diffusion"), {}).findings}

    assert not rules(10) & {"phase1_gradients", "phase2_gradients", "phase2_knee_missing"}
    assert "phase2_gradients" in rules(100)
    assert "phase2_knee_missing" in rules(200)


# ---- coordinates

def rollout_step(step: int, reuse: int, **values: float) -> dict[str, Any]:
    return {"epoch": step, "loss": 1.0, "rollout/buffer_reuse": reuse, **values}


def test_reuse_steps_are_left_out_before_anything_is_judged() -> None:
    stale = {"rollout/parse_truncated_rate": 0.9, "time/rollout_generate_s": 0.0}
    fresh = {"rollout/parse_truncated_rate": 0.01, "time/rollout_generate_s": 12.0}
    records = [rollout_step(step, int(step % 4 != 0), **(stale if step % 4 else fresh)) for step in range(16)]
    assert judge_records(records, load("coordexp"), {}).severity == "ok"
    table = engine.prepare(columns.of_records(records), load("coordexp"))
    times = table.columns["time/rollout_generate_s"]
    assert times[times == times].tolist() == [12.0] * 4
    swapped = [{**record, "rollout/buffer_reuse": 1 - record["rollout/buffer_reuse"]} for record in records]
    assert [item.rule for item in judge_records(swapped, load("coordexp"), {}).findings] == ["truncation_high"]


def test_evaluation_keys_are_judged_by_the_same_rules() -> None:
    records = [{"epoch": step, "eval_rollout_parse_truncated_rate": 0.5} for step in (1, 2)]
    assert [item.rule for item in judge_records(records, load("coordexp"), {}).findings] == ["eval_truncation_high"]


def test_what_means_nothing_in_stage_two_is_not_judged() -> None:
    table = columns.of_records([rollout_step(1, 0, **{"desc_token_acc": 0.0, "rollout/f1": 0.5, "eval_loss": 3.0})])
    prepared = engine.prepare(table, load("coordexp"))
    assert prepared.facts["stage"] == 2
    assert prepared.columns["desc_token_acc"][0] != prepared.columns["desc_token_acc"][0]
    alone = engine.prepare(columns.of_records([{"epoch": 1, "desc_token_acc": 0.7}]), load("coordexp"))
    assert alone.columns["desc_token_acc"].tolist() == [0.7]


def test_recall_and_match_rate_are_one_number() -> None:
    table = engine.prepare(columns.of_records([rollout_step(1, 0, **{"rollout/match_rate": 0.4})]), load("coordexp"))
    assert table.columns["rollout/recall"].tolist() == [0.4]


def test_the_documents_formulas_are_checked() -> None:
    good = rollout_step(1, 0, **{
        "rollout/recall": 0.5, "rollout/match_rate": 0.5, "rollout/precision": 0.5, "rollout/f1": 0.5,
        "rollout/parse_obj_total": 10, "rollout/valid_pred_objects": 7, "rollout/parse_dropped_invalid": 2,
        "rollout/parse_dropped_ambiguous": 1, "rollout/gen_tokens_per_s": 50.0, "rollout/gen_new_tokens_total": 500,
        "time/rollout_generate_s": 10.0, "coord_softce_w1/gate": 0.1, "coord_softce_w1/coord_vocab_mass": 0.905,
        "base_ce/loss": 2.0, "base_ce/noncoord_tokens": 300, "pack/num_samples": 4, "base_ce/loss_per_sample": 150.0})
    checks = {item.name: item for item in formulas.check(columns.of_records([good]), load("coordexp"))}
    names = ("recall is match_rate", "objects parsed", "tokens per second", "f1", "coordinate mass",
             "text loss per sample")
    assert [(checks[name].checked, checks[name].broken) for name in names] == [(1, 0)] * 6
    assert checks["coordinate loss"].checked == 0  # the weights are not in the log
    bad = {**good, "rollout/parse_obj_total": 11, "rollout/match_rate": 0.6}
    broken = [item.name for item in formulas.check(columns.of_records([bad]), load("coordexp")) if item.broken]
    assert broken == ["recall is match_rate", "objects parsed"]
    reused = {**bad, "rollout/buffer_reuse": 1}
    assert not any(item.checked for item in formulas.check(columns.of_records([reused]), load("coordexp"))
                   if item.name == "objects parsed")


def test_rollouts_that_always_stop_at_the_limit() -> None:
    values = {"rollout/gen_new_tokens_mean": 1024.0, "rollout/gen_new_tokens_p99": 1024.0,
              "rollout/parse_truncated_rate": 0.8}
    records = [rollout_step(step, 0, **values) for step in (1, 2, 3)]
    known = {item.rule for item in judge_records(records, load("coordexp"), {"max_new_tokens": 1024.0}).findings}
    assert {"always_at_token_limit", "always_same_length", "truncation_high"} <= known
    blind = {item.rule for item in judge_records(records, load("coordexp"), {}).findings}
    assert "always_same_length" in blind


@pytest.mark.parametrize(("key", "value", "rule"), [
    ("coord_monitor/flip_coord_to_noncoord", 0.3, "coord_slot_collapse"),
    ("coord_monitor/coord_vocab_mass_at_gt_coord", 0.5, "coord_mass_leak"),
    ("coord_monitor/flip_format_to_coord", 0.2, "coord_intrusion"),
    ("coord_monitor/coord_vocab_mass_at_gt_desc", 0.2, "coord_mass_intrusion"),
    ("rollout/parse_obj_drop_frac", 0.3, "drops_high"),
])
def test_coordinate_slots_both_ways(key: str, value: float, rule: str) -> None:
    records = [rollout_step(step, 0, **{key: value}) for step in (1, 2)]
    assert rule in {item.rule for item in judge_records(records, load("coordexp"), {}).findings}


@pytest.mark.parametrize(("key", "value"), [
    ("flip_coord_to_noncoord", 0.5), ("flip_format_to_coord", 0.5), ("flip_desc_to_coord", 0.5),
    ("coord_vocab_mass_at_gt_coord", 0.5), ("coord_vocab_mass_at_gt_format", 0.5),
    ("coord_vocab_mass_at_gt_desc", 0.5)])
def test_coordinate_slots_are_judged_in_evaluation_too(key: str, value: float) -> None:
    records = [{"epoch": step, f"eval_coord_monitor/{key}": value} for step in (1, 2)]
    found = judge_records(records, load("coordexp"), {})
    assert [item.severity for item in found.findings] == ["warn"]
    assert found.findings[0].rule.startswith("eval_coord_")


def test_the_gait_profile_judges_the_loss_of_our_own_runs() -> None:
    records = [{"epoch": 1, "train/loss": 1.0}, {"epoch": 2, "train/loss": float("nan")}]
    found = judge_records(records, load("gait-diffusion"), {})
    assert [item.rule for item in found.aborts] == ["loss_nonfinite"]


def test_a_run_of_single_steps_whose_rollouts_lose_their_variety_is_told_so() -> None:
    records = [{"epoch": epoch, "val/mse_loss": 1.0, "val/rollout_loss": rollout, "validation/gen_std_ratio_min": 0.3}
               for epoch, rollout in ((1, 0.0), (2, None))]  # neither is measured at horizon 1
    known = load("lam")
    causes = diagnose(judge_records(records, known, {"rollout_horizon": 1.0}), known)
    assert [cause.name for cause in causes] == ["single_steps_only"]
    assert diagnose(judge_records(records, known, {"rollout_horizon": 2.0}), known) == ()


@pytest.mark.parametrize("name", shipped())
def test_every_quiet_rule_is_evidence_for_something(name: str) -> None:
    known = load(name)
    used = {item for rule in known.rules for item in rule.of}
    used |= {item for cause in known.diagnoses for item in (*cause.needs, *cause.supports)}
    assert {rule.name for rule in known.rules if rule.quiet} <= used
