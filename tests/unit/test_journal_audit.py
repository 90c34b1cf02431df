"""The audit of the power cuts: what counts as lost, late or repeated, in the reports of one device."""

from __future__ import annotations

from tests.integration.journal_audit import Story
from tests.integration.journal_device import padding

SYNCED = [2, 4, 6, 8, 10, 12]  # changes of the disk that are syncs: what happened before the third is recorded


def story(*lives: list[str]) -> Story:
    """What a device has reported in its lives."""
    found = Story("pump")
    for reports in lives:
        found.add(reports)
        found.syncs.append(SYNCED)
    return found


def faults(found: Story, *arrived: tuple[int, int]) -> list[str]:
    """Those that the audit finds if these messages of topic ``a`` arrived: numbers and QoS."""
    found.check([("a", qos, b"%d " % number + padding(number)) for number, qos in arrived])
    return found.faults


def test_a_stored_message_that_does_not_arrive_is_lost() -> None:
    assert "lost: message 0" in faults(story(["p 0 a 1", "s 0"]))[0]
    assert not faults(story(["p 0 a 1"]))


def test_a_message_that_arrives_after_a_newer_one_is_late() -> None:
    published = ["p 0 a 2", "p 1 a 2"]
    assert "reordered: message 0" in faults(story(published), (1, 2), (0, 2))[0]
    assert not faults(story(published), (0, 2), (1, 2))


def test_a_message_of_a_lost_session_is_late_too() -> None:
    published = ["p 0 a 2", "p 1 a 2", "x", "y", "c 3 0"]
    assert "reordered: message 0" in faults(story(published), (1, 2), (0, 2))[0]


def test_a_message_may_be_late_if_the_broker_said_that_it_had_it_and_had_forgotten_it() -> None:
    """The session is lost, the device dies before it has recorded that, and the broker answers the PUBREL of the next
    life for a message that it does not have. The power is cut before the message is removed from the journal.
    """
    published = ["p 0 a 2", "s 0", "p 1 a 2", "s 1"]
    lives = [published, ["x", "y", "c 12 0"], ["c 3 1", "d 1 11"]]
    assert "reordered: message 0" in faults(story(*lives), (1, 2), (0, 2))[0]
    assert not faults(story(*lives[:2], ["c 3 1", "d 0 11"]), (1, 2), (0, 2))


def test_a_message_of_qos_2_arrives_once() -> None:
    published = ["p 0 a 2", "s 0", "d 0 11"]
    assert "twice: message 0" in faults(story(published, ["c 3 1"]), (0, 2), (0, 2))[0]
    assert not faults(story(["p 0 a 1"], ["c 3 1"]), (0, 1), (0, 1))


def test_a_message_of_qos_2_may_come_again_if_the_session_was_lost_before_its_removal_was_on_disk() -> None:
    """The session is taken over as the device dies: what it had removed from the journal just before is there again."""
    assert not faults(story(["p 0 a 2", "s 0", "d 0 11", "x", "y"], ["c 3 0"]), (0, 2), (0, 2))
    recorded = story(["p 0 a 2", "s 0", "d 0 1", "x", "y"], ["c 3 0"])
    assert "twice: message 0" in faults(recorded, (0, 2), (0, 2))[0]
