"""Every standard element at work on grpcio's calls: the table is in `python/elements.py`."""

from harness import process
from harness.tools import HERE

from . import same, scene


@scene
def every_standard_element(backend, programs):
    """One node, one service for each element; what a caller, a backend and /metrics see of it."""
    if "python" not in programs:
        return
    program = programs["python"]
    command = [*program.client[:-1], HERE / "python" / "elements.py", "--backend", backend]
    status, out = process.bounded(command, 90, env=program.env)
    wrong = [line for line in out.splitlines() if not line.startswith(("PASS ", "SKIP "))]
    same((status, wrong), (0, []), f"elements, {out.count('PASS ')} scenes passed")
