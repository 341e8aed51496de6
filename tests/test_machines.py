"""Which machines take trials, and whose fault it is that a trial left one: a cluster that is said, no Ray."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import fake_training
import pytest
from small_sweep import make_sweep

from analysis.read import reading
from record.journal import events
from record.journal.events import SweepStarted
from record.journal.machines import MOST, over
from sweeps.journal.journal import Journal
from sweeps.views import display, summary
from sweeps.workers import probe
from sweeps.workers.cluster import grows_to, in_words, inventory
from sweeps.workers.driver import MAX_BLAMED, WAIT_SECONDS, SweepDriver
from sweeps.workers.engine import Job
from sweeps.workers.lost import Losses
from sweeps.workers.machines import JOIN_SECONDS, LOOK_SECONDS, STRIKES, Machine, Machines
from sweeps.workers.trainable import TrialTrainable
from sweeps.workers.trial.process import claim_gpu


@dataclass
class Said:
    """A cluster as a test says it is."""

    there: dict[str, Machine]
    lacks: dict[str, str | None] = field(default_factory=dict)
    grows: int | None = None

    def machines(self) -> list[Machine]:
        return list(self.there.values())

    def probed(self, machine: Machine) -> str | None:
        return self.lacks.get(machine.id, "")

    def growth(self) -> int | None:
        return self.grows

    def words(self) -> str:
        return inventory([{"CPU": 1.0}] * len(self.there))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = LOOK_SECONDS) -> None:
        self.now += seconds


def of(*names: str, **lacks: str | None) -> Said:
    return Said({name: Machine(name, f"host-{name}", 1) for name in names}, lacks)


def kinds(machines: Machines) -> list[tuple[str, str]]:
    return [(event.event, event.node) for event in machines.look(now=True)]


def test_a_machine_takes_trials_once_it_has_answered() -> None:
    cluster = of("a", "b", b=None)
    machines = Machines(cluster)
    assert kinds(machines) == [("machine_joined", "a")]
    assert (machines.pending(), machines.capacity, machines.avoided) == (True, 1, ())
    cluster.lacks["b"] = "does not see /shared"
    assert kinds(machines) == [("machine_left_out", "b")]
    assert (machines.pending(), machines.capacity, machines.avoided, machines.hopeless()) == (False, 1, ("b",), "")
    assert kinds(machines) == []


def test_where_none_is_left_it_is_said_with_the_names() -> None:
    clock = Clock()
    machines = Machines(of("a", "b", a="has no torch", b="does not see /shared"), clock)
    assert len(kinds(machines)) == 2
    assert machines.hopeless() == "", "another one may be on its way"
    clock.tick(JOIN_SECONDS)
    assert machines.hopeless() == ("no machine of the cluster may take a trial: machine host-a has no torch; machine "
                                   "host-b does not see /shared")


def test_looks_are_two_seconds_apart() -> None:
    clock, cluster = Clock(), of("a")
    machines = Machines(cluster, clock)
    assert len(machines.look()) == 1
    cluster.there["b"] = Machine("b", "host-b", 1)
    assert machines.look() == []
    clock.tick()
    assert [event.node for event in machines.look()] == ["b"]


def test_this_machine_alone_is_neither_probed_nor_blamed() -> None:
    machines = Machines()
    machines.started("t1", "x")
    assert (machines.look(), machines.capacity, machines.refused("t1", "full")) == ([], float("inf"), None)
    assert machines.left("t1", True, "its node has died") == ""


@pytest.mark.parametrize(("holds", "grown", "left_out"), [(4, 4, []), (4, 8, ["machine_left_out"]), (1, None, [])])
def test_the_only_machine_is_left_out_only_where_another_may_join(
        holds: int, grown: int | None, left_out: list[str]) -> None:
    cluster = of("a")
    cluster.there["a"], cluster.grows = replace(cluster.there["a"], fits=holds), grown
    machines = Machines(cluster)
    machines.look()
    found = []
    for number in range(STRIKES):
        machines.started(f"t{number}", "a")
        found += machines.failed(f"t{number}", "diverged")
    assert [event.event for event in found] == left_out


def test_a_trial_of_several_workers_may_be_on_several_machines() -> None:
    cluster = of("a", "b", "c", "d")
    machines = Machines(cluster, workers=2)
    joined = machines.look()
    assert (machines.capacity, display.line(joined[0], 9)) == (
        2, "machine host-a takes up to 1 worker, 2 of which are a trial")
    machines.started("t1", "a", "b")
    for number in range(STRIKES):
        assert machines.failed(f"t{number}", "diverged") == [], "nobody knows on which of them"
    cluster.there["b"] = replace(cluster.there["b"], drains=0.0)
    assert kinds(machines) == [("machine_draining", "b")]
    assert (machines.leaves("t1"), machines.capacity) == (True, 1)
    assert machines.left("t1", False, "") == "machine host-b is being drained"
    del cluster.there["b"]
    machines.look(now=True)
    assert machines.left("t1", True, "its connection was closed") == "machine of this trial went away"


def test_too_few_machines_for_the_workers_of_a_trial_are_said() -> None:
    clock = Clock()
    machines = Machines(of("a", "b", b="has no torch"), clock, workers=2)
    machines.look()
    assert machines.hopeless() == "", "another one may be on its way"
    clock.tick(JOIN_SECONDS)
    assert machines.hopeless() == ("too few machines are left for the 2 workers of a trial: machine host-b has no "
                                   "torch")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def driven(folder: Path, cluster: Said, clock: Clock, concurrency: int | None = None) -> SweepDriver:
    sweep = make_sweep(folder, base={"data_dir": "nowhere", "num_epochs": 3}, budget={"trials": 6}, search="random",
                       scheduler="none")
    journal = Journal(folder)
    journal.append(SweepStarted(name="demo", pid=1, host="here"))
    driver = SweepDriver(sweep, journal, "x:y", concurrency, lambda event: None, lambda: False, clock,
                         Machines(cluster, clock))
    driver.settle()
    return driver


def take(driver: SweepDriver, node: str) -> Job:
    job = driver.next()
    assert isinstance(job, Job)
    driver.started(job.id, node)
    return job


def epoch(driver: SweepDriver, job: Job, number: int) -> bool:
    config = driver.sweep.workload.read(job.config, "the test")
    return driver.record(job.id, fake_training.make_record(config, number))


def status(driver: SweepDriver, job: Job) -> str:
    return driver.journal.state.trials[job.id].status


def test_what_a_machine_refuses_goes_elsewhere_and_fails_no_trial(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a", "b"), clock)
    job = take(driver, "a")
    driver.failed(job.id, {"rule": "environment", "sentence": "[Errno 28] No space left on device"})
    driver.left(job.id, lost=True, error="ProcessSpent")
    assert status(driver, job) == "interrupted"
    assert not driver.stopping()
    assert driver.journal.state.machines == {
        "a": f"left out: machine host-a refused {job.id}: [Errno 28] No space left on device"}
    again = take(driver, "b")
    assert (again.id, again.avoid) == (job.id, ("a",))
    assert driver.next() == "wait", "one machine is left, which holds one trial"
    driver.failed(job.id, {"rule": "environment", "sentence": "[Errno 28] No space left on device"})
    assert driver.stopping(), "no machine is left"
    assert driver.refused == f"{job.id}: [Errno 28] No space left on device"
    driver.journal.close()


def test_what_the_machine_of_another_worker_lacks_leaves_out_that_one(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a", "b", "c"), clock)
    job = take(driver, "a")
    driver.placed(job.id, ["a", "b"])
    driver.failed(job.id, {"rule": "environment", "sentence": "worker 1 of 2: no such folder", "node": "b"})
    driver.left(job.id, lost=True, error="ProcessSpent")
    assert status(driver, job) == "interrupted"
    assert driver.journal.state.machines == {
        "b": f"left out: machine host-b refused {job.id}: worker 1 of 2: no such folder"}
    driver.journal.close()


def test_losing_machines_is_never_held_against_a_trial(tmp_path: Path, clock: Clock) -> None:
    cluster = of("a", "b", "c")
    driver = driven(tmp_path, cluster, clock)
    for number, name in enumerate("abcabcabc"):
        cluster.there[name] = Machine(name, f"host-{name}", 1)
        clock.tick()
        assert not driver.stopping()
        job = take(driver, name)
        assert job.id == "t0001"
        if number == 4:
            assert epoch(driver, job, 1)
        del cluster.there[name]
        driver.left(job.id, lost=True, error="The actor died because its node has died")
        clock.tick()
        assert not driver.stopping()
        assert status(driver, job) == "interrupted"
    assert driver.journal.state.trials["t0001"].epoch == 1
    lost = [event for event in driver.journal.store.read() if event.event == "machine_lost"]
    assert len(lost) == 9
    driver.journal.close()


def test_machines_that_only_ever_go_away_end_the_session(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a", "b"), clock)
    for _ in range(MAX_BLAMED):
        job = take(driver, "a")
        driver.left(job.id, lost=True, error="The actor is temporarily unavailable")
    assert driver.stopping()
    assert driver.refused == ("20 times in a row a trial left its machine, and none reported an epoch: machine host-a "
                              "went away")
    driver.journal.close()


def test_a_process_that_dies_on_a_machine_that_stays_counts(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a", "b"), clock)
    for _ in range(3):
        job = take(driver, "a")
        driver.left(job.id, lost=True, error="The actor died unexpectedly: SIGKILL")
    assert status(driver, job) == "failed"
    assert driver.journal.state.trials[job.id].rule == "process_lost"
    driver.journal.close()


def test_three_trials_in_a_row_that_fail_on_one_machine_leave_it_out(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a", "b"), clock)
    for number in range(3):
        assert driver.journal.state.machines == {}, number
        job = take(driver, "a")
        driver.failed(job.id, {"rule": "raised", "sentence": "training raised RuntimeError: CUDA error"})
        driver.left(job.id, lost=True, error="ProcessSpent")
    assert driver.journal.state.machines["a"].startswith(
        "left out: machine host-a had 3 trials in a row that failed, the last one t0003: training raised")
    good = take(driver, "b")
    assert good.avoid == ("a",)
    assert epoch(driver, good, 1)
    driver.journal.close()


def test_a_draining_machine_is_left_after_the_running_epoch(tmp_path: Path, clock: Clock) -> None:
    cluster = of("a", "b")
    driver = driven(tmp_path, cluster, clock)
    job = take(driver, "a")
    assert epoch(driver, job, 1)
    cluster.there["a"] = Machine("a", "host-a", 1, drains=1_900_000_000.0)
    clock.tick()
    assert not driver.stopping()
    assert not epoch(driver, job, 2), "it has just been saved"
    driver.left(job.id, lost=False)
    again = take(driver, "b")
    assert (again.id, again.after, again.avoid) == (job.id, 2, ("a",))
    assert driver.journal.state.machines == {
        "a": "machine host-a is being drained and goes at 2030-03-17T17:46:40+00:00; its trials move"}
    told = [event for event in driver.journal.store.read() if event.event == "interrupted"]
    assert [display.line(event, 3) for event in told] == [
        f"{job.id} interrupted after 2 epochs (machine host-a is being drained), it will go on from there"]
    driver.journal.close()


def test_a_trial_without_a_place_says_for_what_it_waits(tmp_path: Path, clock: Clock) -> None:
    driver = driven(tmp_path, of("a"), clock, concurrency=2)
    take(driver, "a")
    assert isinstance(driver.next(), Job)
    clock.tick(WAIT_SECONDS + 1)
    assert not driver.stopping()
    assert summary.cluster_lines(driver.journal.state) == [
        "1 of 2 trials have waited for 60 s for 1 CPU each; the cluster has 1 x 1 CPUs and 0 GPUs"]
    driver.started("t0002", "b")
    assert summary.cluster_lines(driver.journal.state) == []
    driver.journal.close()


def test_losses_count_while_there_is_no_progress() -> None:
    losses = Losses()
    assert [losses.add("t1", 4), losses.add("t1", 4), losses.add("t1", 5), losses.of("t1", 5)] == [1, 2, 1, 1]
    assert losses.of("t1", 6) == 0


def test_a_probe_says_what_is_wrong(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    asked = probe.Asked(str(tmp_path), probe.versions(), "lam", [sweep.base.mapping()], fake_training.prepare,
                        fake_training.prepare([]))
    assert probe.answer(asked) == f"does not see {tmp_path}; mount the storage there at the same path"
    (tmp_path / "sweep.json").write_text("{}")
    assert "file locks do not work between machines on this storage" in probe.answer(asked)
    with probe.held(tmp_path):
        assert probe.answer(asked) == ""
        assert "has other data at the same path" in probe.answer(replace(asked, fingerprint="else"))
        assert f"{tmp_path / 'nothing'}" in probe.answer(replace(asked, folder=str(tmp_path / "nothing")))
        real = probe.Asked(str(tmp_path), probe.versions(), "lam", [{**sweep.base.mapping(), "data_dir": "/none"}])
        assert "/none:data_dir: no such folder" in probe.answer(real)
    old = {**probe.versions(), "torch": "1.0"}
    assert probe.differs(old).endswith("(the driver has 1.0); install the driver's versions there")
    assert sorted(path.name for path in tmp_path.glob(".machine-*")) == []


def test_a_probe_that_does_not_run_is_told_by_its_cause() -> None:
    from ray.exceptions import RayError

    assert in_words(RayError("ModuleNotFoundError: No module named 'sweeps'")) == (
        "cannot import lamsweep (No module named 'sweeps'); install it there, as on the driver's machine")
    assert in_words(RayError("it broke\nat once")) == "could not be asked (at once)"


def test_what_an_autoscaler_can_start_is_read_from_its_file(tmp_path: Path) -> None:
    from sweeps.spec.sections import Resources

    file = tmp_path / "bootstrap.yaml"
    assert grows_to(file, Resources()) is None
    file.write_text("max_workers: 4\navailable_node_types:\n  head: {resources: {CPU: 0}, max_workers: 0}\n"
                    "  gpu: {resources: {CPU: 8, GPU: 1}, max_workers: 3}\n")
    assert grows_to(file, Resources(cpu=2)) == 12
    assert grows_to(file, Resources(cpu=2, gpu=1)) == 3
    assert grows_to(file, Resources(cpu=9)) == 0
    assert grows_to(file, Resources(cpu=2, workers=5)) == 2


def test_a_trial_is_kept_off_machines_by_its_own_placement() -> None:
    alone = '{"cpu": 2, "gpu": 0, "workers": 1, "avoid": ["x", "y"]}'
    place = TrialTrainable.default_resource_request({"place": alone})
    assert place is not None
    assert place.bundles == [{"CPU": 2.0}]
    assert place._bound.kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(x,y)"}]
    free = TrialTrainable.default_resource_request({"place": '{"cpu": 1, "gpu": 1, "workers": 2, "avoid": []}'})
    assert free is not None
    assert free.bundles == [{"CPU": 1.0, "GPU": 1.0}] * 2
    assert free._bound.kwargs == {}
    several = TrialTrainable.default_resource_request({"place": alone.replace("1", "3")})
    assert several is not None
    assert several._bound.kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(x,y)"}] * 3


def test_auto_is_one_gpu_where_there_is_any() -> None:
    from sweeps.spec.sections import Resources

    auto = Resources()
    assert (auto.gpu, auto.gpus, auto.where(True).gpus, auto.where(False).gpus) == ("auto", 0.0, 1.0, 0.0)
    assert Resources(gpu=0.5).where(True).gpus == 0.5
    assert (auto.words(), auto.where(True).words()) == ("1 CPU", "1 CPU and 1 GPU")
    assert Resources(workers=2, gpu=1).words() == "2 workers of 1 CPU and 1 GPU"


def test_a_trial_without_a_gpu_sees_none_and_half_a_one_has_half_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    asked: list[float] = []
    cuda = SimpleNamespace(is_available=lambda: True, set_per_process_memory_fraction=asked.append)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    claim_gpu(1)
    claim_gpu(2)
    assert (asked, os.environ["CUDA_VISIBLE_DEVICES"]) == ([], "0,1")
    claim_gpu(0.5)
    assert (asked, os.environ["CUDA_VISIBLE_DEVICES"]) == ([0.5], "0,1")
    claim_gpu(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_report_says_what_befell_the_machines(tmp_path: Path) -> None:
    """And once, however often it happened; joining is no news."""
    here = {"node": "n1", "host": "far"}
    happened = [events.MachineJoined(**here, fits=2), events.MachineLeftOut(**here, reason="does not see /data"),
                events.MachineDraining(**here), events.MachineLost(**here), events.MachineLost(**here)]
    assert over(happened) == (
        "machine far was left out: it does not see /data", "machine far was drained; its trials moved",
        "machine far went away; its trials went on elsewhere, 2 times")
    many = over(events.MachineLost(node="n", host=f"h{number}") for number in range(MOST + 2))
    assert many[-1] == "and 2 more events of machines"
    assert len(many) == MOST + 1


def test_a_report_of_a_sweep_names_a_machine_that_went_away(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(Path(__file__).parent / "records_before" / "before", tmp_path / "sweep"))
    (journal,) = folder.glob("journal-*.jsonl")
    lines = journal.read_text().splitlines()
    last = json.loads(lines[-1])
    gone = {"seq": last["seq"] + 1, "time": last["time"], "event": "machine_lost", "node": "n1", "host": "far"}
    journal.write_text("\n".join([*lines, json.dumps(gone)]) + "\n")
    assert "machine far went away; its trials went on elsewhere" in reading.read_study([folder]).notes
