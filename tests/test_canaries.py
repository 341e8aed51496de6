"""Each private or undocumented name of another package that is relied on: where one moves, its test says which."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
import yaml
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.workers import engine, lost, ray_session

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def source_of(package: Any) -> str:
    """All Python of an installed package."""
    folder = Path(package.__file__).parent
    return "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_hook_that_hears_of_workers_killed_for_memory_is_there() -> None:
    found = engine.memory_hook()
    assert found is not None, f"{'.'.join(engine.MEMORY_HOOK)} has moved: workers/engine.py, _memory_kills_are_deaths"
    assert parameters(getattr(found, engine.MEMORY_HOOK[2])) == ["self", "tracked_actor_task", "exception"]
    assert engine.moved_hooks() == []


@pytest.mark.parametrize("hook", [("ray.no_such_module", "A", "b"), ("json", "A", "b"), ("json", "JSONDecoder", "b")])
def test_a_hook_that_has_moved_is_a_warning_and_no_end(hook: tuple[str, str, str]) -> None:
    assert engine.memory_hook(hook) is None
    (told,) = engine.moved_hooks(hook)
    assert f"has no {'.'.join(hook)}: a trial that Ray's memory monitor kills ends the command" in told
    with engine._memory_kills_are_deaths(hook):
        pass


def test_tune_trials_and_searchers_have_what_the_adapters_read() -> None:
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler
    from ray.tune.search import Searcher

    assert isinstance(Trial.error_file, property), "Trial.error_file: workers/engine.py, _Scheduler.on_trial_error"
    assert "config" in parameters(Trial.__init__), "Trial.config"
    assert Searcher.FINISHED == "FINISHED", "Searcher.FINISHED: sweeps/workers/engine.py, _Searcher.suggest"
    assert parameters(Searcher.on_trial_complete) == ["self", "trial_id", "result", "error"]
    assert parameters(FIFOScheduler.on_trial_result) == ["self", "tune_controller", "trial", "result"]
    assert {TrialScheduler.CONTINUE, TrialScheduler.STOP} == {"CONTINUE", "STOP"}


def test_tune_run_takes_what_it_is_given() -> None:
    from ray import tune
    from ray.tune import Trainable

    used = {"storage_path", "search_alg", "scheduler", "callbacks", "stop", "num_samples", "resources_per_trial",
            "trial_dirname_creator", "reuse_actors", "raise_on_failed_trial", "verbose"}
    assert used <= set(parameters(tune.run)), "tune.run: sweeps/workers/engine.py"
    assert parameters(Trainable.reset_config) == ["self", "new_config"], "reset_config: sweeps/workers/trainable.py"


def test_a_worker_whose_task_raises_is_dropped_and_one_that_stops_is_kept() -> None:
    """Tune keeps the process of a trial that it stops, not of one that raised: workers/trainable.py, ProcessSpent."""
    from ray.tune.execution.tune_controller import TuneController

    text = inspect.getsource(TuneController._schedule_trial_stop)
    assert "if not exception and self._maybe_cache_trial_actor(trial)" in text


def test_the_workers_of_a_trial_find_its_placement_group() -> None:
    """Its table says where each bundle is: sweeps/workers/trial/peers.py."""
    from ray._private.state import GlobalState
    from ray.util.placement_group import get_current_placement_group, placement_group_table

    assert (parameters(get_current_placement_group), parameters(placement_group_table)) == ([], ["placement_group"])
    assert '"bundles_to_node_id"' in inspect.getsource(GlobalState._gen_placement_group_info)


def test_rays_environment_variables_are_still_read() -> None:
    import ray

    text = source_of(ray)
    raylet = (Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet").read_bytes()
    missing = [name for name in ray_session._ENVIRONMENT
               if name not in text and (bare := name.removeprefix("RAY_")) not in text and bare.encode() not in raylet]
    assert missing == [], "Ray reads these no more: sweeps/workers/ray_session.py, _ENVIRONMENT"


def test_ray_init_takes_a_temporary_folder_and_logs_below_its_name() -> None:
    import ray

    assert "_temp_dir" in inspect.getsource(ray.init), "ray.init(_temp_dir=): sweeps/workers/ray_session.py"
    assert any(name.startswith("ray") for name in logging.root.manager.loggerDict), "loggers are named ray..."
    assert "auth_token" in source_of(ray), "~/.ray/auth_token: sweeps/workers/ray_session.py, _protect_token"


def test_the_memory_monitors_report_is_where_it_is_looked_for() -> None:
    from ray.exceptions import OutOfMemoryError

    assert lost.memory_sentence(f"OutOfMemoryError: {OutOfMemoryError('x')}"), "workers/lost.py, memory_sentence"


def test_a_told_trial_can_take_another_class() -> None:
    """sweeps/search/searcher.py, Told: FrozenTrial.__class__ is set, so neither may have slots of its own."""
    from sweeps.search.searcher import Told

    trial = create_trial(values=[1.0], params={}, distributions={}, constraints={"outside": 1.0}, system_attrs={"a": 1})
    assert type(trial) is FrozenTrial
    trial.__class__ = Told
    study = optuna.create_study()
    study.add_trial(trial)
    assert study.trials[0].system_attrs["a"] == 1, "system_attrs travel into the journal: sweeps/search/searcher.py"
    assert study.trials[0].constraints == {"outside": 1.0}, "create_trial(constraints=)"
    assert study.trials[0].state is TrialState.COMPLETE


def test_tpe_learns_in_groups_of_knobs() -> None:
    assert {"multivariate", "group", "n_startup_trials", "seed"} <= set(parameters(TPESampler.__init__))


def test_scipys_sobol_takes_a_generator() -> None:
    from scipy.stats import qmc

    assert len(qmc.Sobol(2, rng=np.random.default_rng(0)).random(2)) == 2, "qmc.Sobol(rng=): sweeps/search/points.py"


def test_the_quantizer_library_has_what_it_is_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vector_quantize_pytorch import FSQ, SimVQ
        from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

    assert parameters(rotate_to)[:2] == ["src", "tgt"], "rotate_to: lam/model/library.py"
    assert isinstance(SimVQ.codebook, property), "SimVQ.codebook: lam/model/library.py"
    assert {"levels", "dim", "preserve_symmetry"} <= set(parameters(FSQ.__init__))


def test_wandb_takes_the_settings_that_keep_it_quiet() -> None:
    import wandb

    used = {"x_disable_stats", "x_disable_meta", "x_save_requirements", "x_disable_machine_info", "init_timeout",
            "finish_timeout"}
    assert used <= set(wandb.Settings.model_fields), "wandb.Settings: record/tracking/wandb_client.py"
    assert callable(wandb.teardown)
    assert hasattr(psutil.Process, "children")


def test_yaml_keeps_its_resolvers_in_a_table() -> None:
    table = yaml.SafeLoader.yaml_implicit_resolvers
    assert all(isinstance(first, str) and isinstance(pairs, list) for first, pairs in table.items() if first)
    tags = {tag for pairs in table.values() for tag, pattern in pairs if isinstance(pattern, re.Pattern)}
    assert {f"tag:yaml.org,2002:{kind}" for kind in ("null", "int", "bool", "float")} <= tags
