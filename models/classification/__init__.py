"""Rules that give an incident its severity, type and impact."""
