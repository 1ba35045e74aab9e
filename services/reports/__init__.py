"""Post-incident reports: one content, shown as JSON, Markdown and HTML."""
