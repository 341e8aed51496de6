"""The model's promises: who sees which frame, which loss moves what, how a codebook lives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lam.config import RunConfig
from lam.model import blocks, flops, losses, quantizers
from lam.model.lam import LatentActionModel, Output
from record.errors import BadInput

SHAPE = (16, 8, 8)
SMALL = RunConfig(
    embed_dim=32, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=32, codebook_dim=8, sequence_length=6
)


def model_and_latents(config: RunConfig = SMALL, batch: int = 3) -> tuple[LatentActionModel, Tensor]:
    torch.manual_seed(0)
    model = LatentActionModel(config, SHAPE)
    for parameter in model.adapter_out.parameters():  # away from the zero start, where nothing depends on anything
        torch.nn.init.normal_(parameter, std=0.1)
    return model, torch.randn(batch, config.sequence_length, *SHAPE)


def test_shapes() -> None:
    model, latents = model_and_latents()
    output = model(latents)
    assert output.prediction.shape == (3, 5, *SHAPE)
    assert output.z_e.shape == (3, 5, 1, 8)  # the slots share an embedding
    assert output.quantized.codes is not None
    assert output.quantized.codes.shape == (3, 5, 3)
    assert output.quantized.z_q.shape == (3, 5, 3, 8)
    parallel, _ = model_and_latents(SMALL.replace(slots="parallel"))
    assert parallel(latents).z_e.shape == (3, 5, 3, 8)


@pytest.mark.parametrize("t", [0, 2])
def test_action_embedding_sees_frame_t_plus_1_and_nothing_later(t: int) -> None:
    model, latents = model_and_latents()
    z_e = model(latents).z_e
    later, next_frame = latents.clone(), latents.clone()
    later[:, t + 2 :] += 1
    next_frame[:, t + 1] += 1
    assert torch.equal(model(later).z_e[:, t], z_e[:, t])
    assert not torch.allclose(model(next_frame).z_e[:, t], z_e[:, t])


def test_prediction_sees_frames_and_actions_up_to_t_and_nothing_later() -> None:
    model, latents = model_and_latents()
    actions = torch.randn(3, 5, 3, 8)
    prediction = model.decode(latents[:, :-1], actions)
    for changed in ("frames", "actions"):
        frames, codes = latents[:, :-1].clone(), actions.clone()
        (frames if changed == "frames" else codes)[:, 3] += 1
        again = model.decode(frames, codes)
        assert torch.equal(again[:, :3], prediction[:, :3])
        assert not torch.allclose(again[:, 3], prediction[:, 3])


def test_training_starts_at_the_copy_baseline() -> None:
    model = LatentActionModel(SMALL, SHAPE)
    latents = torch.randn(2, 6, *SHAPE)
    assert torch.equal(model(latents).prediction, latents[:, :-1])


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_rollout_feeds_its_own_predictions_back(positions: str) -> None:
    config = SMALL.replace(rollout_horizon=3, time_positions=positions)
    model, latents = model_and_latents(config)
    model.eval()
    output = model(latents)
    rolled = model.rollout(latents, output, anchor=1)
    frames, actions = torch.cat([latents[:, :2], output.prediction[:, 1:2]], 1), output.quantized.z_q
    for length in (3, 4):  # decoded from the start each time, where the rollout continues from memory
        frames = torch.cat([frames, model.decode(frames, actions[:, :length])[:, -1:]], 1)
    assert rolled.shape == (3, 2, *SHAPE)
    torch.testing.assert_close(rolled, frames[:, 3:])


@pytest.mark.parametrize("detach", [True, False])
def test_rollout_sends_the_gradient_that_decoding_the_history_again_would(detach: bool) -> None:
    config = SMALL.replace(rollout_horizon=3, rollout_detach=detach, quantizer="none")
    model, latents = model_and_latents(config)

    def again(output: Output) -> Tensor:
        first = output.prediction[:, 1:2]
        frames = torch.cat([latents[:, :2], first.detach() if detach else first], 1)
        for length in (3, 4):
            frames = torch.cat([frames, model.decode(frames, output.quantized.z_q[:, :length])[:, -1:]], 1)
        return frames[:, 3:]

    gradients = []
    for roll in (lambda output: model.rollout(latents, output, anchor=1), again):
        model.zero_grad()
        roll(model(latents)).pow(2).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-3, atol=1e-4)


def gradients(model: LatentActionModel, name: str, latents: Tensor) -> set[str]:
    values = losses.terms(model, latents, model(latents), None)
    model.zero_grad()
    values[name].mean().backward()
    return {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_codebook_loss_moves_only_the_codebook_and_commitment_only_the_encoder() -> None:
    model, latents = model_and_latents(SMALL.replace(quantizer="vq"))
    model(latents)  # k-means first, so that codes and embeddings differ afterwards
    assert gradients(model, "codebook_loss", latents) == {"quantizer"}
    assert gradients(model, "commitment_loss", latents) == {"encoder", "adapter_in"}


def test_loss_values_follow_the_formulas() -> None:
    config = SMALL.replace(quantizer="vq", commitment_weight=0.4, reconstruction_weight=2.0, rollout_weight=0.5,
                           slots="parallel")
    model, latents = model_and_latents(config)
    output = model(latents)
    error = (output.prediction - latents[:, 1:]).detach()
    gap = (output.quantized.z_q - output.z_e).detach()
    values = {name: float(value.detach().mean()) for name, value in losses.terms(model, latents, output, 1).items()}
    assert values["mse_loss"] == pytest.approx(float(error.pow(2).mean()))
    assert values["mae_loss"] == pytest.approx(float(error.abs().mean()))
    assert values["recon_loss"] == values["mse_loss"]
    assert values["codebook_loss"] == pytest.approx(float(gap.pow(2).mean()), rel=1e-5)
    assert values["commitment_loss"] == pytest.approx(0.4 * values["codebook_loss"])
    assert values["vq_loss"] == pytest.approx(values["codebook_loss"] + values["commitment_loss"])
    total = losses.total(losses.terms(model, latents, output, 1), losses.weights(config))
    expected = 2 * values["mse_loss"] + values["vq_loss"] + 0.5 * values["rollout_loss"]
    assert float(total.detach()) == pytest.approx(expected)


def test_loss_terms_cover_the_weights() -> None:
    model, latents = model_and_latents()
    assert set(losses.weights(SMALL)) <= set(losses.terms(model, latents, model(latents), 0))


def test_ema_code_without_hits_stays_where_it_is() -> None:
    book = quantizers.EmaCodebook(SMALL.replace(codebook_init="uniform", vq_refresh_interval=0))
    unhit = book.codes_KQ[1:].clone()
    for step in range(1, 51):
        book(book.codes_KQ[0].expand(4, 2, 8).clone())
        book.after_step(step)
    torch.testing.assert_close(book.codes_KQ[1:], unhit)


def test_dead_codes_are_revived_on_the_interval_and_only_then() -> None:
    config = SMALL.replace(codebook_init="uniform", vq_refresh_interval=40, revive_below=0.9, ema_decay=0.9)
    book = quantizers.EmaCodebook(config)
    data = torch.randn(64, 8) + 5
    for step in range(1, 41):
        before = book.codes_KQ.clone()
        book(data)
        book.after_step(step)
        moved = (book.codes_KQ - before).norm(dim=1) > 1
        if step == 39:
            assert moved.sum() <= 1
    assert moved.sum() > 5
    revived = book.codes_KQ[moved]
    assert (revived[:, None] - data).norm(dim=2).min(dim=1).values.max() < 1e-5
    torch.testing.assert_close(book.sums_KQ[moved], revived * book.weights_K[moved, None])


def test_revival_clears_the_moments_of_a_gradient_code() -> None:
    config = SMALL.replace(quantizer="vq", codebook_init="uniform", vq_refresh_interval=1, revive_below=12.0)
    book = quantizers.Codebook(config)
    optimizer = torch.optim.AdamW(book.parameters())
    book(torch.randn(64, 8)).codebook_loss.sum().backward()
    optimizer.step()
    assert optimizer.state[book.codes_KQ]["exp_avg"].abs().sum() > 0
    book.after_step(1, optimizer)
    assert optimizer.state[book.codes_KQ]["exp_avg"].abs().sum() == 0


def test_evaluation_never_changes_the_codebook() -> None:
    model, latents = model_and_latents()
    model(latents)
    model.quantizer.after_step(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.eval()
    model(latents)
    model.quantizer.after_step(100)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_kmeans_start_uses_every_code_on_spread_data_and_survives_few_points() -> None:
    book = quantizers.Codebook(SMALL)
    codes = book(torch.randn(200, 8)).codes
    assert codes is not None
    assert len(codes.unique()) == 12
    book = quantizers.Codebook(SMALL)
    assert torch.isfinite(book(torch.ones(5, 8)).z_q).all()


def test_no_quantizer_passes_actions_through() -> None:
    model, latents = model_and_latents(SMALL.replace(quantizer="none"))
    output = model(latents)
    assert output.quantized.codes is None
    assert torch.equal(output.quantized.z_q, output.z_e)


def test_grid_that_the_patch_size_does_not_divide_is_refused() -> None:
    with pytest.raises(BadInput, match=r"patch_size: got 3, which does not divide the latents' grid 8x8; choose a div"):
        LatentActionModel(SMALL.replace(patch_size=3), SHAPE)


@pytest.mark.parametrize("config", [SMALL, SMALL.replace(embed_dim=64, rollout_horizon=3), SMALL.replace(patch_size=2)])
def test_flops_are_those_of_torchs_counter_on_real_tensors(config: RunConfig) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, latents = model_and_latents(config, batch=4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        losses.total(losses.terms(model, latents, model(latents), 1), losses.weights(config)).backward()
    assert 4 * flops.training_flops(config, SHAPE, 1) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_rotary_places_count_by_their_distance_alone() -> None:
    q, k = torch.randn(2, 2, 4, 7), torch.randn(2, 2, 4, 7)  # an odd width keeps its last number as it is
    scores = [blocks.rotate(q, first) @ blocks.rotate(k, first).transpose(-1, -2) for first in (0, 5)]
    torch.testing.assert_close(*scores)
    assert not torch.allclose(scores[0], q @ k.transpose(-1, -2))
    torch.testing.assert_close(blocks.rotate(q, 3).norm(dim=-1), q.norm(dim=-1))


def test_rotary_places_tell_frames_apart_and_read_longer_sequences_than_they_were_trained_on() -> None:
    model, latents = model_and_latents(SMALL.replace(time_positions="rotary"))
    longer = torch.cat([latents, latents[:, :3]], dim=1)
    z_e = model.encode(longer)
    assert z_e.shape[1] == 8
    torch.testing.assert_close(z_e[:, :5], model.encode(latents), rtol=1e-4, atol=1e-5)
    swapped = latents[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(model.encode(swapped)[:, 3], z_e[:, 3], atol=1e-4)
    with pytest.raises(RuntimeError):
        model_and_latents()[0].encode(longer)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_from_its_parts_is_the_kernels(causal: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 5, 8, dtype=torch.bfloat16) for _ in range(3))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=causal)
    torch.testing.assert_close(blocks.attend(q, k, v, causal).double(), exact, rtol=0.05, atol=0.03)
    torch.testing.assert_close(blocks.attend(q.double(), k.double(), v.double(), causal), exact)
