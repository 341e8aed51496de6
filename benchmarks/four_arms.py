"""The four arms of the VQ comparison on real play: no codes, strong commitment with and without revival, gentle.

    .venv/bin/python benchmarks/four_arms.py [FOLDER] [--jobs 2]

Makes the data by `lam data demo`, trains configs/{no_vq,vq_refresh,vq_no_refresh,vq_gentle}.yaml with one small model
on three seeds each (12 trainings; the same command again goes on where it was), and writes docs/examples/four-arms.md
and .html by `lam report`, with pictures of the page where a headless Chromium is installed. Weights and data stay in
FOLDER.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LAM = [sys.executable, "-m", "lam.cli"]
ROOT = Path(__file__).resolve().parents[1]
ARMS = ("no_vq", "vq_refresh", "vq_no_refresh", "vq_gentle")
SEEDS = (0, 1, 2)
DATA = ("--size", "64", "--episodes", "48", "--length", "96")
# One small model and schedule for every arm: 30 epochs, as the arms say, of 32 steps: a quarter of an hour on 2 cores.
MODEL = {"sequence_length": 4, "embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "steps_per_epoch": 32, "learning_rate": "3e-3", "lr_decay_epochs": 30, "warmup_steps": 30,
         "eval_sequences": 128, "threads": 1}
# What is shown of the page: name, width, light or dark, medium, section, height.
PICTURES = (("phone", 400, "light", "", "html", 1500), ("tablet", 900, "light", "", "html", 1500),
            ("desk", 1600, "light", "", "html", 1200), ("dark", 1600, "dark", "", "#curves", 1300),
            ("panels", 1600, "light", "", "#panels", 900), ("codebooks", 1600, "light", "", "#pictures", 1500),
            ("print", 794, "light", "print", "#comparison", 1123))


def train(arm: str, seed: int) -> Path:
    """One training, in the folder that is current; where it has finished nothing happens."""
    run = Path("runs") / f"{arm}-{seed}"
    run.parent.mkdir(exist_ok=True)
    given = [word for key, value in (MODEL | {"data_dir": Path("data").resolve(), "seed": seed}).items()
             for word in ("--set", f"{key}={value}")]
    with (run.parent / f"{run.name}.log").open("a") as said:
        subprocess.run([*LAM, "train", ROOT / "configs" / f"{arm}.yaml", *given, "--run-dir", run], check=True,
                       stdout=said)
    print(f"{run} has finished", flush=True)
    return run


def report(runs: list[Path], out: Path) -> None:
    """The comparison as a page and as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([*LAM, "report", *runs, "--baseline", runs[0], "-o", out / "four-arms.html",
                    "-o", out / "four-arms.md"], check=True)


def picture(page: Path) -> None:
    """PNG of parts of the page beside it, in few colours."""
    from PIL import Image

    sys.path.append(str(ROOT / "tests"))
    import browsing

    with tempfile.TemporaryDirectory() as folder, browsing.opened(page.resolve().as_uri(), Path(folder)) as tab:
        tab.wait_for("document.readyState === 'complete'")
        for name, width, scheme, medium, section, height in PICTURES:
            tab.sized(width, scheme, medium)
            taken = Image.open(io.BytesIO(tab.picture(height, section))).convert("RGB")
            taken.quantize(96).save(page.with_name(f"{page.stem}-{name}.png"), optimize=True)


def main() -> None:
    """Data, twelve trainings, one report."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", nargs="?", type=Path, default=Path("four-arms"))
    asked.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    given = asked.parse_args()
    began = time.monotonic()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(given.folder)
    subprocess.run([*LAM, "data", "demo", "data", *DATA], check=True)
    with ThreadPoolExecutor(given.jobs) as turns:
        runs = list(turns.map(lambda each: train(*each), ((arm, seed) for arm in ARMS for seed in SEEDS)))
    print(f"trained after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    out = ROOT / "docs" / "examples"
    report(runs, out)
    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        picture(out / "four-arms.html")


if __name__ == "__main__":
    main()
