"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Figures of quality for generated digits: the judge, the Fréchet distance, and the report that joins them.
"""
