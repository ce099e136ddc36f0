"""Introduced in task 1; used by task 1.

Figures of quality for generated digits: the judge, the Fréchet distance, and the report that joins them.
"""
