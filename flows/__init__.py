"""The Prefect side of crboost: flows and tasks; no cryo-EM logic."""
