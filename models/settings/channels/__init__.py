"""Settings of receivers: one file for each type of receiver, on the base in models/settings/channels/base.py."""
