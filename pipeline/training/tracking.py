"""Weights & Biases behind one small class. Knows nothing of models, engines or ranks.

A tracker never ends a run: a failing W&B call is reported on stderr (the first in full, the others counted and
summed up at the end) and training goes on, because `metrics.jsonl` holds the same numbers. Only what cannot work
from the outset, `online` with nobody logged in, is an error, the user's to mend.
"""

import io
import json
import netrc
import os
import secrets
import shlex
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from data_prep.errors import UserError
from data_prep.files import write_atomically
from pipeline.recipes.sections import Tracking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACKING_NAME = "tracking.json"
_PUBLIC_HOST = "https://api.wandb.ai"
_FINISH_SECONDS = 300.0

Mode = Literal["online", "offline", "disabled"]


class Tracker(ABC):
    """Where a stage's numbers and pictures go besides its folder."""

    @staticmethod
    def start(folder: Path, stage: str, run_name: str, settings: Tracking, config: Mapping[str, Any]) -> "Tracker":
        """The tracker of one stage; call it on rank 0 only, other ranks use `NoTracker()`.

        `folder` is the stage's folder: W&B's files go to `folder/wandb`, the run id to `folder/tracking.json`,
        so that a restarted stage continues the same W&B run. `config` is shown as the run's configuration and
        must hold no secrets. Raises UserError for `online` with nobody logged in, or a damaged tracking.json.
        """
        mode, reason = choose_mode(settings.wandb, os.environ)
        if mode == "disabled":
            _say(f"W&B is off ({reason})")
            return NoTracker()
        return WandbTracker(folder, stage, run_name, settings, config, mode, reason)

    @abstractmethod
    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Record metrics of training step `step`; a step may be logged again after a restart."""

    @abstractmethod
    def picture(self, name: str, picture: "Path | Figure", step: int) -> None:
        """Record an image file or a matplotlib figure under `pictures/NAME`."""

    @abstractmethod
    def summary(self, values: Mapping[str, Any]) -> None:
        """Record final figures of the stage."""

    @abstractmethod
    def finish(self, exit_code: int = 0) -> None:
        """Close the run; waits for uploads, but for a few minutes at most. May be called twice."""


class NoTracker(Tracker):
    """Records nothing: every rank but the first, and `wandb = "disabled"`."""

    def log(self, row: Mapping[str, Any], step: int) -> None:
        pass

    def picture(self, name: str, picture: "Path | Figure", step: int) -> None:
        pass

    def summary(self, values: Mapping[str, Any]) -> None:
        pass

    def finish(self, exit_code: int = 0) -> None:
        pass


class WandbTracker(Tracker):
    """A W&B run, online or offline. Made by `Tracker.start`."""

    def __init__(
        self,
        folder: Path,
        stage: str,
        run_name: str,
        settings: Tracking,
        config: Mapping[str, Any],
        mode: Mode,
        reason: str,
    ) -> None:
        self._folder = folder
        self._run: Any = None
        self._failures = 0
        self.run_id = _run_id(folder)
        arguments: dict[str, Any] = {
            "dir": str(folder),
            "id": self.run_id,
            "resume": "allow",
            "project": settings.project,
            "entity": settings.entity,
            "name": f"{run_name}-{stage}",
            "group": run_name,
            "job_type": stage,
            "config": dict(config),
            "allow_val_change": True,
        }
        with self._survive("importing wandb"):
            import wandb

            self._wandb = wandb
            # A git remote's URL may carry a token, and the commit is in the manifest anyway.
            arguments["settings"] = wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_save_requirements=False,
                finish_timeout=_FINISH_SECONDS,
            )
            if mode == "online":
                with self._survive("going online; recording offline instead"):
                    self._run = wandb.init(mode="online", **arguments)
            if self._run is None:
                reason = reason if mode == "offline" else "W&B could not be reached"
                mode = "offline"
                self._run = wandb.init(mode="offline", **arguments)
            # W&B's own step must only grow, ours goes back to the last checkpoint after a restart.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        self._mode = mode
        if self._run is None:
            _say("W&B is off for this stage")
        else:
            where = self._run.url if mode == "online" else folder / "wandb"
            _say(f"W&B is {mode} ({reason}), run {self.run_id}: {where}")

    def log(self, row: Mapping[str, Any], step: int) -> None:
        if self._run is None:
            return
        with self._survive("logging metrics"):
            self._run.log(wandb_row(row, step))

    def picture(self, name: str, picture: "Path | Figure", step: int) -> None:
        if self._run is None:
            return
        with self._survive(f"logging picture {name}"):
            self._run.log({f"pictures/{name}": self._wandb.Image(_pixels(picture)), "step": step})

    def summary(self, values: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        with self._survive("writing the summary"):
            self._run.summary.update(dict(values))

    def finish(self, exit_code: int = 0) -> None:
        if self._run is None:
            return
        run, self._run = self._run, None
        with self._survive("finishing"):
            run.finish(exit_code=exit_code)
            # finish() returns before an offline run's last bytes are in its file, teardown() does not.
            self._wandb.teardown()
        if self._failures:
            _say(f"{self._failures} W&B call(s) failed; {self._folder / 'metrics.jsonl'} is complete")
        if self._mode == "offline":
            pattern = f"{shlex.quote(str(self._folder / 'wandb'))}/offline-run-*-{self.run_id}"
            _say(f"to upload this run: wandb sync {pattern}")

    @contextmanager
    def _survive(self, what: str) -> Iterator[None]:
        """Report an exception of W&B's instead of ending a run of days with it."""
        try:
            yield
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                traceback.print_exc()
                _say(
                    f"W&B failed while {what}: {type(error).__name__}: {error}. Training goes on; further "
                    f"failures are counted. All numbers are in {self._folder / 'metrics.jsonl'}"
                )


def choose_mode(wanted: str, environ: Mapping[str, str]) -> tuple[Mode, str]:
    """(mode, why) for the recipe's `tracking.wandb`, decided without touching the network.

    `auto` follows WANDB_MODE where it is set, else whether somebody is logged in: an API key or identity token
    in the environment, or a netrc entry for W&B's host. Raises UserError for `online` with nobody logged in.
    """
    if wanted == "disabled":
        return "disabled", 'tracking.wandb = "disabled"'
    if wanted == "offline":
        return "offline", 'tracking.wandb = "offline"'
    login = _login(environ)
    if wanted == "online":
        if login is None:
            raise UserError(
                'the recipe says tracking.wandb = "online", but nobody is logged in to W&B: no WANDB_API_KEY, '
                f"and no entry for {_host(environ)} in {_netrc_path(environ)}. Run `wandb login`, or set "
                "tracking.wandb=auto or tracking.wandb=offline"
            )
        return "online", login
    from_environment: dict[str, Mode] = {
        "online": "online",
        "run": "online",
        "offline": "offline",
        "dryrun": "offline",
        "disabled": "disabled",
    }
    if (value := environ.get("WANDB_MODE", "")) in from_environment:
        return from_environment[value], f"WANDB_MODE={value}"
    return ("online", login) if login else ("offline", "nobody is logged in")


def wandb_row(row: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What W&B can draw of a row of metrics, with its training step.

    None is left out, a truth value becomes 0 or 1, and a list (the queue of mask distances) becomes its largest
    member under `NAME_max`, the one the settling rule looks at.
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        if value is None or key == "step":
            continue
        if isinstance(value, (list, tuple)):
            if value:
                found[f"{key}_max"] = max(value)
        else:
            found[key] = int(value) if isinstance(value, bool) else value
    return found | {"step": step}


def _login(environ: Mapping[str, str]) -> str | None:
    """Where credentials were found, never what they are."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if environ.get(name):
            return f"{name} is set"
    path = _netrc_path(environ)
    try:
        known = netrc.netrc(path).authenticators(_host(environ))
    except FileNotFoundError:
        return None
    except (netrc.NetrcParseError, OSError) as error:
        _say(f"cannot read {path} ({type(error).__name__}), so nobody counts as logged in to W&B")
        return None
    return f"logged in by {path}" if known and known[2] else None


def _host(environ: Mapping[str, str]) -> str:
    return urlsplit(environ.get("WANDB_BASE_URL") or _PUBLIC_HOST).netloc


def _netrc_path(environ: Mapping[str, str]) -> Path:
    if given := environ.get("NETRC"):
        return Path(given).expanduser()
    return Path(environ.get("HOME") or Path.home()) / ".netrc"


def _run_id(folder: Path) -> str:
    """The id of this folder's run, made and stored at the first start."""
    path = folder / TRACKING_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"wandb_run_id": secrets.token_hex(5)}) + "\n")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["wandb_run_id"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold a W&B run id ({type(error).__name__}: {error}); delete the file to begin "
            "a new W&B run for this stage"
        ) from error


def _pixels(picture: "Path | Figure") -> Any:
    if isinstance(picture, Path):
        return str(picture)
    # wandb.Image takes figures of pyplot only, and pyplot is global state we do without.
    from PIL import Image

    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=150)
    return Image.open(buffer)


def _say(text: str) -> None:
    print(f"tracking: {text}", file=sys.stderr, flush=True)
