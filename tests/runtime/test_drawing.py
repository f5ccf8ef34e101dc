import pytest

from jlejepa.runtime.drawing import draw


def test_the_path_is_that_of_the_file_written(tmp_path):
  def write(path, text, *, end):
    path = path.with_suffix(".gif")
    path.write_text(text + end)
    return path

  path = tmp_path / "plots" / "a.mp4"
  made = draw("episode", write, path, "x", end="y")
  assert made == {"episode": str(path.with_suffix(".gif"))}
  assert path.with_suffix(".gif").read_text() == "xy"


@pytest.mark.parametrize(
  "error", [ImportError, RuntimeError, OSError, ValueError]
)
def test_what_cannot_be_drawn_is_said_and_left_out(tmp_path, capsys, error):
  def fail(path):
    raise error("no ffmpeg")

  assert draw("episode", fail, tmp_path / "a.mp4") == {}
  assert capsys.readouterr().err == "no episode: no ffmpeg\n"


def test_a_folder_that_cannot_be_made_costs_the_picture(tmp_path, capsys):
  (tmp_path / "plots").write_text("a file")
  assert draw("curve", lambda path: path, tmp_path / "plots" / "a.png") == {}
  assert capsys.readouterr().err.startswith("no curve: ")


def test_a_defect_in_a_picture_is_not_hidden(tmp_path):
  with pytest.raises(ZeroDivisionError):
    draw("curve", lambda path: 1 / 0, tmp_path / "a.png")
