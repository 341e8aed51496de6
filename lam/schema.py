"""The run config: everything that one training run depends on, as one frozen, validated object.

Names and defaults are those of the LAM training guide (docs/references.md), except `quantizer`,
whose default is `ema` because the guide's gradient codebook collapsed on every game tried, and
`codebook_init`, `vq_refresh_interval`, `normalize_codes` and `predict_residual` for the same reason, and `slots`
(docs/decisions/0010-slots.md).
The guide gives no `warmup_steps`, `weight_decay`, `rollout_prob` or `rollout_weight`. Its exact
setting is `configs/seed.yaml`. This module is light: importing it loads no torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from lam.metrics import NEEDS, TABLE
from lam.sections import DataPart, EarlyStopping, LabelRule, Place, Positive, Seed, Share, SplitFile, Weight
from record.workload.settings import (
    Count,
    HealthConfig,
    Settings,
    TrackingConfig,
    Whole,
    digits,
)


class RunConfig(Settings):
    """One run. Build it with `load`, `from_mapping` or by keyword; it cannot be changed afterwards."""

    # data
    data_dir: Place = Field("data", description="folder of videos of latents: .h5, .zarr, .safetensors, .tar "
                            "(WebDataset), .npy, or a LeRobot data set; or the URI of one (s3://bucket/prefix), which "
                            "each machine fetches once")
    data: tuple[DataPart, ...] = Field(
        (), description="several folders instead of data_dir, [{dir, weight}, ...]; a sequence of a batch is of each "
        "with the probability of its weight, and validation scores all their validation sequences alike")
    latents: str | None = Field(None, description="name of the latents in a video: of its dataset, tensor, array or "
                                "feature; default: embeddings, of LeRobot observation.latent")
    manifest_path: SplitFile | None = Field(None, description="split file; default: data_dir/manifest.json")
    sequence_length: int = Field(8, ge=3, description="latent frames in one sequence")
    window_stride: Count = Field(1, description="latent frames between the starts of two training sequences")
    cache: bool = Field(True, description="decode the files once into a memory-mapped cache shared by all processes")

    # model
    embed_dim: int = Field(512, ge=8, description="transformer width")
    encoder_depth: Count = Field(3, description="encoder blocks")
    decoder_depth: Count = Field(3, description="decoder blocks")
    head_dim: Count = Field(64, description="width of one attention head; must divide embed_dim or exceed it")
    patch_dim: Count = Field(256, description="channels of a patch after the convolutional adapter")
    patch_size: Count = Field(4, description="kernel and stride of the adapters, in latent cells")
    num_codes: Annotated[int, Field(ge=1, le=1024)] = Field(3, description="code slots of one action (S)")
    slots: Literal["residual", "parallel"] = Field(
        "residual", description="residual: each slot codes what the slots before it left of one embedding, with a "
        "codebook of its own; parallel: an embedding a slot, one codebook for all (the guide's model)")
    num_embeddings: Count = Field(12, description="codes in a codebook (K)")
    codebook_dim: Count = Field(128, description="width of one code")
    quantizer: Literal["ema", "vq", "rotation", "simvq", "fsq", "none"] = Field(
        "ema", description="how actions become discrete; rotation is ema with the rotation trick's gradient")
    commitment_weight: Weight = Field(0.25, description="weight of the commitment loss")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="decay of a codebook's averages of its codes and of their use")
    vq_refresh_interval: Whole = Field(100, description="optimizer steps between revivals of dead codes; 0 = never")
    revive_below: Weight = Field(0.1, description="a code is dead below this share of uniform use (units of 1/K)")
    codebook_init: Literal["kmeans", "uniform"] = Field(
        "kmeans", description="first codes: centres of the first batch, or uniform in ±1/K")
    normalize_codes: bool = Field(True, description="layer-normalise the encoder's output before it is quantised")
    frame_pool: Literal["last", "mean", "attention"] = Field(
        "last", description="which frames up to t+1 an action is read from: the last, their mean, or a learned mixture")
    time_positions: Literal["learned", "rotary"] = Field(
        "learned", description="how attention knows the order of frames: learned adds a vector for each place; rotary "
        "turns queries and keys by their distance, so that no place is special and longer sequences can be read")
    frame_difference: bool = Field(
        False, description="the encoder also sees by how much each patch changed from the frame before")
    predict_residual: bool = Field(True, description="the decoder predicts the change from the last frame")
    action_modulation: Literal["film", "adaln"] = Field(
        "film", description="how an action enters the decoder's blocks: film scales and shifts their input; adaln adds "
        "a scaled and shifted norm of it, from zero, so that its size does not grow with decoder_depth")

    init_from: str | None = Field(
        None, description="a run, or a folder of lam export, whose weights training begins with; its latents and the "
        "keys of the model must be the same, everything else may be another")

    # loss
    reconstruction_weight: Weight = Field(1.0, description="weight of the reconstruction term")
    change_weight: Weight = Field(
        0.0, description="weight of the reconstruction where the picture changes: 1 + change_weight * m/mean m, m = "
        "the change_measure of a latent cell over the training split; 1 where the decoder ignores the codes")
    change_measure: Literal["innovation", "difference"] = Field(
        "innovation", description="innovation: mean squared error of the best linear prediction of a cell from its "
        "neighbourhood in the two frames before, so that what moves by itself counts little; difference: mean squared "
        "difference of two frames")
    change_weight_decay_epochs: Count | None = Field(
        None, description="epochs over which change_weight falls to 0, linearly by steps; null = it stays")
    action_weight: Weight = Field(
        0.0, description="weight of the cross-entropy of true actions, named by a linear head on the code of each "
        "labelled transition of the training split; 0 = training sees no label")
    action_start_epoch: Whole = Field(0, description="epochs in which that head learns alone, before the codes do")
    labels: LabelRule = Field(default_factory=LabelRule)
    rollout_horizon: Count = Field(2, description="frames predicted in a rollout, the first one included")
    rollout_prob: Share = Field(1.0, description="share of batches with a rollout")
    rollout_weight: Weight = Field(1.0, description="weight of the rollout term")
    rollout_detach: bool = Field(True, description="no gradient through the rollout's first prediction")

    # optimisation
    num_epochs: Count = Field(100, description="epochs to train")
    steps_per_epoch: Count | None = Field(None, description="steps of one epoch; default: every sequence once")
    batch_size: Count = Field(32, description="sequences in one step")
    learning_rate: Positive = Field(1e-4, description="AdamW's peak learning rate")
    weight_decay: Weight = Field(0.01, description="AdamW's weight decay")
    warmup_steps: Whole = Field(100, description="steps of linear warmup")
    lr_decay_epochs: Count | None = Field(None, description="epochs over which a cosine brings the rate to a tenth")
    grad_clip: Positive = Field(1.0, description="largest global gradient norm")
    accumulate_parts: Count = Field(1, description="parts a batch goes through the model in; the step stays the same")
    average_weights: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of a running average of the weights, which is then evaluated and kept; null = none")
    early_stopping: EarlyStopping | None = Field(None, description="end a run that no longer gets better; null = never")
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of the training step; quantizer, losses and evaluation are float32 always")
    compile: bool = Field(False, description="compile the encoder and the decoder with torch.compile")
    recompute: bool = Field(
        False, description="compute activations in blocks again on the way back: less memory, more time, same numbers")
    seed: Seed = Field(0, description="seed of the weights, the batch order and the revivals")
    threads: Whole = Field(0, le=1024, description="CPU threads; 0 = torch decides")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto = a GPU where there is one")

    # evaluation
    eval_batch_size: Count = Field(64, description="sequences evaluated at a time; changes numbers by rounding only")
    eval_sequences: Count = Field(512, description="at most so many sequences of a split are scored")
    label_sequences: Count | None = Field(
        2048, description="at most so many sequences that end in a known true action are asked for it, which takes the "
        "encoder alone; null = as many as are scored")
    eval_seed: Seed = Field(0, description="seed of the random and flipped codes")
    val_every: Count = Field(1, description="epochs between two validations; the last epoch is always validated")
    val_at_tflops: tuple[Positive, ...] = Field(
        (), description="also validated after the first epoch that ends at or past each of these TFLOPs")
    objective_preset: Literal["auto", "action", "control_health", "dsnr_health", "mse"] = Field(
        "auto", description="what val/objective ranks by; auto = action where 100 true actions of the validation split "
        "are scored, else control_health")
    perplexity_target: Annotated[float, Field(gt=1)] | None = Field(
        None, description="per-slot perplexity of full health, above 1; default: max(2, num_embeddings / 4)")
    health: HealthConfig = Field(default_factory=HealthConfig)

    # records
    keep: Literal["best", "last", "all"] = Field(
        "best", description="checkpoints kept when the run has finished; all keeps its state too, so that it can be "
        "prolonged with a larger num_epochs")
    checkpoint_steps: Count | None = Field(
        None, description="steps between two saves of the state inside an epoch; null = at its end only")
    checkpoint_minutes: Positive | None = Field(
        None, description="the state is also saved inside an epoch once so many minutes have passed since; null = "
        "at its end only")
    log_steps: Count | None = Field(
        None, description="steps between two lines of steps.jsonl, with losses, gradient and samples/s; null = none")
    checkpoint_every: Count | None = Field(None, description="also keep the weights of every N-th epoch")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    sample_count: Whole = Field(4, description="picture strips written at each validation, where the data has a codec")

    # Keys of `BEFORE` that the record lacks which this config was read from.
    _absent: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="before")
    @classmethod
    def _first_of_mixture(cls, values: Any) -> Any:
        """The folder of a mixture that stands for it where one is asked for."""
        parts = values.get("data") if isinstance(values, dict) else None
        if isinstance(parts, (list, tuple)) and parts and "data_dir" not in values:
            first = parts[0]
            return values | {"data_dir": first.get("dir") if isinstance(first, dict) else getattr(first, "dir", "")}
        return values

    @model_validator(mode="after")
    def _is_one_mixture(self) -> RunConfig:
        if self.data and self.data_dir != self.data[0].dir:
            raise ValueError(f"got data_dir {self.data_dir} and data; leave data_dir out")
        if self.data and self.manifest_path:
            raise ValueError("manifest_path is of one folder; give each folder of data its own manifest")
        for key, of in (("dir", lambda part: os.path.normpath(part.dir)), ("name", lambda part: part.called)):
            twice = [value for value, count in Counter(map(of, self.data)).items() if count > 1]
            if twice:
                raise ValueError(f"data has the {key} {twice[0]} twice" + (
                    "; raise its weight instead" if key == "dir" else "; give each a name of its own"))
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.embed_dim % min(self.head_dim, self.embed_dim):
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by head_dim {self.head_dim}")
        if self.rollout_horizon > self.sequence_length - 1:
            raise ValueError(f"rollout_horizon {self.rollout_horizon} needs sequence_length of at least "
                             f"{self.rollout_horizon + 1}, got {self.sequence_length}")
        if self.quantizer == "fsq" and self.num_embeddings < 2:
            raise ValueError("quantizer fsq needs num_embeddings of at least 2, got 1")
        if self.lr_decay_epochs is not None and self.lr_decay_epochs > 10 * self.num_epochs:
            raise ValueError(f"lr_decay_epochs {self.lr_decay_epochs} is over ten times num_epochs {self.num_epochs}")
        watched = self.early_stopping.metric if self.early_stopping else None
        if watched and self.lacks(watched):
            raise ValueError(f"early_stopping.metric {watched} needs {self.lacks(watched)}; watch val/objective")
        return self

    def lacks(self, metric: str) -> str:
        """What this run lacks that a metric needs, in words; '' where nothing. Only the data know of labels."""
        have = {"codes": self.quantizer != "none", "codebook": self.quantizer not in ("none", "fsq"),
                "averaging": self.average_weights is not None, "rollout": self.rollout_horizon > 1,
                "change": self.change_weight > 0, "taught": self.action_weight > 0, "sources": len(self.data) > 1,
                "labels": True}
        return " and ".join(NEEDS[need] for need in TABLE[metric].needs if not have[need])

    @property
    def manifest(self) -> Path:
        """Path of the split file."""
        return Path(self.manifest_path) if self.manifest_path else Path(self.data_dir) / "manifest.json"

    @property
    def full_health_perplexity(self) -> float:
        """P*, the per-slot perplexity at which codebook health reaches 1."""
        return self.perplexity_target or max(2.0, self.num_embeddings / 4)

    @property
    def stops_early(self) -> bool:
        """Whether the run may end by itself before its last epoch."""
        return self.early_stopping is not None

    @property
    def residual_slots(self) -> bool:
        """Whether each slot codes what the slots before it left; continuous actions have nothing to leave."""
        return self.slots == "residual" and self.quantizer != "none"

    @property
    def idle(self) -> frozenset[str]:
        """Keys that came later and that say nothing beside the others."""
        return frozenset() if self.change_weight else frozenset({"change_measure"})

    @property
    def books(self) -> int:
        """Codebooks of the quantizer: one a residual slot, or one for all slots."""
        return self.num_codes if self.residual_slots else 1

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again; moved or prolonged, a record stays what it was."""
        values = self.model_dump()
        found = super().replace(**changes)
        same = found.model_dump()
        if all(same[key] == values[key] for key in changes if key not in RESUMABLE):
            found._absent = self._absent
        return found

    def steps_in_epoch(self, sequences: int) -> int:
        """Optimizer steps of one epoch of this many training sequences."""
        return self.steps_per_epoch or max(1, sequences // self.batch_size)

    def mapping(self) -> dict[str, Any]:
        """Plain values of every field, in the schema's order; of an older version's record, those that it had."""
        return {key: value for key, value in super().mapping().items() if key not in self._absent}

    def comparable(self, aside: Iterable[str]) -> str:
        """As of any config; of a mixture, without where its folders lie, where that of `data_dir` is left aside."""
        left_out = set(aside)
        kept = {key: value for key, value in self.identity().items() if key not in left_out}
        return digits(placeless(kept) if "data_dir" in left_out else kept)

    def identity(self) -> dict[str, Any]:
        """The values that tell this config from another, but for where its records are copied to.

        A key of `BEFORE` counts only where it says something new, so that a config keeps its name when the schema
        gains a key; nor does the measure of a change that has no weight.
        """
        return {key: value for key, value in self.model_dump(mode="json").items() if key != "tracking"
                and key not in self.idle and not (key in BEFORE and value == BEFORE[key])}


# What a run did before the schema had these keys: a record that names every other key and lacks one of them was
# written by an older version, and means this. A key that is added to the schema is added here.
BEFORE: dict[str, Any] = {"slots": "parallel", "time_positions": "learned", "frame_difference": False,
                          "action_modulation": "film", "change_weight": 0.0, "change_measure": "difference",
                          "change_weight_decay_epochs": None,
                          "action_weight": 0.0, "action_start_epoch": 0, "labels": {"share": 1.0, "files": None},
                          "init_from": None, "log_steps": None, "data": [], "latents": None, "checkpoint_minutes": None,
                          "label_sequences": None}

# Fields that change how a run is computed and kept, and no result beyond rounding.
CHANGES_NO_RESULT = ("eval_batch_size", "cache", "keep", "checkpoint_every", "checkpoint_steps",
                     "checkpoint_minutes", "log_steps", "sample_count",
                     "accumulate_parts", "compile", "recompute")

# Fields that a resume may change: with these a run is prolonged or moved, to data that are told by their content.
RESUMABLE = (*CHANGES_NO_RESULT, "num_epochs", "threads", "device", "data_dir", "manifest_path", "tracking")

# Of a folder of a mixture, where it lies.
PLACES = ("dir", "manifest")


def placeless(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a config, of a mixture without where its folders lie: they are told by their content."""
    return {key: [{name: each for name, each in part.items() if name not in PLACES} for part in value]
            if key == "data" else value for key, value in values.items()}
