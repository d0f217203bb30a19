#!/bin/sh
# The double of pytom_match_template.py; DOUBLES_PYTHON is an interpreter that has crboost.
PYTHONPATH="$(dirname "$(readlink -f "$0")")/../..${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${DOUBLES_PYTHON:-python3}" -m doubles.pytom pytom_match_template.py "$@"
