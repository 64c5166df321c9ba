"""Commands for people, which no stage needs: `python -m tools` lists them.

Here belongs what reads results. No stage depends on this folder in dvc.yaml.
"""

from pipeline import refuse_to_run

refuse_to_run("tools")
