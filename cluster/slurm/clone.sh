#!/bin/bash
# Read by the jobs that may run side by side: go to a clone of what was submitted, for DVC lets only
# one command at a time work in a folder.
set -eu
export PATH="$SLURM_SUBMIT_DIR/.venv/bin:$PATH"
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone --quiet --no-checkout "$SLURM_SUBMIT_DIR" "$clone"
cd "$clone"
git checkout --quiet --detach "$COMMIT"
# The remote may be known to this file alone.
if [ -f "$SLURM_SUBMIT_DIR/.dvc/config.local" ]; then
    cp "$SLURM_SUBMIT_DIR/.dvc/config.local" .dvc/
fi
# A job that is sent again goes on from the epochs that the last one finished.
ln -s "$SLURM_SUBMIT_DIR/.checkpoints" .checkpoints
