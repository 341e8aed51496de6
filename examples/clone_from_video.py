"""Clone a player of Breakout from its videos: what a good and a bad latent action model are worth.

A scripted player follows the ball. A latent action model learns from its videos; `lam.label` gives every transition its
codes, which a few true actions name. A small player learns from the screen to do what was named, and plays the game.
Run it with:  python examples/clone_from_video.py FOLDER SEED...
"""
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neural_network import MLPClassifier

import lam
from lam.data.games.breakout import filmed, play_with, scripted, write_videos
from lam.data.windows import open_split

CLIPS, MOVES, SIZE, FEW = 40, 120, 64, 300
MODEL = {"sequence_length": 4, "embed_dim": 32, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "rollout_horizon": 1, "learning_rate": 3e-3, "warmup_steps": 30, "vq_refresh_interval": 50,
         "num_epochs": 8, "steps_per_epoch": 75, "lr_decay_epochs": 8, "device": "cpu", "sample_count": 0}


def cloned(seen, done, random):
    """A player that learned how often what was done in which situation, and draws accordingly; -1 = not known."""
    net = MLPClassifier(128, early_stopping=True, random_state=0).fit(seen[done >= 0], done[done >= 0])
    return lambda game, view: random.choice(net.classes_, p=net.predict_proba(np.float32(view[None]))[0])


def named(folder, seed, **changes):
    """The actions that a model's codes stand for, [CLIPS * MOVES], and its val/action_skill by all true actions."""
    run = folder / f"run-{len(changes)}"
    config = lam.RunConfig(data_dir=str(folder / "videos"), seed=seed, **MODEL | changes)
    list(lam.train(config, run))
    labels = np.load(lam.label(run, folder / "videos", run / "codes.npz").out)  # of all but the first frame of a video
    actions = np.pad(labels["action"].reshape(CLIPS, MOVES - 1), ((0, 0), (1, 0)), constant_values=-1)
    scored = open_split(config.replace(data_dir=str(folder / "scored")), "validation", stride=1)
    return actions.ravel(), lam.evaluate(lam.load(run).module, scored, config)["val/action_skill"]


def compare(folder, seed):
    """The score of every player, the mean of 4 games of at most 1,000 moves; and the skill of the two models."""
    random = np.random.default_rng(seed)
    clips = filmed(random, CLIPS, MOVES, SIZE)
    seen, done = (np.concatenate([getattr(clip, name) for clip in clips]) for name in ("seen", "done"))
    known = random.permutation(done.size) < FEW
    for name, which in (("videos", known), ("scored", np.ones_like(known))):
        write_videos(folder / name, clips, which.reshape(CLIPS, MOVES))
    (good, skill), (bad, bad_skill) = named(folder, seed), named(folder, seed, num_embeddings=1, num_codes=1)
    learned = {"all true actions": done, "codes named by 300": np.where(known, done, good),
               "the 300 alone": np.where(known, done, -1), "a collapsed model's codes": np.where(known, done, bad)}
    players = {"the scripted player": scripted(random), "random": lambda game, view: random.integers(3)}
    players |= {f"clone of {name}": cloned(seen, actions, random) for name, actions in learned.items()}
    scores = {name: np.mean([play_with(player, 1000, 9000 + 10 * seed + game).score for game in range(4)])
              for name, player in players.items()}
    return scores | {"val/action_skill": skill, "val/action_skill, collapsed": bad_skill}


table = pd.DataFrame({f"seed {seed}": compare(Path(sys.argv[1]) / f"seed-{seed}", int(seed)) for seed in sys.argv[2:]})
print(table.assign(mean=table.mean(axis=1)).round(2).to_string())
