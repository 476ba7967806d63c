from __future__ import annotations

import signal

import pytest

from service.interrupts import heard_as_interrupts, interrupts_held, on_interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_as_ctrl_c_and_its_echo_is_not(number: int) -> None:
    with heard_as_interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_does_what_ctrl_c_would_do_there() -> None:
    heard: list[str] = []
    with heard_as_interrupts(), on_interrupt(lambda: heard.append("interrupt")):
        signal.raise_signal(signal.SIGTERM)
    assert heard == ["interrupt"]


def test_what_ignores_ctrl_c_in_the_background_hears_the_signal() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard_as_interrupts(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_outlives_its_terminal_goes_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with heard_as_interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interruption_is_held_until_what_was_begun_is_known() -> None:
    begun = []

    def begin() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGTERM)
            begun.append("process")

    with heard_as_interrupts(), pytest.raises(KeyboardInterrupt):
        begin()
    assert begun == ["process"]
