"""What the control partition decides: slots, tokens, settings changed while it runs."""
