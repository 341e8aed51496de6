"""What the job of a submitted sweep types: names that a shell would take apart, out of the folder that goes away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from sweep_driver import spec

from sweeps.spec.load import load
from sweeps.workers import jobs


@pytest.mark.parametrize("baseline", [None, "what we; serve.yaml"])
def test_the_command_leaves_its_folder_and_names_its_files_whole(tmp_path: Path, baseline: str | None) -> None:
    packed, programs = tmp_path / "a copy", tmp_path / "bin"
    packed.mkdir()
    programs.mkdir()
    (programs / "lam").write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    (programs / "lam").chmod(0o755)
    served = tmp_path / baseline if baseline else None
    if served:
        served.write_text("learning_rate: 0.1\n")
    command = jobs._packed(packed, load(spec(tmp_path)), "/my runs/$HOME", served)
    told = subprocess.run(command, shell=True, cwd=packed, text=True, capture_output=True, check=True,
                          env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}).stdout.splitlines()
    ends = ["--baseline", f"{packed}/baseline/{baseline}"] if baseline else []
    assert told == ["/", "sweep", "launch", f"{packed}/sweep.yaml", "--address", "auto",
                    "--storage", "/my runs/$HOME", *ends]
    assert all(Path(path).exists() for path in [told[3], *ends[1:]])
