"""The report: what the page says equals what the run folder holds, and nothing in it comes from or goes outside."""
