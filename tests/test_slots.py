"""Slots that add: each codes what the ones before it left, with a book of its own, from first codes to the record."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lam import codebook
from lam.config import RunConfig
from lam.evaluation import draws
from lam.model import library, quantizers
from lam.model.lam import LatentActionModel, make_quantizer
from lam.model.residual import ResidualSlots
from lam.training import vitals
from lam.training.stepping import Stepper, distinct

SMALL = RunConfig(embed_dim=32, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=32, codebook_dim=8,
                  sequence_length=6)
SHAPE = (16, 8, 8)


def made(name: str = "ema", **changes: object) -> ResidualSlots:
    torch.manual_seed(0)
    found = make_quantizer(SMALL.replace(quantizer=name, **changes))
    assert isinstance(found, ResidualSlots)
    return found


def embeddings(count: int = 40) -> Tensor:
    return torch.randn(count, 5, 1, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["ema", "vq", "rotation", "simvq"])
def test_each_slot_codes_what_the_slots_before_it_left(name: str) -> None:
    quantizer, z_e = made(name), embeddings()
    quantizer(z_e)
    found = quantizer.eval()(z_e)
    left = z_e[..., 0, :].numpy().reshape(-1, 8).astype(float)
    for slot, book in enumerate(quantizer.books):
        codes_KQ = book.codes_KQ.detach().numpy().astype(float)
        nearest = np.linalg.norm(left[:, None] - codes_KQ, axis=-1).argmin(1)
        np.testing.assert_array_equal(found.codes[..., slot].flatten(), nearest)
        left = left - codes_KQ[nearest]
    gap = z_e - quantizer.restored(found.z_q)
    np.testing.assert_allclose(gap.detach().flatten(0, 2), left, atol=1e-5)


def test_every_slot_brings_the_sum_nearer() -> None:
    quantizer, z_e = made("vq", num_codes=4), embeddings()
    z_q = quantizer(z_e).z_q
    gaps = [float((z_e - z_q[..., :slots, :].sum(-2, keepdim=True)).pow(2).mean()) for slots in range(5)]
    assert all(after < 0.8 * before for before, after in itertools.pairwise(gaps))


def test_scalar_slots_are_the_librarys_residual_layers() -> None:
    """The sum of the scaled grids is what `ResidualFSQ` gives for the same input."""
    from vector_quantize_pytorch import ResidualFSQ

    torch.manual_seed(0)
    config = SMALL.replace(quantizer="fsq")
    ours = library.ResidualScalars(config).eval()
    z_e = embeddings()
    theirs = ResidualFSQ(levels=[4, 3], num_quantizers=3, dim=2).eval()
    inner = ours.inward(z_e.reshape(-1, 8)).tanh() * ours.reach_D
    whole, codes = theirs(inner[None] * 1.0)
    limits = theirs.soft_clamp_input_value
    same = (inner / limits).tanh() * limits  # the library clamps softly once more; so give ours what it sees
    left, mine = same, []
    for scale in ours.scales_SD:
        rounded, numbers = ours.book((left / scale)[None])
        left = left - rounded[0] * scale
        mine.append(numbers[0])
    torch.testing.assert_close(same - left, whole[0])
    assert torch.equal(torch.stack(mine, -1), codes[0])
    assert ours(z_e).codes.shape == (40, 5, 3)


def test_first_codes_are_centres_of_what_each_book_is_given() -> None:
    z_e, forward, ahead = embeddings(), made("vq"), made("vq")
    forward(z_e)
    ahead.prepare(z_e)
    for book, other in zip(forward.books, ahead.books, strict=True):
        assert torch.equal(book.codes_KQ, other.codes_KQ)
        assert bool(other.initialized)
    sizes = [float(book.codes_KQ.detach().norm(dim=1).mean()) for book in ahead.books]
    assert sizes == sorted(sizes, reverse=True)


def test_each_book_revives_from_its_own_remainders_and_draws_for_itself() -> None:
    quantizer = made("vq", codebook_init="uniform", vq_refresh_interval=1, revive_below=12.0)
    z_e = embeddings()
    found = quantizer(z_e)
    lefts, left = [], z_e.reshape(-1, 8)
    for slot in range(3):
        lefts.append(left)
        left = left - found.z_q[..., slot, :].detach().reshape(-1, 8)
    quantizer.after_step(1)
    rows = []
    for given, book in zip(lefts, quantizer.books, strict=True):
        far_KN = torch.cdist(book.codes_KQ.detach(), given)
        rows.append(far_KN.argmin(1).tolist())
        assert float(far_KN.min(1).values.max()) < 1e-2  # far below the spacing of the data
    assert rows[0] != rows[1] != rows[2]


def test_losses_are_means_over_slots_and_move_what_they_should() -> None:
    quantizer = made("vq")
    z_e = embeddings().requires_grad_()
    quantizer(z_e)
    found = quantizer(z_e)
    found.codebook_loss.sum().backward(retain_graph=True)
    assert z_e.grad is None or z_e.grad.abs().sum() == 0
    assert all(book.codes_KQ.grad.abs().sum() > 0 for book in quantizer.books)
    left, gaps = z_e.detach(), []
    for slot in range(3):
        entry = found.z_q[..., slot : slot + 1, :].detach()
        gaps.append((left - entry).pow(2).flatten(1).mean(1))
        left = left - entry
    torch.testing.assert_close(found.commitment_loss, torch.stack(gaps).mean(0))


def test_flipping_a_slot_leaves_the_others_as_they_are() -> None:
    quantizer = made("vq")
    codes = quantizer(embeddings()).codes[:, -1]
    flipped = codes.clone()
    for row in range(len(codes)):
        _, slot, shift = draws.draw(SMALL, "a.h5", row)
        flipped[row, slot] = (flipped[row, slot] + shift) % 12
    same = (quantizer.lookup(flipped) == quantizer.lookup(codes)).all(-1)
    assert (same.sum(1) == 2).all()
    assert torch.equal(same, flipped == codes)


def test_codes_in_use_are_counted_book_by_book() -> None:
    codes_NS = torch.tensor([[0, 0, 5], [1, 0, 5], [2, 0, 5]])
    assert distinct(codes_NS, books=3) == pytest.approx((3 + 1 + 1) / 3)
    assert distinct(codes_NS, books=1) == 4
    state = codebook.codebook_health(codes_NS.numpy(), 6, 2.0, books=3)
    assert state.unique == pytest.approx(5 / 3)
    assert state.usage_by_slot == [3, 1, 1]
    assert state.perplexity_by_slot == pytest.approx([3, 1, 1])
    assert state.histogram == [1, 1, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert state.joint_bits == pytest.approx(math.log2(3))


def test_a_first_slot_that_says_it_all_is_no_collapse_and_one_tuple_is() -> None:
    three = np.stack([np.arange(90) % 3, np.zeros(90, int), np.zeros(90, int)], axis=1)
    assert not codebook.codebook_health(three, 12, 3.0, books=3).collapsed
    assert codebook.codebook_health(three, 12, 3.0, books=1).collapsed  # one book for all: two slots say nothing
    assert codebook.codebook_health(three * 0 + 4, 12, 3.0, books=3).collapsed


def test_redundancy_is_1_for_copies_0_for_independent_slots_and_not_defined_for_one_that_speaks_alone() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(8, size=4000)
    copies, free = np.stack([one, one, one], 1), rng.integers(8, size=(4000, 2))
    alone = np.stack([one, one * 0], 1)
    found = [codebook.codebook_health(codes, 8, 2.0).redundancy for codes in (copies, free, alone)]
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(0, abs=0.01)
    assert math.isnan(found[2])


def test_a_frozen_book_is_seen_among_those_that_move() -> None:
    model = LatentActionModel(SMALL, SHAPE)
    before = vitals.snapshot(model)
    with torch.no_grad():
        model.quantizer.get_buffer("books.2.codes_KQ")[0] += 1
    assert vitals.update_ratios(model, before)["train/update_ratio_codebook"] > 0.01


@pytest.mark.parametrize("quantizer", ["ema", "vq"])
def test_accumulated_parts_start_every_book_from_the_whole_batch(quantizer: str) -> None:
    latents = torch.randn(8, 6, *SHAPE, generator=torch.Generator().manual_seed(2))
    starts = []
    for parts in (1, 4):
        torch.manual_seed(0)
        config = SMALL.replace(quantizer=quantizer, accumulate_parts=parts, learning_rate=1e-12, ema_decay=0.999)
        model = LatentActionModel(config, SHAPE)
        Stepper(config, model, 1).step(latents, None)
        starts.append(torch.cat([book.codes_KQ.detach() for book in model.quantizer.books]))
    torch.testing.assert_close(*starts, rtol=1e-3, atol=1e-3)


def test_books_are_kept_with_the_model() -> None:
    names = set(LatentActionModel(SMALL.replace(quantizer="vq"), SHAPE).state_dict())
    assert {f"quantizer.books.{book}.codes_KQ" for book in range(3)} <= names


def test_continuous_actions_have_no_slots_that_add() -> None:
    assert not SMALL.replace(quantizer="none").residual_slots
    assert isinstance(make_quantizer(SMALL.replace(quantizer="none")), quantizers.Identity)
    model = LatentActionModel(SMALL.replace(quantizer="none"), SHAPE)
    assert model(torch.randn(1, 6, *SHAPE)).z_e.shape == (1, 5, 3, 8)
