"""`Workload`: all that sweeps and analysis may ask of a kind of training; `find(name)` loads an installed one.

`sweeps` and `analysis` know a training by a `Workload` alone; `lam.workload` is the first. Another one is a
subclass in an installed package, named by an entry point of the group `lam.workloads` (docs/workloads.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from record.documents import DEFAULT_WORKLOAD as DEFAULT
from record.errors import BadInput
from record.health.profile import load
from record.health.reporting import Reporting
from record.run import RunFolder
from record.schema import build, suggest
from record.workload.knobs import KnobRule, Size
from record.workload.metric import Metric, is_validated
from record.workload.observation import Observation
from record.workload.settings import Settings, absolute_profile, configuring

GROUP = "lam.workloads"


class Curve(NamedTuple):
    """A chart of a report: a metric over the epochs."""

    key: str
    title: str
    log: bool = False


class Workload(ABC):
    """One kind of training. What a subclass does not say has the meaning of the defaults here.

    Attributes:
        name: what sweeps, runs and entry points call it.
        config: the schema of one training's config.
        metrics: every metric by its key; its directions decide what is better.
        objective: the metric that ranks where a sweep names none.
        error: the metric, lower is better, that decides between equal objectives.
        train: dotted path ``module:function`` of ``train(config, run_dir)``, which yields an epoch record after
            each epoch, is durable up to it, and goes on where the folder's records end.
        together: dotted path of ``together(config, run_dir, gone)``, which is `train` as one of several processes
            (`record.workload.together`): the first one yields and writes, the others follow it, yield nothing and end
            with it; where another is gone it raises WorkerLost; '' = a training is one process.
        fixed: config keys that a sweep may not vary, and why.
        no_result: config keys that change how a training is computed and kept, and no number.
        resumable: config keys that may change while a run goes on: with other values it is no other run.
        aside: config keys in which two trainings may differ whose results compare.
        endings: config keys that say when a run ends early: of a production run, and of a trial its sweep.
        path_knobs: config keys whose values are paths.
        shown: metrics that a sweep's journal keeps of each result.
        knobs: what is known of config keys as knobs.
        curves: the charts of a report.
        rows: metrics of which a report tells start, best and end beside the rows it knows.
        profile: the health profile that also says what a report of it shows.
        judged_by_rules: what became of a run is told by that profile's rules over the whole of it, not by `verdict`.
    """

    name: str
    config: type[Settings]
    metrics: Mapping[str, Metric]
    objective: str
    error: str
    train: str
    together: str = ""
    fixed: ClassVar[Mapping[str, str]] = {}
    no_result: frozenset[str] = frozenset()
    resumable: frozenset[str] = frozenset()
    aside: frozenset[str] = frozenset()
    endings: frozenset[str] = frozenset()
    path_knobs: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    knobs: ClassVar[Mapping[str, KnobRule]] = {}
    profile: str = ""
    judged_by_rules: bool = False

    @property
    def reporting(self) -> Reporting:
        """What a report shows beside the rows that it knows."""
        return load(self.profile).report if self.profile else Reporting()

    @property
    def curves(self) -> Sequence[Curve]:
        """The objective, then every other validation metric that has a direction."""
        keys = dict.fromkeys([self.objective, *self.rankable()])
        return [Curve(key, key.removeprefix("val/").replace("_", " ").capitalize()) for key in keys]

    @property
    def rows(self) -> Sequence[str]:
        """Every validation metric that has a direction."""
        return self.rankable()

    def rankable(self) -> list[str]:
        """Validation metrics that have a direction."""
        return [key for key, metric in self.metrics.items() if key.startswith("val/") and metric.direction != "none"]

    def maximises(self, key: str) -> bool:
        """Whether higher is better; a metric that this workload does not have is never compared."""
        return key not in self.metrics or self.metrics[key].direction != "down"

    # the config

    def read(self, values: Mapping[str, Any], source: str | Path) -> Settings:
        """Validate a mapping; the sections that promotion adds are accepted and left out.

        Raises:
            BadInput: naming the source, the key, the value and the remedy.
        """
        return build(self.config, configuring(values), source)

    def of_run(self, folder: RunFolder) -> Settings:
        """The complete config of a run."""
        return self.read(folder.config(), folder.config_file)

    def absolute(self, config: Settings, folder: Path) -> Settings:
        """The config with paths made absolute, which may be relative to `folder`."""
        return config.replace(**absolute_profile(config, folder))

    def validated_at(self, config: Settings, tflops: Sequence[float]) -> Settings:
        """The config that is also validated at these operations, in TFLOP.

        Raises:
            BadInput: this workload does not count operations.
        """
        raise BadInput(f"got max_tflops, and {self.name} does not count operations", source="scheduler.asha",
                       remedy="count rungs in epochs")

    def lacks(self, config: Settings, metric: str) -> str:
        """What a training of this config lacks that a metric needs, in words; '' where nothing."""
        return ""

    def needs_codes(self, objective: str, config: Mapping[str, Any]) -> bool:
        """Whether a training with the verdict `no_codes` is out of a contest by this objective."""
        return False

    def undivided(self, config: Settings, workers: int) -> str:
        """Why a training of this config cannot be so many processes, in words; '' where it can."""
        return "" if self.together else f"{self.name} trains in one process"

    # the data

    @abstractmethod
    def prepare(self, configs: Sequence[Settings]) -> str:
        """Check the data that these configs read, build what trials share, and name the first one's data.

        Raises:
            BadData: it is missing, or cannot be trained on.
        """

    def fetched(self, configs: Sequence[Settings]) -> int:
        """Bytes that a machine fetches before it can read the data of these configs; 0 where they lie in folders."""
        return 0

    def data_of(self, config: Settings) -> Hashable:
        """What of the data a config reads; configs for which it is equal are prepared once."""
        return None

    def data_lacks(self, config: Settings, metric: str) -> str:
        """What the data lack that a metric needs, in words; '' where nothing."""
        return ""

    def ranks_by(self, config: Settings, metric: str) -> str:
        """What a metric stands for on these data, as a sentence for who asks to rank by it; '' where it is itself."""
        return ""

    def steps_per_epoch(self, config: Settings, look: bool = True) -> int | None:
        """Optimizer steps of one epoch; None where that is not known.

        Args:
            look: the data may be opened for it.
        """
        return None

    # what came out

    def verdict(self, record: Mapping[str, Any]) -> str:
        """One word for an epoch record: `live`, `nonfinite`, `collapsed`, `no_codes`, or one of the workload's own.

        Only `live` may win, and `no_codes` where `needs_codes` says no.
        """
        watched = [record[key] for key in (self.objective, self.error, "train/loss") if key in record]
        return "live" if all(value is not None and math.isfinite(value) for value in watched) else "nonfinite"

    def is_validated(self, keys: Collection[str]) -> bool:
        """Whether a record with these keys holds a validation; by its keys alone, for millions are asked at once."""
        return is_validated(keys)

    def settling_steps(self, config: Mapping[str, Any]) -> int:
        """Optimizer steps that codes need before their collapse is judged; docs/decisions/0004-collapse-grace.md."""
        return 0

    def views(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record as trackers show it."""
        return dict(record)

    # before it runs

    def size(self, config: Settings) -> Size | None:
        """What one epoch costs and a finished run keeps, without training; None where that is not known."""
        return None

    def shortened(self, config: Settings, steps: int) -> Settings:
        """The config for a first epoch of a few small steps, whatever a validation would say."""
        return config

    def digest(self, config: Settings) -> str:
        """What the first epoch of a training computes, bit by bit, as a short text: what the knob audit compares.

        Raises:
            BadInput: this workload has no such digest, so that its knobs are not probed.
        """
        raise BadInput(f"{self.name} names no digest of a short training")


    # what can be taken along, and what only promotion asks

    def tested(self, run: RunFolder, checkpoint: str) -> dict[str, Any] | None:
        """Metrics of a run's kept weights on videos that no choice was made by; None: this workload has none apart.

        Raises:
            BadData, BadInput: the data or the weights cannot be read.
        """
        return None

    def export(self, run: RunFolder, to: Path) -> Path:
        """Write what a run trained as a folder that can be used without the run and its data; returns that folder.

        It appears whole or not at all; a folder that holds the same already is left as it is.

        Raises:
            BadInput: this workload has no such form, the run keeps no weights, or `to` holds something else.
        """
        raise BadInput(f"{self.name} has no form in which a model is exported")

    def reference(self, run: RunFolder, model: Path) -> Observation | None:
        """What an exported model sees in the videos that its run did not train on; None: this workload cannot say.

        Raises:
            BadData, BadInput: the data cannot be read.
        """
        return None

    def observe(self, model: Path, data: Path, windows: int | None = None) -> Observation:
        """What an exported model sees in a folder of data.

        Args:
            windows: how much of each video is read; default: the workload decides.

        Raises:
            BadInput: this workload cannot say, or nothing there can be read.
        """
        raise BadInput(f"{self.name} does not tell what a model sees in data")


def installed() -> list[str]:
    """Names of the workloads that installed packages offer."""
    return sorted(point.name for point in entry_points(group=GROUP))


@cache
def find(name: str) -> Workload:
    """The workload of this name.

    Raises:
        BadInput: no installed package offers it.
    """
    for point in entry_points(group=GROUP, name=name):
        found: Workload = point.load()
        return found
    raise BadInput(f"got {name!r}, and no installed package offers a workload of that name", key="workload",
                   remedy=f"{suggest(name, installed())}, or install the package that offers it")


def default() -> Workload:
    """The workload of records that name none."""
    return find(DEFAULT)


def common(workloads: Iterable[Workload], source: str | Path) -> Workload:
    """The one workload of several trainings.

    Raises:
        BadInput: there are several.
    """
    found = {workload.name: workload for workload in workloads} or {DEFAULT: default()}
    if len(found) > 1:
        raise BadInput(f"they are trainings of different kinds ({', '.join(found)})", source=source,
                       remedy="report them one by one")
    return next(iter(found.values()))
