"""A training step at the guide's defaults against a dense joint-attention model of the same widths, in one run.

    python benchmarks/bench_train_step.py            speed, memory and paired quality (about eight minutes)
    python benchmarks/bench_train_step.py --speed    speed and memory only

Each arm runs in a process of its own, so that its peak resident memory is its own. Arms take turns
round by round, and a ratio is that of the arms' best rounds, so that other work on the machine
weighs on all of them alike. `of peak` is the arm's counted operations over the matrix-product rate
measured beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SHAPE = (16, 64, 64)
ARMS = ("ours", "ours-recompute", "dense", "dense-fused")
SMALL = {"embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64, "codebook_dim": 32,
         "sequence_length": 4, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 50, "vq_refresh_interval": 50,
         "eval_sequences": 256}
# Bytes a sequence needs, to spare a machine that has less.
BYTES_NEEDED = {"ours": 3e9, "ours-recompute": 3e9, "dense": 4.5e9, "dense-fused": 4e9}


def build(arm: str, config: Any, shape: tuple[int, int, int]) -> Any:
    """The model of an arm."""
    from dense import DenseModel

    from lam.model.lam import LatentActionModel

    if arm.startswith("ours"):
        return LatentActionModel(config, shape)
    return DenseModel(config, shape, fused=arm == "dense-fused")


def measure(arm: str, batch: int, precision: str, rounds: int, threads: int) -> dict[str, float]:
    """Seconds of a step (best round) and peak memory in GiB, in this process."""
    import torch

    from lam.config import RunConfig
    from lam.training.stepping import Stepper

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = RunConfig(precision=precision, recompute=arm == "ours-recompute")
    stepper, latents = Stepper(config, build(arm, config, SHAPE), 100), torch.randn(batch, 8, *SHAPE)
    stepper.step(latents, 3)
    seconds = []
    for _ in range(rounds):
        begin = clock(threads)()
        stepper.step(latents, 3)  # the middle one of the six anchors
        seconds.append(clock(threads)() - begin)
    return {"seconds": min(seconds), "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "peak": matmul_peak(torch.bfloat16 if precision == "bf16" else torch.float32, clock(threads))}


def clock(threads: int) -> Callable[[], float]:
    """One thread is timed in seconds of the processor, which other work on the machine does not lengthen."""
    return time.process_time if threads == 1 else time.perf_counter


def matmul_peak(dtype: Any, now: Callable[[], float]) -> float:
    """Operations per second of a large matrix product, best of ten."""
    import torch

    left, right = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begin = now()
        left @ right
        best = min(best, now() - begin)
    return 2 * 2048**3 / best


def in_process(*arguments: str) -> dict[str, Any]:
    """This file's answer to some arguments, from a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def speed(repeats: int, rounds: int, batches: list[int], threads: int) -> None:
    """Print samples per second, memory and ratios of every arm, batch and precision."""
    import psutil

    from lam.config import RunConfig
    from lam.model import flops

    operations = flops.training_flops(RunConfig(), SHAPE, 3)
    print(f"{'arm':<14} {'batch':>5} {'precision':<9} {'s/step':>7} {'samples/s':>9} {'GiB':>5} {'speed-up':>8} "
          f"{'memory':>6} {'of peak':>7}", flush=True)
    for precision in ("float32", "bf16"):
        for batch in batches:
            arms = [arm for arm in ARMS if batch * BYTES_NEEDED[arm] < 0.9 * psutil.virtual_memory().available]
            found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
            for _ in range(repeats):
                for arm in arms:
                    found[arm].append(in_process("--arm", arm, "--batch", str(batch), "--precision", precision,
                                                 "--rounds", str(rounds), "--threads", str(threads)))
            for arm in ARMS:
                if arm not in found:
                    print(f"{arm:<14} {batch:>5} {precision:<9} left out: not enough free memory", flush=True)
                    continue
                best = min(found[arm], key=lambda one: one["seconds"])
                gib, share = max(one["gib"] for one in found[arm]), ""
                if arm.startswith("ours"):
                    share = f"{batch * operations / best['seconds'] / max(one['peak'] for one in found[arm]):.0%}"
                base = min((one["seconds"] for one in found.get("dense", [])), default=float("nan"))
                memory = max((one["gib"] for one in found.get("dense", [])), default=float("nan"))
                print(f"{arm:<14} {batch:>5} {precision:<9} {best['seconds']:>7.2f} {batch / best['seconds']:>9.3f} "
                      f"{gib:>5.2f} {base / best['seconds']:>7.2f}x {gib / memory:>6.2f} {share:>7}", flush=True)
            peak = max(one["peak"] for many in found.values() for one in many)
            print(f"  matrix products in {precision}: {peak / 1e9:.0f} GFLOP/s", flush=True)
    print(f"counted: {operations / 1e9:.0f} GFLOP a sequence (rollout_horizon 2, anchor 3)")


def validation_mse(arm: str, seed: int, data: Path, steps: int) -> float:
    """val MSE after `steps` steps of a small model on the data, batch by batch the same for every arm."""
    import numpy as np
    import torch

    from lam.config import RunConfig
    from lam.data.windows import open_split
    from lam.evaluation import measure
    from lam.training.stepping import Stepper

    config = RunConfig(data_dir=str(data), seed=seed, lr_decay_epochs=1, **SMALL)
    train, validation = open_split(config, "train"), open_split(config, "validation", stride=1)
    torch.manual_seed(seed)
    stepper, rng = Stepper(config, build(arm, config, train.latent_shape), steps), np.random.default_rng(seed)
    for _ in range(steps):
        index, anchor = rng.integers(len(train), size=config.batch_size), int(rng.integers(2))
        stepper.model.train()
        stepper.step(train.batch(index).latents, anchor)
    return float(measure.evaluate(stepper.model, validation, config)["val/mse_loss"])


def quality(data: Path, steps: int, seeds: int) -> None:
    """Print the val MSE of both models, seed by seed, and the mean of their ratios."""
    from lam.data import demo

    if not data.exists():
        demo.make(data, demo.Demo())
    ratios = []
    for seed in range(seeds):
        arguments = ("--seed", str(seed), "--data", str(data), "--steps", str(steps))
        ours, dense = (in_process("--arm", arm, *arguments)["mse"] for arm in ("ours", "dense"))
        ratios.append(ours / dense)
        print(f"seed {seed}: val MSE {ours:.4f}, dense {dense:.4f}, ratio {ratios[-1]:.3f}", flush=True)
    print(f"paired mean ratio of val MSE after {steps} steps: {statistics.mean(ratios):.3f} over {seeds} seeds")


def main() -> None:
    """Run everything, or one arm where --arm asks for it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="speed and memory only")
    parser.add_argument("--quality", action="store_true", help="paired quality only")
    parser.add_argument("--repeats", type=int, default=2, help="rounds; arms take turns")
    parser.add_argument("--rounds", type=int, default=2, help="timed steps of one arm in one round")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1 = time the processor, not the clock")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lam-bench-data")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm and asked.seed is not None:
        print(json.dumps({"mse": validation_mse(asked.arm, asked.seed, asked.data, asked.steps)}))
    elif asked.arm:
        print(json.dumps(measure(asked.arm, asked.batch, asked.precision, asked.rounds, asked.threads)))
    else:
        print(f"{os.cpu_count()} CPUs, {asked.threads} threads, load {os.getloadavg()[0]:.1f} at the start", flush=True)
        if not asked.quality:
            speed(asked.repeats, asked.rounds, asked.batches, asked.threads)
        if not asked.speed:
            quality(asked.data, asked.steps, asked.seeds)
        print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
