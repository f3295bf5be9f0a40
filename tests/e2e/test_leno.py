"""The command `leno` on a real cluster: who holds which certificate, what becomes of a request, and how the mesh is."""

import json

import apps
from cluster import leno, until

POST_ONLY = {"from": [{"serviceAccount": "orders"}], "methods": ["POST"]}


def APPS():
    return [
        *(apps.service_account(name) for name in ("orders", "web")),
        apps.server("payment"),
        apps.service("payment"),
        apps.security_policy("payment", POST_ONLY, target="payment"),
        *(apps.client(name, serviceAccountName=name) for name in ("orders", "web")),
        apps.client("outsider", annotations=apps.NO_INJECT),
    ]


def test_identity_lists_every_sidecar_with_the_certificate_it_holds(shop):
    served = shop.pod_of("app=payment")
    want = {f"{shop.name}/{pod}": account for pod, account in [("orders", "orders"), ("web", "web"), (served, "default")]}

    def listed():
        told = json.loads(leno("identity", "-n", shop.name, "-o", "json"))
        return told if {it["pod"] for it in told["proxies"]} == want.keys() else None

    told = until("every sidecar is listed, and nobody else", listed)
    for proxy in told["proxies"]:
        assert proxy["identity"] == f"spiffe://{told['trustDomain']}/ns/{shop.name}/sa/{want[proxy['pod']]}", proxy
        assert proxy["issuer"] == told["issuer"] and told["issuer"] in told["roots"], (proxy, told)
        assert proxy["notAfter"] and proxy["serial"], proxy
    table = leno("identity", "-n", shop.name)
    assert len(table.splitlines()) == 1 + len(want) and "expired" not in table and "former" not in table, table


def explained(shop, method, *flags):
    """What is said of a request for `/`, and what the exit code means."""
    out = leno("explain", method, f"http://payment.{shop.name}/", "-o", "json", *flags, check=False)
    return json.loads(out)


def test_explain_says_what_the_mesh_then_does(shop):
    shop.await_condition("SecurityPolicy", "payment", Accepted="True", Programmed="True")
    shop.await_reply("orders", "http://payment/", "-status", "403")
    for pod in ("orders", "web", "outsider"):
        for method in ("GET", "POST"):
            (status,) = shop.count(pod, "get", "http://payment/", "-method", method)["byStatus"]
            told = explained(shop, method, "--from", f"{shop.name}/{pod}")
            assert (told["outcome"] == "routed") == (status == "200"), f"{method} from {pod} is answered {status}: {told}"
            assert told["service"]["name"] == f"{shop.name}/payment" and told["access"], told
    told = explained(shop, "POST", "--as", f"{shop.name}/orders")
    assert told["outcome"] == "routed", told


def test_check_finds_nothing_to_mend_in_a_mesh_that_is_well(shop):
    findings = until("nothing is broken or to be looked at", lambda: all_well(json.loads(leno("check", "-o", "json", check=False))))
    said = {it["what"] for it in findings}
    assert {"kinds", "controller", "webhook", "serving certificate", "authority"} <= said, findings
    assert leno("check").count("✓") == len(findings)


def all_well(findings):
    bad = [it for it in findings if it["level"] != "well"]
    assert not bad, bad
    return findings
