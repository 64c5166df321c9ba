#!/bin/bash
# Sourced by the jobs that may run in parallel: change to a clone of the submitted commit, since DVC
# allows only one command at a time in a folder.
set -eu
export PATH="$SLURM_SUBMIT_DIR/.venv/bin:$PATH"
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone --quiet --no-checkout "$SLURM_SUBMIT_DIR" "$clone"
cd "$clone"
git checkout --quiet --detach "$COMMIT"
# The remote may be defined in this file only.
if [ -f "$SLURM_SUBMIT_DIR/.dvc/config.local" ]; then
    cp "$SLURM_SUBMIT_DIR/.dvc/config.local" .dvc/
fi
# A resubmitted job resumes from the last finished epoch.
ln -s "$SLURM_SUBMIT_DIR/.checkpoints" .checkpoints
