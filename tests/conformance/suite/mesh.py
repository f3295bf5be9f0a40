"""The proxies under test, and the servers behind them."""

import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from . import backend, control

PORT = 80


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class Apps:
    """The servers that the services stand for."""

    def __init__(self, folder):
        from . import http2_backend, rpc, upstream
        self.recorder = backend.Recorder()
        self.scripted = backend.Scripted(upstream.SCRIPTS)
        self.http2 = http2_backend.Recorder()
        self.grpc = rpc.serve()
        self.websocket = rpc.serve_websocket()
        self.nginx = Nginx(folder)
        self.down = ("127.0.0.1", free_port())

    def services(self):
        """Name, protocol, addresses and time limit of every service."""
        yield "echo", "http", [self.recorder.address], None
        yield "slow", "http", [self.recorder.address], 1
        yield "any", "detect", [self.recorder.address], None
        yield "scripted", "http", [self.scripted.address], None
        yield "down", "http", [self.down], None
        yield "none", "http", [], None
        yield "http2", "http2", [self.http2.address], None
        yield "grpc", "grpc", [self.grpc], None
        yield "websocket", "http", [self.websocket], None
        yield "files", "http", [self.nginx.http1], None
        yield "files2", "http2", [self.nginx.http2], None


class Nginx:
    """A server nobody here wrote, for clients nobody here wrote."""

    def __init__(self, folder):
        self.http1, self.http2 = (("127.0.0.1", free_port()) for _ in range(2))
        (folder / "www").mkdir()
        (folder / "www" / "small").write_bytes(b"x" * 1024)
        (folder / "www" / "large").write_bytes(backend.BLOCK * 64)
        log = folder / "nginx.log"
        config = folder / "nginx.conf"
        config.write_text(f"""
            daemon off; master_process off; pid {folder}/nginx.pid; error_log {log} warn;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; keepalive_requests 1000000; root {folder}/www; client_body_temp_path {folder}/body;
              proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
              server {{ listen 127.0.0.1:{self.http1[1]}; }}
              server {{ listen 127.0.0.1:{self.http2[1]} http2; }}
            }}""")
        path = os.environ["PATH"] + ":/usr/sbin"
        self.process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(log)], env={"PATH": path})


class Proxy:
    """One `leno-proxy`, with the addresses of services that it carries to; its controller is this program."""

    name = "one proxy"

    def __init__(self, binary, folder, apps):
        self.apps, self.log_path = apps, folder / "proxy.log"
        self.control = control.Control(folder, "shop/client")
        self.addresses = {}
        for name, protocol, addresses, timeout in apps.services():
            self.control.add(f"shop/{name}", PORT, protocol, addresses, timeout)
            self.addresses[name] = ("127.0.0.1", free_port())
        self.admin = ("127.0.0.1", free_port())
        services = ",".join(f"shop/{name}:{PORT}={host}:{port}" for name, (host, port) in self.addresses.items())
        environment = {
            "LENO_POD_NAMESPACE": "shop", "LENO_POD_NAME": "client", "LENO_INTERCEPT": "off", "LENO_SERVICES": services,
            "LENO_CONTROL_ADDRESS": f"127.0.0.1:{self.control.port}", "LENO_CONTROL_CA_FILE": str(self.control.ca),
            "LENO_ADMIN_ADDRESS": "%s:%d" % self.admin, "LENO_ACCESS_LOG": "all", "LENO_DRAIN_SECONDS": "5", "RUST_BACKTRACE": "1",
        }
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([binary, "run"], env=environment, stdout=log, stderr=log)
        self.wait_until_ready()

    def wait_until_ready(self):
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen("http://%s:%d/ready" % self.admin, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            assert self.alive() and time.monotonic() < end, "the proxy does not become ready:\n" + self.log_tail()
            time.sleep(0.05)

    def alive(self):
        return self.process.poll() is None

    def open_connections(self):
        """Connections from clients that the proxy has open."""
        with urllib.request.urlopen(url(self.admin, "/metrics"), timeout=5) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("leno_connections_open{"))

    def log_tail(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def memory_peak(self):
        """Most resident bytes since [`forget_memory_peak`]."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def forget_memory_peak(self):
        """Begins the measure anew; returns what is resident now."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory_peak()

    def stop(self):
        """Ends it politely; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def url(address, path="/"):
    return "http://%s:%d%s" % (*address, path)
