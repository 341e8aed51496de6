"""Drift, its arithmetic and its answers: exact levels however often one looks, figures, remedies, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import typed
from build_records import confirmed, write_sweep

from analysis.drift.twosample import ALPHA, level_of, p_value, smallest_p
from analysis.drift.verdict import Drift, judge_drift
from analysis.promote import promote
from analysis.promote.looking import look
from record.errors import BadInput
from record.workload.observation import Observation, Video

RNG = np.random.default_rng


def _seen(count: int, seed: int, *, shift: float = 0.0, error: float = -1.0, rank: float = 6.0,
          first_code: float = 0.25) -> Observation:
    """Videos of a model with 2 slots of 4 codes and 2 channels."""
    rng = RNG(seed)
    videos = []
    for number in range(count):
        rest = (1 - first_code) / 3
        codes = np.concatenate([rng.multinomial(64, [first_code, rest, rest, rest]) / 64 for _ in range(2)])
        videos.append(Video(name=f"{number}.h5", codes=tuple(codes), rank=(rank + rng.normal(0, 0.3),),
                            loss=(error + rng.normal(0, 0.1),), latents=tuple(shift + rng.normal(0, 1, 6))))
    return Observation(windows=64, num_embeddings=4, videos=tuple(videos))


def _drifted(found: Drift) -> set[str]:
    return {test.aspect for test in found.tests if test.drifted}


def test_the_levels_of_all_tests_of_all_looks_together_are_alpha() -> None:
    assert sum(4 * level_of(look, 4) for look in range(1, 100_000)) == pytest.approx(ALPHA, rel=1e-3)


def test_without_a_difference_small_p_values_are_as_rare_as_they_say() -> None:
    found = [p_value(RNG(seed).normal(size=(6, 3)), RNG(seed + 1000).normal(size=(5, 3)), 0.01, seed)
             for seed in range(300)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 2.5 * math.sqrt(level * (1 - level) / 300)


def test_every_exchange_is_tried_where_there_are_few_and_the_answer_is_exact() -> None:
    assert p_value(np.zeros((5, 1)), np.arange(9, 13)[:, None], 0.01) == pytest.approx(1 / math.comb(9, 4))
    assert p_value(np.arange(5)[:, None], np.arange(90, 95)[:, None], 0.01) == pytest.approx(smallest_p(5, 5))
    assert p_value(np.ones((6, 2)), np.ones((6, 2)), 0.01) == 1.0


def test_random_exchanges_end_soon_without_a_difference_and_reach_small_levels_with_one() -> None:
    same = p_value(RNG(0).normal(size=(20, 2)), RNG(1).normal(size=(20, 2)), 1e-5)
    assert same > 0.01
    assert p_value(RNG(0).normal(size=(20, 2)), RNG(1).normal(3, 1, (20, 2)), 1e-4) <= 1e-4


@pytest.mark.parametrize(("change", "aspects", "remedies"), [
    ({"shift": 3.0}, {"latents"}, ["label a little"]),
    ({"first_code": 0.7}, {"codes"}, ["label a little", "re-confirm"]),
    ({"rank": 3.0}, {"rank"}, ["label a little", "re-confirm"]),
    ({"error": -0.4}, {"loss"}, ["label a little", "re-confirm", "re-sweep"]),
    ({"error": -1.6}, {"loss"}, ["label a little", "re-confirm"]),
    ({}, set(), []),
])
def test_each_aspect_alone_is_found_and_has_its_remedies(change: dict[str, float], aspects: set[str],
                                                         remedies: list[str]) -> None:
    found = judge_drift(_seen(16, 0), _seen(10, 1, **change), 1)
    assert _drifted(found) == aspects
    assert [text.partition(":")[0] for text in found.remedy] == remedies
    assert found.verdict == ("drift" if aspects else "no drift")


def test_figures_say_what_was_and_what_is() -> None:
    told = {test.aspect: test.sentence for test in
            judge_drift(_seen(16, 0), _seen(10, 1, rank=3.0, error=-0.4, shift=3.0), 1).tests}
    assert told["rank"].startswith("effective rank 3.")
    assert told["rank"].endswith(" a video, was 6.15")
    assert told["loss"].startswith("error 0.6")
    assert "standard deviations of the kept videos" in told["latents"]
    assert "bits apart a slot" in told["codes"]


def test_too_few_videos_are_refused_with_how_many_are_needed() -> None:
    with pytest.raises(BadInput, match="of 2 new videos against 6 kept ones nothing can be told at look 1") as caught:
        judge_drift(_seen(6, 0), _seen(2, 1), 1)
    needed = int(str(caught.value).split("at least ")[1].split()[0])
    assert smallest_p(6, needed) <= level_of(1, 4) < smallest_p(6, needed - 1)
    judge_drift(_seen(6, 0), _seen(needed, 1), 1)
    with pytest.raises(BadInput, match="at look 9"):
        judge_drift(_seen(6, 0), _seen(needed, 1), 9)


def test_what_another_model_saw_does_not_compare() -> None:
    other = _seen(10, 1).model_copy(update={"windows": 32})
    with pytest.raises(BadInput, match="read by another model"):
        judge_drift(_seen(10, 0), other, 1)


def test_a_promotion_without_a_snapshot_says_how_to_get_one(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    promote(folder, tmp_path / "p.yaml")
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInput, match="was promoted without a snapshot to hold new data to; take one: lam promotions "
                                       "snapshot"):
        look(tmp_path / "p.yaml", tmp_path / "new")
    code, _, err = typed.lam(tmp_path, "promotions", "snapshot", "p.yaml")
    assert code == 2
    assert "was promoted without weights, so nothing can be looked at with it" in err
    for what, said in (("pong", "is no production YAML"), ("other.yaml", "nothing was promoted to it")):
        code, _, err = typed.lam(tmp_path, "monitor", what, "--data", "new")
        assert code == 2
        assert said in err


def test_an_observation_is_the_same_after_it_was_written() -> None:
    found = _seen(3, 0)
    again = Observation.model_validate(json.loads(json.dumps(found.model_dump(mode="json"))))
    assert again == found
    with pytest.raises(ValueError, match="not of one length"):
        Observation(windows=2, num_embeddings=4, videos=(*found.videos, found.videos[0].model_copy(
            update={"codes": None})))
