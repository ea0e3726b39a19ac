"""Says a `LiveState` in words: the cells and sentences of the live table, and the line for a log."""

from ..core import escaping
from ..core.counting import counted
from .collect import wilson
from .live_state import Busy, LiveState

COLUMNS = ("device", "worker", "row", "episodes", "succeeded", "elapsed", "left")
NAMES = 3  # run ids of a group of waiting rows that are named
LINE = 700  # characters of a line in a log


def cells(busy: Busy) -> tuple[str, ...]:
    """Returns the cells of a busy worker, in the order of COLUMNS."""
    name = busy.name if busy.attempt == 1 else f"{busy.name} (attempt {busy.attempt})"
    episodes = busy.doing or f"{busy.played} of {busy.episodes}"
    rate = success_rate(busy.successes, busy.played) if busy.played and not busy.doing else ""
    return (busy.device, busy.worker, name, episodes, rate, clock(busy.seconds), clock(busy.seconds_left))


def headline(state: LiveState) -> str:
    """Returns the campaign's progress in a line: phase, rows, episodes, time left and elapsed time."""
    words = [
        escaping.line(f"{state.campaign} {state.phase}"),
        state.rows
        and f"{state.ended} of {state.rows} rows ended" + (f" ({state.failed} failed)" if state.failed else ""),
        state.rows and f"{state.played} of {state.episodes} episodes",
        state.seconds_left is not None and f"about {clock(state.seconds_left)} left",
        f"elapsed {clock(state.seconds)}",
    ]
    return ", ".join(word for word in words if word)


def waiting_lines(state: LiveState) -> list[str]:
    """Returns a line for each thing that rows wait for, with the first of the rows."""
    return [
        f"{counted(len(group.run_ids), 'row')} for {group.what}: {', '.join(group.run_ids[:NAMES])}"
        + (", ..." if len(group.run_ids) > NAMES else "")
        for group in state.waiting
    ]


def line(state: LiveState) -> str:
    """Returns the state as one line for a log, without the names of the rows that wait."""
    busy = [" ".join(filter(None, [*cells(each)[:1], _in_words(each)])) for each in state.busy]
    idle = [f"{name} idle" for name in state.idle]
    waiting = [f"{counted(len(group.run_ids), 'row')} for {group.what}" for group in state.waiting]
    parts = [headline(state), *busy, *idle, *([f"waiting: {', '.join(waiting)}"] if waiting else [])]
    return escaping.line("; ".join(parts), LINE)


def _in_words(busy: Busy) -> str:
    _, _, name, episodes, rate, _, _ = cells(busy)
    unit = "" if busy.doing else " episodes"
    step = f", step {busy.steps[0]} of {busy.steps[1]}" if busy.steps and not busy.doing else ""
    return f"{name} {episodes}{unit}{step}" + (f", {rate}" if rate else "")


def success_rate(successes: int, episodes: int) -> str:
    """Returns the success rate of at least one episode with its 95% Wilson interval, in percent."""
    low, high = wilson(successes, episodes)
    return f"{100 * successes / episodes:.0f}% ({100 * low:.0f} to {100 * high:.0f})"


def clock(seconds: float | None) -> str:
    """Returns a time as `m:ss` or `h:mm:ss`; empty where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
