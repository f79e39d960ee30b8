"""Negotiation beside DCMTK's own receivers: the same requests on the wire, and the same answers.

DCMTK here is 3.6.7 or later. What a newer release knows and an older one does not is named in this file; anything else
that differs fails. Answers are read by plain struct, so that no code of the product is on both sides.
"""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from stowkeeper.dcmtk.negotiation import DcmrecvRules, StorescpRules, negotiate_dcmrecv, negotiate_storescp
from stowkeeper.dcmtk.preferences import Preference
from stowkeeper.dcmtk.profile_file import ProfileError, load_profiles, read_profile_file
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.sop_classes import SOP_CLASSES
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.negotiation import Accepted
from support.peers import program_path
from support.private_network import need_private_network, run_in_private_network
from support.raw_peer import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    Context,
    associate_rq,
    item,
)

pytestmark = [pytest.mark.slow, pytest.mark.peer("storescp"), pytest.mark.peer("dcmrecv")]

SCRIPT = Path(__file__).parents[1] / "support" / "association_answers.py"
PORT = 11112
ROOT = "1.2.840.10008."
CT, MR = f"{ROOT}5.1.4.1.1.2", f"{ROOT}5.1.4.1.1.4"
STORAGE = [row.split()[0] for row in STORAGE_CLASSES.splitlines()]
SYNTAXES = [
    *(f"{ROOT}{suffix}" for suffix in ("1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.5")),
    *(f"{ROOT}1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, 92, *range(100, 109))),
]
"""What 3.6.7 has options for, and two that no option accepts."""

NEWER_THAN_3_6_7 = {
    *(
        f"{ROOT}5.1.4.1.1.{suffix}"
        for suffix in ("6.3", "9.1.4", "9.100.1", "9.100.2", "11.12", "66.7", "66.8")
    ),
    *(f"{ROOT}5.1.4.1.1.{suffix}" for suffix in ("77.1.8", "77.1.9", "88.77", "481.23", "481.24", "481.25")),
    *(f"{ROOT}5.1.4.1.1.601.{number}" for number in (3, 4, 5)),
}
"""Storage classes that 3.6.7 does not know, so it refuses them; with -pm it accepts them for that very reason."""

NEWER_REFUSED = {f"{ROOT}5.1.4.38.4", *(f"{ROOT}5.1.4.1.1.201.{number}" for number in range(1, 7))}
"""Known since 3.6.8 to be no composite storage; 3.6.7 lets them in with -pm because it has never heard of them."""


# --- requests and answers


def ask(program, options, requests):
    """Start a receiver in a private network, send it requests, and return its answers as bytes, None for none."""
    need_private_network()
    job = {
        "argv": [program_path(program), *options, str(PORT)],
        "port": PORT,
        "requests": [request.hex() for request in requests],
    }
    outcome = run_in_private_network(SCRIPT, job)
    assert outcome["exit"] is None, outcome["log"]
    return [None if answer is None else bytes.fromhex(answer) for answer in outcome["answers"]]


def items_of(data):
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def meaning(pdu):
    """Return what an answer says, without what names an implementation, and roles once for each class."""
    if pdu[0] == ASSOCIATE_RJ:
        return tuple(pdu[7:10])
    assert pdu[0] == ASSOCIATE_AC
    contexts, user = {}, []
    for kind, body in items_of(pdu[74:]):
        if kind == 0x21:
            contexts[body[0]] = (body[2], dict(items_of(body[4:]))[0x40])
        elif kind == 0x50:
            user = [(inner, value) for inner, value in items_of(body) if inner not in (0x52, 0x55)]
    return {
        "titles": pdu[10:42],
        "contexts": contexts,
        "roles": {value for kind, value in user if kind == 0x54},
        "others": [entry for entry in user if entry[0] != 0x54],
    }


def answer_of_ours(pdu, negotiate, rules):
    decision = negotiate(decode_pdu(pdu[0], memoryview(pdu)[6:]), rules)
    return encode_pdu(decision.response if isinstance(decision, Accepted) else decision.rejection)


def compare(program, options, requests, negotiate, rules):
    """Check that every request is answered in the same way."""
    for request, theirs in zip(requests, ask(program, options, requests), strict=True):
        assert theirs is not None
        assert meaning(answer_of_ours(request, negotiate, rules)) == meaning(theirs)


def context(context_id, abstract_syntax, *transfer_syntaxes):
    return Context(
        context_id=context_id,
        abstract_syntax=abstract_syntax,
        transfer_syntaxes=transfer_syntaxes or (EXPLICIT_VR_LITTLE_ENDIAN,),
    )


def class_item(kind, uid, rest):
    return item(kind, struct.pack(">H", len(uid)) + uid.encode() + rest)


def random_requests(seed, classes, count, *, with_roles=False):
    """Return requests with contexts of some classes in any order, and role and extended proposals if wished."""
    choose = random.Random(seed)
    requests = []
    for _ in range(count):
        contexts = [
            context(number * 2 + 1, choose.choice(classes), *choose.sample(SYNTAXES, choose.randint(1, 8)))
            for number in range(choose.randint(1, 12))
        ]
        more = b""
        if with_roles:
            for uid in choose.sample(classes, min(len(classes), choose.randint(0, 6))):
                more += class_item(0x54, uid, bytes(choose.choices((0, 1), k=2)))
                if choose.random() < 0.3:
                    more += class_item(0x56, uid, b"\x02\x00")
        requests.append(associate_rq(contexts, user_items=more))
    return requests


# --- storescp without a profile


@pytest.mark.parametrize("preference", Preference)
def test_every_preference(preference):
    classes = [
        CT,
        MR,
        VERIFICATION,
        *random.Random(preference).sample(STORAGE, 20),
        "1.2.3",
        f"{ROOT}5.1.4.31",
    ]
    known = [uid for uid in classes if uid not in NEWER_THAN_3_6_7]
    requests = random_requests(preference, known, 12)
    requests.append(associate_rq([context(1, CT, *SYNTAXES), context(3, CT, *reversed(SYNTAXES))]))
    requests += [associate_rq([context(number * 2 + 1, CT, uid) for number, uid in enumerate(SYNTAXES)])]
    compare("storescp", [str(preference)], requests, negotiate_storescp, StorescpRules(preference=preference))


def every_class():
    """Return requests that propose every SOP class by name, in portions."""
    uids = sorted(SOP_CLASSES)
    return [
        (part, associate_rq([context(number * 2 + 1, uid) for number, uid in enumerate(part)]))
        for part in (uids[at : at + 100] for at in range(0, len(uids), 100))
    ]


@pytest.mark.parametrize("options", [[], ["-pm"]])
def test_every_class(options):
    portions = every_class()
    rules = StorescpRules(promiscuous=bool(options))
    answers = ask("storescp", options, [request for _, request in portions])
    differing = set()
    for (uids, request), theirs in zip(portions, answers, strict=True):
        ours = meaning(answer_of_ours(request, negotiate_storescp, rules))["contexts"]
        others = meaning(theirs)["contexts"]
        differing |= {uids[number // 2] for number, result in ours.items() if others[number] != result}
    assert differing <= (NEWER_REFUSED if options else NEWER_THAN_3_6_7)


def test_refuse_and_reject():
    requests = [associate_rq([context(1, CT)]), associate_rq([context(1, CT)], application_context="1.2.3")]
    requests.append(associate_rq([context(1, CT)], version=2))
    compare("storescp", ["--refuse"], requests, negotiate_storescp, StorescpRules(refuse=True))
    nameless = requests[0].replace(item(0x52, b"1.2.3.4.5"), item(0x52, b""))
    nameless = nameless[:2] + struct.pack(">I", len(nameless) - 6) + nameless[6:]
    at = nameless.index(b"\x50\x00")
    nameless = nameless[: at + 2] + struct.pack(">H", len(nameless) - at - 4) + nameless[at + 4 :]
    rules = StorescpRules(reject_without_implementation_class=True)
    compare("storescp", ["--reject"], [*requests, nameless], negotiate_storescp, rules)


def test_maximum_length_and_odd_requests():
    requests = [
        associate_rq([context(1, CT), context(1, VERIFICATION), context(4, CT)]),
        associate_rq(
            [context(5, CT), context(3, MR), context(1, VERIFICATION)], called=b" A  B", calling=b"c"
        ),
        associate_rq([context(1, "1.2.3")]),
        associate_rq([context(1, CT)], version=3),
        associate_rq([context(1, CT)], version=0),
        associate_rq([context(1, CT)], window=(4, 4), user_items=item(0x58, b"\1\1\0\3abc\0\0")),
        associate_rq([context(1, CT)], uid_padding=b"\0"),
    ]
    for length in (4096, 131072):
        rules = StorescpRules(maximum_length=length)
        compare("storescp", ["-pdu", str(length)], requests, negotiate_storescp, rules)


def test_where_it_is_silent_we_reject():
    requests = [
        associate_rq([]),
        associate_rq([context(1, CT)], called=b""),
        associate_rq([context(1, CT)], calling=b""),
    ]
    assert ask("storescp", [], requests) == [None, None, None]
    ours = [meaning(answer_of_ours(request, negotiate_storescp, StorescpRules())) for request in requests]
    assert ours == [(1, 1, 1), (1, 1, 7), (1, 1, 3)]


# --- dcmrecv without a profile


def test_dcmrecv():
    requests = [
        associate_rq([context(1, CT, *SYNTAXES), context(3, VERIFICATION, *SYNTAXES)]),
        associate_rq([context(1, CT, *SYNTAXES)]),
        associate_rq([context(1, VERIFICATION, EXPLICIT_VR_LITTLE_ENDIAN)]),
        associate_rq([context(1, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)], application_context="1.2"),
        associate_rq([context(1, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)], version=2),
        associate_rq([context(1, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)], version=3),
        associate_rq([]),
    ]
    compare("dcmrecv", ["-pdu", "8192"], requests, negotiate_dcmrecv, DcmrecvRules(maximum_length=8192))


# --- profiles


def random_profile(seed):
    """Return the text of a profile file, and the classes it is about."""
    choose = random.Random(f"profile {seed}")
    classes = [uid for uid in choose.sample(STORAGE, 12) if uid not in NEWER_THAN_3_6_7] + [VERIFICATION]
    lines = ["[[TransferSyntaxes]]"]
    for number in range(3):
        lines.append(f"[List{number}]")
        chosen = choose.sample(SYNTAXES, choose.randint(1, 10))
        lines += [f"TransferSyntax{place} = {uid}" for place, uid in enumerate(chosen, 1)]
    lines += ["[[PresentationContexts]]", "[C]"]
    accepted = classes[2:]
    lines += [
        f"PresentationContext{place} = {uid}\\List{choose.randrange(3)}"
        for place, uid in enumerate(accepted, 1)
    ]
    lines += ["[[SCPSCURoleSelection]]", "[R]"]
    lines += [
        f"Role{place} = {uid}\\{choose.choice(['SCU', 'SCP', 'BOTH'])}"
        for place, uid in enumerate(choose.sample(accepted, 5), 1)
    ]
    lines += ["[[ExtendedNegotiation]]", "[E]"]
    lines += [
        f"ExtendedNegotiation{place} = {uid}\\{choose.randbytes(choose.randint(1, 8)).hex()}"
        for place, uid in enumerate(choose.sample(accepted, 5), 1)
    ]
    lines += [
        "[[Profiles]]",
        "[P]",
        "PresentationContexts = C",
        "SCPSCURoleSelection = R",
        "ExtendedNegotiation = E",
    ]
    return "\n".join(lines) + "\n", classes


@pytest.mark.parametrize("program", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("seed", range(4))
def test_profiles(tmp_path, program, seed):
    text, classes = random_profile(seed)
    path = tmp_path / "profile.cfg"
    path.write_text(text)
    profile = read_profile_file(path).acceptor_profile("p")
    requests = random_requests(seed, classes, 25, with_roles=True)
    rules, negotiate = (
        (StorescpRules(profile=profile), negotiate_storescp)
        if program == "storescp"
        else (DcmrecvRules(profile=profile), negotiate_dcmrecv)
    )
    compare(program, ["-xf", str(path), "P"], requests, negotiate, rules)


def test_every_role_and_extended_negotiation(tmp_path):
    uids = [CT, MR, f"{ROOT}5.1.4.1.1.6.1", f"{ROOT}5.1.4.1.1.7"]
    text = "[[TransferSyntaxes]]\n[U]\nTransferSyntax1 = LocalEndianExplicit\n[[PresentationContexts]]\n[C]\n"
    text += "".join(f"PresentationContext{place} = {uid}\\U\n" for place, uid in enumerate(uids, 1))
    text += "[[SCPSCURoleSelection]]\n[R]\n"
    text += "".join(f"Role{n} = {uids[n - 1]}\\{role}\n" for n, role in enumerate(("SCU", "SCP", "BOTH"), 1))
    text += f"[[ExtendedNegotiation]]\n[E]\nExtendedNegotiation1 = {uids[3]}\\0102\n"
    text += f"ExtendedNegotiation2 = {MR}\\0a\nExtendedNegotiation3 = {CT}\\ff\n"
    text += "[[Profiles]]\n[P]\nPresentationContexts=C\nSCPSCURoleSelection=R\nExtendedNegotiation=E\n"
    path = tmp_path / "profile.cfg"
    path.write_text(text)
    contexts = [context(number * 2 + 1, uid) for number, uid in enumerate(uids)]
    requests = [associate_rq(contexts)]
    for scu, scp in ((1, 0), (0, 1), (1, 1), (0, 0)):
        proposals = b"".join(class_item(0x54, uid, bytes([scu, scp])) for uid in uids)
        requests.append(associate_rq(contexts, user_items=proposals))
    rules = StorescpRules(profile=read_profile_file(path).acceptor_profile("P"))
    compare("storescp", ["-xf", str(path), "P"], requests, negotiate_storescp, rules)


# --- loading

SAMPLE = r"""[[TransferSyntaxes]]
[U]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[C]
PresentationContext1 = CTImageStorage\U
PresentationContext2 = MRImageStorage\U
[[SCPSCURoleSelection]]
[R]
Role1 = CTImageStorage\SCU
[[ExtendedNegotiation]]
[E]
ExtendedNegotiation1 = CTImageStorage\0102
[[Profiles]]
[D]
PresentationContexts = C
SCPSCURoleSelection = R
ExtendedNegotiation = E
"""
SCRAPS = [
    "[",
    "]",
    "[[",
    "]]",
    "=",
    "\n",
    "\n ",
    "\n\t",
    "#",
    "\n#",
    "\\",
    " ",
    "\r",
    "\r\n",
    "\0",
    "\x0b",
    "x",
    ".",
    "-",
]
SCRAPS += [
    "1",
    "0",
    "C",
    "U",
    "[U]",
    "[C]",
    "[D]\n",
    "\xe4",
    "CTImageStorage",
    "TransferSyntax1 = ",
    "[[Profiles]]",
]
SCRAPS += ["PresentationContext1 = ", "Role2 = MRImageStorage\\SCP\n", "[[TransferSyntaxes]]"]
MISTAKES = [
    # in their words, in ours
    ("cannot find section", "there is no ["),
    ("transfer syntax key undefined", "the transfer syntax list"),
    ("presentation context key undefined", "the context list"),
    ("negotiation key undefined", "the list"),
    ("role selection key undefined", "the list"),
    ("not a valid transfer syntax UID", "is not a transfer syntax"),
    ("not a valid abstract syntax UID", "is not an abstract syntax"),
    ("syntax error: missing '\\'", "there is no backslash"),
    ("unknown role key", "is not a role"),
    ("parse error in extended negotiation data", "has to be bytes"),
    ("extended negotiation data too long", "are too many"),
    ("Illegal call", "has to be bytes"),  # no data at all
    ("Illegal call", "has no name"),
    ("Illegal call", "the transfer syntax list ''"),
    ("defined twice", "stands in this list before"),
    ("defined in role selection list", "is not among the profile's"),
    ("no PRESENTATIONCONTEXTS  entry", "there is no PresentationContexts entry"),
    ("two profiles defined", "a second profile of this name"),
    ("unknown configuration profile", "there is no profile"),
    ("not valid for SCP", "is not valid for an SCP"),
]


def load_of_theirs(path, name):
    """Return what storescp says of a profile file, None when it goes on and finds no output directory."""
    argv = [program_path("storescp"), "-xf", str(path), name, "-od", f"{path}.absent", str(PORT)]
    run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
    assert run.returncode == 1
    words = run.stderr.decode("latin-1")
    return None if "specified output directory does not exist" in words else words


def load_of_ours(path, name):
    try:
        load_profiles(path.read_bytes(), "f").acceptor_profile(name)
    except ProfileError as error:
        return str(error)
    return None


def damaged_profiles(seed, count):
    choose = random.Random(seed)
    for _ in range(count):
        text = SAMPLE
        for _ in range(choose.randint(1, 3)):
            at = choose.randint(0, len(text))
            if choose.random() < 0.75:
                gone = choose.choice((0, 0, 1, 1, 2, 5, 20))
                text = (
                    text[:at]
                    + "".join(choose.choices(SCRAPS, k=choose.choice((0, 1, 1, 2))))
                    + text[at + gone :]
                )
            else:
                lines = text.split("\n")
                lines.insert(choose.randrange(len(lines)), lines.pop(choose.randrange(len(lines))))
                text = "\n".join(lines)
        yield text


@pytest.mark.parametrize("seed", range(2))
def test_damaged_files_load_or_fail_for_the_same_reason(tmp_path, seed):
    path = tmp_path / "profile.cfg"
    loaded = 0
    for text in damaged_profiles(seed, 100):
        path.write_bytes(text.encode("latin-1"))
        theirs, ours = load_of_theirs(path, "D"), load_of_ours(path, "D")
        loaded += theirs is None
        assert (theirs is None) == (ours is None), (text, theirs, ours)
        if theirs is not None:
            assert any(there in theirs and here in ours for there, here in MISTAKES), (text, theirs, ours)
    assert 5 < loaded < 95


@pytest.mark.parametrize("name", ["default", "AllDICOM"])
def test_the_profile_file_of_the_peer_is_usable(name):
    path = Path("/etc/dcmtk/storescp.cfg")
    if not path.exists():
        pytest.skip("DCMTK's sample profiles are not where Debian has them")
    loaded = read_profile_file(path)
    assert loaded.warnings == ()
    profile = loaded.acceptor_profile(name)
    classes = [found.abstract_syntax for found in profile.contexts]
    requests = random_requests(name, [*classes, *STORAGE], 25)
    compare(
        "storescp", ["-xf", str(path), name], requests, negotiate_storescp, StorescpRules(profile=profile)
    )
