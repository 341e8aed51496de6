"""The whole path on tiny real latents, as a person types it: sweep, kill, resume, confirm, report, promote, train.

What is killed is a process of its own; the rest is typed into this one, and the sweeps join a Ray that is there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typed

from lam import config as run_config
from lam.data import demo
from lam.schema import RESUMABLE
from record import yamlio
from record.journal import journals
from record.run import RunFolder

LAM = Path(sys.executable).parent / "lam"

SWEEP = """
name: tiny
base:
  data_dir: data
  sequence_length: 3
  embed_dim: 32
  encoder_depth: 1
  decoder_depth: 1
  head_dim: 16
  patch_dim: 32
  patch_size: 2
  num_codes: 2
  codebook_dim: 16
  steps_per_epoch: 40
  warmup_steps: 20
  vq_refresh_interval: 20
  rollout_horizon: 1
  eval_sequences: 96
space:
  commitment_weight: {loguniform: [0.02, 0.2]}
  num_embeddings: {choice: [6, 8]}
  learning_rate: {choice: [1e-7, 5e-3]}  # with this seed the third trial alone learns nothing, and is stopped
search: {random: {}}
scheduler: {asha: {max_epochs: 4, grace_epochs: 1, reduction_factor: 2}}
budget: {trials: 4}
seed: 0
"""


def ok(folder: Path, *words: str) -> str:
    done = typed.lam(folder, *words)
    assert done.code == 0, f"lam {' '.join(words)}\n{done.out}\n{done.err}"
    return done.out


def journal(sweep: Path) -> list[Any]:
    return list(journals.read(sweep))


def kill_after_results(folder: Path, count: int) -> None:
    """Start the sweep and SIGKILL its driver once `count` results are in the journal."""
    driver = subprocess.Popen([LAM, "sweep", "launch", "sweep.yaml"], cwd=folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and driver.poll() is None:
        sweep = folder / "runs" / "tiny"
        if sum(text.count('"result"') for text in map(Path.read_text, sweep.glob("journal*"))) >= count:
            break
        time.sleep(0.2)
    assert driver.poll() is None, "the sweep ended before it could be killed"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


def _numbers(epoch: dict[str, Any]) -> dict[str, Any]:
    """What a training computes; how fast it was is no part of it."""
    return {key: value for key, value in epoch.items() if key.startswith(("train/", "val/"))
            and not key.endswith("samples_per_second")}


def check_that_a_change_is_noticed(folder: Path) -> None:
    """One changed value of the YAML, one changed byte of the data: said, and with --strict refused."""
    text = (folder / "production.yaml").read_text()
    (folder / "edited.yaml").write_text(text.replace("warmup_steps: 20", "warmup_steps: 21"))
    shutil.copytree((folder / "data").resolve(), folder / "copied")
    same = typed.lam(folder, "train", "production.yaml", "--strict", "--run-dir", "final", "--set", "data_dir=copied")
    assert same.code == 0, same.err
    victim = sorted((folder / "copied").glob("*.h5"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    for words, said in ((["edited.yaml"], "a value is not as it was promoted"),
                        (["production.yaml", "--set", "data_dir=copied"], "the data are not those of the promotion")):
        refused = typed.lam(folder, "train", *words, "--strict", "--run-dir", "other")
        assert refused.code == 1
        assert said in refused.err
        assert not (folder / "other").exists()


@pytest.mark.slow
@pytest.mark.long
def test_sweep_kill_resume_confirm_report_promote_train(
    latents: Callable[[demo.Demo], Path], tmp_path: Path, ray_address: str
) -> None:
    (tmp_path / "data").symlink_to(latents(demo.Demo(game="breakout", episodes=12, length=40, size=64, seed=0)))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    kill_after_results(tmp_path, 3)
    before = [event for event in journal(tmp_path / "runs/tiny") if event.event == "result"]

    out = ok(tmp_path, "sweep", "launch", "sweep.yaml", "--address", ray_address)
    assert "best: t" in out
    events = journal(tmp_path / "runs/tiny")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    results = [(event.trial, event.epoch) for event in events if event.event == "result"]
    assert {(event.trial, event.epoch) for event in before} <= set(results)
    assert len(results) == len(set(results)), "an epoch was counted twice"
    ended = {event.trial for event in events if event.event in ("completed", "stopped", "failed")}
    assert ended == {"t0001", "t0002", "t0003", "t0004"}
    assert any(event.event == "stopped" and event.reason.sentence for event in events)

    refused = typed.lam(tmp_path, "promote", "runs/tiny", "-o", "production.yaml")
    assert refused.code == 1
    assert "confirmed" in refused.err
    assert not (tmp_path / "production.yaml").exists()

    ok(tmp_path, "sweep", "confirm", "runs/tiny", "--top", "1", "--seeds", "1", "--address", ray_address)
    waived = [word for gate in ("confirmed", "live", "dsnr_valid", "beats_copy", "action_skill", "ranks", "codebook",
                                "tested") for word in ("--waive", gate, "--because", "one seed only")]
    said = ok(tmp_path, "promote", "runs/tiny", "-o", "production.yaml", *waived)
    assert "its weights are in" in said
    assert yamlio.load_mapping(tmp_path / "production.yaml")["provenance"]["test"]["metrics"]["val/mse_loss"] > 0
    assert "one seed only" in (tmp_path / "production.yaml").read_text()

    said = ok(tmp_path, "report", "runs/tiny", "-o", "report.html", "-o", "report.md")
    assert " wins" in said
    for place in ("report.html", "runs/tiny", "production.yaml"):
        assert place in said
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5, "the strips are missing"

    promoted = yamlio.load_mapping(tmp_path / "production.yaml")["provenance"]
    ok(tmp_path, "train", "production.yaml", "--run-dir", "final", "--strict", "--set",
       f"threads={promoted['trial_threads']}")
    final = RunFolder(tmp_path / "final")
    assert final.identity()["state"] == "finished"
    assert run_config.of_run(final).comparable(RESUMABLE) == run_config.load(
        tmp_path / "production.yaml").comparable(RESUMABLE)
    trial = RunFolder(tmp_path / "runs" / "tiny" / "trials" / promoted["trial"]).metrics()
    for ours, theirs in zip(final.metrics(), trial, strict=False):
        assert _numbers(ours) == _numbers(theirs), "the first epochs are the trial's, bit for bit"
    check_that_a_change_is_noticed(tmp_path)
    measured = json.loads(ok(tmp_path, "evaluate", "final", "--split", "test", "--json"))
    assert measured["probe"]["transitions"] > 0
