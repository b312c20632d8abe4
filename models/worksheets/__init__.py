"""Worksheets: a task that a very small model can learn, and that several workers solve sooner than one."""

from .items import Item, Worksheet, random_worksheet

__all__ = ["Item", "Worksheet", "random_worksheet"]
