"""The events of a sweep's journal: one frozen class each, by which every event is written and read.

The classes are the one place that says which events there are, what each holds and which states trials have;
docs/records.md and docs/schemas/event.schema.json are made from them. A field or an event that a newer version
added is read and kept; a field that is wrong is damage, named with its file and line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from record import files
from record.documents import Int
from record.journal.trial_id import TrialId

VERSION = 1

# A knob's value: one that no number holds would be infinite, and no config takes that.
Knob = None | bool | Int | FiniteFloat | str | list[Any] | dict[str, Any]

Status = Literal["suggested", "started", "paused", "stopped", "completed", "failed", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)
FINISHED = ("completed", "stopped")  # ended by itself or by a rule: these are ranked
FINAL = (*FINISHED, "failed")  # nothing more will happen to it

UNWRITTEN = datetime.min.replace(tzinfo=UTC)
OLD_ERROR = "val/mse_loss"
_HEAD = ("seq", "time", "event")


class Reason(BaseModel):
    """Why a trial ended or paused."""

    model_config = ConfigDict(frozen=True, extra="allow")

    rule: str = Field(description="asha, median, budget, nonfinite, raised, out_of_memory, process_lost, "
                      "person, hung, ended_early, invalid_config, codebook_collapsed (`collapse` in older journals), "
                      "or the health rule that aborted the run")
    sentence: str = Field(description="the reason in words")
    epochs_saved: Int = Field(0, description="epochs that its budget would still have given it")
    rung: Int | float | None = Field(None, description="where it was judged: epochs, or TFLOP")
    value: Int | float | None = Field(None, description="what was judged: the result at the rung, under median the "
                                      "best so far")
    cutoff: Int | float | None = Field(None, description="what it would have had to reach")
    peers: Int | None = Field(None, description="how many were compared")
    paused: bool = Field(False, description="true where it was paused and never promoted")

    def as_written(self) -> dict[str, Any]:
        """The fields that it was made with."""
        return self.model_dump(exclude_unset=True)


def _required_on_disk(schema: dict[str, Any]) -> None:
    schema["required"] = [*_HEAD, *schema.get("required", [])]
    schema["properties"]["time"].pop("default")


class JournalEvent(BaseModel):
    """What every event has; `seq` and `time` come with the writing."""

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra=_required_on_disk)

    seq: int = Field(0, description="1, 2, 3, ... without gaps over the whole journal")
    time: AwareDatetime = Field(UNWRITTEN, description="ISO, for people; nothing is ordered by it")
    version: int | None = Field(None, description="of the journal, on its first event alone; a later one is refused")
    event: str = Field("", description="which event it is")

    def as_written(self) -> dict[str, Any]:
        """The fields that it was made with, in the order of the journal."""
        fields = self.model_dump(exclude_unset=True, exclude=set(_HEAD))
        return {"seq": self.seq, "time": self.time.isoformat(), "event": self.event, **fields}

    def line(self) -> bytes:
        """The event as it stands in the journal; what is not finite is null."""
        return files.json_line(self.as_written()).encode()


class Session(JournalEvent):
    """A driver begins to work."""

    name: str = Field(description="the sweep's")
    pid: Int = Field(description="the driver's process")
    host: str = Field(description="its machine")
    budget: dict[str, Int | float] = Field(default_factory=dict, description="limits of the sweep from here on")


class SweepStarted(Session):
    """The sweep began."""

    event: Literal["sweep_started"] = "sweep_started"


class SweepResumed(Session):
    """A further session went on with it."""

    event: Literal["sweep_resumed"] = "sweep_resumed"


class SweepFinished(JournalEvent):
    """Nothing is left to do."""

    event: Literal["sweep_finished"] = "sweep_finished"
    reason: str = Field(description="why, in words")


class SweepInterrupted(JournalEvent):
    """A signal ended the session."""

    event: Literal["sweep_interrupted"] = "sweep_interrupted"
    reason: str = Field(description="which signal")


class SweepHalted(JournalEvent):
    """The session ended although there is work left; the same command goes on."""

    event: Literal["sweep_halted"] = "sweep_halted"
    reason: str = Field(description="what refused it, in words")


class MachineEvent(JournalEvent):
    """Something happened to a machine of the cluster."""

    node: str = Field(description="Ray's id of it")
    host: str = Field(description="its name")


class MachineJoined(MachineEvent):
    """A machine may take trials: it sees what they need."""

    event: Literal["machine_joined"] = "machine_joined"
    fits: Int = Field(description="trials that it holds at a time, or workers of them where a trial is several")
    workers: Int = Field(1, description="of one trial")


class MachineLeftOut(MachineEvent):
    """No trial is placed on a machine any more: it refused one, or does not see what trials need."""

    event: Literal["machine_left_out"] = "machine_left_out"
    reason: str = Field(description="why, in words")


class MachineDraining(MachineEvent):
    """A machine is about to go away; its trials leave it after their running epoch."""

    event: Literal["machine_draining"] = "machine_draining"
    deadline: str | None = Field(None, description="when it goes, ISO; absent where nobody says")


class MachineLost(MachineEvent):
    """A machine went away."""

    event: Literal["machine_lost"] = "machine_lost"


class Waiting(JournalEvent):
    """Trials have been waiting for a place for a while."""

    event: Literal["waiting"] = "waiting"
    reason: str = Field(description="for what, and what there is")


class TrialEvent(JournalEvent):
    """Something happened to a trial."""

    trial: TrialId = Field(description="id of the trial")


class Change(TrialEvent):
    """The trial's status is from here on the name of the event."""

    event: Status


class Measured(JournalEvent):
    """What one validated epoch came to."""

    epoch: Int = Field(description="from 1")
    objective: float | None = Field(description="the first one; null = not finite")
    verdict: str = Field(description="live, collapsed, actions_ignored, nonfinite or no_codes")
    error: float | None = Field(None, description="the workload's error, which decides between equals; in older "
                                "journals it stands among the metrics")
    metrics: dict[str, float | None] = Field(default_factory=dict, description="a few val/* keys")
    tflops: float | None = Field(description="operations since the trial began")
    seconds: float | None = Field(0.0, description="training time since the trial began")
    step: Int = Field(0, description="optimizer steps since the trial began")
    values: dict[str, float | None] = Field(default_factory=dict, description="with further objectives or constraints: "
                                            "their metrics")
    violation: float | None = Field(0.0, description="with constraints: 0 inside, null = not measured")


class _Taken(JournalEvent):
    source: str = Field(description="`<sweep>/<id>`")
    params: dict[str, Knob] = Field(description="as this sweep would have suggested them")
    state: Status = Field(description="how it ended there")


class WarmStarted(Measured, _Taken):
    """The searcher is told a result of another sweep; it is no trial of this one."""

    event: Literal["warm_started"] = "warm_started"


BASELINE = "baseline"  # the rule of a trial that has the config in production


class Suggested(Change):
    """The searcher, or a person, made a new trial."""

    event: Literal["suggested"] = "suggested"
    params: dict[str, Knob] = Field(description="{knob: value}, what the sampler chose; inactive conditional knobs "
                                   "are absent")
    attrs: dict[str, Any] = Field(default_factory=dict, description="where the sampler keeps something")
    seed: Int | None = Field(None, description="where a config is trained several times")
    repeats: TrialId | None = Field(None, description="id of the first training of its config, on all but that one")
    reason: Reason | None = Field(None, description="where a person asked for it: rule person; or what is in "
                                 "production: rule baseline")


class Started(Change):
    """A worker has taken the trial."""

    event: Literal["started"] = "started"


class Result(Measured, TrialEvent):
    """An epoch was validated."""

    event: Literal["result"] = "result"


class TrialInterrupted(Change):
    """It comes back under the same id; of a paused trial: it is promoted."""

    event: Literal["interrupted"] = "interrupted"
    epoch: Int = Field(description="its last validated epoch, 0 before the first")
    because: str = Field("", description="what its machine did, where that is the reason")


class Completed(Change):
    """The trial had its full budget, or stopped by itself."""

    event: Literal["completed"] = "completed"
    epoch: Int = Field(description="its last validated epoch")
    objective: float | None = Field(description="its best; null = none was finite")


class Cut(Change):
    """The trial was ended from outside."""

    epoch: Int = Field(description="its last validated epoch, 0 before the first")
    reason: Reason = Field(description="why")


class Stopped(Cut):
    """A rule ended the trial."""

    event: Literal["stopped"] = "stopped"


class Paused(Cut):
    """A rung holds the trial, which may still be promoted: an `interrupted` and then a `started`."""

    event: Literal["paused"] = "paused"


class Failed(Cut):
    """The trial failed."""

    event: Literal["failed"] = "failed"


class Unknown(JournalEvent):
    """An event that a newer version of the same journal version added."""


Known = (SweepStarted | SweepResumed | WarmStarted | Suggested | Started | Result | Stopped | Paused | Completed
         | Failed | TrialInterrupted | SweepFinished | SweepInterrupted | SweepHalted
         | MachineJoined | MachineLeftOut | MachineDraining | MachineLost | Waiting)
KINDS: dict[str, type[JournalEvent]] = {kind.model_fields["event"].default: kind for kind in get_args(Known)}
READER: TypeAdapter[Any] = TypeAdapter(Annotated[Known, Field(discriminator="event")])


def schema() -> dict[str, Any]:
    """The JSON schema of an event as it stands in a journal."""
    return READER.json_schema()
