"""Request smuggling: raw requests that two recipients could read differently.

Each row says what the proxy must do. A number: refuse with that status, close, and send not one byte on. `Body(status)`: the
head is fine and the body is not; the same, except that a body which comes slowly may have been begun, never ended, at the app.
`Passes(bodies, then)`: exactly these requests reach the app, well-formed, and what follows them is refused with `then`.
Every row is sent in one piece and byte by byte. Refused ones are followed by a request that must never be seen.
"""

from . import wire
from .check import equal, table


class Body:
    def __init__(self, status):
        self.status = status


class Passes:
    def __init__(self, *bodies, then=None):
        self.bodies, self.then = list(bodies), then


FOLLOWED_BY = b"GET /smuggled HTTP/1.1\r\nHost: echo\r\n\r\n"
GET = b"GET /row HTTP/1.1\r\nHost: echo\r\n"
POST = b"POST /row HTTP/1.1\r\nHost: echo\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = b"0\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: echo\r\n\r\n"

LENGTHS = [
    ("content-length and chunked", 400, POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("chunked and content-length", 400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + EMPTY),
    ("content-length of zero and chunked", 400, POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("content-length twice, different", 400, POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("content-length twice, equal", 400, POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("content-length and an empty one", 400, POST + b"Content-Length: 5\r\nContent-Length:\r\n\r\nhello"),
    ("content-length as a list", 400, POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    ("content-length empty", 400, POST + b"Content-Length: \r\n\r\n"),
    ("content-length with plus", 400, POST + b"Content-Length: +5\r\n\r\nhello"),
    ("content-length negative", 400, POST + b"Content-Length: -5\r\n\r\nhello"),
    ("content-length hexadecimal", 400, POST + b"Content-Length: 0x5\r\n\r\nhello"),
    ("content-length with a fraction", 400, POST + b"Content-Length: 5.0\r\n\r\nhello"),
    ("content-length with an exponent", 400, POST + b"Content-Length: 5e0\r\n\r\nhello"),
    ("content-length of two numbers", 400, POST + b"Content-Length: 5 5\r\n\r\nhello"),
    ("content-length with an underscore", 400, POST + b"Content-Length: 1_0\r\n\r\nhellohello"),
    ("content-length in other digits", 400, POST + "Content-Length: \u0665\r\n\r\nhello".encode()),
    ("content-length beyond 64 bits", 400, POST + b"Content-Length: 18446744073709551621\r\n\r\nhello"),
    ("content-length of 300 digits", 400, POST + b"Content-Length: " + b"0" * 299 + b"5\r\n\r\nhello"),
    ("content-length with space before the colon", 400, POST + b"Content-Length : 5\r\n\r\nhello"),
    ("content-length with NUL in its name", 400, POST + b"Content-Length\0: 5\r\n\r\nhello"),
    ("content-length with a vertical tab", 400, POST + b"Content-Length: \x0b5\r\n\r\nhello"),
    ("a request in a body of its length", Passes(HIDDEN), POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN),
    ("a GET with a body, then a GET", Passes(b"hello", b""), GET + b"Content-Length: 5\r\n\r\nhello" + GET + b"\r\n"),
    ("CL.TE: a length that covers the next request", 400, POST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % (5 + len(HIDDEN)) + EMPTY + HIDDEN),
    ("TE.CL: chunks that hide the next request", 400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + EMPTY),
    ("TE.TE: a second coding that nobody knows", 400, POST + b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n" + EMPTY),
    ("TE.TE: codings apart by another field", 400, POST + b"Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("CL.0: a GET whose body looks like a request", Passes(HIDDEN), GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN),
    ("a length that a proxy in front may drop", 400, POST + b"Content-Length: 5\r\nConnection: close, content-length\r\n\r\nhello"),
    ("a length behind a tab in its line's middle", 400, POST + b"Content-Length:\t5\t5\r\n\r\nhello"),
    ("a length with a semicolon", 400, POST + b"Content-Length: 5;\r\n\r\nhello"),
    ("a length in quotes", 400, POST + b'Content-Length: "5"\r\n\r\nhello'),
    ("a length folded", 400, POST + b"Content-Length:\r\n 5\r\n\r\nhello"),
    ("a length of 2^63", 400, POST + b"Content-Length: 9223372036854775808\r\n\r\nhello"),
    ("a shorter length than the body", Passes(b"hell", then=400), POST + b"Content-Length: 4\r\n\r\nhello\r\n\r\n"),
]

CODINGS = [
    ("coding in capitals", Passes(b"hello"), POST + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("coding after a tab", Passes(b""), POST + b"Transfer-Encoding:\tchunked\r\n\r\n" + EMPTY),
    ("coding with trailing spaces", Passes(b""), POST + b"Transfer-Encoding: chunked \t \r\n\r\n" + EMPTY),
    ("coding after a vertical tab", 400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + EMPTY),
    ("coding after a no-break space", 400, POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n" + EMPTY),
    ("coding xchunked", 400, POST + b"Transfer-Encoding: xchunked\r\n\r\n" + EMPTY),
    ("coding chunkedx", 400, POST + b"Transfer-Encoding: chunkedx\r\n\r\n" + EMPTY),
    ("coding quoted", 400, POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + EMPTY),
    ("coding with a parameter", 400, POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + EMPTY),
    ("coding identity", 400, POST + b"Transfer-Encoding: identity\r\n\r\n" + EMPTY),
    ("coding chunked, identity", 400, POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + EMPTY),
    ("coding chunked, chunked", 400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + EMPTY),
    ("coding after an empty element", 400, POST + b"Transfer-Encoding: , chunked\r\n\r\n" + EMPTY),
    ("coding empty", 400, POST + b"Transfer-Encoding:\r\n\r\n" + EMPTY),
    ("coding identity, chunked", 501, POST + b"Transfer-Encoding: identity, chunked\r\n\r\n" + EMPTY),
    ("coding gzip, chunked", 501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + EMPTY),
    ("coding twice, chunked both times", 400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding twice, identity first", 400, POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding twice, identity last", 400, POST + b"Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n" + EMPTY),
    ("coding on a folded line", 400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + EMPTY),
    ("coding behind a folded line", 400, POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding with space before the colon", 400, POST + b"Transfer-Encoding : chunked\r\n\r\n" + EMPTY),
    ("coding with a tab before the colon", 400, POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + EMPTY),
    ("coding with a space before its name", 400, b"POST /row HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: echo\r\n\r\n" + EMPTY),
    ("coding behind a bare CR", 400, POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding behind a bare LF", 400, POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding behind a NUL", 400, POST + b"X: y\0Transfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding in HTTP/1.0", 400, b"POST /row HTTP/1.0\r\nHost: echo\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("coding with an underscore is another field", Passes(b"", then=400), POST + b"Transfer_Encoding: chunked\r\n\r\n" + EMPTY),
    ("a request in a chunk", Passes(HIDDEN), CHUNKED + b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n" + EMPTY),
    ("a chunked body, then a GET", Passes(b"hello", b""), CHUNKED + b"5\r\nhello\r\n" + EMPTY + GET + b"\r\n"),
]

CHUNKS = [
    ("chunk size in capitals and with zeros", Passes(b"0123456789"), CHUNKED + b"000A\r\n0123456789\r\n000\r\n\r\n"),
    ("chunk extensions are dropped", Passes(b"hello"), CHUNKED + b'5;a;b=c;d="e;f"\r\nhello\r\n0;last\r\n\r\n'),
    ("chunk size empty", Body(400), CHUNKED + b"\r\nhello\r\n" + EMPTY),
    ("chunk size of no digits", Body(400), CHUNKED + b"zz\r\nhello\r\n" + EMPTY),
    ("chunk size with 0x", Body(400), CHUNKED + b"0x5\r\nhello\r\n" + EMPTY),
    ("chunk size with plus", Body(400), CHUNKED + b"+5\r\nhello\r\n" + EMPTY),
    ("chunk size negative", Body(400), CHUNKED + b"-5\r\nhello\r\n" + EMPTY),
    ("chunk size after a space", Body(400), CHUNKED + b" 5\r\nhello\r\n" + EMPTY),
    ("chunk size before a space", Body(400), CHUNKED + b"5 \r\nhello\r\n" + EMPTY),
    ("chunk size with an underscore", Body(400), CHUNKED + b"1_0\r\nhellohellohelloh\r\n" + EMPTY),
    ("chunk size beyond 64 bits", Body(400), CHUNKED + b"10000000000000005\r\nhello\r\n" + EMPTY),
    ("chunk size behind many zeros", Body(400), CHUNKED + b"0" * 100 + b"5\r\nhello\r\n" + EMPTY),
    ("chunk size ended by LF", Body(400), CHUNKED + b"5\nhello\r\n" + EMPTY),
    ("chunk size ended by CR", Body(400), CHUNKED + b"5\rhello\r\n" + EMPTY),
    ("chunk size ended by CR CR LF", Body(400), CHUNKED + b"5\r\r\nhello\r\n" + EMPTY),
    ("chunk extension ended by LF", Body(400), CHUNKED + b"5;a\nhello\r\n" + EMPTY),
    ("chunk extension with CR", Body(400), CHUNKED + b"5;a\rb\r\nhello\r\n" + EMPTY),
    ("chunk extension with NUL", Body(400), CHUNKED + b"5;\0\r\nhello\r\n" + EMPTY),
    ("chunk extension of 10 KiB", Body(400), CHUNKED + b"5;" + b"a" * 10240 + b"\r\nhello\r\n" + EMPTY),
    ("chunk data longer than its size", Body(400), CHUNKED + b"4\r\nhello\r\n" + EMPTY),
    ("chunk data ended by LF", Body(400), CHUNKED + b"5\r\nhello\n" + EMPTY),
    ("chunk data ended by other bytes", Body(400), CHUNKED + b"5\r\nhelloXX" + EMPTY),
    ("last chunk ended by LF", Body(400), CHUNKED + b"0\n\n"),
    ("trailer ended by LF", Body(400), CHUNKED + b"0\r\nA: b\n\r\n"),
    ("trailer without a colon", Body(400), CHUNKED + b"0\r\nhello\r\n\r\n"),
    ("trailer without a name", Body(400), CHUNKED + b"0\r\n: b\r\n\r\n"),
    ("trailer with space before the colon", Body(400), CHUNKED + b"0\r\nA : b\r\n\r\n"),
    ("trailer folded", Body(400), CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer with NUL", Body(400), CHUNKED + b"0\r\nA: \0\r\n\r\n"),
    ("trailers of 100 KiB", Body(400), CHUNKED + b"0\r\n" + b"A: 0123456789\r\n" * 7000 + b"\r\n"),
    ("a request line as a trailer", Body(400), CHUNKED + b"0\r\n" + HIDDEN),
    ("a chunk size in other digits", Body(400), CHUNKED + "\u0665\r\nhello\r\n".encode() + EMPTY),
    ("a chunk size behind a vertical tab", Body(400), CHUNKED + b"\x0b5\r\nhello\r\n" + EMPTY),
    ("a chunk size with a tab behind it", Body(400), CHUNKED + b"5\t\r\nhello\r\n" + EMPTY),
    ("a chunk size with a comma", Body(400), CHUNKED + b"5,5\r\nhello\r\n" + EMPTY),
    ("a chunk extension with a quote that stays open", Passes(b"hello"), CHUNKED + b'5;a="b\r\nhello\r\n' + EMPTY),
    ("an empty line before a chunk", Body(400), CHUNKED + b"5\r\nhello\r\n\r\n" + EMPTY),
    ("data behind the last chunk's size", Body(400), CHUNKED + b"0hello\r\n\r\n"),
    ("a last chunk of many zeros and an extension", Passes(b""), CHUNKED + b"00000;a=b\r\n\r\n"),
    ("trailers that would authorize are kept apart", Passes(b""), CHUNKED + b"0\r\nA: b\r\n\r\n"),
    ("trailers that frame are dropped", Passes(b""), CHUNKED + b"0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nHost: evil\r\nA: b\r\n\r\n"),
]

LINES = [
    ("lines ended by LF", 400, b"GET /row HTTP/1.1\nHost: echo\n\n"),
    ("the first line ended by LF", 400, b"GET /row HTTP/1.1\nHost: echo\r\n\r\n"),
    ("the empty line ended by LF", 400, GET + b"\n"),
    ("a line ended by CR CR LF", 400, GET + b"X: y\r\r\n\r\n"),
    ("a line ended by CR", 400, GET + b"X: y\rZ: a\r\n\r\n"),
    ("a CR in the first line", 400, b"GET /row\r HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("NUL in a value", 400, GET + b"X: a\0b\r\n\r\n"),
    ("NUL in a name", 400, GET + b"X\0: a\r\n\r\n"),
    ("DEL in a value", 400, GET + b"X: a\x7fb\r\n\r\n"),
    ("ESC in a value", 400, GET + b"X: a\x1b[2Jb\r\n\r\n"),
    ("a byte above ASCII in a name", 400, GET + b"X\xe4: a\r\n\r\n"),
    ("bytes above ASCII in a value pass", Passes(b""), GET + "X: ä€\r\n\r\n".encode()),
    ("a space in a name", 400, GET + b"X Y: a\r\n\r\n"),
    ("a space before a colon", 400, GET + b"X : a\r\n\r\n"),
    ("a line without a colon", 400, GET + b"hello\r\n\r\n"),
    ("a line without a name", 400, GET + b": a\r\n\r\n"),
    ("a folded line", 400, GET + b"X: a\r\n b\r\n\r\n"),
    ("a line folded by a tab", 400, GET + b"X: a\r\n\tb\r\n\r\n"),
    ("a space before the first field", 400, b"GET /row HTTP/1.1\r\n X: a\r\nHost: echo\r\n\r\n"),
    ("a parenthesis in a name", 400, GET + b"X(): a\r\n\r\n"),
    ("an empty line before the request passes", Passes(b""), b"\r\n" + GET + b"\r\n"),
    ("a bare LF before the request", 400, b"\n" + GET + b"\r\n"),
    ("a space before the request", 400, b" " + GET + b"\r\n"),
]

FIRST_LINES = [
    ("no method", 400, b" /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a method with a brace", 400, b"GE{T /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a method with a NUL", 400, b"GET\0 /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a method of 200 letters", 400, b"G" * 200 + b" /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a colon after the method", 400, b"GET: /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("no version", 400, b"GET /row\r\nHost: echo\r\n\r\n"),
    ("version in small letters", 400, b"GET /row http/1.1\r\nHost: echo\r\n\r\n"),
    ("version of two digits", 400, b"GET /row HTTP/1.10\r\nHost: echo\r\n\r\n"),
    ("version with a space behind", 400, b"GET /row HTTP/1.1 \r\nHost: echo\r\n\r\n"),
    ("version 1.2", 505, b"GET /row HTTP/1.2\r\nHost: echo\r\n\r\n"),
    ("version 0.9", 505, b"GET /row HTTP/0.9\r\nHost: echo\r\n\r\n"),
    ("version 2.0", 505, b"GET /row HTTP/2.0\r\nHost: echo\r\n\r\n"),
    ("a space in the target", 400, b"GET /row /b HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("two spaces before the target", 400, b"GET  /row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("tabs for spaces", 400, b"GET\t/row\tHTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a form feed for a space", 400, b"GET\x0c/row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("no target", 400, b"GET HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a target without a slash", 400, b"GET row HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a target with a fragment", 400, b"GET /row#part HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a target above ASCII", 400, "GET /rö HTTP/1.1\r\nHost: echo\r\n\r\n".encode()),
    ("a target with a control character", 400, b"GET /r\x01 HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a star that is not for OPTIONS", 400, b"GET * HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a target of another scheme", 400, b"GET ftp://echo/ HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("a target with a user", 400, b"GET http://echo@evil/ HTTP/1.1\r\nHost: evil\r\n\r\n"),
    ("a target that contradicts Host", 400, b"GET http://evil/ HTTP/1.1\r\nHost: echo\r\n\r\n"),
    ("the preface of HTTP/2 after a request", Passes(b"", then=505), GET + b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a CONNECT with a body", 400, b"CONNECT echo:80 HTTP/1.1\r\nHost: echo:80\r\nContent-Length: 5\r\n\r\nhello"),
]

HOSTS = [
    ("no Host", 400, b"GET /row HTTP/1.1\r\n\r\n"),
    ("Host twice, equal", 400, GET + b"Host: echo\r\n\r\n"),
    ("Host twice, different", 400, GET + b"host: evil\r\n\r\n"),
    ("Host with a space", 400, b"GET /row HTTP/1.1\r\nHost: echo evil\r\n\r\n"),
    ("Host with a slash", 400, b"GET /row HTTP/1.1\r\nHost: echo/evil\r\n\r\n"),
    ("Host with a user", 400, b"GET /row HTTP/1.1\r\nHost: user@echo\r\n\r\n"),
    ("Host as a list", 400, b"GET /row HTTP/1.1\r\nHost: echo, evil\r\n\r\n"),
    ("Host with a port that is none", 400, b"GET /row HTTP/1.1\r\nHost: echo:http\r\n\r\n"),
    ("Host with a port too large", 400, b"GET /row HTTP/1.1\r\nHost: echo:99999\r\n\r\n"),
    ("Host above ASCII", 400, "GET /row HTTP/1.1\r\nHost: echö\r\n\r\n".encode()),
    ("Connection that names Content-Length", 400, POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"),
    ("Connection that names Transfer-Encoding", 400, POST + b"Connection: close, transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + EMPTY),
    ("Connection that names Host", 400, GET + b"Connection: Host\r\n\r\n"),
]

ROWS = LENGTHS + CODINGS + CHUNKS + LINES + FIRST_LINES + HOSTS


def run(env, row):
    _, want, data = row
    for send in (wire.Client.send, wire.Client.dribble):
        env.apps.recorder.reset()
        with wire.Client(env.addresses["echo"]) as client:
            send(client, data if isinstance(want, Passes) else data + FOLLOWED_BY)
            if isinstance(want, Passes):
                check_passed(env, client, want)
            else:
                check_refused(client, want.status if isinstance(want, Body) else want)
        was_begun = isinstance(want, Body) and send is wire.Client.dribble
        if not isinstance(want, Passes):
            check_unseen(env, was_begun)


def check_refused(client, status):
    response = client.response()
    equal((response.status, response.field("connection")), (status, "close"))
    assert client.is_closed(), f"there is more: {client.buffer!r}"


def check_unseen(env, was_begun):
    """The app sees a good request of another client, well-formed, and nothing of the refused one."""
    recorder = env.apps.recorder
    with wire.Client(env.addresses["echo"]) as client:
        equal(client.get("/after").status, 200)
    with recorder.lock:
        equal(recorder.malformed, [], "what the app found malformed")
        equal([request.target for request in recorder.requests], ["/after"], "what the app was asked")
        assert b"smuggled" not in recorder.bytes and b"hidden" not in recorder.bytes, recorder.bytes
        assert was_begun or recorder.bytes.startswith(b"GET /after "), f"bytes of it reached the app: {recorder.bytes!r}"


def check_passed(env, client, want):
    for _ in want.bodies:
        equal(client.response().status, 200)
    if want.then:
        check_refused(client, want.then)
    recorder = env.apps.recorder
    with recorder.lock:
        equal(recorder.malformed, [], "what the app found malformed")
        equal([request.body for request in recorder.requests], want.bodies, "bodies at the app")
        equal({request.target for request in recorder.requests}, {"/row"})
        names = {name.lower() for request in recorder.requests for name, _ in request.trailers}
        assert names <= {"a"}, f"trailers at the app: {names}"


table("smuggling", ROWS, run)
