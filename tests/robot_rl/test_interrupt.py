import os
import signal
import threading
from collections.abc import Iterator

import pytest

from robot_rl.interrupt import Interrupt, held_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_the_same_again_insists(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.requested is number
        assert interrupt.exit_status == 128 + number
        assert "again" in capsys.readouterr().err
        other = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT
        os.kill(os.getpid(), other)
        assert interrupt.requested is number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_elsewhere_than_in_the_main_thread_it_does_nothing() -> None:
    seen = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.exit_status)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_libraries_are_loaded(interruptible: None) -> None:
    loaded = False

    def load() -> None:
        nonlocal loaded
        with held_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            loaded = True

    with pytest.raises(KeyboardInterrupt):
        load()
    assert loaded
    with held_interrupts(), pytest.raises(ImportError, match="broken"):
        raise ImportError("broken")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_interrupts_goes_on_to(interruptible: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
