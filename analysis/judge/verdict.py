"""Why a trial wins, as sentences with numbers, and what to know before trusting the order. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.judge.ranking import OUTSIDE, Seeds, Standing
from analysis.read.reading import Study, Trial
from record.text import count, finite, full_stop, interval, number, printable, words

SHOWN_OUTSIDE = 3


@dataclass(frozen=True)
class Difference:
    """Two configs trained on the same fresh seeds: the mean of a - b with its 95 % interval."""

    a: str
    b: str
    mean: float | None
    low: float | None
    high: float | None

    @property
    def tells_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def sentence(self) -> str:
        bounds = interval(self.low, self.high)
        end = "" if self.tells_apart else ": the seeds do not tell them apart"
        return f"On the same fresh seeds {self.a} minus {self.b} is {number(self.mean)} {bounds}".rstrip() + f"{end}."


def differences(study: Study) -> tuple[Difference, ...]:
    """The paired differences that confirm.json holds."""
    return tuple(Difference(pair["a"], pair["b"], *(finite(pair.get(key)) for key in ("mean", "low", "high")))
                 for pair in study.differences)


@dataclass(frozen=True)
class Verdict:
    """The answer of a comparison: the winner, if any, and why, as sentences with numbers."""

    winner: str | None
    headline: str
    sentence: str
    cautions: tuple[str, ...] = ()


def decide(study: Study, standings: tuple[Standing, ...]) -> Verdict:
    """The winner and why.

    Example:
        t0007 wins: objective 0.41 (control 0.47 [0.41, 0.53] × health 0.87); next is t0003 with 0.36; 3 collapsed
        trials with raw DSNR up to 7.7 are ranked below every live one.
    """
    eligible = [item for item in standings if item.eligible]
    if not eligible:
        outside = [item for item in standings if item.outside]
        inside = " and inside the sweep's constraints" if outside else ""
        return Verdict(None, "No winner", f"No winner: none of {count(len(standings), 'trial')} is live and finished"
                             f"{inside} ({_tally(standings)}).", tuple(_outside_cautions(standings)))
    by_data = _by_data(study, eligible)
    if len(by_data) > 1:
        told = "; ".join(f"{data[:8]}: {', '.join(labels[:5])}{' ...' if len(labels) > 5 else ''}"
                         for data, labels in by_data.items())
        return Verdict(None, "No winner", "No winner: the live trials saw different data, on which their values do not "
                       f"compare ({told}). Report each data's trials by themselves.")
    first, *others = eligible
    name = objective_name(study.objective)
    parts = [f"{first.label} wins: {_score_text(first, name)}"]
    parts.append(f"next is {others[0].label} with {_brief(others[0])}" if others else "no other trial is live")
    parts.extend([*_outside_clause(standings), *_collapsed_clause(standings)])
    headline = f"{first.label} wins with {'an' if name[0] in 'aeiou' else 'a'} {name} of {_brief(first)}"
    return Verdict(first.label, headline, "; ".join(parts) + ".",
                   (*_cautions(study, first, others), *_outside_cautions(standings)))


def _by_data(study: Study, standings: list[Standing]) -> dict[str, list[str]]:
    """Data fingerprint -> the trials that saw it; who does not say what it saw is left out."""
    found = dict[str, list[str]]()
    for item in standings:
        trial = study.trial(item.label)
        if trial is not None and trial.identity.get("data_fingerprint"):
            found.setdefault(str(trial.identity["data_fingerprint"]), []).append(item.label)
    return found


def objective_name(key: str) -> str:
    """The metric's name without its split, for sentences."""
    return words(key.removeprefix("val/"))


def _tally(standings: tuple[Standing, ...]) -> str:
    statuses = [item.status for item in standings]
    return ", ".join(f"{statuses.count(status)} {words(status)}" for status in dict.fromkeys(statuses))


def _score_text(item: Standing, name: str) -> str:
    inside = _makeup(item) if name == "objective" else "" if item.control is None else f"control {number(item.control)}"
    if item.tier == 0 and item.confirmed:
        seeds = count(len(item.confirmed.seeds), "fresh seed")
        spread = interval(item.confirmed.low, item.confirmed.high)
        return f"mean {name} {number(item.confirmed.mean)} {spread} over {seeds} (in the sweep " \
               f"{number(item.value)}{': ' if inside else ''}{inside})".replace("  ", " ")
    if item.seeds:
        spread = interval(item.seeds.low, item.seeds.high)
        return f"mean {name} {number(item.value)} {spread} over {count(len(item.seeds.seeds), 'seed')}" \
            .replace("  ", " ") + (f" ({inside})" if inside else "")
    return f"{name} {number(item.value)}" + (f" ({inside})" if inside else "")


def _makeup(item: Standing) -> str:
    """What the objective of a live run is made of, under its preset."""
    if item.preset == "mse":
        return f"MSE {number(item.mse)}, copying the last frame {number(item.mse_copy)}"
    if item.preset == "action":
        bounds, known = interval(item.skill_low, item.skill_high), number(item.embedding)
        return f"action skill {number(item.skill)} {bounds}, its embedding {known}; control " \
               f"{number(item.control)}".replace("  ", " ")
    if item.preset == "dsnr_health":
        return f"DSNR {number(item.dsnr)} bounded as d/(1 + d) × health {number(item.health)}"
    bounds = interval(item.control_low, item.control_high)
    return f"control {number(item.control)} {bounds} × health {number(item.health)}".replace("  ", " ")


def _brief(item: Standing) -> str:
    if item.tier == 0 and item.confirmed:
        return f"{number(item.score)} over {len(item.confirmed.seeds)} fresh seeds"
    return f"{number(item.score)} over {count(len(item.seeds.seeds), 'seed')}" if item.seeds else number(item.score)


def _outside(standings: tuple[Standing, ...]) -> list[Standing]:
    """Sound configs that only the constraints keep from winning."""
    return [item for item in standings if item.tier == OUTSIDE]


def _outside_clause(standings: tuple[Standing, ...]) -> list[str]:
    outside = _outside(standings)
    verb = "stands" if len(outside) == 1 else "stand"
    return [f"{count(len(outside), 'live trial')} outside the sweep's constraints {verb} behind every one inside"] \
        if outside else []


def _outside_cautions(standings: tuple[Standing, ...]) -> list[str]:
    """The best of those that the constraints keep from winning, and by how much."""
    return [f"{item.label} ({_brief(item)}) is outside the sweep's constraints: {'; '.join(item.outside)}."
            for item in sorted(_outside(standings), key=lambda item: item.rank)[:SHOWN_OUTSIDE]]


def _collapsed_clause(standings: tuple[Standing, ...]) -> list[str]:
    dead = [item for item in standings if item.status == "collapsed"]
    if not dead:
        return []
    peaks = [item.raw_dsnr_max for item in dead if item.raw_dsnr_max is not None]
    raw = f" with raw DSNR {'up to ' if len(dead) > 1 else ''}{number(max(peaks))}" if peaks else ""
    verb = "is" if len(dead) == 1 else "are"
    return [f"{count(len(dead), 'collapsed trial')}{raw} {verb} ranked below every live one"]


def _cautions(study: Study, first: Standing, others: list[Standing]) -> list[str]:
    """What a reader should know before trusting the order."""
    cautions = []
    if first.epoch != first.kept_epoch:
        cautions.append(f"{first.label} is ranked by epoch {first.epoch}, and the checkpoint of epoch "
                        f"{first.kept_epoch} is kept.")
    alone = others and not first.seeds and not others[0].seeds
    if alone and first.tier == 1 and None not in (others[0].control_high, first.control_low) \
            and others[0].control_high >= first.control_low:  # type: ignore[operator]
        cautions.append(f"The 95 % intervals of control of {first.label} and {others[0].label} overlap: one seed each "
                        "does not tell them apart. Confirm both with fresh seeds.")
    if others and first.tier == others[0].tier == 0:
        pair = {first.label, others[0].label}
        cautions.extend(item.sentence for item in differences(study)
                        if {item.a, item.b} == pair and not item.tells_apart)
    elif others and first.tier == others[0].tier == 1 and _overlap(first.seeds, others[0].seeds):
        cautions.append(f"The 95 % intervals over the seeds of {first.label} and {others[0].label} overlap.")
    if first.num_epochs and first.last_epoch < first.num_epochs:
        trial = study.trial(first.label)
        why = trial and (trial.stopped_early or printable(str(trial.reason.get("sentence", ""))))
        cautions.append(full_stop(f"{first.label} was stopped at epoch {first.last_epoch} of {first.num_epochs}"
                              + (f": {why}" if why else "")))
    cautions.extend(_on_meaning(study, first, others))
    if len(study.objectives) > 1:
        rest = ", ".join(study.objectives[1:])
        cautions.append(f"Several objectives were asked for. The order is by {study.objective} alone, not by {rest}.")
    return cautions


def _on_meaning(study: Study, first: Standing, others: list[Standing]) -> list[str]:
    """Whether the order is one of what codes mean, and one at all."""
    said, presets = list[str](), {item.preset: item.label for item in reversed([first, *others])}
    if study.objective == "val/objective" and len(presets) > 1:
        each = ", ".join(f"{words(preset)} for {label}" for preset, label in presets.items())
        said.append(f"The objective is not the same number for all ({each}), so their values do not compare. Give all "
                    "of them the same labels, or report them apart.")
    trial = study.trial(first.label)
    if trial is None or not _measures_skill(trial) or first.preset == "action":
        return said
    known = int(finite(trial.validated.last("val/labelled_transitions")) or 0)
    more = "Control is how much the prediction heeds the codes, not what they mean; " \
           f"'lam label {trial.path} --ask' takes"
    if first.skill is None:
        why = f"the {known} that are scored tell nothing apart" if known else "the validation split has none"
        said.append(f"Whether the codes mean the true actions was not checked: {why}. {more} some.")
    elif trial.config.get("objective_preset") == "auto":
        said.append("The order is not one of what the codes mean: the validation split's "
                    f"{count(known, 'true action')} are too few. {more} more.")
    return said


def _measures_skill(trial: Trial) -> bool:
    """Whether the trial was validated by a version that measures the action skill where it can."""
    return "val/objective_preset" in trial.validated.names()


def _overlap(a: Seeds | None, b: Seeds | None) -> bool:
    """Whether the better one's interval reaches into the other's; False where one has none."""
    if a is None or b is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high
