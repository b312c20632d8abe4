"""Layouts, the worker loop, and the handle of a run."""
