import io

import pytest

from jlejepa.runtime.progress import Progress, clock_time


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def make(stream, clock, **kwargs):
  return Progress(stream=stream, clock=clock, **kwargs)


def test_file_gets_a_line_at_most_every_so_often():
  stream, clock = io.StringIO(), Clock()
  progress = make(stream, clock, total_steps=100, every=10)
  for step in range(25):
    progress.update(step)
    clock.now += 1
  progress.close()
  # Updates come at seconds 0 to 24, so lines at 0, 10 and 20.
  steps = [line.split()[1] for line in stream.getvalue().splitlines()]
  assert steps == ["0/100", "10/100", "20/100"]


def test_time_left_follows_the_speed_since_the_resume():
  stream, clock = io.StringIO(), Clock()
  progress = make(stream, clock, total_steps=100, every=0)
  progress.update(40)
  clock.now += 10
  progress.update(60, "loss 0.5")
  # 20 steps in 10 s: 2 steps/s, and 40 steps to go take 20 s.
  last = stream.getvalue().splitlines()[-1]
  assert last == "step 60/100  2 steps/s  loss 0.5  0:20 left"


def test_budget_counts_earlier_processes():
  stream, clock = io.StringIO(), Clock()
  progress = make(stream, clock, total_minutes=10, elapsed_minutes=4, every=0)
  clock.now += 60
  progress.update(1)
  assert stream.getvalue() == "step 1  5:00 left\n"


def test_the_sooner_of_steps_and_budget_is_the_time_left():
  stream, clock = io.StringIO(), Clock()
  progress = make(stream, clock, total_steps=1000, total_minutes=1, every=0)
  progress.update(0)
  clock.now += 10
  progress.update(10)
  assert stream.getvalue().splitlines()[-1].endswith("0:50 left")


def test_terminal_line_is_rewritten_and_wiped():
  stream, clock = Terminal(), Clock()
  progress = make(stream, clock)
  progress.update(1, "a long text")
  clock.now += 1
  progress.update(2)
  progress.close("done")
  text = stream.getvalue()
  first, second = text.split("\r")[1:]
  assert first == "step 1  a long text"
  assert second.rstrip("done\n").startswith("step 2  1 steps/s")
  assert len(second.split("\n")[0]) >= len(first)
  assert text.endswith("\ndone\n")


def test_quiet_prints_nothing():
  stream = Terminal()
  progress = make(stream, Clock(), quiet=True)
  progress.update(1)
  progress.close("done")
  assert stream.getvalue() == ""


@pytest.mark.parametrize(
  "seconds, text",
  [
    (-3, "0:00"),
    (0, "0:00"),
    (59.6, "1:00"),
    (754, "12:34"),
    (3661, "1:01:01"),
  ],
)
def test_clock_time(seconds, text):
  assert clock_time(seconds) == text
