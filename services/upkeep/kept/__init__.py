"""What partitions keep beside their logs: table.py lists the ports, port.py says what each is asked."""
