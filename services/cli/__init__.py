"""`llm-im`: the program that people type. One command a file; main.py puts them together.

Imports of ray, pydantic and the stores stay inside the functions that need them: `llm-im --help` must be quick.
"""
