"""What a report shows of a family of runs: what ranks them, the rows of its table, its panels. Data of a profile.

    report:
      objectives: [val_loss]        the first one that a run recorded ranks it
      maximise: [eval_rollout_f1]   those of them of which higher is better
      codes: vq_usage_ratio         a run that never logs it has no discrete codes
      unsound: [knee_unhealthy]     rules that, where they hold at the end, keep a run from winning
      competitive: {metric: val_loss, met: 0.05, close: 0.10}   how far behind the arm without codes is allowed
      sections:
        - title: Final losses
          rows:
            - {title: "Validation loss, end", key: val_loss, how: end, better: down}
      panels:
        - {title: Training health, lines: [train/total_loss], bars: [train/is_improving], thresholds: {key: 0.1}}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from record.schema import Strict

How = Literal["start", "end", "best", "least", "most", "mean", "change", "rise", "trajectory", "lately", "slope",
              "steadiness", "first_at", "gap"]
HOWS: dict[How, str] = {
    "start": "the first value", "end": "the last value", "best": "the best value by its direction",
    "least": "the smallest value and when", "most": "the largest value and when", "mean": "the mean of all values",
    "change": "start -> end with the factor between them", "rise": "the largest rise between two records and when",
    "trajectory": "one word for all values", "lately": "the direction of the last five values",
    "slope": "least-squares slope of the last half an epoch", "steadiness": "standard deviation over mean, last half",
    "first_at": "the first epoch at which it is at least 1", "gap": "how far above the best arm without codes it ends",
}


class Row(Strict):
    """One row of a comparison."""

    title: str
    key: str
    how: How = "end"
    better: Literal["up", "down", "none"] = "none"
    percent: bool = False
    note: str = ""


class RowGroup(Strict):
    """A section of a comparison."""

    title: str
    rows: list[Row] = Field(min_length=1)


class Panel(Strict):
    """One chart of a run: lines, or the parts of a whole as stacked areas; `x/*` stands for every key that fits."""

    title: str
    lines: list[str] = Field(default_factory=list)
    bars: list[str] = Field(default_factory=list)
    stacked: list[str] = Field(default_factory=list)
    thresholds: dict[str, float] = Field(default_factory=dict, description="key -> where a line is drawn for it")


class Competitive(Strict):
    """How far behind the arm without codes a run may end: up to `met` it is met, up to `close` close."""

    metric: str
    met: float = Field(0.05, ge=0)
    close: float = Field(0.10, ge=0)


class Roles(Strict):
    """What a checklist calls a metric -> its key, absent where this family has none."""

    train_loss: str | None = None
    loss: str | None = None
    usage: str | None = None
    active_codes: str | None = None
    ranks: list[str] = Field(default_factory=list)
    grad_norm: str | None = None
    skill: str | None = None


class Reporting(Strict):
    """The section `report` of a profile."""

    objectives: list[str] = Field(default_factory=list)
    maximise: list[str] = Field(default_factory=list)
    codes: str | None = None
    unsound: list[str] = Field(default_factory=list)
    competitive: Competitive | None = None
    roles: Roles = Field(default_factory=Roles)
    sections: list[RowGroup] = Field(default_factory=list)
    panels: list[Panel] = Field(default_factory=list)

    def rows(self) -> list[Row]:
        """Every row of every section."""
        return [row for group in self.sections for row in group.rows]
