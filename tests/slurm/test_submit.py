"""slurm/submit and site.env, without a cluster: what sbatch would be asked for, and the errors."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.slurm.conftest import ROOT

SITE = """SITE_PARTITION=gpu
SITE_ACCOUNT=lab
SITE_NODES=4
SITE_GPUS_PER_NODE=8
SITE_TASKS_PER_NODE=$SITE_GPUS_PER_NODE
SITE_CPUS_PER_TASK=12
SITE_MEM=0
SITE_TIME=24:00:00
SITE_FINETUNE_TIME=01:00:00
SITE_ARRAY_LIMIT=3
SITE_VENV=/opt/venv
SITE_LOGS=logs
SITE_SBATCH_OPTIONS=(--qos=long "--comment=two words")
"""


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SITE_", "EARLYBIRD_"))}
    return subprocess.run(
        [str(word) for word in words],
        cwd=project,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def submit(project: Path, *words: str, site: str | None = SITE) -> subprocess.CompletedProcess[str]:
    if site is not None:
        (project / "slurm" / "site.env").write_text(site, encoding="utf-8")
    return run(project, "slurm/submit", *words)


def test_pretrain_asks_for_what_site_env_says(project: Path) -> None:
    done = submit(project, "--dry-run", "--dependency=afterok:5", "pretrain", "--run", "a b", "--recipe", "base")
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout) == [
        "sbatch",
        f"--chdir={project}",
        "--job-name=earlybird-a b",
        "--cpus-per-task=12",
        "--partition=gpu",
        "--account=lab",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--time=24:00:00",
        "--output=logs/%x-%j.out",
        "--gres=gpu:8",
        "--mem=0",
        "--qos=long",
        "--comment=two words",
        "--dependency=afterok:5",
        "slurm/pretrain.sbatch",
        "--run",
        "a b",
        "--recipe",
        "base",
    ]
    assert (project / "logs").is_dir()  # sbatch does not make the folder, and the job would have no log


def test_without_gpus_and_optional_values_nothing_is_asked_for_them(project: Path) -> None:
    site = "SITE_NODES=1\nSITE_GPUS_PER_NODE=0\nSITE_TASKS_PER_NODE=2\nSITE_CPUS_PER_TASK=1\nSITE_TIME=5\n"
    site += "SITE_VENV=/opt/venv\nSITE_LOGS=logs\n"
    done = submit(project, "--dry-run", "pretrain", "--run=r", site=site)
    assert done.returncode == 0, done.stderr
    for absent in ("--gres", "--mem", "--partition", "--account"):
        assert absent not in done.stdout
    assert shlex.split(done.stdout)[-2:] == ["slurm/pretrain.sbatch", "--run=r"]


def test_finetune_is_an_array_and_the_dry_run_tells_each_index(project: Path) -> None:
    words = ("finetune", "--tasks", "SST-2,CoLA,MNLI", "--run", "r", "--seeds=3,1", "finetune.epochs=2")
    done = submit(project, "--dry-run", *words, site=SITE + "SITE_GPU_TYPE=h200\n")
    assert done.returncode == 0, done.stderr
    command, *table = done.stdout.strip().split("\n")
    parts = shlex.split(command)
    for option in ("--array=0-5%3", "--gres=gpu:h200:1", "--nodes=1", "--time=01:00:00", "--ntasks-per-node=1"):
        assert option in parts
    assert parts[-6:] == ["slurm/finetune_array.sbatch", "SST-2,CoLA,MNLI", "3,1", "--run", "r", "finetune.epochs=2"]
    assert table == [
        "index 0: task SST-2, seed 3",
        "index 1: task SST-2, seed 1",
        "index 2: task CoLA, seed 3",
        "index 3: task CoLA, seed 1",
        "index 4: task MNLI, seed 3",
        "index 5: task MNLI, seed 1",
    ]


def test_an_index_beyond_the_lists_is_refused(project: Path) -> None:
    done = run(project, "slurm/finetune_array.sbatch", "SST-2,RTE", "1,2", SLURM_ARRAY_TASK_ID="4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith("array index 4, but 2 tasks x 2 seeds end at 3")


@pytest.mark.parametrize("script", ["slurm/submit", "slurm/pretrain.sbatch"])
def test_a_missing_site_env_gives_one_clear_line(project: Path, script: str) -> None:
    words = ["pretrain", "--run", "r"] if script == "slurm/submit" else ["--run", "r"]
    done = run(project, script, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{script}: slurm/site.env does not exist; copy slurm/site.env.example to it and describe your cluster\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("SITE_TIME=", "#"), "SITE_TIME is not set; slurm/site.env.example says what it means"),
        (("SITE_NODES=4", "SITE_NODES=four"), "SITE_NODES is 'four', expected a whole number"),
        (
            ("SITE_PARTITION", "SITE_PARTITON"),
            "SITE_PARTITON is not a variable of this file; slurm/site.env.example lists them all",
        ),
    ],
)
def test_a_wrong_site_env_is_named(project: Path, change: tuple[str, str], message: str) -> None:
    done = submit(project, "--dry-run", "pretrain", "--run", "r", site=SITE.replace(*change))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"slurm/submit: slurm/site.env: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to submit: pretrain, data or finetune (slurm/submit --help)"),
        (("pretrain", "--recipe", "base"), "name the run: --run NAME"),
        (("pretrain", "--run"), "--run needs a value"),
        (("pretrain", "--run", "r", "--seeds", "1"), "--tasks and --seeds belong to finetune"),
        (("finetune", "--run", "r", "--seeds", "1"), "say which tasks: --tasks SST-2,CoLA,MRPC"),
        (("finetune", "--run", "r", "--tasks", "RTE"), "say which seeds: --seeds 1,2,3"),
    ],
)
def test_a_wrong_command_line_is_named(project: Path, words: tuple[str, ...], message: str) -> None:
    done = submit(project, "--dry-run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"slurm/submit: {message}\n"


def test_outside_the_repository_the_job_says_how_to_submit(project: Path) -> None:
    done = run(project / "pipeline", "../slurm/pretrain.sbatch")
    assert done.returncode == 2
    assert done.stderr == f"{project / 'pipeline'} is not the repository; submit with slurm/submit\n"


def test_a_venv_the_node_does_not_see_is_named(project: Path) -> None:
    (project / "slurm" / "site.env").write_text(SITE, encoding="utf-8")
    done = run(project, "slurm/pretrain.sbatch", "--run", "r")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/opt/venv/bin/python does not exist on " in done.stderr
    assert done.stderr.count("\n") == 1


def test_paths_of_the_site_come_before_the_users_own(project: Path) -> None:
    (project / "venv" / "bin").mkdir(parents=True)
    bin_folder = project / "venv" / "bin"
    for name in ("python", "srun"):
        (bin_folder / name).write_text("#!/bin/bash\nprintf '%s\\n' ${0##*/} \"$@\"\n", encoding="utf-8")
        (bin_folder / name).chmod(0o755)
    (bin_folder / "scontrol").write_text(
        "#!/bin/bash\n[[ $2 == hostnames ]] && echo a7 && exit; echo NodeName=$4 NodeAddr=10.0.0.7 NodeHostName=a7\n",
        encoding="utf-8",
    )
    (bin_folder / "scontrol").chmod(0o755)
    site = (
        SITE.replace("/opt/venv", str(project / "venv"))
        + "SITE_ROOT=/big/disk\nSITE_DATA='/raw text'\nSITE_GLUE=/glue\n"
    )
    (project / "slurm" / "site.env").write_text(site, encoding="utf-8")
    job = {"SLURM_JOB_ID": "31", "SLURM_JOB_NODELIST": "a[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2"}

    done = run(project, "slurm/pretrain.sbatch", "--run", "r", "--data", "own", **job)
    assert done.returncode == 0, done.stderr
    first, _, *words = done.stdout.strip().split("\n")
    assert first.endswith("job 31, start 1: 2 node(s) a[7-8], 2 task(s), rank 0 at 10.0.0.7:15031")
    given = ["--root", "/big/disk", "--data", "/raw text", "--run", "r", "--data", "own"]
    assert words == ["python", "-m", "pipeline", "run", "--launcher", "srun", *given]

    words = ["SST-2", "3", "--run", "r"]
    done = run(project, "slurm/finetune_array.sbatch", *words, **job, SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 0, done.stderr
    _, _, *words = done.stdout.strip().split("\n")
    given = ["--task", "SST-2", "--seed", "3", "--root", "/big/disk", "--data", "/glue", "--run", "r"]
    assert words == ["srun", "--ntasks=1", "--kill-on-bad-exit=1", "python", "-m", "pipeline", "finetune", *given]


def test_modules_are_loaded_before_the_venv(project: Path) -> None:
    site = SITE + 'SITE_MODULES="cuda gcc"\nmodule() { echo "module $*" >&2; false; }\n'
    (project / "slurm" / "site.env").write_text(site, encoding="utf-8")
    done = run(project, "slurm/pretrain.sbatch", "--run", "r")
    assert done.returncode == 2
    first, second, _ = done.stderr.split("\n")
    assert first == "module load cuda gcc"
    assert "module load cuda gcc failed on " in second


def test_the_example_is_complete_and_read_without_complaint(project: Path) -> None:
    shutil.copy(project / "slurm" / "site.env.example", project / "slurm" / "site.env")
    done = submit(project, "--dry-run", "pretrain", "--run", "r", site=None)
    assert done.returncode == 0, done.stderr
    assert {"--nodes=2", "--gres=gpu:8", "--ntasks-per-node=8"} <= set(shlex.split(done.stdout))
    described = (project / "slurm" / "site.env.example").read_text(encoding="utf-8")
    # Every variable the scripts read is in the example, so nobody has to read the scripts.
    for name in set(_site_names()):
        assert f"\n{name}=" in described


def test_data_is_three_jobs_one_after_another(project: Path) -> None:
    done = submit(project, "--dry-run", "--cpus-per-task=64", "data", "--parts", "8", "--recipe", "my.toml")
    assert done.returncode == 0, done.stderr
    jobs = [shlex.split(line) for line in done.stdout.split("\n")[:-1]]
    assert [job[job.index("slurm/data_array.sbatch") + 1 :] for job in jobs] == [
        ["ingest", "8", "--recipe", "my.toml"],
        ["tokenizer", "1", "--recipe", "my.toml"],
        ["shard", "8", "--recipe", "my.toml"],
    ]
    assert [next(word for word in job if word.startswith("--array")) for job in jobs] == [
        "--array=1-8",
        "--array=1-1",
        "--array=1-8",
    ]
    assert ["--dependency=afterok:JOBID" in job for job in jobs] == [False, True, True]
    assert all("--nodes=1" in job and "--cpus-per-task=64" in job for job in jobs)
    assert not any(word.startswith("--gres") for job in jobs for word in job)


@pytest.mark.parametrize("parts", [[], ["--parts", "0"], ["--parts", "x"], ["--parts", "2", "--run", "r"]])
def test_data_wants_its_parts_and_no_run(project: Path, parts: list[str]) -> None:
    done = submit(project, "--dry-run", "data", *parts)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_every_command_of_the_readme_is_accepted(project: Path) -> None:
    (project / "slurm" / "site.env").write_text(SITE, encoding="utf-8")
    text = (project / "slurm" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.split("\n") if line.strip().startswith("slurm/submit ")]
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line, comments=True)
        done = run(project, *words[:1], "--dry-run", *words[1:])
        assert done.returncode == 0, (line, done.stderr)


def _site_names() -> list[str]:
    text = (ROOT / "slurm" / "job.sh").read_text(encoding="utf-8")
    inside = text[text.index("required=(") : text.index("[[ -f $file ]]")]
    return [word.strip("()") for word in inside.replace("=(", "= ").split() if word.startswith("SITE_")]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="left out: shellcheck is not installed")
def test_the_scripts_pass_shellcheck() -> None:
    scripts = ("submit", "job.sh", "pretrain.sbatch", "data_array.sbatch", "finetune_array.sbatch", "site.env.example")
    done = run(ROOT, "shellcheck", "--external-sources", *(f"slurm/{name}" for name in scripts))
    assert done.returncode == 0, done.stdout
