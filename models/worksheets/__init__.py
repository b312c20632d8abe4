"""Worksheets: a task that a very small model can learn, and that several workers solve sooner than one.

items -> collaboration (what perfect workers write) -> batches (as arrays) -> network, optimizer, train -> export
"""

from .items import MAX_ITEMS, Item, Worksheet, random_worksheet

__all__ = ["MAX_ITEMS", "Item", "Worksheet", "random_worksheet"]
