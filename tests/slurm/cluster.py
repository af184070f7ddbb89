"""A real SLURM of two nodes on this one machine: munged, slurmctld and two slurmd, all state in one folder.

Used as a fixture and by hand: `python -m tests.slurm.cluster -- COMMAND` brings it up, runs COMMAND with
SLURM_CONF set and takes it down again. Knows nothing of the pipeline.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.ranks import wait_until

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "setpriv")
KILL_WAIT_SECONDS = 4  # between SIGTERM and SIGKILL when a job is cancelled
_SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # where Debian puts the daemons


class ClusterError(Exception):
    """A daemon did not start or a node never became idle; the message ends with the daemons' last lines."""


def why_not() -> str | None:
    """Why no cluster can be started here, or None where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_SEARCH_PATH) is None]
    if missing:
        return f"left out: SLURM is not installed here (no {', '.join(missing)}; apt-get install slurm-wlm)"
    if os.geteuid() != 0:
        return "left out: the SLURM daemons need root to start jobs, and this is not root"
    return None


def processes_with(setting: bytes) -> dict[int, str]:
    """Command lines by process id of the live processes whose environment holds `setting` (NAME=value)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        # A process may end between the listing and the reading; then it is not alive.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if setting in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace")
    return found


class Cluster:
    """The running cluster: where its files are, and the environment in which its commands work."""

    def __init__(self, folder: Path, cpus_per_node: int) -> None:
        self.folder = folder
        self.cpus_per_node = cpus_per_node
        self.conf = folder / "slurm.conf"
        self.site_env = folder / "site.env"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            "PATH": _SEARCH_PATH,
            "SLURM_CONF": str(self.conf),
            "EARLYBIRD_SITE_ENV": str(self.site_env),
        }
        self._daemons: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str | Path, check: bool = True, seconds: float = 60) -> str:
        """Standard output of a command (sbatch, squeue, ...) of this cluster."""
        words = [str(word) for word in command]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(words)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.run("scontrol", "--oneliner", "show", "job", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def write_site_env(self, logs: Path, tasks_per_node: int = 1) -> None:
        """Describe this cluster to slurm/submit: both nodes, no GPUs, this interpreter's environment."""
        self.site_env.write_text(
            f"SITE_PARTITION=main\nSITE_NODES={len(NODES)}\nSITE_GPUS_PER_NODE=0\n"
            f"SITE_TASKS_PER_NODE={tasks_per_node}\nSITE_CPUS_PER_TASK=1\nSITE_TIME=30\n"
            f"SITE_VENV={sys.prefix}\nSITE_LOGS={logs}\n",
            encoding="utf-8",
        )

    def start(self) -> None:
        """Start the daemons and return once every node is idle."""
        # munged refuses a socket in a folder that others cannot enter, and a key that others can read.
        self.folder.chmod(0o755)
        for name in ("munge", "state", "spool", "logs"):
            (self.folder / name).mkdir()
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._write_conf()
        self._start(
            "munged",
            "--foreground",
            *(f"--{name}-file={self.folder}/munge/{name}" for name in ("key", "pid", "seed")),
            f"--socket={self.folder}/munge/socket",
        )
        wait_until((self.folder / "munge" / "socket").is_socket, 20, "munged's socket")
        self._start("slurmctld", "-D", "-i")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        try:
            wait_until(self._all_idle, 60, "both nodes idle")
        except TimeoutError as error:
            raise ClusterError(f"{error}\n{self.log_tails()}") from error

    def stop(self) -> None:
        """Cancel what still runs, stop the daemons, and kill whatever carries this cluster's SLURM_CONF."""
        if len(self._daemons) > 1:
            # A controller that no longer answers must not keep the daemons alive.
            with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
                self.run("scancel", "--user=root", check=False, seconds=20)
                wait_until(lambda: not self.run("squeue", "--noheader", check=False), 20, "an empty queue")
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        # slurmd leaves its slurmstepd and their tasks alone when it stops.
        for process_id in processes_with(f"SLURM_CONF={self.conf}".encode()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)

    def log_tails(self) -> str:
        """The last lines of every daemon's log."""
        tails = []
        for path in sorted((self.folder / "logs").iterdir()):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[-8:]
            tails.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(tails)

    def _start(self, program: str, *arguments: str) -> None:
        # --pdeathsig: the daemons end with this process even when it is killed.
        path = shutil.which(program, path=_SEARCH_PATH)
        log = self.folder / "logs" / f"{len(self._daemons)}-{program}.log"
        with log.open("wb") as file:
            self._daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", str(path), *arguments],
                    env=self.environment,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the command and for stop(), not for the daemons
                )
            )

    def _all_idle(self) -> bool:
        for daemon in self._daemons:
            if daemon.poll() is not None:
                raise ClusterError(f"{daemon.args!r} exited {daemon.returncode}\n{self.log_tails()}")
        states = self.run("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()
        return states == ["idle"] * len(NODES)

    def _write_conf(self) -> None:
        host = socket.gethostname()
        controller_port, *node_ports = _free_ports(1 + len(NODES))
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller_port}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            # A requeued job is held back until its old credential is certain to have expired (default 120 s).
            f"AuthInfo=socket={self.folder}/munge/socket,cred_expire=5",
            "CredType=cred/munge",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU",
            "SlurmdParameters=config_overrides",
            "ReturnToService=2",
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2",
            f"KillWait={KILL_WAIT_SECONDS}",
        ]
        place = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={self.cpus_per_node}"
        for node, port in zip(NODES, node_ports, strict=True):
            lines.append(f"NodeName={node} Port={port} {place}")
        lines.append(f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP")
        self.conf.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running_cluster(cpus_per_node: int = 2) -> Iterator[Cluster]:
    """A running cluster, taken down on every way out."""
    with tempfile.TemporaryDirectory(prefix="earlybird-slurm-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), cpus_per_node)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def main() -> int:
    """Bring the cluster up, run the command given after `--`, take it down; the command's exit code is ours."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description=main.__doc__)
    parser.add_argument("--cpus-per-node", type=int, default=2)
    parser.add_argument("--tasks-per-node", type=int, default=1, help="what slurm/submit asks for")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with running_cluster(arguments.cpus_per_node) as cluster:
        cluster.write_site_env(Path.cwd() / "runs" / "slurm", arguments.tasks_per_node)
        return subprocess.run(arguments.command, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
