"""Installing a service: what is written, who it runs as, and what is looked at before anything is made."""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service import accounts
from stowkeeper.app.service.launchd import Launchd, property_list
from stowkeeper.app.service.plan import (
    SERVICE_ARCHIVE,
    USER_ARCHIVE,
    ServicePlan,
    plan_of,
    program,
    service_arguments,
    service_settings,
)
from stowkeeper.app.service.rights import (
    RightMissingError,
    check_may_write,
    need_root,
    reading_settings,
    unreachable_for,
    user_name,
)
from stowkeeper.app.service.systemd import UNIT, Systemd
from stowkeeper.app.service.systemd_unit import service_unit, socket_units

SYSTEM_USER = "stowkeeper"
_FOLDER_MODE = 0o750


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `archive` and `config` are absolute; `user` is empty where none was named."""

    archive: Path | None
    config: Path | None
    user: str = ""
    of_user: bool = False
    is_socket_activated: bool = False


@reading_settings()
def plan_for(wish: Wish) -> ServicePlan:
    """Return the plan of a service. Raises SettingsError and CommandError."""
    otherwise = os.path.expanduser(USER_ARCHIVE) if wish.of_user else SERVICE_ARCHIVE
    settings = service_settings(wish.config, wish.archive, otherwise)
    plan = plan_of(settings, service_arguments(settings, wish.config))
    if wish.of_user:
        return plan
    user = wish.user or accounts.user_of_archive(plan.archive, SYSTEM_USER)
    accounts.check_user_name(user)
    return replace(plan, user=user, group=accounts.group_of(user))


def unit_texts(plan: ServicePlan, wish: Wish, version: int) -> dict[str, str]:
    """Return the texts of all units by their file names. Raises CommandError."""
    unit = service_unit(
        plan, version=version, is_socket_activated=wish.is_socket_activated, of_user=wish.of_user
    )
    return {UNIT: unit, **(socket_units(plan) if wish.is_socket_activated else {})}


def install_units(systemd: Systemd, plan: ServicePlan, texts: Mapping[str, str]) -> bool:
    """Make the user and the folders where they are missing, write the units, and have them start with the machine.

    Returns whether the server had to be started anew, since its sockets changed. Raises RightMissingError before anything is made, CommandError and OSError.
    """
    _prepare(plan, of_user=systemd.of_user, what="Installing a service")
    return systemd.install(texts)


def install_property_list(launchd: Launchd, plan: ServicePlan) -> None:
    """Do the same on macOS, where the user has to be there."""
    if not launchd.of_user and not accounts.exists(plan.user):
        raise CommandError(
            f"there is no user {plan.user}: make one in the system settings, and name it with --user.",
            ExitCode.NO_INPUT,
        )
    _prepare(plan, of_user=launchd.of_user, what="Installing a service")
    launchd.install(property_list(plan))


def _prepare(plan: ServicePlan, *, of_user: bool, what: str) -> None:
    if of_user:
        for folder in plan.written:
            check_may_write(folder)
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        return
    need_root(what)
    _check_runs_alone()
    if not accounts.exists(plan.user):
        _check_reachable(plan, None)
        accounts.make(plan.user, plan.archive)
    else:
        _check_reachable(plan, plan.user)
    account = pwd.getpwnam(plan.user)
    for folder in plan.written:
        if not folder.exists():
            folder.mkdir(mode=_FOLDER_MODE, parents=True)
            os.chown(folder, account.pw_uid, account.pw_gid)


def _check_runs_alone() -> None:
    """Raise CommandError where the program is found by variables of this shell alone, which a service does not have."""
    words = [program()[0], "-P", "-c", "import stowkeeper"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if subprocess.run(words, env=clean, cwd="/", capture_output=True, check=False).returncode:  # noqa: S603 - our own words
        raise CommandError(
            f"{words[0]} finds Stowkeeper only by a variable of this shell (PYTHONPATH), which a service does not have:"
            " install it, such as by `pip install stowkeeper` into a virtual environment below /opt.",
            ExitCode.NO_INPUT,
        )


def _check_reachable(plan: ServicePlan, user: str | None) -> None:
    """Raise RightMissingError where the user could not run the program, read its files, or own its folders.

    With None it is a user who is still to be made, and in no group.
    """
    named = user or plan.user
    account = None if user is None else pwd.getpwnam(user)
    groups = [] if account is None else os.getgrouplist(named, account.pw_gid)
    for folder in plan.written:
        owner = folder.stat().st_uid if folder.exists() else None
        if owner is not None and (account is None or owner != account.pw_uid):
            raise RightMissingError(
                f"{folder} belongs to {user_name(owner)}, and the service runs as {named}: give it the folder with"
                f" `sudo chown -R {named}: {shlex.quote(str(folder))}`, once there is such a user"
                f" (`sudo {shlex.join(accounts.making(named, plan.archive))}`), or name the owner with --user."
                if account is None
                else f"{folder} belongs to {user_name(owner)}, and the service runs as {named}: give it the folder with"
                f" `sudo chown -R {named}: {shlex.quote(str(folder))}`, or name the owner with --user."
            )
    needed = [Path(os.path.realpath(sys.executable)), Path(sys.executable), Path(__file__), *plan.read]
    number = -1 if account is None else account.pw_uid
    for problem in unreachable_for(
        number, groups, [*needed, *(folder.parent for folder in plan.written)], named
    ):
        raise RightMissingError(
            f"{problem}, and the service runs as that user: install the program and keep its files where every user may read"
            " them, such as below /opt and /etc/stowkeeper, give it the right, or name another user with --user."
        )


def words_without_a_manager(plan: ServicePlan, wish: Wish) -> str:
    """Return what a person can do where no service manager runs."""
    start = [*program(), "service", "start", *service_arguments_of(plan, wish)]
    # cron takes a percent sign for the end of the line.
    cron = shlex.join(start).replace("%", "\\%")
    shown = shlex.join(
        [shutil.which("stowkeeper") or "stowkeeper", "service", "start", *service_arguments_of(plan, wish)]
    )
    return (
        "No service manager runs here, neither systemd nor launchd, so nothing was written.\n\n"
        f"Start the server now, detached from this terminal:\n\n    {shown}\n\n"
        "To have it start with the machine, give the user who is to run it this line (`crontab -e`):\n\n"
        f"    @reboot {cron}\n\n"
        "or call the same from the machine's init scripts. In a container let `stowkeeper serve` be the process that the\n"
        "container runs: whoever runs containers starts it anew and takes its log from standard error."
    )


def service_arguments_of(plan: ServicePlan, wish: Wish) -> tuple[str, ...]:
    """Return the options that lead `service start` to the same settings."""
    named = () if wish.config is None else ("--config", str(wish.config))
    return (*named, "--archive", str(plan.archive))
