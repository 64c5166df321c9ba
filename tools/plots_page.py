"""Makes the pages of `dvc plots` work offline: a template that contains the drawing library."""

from pathlib import Path

import vl_convert

from pipeline import commands, files

# DVC looks for it from its own folder; a name that no file has would break its pages, so that the
# setting is local, as the file is.
TEMPLATE = Path(".dvc/plots_page.html")
# Charts and pictures stand side by side as far as the window is wide.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DVC plots</title>
{{refresh_tag}}
<style>
:root {{ color-scheme: light dark; font-family: sans-serif; }}
body {{ margin: 1rem; background: light-dark(#fff, #333); color: light-dark(#222, #eee); }}
main {{ display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }}
main > div {{ max-width: 100%; overflow-x: auto; }}
main > div:has(img) {{ flex: 1 0 100%; display: flex; flex-wrap: wrap; }}
main > div > p {{ flex: 1 0 100%; }}
main > div > div:has(img) {{ flex: 1 1 min(20rem, 90%); min-width: 0; }}
img {{ max-width: 100%; }}
table {{ border-spacing: 15px; }}
</style>
<script>{script}</script>
<script>
const embed = vegaEmbed;
const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : undefined;
vegaEmbed = (id, chart) => embed(id, chart, {{ renderer: "svg", theme }});
</script>
</head>
<body>
<main>
{{plot_divs}}
</main>
</body>
</html>
"""


def main() -> None:
    """Write the template and select it in this clone's configuration of DVC."""
    files.write(TEMPLATE, PAGE.format(script=vega()))
    commands.dvc("config", "--local", "plots.html_template", TEMPLATE.name)


def vega() -> str:
    """Vega, Vega-Lite and vegaEmbed as one script, with no other name in the global scope."""
    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub has no default
    return f"(() => {{{bundle}}})();"
