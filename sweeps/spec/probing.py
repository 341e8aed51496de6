"""A few training steps of configs in a process with a time limit, as digests that the knob audit compares.

The process is killed when the time is up, so that a model that is too large to probe costs no more than that.
`python -m sweeps.spec.probing WORKLOAD` reads ``{name: config}`` as JSON and prints ``[name, digest]`` a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from record.errors import LamError
from record.workload import workload
from record.workload.settings import Settings

Digests = dict[str, str]

def digests(trained: str, configs: Mapping[str, Settings], seconds: float) -> Digests:
    """The digest of each config's first epoch, of as many as there is time for.

    Args:
        trained: name of the workload.

    Returns:
        the workload's digest of each; ``failed: ...`` where training refused.
    """
    asked = json.dumps({name: config.mapping() for name, config in configs.items()})
    process = subprocess.Popen([sys.executable, "-m", "sweeps.spec.probing", trained], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        output, _ = process.communicate(asked, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return dict(json.loads(line) for line in output.splitlines() if line.endswith("]"))


def main() -> None:
    """Print a line for each config as soon as it is done."""
    trained = workload.find(sys.argv[1])
    for name, values in json.load(sys.stdin).items():
        try:
            found = trained.digest(trained.read(values, source=f"probe {name}"))
        except LamError as error:
            found = f"failed: {error}"
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main()
