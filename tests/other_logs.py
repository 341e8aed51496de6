"""Logs of two other trainers, constructed with every key that their documents name and with the faults they warn of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

STEPS, EVERY, LIMIT = 120, 20, 512  # optimizer steps, steps between two evaluations, most new tokens
WEIGHTS = {"soft_ce_weight": 1.0, "w1_weight": 0.5, "gate_weight": 0.2}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stage_one(path: Path, intrusion: float = 0.01, lost: float = 0.02) -> Path:
    """Teacher-forced training with coordinate losses, packed; evaluation repeats every key with `eval_`."""
    rows: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        at = _teacher_forced(step / STEPS, intrusion, lost)
        rows.append({"global_step/max_steps": f"{step}/{STEPS}", **at,
                     **({f"eval_{key}": value for key, value in at.items()} if step % EVERY == 0 else {})})
    return _with_config(lines(path, rows), {**WEIGHTS, "stage": 1})


def _teacher_forced(done: float, intrusion: float, lost: float) -> dict[str, float]:
    base, soft, w1, gate = 1.2 - 0.5 * done + intrusion, 2.0 - done, 0.4 - 0.2 * done, 0.05 - 0.03 * done + lost
    coordinates = WEIGHTS["soft_ce_weight"] * soft + WEIGHTS["w1_weight"] * w1 + WEIGHTS["gate_weight"] * gate
    tokens, coords, packed = 800.0, 160.0, 4.0
    accuracies = {f"{kind}_token_acc{top}": 0.5 + 0.4 * done for kind in ("desc", "format", "coord")
                  for top in ("", "_top5")}
    return {
        "loss": base + coordinates, "base_ce/loss": base, "base_ce/noncoord_tokens": tokens,
        "base_ce/noncoord_tokens_per_sample": tokens / packed, "base_ce/loss_per_sample": base * tokens / packed,
        "coord_softce_w1/loss": coordinates, "coord_softce_w1/soft_ce": soft, "coord_softce_w1/w1": w1,
        "coord_softce_w1/gate": gate, "coord_softce_w1/coord_vocab_mass": math.exp(-gate),
        "coord_softce_w1/coord_tokens": coords, "coord_softce_w1/coord_tokens_per_sample": coords / packed,
        "coord_softce_w1/loss_per_sample": coordinates * coords / packed, "coord_softce_w1/acc_top5": 0.3 + 0.5 * done,
        "coord_softce_w1/p_gt_mean": 0.1 + 0.3 * done, "coord_softce_w1/margin_mean": 2 - done,
        "stage1/total_loss_per_sample_est": base * tokens / packed + coordinates * coords / packed,
        "token_acc": 0.5 + 0.4 * done, "token_acc_top5": 0.7 + 0.25 * done, "text_token_acc": 0.6 + 0.3 * done,
        "desc_token_frac": 0.4, "format_token_frac": 0.4, "coord_token_frac": 0.2, **accuracies,
        "coord_monitor/flip_coord_to_noncoord": lost, "coord_monitor/flip_text_to_coord": intrusion,
        "coord_monitor/flip_format_to_coord": intrusion, "coord_monitor/flip_desc_to_coord": intrusion / 2,
        "coord_monitor/coord_vocab_mass_at_gt_coord": 1 - lost, "coord_monitor/coord_vocab_mass_at_gt_text": intrusion,
        "coord_monitor/coord_vocab_mass_at_gt_format": intrusion,
        "coord_monitor/coord_vocab_mass_at_gt_desc": intrusion,
        "pack/num_samples": packed, "accum/grad_steps": 4.0, "accum/current_grad_steps": 4.0}


def stage_two(path: Path, f1: float = 0.6, endless: bool = False, reuse: int = 4) -> Path:
    """Training on its own rollouts: a fresh one every `reuse` steps, whose figures the steps between repeat wrongly.

    `endless`: every rollout stops at the limit of tokens in the middle of an object.
    """
    rows: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        done, first = step / STEPS, (step - 1) // reuse * reuse + 1
        fresh = step == first
        row = {"global_step/max_steps": f"{step}/{STEPS}", "loss": 1.5 - 0.5 * done, "desc_token_frac": 0.0,
               "desc_token_acc": 0.0, "token_acc": 0.6 + 0.2 * done,
               **(_rollout(done, f1, endless) if fresh else dict.fromkeys(_rollout(done, f1, endless), 0.0)),
               "rollout/buffer_reuse": float(not fresh), "rollout/buffer_window_step0": float(first),
               "rollout/buffer_completed_steps": float(step - first), "packing/post_rollout_fill": 0.9,
               "packing/post_rollout_segments": 4.0, "packing/post_rollout_buffer": 2.0}
        if step % EVERY == 0:
            row |= {f"eval_{key.replace('/', '_')}": value for key, value in _evaluated(done, f1, endless).items()}
        rows.append(row)
    return _with_config(lines(path, rows), {"stage": 2, "max_new_tokens": LIMIT})


def _quality(done: float, f1: float) -> dict[str, float]:
    at = f1 * (0.5 + 0.5 * done)
    return {"rollout/precision": at, "rollout/recall": at, "rollout/f1": at,
            "rollout/sample_valid_pred_rate": 0.95, "rollout/sample_any_match_rate": 0.9,
            "rollout/matched_maskiou_mean": 0.5 + 0.3 * done}


def _rollout(done: float, f1: float, endless: bool) -> dict[str, float]:
    tokens, seconds = (LIMIT if endless else 200.0), 4.0
    valid, invalid, ambiguous, matched, excluded = 40.0, 1.0, 1.0, 30.0, 2.0
    cut = 0.6 if endless else 0.01
    quality = _quality(done, f1)
    total = valid + invalid + ambiguous
    lengths = {f"rollout/{part}_len_{how}": 300.0 for part in ("prompt", "rollout", "train", "append", "encoded")
               for how in ("mean", "p90")}
    return {
        **quality, **lengths, "rollout/match_rate": quality["rollout/recall"],
        "time/rollout_generate_s": seconds, "time/rollout_parse_match_s": 0.3, "time/rollout_teacher_encode_s": 0.5,
        "rollout/gen_new_tokens_total": 8 * tokens, "rollout/gen_new_tokens_mean": tokens,
        "rollout/gen_new_tokens_p90": tokens if endless else 260.0, "rollout/gen_new_tokens_p99": tokens if endless else
        300.0, "rollout/gen_tokens_per_s": 8 * tokens / seconds, "rollout/parse_dropped_invalid": invalid,
        "rollout/parse_dropped_ambiguous": ambiguous, "rollout/parse_truncated": 8 * cut,
        "rollout/parse_truncated_rate": cut, "rollout/parse_obj_total": total,
        "rollout/parse_obj_valid_frac": valid / total, "rollout/parse_obj_drop_frac": (invalid + ambiguous) / total,
        "rollout/gt_objects": 45.0, "rollout/valid_pred_objects": valid, "rollout/matched_for_supervision": matched,
        "rollout/excluded_from_supervision": excluded, "rollout/fn_appended": 15.0, "rollout/fn": 15.0,
        "rollout/gating_rejections": 3.0, "rollout/gating_rejection_rate": 0.06,
        "rollout/matched_maskiou_count": matched,
        "rollout/desc_pairs_total": matched, "rollout/desc_exact_acc_on_matched": 0.7, "rollout/desc_sem_enabled": 1.0,
        "rollout/desc_sem_acc_on_matched": 0.8, "rollout/desc_sem_sim_mean": 0.85,
        "rollout/desc_sem_sim_count": matched,
        "rollout/excluded_rate": excluded / (matched + excluded), "rollout/prefix_coord_targets_total": 4 * matched,
        "rollout/prefix_coord_targets_per_matched": 4.0, "rollout/tail_ignore_frac": 0.3}


def _evaluated(done: float, f1: float, endless: bool) -> dict[str, float]:
    return {**_quality(done, f1 - 0.05), "rollout/pred_objects": 400.0, "rollout/gt_objects": 450.0,
            "rollout/matched": 300.0, "rollout/fp": 100.0, "rollout/fn": 150.0,
            "rollout/parse_truncated_rate": 0.6 if endless else 0.01, "rollout/parse_dropped_invalid": 4.0,
            "rollout/parse_dropped_ambiguous": 2.0, "rollout/desc_sem_acc_on_matched": 0.8}


def gait(path: Path, collapses: bool = False, explodes: bool = False, stalls: bool = False, epochs: int = 300,
         rate: float = 1e-4) -> Path:
    """A run of the diffusion model of gait through its three phases, or one of the document's problems."""
    rows = []
    before = 1.0
    for epoch in range(1, epochs + 1):
        loss = _gait_loss(epoch, stalls)
        spread = 0.05 if collapses and epoch > 100 else min(0.8, 0.3 + epoch / 100)
        well = int(epoch >= 100 and not collapses and not stalls)
        row: dict[str, Any] = {
            "epoch": epoch, "train/total_loss": loss,
            "train/grad_norm_mean": 150.0 if explodes and epoch > 200 else 5 - 3 * min(1.0, epoch / 200),
            "train/grad_norm_std": 0.05 if collapses else 0.8,
            "train/grad_norm_max": 400.0 if explodes and epoch > 200 else 8.0, "train/grad_norm_min": 0.5,
            "train/batch_loss_mean": loss, "train/batch_loss_std": 0.001 if collapses and epoch > 100 else 0.2 * loss,
            "train/batch_loss_max": 1.5 * loss, "train/batch_loss_min": 0.6 * loss,
            "train/batch_loss_cv": 0.001 / loss if collapses and epoch > 100 else 0.2,
            "model/weight_mean": 0.05, "model/weight_std": 0.1, "model/weight_max": 2.0,
            "model/ema_diff": 2.0 if explodes and epoch > 200 else 0.01,
            "train/loss_decrease": before - loss, "train/loss_decrease_pct": 100 * (before - loss) / before,
            "train/is_improving": int(loss < before), "loss_ratio/simple": 0.5, "loss_ratio/vel": 0.2,
            "loss_ratio/fk": 0.1, "loss_ratio/drift": 0.1, "loss_ratio/slide": 0.1}
        if epoch % 50 == 0:
            row |= {"validation/gen_std": spread, "validation/gen_mean": 0.0, "validation/gen_range": 5 * spread,
                    "validation/knee_r_std": 0.4 * well + 0.02, "validation/knee_r_mean": 0.5,
                    "validation/knee_healthy": well, "validation/grf_vz_r_std": 200.0 * well + 0.5,
                    "validation/grf_vz_r_mean": 400.0, "validation/grf_healthy": well}
        rows.append(row)
        before = loss
    return _with_config(lines(path, rows), {"learning_rate": rate, "num_epochs": epochs})


def _gait_loss(epoch: int, stalls: bool) -> float:
    """1.0 to 0.3 in fifty epochs, to 0.15 in two hundred, to 0.12 at the end; where it stalls it stays at 0.9."""
    if stalls:
        return 0.9
    if epoch <= 50:
        return 1.0 - 0.7 * epoch / 50
    return 0.3 - 0.15 * (epoch - 50) / 150 if epoch <= 200 else 0.15 - 0.03 * (epoch - 200) / 100


def _with_config(log: Path, config: dict[str, Any]) -> Path:
    (log.parent / "config.json").write_text(json.dumps(config))
    return log
