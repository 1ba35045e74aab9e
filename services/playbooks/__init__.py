"""What runs of playbooks ask for: conditions, templates, policy, and the actions. Called by responders through port Worker."""
