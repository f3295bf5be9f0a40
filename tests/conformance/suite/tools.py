"""Clients that everybody has: curl, nghttp, h2load."""

import json
import re
import subprocess

from .check import case, equal
from .mesh import url


def tool(*arguments, stdin=None):
    done = subprocess.run([str(argument) for argument in arguments], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))[:200]}: exit {done.returncode}\n{done.stdout[-800:]!r}\n{done.stderr[-800:]!r}"
    return done


def curl(*arguments, stdin=None):
    return tool("curl", "-sS", "--max-time", 30, *arguments, stdin=stdin).stdout


@case("curl")
def one_connection_serves_several_requests(env):
    address = url(env.addresses["echo"])
    out = curl("-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null", address, "-o", "/dev/null", address, "-o", "/dev/null", address)
    equal(out.decode().split(), ["1", "200", "0", "200", "0", "200"])


@case("curl")
def an_upload_that_expects_100_continue_passes(env):
    body = b"x" * 3_000_000
    done = tool("curl", "-sSv", "-H", "Expect: 100-continue", "--data-binary", "@-", url(env.addresses["echo"], "/up"), stdin=body)
    equal(json.loads(done.stdout)["length"], len(body))
    assert b"HTTP/1.1 100 Continue" in done.stderr, done.stderr


@case("curl")
def a_chunked_upload_passes(env):
    got = json.loads(curl("-T", "-", "-H", "Expect:", url(env.addresses["echo"], "/up"), stdin=b"y" * 500_000))
    equal((got["first"], got["length"]), ("PUT /up HTTP/1.1", 500_000))


@case("curl")
def head_and_http_1_0_are_served(env):
    assert b"200 OK" in curl("-I", url(env.addresses["files"], "/small"))
    equal(len(curl("--http1.0", url(env.addresses["files"], "/small"))), 1024)


@case("curl")
def ranges_and_conditions_are_the_apps_business(env):
    address = url(env.addresses["files"], "/large")
    equal(len(curl("-r", "100-199", address)), 100)
    etag = re.search(rb"ETag: (\S+)", curl("-I", address)).group(1).decode()
    equal(curl("-w", "%{http_code}", "-H", f"If-None-Match: {etag}", address), b"304")


@case("curl")
def an_upgrade_to_http_2_is_not_made_and_not_needed(env):
    equal(curl("--http2", "-w", "%{http_version}", "-o", "/dev/null", url(env.addresses["files"], "/small")), b"1.1")


@case("curl")
def http_2_with_prior_knowledge_downloads_and_uploads(env):
    address = url(env.addresses["files2"], "/large")
    equal(curl("--http2-prior-knowledge", "-w", "%{http_version} %{size_download}", "-o", "/dev/null", address), b"2 4194304")
    got = json.loads(curl("--http2-prior-knowledge", "--data-binary", "@-", url(env.addresses["http2"], "/up"), stdin=b"z" * 1_000_000))
    equal(got["length"], 1_000_000)


@case("nghttp")
def several_requests_share_a_connection(env):
    address = url(env.addresses["files2"], "/small")
    out = tool("nghttp", "-nv", "--no-dep", "-m", 3, address).stdout.decode()
    equal(len(re.findall(r":status: 200", out)), 3)


@case("nghttp")
def an_upload_with_trailers_passes(env):
    out = tool("nghttp", "-d", __file__, "--trailer", "x-sum: 7", url(env.addresses["http2"], "/up")).stdout
    equal(json.loads(out)["trailers"], [["x-sum", "7"]])


def load(*arguments):
    out = tool("h2load", *arguments).stdout.decode()
    done = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    total, succeeded, *bad = map(int, done.groups())
    equal((succeeded, bad), (total, [0, 0, 0]), out)


@case("h2load")
def twenty_thousand_requests_over_http_2_all_succeed(env):
    load("-n", 20000, "-c", 10, "-m", 20, url(env.addresses["files2"], "/small"))


@case("h2load")
def twenty_thousand_requests_over_http_1_all_succeed(env):
    load("--h1", "-n", 20000, "-c", 20, url(env.addresses["files"], "/small"))


@case("h2load")
def pipelined_requests_over_http_1_all_succeed(env):
    load("--h1", "-n", 5000, "-c", 10, "-m", 10, url(env.addresses["files"], "/small"))


@case("h2load")
def large_downloads_at_once_all_succeed(env):
    load("-n", 60, "-c", 4, "-m", 5, "-w", 20, "-W", 24, url(env.addresses["files2"], "/large"))
