"""One command for each stage of dvc.yaml: read, call the library, write."""
