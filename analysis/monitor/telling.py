"""Notices of `lam monitor`: what holds now, or, while it follows a run, what fired and cleared since the last look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.monitor.monitor import Status
from record.health.engine import Finding
from record.storage import addresses
from record.tracking.notices import Notices


def tell(notices: Notices, run: str | Path, before: Status | None, now: Status) -> None:
    """Send what changed between two looks; what is only informative is not sent."""
    earlier = {item.rule for item in before.judgement.findings} if before else set()
    later = {item.rule for item in now.judgement.findings}
    folder = str(run) if addresses.is_one(run) else str(Path(run).absolute())
    gone = [item for item in before.judgement.findings if item.rule not in later] if before else []
    for event, findings in (("fired", [item for item in now.judgement.findings if item.rule not in earlier]),
                            ("cleared", gone)):
        for item in findings:
            if item.severity != "info":
                notices.send(event, folder=folder, **_fields(item, now.last))


def _fields(item: Finding, epoch: float | None) -> dict[str, Any]:
    return {"rule": item.rule, "severity": item.severity, "epoch": epoch, "value": item.value,
            "threshold": item.threshold, "since": item.since, "sentence": item.sentence, "remedy": item.remedy}
