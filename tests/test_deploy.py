"""The cluster files that are shipped: each as its own tool reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parent.parent
# The fields that KubeRay's types have (rayjob_types.go, raycluster_types.go).
JOB = {"activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata", "clusterSelector",
       "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode",
       "entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished",
       "shutdownAfterJobFinishes", "suspend", "preRunningDeadlineSeconds"}
CLUSTER = {"suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling",
           "gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs", "authOptions"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams", "template",
         "numOfHosts", "suspend", "labels", "resources", "priority", "scaleStrategy", "headService", "enableIngress"}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "deploy/on_premise.yaml"])
def test_ray_accepts_its_cluster_files(name: str) -> None:
    config = read(name)
    validate_config({**config, "cluster_synced_files": []})  # which preparing adds
    if config["provider"]["type"] != "local":  # those are prepared from a state file of the machine
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "deploy/on_premise.yaml"])
def test_every_node_of_a_cluster_file_asks_for_the_token(name: str) -> None:
    config = read(name)
    assert "~/.ray/auth_token" in config["file_mounts"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config[key] if "ray start" in command]
        assert starts
        assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)


def test_the_cloud_file_scales_spot_gpus_from_none_beside_a_head_that_stays() -> None:
    config = read("ray_cluster.yaml")
    head = config["available_node_types"][config["head_node_type"]]
    (spot,) = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert (spot["min_workers"], spot["node_config"]["InstanceMarketOptions"]["MarketType"]) == (0, "spot")
    assert spot["resources"]["GPU"] == 1


def test_the_rayjob_has_the_fields_of_kuberays_types() -> None:
    job = read("deploy/kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() <= JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() <= CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    assert job["spec"]["backoffLimit"] > 0
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert group.keys() <= GROUP
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never", "what autoscaler v2 asks for"
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} <= volumes
    assert len({container["image"] for group in groups for container in group["template"]["spec"]["containers"]}) == 1


def test_the_slurm_file_is_a_shell_script_that_asks_ray_in_words_it_knows() -> None:
    file = ROOT / "deploy/slurm.sbatch"
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True, check=False).returncode == 0
    from ray.scripts.symmetric_run import symmetric_run

    known = {option for parameter in symmetric_run.params for option in parameter.opts}
    assert {"--address", "--min-nodes"} <= known
    text = file.read_text()
    assert "export RAY_AUTH_MODE=token" in text
    assert text.index("ray symmetric-run") < text.index("lam sweep launch")


def test_the_skypilot_file_resumes_what_says_that_it_is_resumable() -> None:
    task = read("deploy/skypilot.yaml")
    assert task.keys() <= {"name", "workdir", "num_nodes", "envs", "resources", "volumes", "setup", "run"}
    recovery = task["resources"]["job_recovery"]
    assert recovery.keys() <= {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}
    assert recovery["recover_on_exit_codes"] == [3], "the exit code of EnvironmentFailed"


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "deploy/on_premise.yaml", "deploy/kuberay.yaml",
                                  "deploy/slurm.sbatch", "deploy/skypilot.yaml"])
def test_the_commands_in_the_files_are_commands_of_this_package(name: str) -> None:
    from typer.testing import CliRunner

    from lam.cli import build

    text = (ROOT / name).read_text()
    used = {word.split()[0] for word in text.split("lam sweep ")[1:]}
    listed = CliRunner().invoke(build(), ["sweep", "--help"]).output
    assert used
    assert all(f" {command.strip('`')} " in listed for command in used), used
