"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lam.data import demo


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny real latents: 10 clips of Pong, 24 latent frames of 16x8x8 each, with a manifest.

    Do not write into it; copy it first.
    """
    folder = tmp_path_factory.mktemp("data") / "pong"
    demo.make(folder, demo.Demo(game="pong", episodes=10, length=24, size=64, seed=0))
    return folder
