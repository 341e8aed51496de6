"""What was stopped and what it saved; what each run amounts to, in sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.judge.judging import LIVE
from analysis.judge.ranking import Seeds, Standing, state_word
from analysis.judge.vitality import findings, trajectories
from analysis.read.reading import Study, Trial
from analysis.read.study import series
from record.text import count, finite, full_stop, interval, number, printable, share, words


@dataclass(frozen=True)
class Stop:
    """Why one trial ended before its budget."""

    label: str
    state: str
    epoch: int
    rule: str
    sentence: str
    rung: float | None = None
    value: float | None = None
    cutoff: float | None = None
    peers: int | None = None
    epochs_saved: int = 0
    rung_unit: str = "epochs"

    @property
    def where(self) -> str:
        """The rung at which it was judged, empty where it was judged at none."""
        if self.rung is None:
            return ""
        return f"epoch {number(self.rung)}" if self.rung_unit == "epochs" else f"{number(self.rung)} {self.rung_unit}"


@dataclass(frozen=True)
class Compute:
    """Epochs, operations and time of a study's trials; what one would still have cost is its mean per epoch times the
    rest.
    """

    epochs_asked: int
    epochs_spent: int
    epochs_saved: int
    tflops_spent: float
    tflops_saved: float
    seconds: float

    @property
    def sentence(self) -> str:
        return (f"{self.epochs_spent:,} of {self.epochs_asked:,} epochs were trained "
                f"({share(self.epochs_spent, self.epochs_asked)}); stopping early saved {self.epochs_saved:,} epochs, "
                f"about {number(self.tflops_saved)} TFLOP beside the {number(self.tflops_spent)} spent. The "
                f"trials ran for {number(float(round(self.seconds)))} s in all.")


@dataclass(frozen=True)
class Assessment:
    """One run in sentences: what was reached, and what to be wary of."""

    label: str
    status: str
    facts: tuple[str, ...]
    concerns: tuple[str, ...]


def stop_ledger(study: Study) -> tuple[Stop, ...]:
    """Every stopped and failed trial, in order of suggestion."""
    return tuple(_stop(trial) for trial in study.trials if trial.state in ("stopped", "failed"))


def _stop(trial: Trial) -> Stop:
    reason = trial.reason
    rest = max(0, (trial.num_epochs or trial.last_epoch) - trial.last_epoch)
    early = trial.state == "stopped" and reason.get("rule") != "budget"  # a budget that ran out saved nothing
    saved = reason.get("epochs_saved", rest) if early else 0
    return Stop(
        label=trial.label, state=trial.state, epoch=trial.last_epoch,
        rule=printable(str(reason.get("rule", "unknown"))),
        sentence=printable(str(reason.get("sentence", "no reason was recorded"))), rung=reason.get("rung"),
        value=finite(reason.get("value")), cutoff=finite(reason.get("cutoff")), peers=reason.get("peers"),
        epochs_saved=saved, rung_unit="TFLOP" if trial.scheduler.get("max_tflops") else "epochs",
    )


def compute_ledger(study: Study) -> Compute:
    """Sums over the trials of a study; confirmation runs are not counted."""
    stops = {stop.label: stop for stop in stop_ledger(study)}
    spent = {trial.label: _last(trial, "total_tflops") for trial in study.trials}
    saved = sum(spent[trial.label] / trial.last_epoch * stops[trial.label].epochs_saved
                for trial in study.trials if trial.label in stops and trial.last_epoch)
    return Compute(
        epochs_asked=sum(trial.num_epochs or trial.last_epoch for trial in study.trials),
        epochs_spent=sum(trial.last_epoch for trial in study.trials),
        epochs_saved=sum(stop.epochs_saved for stop in stops.values()),
        tflops_spent=sum(spent.values()), tflops_saved=saved,
        seconds=sum(_last(trial, "seconds") for trial in study.trials),
    )


def _last(trial: Trial, key: str) -> float:
    return next(reversed(series(trial.records, key)), 0.0)


def assess(trial: Trial, standing: Standing) -> Assessment:
    """A run's numbers as sentences; see `_concerns` for what raises a concern."""
    facts = [f"Trained {standing.last_epoch} of {standing.num_epochs or '?'} epochs; {state_word(trial.state)}."]
    if trial.stopped_early:
        facts.append(full_stop(f"It stopped early: {trial.stopped_early}"))
    if standing.epoch is not None:
        bounds = interval(standing.control_low, standing.control_high)
        kept = standing.kept_epoch
        place = "whose checkpoint is kept" if kept == standing.epoch else \
            f"by which it is ranked (kept is the checkpoint of epoch {kept})"
        mean = f"Mean of {count(len(standing.seeds.seeds), 'seed')}, the first one at" if standing.seeds else "At"
        facts.append(f"{mean} epoch {standing.epoch}, {place}: value {number(standing.value)}, control "
                     f"{number(standing.control)} {bounds}, codebook health {number(standing.health)}, DSNR "
                     f"{number(standing.dsnr)} ({words(str(standing.dsnr_status or 'not measured'))}).")
    if standing.mse is not None and standing.mse_copy:
        ratio = standing.mse / standing.mse_copy
        side = "below" if ratio < 1 else "above"
        facts.append(f"Validation MSE {number(standing.mse)}, {share(abs(1 - ratio), 1)} {side} copying the last "
                     "frame.")
    if standing.seeds:
        facts.append(seeds_sentence(standing.seeds))
    if standing.confirmed:
        fresh = standing.confirmed
        facts.append(f"Trained again with {count(len(fresh.seeds), 'fresh seed')}: mean {number(fresh.mean)} "
                     f"{interval(fresh.low, fresh.high)}, {fresh.live} live.")
    told = trajectories(trial)
    facts += [told] if told else []
    return Assessment(trial.label, standing.status, tuple(facts), tuple(_concerns(trial, standing)))


def seeds_sentence(seeds: Seeds) -> str:
    """What a sweep's several trainings of a config came to."""
    each = ", ".join(f"{label} (seed {seed}) {number(value)}" for label, seed, value in
                     zip(seeds.labels, seeds.seeds, seeds.values, strict=True))
    return (f"It was trained with {count(len(seeds.seeds), 'seed')}: {each}; mean {number(seeds.mean)} "
            f"{interval(seeds.low, seeds.high)}, {seeds.live} live.").replace("  ", " ")


def _concerns(trial: Trial, standing: Standing) -> list[str]:
    last = trial.validated[-1] if trial.validated else {}
    concerns = []
    if trial.reason.get("sentence"):
        concerns.append(full_stop(f"{trial.state}: {printable(str(trial.reason['sentence']))}"))
    if standing.status not in (LIVE, "unfinished"):
        concerns.append(f"It is ranked below every live trial: {words(standing.status)}.")
    concerns += [f"Outside the sweep's constraints: {text}." for text in standing.outside]
    if last.get("val/collapsed"):
        slot, joint, dsnr = (number(finite(last.get(f"val/{key}"))) for key in
                             ("perplexity_slot", "perplexity_joint", "dsnr"))
        concerns.append(f"At the last validation the slot perplexity is {slot} and the joint perplexity {joint}: its "
                        f"DSNR of {dsnr} says nothing, random codes are merely unfamiliar.")
    dead, total = finite(last.get("val/dead_codes")), finite(trial.config.get("num_embeddings"))
    if dead and total and not last.get("val/collapsed"):
        concerns.append(f"{number(dead)} of {number(total)} codes were never used over the validation split.")
    fresh = standing.confirmed
    if fresh and fresh.live < len(fresh.seeds):
        concerns.append(f"{len(fresh.seeds) - fresh.live} of {len(fresh.seeds)} fresh seeds did not end live.")
    if fresh and fresh.outside:
        concerns.append(f"{fresh.outside} of {len(fresh.seeds)} fresh seeds ended outside the sweep's constraints.")
    if standing.mse is not None and standing.mse_copy and standing.mse >= standing.mse_copy:
        concerns.append("It predicts no better than repeating the last frame.")
    grave = (item for item in findings(trial) if item.severity != "info")
    concerns.extend(f"{item.severity}: {item.rule}. {item.meaning} Here {printable(item.sentence)}." for item in grave)
    return concerns
