"""The one interface of the quantizers: every one of them keeps it, the library's own included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lam.config import RunConfig, from_mapping
from lam.model import flops, library, losses, quantizers
from lam.model.lam import LatentActionModel, make_quantizer
from record.errors import BadInput

SLOTS = ("residual", "parallel")
DISCRETE = ("ema", "vq", "rotation", "simvq", "fsq")
SHAPE = (16, 8, 8)
SMALL = RunConfig(embed_dim=32, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=32, codebook_dim=8,
                  sequence_length=6)


def made(name: str, **changes: object) -> quantizers.Quantizer:
    torch.manual_seed(0)
    return make_quantizer(SMALL.replace(quantizer=name, **changes))


def embeddings(batch: int = 6, rows: int = 3) -> Tensor:
    return torch.randn(batch, 5, rows, 8, generator=torch.Generator().manual_seed(1))


def given(name: str, slots: str) -> Tensor:
    """Embeddings as the encoder makes them: one an action where slots are residual."""
    return embeddings(rows=1 if slots == "residual" and name != "none" else 3)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", DISCRETE)
def test_codes_look_up_what_the_decoder_gets(name: str, slots: str) -> None:
    quantizer, z_e = made(name, slots=slots), given(name, slots)
    quantizer(z_e)
    quantizer.eval()
    result = quantizer(z_e)
    assert result.codes is not None
    assert result.codes.shape == (6, 5, 3)
    assert result.z_q.shape == (6, 5, 3, 8)
    assert quantizer.restored(result.z_q).shape == z_e.shape
    assert result.codes.dtype == torch.int64
    assert int(result.codes.min()) >= 0
    assert int(result.codes.max()) < 12
    torch.testing.assert_close(quantizer.lookup(result.codes), result.z_q)
    assert result.codebook_loss.shape == result.commitment_loss.shape == (6,)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", DISCRETE)
def test_every_code_has_a_vector_of_its_own(name: str, slots: str) -> None:
    quantizer = made(name, codebook_init="uniform", slots=slots)
    vectors_KSQ = quantizer.lookup(torch.arange(12)[:, None].expand(-1, 3))
    assert len(vectors_KSQ.flatten(0, 1).unique(dim=0)) == (36 if slots == "residual" else 12)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", DISCRETE)
def test_the_decoders_gradient_reaches_the_embeddings_through_every_slot(name: str, slots: str) -> None:
    quantizer = made(name, slots=slots)
    for slot in range(3):
        z_e = given(name, slots).requires_grad_()
        quantizer(z_e).z_q[:, :, slot].pow(2).sum().backward()
        assert z_e.grad is not None
        assert z_e.grad.abs().sum() > 0


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", DISCRETE)
def test_the_decoders_gradient_reaches_the_embeddings(name: str, slots: str) -> None:
    quantizer = made(name, slots=slots)
    z_e = given(name, slots).requires_grad_()
    quantizer(z_e).z_q.pow(2).sum().backward()
    assert z_e.grad is not None
    assert z_e.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [*DISCRETE, "none"])
def test_bf16_is_quantised_in_float32(name: str) -> None:
    model = LatentActionModel(SMALL.replace(quantizer=name), SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = model(torch.randn(3, 6, *SHAPE)).quantized
    assert quantized.z_q.dtype == quantized.codebook_loss.dtype == torch.float32


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", [*DISCRETE, "none"])
def test_evaluation_changes_nothing(name: str, slots: str) -> None:
    quantizer = made(name, slots=slots)
    quantizer(given(name, slots))
    quantizer.after_step(1)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.eval()
    quantizer(given(name, slots))
    quantizer.after_step(100)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", [*DISCRETE, "none"])
def test_each_learns_with_the_rest_of_the_model(name: str, slots: str) -> None:
    config = SMALL.replace(quantizer=name, slots=slots, predict_residual=False)
    torch.manual_seed(0)
    model, latents = LatentActionModel(config, SHAPE), torch.randn(4, 6, *SHAPE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    seen = []
    for step in range(1, 16):
        loss = losses.total(losses.terms(model, latents, model(latents), 1), losses.weights(config))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.quantizer.after_step(step, optimizer)
        seen.append(float(loss.detach()))
    assert math.isfinite(seen[-1])
    assert seen[-1] < seen[0]


@pytest.mark.parametrize("name", DISCRETE)
def test_flops_are_counted_with_every_quantizer(name: str) -> None:
    plain = flops.training_flops(SMALL.replace(quantizer="none"), SHAPE, 1)
    for slots in SLOTS:  # a query and a head less where slots share an embedding
        found = flops.training_flops(SMALL.replace(quantizer=name, slots=slots), SHAPE, 1)
        assert found == pytest.approx(plain, rel=0.02)


def test_operations_are_those_of_the_step_and_not_of_how_it_is_computed() -> None:
    assert flops.training_flops(SMALL.replace(recompute=True), SHAPE, 1) == flops.training_flops(SMALL, SHAPE, 1)


def test_a_code_does_not_depend_on_how_many_are_looked_up_at_a_time() -> None:
    """Two codes that float32 only just tells apart: an algorithm that changes with the rows would mix them."""
    quantizer = made("vq", num_embeddings=2, slots="parallel").eval()
    z_e = 30 + torch.randn(400, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    quantizer.codes_KQ.data = torch.stack([z_e[0, 0, 0], z_e[0, 0, 0] + 1e-5])
    whole = quantizer(z_e).codes
    assert torch.equal(whole, torch.cat([quantizer(part).codes for part in z_e.split(2)]))


def test_rotation_keeps_the_value_and_turns_the_gradient() -> None:
    straight, turned = made("ema", slots="parallel"), made("rotation", slots="parallel")
    gradients = []
    for quantizer in (straight, turned):
        z_e = embeddings().requires_grad_()
        result = quantizer(z_e)
        torch.testing.assert_close(result.z_q, quantizer.lookup(result.codes))
        (result.z_q * torch.arange(8.0)).sum().backward()
        gradients.append(z_e.grad)
    assert not torch.allclose(*gradients)


def test_codebook_loss_of_simvq_trains_its_map_and_nothing_moves_the_frozen_codes() -> None:
    quantizer = made("simvq", vq_refresh_interval=1, revive_below=12.0, slots="parallel")
    quantizer(embeddings()).codebook_loss.sum().backward()
    trained = {name for name, parameter in quantizer.named_parameters() if parameter.grad is not None}
    frozen = quantizer.get_buffer("book.frozen_codebook").clone()
    quantizer.after_step(1)
    assert trained == {"book.code_transform.weight"}
    assert torch.equal(quantizer.get_buffer("book.frozen_codebook"), frozen)


@pytest.mark.parametrize(("count", "expected"), [(12, [4, 3]), (8, [4, 2]), (2, [2]), (16, [4, 4]), (11, [11]),
                                                 (30, [5, 3, 2])])
def test_levels_of_fsq_multiply_to_the_number_of_codes(count: int, expected: list[int]) -> None:
    assert library.levels(count) == expected


def test_fsq_with_a_single_code_is_refused() -> None:
    with pytest.raises(BadInput, match="quantizer fsq needs num_embeddings of at least 2, got 1"):
        from_mapping({"quantizer": "fsq", "num_embeddings": 1}, source="run.yaml")


def test_continuous_actions_have_no_codes_to_look_up() -> None:
    with pytest.raises(TypeError, match="Identity has no codes to look up"):
        made("none").lookup(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("pool", ["mean", "last", "attention"])
def test_every_frame_pool_is_causal_and_only_last_reads_one_frame_through_the_pool(pool: str) -> None:
    torch.manual_seed(0)
    encoder = LatentActionModel(SMALL.replace(frame_pool=pool), SHAPE).encoder
    patches = torch.randn(2, 6, 4, 32)
    z_e = encoder(patches)
    later, own = patches.clone(), patches.clone()
    later[:, 4:] += 1
    own[:, 3] += 1
    assert torch.equal(encoder(later)[:, 2], z_e[:, 2])
    assert not torch.allclose(encoder(own)[:, 2], z_e[:, 2])
    slots = torch.randn(2, 6, 3, 32)
    if pool != "last":
        mixed, first = encoder._pool_frames(slots), slots.clone()
        first[:, 0] += 1
        assert torch.equal(mixed[:, 0], slots[:, 0]) or torch.allclose(mixed[:, 0], slots[:, 0], atol=1e-6)
        assert not torch.allclose(encoder._pool_frames(first)[:, 4], mixed[:, 4])
