"""Boards: records in, tables, pages and verdicts out."""
