#!/bin/sh
# The double of cryoCARE_extract_train_data.py; DOUBLES_PYTHON is an interpreter that has crboost.
PYTHONPATH="$(dirname "$(readlink -f "$0")")/../..${PYTHONPATH:+:$PYTHONPATH}" \
    exec "${DOUBLES_PYTHON:-python3}" -m doubles.cryocare cryoCARE_extract_train_data.py "$@"
