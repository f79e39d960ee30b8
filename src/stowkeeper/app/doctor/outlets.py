"""Whether those who are told of events can be: their folders, their programs, and the files that their settings name.

What is missing holds up no instance: the events wait. So it is a warning.
"""

import os
import shlex
import shutil
import stat
from collections.abc import Iterator

from stowkeeper.app.doctor.accounts import ourselves, run_as, user_name, whose
from stowkeeper.app.doctor.finding import Finding, ok, warning
from stowkeeper.app.doctor.rights import is_foreign_to_root
from stowkeeper.app.settings import Settings

EVENTS = "events"

_IN_FOLDER = os.R_OK | os.W_OK | os.X_OK


def check_outlets(settings: Settings) -> Iterator[Finding]:
    """Look at each event target and each export folder; nothing is written there, since somebody watches them."""
    if not settings.event_targets and not settings.export_folders:
        return
    root = os.path.abspath(settings.archive)
    if is_foreign_to_root(root):
        words = "root may everything, so who is told of events was not looked at"
        command = f"stowkeeper doctor --archive {shlex.quote(root)}"
        yield warning(EVENTS, words, run_as(os.stat(root).st_uid, command))
        return
    for target in settings.event_targets:
        if target.folder:
            yield _folder(f'target "{target.name}"', target.folder)
        elif target.command:
            yield _program(f'target "{target.name}"', target.command[0])
        else:
            yield _files(f'target "{target.name}"', target.secret_file, target.ca_file)
    for folder in settings.export_folders:
        yield _folder(f'export folder "{folder.name}"', folder.folder)


def _folder(named: str, path: str) -> Finding:
    place, us = shlex.quote(path), user_name(os.geteuid())
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        words = f"{named}: {path}: {error.strerror}. It is not made by itself, and events wait for it"
        return warning(EVENTS, words, f"sudo install -d -o {us} {place}  # or mount the disk that it is on")
    if not is_folder:
        return warning(EVENTS, f"{named}: {path} is no folder", f"ls -ld {place}")
    if not _may(path, _IN_FOLDER):
        words = f"{named}: {ourselves()} cannot write in {path}{whose(path)}"
        return warning(EVENTS, words, f"sudo setfacl -m u:{us}:rwx {place}")
    return ok(EVENTS, f"{named}: {ourselves()} can write in {path}")


def _program(named: str, program: str) -> Finding:
    found = shutil.which(program)
    if found is None:
        words = f"{named}: there is no program {program} that {ourselves()} can start"
        return warning(EVENTS, words, f"ls -l {shlex.quote(program)}")
    return ok(EVENTS, f"{named}: {ourselves()} can start {found}")


def _files(named: str, *paths: str) -> Finding:
    for path in filter(None, paths):
        if not _may(path, os.R_OK):
            words = f"{named}: {ourselves()} cannot read {path}{whose(path)}"
            return warning(EVENTS, words, f"ls -l {shlex.quote(path)}")
    return ok(EVENTS, f"{named}: what it names can be read")


def _may(path: str, how: int) -> bool:
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)
