"""Reads the incidents of a window, for figures and exports."""
