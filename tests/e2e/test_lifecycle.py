"""The chart from upgrade to uninstall, with traffic all the while. These tests come last: they end the mesh."""

import pytest

import apps
from cluster import ROOT, Refused, helm, kubectl, path_of, until
from load import Load

CHART = ROOT / "charts/leno"
WEBHOOK = path_of("MutatingWebhookConfiguration", name="leno-injector")


def APPS():
    return apps.payment(apps.traffic_policy("payment", apps.route("all", v1=1)))


def ca_bundles(api):
    return [it["clientConfig"].get("caBundle") for it in api.json("GET", WEBHOOK)["webhooks"]]


def test_an_upgrade_keeps_the_webhooks_trust_and_the_traffic(api, shop):
    before = ca_bundles(api)
    assert len(before) == 2 and all(before)
    with Load(shop, "web") as load:
        words = ["upgrade", "leno", CHART, "-n", "leno-system", "--reuse-values", "--set", "controller.podAnnotations.upgraded=yes"]
        helm(*words, "--wait", "--timeout", "120s")
        shop.create(apps.client("born-after-the-upgrade"))
        shop.await_pods("born-after-the-upgrade")
        load.run_for(1)
    load.assert_flawless()
    assert ca_bundles(api) == before
    names = [it["name"] for it in shop.get("Pod", "born-after-the-upgrade")["spec"]["initContainers"]]
    assert "leno-proxy" in names


def test_an_uninstall_leaves_the_kinds_the_objects_and_the_traffic_and_an_install_finds_them(api, shop):
    values = helm("get", "values", "leno", "-n", "leno-system", "-o", "json")
    with Load(shop, "web") as load:
        helm("uninstall", "leno", "-n", "leno-system", "--wait", "--timeout", "120s")
        with pytest.raises(Refused, match="not found"):
            api.json("GET", WEBHOOK)
        for plural in ("meshservices", "trafficpolicies"):
            assert api.json("GET", path_of("CustomResourceDefinition", name=f"{plural}.leno.dev"))["spec"]
        assert shop.get("MeshService", "payment") and shop.get("TrafficPolicy", "payment")
        shop.create(apps.client("without-the-mesh"))
        shop.await_pods("without-the-mesh")
        load.run_for(2)
        helm("install", "leno", CHART, "-n", "leno-system", "-f", "-", "--wait", "--timeout", "120s", stdin=values)
        shop.patch("TrafficPolicy", "payment", {"spec": {"routes": [apps.route("all", v2=1)]}})
        shop.await_condition("TrafficPolicy", "payment", Accepted="True", Programmed="True")
        until("the old sidecars follow the new controllers", lambda: shop.fetch("web", "http://payment/")["version"] == "v2")
    load.assert_flawless()
    assert "initContainers" not in shop.get("Pod", "without-the-mesh")["spec"]


def test_the_chart_passes_helms_own_checks():
    assert "0 chart(s) failed" in helm("lint", CHART, "--strict")
    assert "leno" in kubectl("get", "crd", "trafficpolicies.leno.dev")
