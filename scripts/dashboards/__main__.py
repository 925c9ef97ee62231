"""Write Grafana's dashboards into compose/grafana/: `python -m scripts.dashboards`. A test holds the files to this."""

import json
from pathlib import Path
from typing import Final

from scripts.dashboards.form import dashboard
from scripts.dashboards.pages import DASHBOARDS

FOLDER: Final = Path(__file__).resolve().parent.parent.parent / "compose" / "grafana"


def files() -> dict[str, str]:
    """Return the text of each file of compose/grafana/ by its name."""
    return {f"{page.name}.json": json.dumps(dashboard(page), indent=2) + "\n" for page in DASHBOARDS}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)
