"""Clone a player of Breakout from its videos: what a good and a bad latent action model are worth.

A scripted player follows the ball. A latent action model learns from its videos, without its actions; `lam label` gives
every transition its codes, and a few true actions name these. A small player learns from the screen to do what was
named, and plays the real game, beside clones of all true actions, of a collapsed model's codes, of the few true actions
alone, and random play.          python examples/clone_from_video.py WORK_FOLDER [SEED ...]
"""
import sys
from pathlib import Path

import numpy as np
import torch

from lam import RunConfig, load, train
from lam.data.games.breakout import NAMES, filmed, play_with, scripted, write_videos
from lam.data.windows import open_split
from lam.evaluation.measure import evaluate
from lam.inference.naming import counted
from lam.labelling.labelling import Asked, label

CLIPS, LENGTH, SIZE, FEW = 40, 120, 64, 300
MODEL = {"sequence_length": 4, "embed_dim": 32, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "rollout_horizon": 1, "learning_rate": 3e-3, "warmup_steps": 30, "vq_refresh_interval": 50,
         "num_epochs": 8, "steps_per_epoch": 75, "lr_decay_epochs": 8, "device": "cpu", "sample_count": 0}
COLLAPSED = {"num_embeddings": 1, "num_codes": 1}  # what a collapsed codebook is: every transition has the same code


def cloned(seen, targets, seed):
    """A player that learned to do what `targets` say, -1 = not said."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(seen[targets >= 0]), torch.from_numpy(targets[targets >= 0])
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, len(NAMES)))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(1500):
        rows = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return lambda game, view: int(net(torch.from_numpy(view.astype(np.float32))).argmax())


def named(folder, actions, known, seed, **changes):
    """[clips, LENGTH] actions that a model's codes name, from the `known` ones; and the model's val/action_skill."""
    run, videos = folder / f"run-{len(changes)}", folder / "videos"
    config = RunConfig(data_dir=str(videos), seed=seed, **MODEL | changes)
    list(train(config, run))
    with np.load(label(Asked(str(run), videos, run / "codes.npz")).out) as found:
        video, frame, codes = found["video"], found["frame"], found["codes"]
    targets = np.full(actions.shape, -1)
    targets[video, frame] = counted(NAMES, codes, np.where(known, actions, -1)[video, frame]).shares(codes).argmax(1)
    scored = open_split(config.replace(data_dir=str(folder / "scored")), "validation", stride=1)
    return np.where(known, actions, targets), evaluate(load(run).module, scored, config)["val/action_skill"]


def compare(folder, seed):
    """The score of every player: the mean of 4 games of at most 1,000 moves."""
    random = np.random.default_rng(seed)
    clips = filmed(random, CLIPS, LENGTH, SIZE)
    write_videos(folder / "videos", clips, actions=False), write_videos(folder / "scored", clips, actions=True)
    seen, actions = np.stack([clip.seen for clip in clips]), np.stack([clip.done for clip in clips])
    known = np.zeros(actions.shape, bool)
    known.flat[random.choice(actions.size, FEW, replace=False)] = True
    (good, skill), (bad, bad_skill) = (named(folder, actions, known, seed, **each) for each in ({}, COLLAPSED))
    learn = {"clone of all true actions": actions, "clone of codes, named by 300 true actions": good,
             "clone of the 300 true actions alone": np.where(known, actions, -1),
             "clone of a collapsed model's codes": bad}
    players = {"scripted player": scripted(random), **{name: cloned(seen.reshape(actions.size, -1), each.ravel(), seed)
               for name, each in learn.items()}, "random": lambda game, view: random.integers(3)}
    scores = {name: np.mean([play_with(player, 1000, 9000 + 10 * seed + game).score for game in range(4)])
              for name, player in players.items()}
    return scores | {"val/action_skill of the model": skill, "val/action_skill of the collapsed one": bad_skill}


if __name__ == "__main__":
    seeds = [int(text) for text in sys.argv[2:]] or [0, 1, 2]
    rows = [compare(Path(sys.argv[1]) / f"seed-{seed}", seed) for seed in seeds]
    print("| player |", " | ".join(f"seed {seed}" for seed in seeds), "| mean |\n" + "|---" * (len(seeds) + 2) + "|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} |", " | ".join(f"{value:.2f}" for value in values), f"| {np.mean(values):.2f} |")
