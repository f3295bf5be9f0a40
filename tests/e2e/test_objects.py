"""Bad objects: what a schema can see the API server refuses in words; the rest `status` reports, and the mesh goes on.

The tables are those of the API's own tests, so the real API server is held to the same words as `check`.
"""

import re

import pytest

import apps
from cluster import ROOT, Refused, kubectl, path_of

TABLES = ROOT / "src/api/tests/objects"
APPS = apps.payment


def table(name):
    return [pytest.param(path, id=path.stem) for path in sorted((TABLES / name).glob("*.yaml"))]


@pytest.fixture(scope="module")
def create(api):
    """Creates an object of a file without keeping it."""

    def dry_run(path):
        text = path.read_text()
        kind = re.search(r"^kind: (\w+)$", text, re.MULTILINE).group(1)
        query = "?dryRun=All&fieldValidation=Strict"
        return api.json("POST", path_of(kind, "default") + query, text.encode(), "application/yaml")

    return dry_run


@pytest.mark.parametrize("path", table("good"))
def test_good_objects_are_accepted(create, path):
    assert create(path)["metadata"]["name"]


@pytest.mark.parametrize("path", table("bad"))
def test_bad_objects_are_refused_in_words(create, path):
    words = re.search(r"^# refused: (.*)$", path.read_text(), re.MULTILINE).group(1)
    with pytest.raises(Refused) as refused:
        create(path)
    assert words in refused.value.message


def test_the_younger_of_two_policies_is_reported_and_the_older_stays_in_force(shop):
    shop.create(apps.traffic_policy("older", apps.route("all", v1=1), target="payment"))
    shop.await_condition("TrafficPolicy", "older", Accepted="True")
    shop.create(apps.traffic_policy("younger", apps.route("all", v2=1), target="payment"))
    younger = shop.await_condition("TrafficPolicy", "younger", Accepted="False")
    reported = accepted(younger)
    assert reported["reason"] == "Conflicted" and f"{shop.name}/older" in reported["message"], reported
    shop.await_reply("web", "http://payment/")
    assert shop.count("web", "get", "http://payment/", "-n", "50")["byVersion"] == {"v1": 50}
    shop.delete("TrafficPolicy", "older")
    shop.await_condition("TrafficPolicy", "younger", Accepted="True", Programmed="True")
    assert shop.count("web", "get", "http://payment/", "-n", "50")["byVersion"] == {"v2": 50}
    shop.delete("TrafficPolicy", "younger")


def test_a_version_that_does_not_exist_is_reported_and_costs_only_its_share(shop):
    shop.create(apps.traffic_policy("payment", apps.route("some", {"path": {"exact": "/lost"}}, v9=1), apps.route("all", v1=1)))
    policy = shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="False", Programmed="True")
    reported = next(it for it in policy["status"]["conditions"] if it["type"] == "ResolvedRefs")
    assert reported["reason"] == "VersionNotFound" and "v9" in reported["message"], reported
    assert shop.count("web", "get", "http://payment/lost", "-n", "10")["byStatus"] == {"500": 10}
    assert shop.count("web", "get", "http://payment/", "-n", "10")["byVersion"] == {"v1": 10}
    shop.delete("TrafficPolicy", "payment")


def test_a_bad_regex_is_reported_and_the_rest_of_the_mesh_goes_on(shop):
    bad = apps.route("bad", {"path": {"regex": "/items/[0-9"}}, v2=1)
    shop.create(apps.traffic_policy("payment", bad, apps.route("all", v1=1)))
    reported = accepted(shop.await_condition("TrafficPolicy", "payment", Accepted="False"))
    assert reported["reason"] == "Invalid" and "/items/[0-9" in reported["message"], reported
    assert shop.count("web", "get", "http://payment/", "-n", "20")["byStatus"] == {"200": 20}
    shop.patch("TrafficPolicy", "payment", {"spec": {"routes": [apps.route("all", v2=1)]}})
    shop.await_condition("TrafficPolicy", "payment", Accepted="True", Programmed="True")
    assert shop.count("web", "get", "http://payment/", "-n", "20")["byVersion"] == {"v2": 20}
    shop.delete("TrafficPolicy", "payment")


def test_a_policy_for_nothing_is_reported_and_holds_once_its_target_exists(shop):
    shop.create(apps.traffic_policy("later", timeout="5s"))
    reported = accepted(shop.await_condition("TrafficPolicy", "later", Accepted="False"))
    assert reported["reason"] == "TargetNotFound" and "later" in reported["message"], reported
    shop.create(apps.service("later", app="payment"), apps.mesh_service("later"))
    shop.await_condition("TrafficPolicy", "later", Accepted="True", ResolvedRefs="True")


def test_kubectl_explain_tells_what_fields_mean(api):
    told = kubectl("explain", "trafficpolicy.spec.routes")
    assert "FIELDS" in told and "destinations" in told and re.search(r"DESCRIPTION:\s+\S+", told)


def accepted(item):
    return next(it for it in item["status"]["conditions"] if it["type"] == "Accepted")
