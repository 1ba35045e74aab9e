"""Pure decisions: records, rules and state machines. No I/O, clock, chance or Ray in here."""

VERSION = "0.3.0"
