"""Commands for people, which no stage needs: `python -m tools` lists them.

Here belongs what reads results. No stage depends on this folder in dvc.yaml.
"""
