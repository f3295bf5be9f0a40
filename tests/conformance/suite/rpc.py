"""gRPC and WebSocket by other people's implementations, on both sides of the proxy."""

import concurrent.futures
import threading

import grpc
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from .check import case, equal
from .mesh import url


class Echo(grpc.GenericRpcHandler):
    """One method per kind of call; messages are plain bytes."""

    def service(self, details):
        return {
            "/echo/unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/echo/down": grpc.unary_stream_rpc_method_handler(lambda request, _: (b"%d" % n for n in range(int(request)))),
            "/echo/up": grpc.stream_unary_rpc_method_handler(lambda requests, _: b"%d" % sum(len(part) for part in requests)),
            "/echo/both": grpc.stream_stream_rpc_method_handler(lambda requests, _: (part.upper() for part in requests)),
            "/echo/fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/echo/sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
        }.get(details.method)

    @staticmethod
    def unary(request, context):
        sent = dict(context.invocation_metadata())
        context.set_trailing_metadata([("x-seen", sent.get("x-sent", "nothing")), ("x-forwarded-for-seen", sent.get("x-forwarded-for", "nothing"))])
        return request

    @staticmethod
    def fail(request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    @staticmethod
    def sleep(_request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(20)
        return b""


def serve():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    serve.server = server  # a server that nobody holds stops
    return "127.0.0.1", port


def serve_websocket():
    def answer(connection):
        try:
            for message in connection:
                connection.send(message)
        except websockets.exceptions.ConnectionClosed:
            pass  # the client said goodbye with a code of its own
    server = websockets.sync.server.serve(answer, "127.0.0.1", 0, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()


def channel(env):
    return grpc.insecure_channel("%s:%d" % env.addresses["grpc"], options=[("grpc.use_local_subchannel_pool", 1)])


@case("gRPC")
def unary_calls_pass_with_metadata_both_ways(env):
    with channel(env) as calls:
        unary = calls.unary_unary("/echo/unary")
        for size in (0, 1, 100_000, 3_000_000):
            reply, call = unary.with_call(b"x" * size, metadata=[("x-sent", "here")], timeout=10)
            equal(len(reply), size)
            equal(dict(call.trailing_metadata())["x-seen"], "here")


@case("gRPC")
def an_error_comes_with_its_status_and_words(env):
    with channel(env) as calls:
        try:
            calls.unary_unary("/echo/fail")(b"not now, ready?", timeout=10)
        except grpc.RpcError as error:
            equal((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "not now, ready?"))
        else:
            raise AssertionError("no error came")


@case("gRPC")
def streams_pass_up_down_and_both_ways_at_once(env):
    with channel(env) as calls:
        equal([int(part) for part in calls.unary_stream("/echo/down")(b"2000", timeout=10)], list(range(2000)))
        equal(calls.stream_unary("/echo/up")((b"x" * 1000 for _ in range(2000)), timeout=10), b"2000000")
        said = iter("abc")
        heard = []
        def talk():
            for letter in said:
                yield letter.encode()
                while len(heard) < ord(letter) - ord("a") + 1:
                    if not lock.wait(10):
                        return
                    lock.clear()
        lock = threading.Event()
        for part in calls.stream_stream("/echo/both")(talk(), timeout=10):
            heard.append(part)
            lock.set()
        equal(heard, [b"A", b"B", b"C"], "each answer came before the next message was sent")


@case("gRPC")
def a_deadline_of_the_client_ends_the_call_at_the_app(env):
    with channel(env) as calls:
        try:
            calls.unary_unary("/echo/sleep")(b"", timeout=0.3)
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        equal(calls.unary_unary("/echo/unary")(b"after", timeout=10), b"after")


@case("gRPC")
def many_calls_at_once_share_a_connection(env):
    with channel(env) as calls:
        unary = calls.unary_unary("/echo/unary")
        futures = [unary.future(b"%d" % number, timeout=20) for number in range(300)]
        equal([int(future.result()) for future in futures], list(range(300)))


@case("WebSocket")
def messages_of_all_sizes_come_back(env):
    with websockets.sync.client.connect(url(env.addresses["websocket"]).replace("http", "ws"), max_size=None) as connection:
        for message in ("", "text", "ä" * 70_000, b"\0\xff" * 500_000):
            connection.send(message)
            equal(connection.recv(timeout=10) == message, True, "the same message")
        connection.ping().wait(5)


@case("WebSocket")
def a_close_passes_with_its_code(env):
    with websockets.sync.client.connect(url(env.addresses["websocket"]).replace("http", "ws")) as connection:
        connection.close(4001, "done here")
        equal((connection.close_code, connection.close_reason), (4001, "done here"))
