"""Keys, certificates and revocation lists for tests, made by the `openssl` command when a test asks for them.

Nothing of it is in the repository: an authority and what it issues live in a folder of the test run, and are cheap enough
to be made anew each time. Keys of one kind are shared, since a test that needs a key of its own asks for one.
"""

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RUN_SECONDS_MAX = 60.0
KEY_KINDS: Final = {
    "rsa": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "rsa1024": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "ec": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ec384": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "ec224": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"),
    "ec192": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime192v1"),
    "ed25519": ("genpkey", "-algorithm", "ED25519"),
    "dsa": ("dsaparam", "-genkey", "-noout", "1024"),
}
_CONFIGURATION = """
[ca]
default_ca = authority
[authority]
new_certs_dir = {folder}
database = {folder}/index.txt
rand_serial = yes
crlnumber = {folder}/crlnumber
default_md = sha256
default_crl_days = 2
policy = any
unique_subject = no
x509_extensions = leaf
[any]
commonName = supplied
organizationName = optional
[req]
distinguished_name = name
[name]
[leaf]
basicConstraints = CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{alternatives}
[intermediate]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    """Run the `openssl` command to its end and return what it printed; raise with its complaint when it fails."""
    run = subprocess.run(
        ["openssl", *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    return run.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate with its key, as PEM files."""

    certificate: str
    key: str

    def der(self, folder: Path, *, key_form: str = "pkcs8") -> "Identity":
        """Return the same as DER files: the key as PKCS #8, or in the older form of its algorithm."""
        certificate, key = folder / "certificate.der", folder / f"key-{key_form}.der"
        openssl("x509", "-in", self.certificate, "-outform", "DER", "-out", certificate)
        if key_form == "pkcs8":
            form: tuple[str, ...] = ("pkcs8", "-topk8", "-nocrypt")
        else:
            form = (key_form, *(("-traditional",) if key_form == "rsa" else ()))
        openssl(*form, "-in", self.key, "-outform", "DER", "-out", key)
        return Identity(certificate=str(certificate), key=str(key))

    def encrypted(self, folder: Path, password: str) -> "Identity":
        """Return the same with its key under a password."""
        key = folder / "encrypted.key"
        openssl("pkey", "-in", self.key, "-aes256", "-passout", f"pass:{password}", "-out", key)
        return Identity(certificate=self.certificate, key=str(key))


class Authority:
    """A certification authority with a folder of its own."""

    def __init__(
        self, folder: Path, keys: "Keys", name: str = "Authority", *, key: str = "ec", digest: str = "sha256"
    ) -> None:
        self.folder = folder
        self._keys = keys
        self._numbers = itertools.count(1)
        self._alternatives = ""
        folder.mkdir(parents=True)
        (folder / "index.txt").write_text("")
        (folder / "crlnumber").write_text("01\n")
        self.key = keys.new(key)
        self.certificate = str(folder / "authority.pem")
        self._configure()
        # fmt: off
        openssl(
            "req", "-x509", "-new", "-config", self._configuration, "-key", self.key, "-subj", f"/CN={name}", f"-{digest}",
            "-days", "2", "-extensions", "intermediate", "-out", self.certificate,
        )
        # fmt: on

    @property
    def _configuration(self) -> Path:
        return self.folder / "authority.cnf"

    def _configure(self, names: Sequence[str] = ()) -> None:
        alternatives = f"subjectAltName = {','.join(names)}" if names else ""
        text = _CONFIGURATION.format(folder=self.folder, alternatives=alternatives)
        self._configuration.write_text(text)

    def issue(
        self,
        name: str = "peer",
        *,
        key: str = "ec",
        digest: str = "sha256",
        names: Sequence[str] = ("DNS:localhost", "IP:127.0.0.1"),
        start: str = "20200101000000Z",
        end: str = "20990101000000Z",
        extensions: str = "leaf",
        key_file: str | None = None,
    ) -> Identity:
        """Issue a certificate; `names` are the names and addresses it holds for."""
        number = next(self._numbers)
        key_file = key_file or self._keys.of(key)
        request = self.folder / f"{number}.csr"
        certificate = self.folder / f"{number}.pem"
        self._configure(names)
        openssl(
            "req",
            "-new",
            "-config",
            self._configuration,
            "-key",
            key_file,
            "-subj",
            f"/CN={name}/O=Clinic",
            "-out",
            request,
        )
        # fmt: off
        openssl(
            "ca", "-batch", "-notext", "-config", self._configuration, "-cert", self.certificate, "-keyfile", self.key,
            "-md", digest, "-startdate", start, "-enddate", end, "-extensions", extensions, "-in", request, "-out", certificate,
        )
        # fmt: on
        return Identity(certificate=str(certificate), key=key_file)

    def expired(self) -> Identity:
        """Issue a certificate whose time is over."""
        return self.issue("old", start="20200101000000Z", end="20200201000000Z")

    def revoke(self, identity: Identity) -> None:
        """Take a certificate back; the next revocation list names it."""
        # fmt: off
        openssl(
            "ca", "-config", self._configuration, "-cert", self.certificate, "-keyfile", self.key,
            "-revoke", identity.certificate,
        )
        # fmt: on

    def revocation_list(self, *, end: str | None = None) -> str:
        """Issue a revocation list."""
        path = self.folder / f"{next(self._numbers)}.crl"
        time = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", end) if end else ()
        # fmt: off
        openssl(
            "ca", "-config", self._configuration, "-cert", self.certificate, "-keyfile", self.key, "-gencrl", *time,
            "-out", path,
        )
        # fmt: on
        return str(path)

    def subordinate(self, folder: Path, *, digest: str = "sha256") -> "Authority":
        """Make an authority that this one stands for."""
        below = Authority(folder, self._keys, "Subordinate")
        issued = self.issue(
            "Subordinate", extensions="intermediate", names=(), key_file=below.key, digest=digest
        )
        shutil.copy(issued.certificate, below.certificate)
        return below


class Keys:
    """Private keys by kind, each made once; `new` makes one that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._made: dict[str, str] = {}

    def of(self, kind: str) -> str:
        """Return the shared key of a kind."""
        if kind not in self._made:
            self._made[kind] = self.new(kind)
        return self._made[kind]

    def signed_by_itself(self, name: str) -> Identity:
        """Make a certificate that no authority stands for."""
        key, certificate = self.of("rsa"), str(self._folder / f"self-{next(self._numbers)}.pem")
        # fmt: off
        openssl(
            "req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days", "2",
            "-addext", "basicConstraints=critical,CA:FALSE", "-out", certificate,
        )
        # fmt: on
        return Identity(certificate=certificate, key=key)

    def new(self, kind: str) -> str:
        """Make a key."""
        path = str(self._folder / f"{kind}-{next(self._numbers)}.key")
        command, *arguments = KEY_KINDS[kind]
        openssl(command, "-out", path, *arguments)
        return path
