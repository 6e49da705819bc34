"""The report of a run: records, tables and curves, pictures, the page."""
