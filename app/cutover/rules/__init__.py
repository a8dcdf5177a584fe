"""The rules of `checks.py`: one function a rule, from a Situation to Findings, a module for each kind of thing."""
