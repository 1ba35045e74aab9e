"""Who is told when something breaks: people, their schedules, and what happens when nobody answers."""
