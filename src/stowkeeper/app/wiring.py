"""From settings to the values that the rooms below understand."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from stowkeeper.app.negotiation_profiles import NegotiationProfiles, ProfilePolicy
from stowkeeper.app.settings import Settings
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.archive import ArchiveOptions
from stowkeeper.archive.arrival import DuplicatePolicy, DuplicatesOf
from stowkeeper.dicom.sop_classes import SOP_CLASSES, SOPClassKind
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.peer_definition import PeerDuplicates
from stowkeeper.services.storage import EVERYTHING, Permissions, Rules
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, is_accepted_as_shipped, is_storage

_ANSWERS_REMEMBERED = 1024
"""Classes and peers whose answer is remembered: both come from peers, so there is a bound."""


def archive_options(settings: Settings) -> ArchiveOptions:
    """Return how the archive receives."""
    storage = settings.storage
    return ArchiveOptions(
        sync=settings.sync,
        shared=settings.shared,
        slot_pool_size=storage.slot_pool_size,
        slot_mode=storage.file_mode,
        folder_mode=storage.folder_mode,
        uncatalogued_max=storage.uncatalogued_max,
        reserve_size=storage.reserve_size,
        sync_every_bytes=storage.sync_every,
        worker_threads=storage.worker_threads,
        replace_grace_seconds=storage.replace_grace_hours * 3600,
        marks=DiskMarks(
            instance_bytes=storage.refuse_instance_below,
            association_bytes=storage.refuse_association_below,
            instance_inodes=storage.refuse_instance_below_inodes,
            association_inodes=storage.refuse_association_below_inodes,
        ),
    )


def server_options(settings: Settings) -> ServerOptions:
    """Return what bounds the server's associations."""
    dicom = settings.dicom
    return ServerOptions(
        maximum_length=dicom.maximum_length,
        associations_max=dicom.associations_max,
        associations_per_peer_max=dicom.associations_per_peer_max,
        association_request_seconds=dicom.association_request_seconds,
        idle_seconds=dicom.idle_seconds,
        message_seconds=dicom.message_seconds,
        message_bytes_per_second_min=dicom.message_bytes_per_second_min,
        send_seconds=dicom.send_seconds,
        drain_seconds=dicom.drain_seconds,
        tcp_keep_alive_seconds=dicom.tcp_keep_alive_seconds,
        tcp_keep_alive_interval_seconds=dicom.tcp_keep_alive_interval_seconds,
        tcp_keep_alive_probes=dicom.tcp_keep_alive_probes,
        proxies=dicom.proxy_protocol_from,
    )


class PeerRules(Protocol):
    """What the rules need to know of a peer, be it of the settings or of the database."""

    @property
    def duplicates(self) -> PeerDuplicates | None:
        """Return its own policy for duplicates, if it has one."""
        ...

    @property
    def profile(self) -> str | None:
        """Return the name of its own negotiation profile, if it has one."""
        ...

    @property
    def may_store(self) -> bool:
        """Return whether it may store."""
        ...

    @property
    def may_echo(self) -> bool:
        """Return whether its C-ECHO is answered Success."""
        ...


PeerOf = Callable[[str, str], PeerRules | None]
"""Gives the peer of a calling AE title and an address, None for a stranger."""


def commitment_options(settings: Settings) -> CommitmentOptions:
    """Return how storage commitment is provided."""
    commitment = settings.commitment
    return CommitmentOptions(
        policy=commitment.policy,
        policy_seconds=commitment.policy_seconds,
        grace_seconds=commitment.grace_seconds,
        recheck_after_seconds=commitment.recheck_after_seconds,
        report_days=commitment.report_days,
        retrieve_ae_title=commitment.retrieve_ae_title,
    )


def duplicates_rule(settings: Settings, peer_of: PeerOf | None = None) -> DuplicatesOf:
    """Return what happens to a second version of an instance, by its sender; `peer_of` as for `storage_rules`."""
    found = peer_of or _configured(settings)

    def duplicates_of(calling_ae_title: str, address: str) -> DuplicatePolicy:
        peer = found(calling_ae_title, address)
        own = None if peer is None else peer.duplicates
        return DuplicatePolicy(settings.storage.duplicates if own is None else own)

    return duplicates_of


def _configured(settings: Settings) -> PeerOf:
    return lru_cache(maxsize=_ANSWERS_REMEMBERED)(settings.peer_of)


def storage_rules(settings: Settings, profiles: NegotiationProfiles, peer_of: PeerOf | None = None) -> Rules:
    """Return who may associate, what is accepted, and what happens to duplicates.

    `profiles` are those that the settings name, as `negotiation_profiles` read them. `peer_of` is asked often and answers
    from memory; without it the peers of the settings are all there are.
    """
    found = peer_of or _configured(settings)
    access = settings.access
    acceptance = _acceptance(settings)
    policies = {name: _by_profile(acceptance, profile) for name, profile in profiles.policies.items()}
    policies[""] = acceptance
    without_storage = {name: _without_storage(policy) for name, policy in policies.items()}

    def acceptance_of(calling_ae_title: str, address: str) -> AcceptancePolicy:
        peer = found(calling_ae_title, address)
        if peer is None:
            return policies[settings.negotiation.profile]
        name = settings.negotiation.profile if peer.profile is None else peer.profile
        return (policies if peer.may_store else without_storage)[name]

    def permissions_of(calling_ae_title: str, address: str) -> Permissions:
        peer = found(calling_ae_title, address)
        return EVERYTHING if peer is None else Permissions(may_store=peer.may_store, may_echo=peer.may_echo)

    return Rules(
        ae_title=settings.dicom.ae_title,
        acceptance=acceptance,
        acceptance_of=acceptance_of,
        networks=tuple(access.addresses),
        knows_peer=(lambda title, address: found(title, address) is not None)
        if access.only_known_peers
        else None,
        duplicates_of=duplicates_rule(settings, found),
        permissions_of=permissions_of,
    )


def _acceptance(settings: Settings) -> AcceptancePolicy:
    """Return what is agreed to without a profile."""
    access = settings.access
    negotiation = settings.negotiation
    called = {settings.dicom.ae_title, *access.called_ae_titles}
    syntaxes = negotiation.transfer_syntaxes
    accepted = _accepted_classes(settings)
    refused = frozenset(negotiation.refused_abstract_syntaxes)

    @lru_cache(maxsize=_ANSWERS_REMEMBERED)
    def accepts(abstract_syntax: str) -> bool:
        if abstract_syntax == VERIFICATION:
            return True
        if abstract_syntax in refused:
            return False
        return is_accepted_as_shipped(abstract_syntax) if accepted is None else abstract_syntax in accepted

    return AcceptancePolicy(
        accepts_abstract_syntax=accepts,
        transfer_syntaxes=SHIPPED_TRANSFER_SYNTAXES if syntaxes == "all" else tuple(syntaxes),
        accept_unknown_transfer_syntaxes=negotiation.accept_unknown_transfer_syntaxes,
        preference=negotiation.preference if negotiation.choice == "preference" else None,
        called_ae_titles=frozenset(called) if access.check_called_ae_title else None,
        calling_ae_titles=frozenset(access.calling_ae_titles) or None,
        maximum_length=settings.dicom.maximum_length,
        operations_window=settings.dicom.operations_window,
    )


def _by_profile(acceptance: AcceptancePolicy, profile: ProfilePolicy) -> AcceptancePolicy:
    """Return a policy with everything about presentation contexts as the profile says."""
    return replace(
        acceptance,
        accepts_abstract_syntax=profile.accepts,
        transfer_syntaxes_by_class=profile.transfer_syntaxes,
        accept_unknown_transfer_syntaxes=False,
        preference=None,
        prefers_own_order=profile.prefers_own_order,
        roles=profile.roles,
        application_information=profile.application_information,
    )


def _without_storage(acceptance: AcceptancePolicy) -> AcceptancePolicy:
    """Return a policy that accepts no storage class any more."""
    accepts = acceptance.accepts_abstract_syntax
    return replace(
        acceptance,
        accepts_abstract_syntax=lambda abstract_syntax: (
            not is_storage(abstract_syntax) and accepts(abstract_syntax)
        ),
    )


def _accepted_classes(settings: Settings) -> frozenset[str] | None:
    """Return the classes that alone are accepted; None when every storage class is, and storage commitment."""
    chosen = settings.negotiation.abstract_syntaxes
    if chosen == "all":
        return None
    if chosen == "standard":
        stored = (uid for uid, known in SOP_CLASSES.items() if known.kind is not SOPClassKind.OTHER)
        return frozenset({STORAGE_COMMITMENT_PUSH_MODEL, *stored})
    return frozenset(chosen)
