"""Records who runs on a data directory and whose it is; one start or stop at a time. Called by launch.py and the CLI.

An instance belongs to the user that started it. Another user's signals and files would break it, even root's: if anyone
else types a command that starts or stops it, the command is refused before anything is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import msgspec

from models.errors import Forbidden, Refused, Unavailable


@dataclass(frozen=True, slots=True)
class Instance:
    """A Ray of ours on this machine. `environment` is what every process that talks to it needs."""

    instance_id: str
    ray_address: str  # "127.0.0.1:port" of the GCS; empty until the head has started
    http_host: str
    http_port: int
    pid: int  # of the head, which is the session leader of all the others
    version: str  # models.VERSION of the starter: a caller with another one should stop and start anew
    private_dir: str
    started_at: float
    environment: dict[str, str]
    uid: int = -1  # whose it is; a file without it is that of its owner
    https: bool = False  # whether http_port speaks TLS


def read_instance(data_dir: Path) -> Instance | None:
    """What is written down, None when nothing is. Raises Forbidden when another user's files can't be read, Refused when
    they are not ours."""
    path = data_dir / "run" / "instance.json"
    try:
        with path.open("rb") as file:
            known = msgspec.json.decode(file.read(), type=Instance)
            return known if known.uid >= 0 else replace(known, uid=os.fstat(file.fileno()).st_uid)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _forbidden(data_dir, _owner_of(path), "status", "belongs to") from error
    except OSError as error:
        raise Unavailable(f"can't read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise Refused(
            f"{path} was not written by this program, or by another version of it: {error}"
        ) from error


def write_instance(data_dir: Path, instance: Instance) -> None:
    text = msgspec.json.format(msgspec.json.encode(instance)).decode()
    write_private(data_dir / "run" / "instance.json", text)


def refuse_other_user(data_dir: Path, verb: str) -> None:
    """Raises Forbidden when what runs on the folder, or ran there last, is another user's. Touches nothing. `verb` is what
    was typed, such as "down"."""
    data_dir = data_dir.absolute()
    known = read_instance(data_dir)
    owner = known.uid if known is not None else _owner_of(data_dir / "run")
    if owner is None:
        owner = _owner_of(data_dir / "store")
    # A folder that holds neither was only made for us, by whomever.
    if owner is not None and owner != os.geteuid():
        what = "belongs to" if known is None else "is run by"
        raise _forbidden(data_dir, owner, verb, what)


@contextlib.contextmanager
def launch_lock(data_dir: Path, verb: str) -> Iterator[None]:
    """One start or stop at a time for a data directory; the second waits. The kernel frees it when we die. Within it what
    the system refuses a file is one of our errors that names the file."""
    if not sys.platform.startswith("linux"):
        raise Refused("starting a local Ray needs Linux (/proc, HAProxy); elsewhere use the image")
    refuse_other_user(data_dir, verb)
    run = data_dir / "run"
    with _in_words():
        # Ray's logs, which are kept in one of them, are folders that anybody may write.
        for folder in (run, data_dir / "log"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(stat.S_IRWXU)
        with (run / "launch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def fresh_log(path: Path) -> IO[bytes]:
    """A log file of the data folder, emptied. One that another user left there goes: the folder is ours."""
    with _in_words():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.open("wb")


def empty_folder(data_dir: Path) -> Path:
    """Where every process of ours works, the driver too: Ray puts its driver's working folder first on the import path of
    all workers, and a file named as a library of ours in the folder where somebody typed `llm-im up` would run in an actor."""
    folder = data_dir / "run" / "cwd"
    with _in_words():
        folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    return folder


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What the system refuses a file, as an error of ours that names the file and whose it is."""
    try:
        yield
    except OSError as error:
        if not error.filename:
            raise
        path = Path(os.fsdecode(error.filename))
        place = path if path.exists() else path.parent
        why = f"can't write {path}: {error.strerror}"
        if isinstance(error, PermissionError) and (owner := _owner_of(place)) is not None:
            why += f" ({place} belongs to user {_name_of(owner)}): chown it, or choose another folder with --data"
        raise Refused(why) from error


def _forbidden(data_dir: Path, owner: int | None, verb: str, what: str) -> Forbidden:
    name = "nobody that can be seen" if owner is None else _name_of(owner)
    become = "runuser" if os.geteuid() == 0 else "sudo"
    command = f"{become} -u {name} -- llm-im {verb} --data {shlex.quote(str(data_dir))}"
    return Forbidden(
        f"{data_dir} {what} user {name}, and this is {_name_of(os.geteuid())}. "
        f"Run it as that user, for example: {command}"
    )


def _owner_of(path: Path) -> int | None:
    """Whose a path is; where it may not be looked at, whose the folder is that forbids it. None when it does not exist."""
    for place in (path, *path.parents):
        try:
            return place.stat().st_uid
        except PermissionError:
            continue
        except OSError:
            return None
    return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
