"""Runs of the scripts on several processes, as ``torchrun`` starts them."""

import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def torchrun(script: str, *flags: str, processes: int = 2) -> str:
    """Run a script of the repository on the processes of one machine; return what it prints."""
    return _outputs([_command(script, flags, "--nproc-per-node", str(processes))])[0]


def torchrun_on_two_nodes(script: str, *flags: str) -> list[str]:
    """Run a script on two agents, one process each, that meet over the network of this machine; return both outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return _outputs([_command(script, flags, *meet, "--node-rank", str(node)) for node in range(2)])


def _command(script: str, flags: tuple[str, ...], *how: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *how, str(REPOSITORY / script), *flags]


def _outputs(commands: list[list[str]]) -> list[str]:
    agents = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ended = [agent.communicate(timeout=300) for agent in agents]
    for agent, (_, errors) in zip(agents, ended, strict=True):
        assert agent.returncode == 0, errors
    return [output for output, _ in ended]
