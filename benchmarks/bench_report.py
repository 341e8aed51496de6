"""How long `lam report` takes, how much memory, how large its page, how soon a browser answers on it.

    python benchmarks/bench_report.py make DIR --trials 1000     writes a sweep of 100 epochs a trial
    python benchmarks/bench_report.py time DIR                   reports it three times: nothing kept, the same again
                                                                 (the report is kept), one trial changed (records are)
    python benchmarks/bench_report.py page DIR                   opens the page in headless Chromium and sorts it
    python benchmarks/bench_report.py others DIR                 the same study in MLflow and optuna-dashboard

optuna-dashboard is no dependency: `pip install optuna-dashboard` where its figure is wanted.
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
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 100
SHOWN = ("val/control", "val/dsnr", "val/codebook_health", "val/perplexity_slot")  # what a journal keeps of a result


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
            say(event="result", trial=name, epoch=epoch, objective=line["val/objective"], verdict="live",
                error=line["val/mse_loss"], metrics={key: line[key] for key in SHOWN}, tflops=line["total_tflops"],
                seconds=line["seconds"], step=line["step"])
        (run / "metrics.jsonl").write_text("".join(lines))
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
    """The command as a user gives it, each time in a process of its own, with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        for turn in ("first", "second, unchanged", "third, a trial changed"):
            if turn.startswith("third"):
                os.utime(sorted((folder / "trials").iterdir())[-1] / "metrics.jsonl")
            once(folder, turn, {"XDG_CACHE_HOME": cache})


def once(folder: Path, turn: str, more: dict[str, str]) -> None:
    """One report: time of the processor and in all, the largest process, the page."""
    output = folder.parent / f"{folder.name}.html"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-c", "from lam.cli import main; main()", "report", str(folder), "-o", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more})
    spent, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{turn}: {busy:.1f} s of the processor ({spent:.1f} s in all, load {os.getloadavg()[0]:.0f}), at most "
          f"{after.ru_maxrss / 2**20:.2f} GiB up to here, page {output.stat().st_size / 1e6:.2f} MB", flush=True)


def page(folder: Path) -> None:
    """How long a browser takes until the page's script has run, and until a sorted table is drawn."""
    sys.path.insert(0, str(ROOT / "tests"))
    import browsing

    with tempfile.TemporaryDirectory() as profile, browsing.opened("about:blank", Path(profile)) as tab:
        for turn in ("cold", "again"):
            tab.send("Page.navigate", url=(folder.parent / f"{folder.name}.html").as_uri())
            tab.wait_for("document.readyState === 'complete' && document.querySelector('svg[tabindex]') !== null")
            ready, drawn = tab.value("""(() => { const one = performance.getEntriesByType("navigation")[0];
                return [one.domContentLoadedEventEnd, one.loadEventEnd]; })()""")
            acts = {name: tab.value(f"""new Promise((done) => {{ const began = performance.now(); {act};
                requestAnimationFrame(() => setTimeout(() => done(performance.now() - began))); }})""")
                for name, act in ACTS.items()}
            told = ", ".join(f"{name} drawn {spent / 1000:.2f} s later" for name, spent in acts.items())
            print(f"page, {turn}: script has run after {ready / 1000:.2f} s, loaded after {drawn / 1000:.2f} s, {told}",
                  flush=True)


ACTS = {"the first sort": "document.querySelector('#all-trials thead th:nth-child(4) button').click()",
        "a second": "document.querySelector('#all-trials thead th:nth-child(4) button').click()",
        "a search": "(() => { const box = document.querySelector('input[type=search]'); box.value = 'live value>0.3'; "
                    "box.dispatchEvent(new Event('input')); })()"}


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "time", "page", "others"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.folder, asked.trials)
    else:
        from report_peers import others

        {"time": measure, "page": page, "others": others}[asked.what](asked.folder)


if __name__ == "__main__":
    main()
