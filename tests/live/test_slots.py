"""The hand-over of one item: the newest wins, the others are counted, and nobody who puts waits."""

import threading

from sonogravity.live.slots import Slot


def test_the_newest_item_wins_and_the_others_are_counted():
    slot = Slot()
    for item in (1, 2, 3):
        slot.put(item)
    assert (slot.take(), slot.dropped) == (3, 2)
    assert slot.take_now() is None
    slot.put(4)
    assert (slot.take_now(), slot.dropped) == (4, 2)


def test_who_takes_waits_for_an_item_or_the_end():
    slot, found, has_one = Slot(), [], threading.Event()

    def take_two():
        found.append(slot.take())
        has_one.set()
        found.append(slot.take())

    taker = threading.Thread(target=take_two)
    taker.start()
    slot.put("frame")
    assert has_one.wait(5)
    slot.close()
    taker.join(5)
    assert found == ["frame", None]


def test_a_closed_slot_takes_and_gives_nothing():
    slot = Slot()
    slot.put(1)
    slot.close()
    slot.put(2)
    assert (slot.take(), slot.take_now(), slot.dropped) == (None, None, 0)


def test_what_nobody_wants_any_longer_is_not_counted():
    slot = Slot()
    slot.put(1)
    slot.clear()
    slot.put(2)
    assert (slot.take(), slot.dropped) == (2, 0)


def test_each_item_is_taken_or_counted_between_threads():
    slot, taken = Slot(), []

    def take_all():
        while (item := slot.take()) is not None:
            taken.append(item)

    taker = threading.Thread(target=take_all)
    taker.start()
    for item in range(1, 5001):
        slot.put(item)
    while not taken or taken[-1] != 5000:
        assert taker.is_alive()
    slot.close()
    taker.join(5)
    assert taken == sorted(taken) and len(taken) + slot.dropped == 5000
