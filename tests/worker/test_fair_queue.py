"""The fair queue: owners take turns for bounded places."""

from nfcli.worker.fair_queue import FairQueue


def test_an_owner_has_no_more_than_its_share_of_the_places() -> None:
    """Its other items wait although places are free."""
    queue = FairQueue[int](places=3, places_per_owner=2)
    assert [queue.put("a", n) for n in range(3)] == [True, True, False]
    assert queue.put("b", 9) is True
    assert (queue.waiting("a"), queue.waiting("b")) == (1, 0)
    assert queue.release("b") is None
    assert queue.release("a") == 2
    assert [queue.release("a"), queue.release("a")] == [None, None]


def test_owners_take_turns() -> None:
    """The items of each in the order in which they came."""
    queue = FairQueue[str](places=1, places_per_owner=1)
    assert queue.put("z", "z0")
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert not queue.put(item[0], item)
    served, owner = [], "z"
    while (item := queue.release(owner)) is not None:
        served.append(item)
        owner = item[0]
    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert queue.put("d", "d1")


def test_a_removed_item_gets_no_place() -> None:
    """And only an item that waits can be removed."""
    queue = FairQueue[str](places=1, places_per_owner=1)
    queue.put("a", "a1")
    queue.put("a", "a2")
    queue.put("b", "b1")
    assert [queue.remove("a", each) for each in ("a1", "a2", "a2")] == [False, True, False]
    assert queue.release("a") == "b1"
    assert queue.waiting("a") == 0
