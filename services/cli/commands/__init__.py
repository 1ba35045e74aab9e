"""The commands of `llm-im`, each in a file that bears the word that is typed."""
