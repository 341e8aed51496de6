"""How long `lam report` takes, how much memory, how large its page: constructed sweeps of 100, 1,000 and 10,000 trials.

    python benchmarks/bench_report.py make DIR --trials 1000     writes a sweep of 100 epochs a trial
    python benchmarks/bench_report.py time DIR                   reports it twice, the second time on unchanged records
    python benchmarks/bench_report.py others DIR                 the same study in MLflow's search and Optuna's storage
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 100


def make(folder: Path, trials: int, epochs: int = EPOCHS) -> None:
    """A sweep whose trials all go to their last epoch but the half that a rung stops at a fifth of it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from build_records import DATA, Planted, config_of, record

    from record import files, yamlio

    chance, events, seq = random.Random(0), [], 0
    folder.mkdir(parents=True)

    def say(**event: object) -> None:
        nonlocal seq
        seq += 1
        events.append(json.dumps({"seq": seq, "time": "2026-01-01T00:00:00+00:00", **event}) + "\n")

    say(event="sweep_started", name=folder.name, pid=1, host="here")
    for number in range(1, trials + 1):
        name = f"t{number:05d}"
        params = {"learning_rate": 10 ** chance.uniform(-4, -2), "commitment_weight": 10 ** chance.uniform(-2, 0.3),
                  "embed_dim": chance.choice([64, 128, 256]), "quantizer": chance.choice(["ema", "vq"])}
        good = math.exp(-(math.log10(params["learning_rate"]) + 3) ** 2) * (1.5 - params["commitment_weight"] / 2)
        planted = Planted(control=max(0.01, 0.4 * good + chance.gauss(0, 0.03)), mse=0.02 + 0.02 * chance.random(),
                          perplexity=1.2 if chance.random() < 0.1 else 4 + 6 * chance.random(), epochs=epochs)
        stopped = chance.random() < 0.5
        until = epochs // 5 if stopped else epochs
        run = folder / "trials" / name
        run.mkdir(parents=True)
        config = config_of(params, num_epochs=epochs)
        if number == 1:
            base, fingerprint = config.mapping(), config.fingerprint()
        files.write_text(run / "config.yaml", yamlio.dump_mapping({**base, **params}))
        files.write_json(run / "run.json", {
            "schema": 1, "run_id": name, "state": "interrupted" if stopped else "finished",
            "config_fingerprint": fingerprint, "data_fingerprint": DATA, "versions": {"lamsweep": "0.1.0"}})
        say(event="suggested", trial=name, params=params)
        say(event="started", trial=name)
        lines = []
        for epoch in range(1, until + 1):
            line = files.jsonable({**record(planted, epoch), "train/grad_norm_mean": 0.7, "train/grad_norm_max": 2.0})
            lines.append(files.json_line(line))
        (run / "metrics.jsonl").write_text("".join(lines))
        say(event="result", trial=name, epoch=until, objective=line["val/objective"], verdict="live", metrics={},
            tflops=line["total_tflops"])
        end = {"reason": {"rule": "asha", "sentence": f"objective below the cutoff at epoch {until}", "rung": until,
                          "value": line["val/objective"], "cutoff": 0.3, "peers": 9, "epochs_saved": epochs - until}}
        say(event="stopped" if stopped else "completed", trial=name, epoch=until,
            **(end if stopped else {"objective": line["val/objective"]}))
    (folder / "journal-000001.jsonl").write_text("".join(events))
    files.write_json(folder / "sweep.json", {
        "schema": 1, "name": folder.name, "base": base, "data_fingerprint": DATA, "asked": {},
        "spec": {"objective": "val/objective", "seed": 0, "search": {"tpe": {}}, "constraints": {}, "scheduler": {
            "asha": {"max_epochs": epochs, "grace_epochs": epochs // 5, "reduction_factor": 3}}},
        "versions": {}, "git_commit": None, "created_at": None, "fingerprint": "0"})


def measure(folder: Path) -> None:
    """The command as a user gives it, twice, each in a process of its own."""
    for turn in ("first", "second, unchanged"):
        output = folder.parent / f"{folder.name}.html"
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [sys.executable, "-c", "from lam.cli import main; main()", "report", str(folder), "-o", str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{turn}: {busy:.1f} s of the processor ({time.monotonic() - began:.1f} s in all), "
              f"{after.ru_maxrss / 2**20:.2f} GiB at most, page "
              f"{output.stat().st_size / 1e6:.2f} MB", flush=True)


def others(folder: Path) -> None:
    """The best value of the same trials by MLflow's search and by Optuna's storage, for comparison."""
    import optuna
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from analysis.read.reading import read_study

    study = read_study(folder)
    rows = [(trial.label, trial.params, [(record["epoch"], record["val/objective"]) for record in trial.records])
            for trial in study.trials]
    uri = f"sqlite:///{folder.parent}/{folder.name}-mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("bench")
    storage = optuna.storages.InMemoryStorage()
    kept = optuna.create_study(storage=storage, direction="maximize", study_name="bench")
    for label, params, points in rows:
        run = client.create_run(experiment, run_name=label)
        client.log_batch(run.info.run_id, metrics=[Metric("objective", value, 0, epoch) for epoch, value in points])
        kept.add_trial(optuna.trial.create_trial(
            params={"learning_rate": params["learning_rate"]}, value=points[-1][1], distributions={
                "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)},
            intermediate_values=dict(points)))
    began, token, found = time.monotonic(), None, 0
    while True:
        page = client.search_runs([experiment], order_by=["metrics.objective DESC"], max_results=1000, page_token=token)
        found, token = found + len(page), page.token
        if not token:
            break
    print(f"MLflow, search_runs alone: {found} runs in {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    best = client.search_runs([experiment], order_by=["metrics.objective DESC"], max_results=50)
    for run in best:
        client.get_metric_history(run.info.run_id, "objective")
    print(f"MLflow, curves of the best 50: {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    optuna.importance.get_param_importances(kept)
    print(f"Optuna, trials and importance in memory: {time.monotonic() - began:.1f} s")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "time", "others"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.folder, asked.trials)
    else:
        {"time": measure, "others": others}[asked.what](asked.folder)


if __name__ == "__main__":
    main()
