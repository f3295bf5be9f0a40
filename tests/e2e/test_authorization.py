"""SecurityPolicy: who may call what, decided by the server's sidecar, named in its log and never in the answer."""

import json
import time
from urllib.parse import quote

import pytest

import apps
from cluster import ROOT, helm, until

POST_ONLY = {"from": [{"serviceAccount": "orders"}], "methods": ["POST"]}


def APPS():
    accounts = [apps.service_account(name) for name in ("orders", "web", "payment", "issuer")]
    server = apps.container("server", "-name", "payment", readinessProbe=apps.HTTP_PROBE)
    grpc = apps.container("grpc-server", name="grpc", readinessProbe=apps.tcp_probe(9000))
    tcp = apps.container("tcp-server-first", name="tcp", readinessProbe=apps.tcp_probe(7000))
    payment = apps.workload("Deployment", "payment", server, grpc, tcp)
    payment["spec"]["template"]["spec"]["serviceAccountName"] = "payment"
    issuer = apps.workload("Deployment", "issuer", apps.container("issuer", readinessProbe=apps.HTTP_PROBE))
    tcp_port = {"port": 7000, "targetPort": 7000, "appProtocol": "tcp"}
    return [
        *accounts,
        payment,
        apps.service("payment", (80, 8080), (9000, 9000), tcp_port),
        issuer,
        apps.service("issuer"),
        *(apps.client(name, serviceAccountName=name) for name in ("orders", "web")),
        apps.client("outsider", annotations=apps.NO_INJECT),
    ]


@pytest.fixture
def policy(shop):
    """Puts policies in force for one test, and waits until the proxies have them."""
    made = []

    def put_in_force(*policies):
        for one in policies:
            shop.create(one)
            made.append(one["metadata"]["name"])
        for name in made:
            shop.await_condition("SecurityPolicy", name, Accepted="True", ResolvedRefs="True", Programmed="True")

    yield put_in_force
    for name in made:
        shop.delete("SecurityPolicy", name)
    until("without policies everybody is served", lambda: status(shop, "web") == 200)


def status(shop, pod, path="/", *flags, service="payment"):
    """The status that one request gets; 0 for none."""
    (code,) = shop.count(pod, "get", f"http://{service}{path}", *flags)["byStatus"] or {"0": 1}
    return int(code)


def denials(shop, policy):
    """How many requests the server's sidecar says it refused because of a policy."""
    return shop.metric(shop.pod_of("app=payment"), "leno_authorization_total", policy=f"{shop.name}/{policy}", decision="deny")


def test_only_what_a_rule_allows_passes_and_the_policy_is_told_to_the_operator_alone(shop, policy):
    policy(apps.security_policy("payment", POST_ONLY, target="payment"))
    before = shop.fetch("orders", "http://payment/", "-method", "POST")["served"]
    for pod, method, wanted in [("orders", "POST", 200), ("orders", "GET", 403), ("web", "POST", 403), ("web", "GET", 403), ("outsider", "POST", 403)]:
        for flags in ([], ["-h2"]):
            assert status(shop, pod, "/", "-method", method, *flags) == wanted, f"{method} from {pod} {flags}"
    assert shop.fetch("orders", "http://payment/", "-method", "POST")["served"] == before + 3, "the app saw nothing of the rest"
    request = "GET / HTTP/1.1\\r\\nHost: payment\\r\\nX-Request-Id: told-to-whom\\r\\nConnection: close\\r\\n\\r\\n"
    answer = shop.dial("web", "payment:80", "-send", request)[0]["received"]
    assert answer.startswith("HTTP/1.1 403 ") and answer.endswith("access denied\n"), answer
    assert "payment" not in answer.lower() and "polic" not in answer.lower(), f"the answer tells too much: {answer}"
    pod = shop.pod_of("app=payment")
    line = until("the server's log has it", lambda: shop.access_log(pod, direction="inbound", request_id="told-to-whom"))[0]
    assert (line["reason"], line["policy"], line["status"]) == ("denied", f"{shop.name}/payment", 403), line
    assert line["source_identity"] == f"spiffe://cluster.local/ns/{shop.name}/sa/web", line
    assert denials(shop, "payment") >= 9


def test_a_policy_holds_for_connections_that_are_already_open(shop, policy):
    calls = shop.start_app("web", "load", "http://payment/", "-rate", "50", "-stdin", "-c", "1")
    try:
        until("the calls arrive", lambda: shop.fetch("web", "http://payment/")["served"] > 20)
        policy(apps.security_policy("payment", POST_ONLY, target="payment"))
        assert status(shop, "web") == 403
        time.sleep(0.5)
    finally:
        counts = json.loads(calls.communicate("", timeout=30)[0])
    assert set(counts["byStatus"]) == {"200", "403"} and counts["failed"] == 0, counts


def test_deny_is_judged_first_and_policies_add_up(shop, policy):
    policy(
        apps.security_policy("everybody", {"from": [{"namespace": shop.name}]}),
        apps.security_policy("not-web", {"from": [{"serviceAccount": f"{shop.name}/web"}], "paths": ["/admin/*"]}, target="payment", action="Deny"),
        apps.security_policy("outside-too", {"from": [{"ipBlock": f"{shop.address('outsider')}/32"}], "paths": ["/open"]}, target="payment"),
    )
    for pod, path, wanted in [
        ("web", "/", 200),
        ("web", "/admin", 403),
        ("web", "/admin/x", 403),
        ("web", "/administrator", 200),
        ("orders", "/admin/x", 200),
        ("outsider", "/", 403),
        ("outsider", "/open", 200),
    ]:
        assert status(shop, pod, path) == wanted, f"{pod} {path}"


def test_grpc_is_told_permission_denied_and_tcp_is_closed(shop, policy):
    policy(apps.security_policy("orders-only", {"from": [{"serviceAccount": "orders"}]}, target="payment"))
    counts = json.loads(shop.app("web", "grpc-client", "payment:9000", check=False))
    assert counts["failed"] == counts["calls"] and all("PermissionDenied" in error for error in counts["errors"]), counts
    assert "orders-only" not in str(counts["errors"])
    assert shop.count("orders", "grpc-client", "payment:9000")["failed"] == 0
    met = shop.dial("web", "payment:7000", "-send", "hello\\n", "-timeout", "2s")[0]
    assert met["received"] == "" and "timeout" not in met["error"], f"closed at once, without a greeting: {met}"
    assert shop.count("orders", "tcp-client", "payment:7000")["failed"] == 0


def test_grpc_methods_are_paths(shop, policy):
    policy(apps.security_policy("no-fail", {"paths": ["/leno.test.Echo/Fail"]}, target="payment", action="Deny"))
    counts = json.loads(shop.app("web", "grpc-client", "payment:9000", check=False))
    assert counts["failed"] == 1 and counts["calls"] == 5, counts
    assert "fail: " in counts["errors"][0] and "PermissionDenied" in counts["errors"][0], counts


def test_a_streams_server_that_is_closed_to_it_later_keeps_the_stream(shop, policy):
    stream = shop.hold("web", "grpc-client", "payment:9000")
    try:
        policy(apps.security_policy("orders-only", {"from": [{"serviceAccount": "orders"}]}, target="payment"))
        assert "PermissionDenied" in str(json.loads(shop.app("web", "grpc-client", "payment:9000", check=False))["errors"])
    finally:
        counts = json.loads(stream.communicate("", timeout=30)[0])
    assert counts["failed"] == 0, f"what was allowed when it began goes on: {counts}"


def test_audit_blocks_nothing_and_counts(shop, policy):
    policy(apps.security_policy("trial", POST_ONLY, target="payment", action="Audit"))
    pod = shop.pod_of("app=payment")
    count = lambda: shop.metric(pod, "leno_authorization_total", decision="would-deny")  # noqa: E731
    before = count()
    assert status(shop, "web", "/", "-n", "5", "-H", "X-Request-Id: on-trial") == 200
    assert status(shop, "orders", "/", "-method", "POST") == 200
    until("five are counted", lambda: count() == before + 5)
    line = until("the log says so", lambda: shop.access_log(pod, direction="inbound", request_id="on-trial"))[0]
    assert line["would_deny"] == f"{shop.name}/trial", line


CLAIMS = {"iss": "https://issuer.example", "aud": "payment", "sub": "ann", "scope": "read write"}


def token(shop, algorithm="RS256", key="known", **claims):
    """A token as asked for; a claim of None is left out."""
    claims = {**CLAIMS, "exp": int(time.time()) + 600, **claims}
    text = quote(json.dumps({name: value for name, value in claims.items() if value is not None}))
    return shop.app("web", "get", f"http://issuer/token?alg={algorithm}&key={key}&claims={text}", "-print")


def with_token(text):
    return ["-H", f"Authorization: Bearer {text}"]


def takes_tokens(**keys):
    """A policy that takes the issuer's tokens, and wants the scope `read`."""
    issuer = {"issuer": CLAIMS["iss"], "audiences": ["payment"], **keys}
    return apps.security_policy("tokens", {"claims": {"scope": ["read"]}}, target="payment", jwt=[issuer])


def test_json_web_tokens_are_taken_when_they_are_good_and_refused_else(shop, policy):
    keys = shop.app("web", "get", "http://issuer/jwks", "-print")
    policy(takes_tokens(jwks=keys))
    now = int(time.time())
    good = token(shop)
    header, claims, signature = good.split(".")
    other = token(shop, sub="eve").split(".")
    for name, text, wanted in [
        ("RS256", good, 200),
        ("ES256", token(shop, "ES256"), 200),
        ("EdDSA", token(shop, "EdDSA"), 200),
        ("one audience of several", token(shop, aud=["other", "payment"]), 200),
        ("scope as a list", token(shop, scope=["read"]), 200),
        ("without the claim", token(shop, scope="write"), 403),
        ("a claim that begins alike", token(shop, scope="reader"), 403),
        ("wrong issuer", token(shop, iss="https://other.example"), 401),
        ("wrong audience", token(shop, aud="orders"), 401),
        ("no audience", token(shop, aud=None), 401),
        ("key of another", token(shop, key="other"), 401),
        ("none", token(shop, "none"), 401),
        ("HS256 with the public key for a secret", token(shop, "HS256"), 401),
        ("expired", token(shop, exp=now - 120), 401),
        ("never expires", token(shop, exp=None), 401),
        ("not yet", token(shop, nbf=now + 300), 401),
        ("another's claims", ".".join([header, other[1], signature]), 401),
        ("no signature", f"{header}.{claims}.", 401),
        ("no token at all", "x", 401),
    ]:
        assert status(shop, "web", "/", *with_token(text)) == wanted, name
    assert status(shop, "web") == 403, "without a token there are no claims"
    request = "GET / HTTP/1.1\\r\\nHost: payment\\r\\nAuthorization: Bearer x\\r\\nConnection: close\\r\\n\\r\\n"
    assert 'www-authenticate: bearer error="invalid_token"' in shop.dial("web", "payment:80", "-send", request)[0]["received"].lower()


def test_keys_that_the_issuer_serves_are_fetched_and_kept_when_it_is_down(shop, policy):
    policy(takes_tokens(jwksUri=f"http://issuer.{shop.name}.svc/jwks"))
    good = token(shop)
    until("the keys have been fetched", lambda: status(shop, "web", "/", *with_token(good)) == 200)
    bad = token(shop, key="other")
    shop.scale("issuer", 0)
    try:
        until("the issuer is gone", lambda: not shop.list("Pod", "app=issuer"))
        shop.patch("SecurityPolicy", "tokens", {"spec": {"jwt": [{**takes_tokens()["spec"]["jwt"][0], "jwksUri": f"http://issuer.{shop.name}.svc/jwks", "audiences": ["payment", "other"]}]}})
        shop.await_condition("SecurityPolicy", "tokens", Accepted="True", Programmed="True")
        assert status(shop, "web", "/", *with_token(good)) == 200
        assert status(shop, "web", "/", *with_token(bad)) == 401
    finally:
        shop.scale("issuer", 1)
        shop.await_rollout("issuer")


def test_keys_that_were_never_had_refuse_and_are_reported(shop):
    shop.create(takes_tokens(jwksUri=f"http://nobody.{shop.name}.svc/jwks"))
    try:
        reported = shop.await_condition("SecurityPolicy", "tokens", Accepted="True", ResolvedRefs="False")
        condition = next(it for it in reported["status"]["conditions"] if it["type"] == "ResolvedRefs")
        assert f"nobody.{shop.name}.svc" in condition["message"], condition
        good = token(shop)
        until("a token that cannot be judged is refused", lambda: status(shop, "web", "/", *with_token(good)) == 401)
    finally:
        shop.delete("SecurityPolicy", "tokens")
        until("everybody is served", lambda: status(shop, "web") == 200)


# The path as it is written, who is to decide on it, and what arrives: 403 for what means /secret, however it is spelled.
SPELLINGS = [
    ("/secret", 403),
    ("/secret/", 403),
    ("/secret/x", 403),
    ("/secret?x=1", 403),
    ("//secret", 403),
    ("/./secret", 403),
    ("/open/../secret", 403),
    ("/%73ecret", 403),
    ("/%73%65%63%72%65%74", 403),
    ("/open/%2e%2e/secret", 403),
    ("/open/%2E%2E/secret/x", 403),
    ("/../secret", 403),
    ("/secret;a=b", 403),
    ("/secret/.", 403),
    ("/secret%2Fx", 400),
    ("/open%2F..%2Fsecret", 400),
    ("/open/..;/secret", 400),
    ("/secret%5Cx", 400),
    ("/open\\\\..\\\\secret", 400),
    ("/secret%00", 400),
    ("/secret%zz", 400),
    ("/secrets", 200),
    ("/open", 200),
    ("/SECRET", 200),
    ("/open/secret", 200),
    ("/open//..//secret", 200),  # `..` takes the empty segment away: what arrives is /open/secret
]


def test_no_other_spelling_of_a_path_gets_past_a_policy(shop, policy):
    policy(apps.security_policy("secret", {"paths": ["/secret/*"]}, target="payment", action="Deny"))
    requests = [f"GET {path} HTTP/1.1\\r\\nHost: payment\\r\\nConnection: close\\r\\n\\r\\n" for path, _ in SPELLINGS]
    met = shop.dial("web", "payment:80", *(word for request in requests for word in ("-send", request)))
    for (path, wanted), one in zip(SPELLINGS, met, strict=True):
        found = one["received"].split(" ")[1] if one["received"].startswith("HTTP/1.1 ") else "nothing"
        assert found == str(wanted), f"{path}: {one}"
        assert '"target":"/secret' not in one["received"].replace('"target":"/secrets"', ""), f"{path}: the app was asked for it"


def test_what_was_decided_on_is_what_is_forwarded(shop, policy):
    policy(apps.security_policy("open", {"paths": ["/open/*", "/M%C3%A9"]}, target="payment"))
    for written, arrived in [("/open/./a//b/../c", "/open/a/c"), ("/%6fpen/%7ea", "/open/~a"), ("/open/%c3%a9", "/open/%C3%A9"), ("/M%c3%a9", "/M%C3%A9")]:
        request = f"GET {written}?q=/./a HTTP/1.1\\r\\nHost: payment\\r\\nConnection: close\\r\\n\\r\\n"
        answer = shop.dial("web", "payment:80", "-send", request)[0]["received"]
        assert answer.startswith("HTTP/1.1 200 ") and f'"target":"{arrived}?q=/./a"' in answer, f"{written}: {answer}"


def test_without_rules_on_paths_the_path_is_not_touched(shop):
    request = "GET /a/../b//%2F%5c HTTP/1.1\\r\\nHost: payment\\r\\nConnection: close\\r\\n\\r\\n"
    assert '"target":"/a/../b//%2F%5c"' in shop.dial("web", "payment:80", "-send", request)[0]["received"]


def test_bad_references_are_reported_and_harm_nobody(shop):
    shop.create(apps.security_policy("for-nobody", POST_ONLY, target="nobody"))
    reported = shop.await_condition("SecurityPolicy", "for-nobody", Accepted="False")
    condition = next(it for it in reported["status"]["conditions"] if it["type"] == "Accepted")
    assert condition["reason"] == "TargetNotFound" and "nobody" in condition["message"], condition
    assert status(shop, "web") == 200
    shop.delete("SecurityPolicy", "for-nobody")


def test_the_posture_of_the_mesh_holds_where_no_policy_does(shop, policy):
    def posture(value):
        words = ["upgrade", "leno", ROOT / "charts/leno", "-n", "leno-system", "--reuse-values", "--set", f"authorization.default={value}"]
        helm(*words, "--wait", "--timeout", "120s")

    posture("Deny")
    try:
        until("nobody is served any more", lambda: status(shop, "web") == 403)
        assert status(shop, "outsider", "/healthz") == 200, "whoever asks as the kubelet does is"
        policy(apps.security_policy("web-may", {"from": [{"serviceAccount": "web"}]}, target="payment"))
        assert (status(shop, "web"), status(shop, "orders")) == (200, 403)
    finally:
        posture("Allow")
    until("everybody is served again", lambda: status(shop, "orders", service="issuer", path="/jwks") == 200)
