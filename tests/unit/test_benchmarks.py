"""What the benchmarks make of their figures; the figures themselves are no matter for a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import benchmarks.journal.report
import benchmarks.rotation.report
import benchmarks.speed.report
import benchmarks.tokens.report
from benchmarks.recording import PAGES, Document, beside, load, when
from benchmarks.speed.against import AGAIN, BURSTS, OTHER, THIS, compared, table
from benchmarks.speed.lab import Contestant, Lab
from benchmarks.speed.peers import GMQTT, IN_ASYNCIO, OURS, OURS_IN_ASYNCIO, WITH_THREADS, ZMQTT
from benchmarks.speed.report import table as speed_table
from benchmarks.speed.rows import Row, Rows
from benchmarks.speed.shortfalls import shortfalls
from benchmarks.speed.targets import verdicts
from benchmarks.speed.traffic import LATENCY, THROUGHPUT

RENDER: dict[str, Callable[[Document], str]] = {
    "journal": benchmarks.journal.report.render,
    "rotation": benchmarks.rotation.report.render,
    "speed": benchmarks.speed.report.render,
    "tokens": benchmarks.tokens.report.render,
}


@pytest.mark.parametrize("benchmark", PAGES)
def test_the_page_of_a_benchmark_is_the_one_that_its_results_generate(benchmark: str) -> None:
    page = RENDER[benchmark](load(benchmark))

    assert PAGES[benchmark].read_text() == page, f"run python -m benchmarks.{benchmark} --page"


def _row(this: list[float], *, more: bool = False) -> Row:
    """Ten rounds, of which the other checkout differs from itself by up to two percent."""
    again = [100.0, 102.0, 98.0, 101.0, 99.0, 100.0, 102.0, 98.0, 101.0, 99.0]
    return Row("time", "sample", "ms", more, {OTHER: [100.0] * 10, THIS: [*this], AGAIN: [*again]})


@pytest.mark.parametrize(
    ("this", "more", "verdict"),
    [(110.0, False, "**slower**"), (90.0, False, "faster"), (90.0, True, "**slower**"), (110.0, True, "faster")],
)
def test_a_checkout_that_differs_by_more_than_the_noise_is_named(this: float, more: bool, verdict: str) -> None:
    row = _row([this] * 10, more=more)
    rows = Rows([row])

    one = compared(row)

    assert one is not None
    assert one.verdict == verdict
    slower = "sample" if "slower" in verdict else "none"
    assert f"Slower by more than the noise: {slower} (of 1 rows)." in table(rows)


def test_a_checkout_that_differs_by_less_than_the_noise_is_not_named() -> None:
    one = compared(_row([101.0] * 10))

    assert one is not None
    assert one.ratio == pytest.approx(1.01)
    assert one.verdict == ""


def test_the_noise_is_at_least_that_of_the_ratios_themselves() -> None:
    one = compared(_row([120.0, 80.0, 130.0, 75.0, 118.0, 82.0, 125.0, 85.0, 115.0, 90.0]))

    assert one is not None
    assert one.noise > 0.1
    assert one.verdict == ""


def test_a_checkout_can_do_everything_in_which_it_is_compared() -> None:
    lab = Lab.__new__(Lab)  # without a broker
    lab.contestants = {OTHER: Contestant(OURS)}
    for burst in BURSTS:
        assert lab.able(burst.do, qos=burst.qos, protocol=burst.protocol) == [OTHER], burst


def test_the_asyncio_libraries_are_compared_with_this_library_in_asyncio() -> None:
    values: dict[str, list[float | None]] = {OURS: [800.0], OURS_IN_ASYNCIO: [400.0], GMQTT: [100.0]}
    row = Row("throughput", "sample", "1/s", more=True, values=values, failures={ZMQTT: "no"})

    assert speed_table([row], WITH_THREADS).splitlines()[-1] == "| sample | 800 | 100, **8.00 x** |"
    assert speed_table([row], IN_ASYNCIO).splitlines()[-1] == "| sample | 400 | 100, **4.00 x** | failed |"


def test_there_is_no_table_of_libraries_that_were_not_measured() -> None:
    assert not speed_table([_row([100.0] * 10)], IN_ASYNCIO)


def test_a_run_of_some_parts_keeps_the_others_and_says_from_when_they_are() -> None:
    earlier: Document = {"date": "2026-01-02", "load": "0.3", "remarks": {}}
    earlier["rows"] = [{"section": "Idle", "name": "old"}, {"section": "Latency", "name": "old"}]

    joined = beside(
        {"date": "2026-03-04", "rows": [{"section": "Latency", "name": "new"}], "remarks": {}}, earlier, "section"
    )

    assert [(row["section"], row["name"]) for row in joined["rows"]] == [("Idle", "old"), ("Latency", "new")]
    assert joined["date"] == "2026-03-04"
    assert joined["remarks"].keys() == {"Idle"}
    assert "2026-01-02" in joined["remarks"]["Idle"]


def test_a_target_that_is_missed_by_less_than_two_digits_show_is_printed_with_three() -> None:
    def row(ratio: float, protocol: str) -> Row:
        values: dict[str, list[float | None]] = {OURS: [1000 * ratio], GMQTT: [1000.0]}
        return Row(THROUGHPUT, f"receive, QoS 1, 64 B, {protocol}", "1/s", more=True, values=values)

    (verdict,) = [
        one
        for one in verdicts(Rows([row(1.196, "MQTT 5"), row(1.1, "MQTT 3.1.1")]))
        if one.figure == "receive, QoS 1, 64 B, plain" and "gmqtt" in one.target
    ]

    assert verdict.measured == "1.196 x (MQTT 5), 1.10 x (MQTT 3.1.1)"
    assert verdict.reached is False


def test_the_page_on_speed_names_what_another_library_does_better_and_nothing_else() -> None:
    def row(ours: float, peer: str) -> Row:
        return Row(LATENCY, "publish() to arrival", "ms", values={OURS_IN_ASYNCIO: [ours], peer: [1.0]})

    assert "**Latency on asyncio**: until a message arrives, 0.50 x against gmqtt." in shortfalls(
        Rows([row(2.0, GMQTT)])
    )
    assert "Latency" not in shortfalls(Rows([row(0.5, GMQTT)]))


def test_a_page_says_which_of_its_tables_the_newest_run_has_measured() -> None:
    document: Document = {"date": "2026-03-04", "load": "0.1", "rows": [{"section": "Idle"}, {"section": "Latency"}]}

    assert when(document | {"remarks": {}}, "section") == "The run was on 2026-03-04, load 0.1 at the start."
    assert "2026-03-04, load 0.1 at the start, measured only: Idle." in when(
        document | {"remarks": {"Latency": "From an earlier run."}}, "section"
    )
