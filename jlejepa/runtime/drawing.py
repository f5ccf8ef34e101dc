"""Draw pictures without putting a run at risk."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def draw(
  name: str,
  function: Callable[..., Any],
  path: Path,
  *args: Any,
  **kwargs: Any,
) -> dict[str, str]:
  """Draws one picture, or says on stderr why it cannot be drawn.

  A missing library, a full disk or numbers that show nothing cost the picture
  alone: a run's numbers are safe without it.

  Args:
    name: what the picture shows.
    function: `(path, *args, **kwargs)`, which returns the path of the file that
      it wrote.
    path: where to; its folder is made.
    *args: of the function, and so are `**kwargs`.

  Returns:
    `{name: path of the file}`, or nothing.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    return {name: str(function(path, *args, **kwargs))}
  except (ImportError, RuntimeError, OSError, ValueError) as error:
    print(f"no {name}: {error}", file=sys.stderr)
    return {}
