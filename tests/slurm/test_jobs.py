"""The job scripts on a real SLURM: ranks and rendezvous, failure, cancelling, signals, requeueing, arrays."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.files import hash_files
from tests.corpus import sentences
from tests.ranks import wait_until
from tests.slurm.cluster import KILL_WAIT_SECONDS, Cluster, processes_with
from tests.slurm.conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.dist]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


@pytest.fixture(autouse=True)
def _clean_queue(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("scancel", "--user=root")
    wait_until(lambda: not cluster.run("squeue", "--noheader"), 30, "an empty queue after the test")


def submit(cluster: Cluster, project: Path, *words: str, tasks_per_node: int = 1) -> str:
    """The id of a job submitted as a user does, its logs in project/logs."""
    cluster.write_site_env(project / "logs", tasks_per_node)
    return cluster.run(project / "slurm" / "submit", "--parsable", *words).strip()


def wait_for_end(cluster: Cluster, job_id: str, seconds: float = 90) -> dict[str, str]:
    wait_until(lambda: cluster.job(job_id)["JobState"] in ENDED, seconds, f"the end of job {job_id}")
    return cluster.job(job_id)


def wait_for_files(folder: Path, *names: str) -> None:
    wait_until(lambda: all((folder / name).exists() for name in names), 60, f"files {', '.join(names)}")


def test_every_rank_meets_the_others(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "pretrain", "--recipe", "sum", "--run", "r1", tasks_per_node=2)
    job = wait_for_end(cluster, job_id)
    log = (project / "logs" / f"earlybird-r1-{job_id}.out").read_text(encoding="utf-8")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), log
    seen = [json.loads((project / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in range(4)]
    same = {"world_size": 4, "local_world_size": "2", "threads": "1", "total": 10.0}
    assert seen == [
        {"local_rank": 0, "node": "n1", **same},
        {"local_rank": 1, "node": "n1", **same},
        {"local_rank": 0, "node": "n2", **same},
        {"local_rank": 1, "node": "n2", **same},
    ]
    # What slurm/README.md says the log begins with, and the rank before every line of a task.
    port = 15000 + int(job_id) % 15000
    assert f"job {job_id}, start 1: 2 node(s) n[1-2], 4 task(s), rank 0 at 127.0.0.1:{port}" in log
    assert "command: python -m pipeline run --launcher srun --recipe sum --run r1\n" in log
    assert sorted(line for line in log.split("\n") if "the sum" in line) == [
        f"{rank}: the sum is 10" for rank in range(4)
    ]


def test_a_failing_task_ends_the_job(cluster: Cluster, project: Path) -> None:
    # Rank 0 would wait for ever, as in a collective, and does not leave on SIGTERM.
    job_id = submit(cluster, project, "pretrain", "--recipe", "fail", "--run", "r2")
    job = wait_for_end(cluster, job_id, seconds=60)
    log = (project / "logs" / f"earlybird-r2-{job_id}.out").read_text(encoding="utf-8")
    # srun's code is the highest of all tasks', so that of the killed ones; its log tells who failed first.
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "137:0")
    assert "task 1: Exited with exit code 3" in log
    assert (project / "SIGTERM-0").exists()  # the time between SIGTERM and SIGKILL was there


def test_cancelling_reaches_every_task_and_leaves_no_process(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "pretrain", "--recipe", "wait", "--run", "r3")
    wait_for_files(project, "started-0", "started-1")
    mark = f"SLURM_CONF={cluster.conf}".encode()
    of_job = f"SLURM_JOB_ID={job_id}".encode()

    def alive() -> dict[int, str]:
        with_mark = processes_with(mark)
        return {number: line for number, line in processes_with(of_job).items() if number in with_mark}

    running = alive().values()
    assert sum("pipeline step" in line and "srun" not in line for line in running) == 2, running
    # exec: the batch process is the pipeline itself, with no shell in between.
    assert not any("slurm_script" in line for line in running), running

    cluster.run("scancel", job_id)
    wait_for_files(project, "SIGTERM-0", "SIGTERM-1")  # time to save: KillWait lies before SIGKILL
    assert wait_for_end(cluster, job_id)["JobState"] == "CANCELLED"
    wait_until(lambda: not alive(), KILL_WAIT_SECONDS + 20, f"no process of job {job_id}; left: {alive()}")


def test_a_signal_reaches_the_tasks_and_not_the_batch_process(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "pretrain", "--recipe", "wait", "--run", "r4")
    wait_for_files(project, "started-0", "started-1")
    cluster.run("scancel", "--signal=USR1", job_id)  # what --signal=USR1@SECONDS does before the time limit
    wait_for_files(project, "SIGUSR1-0", "SIGUSR1-1")
    job = wait_for_end(cluster, job_id)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0")


def test_a_requeued_job_runs_the_same_command_and_appends_to_its_log(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "pretrain", "--recipe", "wait", "--run", "r5")
    wait_for_files(project, "started-0", "started-1")
    for rank in range(2):
        (project / f"started-{rank}").unlink()
    cluster.run("scontrol", "requeue", job_id)
    wait_for_files(project, "started-0", "started-1")
    assert json.loads((project / "started-1").read_text(encoding="utf-8")) == {"job": job_id, "start": "1"}
    log = (project / "logs" / f"earlybird-r5-{job_id}.out").read_text(encoding="utf-8")
    assert log.index(f"job {job_id}, start 1:") < log.index(f"job {job_id}, start 2:")
    commands = [line for line in log.split("\n") if line.startswith("command: ")]
    assert len(commands) == 2
    assert commands[0] == commands[1]


def test_the_array_runs_every_task_with_every_seed(cluster: Cluster, project: Path) -> None:
    words = ("finetune", "--run", "r6", "--tasks", "SST-2,RTE", "--seeds", "7,8")
    submit(cluster, project, *words)
    wait_for_files(project, *(f"index-{index}.json" for index in range(4)))
    seen = [json.loads((project / f"index-{index}.json").read_text(encoding="utf-8")) for index in range(4)]
    same = {"run": "r6", "data": None, "step": "0", "ntasks": "1"}
    assert seen == [
        {"task": "SST-2", "seed": "7", **same},
        {"task": "SST-2", "seed": "8", **same},
        {"task": "RTE", "seed": "7", **same},
        {"task": "RTE", "seed": "8", **same},
    ]


def test_two_nodes_share_the_work_of_a_corpus(cluster: Cluster, project: Path) -> None:
    """Ingest, tokenizer and shards by three jobs, each after the one before, with the bytes of one process."""
    (project / "pipeline" / "__main__.py").unlink()
    (project / "pipeline" / "__main__.py").symlink_to(ROOT / "pipeline" / "__main__.py")
    for number in range(4):
        text = "\n\n".join(sentences(40, seed=10 * number + part) for part in range(60))
        (project / "raw" / f"{number}").mkdir(parents=True)
        (project / "raw" / f"{number}" / f"b{number}.txt").write_text(text, encoding="utf-8")
    sources = ", ".join(f'{{path = "raw/{number}", name = "s{number}"}}' for number in range(4))
    recipe = f"[corpus]\nname = 'tiny'\nsources = [{sources}]\nvocab_size = 256\nval_fraction = 0.2\nfilters = 'none'\n"
    (project / "tiny.toml").write_text(recipe, encoding="utf-8")
    cluster.write_site_env(project / "logs", 1)
    words = ("data", "--parts", "2", "--recipe", "tiny.toml")
    said = cluster.run(project / "slurm" / "submit", *words)
    jobs = [line.split(": ")[1] for line in said.split("\n")[:-1]]
    assert len(jobs) == 3

    def logs() -> str:
        return "".join(path.read_text(encoding="utf-8") for path in sorted((project / "logs").iterdir()))

    try:
        wait_until(lambda: not cluster.run("squeue", "--noheader"), 180, "the end of all three jobs")
    except TimeoutError as error:
        error.add_note(cluster.run("squeue", "--long") + logs() + cluster.log_tails())
        raise
    assert (project / "corpora" / "tiny" / "shards" / "documents-64" / "manifest.json").exists(), logs()
    alone = [sys.executable, "-m", "pipeline", "data", "--recipe", "tiny.toml", "--root", "alone", "--workers", "1"]
    subprocess.run(alone, cwd=project, check=True, timeout=120)
    for stage in ("clean", "tokenizer", "shards"):
        shared, single = (folder / "corpora" / "tiny" / stage for folder in (project, project / "alone"))
        assert hashes(shared) == hashes(single)


def hashes(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return hash_files(paths, folder)
