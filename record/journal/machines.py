"""What befell the machines of a cluster, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from record.journal import events
from record.text import count

MOST = 8  # sentences of a report


def words(event: events.MachineEvent) -> str:
    """What an event of a machine says of it, '' where it takes trials."""
    match event:
        case events.MachineLeftOut():
            return f"left out: machine {event.host} {event.reason}"
        case events.MachineDraining():
            when = f" and goes at {event.deadline}" if event.deadline else ""
            return f"machine {event.host} is being drained{when}; its trials move"
        case events.MachineLost():
            return f"machine {event.host} went away; its trials go on elsewhere"
    return ""


def over(happened: Iterable[events.MachineEvent]) -> tuple[str, ...]:
    """What a report says of a whole sweep's machines: no trial was failed for it, but some began anew."""
    said = Counter(filter(None, map(_past, happened)))
    found = [f"{text}{f', {times} times' if times > 1 else ''}" for text, times in said.items()]
    more = len(found) - MOST
    return (*found[:MOST], *([f"and {count(more, 'more event')} of machines"] if more > 0 else []))


def _past(event: events.MachineEvent) -> str:
    match event:
        case events.MachineLeftOut():
            return f"machine {event.host} was left out: it {event.reason}"
        case events.MachineDraining():
            return f"machine {event.host} was drained; its trials moved"
        case events.MachineLost():
            return f"machine {event.host} went away; its trials went on elsewhere"
    return ""
