"""Action skill: what a probe of the codes tells of true actions that it has not seen, and the objective made of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lam import codebook
from lam.config import RunConfig, of_run
from lam.data import windows as data
from lam.evaluation import measure, skill
from lam.evaluation.skill import Known
from lam.model.lam import LatentActionModel
from record.run import RunFolder

K, N, VIDEOS = 6, 480, 12
RNG = np.random.default_rng(0)
FILES = np.repeat(np.arange(VIDEOS), N // VIDEOS)
ACTIONS = RNG.choice(4, size=N, p=[0.4, 0.3, 0.2, 0.1])
NOISE = RNG.normal(size=(N, 1, 5))


def found(codes: np.ndarray[Any, Any] | None, z_e: np.ndarray[Any, Any] = NOISE,
          actions: np.ndarray[Any, Any] = ACTIONS, files: np.ndarray[Any, Any] = FILES) -> dict[str, float]:
    return skill.metrics(Known(codes, z_e, actions, files), K)


def slots(*columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.stack(columns, axis=1)


def test_codes_that_are_the_action_tell_all_of_it() -> None:
    record = found(slots(ACTIONS, RNG.integers(K, size=N)))
    assert record["val/action_skill"] == 1
    assert record["val/action_accuracy"] == 1
    assert record["val/action_majority"] == pytest.approx((ACTIONS == 0).mean())
    assert record["val/action_log_skill"] > 0.9


def test_the_base_rate_is_that_of_all_labels_and_the_interval_no_narrower_than_independent_labels_allow() -> None:
    """Of the other videos alone the commonest action is the rarer one here, which no codes have earned."""
    even = np.where(FILES % 2, np.arange(N) % 5 < 3, np.arange(N) % 5 < 2).astype(int)  # 0 and 1 by turns commoner
    record = found(np.ones((N, 2), dtype=int), actions=even)
    assert record["val/action_majority"] == 0.5
    assert record["val/action_accuracy"] <= 0.5
    assert record["val/action_skill"] <= 0
    alike = np.tile(ACTIONS[:40], VIDEOS)  # every video is the same: over videos nothing varies
    noisy = found(slots(np.where(np.arange(N) % 40 < 20, alike, 0)), actions=alike)
    wide = noisy["val/action_skill_high"] - noisy["val/action_skill_low"]
    assert wide > 2 * 1.9 * math.sqrt(noisy["val/action_accuracy"] * (1 - noisy["val/action_accuracy"]) / N)


def test_it_does_not_matter_how_actions_are_numbered() -> None:
    codes = slots(np.where(RNG.random(N) < 0.6, ACTIONS, 0))
    assert found(codes) == pytest.approx(found(codes, actions=np.array([0, 3, 100, 900])[ACTIONS]), abs=1e-12)


def test_a_tuple_may_say_what_no_slot_says() -> None:
    """The action is the sum of two slots: each alone tells nothing."""
    a, b = RNG.integers(4, size=N), RNG.integers(4, size=N)
    assert found(slots(a, b), actions=(a + b) % 4)["val/action_skill"] > 0.95


@pytest.mark.parametrize("codes", [RNG.integers(K, size=(N, 2)), np.ones((N, 2), dtype=int)])
def test_codes_without_content_have_no_skill(codes: np.ndarray[Any, Any]) -> None:
    record = found(codes)
    assert record["val/action_skill_low"] <= 0 or record["val/action_skill"] == 0
    assert record["val/action_skill"] < 0.05


def test_codes_that_name_the_video_have_no_skill_where_actions_follow_the_video() -> None:
    """A probe that is scored on the videos it was fitted on tells every action."""
    by_video = RNG.permutation(np.arange(VIDEOS) % 4)[FILES]
    codes = slots(FILES % K, FILES // K)
    assert found(codes, actions=by_video)["val/action_skill"] < 0.3
    right, _, _ = skill.cross_fitted(skill.code_features(codes, K), by_video, np.arange(N))
    assert right.mean() == 1


def test_unknown_actions_are_left_out_and_no_known_one_is_no_skill() -> None:
    some = np.where(RNG.random(N) < 0.5, ACTIONS, -1)
    record = found(slots(ACTIONS), actions=some)
    assert record["val/action_skill"] == 1
    assert record["val/action_nmi"] == pytest.approx(1, abs=0.03)
    assert record["val/labelled_transitions"] == (some >= 0).sum()
    assert found(slots(ACTIONS), actions=np.full(N, -1)) == {"val/labelled_transitions": 0}
    one = found(slots(ACTIONS), actions=np.where(np.arange(N) == 3, 1, -1))
    assert math.isnan(one["val/action_skill"])


def test_few_videos_are_scored_on_stretches_of_them() -> None:
    record = found(slots(ACTIONS), files=FILES // 6)
    assert record["val/action_skill"] == 1


def test_an_action_that_is_never_seen_elsewhere_costs_and_breaks_nothing() -> None:
    rare = np.where(np.arange(N) == 7, 4, ACTIONS)
    record = found(slots(rare), actions=rare)
    assert 0.9 < record["val/action_skill"] < 1
    assert math.isfinite(record["val/action_log_skill"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_have_no_skill_and_end_nothing(value: float) -> None:
    spoilt = NOISE.copy()
    spoilt[7] = value
    told = found(slots(ACTIONS), spoilt)
    assert math.isnan(told["val/action_skill_embedding"])
    assert told["val/action_skill"] > 0.9
    assert math.isnan(found(None, spoilt)["val/action_skill"])


def test_the_embedding_may_know_what_the_codes_lost() -> None:
    knows = NOISE * 0.1 + np.eye(5)[ACTIONS][:, None]
    record = found(np.ones((N, 2), dtype=int), z_e=knows)
    assert record["val/action_skill"] == 0
    assert record["val/action_skill_embedding"] > 0.95
    assert found(None, z_e=knows)["val/action_skill"] > 0.95  # continuous actions: the embedding is what there is


@pytest.mark.parametrize(("slot", "joint", "books", "control_low", "collapsed"), [
    (1.2, 1.8, 1, -0.01, True), (1.2, 1.8, 1, math.nan, True), (1.2, 1.8, 1, 0.01, False), (1.2, 4.0, 1, -0.1, True),
    (1.2, 4.0, 3, -0.1, False), (1.0, 1.0, 3, 0.0, True), (1.3, 1.9, 3, 0.02, False), (math.nan, math.nan, 1, 0, True),
])
def test_collapsed_is_what_says_nothing_and_is_not_heeded(slot: float, joint: float, books: int, control_low: float,
                                                          collapsed: bool) -> None:
    assert codebook.is_collapsed(slot, joint, books, control_low) == collapsed


def live(**changes: Any) -> dict[str, Any]:
    return {"val/mse_loss": 0.1, "val/mse_copy": 0.3, "val/collapsed": 0, "val/dsnr_status": "ok", "val/control": 0.5,
            "val/control_low": 0.4, "val/codebook_health": 0.8, "val/action_skill": 0.6, "val/action_log_skill": 0.4,
            "val/action_nmi": 0.5, "val/labelled_transitions": 300, **changes}


def test_the_objective_is_the_mean_of_three_readings_of_a_live_run_that_beats_copying() -> None:
    assert codebook.objective(live(), "action") == pytest.approx(0.5)
    assert codebook.objective(live(**{"val/action_nmi": math.nan}), "action") == pytest.approx(1 / 3)
    assert codebook.objective(live(**{"val/action_nmi": 0.8}), "action") == pytest.approx(0.6)
    undefined, weak = (codebook.objective(live(**{"val/action_nmi": nmi}), "action") for nmi in (math.nan, 0.05))
    assert undefined < weak  # what is not defined never wins
    assert codebook.objective(live(**{"val/action_skill": -0.4, "val/action_log_skill": -0.3}), "action") == 0
    assert codebook.objective(live(**{"val/action_log_skill": math.nan}), "action") < 0
    for dead in ({"val/collapsed": 1}, {"val/control_low": -0.1}, {"val/mse_loss": 0.3}):
        assert codebook.objective(live(**dead), "action") < 0


@pytest.mark.parametrize(("labels", "nmi", "value"), [
    (999, 0.5, 0.5), (1000, 0.5, 0.5), (999, 0.8, 0.6), (1000, 0.8, 0.5), (1000, math.nan, 0.5)])
def test_of_a_thousand_labels_information_ranks_nothing(labels: int, nmi: float, value: float) -> None:
    many = live(**{"val/labelled_transitions": labels, "val/action_nmi": nmi})
    assert codebook.objective(many, "action") == pytest.approx(value)


@pytest.mark.parametrize(("asked", "changes", "is_it"), [
    ("auto", {}, "action"), ("auto", {"val/labelled_transitions": 99}, "control_health"),
    ("auto", {"val/action_skill": math.nan}, "control_health"), ("control_health", {}, "control_health"),
    ("action", {"val/labelled_transitions": 3}, "action"),
])
def test_auto_is_action_where_labels_suffice(asked: str, changes: dict[str, Any], is_it: str) -> None:
    assert codebook.preset_of(live(**changes), asked) == is_it


def test_a_record_of_before_keeps_its_objective() -> None:
    old = Path(__file__).parent / "records_before" / "before" / "trials" / "t0001"
    assert of_run(RunFolder(old)).objective_preset == "control_health"


def test_a_validation_says_its_skill_and_by_what_it_ranks(tiny_data: Path) -> None:
    config = RunConfig(data_dir=str(tiny_data), sequence_length=4, embed_dim=16, encoder_depth=1, decoder_depth=1,
                       head_dim=8, patch_dim=16, codebook_dim=8, eval_sequences=128, device="cpu")
    split = data.open_split(config, "train")
    torch.manual_seed(0)
    model = LatentActionModel(config, split.latent_shape)
    record = measure.evaluate(model, split, config)
    assert record["val/objective_preset"] == ("action" if record["val/labelled_transitions"] >= 100 else
                                              "control_health")
    assert -1 < record["val/action_skill"] <= 1
    low, high = record["val/action_skill_low"], record["val/action_skill_high"]
    assert low <= record["val/action_skill"] <= high
