"""The report of a sweep as one self-contained HTML file: its document, and the page that shows it."""
