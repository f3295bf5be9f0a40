"""Requests that go to services of another namespace, which has to allow it by a ReferenceGrant of the Gateway API."""

import pytest

import apps
from cluster import Refused, path_of, until

APPS = apps.payment
NAME = "referencegrants.gateway.networking.k8s.io"
# Groups of Kubernetes itself ask for a word on who has approved a definition: nobody has approved this one, it is the tests'.
UNAPPROVED = {"api-approved.kubernetes.io": "unapproved, a minimal form for tests"}


def text(**fields):
    return {"type": "object", "properties": {name: {"type": "string"} for name in fields}, "required": [name for name, needed in fields.items() if needed]}


def definition():
    """As much of the Gateway API's ReferenceGrant as anybody needs here."""
    lists = {
        "from": {"type": "array", "items": text(group=True, kind=True, namespace=True)},
        "to": {"type": "array", "items": text(group=True, kind=True, name=False)},
    }
    spec = {"type": "object", "properties": lists, "required": ["from", "to"]}
    schema = {"type": "object", "properties": {"spec": spec}}
    names = {"kind": "ReferenceGrant", "plural": "referencegrants", "singular": "referencegrant"}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "annotations": UNAPPROVED},
        "spec": {"group": "gateway.networking.k8s.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def grant(source, **named):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "payment"},
        "spec": {
            "from": [{"group": "leno.dev", "kind": "TrafficPolicy", "namespace": source}],
            "to": [{"group": "", "kind": "Service", **named}],
        },
    }


@pytest.fixture
def books(api, mesh):
    """Another namespace in the mesh, with a service of its own."""
    mesh.create(apps.server("ledger", "books"), apps.service("ledger"), apps.client("reader"))
    mesh.await_rollout("ledger")
    mesh.await_pods("reader")
    mesh.await_reply("reader", "http://ledger/")
    return mesh


@pytest.fixture
def forget_the_kind(api):
    """The tests' definition of ReferenceGrant goes with the test; one that was there before stays."""
    there = exists(api)
    yield there
    if not there and exists(api):
        api.request("DELETE", path_of("CustomResourceDefinition", name=NAME))


def exists(api):
    try:
        return bool(api.json("GET", path_of("CustomResourceDefinition", name=NAME)))
    except Refused as refused:
        if refused.status == 404:
            return False
        raise


@pytest.mark.parametrize("http2", [[], ["-h2"]], ids=["HTTP/1.1", "HTTP/2"])
def test_another_namespace_is_reached_as_long_as_it_allows_it(api, shop, books, forget_the_kind, http2):
    was_there = forget_the_kind
    to_books = {"service": "ledger", "namespace": books.name}
    shop.create(apps.traffic_policy("payment", {"name": "ledger", "matches": [{"path": {"prefix": "/ledger"}}], "destinations": [to_books]}))

    def answers():
        counts = shop.count("web", "get", "http://payment/ledger", "-n", "20", *http2)
        return counts["byStatus"], counts["byVersion"]

    try:
        # Without a grant, and even without the kind.
        item = shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="False", Programmed="True")
        said = next(it for it in item["status"]["conditions"] if it["type"] == "ResolvedRefs")
        assert said["reason"] == "RefNotPermitted" and f"in namespace {books.name}" in said["message"], said
        until("the route holds, and leads nowhere", lambda: answers() == ({"500": 20}, {"none": 20}))
        assert shop.count("web", "get", "http://payment/", "-n", "20", *http2)["byStatus"] == {"200": 20}, "the rest goes on"

        # The kind is installed while everything runs, and the namespace allows it.
        if not was_there:
            until("the kind is installed", lambda: api.json("POST", path_of("CustomResourceDefinition"), definition()))
        until("a grant can be made", lambda: books.create(grant(shop.name, name="ledger")) is None)
        shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="True", Programmed="True")
        until("requests arrive there", lambda: answers() == ({"200": 20}, {"books": 20}))

        # It thinks better of it, and better again.
        books.patch("ReferenceGrant", "payment", {"spec": {"to": [{"group": "", "kind": "Service", "name": "another"}]}})
        until("it holds at once", lambda: answers() == ({"500": 20}, {"none": 20}))
        books.patch("ReferenceGrant", "payment", {"spec": {"to": [{"group": "", "kind": "Service"}]}})
        until("it holds at once", lambda: answers() == ({"200": 20}, {"books": 20}))
        books.delete("ReferenceGrant", "payment")
        shop.await_condition("TrafficPolicy", "payment", Accepted="True", ResolvedRefs="False", Programmed="True")
        until("without a grant it is as before", lambda: answers() == ({"500": 20}, {"none": 20}))
    finally:
        shop.delete("TrafficPolicy", "payment")
