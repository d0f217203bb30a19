#!/bin/sh
# The double of cryoCARE_train.py; DOUBLES_PYTHON is an interpreter that has crboost.
PYTHONPATH="$(dirname "$(readlink -f "$0")")/../..${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${DOUBLES_PYTHON:-python3}" -m doubles.cryocare cryoCARE_train.py "$@"
