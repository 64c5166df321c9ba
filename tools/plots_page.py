"""Let the pages of `dvc plots` draw without a network, by a template with the library in it."""

import subprocess
import sys
from pathlib import Path

import vl_convert

from pipeline import files

# DVC looks for it from its own folder; a name that no file has would break its pages, so that the
# setting is local, as the file is.
TEMPLATE = Path(".dvc/plots_page.html")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>DVC plots</title>
{{refresh_tag}}
<style>table {{ border-spacing: 15px; }}</style>
<script>{script}</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


def main() -> None:
    """Write the template and set it in this clone's own configuration of DVC."""
    files.write(TEMPLATE, PAGE.format(script=vega()))
    command = [sys.executable, "-m", "dvc", "config", "--local", "plots.html_template"]
    done = subprocess.run([*command, TEMPLATE.name], check=False)
    if done.returncode:
        raise ValueError(f"{TEMPLATE} is written, but DVC's configuration was not changed")


def vega() -> str:
    """Vega, Vega-Lite and vegaEmbed as one script, with no other name in the global scope."""
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
    return f"(() => {{{bundle}}})();"
