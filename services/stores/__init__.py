"""Where state is stored: one folder for each technology, one file for each port. choice.py picks one."""
