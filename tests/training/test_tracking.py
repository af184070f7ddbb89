"""What W&B recorded is read back from its own offline files, record by record."""

import builtins
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from data_prep.errors import UserError
from pipeline.recipes.sections import Tracking
from pipeline.training.tracking import NoTracker, Tracker, choose_mode, wandb_row

CONFIG = {"optimizer": {"lr": 0.001, "name": "adamw"}, "seed": 42}
OFFLINE = Tracking(wandb="offline")


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def records(folder: Path) -> list[Any]:
    """Records of every offline run below a stage's folder, in order of their start.

    A .wandb file is LevelDB's log format (blocks of 32 KiB; a chunk is checksum, length, type, bytes) after a header
    of 7 bytes; each entry is one of wandb's own protobuf records.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        data = path.read_bytes()
        assert data[:4] == b":W&B"
        position, entry = 7, b""
        while position + 7 <= len(data):
            room = 32768 - position % 32768
            if room < 7:
                position += room
                continue
            checksum, length, kind = struct.unpack("<IHB", data[position : position + 7])
            if kind == 0:
                break
            chunk = data[position + 7 : position + 7 + length]
            assert checksum == zlib.crc32(bytes([kind]) + chunk)
            entry = chunk if kind in (1, 2) else entry + chunk
            if kind in (1, 4):
                found.append(Record.FromString(entry))
            position += 7 + length
    return found


def values(items: Any) -> dict[str, Any]:
    """Key-value items of a record; an image's fields arrive as nested keys."""
    found: dict[str, Any] = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        inside = found
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = json.loads(item.value_json)
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    """Logged rows without W&B's own columns."""
    rows = [values(record.history.item) for record in found if record.WhichOneof("record_type") == "history"]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def figure() -> Figure:
    made = Figure(figsize=(2, 1))
    made.subplots().plot([0, 1], [1, 0])
    return made


def test_a_restarted_stage_continues_its_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stage = tmp_path / "runs" / "a run" / "pretrain"
    tracker = Tracker.start(stage, "pretrain", "a run", OFFLINE, CONFIG)
    for step in range(3):
        tracker.log({"loss": 3.0 - step, "lr": None}, step)
    tracker.picture("mask_distance", figure(), 2)
    tracker.finish()
    stored = json.loads((stage / "tracking.json").read_text())

    time.sleep(1.1)  # W&B names its folders by the second
    tracker = Tracker.start(stage, "pretrain", "a run", OFFLINE, CONFIG)
    for step in range(1, 4):
        tracker.log({"loss": 3.0 - step}, step)
    tracker.summary({"validation_loss": 1.5, "steps": 4})
    tracker.finish()
    tracker.finish()

    assert json.loads((stage / "tracking.json").read_text()) == stored
    found = records(stage)
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert len(runs) == 2
    for run in runs:
        assert run.run_id == stored["wandb_run_id"]
        assert (run.project, run.run_group, run.job_type) == ("earlybird", "a run", "pretrain")
        assert run.display_name == "a run-pretrain"
        assert CONFIG.items() <= values(run.config.update).items()

    rows = history(found)
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert losses == [(0, 3.0), (1, 2.0), (2, 1.0), (1, 2.0), (2, 1.0), (3, 0.0)]
    assert not any("lr" in row for row in rows)
    metrics = [record.metric for record in found if record.WhichOneof("record_type") == "metric"]
    assert any(metric.glob_name == "*" and metric.step_metric == "step" for metric in metrics)
    summary: dict[str, Any] = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= values(record.summary.update)
    assert (summary["validation_loss"], summary["steps"]) == (1.5, 4)

    (picture,) = [row["pictures/mask_distance"] for row in rows if "pictures/mask_distance" in row]
    (file,) = stage.glob(f"wandb/offline-run-*/files/{picture['path']}")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert (picture["width"], picture["height"]) == (300, 150)

    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.count("W&B is offline") == 2
    assert f"wandb sync '{stage}/wandb'/offline-run-*-{stored['wandb_run_id']}" in told.err


def test_picture_from_a_file(tmp_path: Path) -> None:
    figure().savefig(tmp_path / "curve.png")
    tracker = Tracker.start(tmp_path / "search", "search", "r", OFFLINE, {})
    tracker.picture("curve", tmp_path / "curve.png", 7)
    tracker.finish()
    (row,) = history(records(tmp_path / "search"))
    assert row["step"] == 7
    assert row["pictures/curve"]["_type"] == "image-file"


def test_no_secret_reaches_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdef" * 2 + "01234567"
    monkeypatch.setenv("WANDB_API_KEY", key)
    tracker = Tracker.start(tmp_path / "search", "search", "r", OFFLINE, {"seed": 1})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    files = [path for path in (tmp_path / "search").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_a_dying_wandb_does_not_end_training(tmp_path: Path) -> None:
    """The service process is killed under the tracker's hands; the program says so and ends well."""
    program = f"""
import os, signal
from pathlib import Path
from pipeline.recipes.sections import Tracking
from pipeline.training.tracking import Tracker
tracker = Tracker.start(Path({str(tmp_path)!r}), "search", "r", Tracking(wandb="offline"), {{}})
tracker.log({{"loss": 1.0}}, 1)
children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
for child in children:
    os.kill(int(child), signal.{signal.SIGKILL.name})
    os.waitpid(int(child), 0)
for step in range(2, 50):
    tracker.log({{"loss": 1.0}}, step)
tracker.finish()
print("trained to the end")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "trained to the end\n", done.stderr
    assert done.stderr.count("W&B failed while") == 1
    assert "Training goes on" in done.stderr
    assert str(tmp_path / "metrics.jsonl") in done.stderr


def test_a_failing_call_is_reported_once_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker.start(tmp_path, "search", "r", OFFLINE, {})
    for step in range(3):
        tracker.picture("gone", tmp_path / "gone.png", step)
    tracker.log({"loss": 1.0}, 3)
    tracker.finish()
    told = capfd.readouterr().err
    assert told.count("W&B failed while logging picture gone") == 1
    assert "3 W&B call(s) failed" in told
    assert history(records(tmp_path)) == [{"loss": 1.0, "step": 3}]


def test_unreachable_service_is_recorded_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    init = wandb.init

    def refuse(*, mode: str, **arguments: Any) -> Any:
        if mode == "online":
            raise wandb.errors.CommError("no route to host")
        return init(mode=mode, **arguments)

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    tracker = Tracker.start(tmp_path, "search", "r", Tracking(wandb="online"), {})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert "no route to host" in (told := capfd.readouterr().err)
    assert "W&B is offline (W&B could not be reached)" in told
    assert history(records(tmp_path)) == [{"loss": 1.0, "step": 1}]


def test_disabled_imports_no_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        assert name.split(".")[0] != "wandb"
        return real_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    tracker = Tracker.start(tmp_path, "search", "r", Tracking(wandb="disabled"), CONFIG)
    assert isinstance(tracker, NoTracker)
    tracker.log({"loss": 1.0}, 1)
    tracker.picture("p", tmp_path / "p.png", 1)
    tracker.summary({})
    tracker.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_id_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text("{}")
    with pytest.raises(UserError, match=r"tracking\.json does not hold a W&B run id.*delete the file"):
        Tracker.start(tmp_path, "search", "r", OFFLINE, {})


@pytest.mark.parametrize(
    ("wanted", "environ", "mode"),
    [
        ("disabled", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "disabled"),
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("online", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "online"),
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "online"),
        ("auto", {"WANDB_IDENTITY_TOKEN_FILE": "f"}, "online"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_mode(tmp_path: Path, wanted: str, environ: dict[str, str], mode: str) -> None:
    assert choose_mode(wanted, environ | {"HOME": str(tmp_path)})[0] == mode


def test_mode_from_netrc(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password hidden\n")
    assert choose_mode("auto", home) == ("online", f"logged in by {tmp_path / '.netrc'}")
    assert choose_mode("auto", home | {"WANDB_BASE_URL": "https://wandb.example.org"})[0] == "offline"
    elsewhere = tmp_path / "other"
    elsewhere.write_text("machine wandb.example.org login user password hidden\n")
    elsewhere_only = home | {"WANDB_BASE_URL": "https://wandb.example.org", "NETRC": str(elsewhere)}
    assert choose_mode("online", elsewhere_only)[0] == "online"


def test_online_with_nobody_logged_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no entry for api\.wandb\.ai in .*\.netrc.*wandb login"):
        choose_mode("online", {"HOME": str(tmp_path)})


def test_row() -> None:
    row = {"loss": 2.5, "heads": None, "settled": False, "heads_queue": [0.1, 0.3, 0.2], "neurons_queue": []}
    assert wandb_row(row | {"step": 9}, 4) == {"loss": 2.5, "settled": 0, "heads_queue_max": 0.3, "step": 4}
