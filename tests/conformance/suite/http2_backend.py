"""An HTTP/2 server (prior knowledge) that records what it is asked and answers with what it saw. It reads strictly: what the
`h2` package takes for malformed is recorded as such."""

import json
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from .backend import Server


class Stream:
    def __init__(self, headers):
        self.headers, self.length, self.trailers = headers, 0, []
        self.path = dict(headers).get(":path")


class Recorder(Server):
    def __init__(self):
        self.lock = threading.Lock()
        self.reset()
        super().__init__()

    def reset(self):
        """Forgets what was recorded."""
        with self.lock:
            self.begun, self.requests, self.malformed, self.resets = [], [], [], []

    def serve(self, sock):
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        connection = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        connection.local_settings = h2.settings.Settings(client=False, initial_values={
            codes.INITIAL_WINDOW_SIZE: 1 << 20, codes.MAX_CONCURRENT_STREAMS: 200, codes.MAX_HEADER_LIST_SIZE: 1 << 17})
        connection.initiate_connection()
        connection.increment_flow_control_window(1 << 24)
        sock.sendall(connection.data_to_send())
        streams, waiting = {}, {}
        while data := sock.recv(1 << 18):
            try:
                events = connection.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                with self.lock:
                    self.malformed.append(f"{type(error).__name__}: {error}")
                sock.sendall(connection.data_to_send())
                return
            for event in events:
                self.take(connection, event, streams, waiting)
            self.flush(connection, waiting)
            sock.sendall(connection.data_to_send())

    def take(self, connection, event, streams, waiting):
        match event:
            case h2.events.RequestReceived():
                streams[event.stream_id] = Stream(event.headers)
                with self.lock:
                    self.begun.append(streams[event.stream_id].path)
            case h2.events.DataReceived():
                stream = streams.get(event.stream_id)
                if stream:
                    stream.length += len(event.data)
                if stream and not stream.path.startswith("/stall"):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                streams[event.stream_id].trailers = event.headers
            case h2.events.StreamReset():
                stream = streams.pop(event.stream_id, None)
                waiting.pop(event.stream_id, None)
                with self.lock:
                    self.resets.append(stream and stream.path)
            case h2.events.StreamEnded():
                stream = streams[event.stream_id]
                with self.lock:
                    self.requests.append(stream)
                try:
                    self.answer(connection, event.stream_id, stream, waiting)
                except (h2.exceptions.StreamClosedError, h2.exceptions.StreamIDTooLowError):
                    pass  # its reset was read together with it

    def answer(self, connection, number, stream, waiting):
        asked = dict(stream.headers)
        path, _, argument = stream.path.lstrip("/").partition("/")
        if path == "never":
            return
        if path == "bytes":
            body = bytes(int(argument))
        else:
            body = json.dumps({"headers": stream.headers, "length": stream.length, "trailers": stream.trailers}).encode()
        connection.send_headers(number, [(":status", "200"), ("x-app", "kept"), ("content-length", str(len(body)))], asked[":method"] == "HEAD")
        if asked[":method"] != "HEAD":
            waiting[number] = [body, path == "trailers"]

    @staticmethod
    def flush(connection, waiting):
        """Sends what the windows allow."""
        for number, item in list(waiting.items()):
            body, has_trailers = item
            try:
                while body and (room := min(connection.local_flow_control_window(number), connection.max_outbound_frame_size, len(body))):
                    connection.send_data(number, body[:room])
                    body = body[room:]
                item[0] = body
                if not body:
                    del waiting[number]
                    if has_trailers:
                        connection.send_headers(number, [("x-sum", "7"), ("grpc-status", "0")], end_stream=True)
                    else:
                        connection.end_stream(number)
            except h2.exceptions.StreamClosedError:
                waiting.pop(number, None)
