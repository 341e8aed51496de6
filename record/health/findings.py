"""What the engine says: a rule that fired, one that changed, and the verdict on a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from record.health.profile import Severity
from record.text import seen, words


@dataclass(frozen=True)
class Finding:
    """A rule that has fired.

    Attributes:
        value: what the statistic is now, or was when the rule last held.
        fired: what it was when the rule fired.
        meets: whether `value` meets the comparison; False where the rule is held by its clear level, or for good.
        counts: whether the rule counts others.
        threshold: what it is compared with, as text.
        since: epoch of the first record of the streak that fired it; None where epochs are not known.
        until: epoch at which it cleared; None while it holds.
        evidence: for a count, the rules that hold.
        axis: what `since` and `until` count: epochs, or a foreign trainer's steps.
    """

    rule: str
    severity: Severity
    condition: str
    comparison: str
    value: float | str | None
    threshold: str
    since: float | None
    until: float | None
    meaning: str
    remedy: str
    evidence: tuple[str, ...] = ()
    axis: str = "epoch"
    fired: float | str | None = None
    meets: bool = True
    counts: bool = False

    @property
    def active(self) -> bool:
        """Whether it holds now."""
        return self.until is None

    @property
    def sentence(self) -> str:
        """What was seen, with value and threshold; where the latest value does not meet it, also the one that fired."""
        shown, began = seen(self.value), "" if self.since is None else f"{self.axis} {self.since:g}"
        named = f" ({', '.join(self.evidence)})" if self.evidence else ""
        if self.meets:
            since = began and f" since {began}"
            if self.counts:
                return f"{shown} hold{named}, at least {self.threshold} do{since}"
            return f"{self.condition} is {shown}, {words(self.comparison)} {self.threshold}{since}"
        start = began and f" from {began} on"
        now = "now" if self.active else "when the rule last held"
        if self.counts:
            return (f"{seen(self.fired)} held when the rule fired{start}, {shown}{named} {now}; it asks for "
                    f"{self.threshold}")
        word = _PAST.get(self.comparison, f"was {words(self.comparison)}")
        return (f"{self.condition} {word} {self.threshold}{start} ({seen(self.fired)} when the rule fired) and is "
                f"{shown} {now}")


_PAST = {"is": "was", "is_not": "was not"}


@dataclass(frozen=True)
class Event:
    """A rule that fired or cleared at one record."""

    epoch: float | None
    rule: str
    event: str
    severity: Severity
    value: float | str | None
    threshold: str


@dataclass(frozen=True)
class Judgement:
    """What a profile says of one run so far.

    Attributes:
        severity: the gravest of the findings that hold; "ok" where none does.
        findings: every rule that has fired and holds, gravest first.
        cleared: rules that fired and cleared.
        not_judged: rule -> why its metric could not be judged.
        holding: every rule that holds, those that are evidence only included.
    """

    profile: str
    severity: Severity | str
    findings: tuple[Finding, ...]
    cleared: tuple[Finding, ...]
    not_judged: Mapping[str, str]
    holding: Mapping[str, Finding] = field(default_factory=dict)

    @property
    def aborts(self) -> tuple[Finding, ...]:
        """The findings that say: stop."""
        return tuple(item for item in self.findings if item.severity == "abort")
