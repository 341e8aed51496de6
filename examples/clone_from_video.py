"""Clone a player of Breakout from its videos: what a good and a bad latent action model are worth.

A scripted player follows the ball. Its videos are encoded, without its actions; a latent action model learns from them,
`lam label` gives every transition its codes, and a few true actions name these. A small player then learns from the
screen to do what was named, and plays the real game. Beside it: clones of all true actions, of a collapsed model's
codes, of the few true actions alone, and random play.

    python examples/clone_from_video.py WORK_FOLDER [SEED ...]
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from ale_py import Action, ALEInterface, LoggerMode, roms
from PIL import Image

from lam import RunConfig, train
from lam.data import manifest
from lam.data.codec import Codec, sample
from lam.inference.naming import counted
from lam.labelling.labelling import Asked, label

MOVES, SIZE, CLIPS, LENGTH, FEW, COLUMNS = (Action.FIRE, Action.RIGHT, Action.LEFT), 64, 40, 120, 300, 72
BALL_X, PADDLE_X = 99, 72  # places in the console's memory, which only the scripted player looks at
MODEL = {"sequence_length": 4, "embed_dim": 32, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "rollout_horizon": 1, "learning_rate": 3e-3, "warmup_steps": 30, "vq_refresh_interval": 50,
         "num_epochs": 8, "steps_per_epoch": 75, "lr_decay_epochs": 8, "device": "cpu", "sample_count": 0}
COLLAPSED = {"num_embeddings": 1, "num_codes": 1}  # what a collapsed codebook is: every transition has the same code


def play(player, steps, seed, filmed=True):
    """(pictures [4n, SIZE, SIZE, 3] if filmed, what the player saw [n, F], what it did [n], score) of n moves."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = ALEInterface()
    for key, value in (("random_seed", seed), ("frame_skip", 1)):
        game.setInt(key, value)
    game.setFloat("repeat_action_probability", 0.0)
    game.loadROM(roms.get_rom_path("breakout"))
    pictures, seen, done, score, before = [], [], [], 0, eye(game)
    for _ in range(steps):
        now = eye(game)
        view = np.concatenate([now, before])
        move, before = player(game, view), now
        for _ in range(4):
            score += game.act(MOVES[move])
            if filmed:
                screen = Image.fromarray(game.getScreenRGB())
                pictures.append(np.asarray(screen.resize((SIZE, SIZE), Image.Resampling.BOX)))
        seen.append(view)
        done.append(move)
        if game.game_over():
            break
    return np.array(pictures), np.array(seen, np.float32), np.array(done), score


def eye(game):
    """Where on the screen something is: the brightest of each column below the bricks, and on the paddle's row."""
    screen = game.getScreenGrayscale() / 255.0
    return np.concatenate([screen[93:189].max(0)[8:152:2], screen[189:194].max(0)[8:152:2]])


def scripted(random):
    """Follows the ball and serves; one move in ten is drawn, so that the videos show what follows from mistakes."""
    def player(game, view):
        memory, ball_in_sight = game.getRAM(), view[:COLUMNS].any()
        gap = int(memory[BALL_X]) - int(memory[PADDLE_X]) - 8
        steady = not ball_in_sight or abs(gap) < 6
        return random.integers(3) if random.random() < 0.1 else 0 if steady else 1 if gap > 0 else 2
    return player


def cloned(seen, targets, seed):
    """A player that learned to do what `targets` say, -1 = not said."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(seen[targets >= 0]), torch.from_numpy(targets[targets >= 0])
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 3))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(1500):
        rows = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
    return lambda game, view: int(net(torch.from_numpy(view.astype(np.float32))).argmax())


def write_videos(folder, clips):
    """Latents of the clips, without actions, and the split."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    codec = Codec.fit([sample(pictures, 800, random) for pictures, *_ in clips])
    for number, (pictures, *_) in enumerate(clips):
        with h5py.File(folder / f"clip-{number:03d}.h5", "w") as file:
            file["embeddings"] = codec.encode(pictures).reshape(LENGTH // 2, 2, 16, 8, 8).transpose(0, 2, 1, 3, 4)
    manifest.write_manifest(folder)


def named(folder, actions, known, seed, **changes):
    """[clips, LENGTH] actions that a model's codes name, from the `known` ones, -1 = none; how often it is right."""
    run, videos = folder / f"run-{len(changes)}", folder / "videos"
    list(train(RunConfig(data_dir=str(videos), seed=seed, **MODEL | changes), run))
    done = label(Asked(str(run), videos, folder / f"codes-{len(changes)}.npz"))
    with np.load(done.out) as found:
        video, frame, codes = found["video"], found["frame"], found["codes"]
    naming = counted(["stay", "right", "left"], codes, np.where(known, actions, -1)[video, frame])
    targets = np.full(actions.shape, -1)
    targets[video, frame] = naming.shares(codes).argmax(1)
    right = (targets == actions)[:, 1:].mean()
    return np.where(known, actions, targets), right


def score(player, seed):
    """Mean score of 4 games of at most 1,000 moves."""
    return np.mean([play(player, 1000, 9000 + 10 * seed + game, filmed=False)[3] for game in range(4)])


def compare(folder, seed):
    """The scores of every player, and how often the codes named the true action."""
    random = np.random.default_rng(seed)
    clips = []
    while len(clips) < CLIPS:
        clip = play(scripted(random), LENGTH, int(random.integers(2**31)))
        if len(clip[2]) == LENGTH:
            clips.append(clip)
    write_videos(folder / "videos", clips)
    seen, actions = np.stack([clip[1] for clip in clips]), np.stack([clip[2] for clip in clips])
    known = np.zeros(actions.shape, bool)
    known.flat[random.choice(actions.size, FEW, replace=False)] = True
    good, right = named(folder, actions, known, seed)
    bad, right_bad = named(folder, actions, known, seed, **COLLAPSED)
    learn = {"all true actions": actions, "codes named by few": good, "collapsed codes": bad,
             "few true actions alone": np.where(known, actions, -1)}
    scores = {name: score(cloned(seen.reshape(actions.size, -1), each.ravel(), seed), seed)
              for name, each in learn.items()}
    return {"scripted player": score(scripted(random), seed), **scores,
            "random": score(lambda game, view: random.integers(3), seed),
            "share of true actions that the codes name": right, "the same, collapsed": right_bad}


if __name__ == "__main__":
    root, seeds = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]] or [0, 1, 2]
    rows = [compare(root / f"seed-{seed}", seed) for seed in seeds]
    print("| player |", " | ".join(f"seed {seed}" for seed in seeds), "| mean |")
    print("|---" * (len(seeds) + 2) + "|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} |", " | ".join(f"{value:.2f}" for value in values), f"| {np.mean(values):.2f} |", flush=True)
