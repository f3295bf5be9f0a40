"""Keys, requests and certificates as anybody could make them: by the openssl command, and the mesh's own CA over gRPC.

Nothing here is code of Leno's: this is what somebody would use who wants to pass for another.
"""

import base64
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import COMMANDS, path_of, run

SIGN = "/leno.dev.CertificateService/Sign"
AUDIENCE = "leno.dev"
LENO = "leno-system"


class Desk:
    """A folder of keys and certificates."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="leno-pki-")
        self.path = Path(self.folder.name)

    def close(self):
        self.folder.cleanup()

    def file(self, name, text=None):
        if text is not None:
            (self.path / name).write_text(text)
        return self.path / name

    def key(self, name="key"):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.file(f"{name}.pem"))
        return self.file(f"{name}.pem")

    def request(self, key, uri=None):
        """A certification request, DER, that asks for the name `uri` where one is given."""
        out = self.file("request.der")
        wanted = ["-addext", f"subjectAltName=URI:{uri}"] if uri else []
        run("openssl", "req", "-new", "-key", key, "-subj", "/CN=anybody", *wanted, "-outform", "DER", "-out", out)
        return out.read_bytes()

    def self_signed(self, uri):
        """A certificate, with its key, that names `uri` and that nobody vouches for: PEM."""
        key, out = self.key("own"), self.file("own.crt")
        command = ["openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=self", "-days", "1", "-out", out]
        run(*command, "-addext", f"subjectAltName=URI:{uri}", "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        return out.read_text() + key.read_text()

    def signed_by(self, ca_certificate, ca_key, uri):
        """A certificate, with its key, that names `uri` and is signed by that CA: PEM."""
        key, request, out = self.key("leaf"), self.file("leaf.csr"), self.file("leaf.crt")
        run("openssl", "req", "-new", "-key", key, "-subj", "/", "-out", request)
        usage = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth"
        extensions = self.file("leaf.ext", f"subjectAltName=critical,URI:{uri}\n{usage}\n")
        authority = ["-CA", self.file("ca.crt", ca_certificate), "-CAkey", self.file("ca.key", ca_key)]
        run("openssl", "x509", "-req", "-in", request, *authority, "-days", "1", "-extfile", extensions, "-out", out)
        return out.read_text() + key.read_text()


def secret(api, name):
    """The texts of a Secret of the mesh."""
    data = api.json("GET", path_of("Secret", LENO, name))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def token(namespace, account, audience=AUDIENCE, pod=None, seconds=3600):
    """A service-account token by the TokenRequest API, bound to a pod where one is named."""
    spec = {"audiences": [audience] if audience else [], "expirationSeconds": seconds}
    if pod:
        uid = namespace.get("Pod", pod)["metadata"]["uid"]
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
    path = path_of("ServiceAccount", namespace.name, account, "token")
    answer = namespace.api.json("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    return answer["status"]["token"]


def signed_again(token, key, **claims):
    """The same token with other claims, signed (ES256) with the cluster's own key."""
    header, old, _ = token.split(".")
    known = {**json.loads(decoded(header)), "alg": "ES256"}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (known, {**json.loads(decoded(old)), **claims}))
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed.encode(), capture_output=True, check=True).stdout
    # A SEQUENCE of two INTEGERs becomes two numbers of 32 bytes (RFC 7518, section 3.4).
    at, numbers = 2, b""
    for _ in range(2):
        length = der[at + 1]
        numbers += int.from_bytes(der[at + 2 : at + 2 + length]).to_bytes(32)
        at += 2 + length
    return f"{signed}.{encoded(numbers)}"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Controller:
    """The control port of one controller, over TLS that is checked. `sign.py` does the talking, from inside the node."""

    def __init__(self, api):
        command = [str(COMMANDS / "exec"), sys.executable, "-B", str(Path(__file__).with_name("sign.py")), LENO, "leno-controller"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.say(secret(api, "leno-controller-tls")["ca.crt"])

    def close(self):
        self.process.communicate("", timeout=10)

    def say(self, value):
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def call(self, method, message, bearer="", client=""):
        """The first answer of a gRPC method: {code, details, answer}."""
        metadata = [("authorization", f"Bearer {bearer}")] if bearer else []
        self.say({"method": method, "metadata": metadata, "message": base64.b64encode(message).decode(), "client": client})
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        answer = json.loads(line)
        return {**answer, "answer": base64.b64decode(answer["answer"])}

    def ask(self, bearer, request):
        """Asks for a certificate."""
        return self.call(SIGN, length_delimited(1, request), bearer)

    def sign(self, bearer, request):
        """The chain, DER, that the controller signs for a request that is good."""
        answer = self.ask(bearer, request)
        assert answer["code"] == "OK", answer
        return list(fields(answer["answer"], 1))

    def refusal(self, bearer, request):
        """The gRPC status code with which a request is refused."""
        return self.ask(bearer, request)["code"]


@contextlib.contextmanager
def controller(api):
    one = Controller(api)
    try:
        yield one
    finally:
        one.close()


def length_delimited(number, data):
    """One field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def fields(message, wanted):
    """The values of the length-delimited fields of that number, from messages that have no others on their first level."""
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        length, at = read_varint(message, at)
        assert key & 7 == 2, f"field {key >> 3} is of wire type {key & 7}"
        if key >> 3 == wanted:
            yield message[at : at + length]
        at += length


def read_varint(message, at):
    number, shift = 0, 0
    while True:
        byte = message[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


def pem(der):
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


def names(certificate):
    """The subject alternative names of a certificate, as openssl shows them."""
    shown = run("openssl", "x509", "-noout", "-ext", "subjectAltName", stdin=certificate)
    return shown.splitlines()[1].strip()


def minted(api, desk, namespace, account, pod):
    """A genuine certificate of a pod, with its key, as its token gets it: PEM. It is what a thief would have."""
    key = desk.key("minted")
    with controller(api) as one:
        chain = one.sign(token(namespace, account, pod=pod), desk.request(key))
    return "".join(pem(der) for der in chain) + key.read_text()
