"""`python -m services.cli`: the same as `llm-im`. The wrapper that `make up` puts into .venv/bin calls this."""

from services.cli.main import main

main()
