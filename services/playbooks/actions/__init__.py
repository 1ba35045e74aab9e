"""The kinds of actions of playbooks: one file each, listed in services/playbooks/table.py."""
