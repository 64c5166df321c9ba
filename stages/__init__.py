"""The stages of dvc.yaml and tuning/dvc.yaml, a file each: read, call isoparam, write.

Here belongs what decides the bytes of one stage's output. A stage imports no other stage.
"""

import pipeline  # noqa: F401 (it reports too little memory, from the first import on)
