"""The judge is judged: what Load believes of the logs. No cluster is needed."""

from cluster import Refused, until
from load import Arrivals


class Node:
    """A namespace of one pod whose node has the log, or an answer of another kind, each time it is asked."""

    def __init__(self, *answers, looks=()):
        self.answers, self.looks, self.there = list(answers), list(looks), True

    def list(self, kind, selector):
        if self.looks and (error := self.looks.pop(0)):
            raise error
        return [] if self.looks else [self.get(kind, "payment")]

    def get(self, kind, name):
        if not self.there:
            raise Refused(404, f"{name} not found")
        return {"metadata": {"name": name}}

    def follow_log(self, pod, container):
        answer = self.answers.pop(0) if self.answers else Refused(404, "gone")
        self.there = bool(self.answers)
        if isinstance(answer, Exception):
            raise answer
        yield from answer


def total_of(*answers):
    """How many marks are counted in the end, when a pod's log is answered so, and the pod then goes away."""
    node = Node(*answers)
    arrivals = Arrivals(node, "app=payment")
    arrivals.follow("payment")  # which ends when the pod is gone
    assert not node.there, "it gave up on a pod that was there"
    return arrivals.total("m-")


def test_a_log_is_read_though_the_node_had_not_heard_of_the_pod_when_it_was_asked():
    assert total_of(Refused(404, "pod payment does not exist"), ["arrived POST m-1", "arrived POST m-2"], []) == 2


def test_a_log_is_read_though_its_container_did_not_run_yet():
    assert total_of([], Refused(400, "container app is waiting to start"), ["arrived POST m-1"], []) == 1


def test_a_log_that_was_cut_off_is_read_on_from_there():
    assert total_of(["arrived POST m-1"], OSError("cut off"), ["arrived POST m-1", "arrived POST m-2"], []) == 2


def test_pods_are_looked_for_again_when_a_look_failed():
    arrivals = Arrivals(Node(["arrived POST m-1"], [], looks=[None, Refused(500, "busy"), OSError("reset")]), "app=payment")
    arrivals.start()
    until("the log is read", lambda: arrivals.total("m-") == 1, 10)
    arrivals.stop()
