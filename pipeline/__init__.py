"""What runs the stages: parameters and their schema, commands, files, processes, trainings.

Here belongs what cannot change a byte of a stage's output. No stage depends on this folder in
dvc.yaml; the study on digits, whose hashes are recorded, stands guard over it.
"""
