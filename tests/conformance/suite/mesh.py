"""The proxies under test, and the servers behind them."""

import json
import os
import pathlib
import re
import socket
import subprocess
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
        from . import http2_backend, opaque, rpc, upstream, upstream2, websocket
        self.recorder = backend.Recorder()
        self.scripted = backend.Scripted(upstream.SCRIPTS)
        self.scripted2 = upstream2.Scripted()
        self.http2 = http2_backend.Recorder()
        self.grpc = rpc.serve()
        self.websocket = rpc.serve_websocket()
        self.websocket1, self.websocket2 = websocket.OverHttp1(), websocket.OverHttp2()
        self.talker, self.greeter, self.secure = opaque.Talker(), opaque.Greeter(), opaque.Secure(folder)
        self.nginx = Nginx(folder)
        self.down = ("127.0.0.1", free_port())

    def services(self):
        """Name, protocol, addresses and time limit of every service."""
        yield "echo", "http", [self.recorder.address], None
        yield "slow", "http", [self.recorder.address], 1
        yield "any", "detect", [self.recorder.address], None
        yield "scripted", "http", [self.scripted.address], None
        yield "scripted2", "http2", [self.scripted2.address], None
        yield "down", "http", [self.down], None
        yield "none", "http", [], None
        yield "http2", "http2", [self.http2.address], None
        yield "grpc", "grpc", [self.grpc], None
        yield "websocket", "http", [self.websocket], None
        yield "websocket1", "http", [self.websocket1.address], None
        yield "websocket2", "http2", [self.websocket2.address], None
        yield "tcp", "tcp", [self.talker.address], None
        yield "tcp-down", "tcp", [self.down], None
        yield "any-tcp", "detect", [self.talker.address], None
        yield "greeter", "tcp", [self.greeter.address], None
        yield "any-greeter", "detect", [self.greeter.address], None
        yield "tls", "tls", [self.secure.address], None
        yield "any-tls", "detect", [self.secure.address], None
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


class Mesh:
    """A process with the proxies under test, and the addresses of services that lead through them."""

    skipped = ()

    def start(self, command, environment, folder):
        self.log_path = folder / f"{self.name.replace(' ', '-')}.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, env=environment | {"RUST_BACKTRACE": "1"}, stdout=log, stderr=log)

    def wait_until(self, what, is_so):
        end = time.monotonic() + 30
        while not is_so():
            assert self.alive() and time.monotonic() < end, f"{self.name}: never {what}\n{self.log_tail()}"
            time.sleep(0.05)

    def alive(self):
        return self.process.poll() is None

    def log_tail(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def memory_peak(self):
        """Most resident bytes since `forget_memory_peak`."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def cpu_seconds(self):
        """Processor time used so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split(" ")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_memory_peak(self):
        """Begins the measure anew; returns what is resident now."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory_peak()


class Proxy(Mesh):
    """One `leno-proxy` on the way out; its controller is this program."""

    name = "one proxy"
    skipped = ("explicit", "h2load", "traces")

    def __init__(self, binary, folder, apps):
        self.apps, self.addresses = apps, {}
        self.control = control.Control(folder, "shop/client")
        for name, protocol, addresses, timeout in apps.services():
            self.control.add(f"shop/{name}", PORT, protocol, addresses, timeout)
            self.addresses[name] = ("127.0.0.1", free_port())
        self.admin = ("127.0.0.1", free_port())
        services = ",".join(f"shop/{name}:{PORT}={host}:{port}" for name, (host, port) in self.addresses.items())
        self.start([binary, "run"], {
            "LENO_POD_NAMESPACE": "shop", "LENO_POD_NAME": "client", "LENO_INTERCEPT": "off", "LENO_SERVICES": services,
            "LENO_CONTROL_ADDRESS": f"127.0.0.1:{self.control.port}", "LENO_CONTROL_CA_FILE": str(self.control.ca),
            "LENO_ADMIN_ADDRESS": "%s:%d" % self.admin, "LENO_ACCESS_LOG": "all", "LENO_DRAIN_SECONDS": "5", "LENO_PROXY_WORKERS": "2",
        }, folder)
        self.wait_until("ready", self.is_ready)

    def is_ready(self):
        try:
            with urllib.request.urlopen(url(self.admin, "/ready"), timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def open_connections(self):
        """Connections from clients that the proxy has open."""
        return self.metric("leno_connections_open")

    def metric(self, name, *labels):
        """The sum of the series of this name whose labels hold all of `labels`."""
        with urllib.request.urlopen(url(self.admin, "/metrics"), timeout=5) as page:
            lines = page.read().decode().splitlines()
        wanted = [line for line in lines if re.match(rf"{name}[ {{]", line) and all(label in line for label in labels)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


class Up(Mesh):
    """`leno up`: every request passes a proxy on the way out and the sidecar of its app on the way in."""

    name = "leno up"

    def __init__(self, binary, folder, apps, *flags):
        self.binary, self.apps = binary, apps
        manifests, state = folder / "manifests", folder / "state.json"
        manifests.mkdir()
        (manifests / "all.yaml").write_text("---\n".join(self.manifests()))
        self.start([binary, "up", "-f", str(manifests), "--state", str(state), "--plain", "--drain-seconds", "5", *flags], {}, folder)
        self.wait_until("running", state.exists)
        found = json.loads(state.read_text())
        address = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
        self.addresses = {name.split("/")[1]: address(ports[str(PORT)]) for name, ports in found["services"].items()}
        self.outbound = address(found["workloads"]["shop/client"]["outbound"])

    def manifests(self):
        def manifest(kind, name, spec, version="leno.dev/v1alpha1", labels=None):
            metadata = {"name": name, "namespace": "shop"} | ({"labels": labels} if labels else {})
            return json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}) + "\n"
        yield manifest("Workload", "client", {})
        for name, protocol, addresses, timeout in self.apps.services():
            target = addresses[0][1] if addresses else 1
            yield manifest("Service", name, {"selector": {"app": name}, "ports": [{"port": PORT, "targetPort": target}]}, "v1")
            for host, port in addresses:
                yield manifest("Workload", f"{name}-1", {"address": host, "ports": [{"port": port}]}, labels={"app": name})
            if protocol != "detect":
                yield manifest("MeshService", name, {"ports": [{"port": PORT, "protocol": protocol.upper()}]})
            if timeout:
                yield manifest("TrafficPolicy", name, {"targetRef": {"kind": "Service", "name": name}, "timeout": f"{timeout}s"})

    def metric(self, _name, *_labels):
        """There is a page for each proxy, and none for all."""
        return None

    def open_connections(self):
        """Not counted: connections between proxies rest between requests."""
        return 0


def url(address, path="/"):
    return "http://%s:%d%s" % (*address, path)
