"""What OpenSSL calls a failure, in words that name its cause. They follow the name of the peer: "it …"."""

import re
import ssl
from types import MappingProxyType
from typing import Final

_REFUSED_CERTIFICATES: Final = MappingProxyType(
    {
        3: "there is no revocation list of the authority that issued it",
        7: "its signature is not that of the authority that it names",
        8: "the signature of the revocation list of its authority does not fit",
        9: "it is not valid yet",
        10: "it has expired",
        11: "the revocation list of its authority is not valid yet",
        12: "the revocation list of its authority is out of date",
        18: "it is signed by itself, and is not trusted here",
        19: "the authority that issued it is not trusted here",
        20: "the authority that issued it is not trusted here",
        21: "the authority that issued it is not trusted here",
        23: "it was revoked",
        24: "an authority in its chain is no authority",
        25: "its chain is longer than an authority in it allows",
        26: "it was not issued for this side of a TLS connection",
        62: "it does not hold for the name that was called",
        64: "it does not hold for the address that was called",
        66: "its key is too weak",
        67: "the key of an authority in its chain is too weak",
        68: "a signature in its chain is too weak",
    }
)
"""Why a certificate of the peer's does not verify, by the number of X509_V_ERR_… in OpenSSL's x509_vfy.h."""

_ALERTS: Final = MappingProxyType(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses our certificate as damaged or unfit",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refuses the kind of our certificate",
        "SSLV3_ALERT_CERTIFICATE_REVOKED": "it refuses our certificate as revoked",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refuses our certificate as expired",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses our certificate",
        "SSLV3_ALERT_NO_CERTIFICATE": "it has no certificate",
        "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority that issued our certificate",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a certificate of us, and got none",
        "SSLV3_ALERT_HANDSHAKE_FAILURE": (
            "it refused the handshake: no cipher suite is common to both sides, or it requires a certificate of us"
        ),
        "TLSV1_ALERT_PROTOCOL_VERSION": "it refuses the versions of TLS that are allowed here",
        "TLSV1_ALERT_INSUFFICIENT_SECURITY": "it asks for stronger cipher suites than are allowed here",
        "TLSV1_ALERT_ACCESS_DENIED": "it takes our certificate, but does not let us in",
        "TLSV1_UNRECOGNIZED_NAME": "it does not go by the server name that it was called by",
        "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it does not take DICOM over TLS (application protocol dicom)",
        "TLSV1_ALERT_DECRYPT_ERROR": "it could not verify a signature of the handshake",
        "TLSV1_ALERT_INTERNAL_ERROR": "it reports an error of its own",
        "TLSV1_ALERT_USER_CANCELLED": "it gave up",
        "SSLV3_ALERT_UNEXPECTED_MESSAGE": "it did not expect what it got",
        "SSLV3_ALERT_BAD_RECORD_MAC": "what arrived there was damaged on the way",
        "SSLV3_ALERT_ILLEGAL_PARAMETER": "it refuses a part of the handshake",
        "TLSV1_ALERT_DECODE_ERROR": "it could not read a part of the handshake",
    }
)
"""What the peer says by an alert, by OpenSSL's names for having received it."""

_FAILURES: Final = MappingProxyType(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it sent no certificate, and one is required",
        "NO_SHARED_CIPHER": "it offers no cipher suite that the security profile and our certificate allow",
        "NO_SUITABLE_SIGNATURE_ALGORITHM": "it takes no signature that our certificate can make",
        "NO_SHARED_SIGNATURE_ALGORITHMS": "it takes no signature that our certificate can make",
        "NO_SUITABLE_KEY_SHARE": "it offers no way to agree on a key that is allowed here",
        "NO_SHARED_GROUPS": "it offers no way to agree on a key that is allowed here",
        "UNSUPPORTED_PROTOCOL": "it speaks only versions of TLS that the security profile does not allow",
        "VERSION_TOO_LOW": "it speaks only versions of TLS that the security profile does not allow",
        "WRONG_SSL_VERSION": "it speaks only versions of TLS that the security profile does not allow",
        "INAPPROPRIATE_FALLBACK": "it fell back to an older version of TLS without need",
        "WRONG_VERSION_NUMBER": "it does not speak TLS",
        "UNKNOWN_PROTOCOL": "it does not speak TLS",
        "HTTP_REQUEST": "it speaks HTTP without TLS",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "what it sent was damaged on the way",
        "RECORD_LAYER_FAILURE": "what it sent was damaged on the way",  # so says OpenSSL since 3.2
        "BAD_SIGNATURE": "its signature of the handshake does not fit its certificate",
        "DH_KEY_TOO_SMALL": "its Diffie-Hellman group is too small",
        "UNEXPECTED_EOF_WHILE_READING": "it closed the connection without a word",
    }
)


def words_of(error: ssl.SSLError) -> str:
    """Say why TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        number = error.verify_code
        known = _REFUSED_CERTIFICATES.get(number) or f"it does not verify ({_plain(error.verify_message)})"
        return f"its certificate is refused: {known}"
    reason = error.reason or _reason_in(str(error))
    return _FAILURES.get(reason) or _ALERTS.get(reason) or f"TLS failed ({_plain(reason)})"


def alert_words(error: ssl.SSLError) -> str:
    """Say by which alert the peer refused us; empty where it was none."""
    return _ALERTS.get(error.reason or _reason_in(str(error)), "")


def _reason_in(text: str) -> str:
    """Return the reason in a text such as `[SSL] tlsv1 alert no application protocol (_ssl.c:1006)`.

    Python has names for the reasons of the OpenSSL that it was made with; newer ones come in OpenSSL's words alone.
    """
    found = _REASON.search(text)
    return found[1].strip().replace(" ", "_").upper() if found else text


_REASON: Final = re.compile(r"\] (.*?)(?: \(_?ssl\.c|$)")


def _plain(name: str) -> str:
    return name.replace("_", " ").lower()
