"""The latent action model as sweeps and analysis meet it: all that they know of it, in one place.

Importing this loads neither torch nor h5py; what needs them imports them when it is called.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from lam import codebook
from lam import config as config_module
from lam.config import RunConfig
from lam.metrics import NEEDS, TABLE, with_tflops
from lam.schema import CHANGES_NO_RESULT, RESUMABLE
from record.run import RunFolder
from record.storage import sets
from record.text import count
from record.workload.knobs import KnobRule, Onset, Reach, Size
from record.workload.observation import Observation
from record.workload.settings import Settings
from record.workload.workload import Curve, Workload

_OWN_CODES = ("ema", "vq", "rotation")
_AVERAGED = ("ema", "rotation")
_CODES = Reach(lambda config: config.quantizer != "none", "a quantizer other than none")
_OWN = Reach(lambda config: config.quantizer in _OWN_CODES, "a quantizer with codes of its own (ema, vq, rotation)")
_REVIVAL = Reach(lambda config: config.quantizer in _OWN_CODES and config.vq_refresh_interval > 0,
                 "a quantizer with codes of its own (ema, vq, rotation) and vq_refresh_interval above 0")
_BOOK = Reach(lambda config: config.quantizer not in ("none", "fsq"),
              "a quantizer with a codebook, other than none and fsq")
_SLOTS = Reach(lambda config: config.quantizer != "none" and config.num_codes > 1,
               "a quantizer other than none and num_codes above 1")
_CHANGE = Reach(lambda config: config.change_weight > 0, "change_weight above 0")
_TAUGHT = Reach(lambda config: config.action_weight > 0, "action_weight above 0")
_FIRST_REVIVAL = "the first revival of dead codes"


def _rolls_out(also: str) -> Reach:
    return Reach(lambda config: config.rollout_horizon > 1 and getattr(config, also) > 0,
                 f"rollout_horizon above 1 and {also} above 0")


def _forgets_by_it(config: RunConfig) -> bool:
    """Whether codes count as dead by an average that ema_decay decides; see `lam.model.quantizers.usage_decay`."""
    interval, below = config.vq_refresh_interval, config.revive_below
    return interval > 0 and 0 < below < 1 and config.ema_decay < below ** (1 / max(1, interval - 1))


_AVERAGES = Reach(lambda config: config.quantizer in _AVERAGED or (config.quantizer == "vq" and _forgets_by_it(config)),
                  "quantizer ema or rotation, or revivals at an interval that is long for it")


def _knobs() -> dict[str, KnobRule]:
    revival = Onset(lambda config: config.vq_refresh_interval, _FIRST_REVIVAL)
    averages = Onset(lambda config: 1 if config.quantizer in _AVERAGED else config.vq_refresh_interval, _FIRST_REVIVAL)
    certain = dict.fromkeys((
        "action_modulation", "batch_size", "change_weight", "codebook_dim", "decoder_depth", "embed_dim",
        "encoder_depth", "frame_difference", "learning_rate", "normalize_codes", "num_codes", "patch_dim", "patch_size",
        "predict_residual", "quantizer", "reconstruction_weight", "rollout_horizon", "seed", "sequence_length",
        "time_positions", "window_stride"), KnobRule(certain=True))
    return {
        **certain,
        "slots": KnobRule(_SLOTS, certain=True),
        "action_weight": KnobRule(by_chance="no batch of the probe held a label"),
        "action_start_epoch": KnobRule(_TAUGHT, by_chance="the probe ends before either epoch"),
        "change_measure": KnobRule(_CHANGE, certain=True),
        "change_weight_decay_epochs": KnobRule(_CHANGE, by_chance="the decay is too slow to show in the probe"),
        "num_embeddings": KnobRule(_CODES, certain=True),
        "codebook_init": KnobRule(_OWN, certain=True),
        "commitment_weight": KnobRule(_BOOK, certain=True),
        "ema_decay": KnobRule(_AVERAGES, averages, certain=True),
        "vq_refresh_interval": KnobRule(_OWN, revival, certain=True),
        "revive_below": KnobRule(_REVIVAL, revival, certain=True),
        "rollout_weight": KnobRule(_rolls_out("rollout_prob"), certain=True),
        "rollout_prob": KnobRule(_rolls_out("rollout_weight"), certain=True,
                                 by_chance="no step of the probe drew its coin between the two values"),
        "rollout_detach": KnobRule(_rolls_out("rollout_weight"), certain=True),
        "steps_per_epoch": KnobRule(certain=True, effect="it is the length of an epoch"),
        "grad_clip": KnobRule(by_chance="no gradient of the probe was as long as the smaller value"),
        "lr_decay_epochs": KnobRule(by_chance="the decay is too slow to show in the probe"),
    }


_CHANGES_WHAT_IS_MEASURED = ("objective_preset", "perplexity_target", "eval_seed", "eval_sequences",
                             "label_sequences", "val_every")

# Averages of the codes' use decide about revivals only: they change nothing until one comes.
_BOOKKEEPING = ("usage_K", "weights_K", "sums_KQ", "cluster_size", "embed_avg")


class LatentActions(Workload):
    """`lam.training.loop.train` over `RunConfig`."""

    name = "lam"
    profile = "lam"
    config = RunConfig
    metrics = TABLE
    objective = "val/objective"
    error = "val/mse_loss"
    train = "lam.training.loop:train"
    together = "lam.training.loop:train_together"
    fixed: ClassVar[Mapping[str, str]] = {
        "health": "it judges trials, so they could not be compared",
        **dict.fromkeys(_CHANGES_WHAT_IS_MEASURED, "it changes what is measured, so trials could not be compared"),
    }
    no_result = frozenset(CHANGES_NO_RESULT)
    resumable = frozenset(RESUMABLE)
    aside = frozenset(("data_dir", "manifest_path", "data", "latents", "threads", "device", "cache", "keep",
                       "checkpoint_every", "sample_count", "eval_batch_size", "val_at_tflops", "seed", "tracking"))
    endings = frozenset(("early_stopping",))
    path_knobs = ("data_dir", "manifest_path", "init_from")
    shown = ("val/action_skill", "val/control", "val/codebook_health", "val/perplexity_slot", "val/dsnr",
             "val/mse_loss")
    knobs = _knobs()
    curves = (Curve("val/objective", "Objective"), Curve("val/mse_loss", "Validation MSE", log=True),
              Curve("val/action_skill", "Action skill"), Curve("val/control", "Control"),
              Curve("val/perplexity_slot", "Slot perplexity"))
    rows = ()

    def read(self, values: Mapping[str, Any], source: str | Path) -> RunConfig:
        """Validate a mapping; a complete record of an older version means what it meant to that version."""
        return config_module.from_mapping(dict(values), source)

    def absolute(self, config: Settings, folder: Path) -> RunConfig:
        """The config with the paths of its data, its split file and its health profile made absolute."""
        return config_module.relative_paths_from(_own(config), folder)

    def validated_at(self, config: Settings, tflops: Sequence[float]) -> Settings:
        """The config that is also validated at these operations."""
        return config.replace(val_at_tflops=list(tflops))

    def lacks(self, config: Settings, metric: str) -> str:
        """What a run of this config lacks that a metric needs; codes, too, where the objective is to rank by them."""
        own = _own(config)
        if metric == self.objective and own.quantizer == "none" and self.needs_codes(metric, own.mapping()):
            return NEEDS["codes"]
        return own.lacks(metric)

    def needs_codes(self, objective: str, config: Mapping[str, Any]) -> bool:
        """Ranked by how well it predicts, a model needs none."""
        by_error = objective == self.objective and config.get("objective_preset") == "mse"
        return not objective.endswith("loss") and not by_error

    def undivided(self, config: Settings, workers: int) -> str:
        """Each worker needs a sequence of each batch."""
        size = _own(config).batch_size
        return f"a batch has {size} sequences, one for each worker at least" if workers > size else ""

    def prepare(self, configs: Sequence[Settings]) -> str:
        """Check the data and build the cache that all trials share."""
        from lam.data import windows

        for config in map(_own, configs):
            train, _ = (windows.open_split(config, split) for split in ("train", "validation"))
            if config.action_weight:
                from lam.training.guidance.labels import (
                    Labels,  # loads torch, which the rest of a preparation can do without
                )

                Labels(config, train)
        return windows.data_fingerprint(_own(configs[0]))

    def fetched(self, configs: Sequence[Settings]) -> int:
        """The sizes of the data sets on stores."""
        own = [_own(config) for config in configs]
        return sum(map(sets.weight, {part.dir for each in own for part in each.data} | {each.data_dir for each in own}))

    def data_of(self, config: Settings) -> Hashable:
        """The folders, the split, the length of its sequences, and which labels are used."""
        own = _own(config)
        return (own.data_dir, own.manifest_path, own.data, own.latents, own.sequence_length,
                own.labels if own.action_weight else None)

    def data_lacks(self, config: Settings, metric: str) -> str:
        """True actions, where a metric needs them and the files hold none."""
        from lam.data import windows

        needy = "labels" in TABLE[metric].needs
        return NEEDS["labels"] if needy and not windows.has_labels(_own(config)) else ""

    def ranks_by(self, config: Settings, metric: str) -> str:
        """By which preset the objective ranks here, and whether that is what codes mean."""
        from lam.data import windows

        own = _own(config)
        if metric != self.objective:
            return ""
        labelled = windows.open_split(own, "validation", stride=1).labelled
        known = min(len(labelled), own.label_sequences or own.eval_sequences)
        preset = codebook.preset_of({"val/labelled_transitions": known, "val/action_skill": 0.0}, own.objective_preset)
        if preset == "action":
            return f"ranked by what codes tell of {count(known, 'true action')} of the validation split (preset action)"
        by = f"ranked by preset {preset}, not by what codes mean"
        if own.objective_preset != "auto":
            return by
        few = f"{known} of the {codebook.ENOUGH_LABELS} true actions that it takes" if known else "no true action"
        return f"{by}: the validation split has {few}; 'lam label RUN --ask' takes some"

    def steps_per_epoch(self, config: Settings, look: bool = True) -> int | None:
        """As the config says, or else as many batches as the training split holds."""
        own = _own(config)
        if own.steps_per_epoch or not look:
            return own.steps_per_epoch
        from lam.data import windows

        return own.steps_in_epoch(windows.outline(own, "train")[0])

    def verdict(self, record: Mapping[str, Any]) -> str:
        """nonfinite, collapsed, no_codes, actions_ignored or live."""
        return codebook.verdict(record)

    def settling_steps(self, config: Mapping[str, Any]) -> int:
        """Two revivals of dead codes."""
        return codebook.settling_steps(config)

    def views(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record with its views against compute."""
        return with_tflops(record)

    def size(self, config: Settings) -> Size:
        """Counted by the counter that training uses; a rollout step as often as its coin says."""
        from lam.data import windows
        from lam.model import flops

        own = _own(config)
        sequences, shape = windows.outline(own, "train")
        plain, rolled = (flops.training_flops(own, shape, anchor)
                         for anchor in (None, 0 if own.rollout_horizon > 1 else None))
        share = own.rollout_prob if own.rollout_horizon > 1 else 0.0
        each = plain + share * (rolled - plain)
        kept = (5 if own.keep == "all" else 1) + own.num_epochs // (own.checkpoint_every or math.inf)  # 3 of the state
        samples = own.steps_in_epoch(sequences) * own.batch_size
        return Size(samples * each / 1e12, int(kept * flops.weight_bytes(own, shape)))

    def shortened(self, config: Settings, steps: int) -> Settings:
        """A few small steps at the full learning rate, without validation."""
        own = _own(config)
        return own.replace(
            num_epochs=max(2, own.num_epochs), val_every=max(2, own.num_epochs) + 1, steps_per_epoch=steps,
            batch_size=min(8, own.batch_size), warmup_steps=0, checkpoint_every=1, sample_count=0, tracking={},
            early_stopping=None)

    def digest(self, config: Settings) -> str:
        """The training losses and the weights after the first epoch, bit by bit."""
        from safetensors.torch import load_file

        from lam.training import loop

        with tempfile.TemporaryDirectory(prefix="lam-probe-") as folder:
            with contextlib.closing(cast(Any, loop.train(_own(config), folder))) as epochs:
                record = next(epochs)
            weights = load_file(Path(folder) / "checkpoints" / "epoch-1.safetensors")
        total = hashlib.sha256(json.dumps(_losses(record), sort_keys=True).encode())
        for name in sorted(weights):
            if not name.endswith(_BOOKKEEPING):
                total.update(f"{name}{list(weights[name].shape)}".encode() + weights[name].numpy().tobytes())
        return total.hexdigest()[:16]

    def tested(self, run: RunFolder, checkpoint: str) -> dict[str, Any]:
        """Metrics of the kept weights on the test split, as `lam evaluate --split test` measures them."""
        from lam.training import console

        found: dict[str, Any] = console.measured(run, "test", checkpoint)["metrics"]
        return found

    def export(self, run: RunFolder, to: Path) -> Path:
        """Weights as safetensors, the config, what the codes mean and a card; `lam.load` opens it."""
        from lam.inference import exporting

        return exporting.export(run.path, to)

    def reference(self, run: RunFolder, model: Path) -> Observation:
        """Of the videos of the validation and the test split."""
        from lam.data import checked
        from lam.labelling import observing

        parts = checked.check(config_module.of_run(run)).parts
        return observing.observe(model, [(part.reader, [*part.splits.validation, *part.splits.test]) for part in parts])

    def observe(self, model: Path, data: Path, windows: int | None = None) -> Observation:
        """Of all videos of a folder; it needs neither a manifest nor true actions."""
        from lam.data.readers.registry import reader_of
        from lam.labelling import observing

        return observing.observe(model, [(reader_of(data), None)], windows)


def _own(config: Settings) -> RunConfig:
    assert isinstance(config, RunConfig), "sweeps hand a workload the configs that it has read itself"
    return config


def _losses(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that a weight in front of a zero leaves alone: errors and gradients, not settings or times."""
    settings = ("train/lr", "train/samples_per_second")
    return {key: repr(value) for key, value in record.items() if key.startswith("train/") and key not in settings}


LAM = LatentActions()
